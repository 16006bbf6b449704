"""The filter that a configuration asks for, and what init needs to pass it."""

from __future__ import annotations

import os
import sys

from pyrunc.kernel import seccomp as kernel_seccomp
from pyrunc.plan import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.seccomp.profile import Filter
    from pyrunc.spec.shapes import Process, Spec


def of_spec(spec: Spec, root: str) -> Filter | None:
    """The finished filter of linux.seccomp, None if there is none; `root` is where finished ones are kept."""
    wanted = (spec.get("linux") or {}).get("seccomp")
    if not wanted:
        return None
    from pyrunc.seccomp import compile as seccomp

    return seccomp.compile(wanted, root, starts=True)


def own_calls(compiled: Filter | None, process: Process) -> tuple[bytes, int]:
    """What lets init's own calls pass a filter that must be loaded before its last fork: plan.PlanOptions."""
    if compiled is None or (process.get("noNewPrivileges") and not compiled.notify):
        return b"", 0
    # It must be unpredictable: the filter allows calls that carry it. A register has no more bits.
    own = int.from_bytes(os.urandom(8), wire.ORDER) & (2 * sys.maxsize + 1)
    front = kernel_seccomp.own_calls(compiled.bpf, own)
    return front, own if front else 0

"""Makes a snapshot of this Python for the `pyrunc` command, and goes on where a process came out of one.

csrc/snapshot.h says what that is. Imported by launched only; imports what the verbs need, for that is the point of it.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from pyrunc import kernel
from pyrunc.errors import KernelError

# Everything that a verb may load of ours and is ours alone to pay for, and what only some configurations need. Not what
# only explains (argparse, jsonschema), not pyroute2: 20 MB; not trace, which tells when it was loaded.
MODULES = (
    *("pyrunc.cli", "pyrunc.commands", "pyrunc.runtime", "pyrunc.runtime_create", "pyrunc.runtime_exec"),
    *("pyrunc.runtime_events", "pyrunc.runtime_update", "pyrunc.runtime_wait", "pyrunc.cgroups.systemd"),
    *(
        "pyrunc.execspec",
        "pyrunc.notify",
        "pyrunc.rdt",
        "pyrunc.recorder",
        "pyrunc.render",
        "pyrunc.seccomp",
    ),
    *("pyrunc.signals", "pyrunc.stats", "pyrunc.updates", "pyrunc.usermaps"),
    *("_sha256", "prctl", "pwd", "resource"),
)


def keep(fd: int, watched: str) -> tuple[list[str], list[str]]:
    """Write the snapshot to `fd`, for as long as the file `watched` stays what it is, and end this process.

    Returns in the processes that come out of it: (argv without the program, what launched is told).
    """
    for name in MODULES:
        try:
            __import__(name)
        except ImportError:
            pass  # _sha256 has another name in other versions; prctl may be for nobody here
    # What is there now stays: a collection in a long `run` need not look at it, and so not copy its pages.
    gc.collect()
    gc.freeze()
    arrival = kernel.snapshot(fd, watched)
    if arrival is None:
        os._exit(0)
    argv, environment, told = arrival
    for known in (os.environ._data, sys.modules["posix"].environ):  # type: ignore[attr-defined]  # as os makes them
        known.clear()
        known.update(environment)
    if told[:1] == ["--try"]:
        os._exit(not _try())
    return argv[1:], told


def _try() -> bool:
    """Do once what depends on what libc and Python believe of their process; whether it went well."""
    size, count = 1 << 16, 64
    # More than the heap has room for, and one that gets a mapping.
    pieces = [bytes(size) for _ in range(count)] + [bytes(size * count)]
    try:
        kernel.spawn([b"nothing"], [], path="/")
    except KernelError as error:
        started = error.errno != errno.EACCES
    else:
        started = True
    __import__("_bisect")  # by the dynamic linker
    return sum(map(len, pieces)) == 2 * size * count and not started and not os.environ

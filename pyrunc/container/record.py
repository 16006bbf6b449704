"""What is recorded of a container, and the state document that hooks are given."""

from __future__ import annotations

import os
import time

from pyrunc import SPEC_VERSION
from pyrunc.errors import KernelError
from pyrunc.json_text import document as json_text
from pyrunc.kernel import container as kernel_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# A placeholder for the pid of the process that feeds a hook: init replaces this byte, which no JSON text has, by its
# own pid.
OWN_PID = -1
_OWN_PID_MARK = b"\x01"


def timestamp() -> str:
    """Return the time as RFC 3339 with nanoseconds, UTC: the `created` of a container."""
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        + f".{rest:09d}".rstrip("0").rstrip(".")
        + "Z"
    )


class Record:
    """What the `state` file says besides the document. `cgroups` are (controller, directory), in order of creation;
    `made` every directory that create made; `unit` is the cgroup manager's; `rdt` are resctrl.py's places; `needs` why
    a verb needs Python."""

    __slots__ = (
        "bundle",
        "cgroups",
        "created",
        "document",
        "made",
        "needs",
        "new_keyring",
        "pid",
        "pid_namespace",
        "pidns_private",
        "rdt",
        "start_time",
        "unit",
    )

    def __init__(
        self, *, bundle: str, rootfs: str, container_id: str, annotations: dict[str, str] | None
    ) -> None:
        self.pid = 0
        self.start_time = 0
        self.pid_namespace = 0
        self.needs: list[str] = []
        self.pidns_private = True
        self.new_keyring = True
        self.cgroups: Sequence[tuple[str, str]] = ()
        self.made: Sequence[str] = ()
        self.unit = ""
        self.rdt: Sequence[tuple[str, str]] = ()
        self.created = timestamp()
        self.bundle = bundle
        self.document: dict[str, object] = {
            "ociVersion": SPEC_VERSION,
            "id": container_id,
            "pid": 0,
            "status": "stopped",
            "bundle": bundle,
            "rootfs": rootfs,
            "created": self.created,
        }
        if annotations:
            self.document["annotations"] = annotations
        self.document["owner"] = ""

    def take_process(self, pid: int) -> None:
        """Record the container's process. Raise KernelError."""
        self.pid, self.start_time = pid, kernel_container.process_start_time(pid)
        namespace = "/proc/self/ns/pid"
        try:
            self.pid_namespace = os.stat(namespace).st_ino
        except OSError as error:
            raise KernelError("stat", error.errno or 0, namespace) from error

    def render(self) -> bytes:
        """Return the bytes of the `state` file."""
        lines = [
            f"pid {self.pid}",
            f"starttime {self.start_time}",
            f"needs {','.join(self.needs)}",
            f"pidns {'private' if self.pidns_private else 'shared'}",
            f"keyring {'new' if self.new_keyring else 'caller'}",
        ]
        if self.pid_namespace:
            lines.append(f"pidnsid {self.pid_namespace}")
        lines += [f"cgroup {controller}:{path}" for controller, path in self.cgroups]
        lines += [f"cgmade {path}" for path in self.made]
        if self.unit:
            lines.append(f"unit {self.unit}")
        lines += [f"rdt {role}:{path}" for role, path in self.rdt]
        header = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
        document = json_text.dumps(self.document, indent=2).encode("utf-8", "surrogateescape")
        return b"version 1\nsum %s\n%s\n%s\n" % (
            kernel_container.checksum(header).encode(),
            header,
            document,
        )

    def hook_state(self, status: str, pid: int | None = None) -> bytes:
        """Return the state JSON that a hook reads on its stdin (config.md, Hooks), with this status and pid."""
        return hook_state(self.document, status, self.pid if pid is None else pid)


def hook_state(document: dict[str, object], status: str, pid: int) -> bytes:
    """Return a state document for a hook's stdin, with this status and pid (OWN_PID: that of its feeding process)."""
    changed = {**document, "status": status, "pid": pid}
    del changed["owner"]
    text = json_text.dumps(changed).encode("utf-8", "surrogateescape")
    return text.replace(b'"pid":-1', b'"pid":' + _OWN_PID_MARK, 1) if pid == OWN_PID else text

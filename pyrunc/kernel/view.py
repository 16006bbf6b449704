"""One look at a container: what csrc/container/ found, as an object.

Made by kernel; may be imported by every module for its type. Imports nothing.
"""

from __future__ import annotations


class Container:
    """One look at a container, csrc/container/container.h has the meaning of each field.

    `status` is creating, created, running, paused or stopped, `pid` 0 when stopped, `init_pid` what it was before,
    `cgroups` (controllers, directory) pairs, `unit` what systemd knows the container by ("" when not at all), `rdt`
    host/resctrl.py's places, `document` the state as JSON text with pid and status filled in.
    """

    __slots__ = (
        "cgroups",
        "document",
        "init_pid",
        "made",
        "needs",
        "new_keyring",
        "pid",
        "pidns_private",
        "rdt",
        "start_time",
        "status",
        "unit",
    )

    def __init__(self, status: str, pid: int, start_time: int, header: str, document: bytes) -> None:
        self.status = status
        self.pid = pid
        self.init_pid = pid
        self.start_time = start_time
        self.document = document
        self.needs: list[str] = []
        self.pidns_private = True
        self.new_keyring = True
        self.cgroups: list[tuple[str, str]] = []
        self.made: list[str] = []
        self.unit = ""
        self.rdt: list[tuple[str, str]] = []
        for line in header.split("\n"):
            key, _, value = line.partition(" ")
            if key == "pid":
                self.init_pid = int(value)
            elif key == "needs":
                self.needs = value.split(",") if value else []
            elif key == "pidns":
                self.pidns_private = value == "private"
            elif key == "keyring":
                self.new_keyring = value == "new"
            elif key == "cgroup":
                controllers, _, path = value.partition(":")
                self.cgroups.append((controllers, path))
            elif key == "cgmade":
                self.made.append(value)
            elif key == "unit":
                self.unit = value
            elif key == "rdt":
                role, _, path = value.partition(":")
                self.rdt.append((role, path))

    @property
    def bundle(self) -> str:
        """The absolute path of the bundle."""
        from _json import scanstring

        text = self.document.decode("utf-8", "surrogateescape")
        mark = '\n  "bundle": "'
        at = text.find(mark)
        value: str = scanstring(text, at + len(mark))[0] if at >= 0 else ""
        return value

"""State directories that a test writes itself, with real processes and cgroups: what csrc/container/ finds."""

from __future__ import annotations

import os
import subprocess

import support
from pyrunc.container.record import Record
from pyrunc.kernel import container as kernel_container

DEAD = 2**22 + 1  # above any pid_max


def unsigned(record: Record) -> bytes:
    """The state file without its sum, for a test that changes it by hand. A sum may be missing."""
    lines = record.render().split(b"\n", maxsplit=2)
    return b"\n".join([lines[0], lines[2]])


class Root:
    """A directory of containers that the test writes itself, and the processes in them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.started: list[subprocess.Popen[bytes]] = []

    def at(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def record(self, pid: int = 0, /, **changes: object) -> Record:
        record = Record(bundle='/b\u00e4"x', rootfs="/b/rootfs", container_id="c1", annotations=None)
        record.pid = pid
        record.start_time = kernel_container.process_start_time(pid) if pid else 0
        for name, value in changes.items():
            setattr(record, name, value)
        return record

    def write(
        self,
        record: Record | bytes,
        container_id: str = "c1",
        name: str = "state",
        *,
        fifo: bool = False,
    ) -> str:
        directory = self.at(container_id)
        os.makedirs(directory, 0o700, exist_ok=True)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(record if isinstance(record, bytes) else record.render())
        if fifo:
            os.mkfifo(os.path.join(directory, "exec.fifo"))
        return directory

    def process(self, *argv: str) -> int:
        self.started.append(subprocess.Popen(argv or ("sleep", "1000"), stdin=subprocess.DEVNULL))
        return self.started[-1].pid

    def status(self, container_id: str = "c1") -> str:
        return kernel_container.state(self.path, container_id).status

    def alive(self, pid: int) -> bool:
        return not support.process_gone(pid)


def mount_of(kind: str, option: str) -> str | None:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            words = right.split()
            if words[0] == kind and option in words[2].split(","):
                return left.split()[4]
    return None


class Cgroup:
    """A cgroup of the test's own: `entry` as kernel/ wants it, `path`, and a parent that the test made, too."""

    def __init__(self, mount: str, controller: str, name: str) -> None:
        self.v1 = bool(controller)
        self.parent = os.path.join(mount, f"{support.ID_PREFIX}{name}")
        self.path = os.path.join(self.parent, "c1")
        self.entry = (controller, self.path)
        os.makedirs(self.path)

    def join(self, pid: int, below: str = "") -> None:
        directory = os.path.join(self.path, below)
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write(str(pid))

    def freeze(self) -> None:
        kernel_container.cgroup_freeze([self.entry])

"""A CRIU that does as a test says: it speaks the protocol of `criu swrk`, well or badly, and saves nothing.

Run as a program it reads the acts for its request from the file beside it that is named after it and ".json":
{"DUMP": [["notify", "network-lock"], ["die", 9]], …}. An act is a name and its arguments; what a request has no acts
for is answered well. A test gets one by `install`, as a directory for PATH.
"""

from __future__ import annotations

import ctypes
import json
import os
import pty
import signal
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

from pyrunc.criu import rpc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyrunc.criu.rpc import Message

Act: TypeAlias = "Sequence[object]"
# What an honest CRIU does.
SAVED: list[Act] = [
    ("notify", "network-lock"),
    ("images",),
    ("notify", "post-dump"),
    ("end_container",),
    ("answer", "DUMP", 1),
]
RESTORED: list[Act] = [
    ("notify", "pre-restore"),
    ("make_init",),
    ("notify", "setup-namespaces", "init"),
    ("notify", "post-setup-namespaces"),
    ("notify", "post-restore", "init"),
    ("notify", "post-resume"),
    ("answer", "RESTORE", 1, "init"),
]
_CLONE_PARENT = 0x8000
_SO_SNDBUFFORCE = 32
_SYS_CLONE = {"x86_64": 56}.get(os.uname().machine, 220)
_NUMBERS = {name: number for number, name in rpc.TYPES.items()}


def install(directory: str, acts: Mapping[str, Sequence[Act]]) -> str:
    """Make a program `criu` in a new directory that does these acts; the directory."""
    os.makedirs(directory, exist_ok=True)
    program = os.path.join(directory, "criu")
    with open(f"{program}.json", "w", encoding="ascii") as stream:
        json.dump(acts, stream)
    with open(program, "w", encoding="ascii") as stream:
        stream.write(f'#!/bin/sh\nexec {sys.executable} {os.path.realpath(__file__)} {program} "$@"\n')
    os.chmod(program, 0o755)
    return directory


def children(directory: str) -> list[int]:
    """The processes that it has left, by what it wrote down."""
    try:
        with open(os.path.join(directory, "children"), encoding="ascii") as stream:
            return [int(line) for line in stream]
    except FileNotFoundError:
        return []


class _Criu:
    """One conversation."""

    def __init__(self, program: str, fd: int) -> None:
        self.program = program
        self.sock = socket.socket(fileno=fd)
        self.request: Message = {}
        self.init = self.child = 0
        self.fds: list[int] = []

    def work(self) -> None:
        """Read the request and do what the test wants."""
        self.request = rpc.decode("criu_req", self.sock.recv(1 << 18))
        kind = rpc.TYPES.get(rpc.number(self.request, "type"), "")
        with open(f"{self.program}.json", encoding="ascii") as stream:
            acts = json.load(stream).get(kind)
        if acts is None:
            acts = {"DUMP": SAVED, "RESTORE": RESTORED}.get(kind, [("well",)])
        for name, *arguments in acts:
            getattr(self, str(name))(*arguments)

    # --- What it says ---

    def _send(self, data: bytes) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(self.fds)}i", *self.fds))]
        self.sock.sendmsg([data], rights if self.fds else [])

    def _number(self, value: object) -> int:
        known = {"init": self.init, "self": os.getpid(), "parent": os.getppid(), "child": self.child}
        return known[value] if isinstance(value, str) else int(str(value))

    def well(self) -> None:
        """Answer a question: this is 4.2, and it can do everything."""
        kind = rpc.number(self.request, "type")
        version: Message = {"major_number": 4, "minor_number": 2, "sublevel": 1}
        answer: Message = {"type": kind, "success": 1, "version": version}
        if kind == rpc.FEATURE_CHECK:
            answer["features"] = {"mem_track": 1, "lazy_pages": 1}
        self._send(rpc.encode("criu_resp", answer))

    def tell(self, script: str, pid: object = None) -> None:
        """Send a notification."""
        notify: Message = {"script": script}
        if pid is not None:
            notify["pid"] = self._number(pid)
        self._send(rpc.encode("criu_resp", {"type": rpc.NOTIFY, "success": 1, "notify": notify}))

    def notify(self, script: str, pid: object = None) -> None:
        """Send a notification and wait for the word to go on."""
        self.tell(script, pid)
        answer = rpc.decode("criu_req", self.sock.recv(1 << 18))
        if not rpc.number(answer, "notify_success"):
            self.answer(rpc.TYPES[rpc.number(self.request, "type")], 0)
            sys.exit(1)

    def flood(self, script: str) -> None:
        """Notifications without end, whose answers it never reads."""
        while True:
            self.tell(script)

    def answer(self, kind: str, success: int, pid: object = None, words: str = "") -> None:
        """The answer that ends it."""
        message: Message = {"type": _NUMBERS.get(kind, 0), "success": success}
        if pid is not None:
            message["restore"] = {"pid": self._number(pid)}
        if words:
            message["cr_errmsg"] = words
        self._send(rpc.encode("criu_resp", message))

    def raw(self, text: str, times: int = 1) -> None:
        """Bytes that need be no message; with a limit of its own, as a test may ask for many."""
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 22)
        self._send(bytes.fromhex(text) * times)

    def with_fds(self, kind: str, count: int = 1) -> None:
        """The next messages bring descriptors: of a pty's master, or of a file."""
        self.fds = []
        for _ in range(count):
            self.fds.append(pty.openpty()[0] if kind == "pty" else os.open("/proc/self/status", os.O_RDONLY))

    # --- What it does ---

    def images(self) -> None:
        """An image."""
        fd = rpc.number(rpc.part(self.request, "opts"), "images_dir_fd")
        with open(f"/proc/{os.getppid()}/fd/{fd}/inventory.img", "w", encoding="ascii") as stream:
            stream.write("image")

    def _opts(self, name: str) -> str:
        return rpc.text(rpc.part(self.request, "opts"), name)

    def end_container(self) -> None:
        """As a dump does that does not leave it running."""
        opts = rpc.part(self.request, "opts")
        if not rpc.number(opts, "leave_running"):
            os.kill(rpc.number(opts, "pid"), signal.SIGKILL)

    def freeze(self, state: str = "FROZEN") -> None:
        """The cgroup that it was told."""
        path = self._opts("freeze_cgroup")
        if os.path.exists(f"{path}/freezer.state"):
            with open(f"{path}/freezer.state", "w", encoding="ascii") as stream:
                stream.write(state)
        else:
            with open(f"{path}/cgroup.freeze", "w", encoding="ascii") as stream:
                stream.write("1" if state == "FROZEN" else "0")

    def make_init(self) -> None:
        """A child of pyrunc's in the cgroup of CRIU, as the container's init is."""
        self.init = _sibling()
        self._note(self.init)

    def _note(self, pid: int) -> None:
        with open(os.path.join(os.path.dirname(self.program), "children"), "a", encoding="ascii") as stream:
            stream.write(f"{pid}\n")

    def fork(self, own_session: int = 0) -> None:
        """A child that holds the socket for ever."""
        pid = os.fork()
        if pid == 0:
            if own_session:
                os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        self.child = pid
        self._note(pid)

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def freeze_own(self) -> None:
        """The container's cgroup, in which it is itself: as it restores what was paused, and then is stopped."""
        with open("/proc/self/cgroup", encoding="ascii") as stream:
            paths = dict(line.strip().split(":", 2)[1:] for line in stream)
        path = f"/sys/fs/cgroup/freezer{paths['freezer']}/freezer.state" if "freezer" in paths else ""
        if not path:
            path = f"/sys/fs/cgroup{paths['']}/cgroup.freeze"
        word = "1" if path.endswith("cgroup.freeze") else "FROZEN"
        # Somebody outside has to: it stands still from there on.
        if os.fork() == 0:
            os.execv("/bin/sh", ["sh", "-c", f"echo {word} >{path}"])

    def leave_cgroup(self) -> None:
        """The init is somewhere else."""
        with open(f"/proc/{os.getppid()}/cgroup", encoding="ascii") as stream:
            for line in stream:
                _, controllers, path = line.strip().split(":", 2)
                name = controllers.removeprefix("name=") or "unified"
                for top in (f"/sys/fs/cgroup/{name}", "/sys/fs/cgroup"):
                    if os.path.exists(f"{top}{path}/cgroup.procs"):
                        with open(f"{top}{path}/cgroup.procs", "w", encoding="ascii") as procs:
                            procs.write(str(self.init))
                        break

    def die(self, number: int) -> None:
        """By a signal."""
        os.kill(os.getpid(), number)

    def exit(self, status: int) -> None:
        """By itself, without a word."""
        os._exit(status)

    def hang(self) -> None:
        """It neither reads nor ends."""
        self._note(os.getpid())
        while True:
            signal.pause()

    def spin(self) -> None:
        """The same with work."""
        self._note(os.getpid())
        while True:
            pass

    def touch(self, path: str) -> None:
        """Tell a test that it is there."""
        with open(path, "w", encoding="ascii") as stream:
            stream.write(str(os.getpid()))

    def sleep(self, seconds: float) -> None:
        """Take its time."""
        time.sleep(seconds)


def _sibling() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    pid = int(libc.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        os.execv("/bin/sleep", ["sleep", "1000"])
    return pid


if __name__ == "__main__":
    # criu swrk FD, behind the path that install() put before it.
    _Criu(sys.argv[1], int(sys.argv[3])).work()

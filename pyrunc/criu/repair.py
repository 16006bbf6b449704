"""Restores a container's state from before a dump that failed: thawed or frozen, and with its network.

CRIU restores everything by itself, unless it is killed: tasks that it traced then continue, but the freezer stays as it
was set, and so do the rules that block the network.
"""

from __future__ import annotations

import os
import re
import select
import shutil

from pyrunc.criu import process as criu_process
from pyrunc.errors import KernelError, PyruncError
from pyrunc.kernel import container as kernel_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.kernel.container import Container

_HELPER_SECONDS = 10
_DYING_SECONDS = 0.2
_ENDED = "the container's init has ended meanwhile"
_MOST_RULES = 64
# The chain that CRIU's iptables-restore makes, emptied; the rules that lead there; the chain itself.
_EMPTY = b"*filter\n:CRIU - [0:0]\nCOMMIT\n"
_JUMPS = b"*filter\n-D INPUT -j CRIU\n-D OUTPUT -j CRIU\nCOMMIT\n"
_CHAIN = b"*filter\n-X CRIU\nCOMMIT\n"
_TABLE = re.compile(r"^table inet (CRIU-[0-9a-zA-Z-]{1,64})$", re.MULTILINE)
_BY_HAND = "look there for the chain CRIU of iptables and ip6tables, and for nftables' tables CRIU-…"


class Before:
    """The state of a running or paused container; made before CRIU starts."""

    __slots__ = ("_found", "_frozen", "_netns", "_pidfd")

    def __init__(self, found: Container) -> None:
        self._found = found
        self._frozen = found.status == "paused"
        self._netns = -1
        try:
            self._pidfd = os.pidfd_open(found.pid)
        except OSError as error:
            raise KernelError("pidfd_open", error.errno or 0, str(found.pid)) from error
        try:
            self._netns = os.open(f"/proc/{found.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            os.close(self._pidfd)
            raise KernelError("open", error.errno or 0, f"/proc/{found.pid}/ns/net") from error

    def has_ended(self, seconds: float) -> bool:
        """Return whether its init ends within `seconds`."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def restore(self, *, network_locked: bool) -> list[str]:
        """Restore the state and return notes about it."""
        if self.has_ended(0):
            return [_ENDED]
        notes = []
        for step in (self._freezer, self._network if network_locked else None):
            try:
                if step is not None:
                    notes += step()
            except (PyruncError, OSError) as error:
                notes.append(f"the container is not as it was: {error}")
        # If CRIU was killed while its code ran in a process, that process ends as soon as it continues.
        if self.has_ended(_DYING_SECONDS):
            notes.append(_ENDED)
        return notes

    def _freezer(self) -> list[str]:
        paths = self._found.cgroups
        if not paths or kernel_container.cgroup_frozen(paths) == self._frozen:
            return []
        if self._frozen:
            kernel_container.cgroup_freeze(paths)
            return ["criu left the container running, it is paused again"]
        kernel_container.cgroup_thaw(paths)
        return ["criu left the container frozen, it goes on now"]

    def _network(self) -> list[str]:
        """Remove the rules in the container's own network namespace; CRIU locks no other one as a whole."""
        if os.path.samestat(os.fstat(self._netns), os.stat("/proc/self/ns/net")):
            return []
        locked = f"criu may have left the network of the container locked (namespace of process {self._found.pid})"
        if shutil.which("nsenter") is None:
            return [f"{locked}, and there is no nsenter: {_BY_HAND}"]
        unlocked = [self._flush("iptables-restore"), self._flush("ip6tables-restore"), self._delete_tables()]
        if True in unlocked:
            return ["criu left the network of the container locked, it is unlocked now"]
        return [f"{locked}: {_BY_HAND}"] if None in unlocked else []

    def _inside(self, program: str, *words: str, stdin: bytes = b"") -> tuple[int, str]:
        """Run a host's program in the network namespace; (-1, "") if there is none."""
        path, nsenter = shutil.which(program), shutil.which("nsenter")
        if path is None or nsenter is None:
            return -1, ""
        argv = ["nsenter", f"--net=/proc/self/fd/{self._netns}", "--", path, *words]
        return criu_process.run(argv, nsenter, stdin=stdin, keep=[self._netns], seconds=_HELPER_SECONDS)

    def _flush(self, program: str) -> bool | None:
        """Remove CRIU's rules. Return whether there were any, or None if that cannot be found out."""
        if shutil.which(program) is None:
            return False  # nor could CRIU make any
        status, said = self._inside(program.replace("restore", "save"), "-t", "filter")
        if status:
            return None
        if not any(line.startswith(":CRIU ") for line in said.splitlines()):
            return False
        words: Sequence[str] = ("--wait", "5", "--noflush")
        if self._inside(program, *words, stdin=_EMPTY)[0]:
            return None
        for _ in range(_MOST_RULES):
            if self._inside(program, *words, stdin=_JUMPS)[0]:
                break
        self._inside(program, *words, stdin=_CHAIN)
        return True

    def _delete_tables(self) -> bool | None:
        """Do the same for nftables, which CRIU uses by a library."""
        status, said = self._inside("nft", "list", "tables")
        if status:
            return None
        found = _TABLE.findall(said)
        deleted = [self._inside("nft", "delete", "table", "inet", name)[0] == 0 for name in found]
        return all(deleted) or None if found else False

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self._pidfd)
        os.close(self._netns)

"""One guest: started from a snapshot, given one job, thrown away. Or booted once, to make the snapshot.

Host and guest talk through a virtio port. The job is one line of JSON; what comes back are frames: a kind byte, a
length of 4 bytes, the data (guest/usr/local/lib/vm_agent.py has the other side).
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Self

import hardware
from hardware import VmError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_POLL = 0.01
_CONSOLE_LINES = 80


class Machine:
    """A guest with `image`'s disk in the state of `snapshot`; `place` is an empty directory of its own.

    `seconds` is for its whole life: TimeoutError when they are over, whatever it does or does not do.
    """

    def __init__(self, image: str, snapshot: str, place: str, seconds: float) -> None:
        self.image = image
        self.snapshot = snapshot
        self.place = place
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._buffer = b""
        self._qemu: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
        if isinstance(error, (VmError, TimeoutError)):
            for line in self.console():
                error.add_note(f"console: {line}")

    def console(self) -> list[str]:
        """The last lines that the kernel wrote."""
        try:
            with open(f"{self.place}/console", encoding="utf-8", errors="replace") as stream:
                return [line.rstrip() for line in stream][-_CONSOLE_LINES:]
        except FileNotFoundError:
            return []

    # --- Its life ---

    def boot(self, parameters: str) -> None:
        """Start it cold, with these kernel parameters; comes back when systemd has started all that it should."""
        self._start(making=True, parameters=parameters)
        kind, state = self._frame()
        if kind != b"r" or state.strip() != b"running":
            raise VmError(f"the guest came up '{state.decode().strip()}', not 'running'")

    def restore(self) -> None:
        """Start it from the snapshot, where it waits for a job."""
        if not os.path.exists(f"{self.image}/{self.snapshot}.state"):
            raise VmError(f"the image has no snapshot '{self.snapshot}'")
        self._start(making=False, parameters="")
        while self._ask("query-status")["status"] != "paused":
            self._pause()
        self._ask("cont")

    def save(self) -> None:
        """Write the snapshot; the guest ends with that."""
        self._ask("stop")
        self._ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self._ask("migrate", uri="exec:cat > " + shlex.quote(f"{self.image}/{self.snapshot}.state"))
        while (status := self._ask("query-migrate").get("status")) != "completed":
            if status in {"failed", "cancelled"}:
                raise VmError("the snapshot could not be written")
            self._pause()

    def run(self, job: Mapping[str, object], out: str | None) -> int:
        """Hand the job over, pass on what it writes, unpack its results into `out`; its exit status."""
        document = {**job, "out": out is not None, "time": time.time(), "seed": os.urandom(64).hex()}
        self._agent.settimeout(self._left())
        self._agent.sendall(json.dumps(document).encode() + b"\n")
        streams = {b"o": sys.stdout.buffer, b"e": sys.stderr.buffer}
        unpack = _unpacker(out) if out is not None else None
        while True:
            kind, data = self._frame()
            if kind in streams:
                streams[kind].write(data)
                streams[kind].flush()
            elif kind == b"t" and unpack is not None and unpack.stdin is not None:
                unpack.stdin.write(data)
            elif kind == b"x":
                break
            else:
                raise VmError(f"the guest sent a frame of the kind {kind!r}")
        if unpack is not None:
            unpack.communicate(timeout=self._left())
            if unpack.returncode != 0:
                raise VmError(f"the guest's results could not be unpacked into '{out}'")
        return int(data)

    # --- QEMU ---

    def _start(self, *, making: bool, parameters: str) -> None:
        argv = hardware.command_line(
            self.image, self.snapshot, self.place, making=making, parameters=parameters
        )
        if shutil.which(argv[0]) is None:
            hardware.version()
        # It dies with us, however we die.
        self._qemu = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": self.place},
        )
        self._qmp_socket = self._connect("qmp")
        self._qmp: IO[str] = self._qmp_socket.makefile("rw")
        self._qmp_socket.settimeout(self._left())
        self._qmp.readline()
        self._ask("qmp_capabilities")
        self._agent = self._connect("agent")

    def _left(self) -> float:
        """Seconds left; raises if there are none, or no machine."""
        if self._qemu is not None and self._qemu.poll() is not None:
            raise VmError(f"QEMU ended with status {self._qemu.returncode} (a guest that panics ends it)")
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _pause(self) -> None:
        time.sleep(min(_POLL, self._left()))

    def _connect(self, name: str) -> socket.socket:
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(f"{self.place}/{name}")
            except OSError:
                sock.close()
                self._pause()
            else:
                return sock

    def _ask(self, command: str, **arguments: object) -> dict[str, object]:
        """One command of QMP and its answer."""
        self._qmp_socket.settimeout(self._left())
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        for line in self._qmp:
            reply: dict[str, dict[str, object]] = json.loads(line)
            if "error" in reply:
                raise VmError(f"QEMU: {command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
        raise VmError(f"QEMU went away at {command}")

    # --- The agent ---

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if select.select([self._agent], [], [], min(self._left(), 1))[0]:
                data = self._agent.recv(1 << 20)
                if not data:
                    raise VmError("the guest went away (one that panics does)")
                self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _frame(self) -> tuple[bytes, bytes]:
        kind, size = struct.unpack(">cI", self._read(5))
        return kind, self._read(size)


def _unpacker(directory: str) -> subprocess.Popen[bytes]:
    os.makedirs(directory, exist_ok=True)
    return subprocess.Popen(
        ["tar", "-C", directory, "--no-same-owner", "--no-same-permissions", "-x"], stdin=subprocess.PIPE
    )

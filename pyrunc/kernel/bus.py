"""Service managers: libsystemd's sd-bus behind csrc/shim/sdbus.c."""

from __future__ import annotations

import errno
import os

from pyrunc._shim import ffi, lib
from pyrunc.errors import BusError, strerror

TYPE_CHECKING = False


def _check_bus(answer: int, what: str, seconds: float) -> None:
    if answer >= 0:
        return
    if answer in (-errno.ELIBACC, -errno.ELIBBAD):
        problem = "cannot be loaded" if answer == -errno.ELIBACC else "is too old"
        raise BusError(f"libsystemd.so.0 {problem}", hint="install libsystemd (Debian: libsystemd0)")
    if answer == -errno.ETIMEDOUT:
        raise BusError(
            f"{what}: no answer within {seconds:g} s", hint="the bus or the service manager hangs"
        )
    raise BusError(f"{what}: {strerror(-answer)}")


class Bus:
    """A connection to a bus, or to a service manager itself when `is_bus` is False. All raise BusError.

    Every wait ends: `seconds` is the time for connecting, for one call, for one job.
    """

    __slots__ = ("_bus", "_to_systemd")

    def __init__(self, address: str, *, is_bus: bool, seconds: float) -> None:
        made = ffi.new("struct shim_bus **")
        answer = lib.shim_bus_open(os.fsencode(address), 1 if is_bus else 0, int(seconds * 1e6), made)
        _check_bus(answer, f"connect to '{address}'", seconds)
        self._bus = ffi.gc(made[0], lib.shim_bus_close)
        self._to_systemd = ffi.new("char[]", b"org.freedesktop.systemd1") if is_bus else ffi.NULL

    def call(
        self,
        path: str,
        interface: str,
        member: str,
        body: bytes,
        *,
        seconds: float,
        bus_itself: bool = False,
    ) -> str:
        """Call systemd, or the bus itself. Return the first value of the answer if it is a string, else "".

        `body` is described in csrc/shim/sdbus.h. With 0 seconds the call does not wait for an answer.
        """
        request = ffi.new("struct shim_bus_call *")
        texts = [ffi.new("char[]", text.encode()) for text in (path, interface, member)]
        owner = ffi.new("char[]", b"org.freedesktop.DBus")
        request.destination = owner if bus_itself else self._to_systemd
        request.path, request.interface, request.member = texts
        content = ffi.from_buffer(body)
        request.body, request.size = ffi.cast("uint8_t *", content), len(body)
        request.timeout_us = int(seconds * 1e6)
        answer = ffi.new("struct shim_bus_answer *")
        result = lib.shim_bus_call(self._bus, request, answer)
        if name := ffi.string(answer.error).decode("utf-8", "replace"):
            words = ffi.string(answer.text).decode("utf-8", "replace").rstrip(".")
            raise BusError(f"systemd refuses {member}: {words}", name=name)
        _check_bus(result, f"systemd's {member}", seconds)
        return ffi.string(answer.value).decode("utf-8", "surrogateescape")  # type: ignore[no-any-return]

    def job(self, job: str, *, seconds: float) -> str:
        """Wait for a systemd job. Return "done", "failed", "canceled", "timeout", "dependency" or "skipped"."""
        result = ffi.new("char[]", 64)
        _check_bus(
            lib.shim_bus_job(self._bus, job.encode(), int(seconds * 1e6), result, 64),
            "systemd's job",
            seconds,
        )
        return ffi.string(result).decode("utf-8", "replace")  # type: ignore[no-any-return]

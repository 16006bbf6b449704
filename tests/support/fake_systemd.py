"""A service manager for hosts without systemd: a real dbus-daemon, and behind it what org.freedesktop.systemd1 says.

It makes cgroups and moves processes as systemd does, keeps what it was asked for, and can be told to misbehave.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, TypeAlias

from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    HeaderFields,
    MessageType,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped]

import limits
import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jeepney.low_level import Message  # type: ignore[import-untyped]

Value: TypeAlias = object
NAME = "org.freedesktop.systemd1"
_OBJECT = DBusAddress("/org/freedesktop/systemd1", interface=f"{NAME}.Manager")
_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="true"/>
  <allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""
# Before a command: what sd_booted(3) looks for, seen by this command only.
BOOTED = [
    *("unshare", "-m", "--propagation", "private", "sh", "-c"),
    'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec "$@"',
    "booted",
]


_METHODS = {
    "Subscribe": "_subscribe",
    "Get": "_get",
    "StartTransientUnit": "_start",
    "SetUnitProperties": "_set",
    "StopUnit": "_stop",
    "ResetFailedUnit": "_reset",
}


class Unit:
    """What is known of a unit: its properties, and whether it failed."""

    def __init__(self, properties: dict[str, Value], directories: list[str]) -> None:
        self.properties = properties
        self.directories = directories
        self.failed = False


class RefusedError(Exception):
    """A D-Bus error to answer with."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name if "." in name and name.startswith("org.") else f"{NAME}.{name}"


class FakeSystemd:
    """`calls` are (method, arguments), `units` by name. `faults` maps a method to what happens instead:

    "silent" (no answer), "error NAME" (an error), "job RESULT" (its job ends so, nothing done), "endless" (its job
    does not end).
    """

    def __init__(self, scratch: str) -> None:
        self.address = f"unix:path={scratch}/bus"
        self.calls: list[tuple[str, Sequence[Value]]] = []
        self.units: dict[str, Unit] = {}
        self.faults: dict[str, str] = {}
        self.version = "252.4-test"
        self.control_group = ""
        self._slices: list[str] = []
        self._jobs = 0
        self._subscribed = False
        configuration = os.path.join(scratch, "bus.conf")
        with open(configuration, "w", encoding="ascii") as stream:
            stream.write(_CONFIGURATION.format(address=self.address))
        self.daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
        )
        assert self.daemon.stdout is not None
        assert self.daemon.stdout.readline(), "dbus-daemon does not start"
        self._connection = open_dbus_connection(bus=self.address)
        call = new_method_call(
            DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus"),
            "RequestName", "su", (NAME, 0),
        )  # fmt: skip
        assert self._connection.send_and_get_reply(call, timeout=10).body == (1,)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def command(self) -> list[str]:
        """What to put before the name of a command, so that it finds this systemd."""
        return [*BOOTED, "env", f"DBUS_SYSTEM_BUS_ADDRESS={self.address}"]

    def asked(self, method: str) -> list[Sequence[Value]]:
        """The arguments of each call of the method."""
        return [arguments for name, arguments in self.calls if name == method]

    def close(self) -> None:
        """End it, with all that it made."""
        self.daemon.send_signal(signal.SIGCONT)
        self._ending.set()
        self._thread.join(10)
        self._connection.close()
        self.daemon.kill()
        self.daemon.wait(10)
        assert self.daemon.stdout is not None
        self.daemon.stdout.close()
        for unit in self.units.values():
            support.remove_cgroups(unit.directories)
        for directory in reversed(self._slices):
            try:
                os.rmdir(directory)
            except OSError:
                pass  # gone, or used by somebody else by now

    # --- Answering ---

    def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                message = self._connection.receive(timeout=0.2)
            except TimeoutError:
                continue
            except (ConnectionError, OSError):
                return
            if message.header.message_type == MessageType.method_call:
                self._answer(message)

    def _answer(self, message: Message) -> None:
        method = message.header.fields[HeaderFields.member]
        self.calls.append((method, message.body))
        fault = self.faults.get(method, "")
        if fault == "silent":
            return
        try:
            if fault.startswith("error "):
                raise RefusedError(fault.split(" ", 2)[1], "As told.")
            value = (
                self._job() if fault.startswith("job ") else getattr(self, _METHODS[method])(*message.body)
            )
        except RefusedError as refused:
            self._send(new_error(message, refused.name, "s", (str(refused),)))
            return
        signature = {"StartTransientUnit": "o", "StopUnit": "o", "Get": "v"}.get(method)
        # The signal may well come before the answer, as from the real one.
        if signature == "o" and fault != "endless":
            self._end_job(value, message.body[0], fault.removeprefix("job ") or "done")
        body = {None: (), "o": (value,), "v": (("s", value),)}[signature]
        self._send(new_method_return(message, signature, body))

    def _send(self, message: Message) -> None:
        self._connection.send(message)

    def _job(self) -> str:
        self._jobs += 1
        return f"/org/freedesktop/systemd1/job/{self._jobs}"

    def _end_job(self, job: str, name: Value, result: str) -> None:
        assert self._subscribed, "nobody would hear of the job"
        # Another one's first: whoever waits must tell them apart.
        for path, word in (("/org/freedesktop/systemd1/job/999999", "canceled"), (job, result)):
            self._send(new_signal(_OBJECT, "JobRemoved", "uoss", (1, path, name, word)))

    # --- Methods ---

    def _subscribe(self) -> str:
        self._subscribed = True
        return ""

    def _get(self, _interface: str, name: str) -> str:
        return {"Version": self.version, "ControlGroup": self.control_group}[name]

    def _start(
        self, name: str, mode: str, properties: list[tuple[str, tuple[str, Value]]], _aux: object
    ) -> str:
        assert mode == "fail"
        if name in self.units:
            raise RefusedError("UnitExists", f"Unit {name} already exists.")
        known = {key: value for key, (_, value) in properties}
        directories = self._make(str(known["Slice"]), name)
        for directory in directories:
            for pid in known["PIDs"]:  # type: ignore[attr-defined]
                with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as stream:
                    stream.write(str(pid))
        self.units[name] = Unit(known, directories)
        return self._job()

    def _make(self, slice_name: str, name: str) -> list[str]:
        parts = slice_name.removesuffix(".slice").split("-")
        steps = ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts))]
        found = []
        for top in self._hierarchies():
            at = top + self.control_group
            for step in steps:
                at = f"{at}/{step}"
                if not os.path.isdir(at):
                    os.mkdir(at)
                    self._slices.append(at)
            os.mkdir(f"{at}/{name}")
            found.append(f"{at}/{name}")
        return found

    def _hierarchies(self) -> list[str]:
        kept = ("systemd", "cpu", "cpuacct", "memory", "blkio", "pids", "devices")
        joint = [f"/sys/fs/cgroup/{one}" for one in kept if os.path.isdir(f"/sys/fs/cgroup/{one}")]
        return [*dict.fromkeys(os.path.realpath(path) for path in joint), limits.unified_mount()]

    def _known(self, name: str) -> Unit:
        if name not in self.units:
            raise RefusedError("NoSuchUnit", f"Unit {name} not loaded.")
        return self.units[name]

    def _set(self, name: str, runtime: bool, properties: list[tuple[str, tuple[str, Value]]]) -> str:
        assert runtime
        for key, (_, value) in properties:
            self._known(name).properties[key] = value
        return ""

    def _stop(self, name: str, mode: str) -> str:
        assert mode == "replace"
        unit = self._known(name)
        if unit.failed:
            return self._job()
        support.remove_cgroups([path for path in unit.directories if os.path.isdir(path)])
        del self.units[name]
        return self._job()

    def _reset(self, name: str) -> str:
        if self._known(name).failed:
            del self.units[name]
        return ""

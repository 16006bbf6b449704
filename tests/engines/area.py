"""A private place for an engine: namespaces, directories and a runtime of its own, all gone when it is closed.

/run and /var/lib are empty file systems inside, so an engine finds nothing of the host's and leaves nothing there.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from typing import TYPE_CHECKING

import support
from machines import patience

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# At last "/" is shared as systemd would have it: docker refuses `rshared` volumes on a private one. Arguments: what of
# the host's /run stays.
_SCRIPT = """
set -e
keep=$(mktemp -d)
for name; do mkdir "$keep/$name"; mount --bind "/run/$name" "$keep/$name"; done
for directory in /run /var/lib; do mount -t tmpfs -o mode=755 tmpfs $directory; done
for name; do mkdir "/run/$name"; mount --move "$keep/$name" "/run/$name"; rmdir "$keep/$name"; done
rmdir "$keep"
ip link set lo up
mkdir /run/idle
# The hierarchies that processes are in and nobody has mounted here.
unmounted() {
  while IFS=: read -r _ names _; do
    [ -z "$names" ] || grep -q "cgroup rw.*,$names\\b" /proc/self/mountinfo || echo "$names"
  done </proc/self/cgroup
}
# One that did not end with its last mount, as happens when cgroups in it end later, ends by one more mount and unmount.
for names in $(unmounted); do
  mount -t cgroup -o "$names" none /run/idle && umount /run/idle || true
done
# If it does not, or is somebody else's: engines look for its mount and give up. Here they find one.
if [ "$(unmounted)" ]; then
  mount -t tmpfs -o mode=755 tmpfs /run/idle
  for path in /sys/fs/cgroup/*; do
    if [ -L "$path" ]; then cp -P "$path" /run/idle; else
      mkdir "/run/idle/${path##*/}"
      mount --bind "$path" "/run/idle/${path##*/}"
    fi
  done
  for names in $(unmounted); do
    mkdir "/run/idle/${names#*=}"
    mount -t cgroup -o "$names" none "/run/idle/${names#*=}" || rmdir "/run/idle/${names#*=}"
  done
  umount -R /sys/fs/cgroup
  mount --move /run/idle /sys/fs/cgroup
fi
rmdir /run/idle
mount --make-rshared /
echo ready
exec sleep infinity
"""
# The runtime itself with every descriptor, signal and variable that the engine gave; only the call is written down.
_RECORDER = """#!/bin/sh
printf '%s\\n' "$*" >>'{log}'
exec '{runtime}' "$@"
"""
# Whatever the test run dies of, daemons go with it.
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]


class Area:
    """Where one engine lives with one runtime.

    `name` is unique to this run and belongs into the path of every cgroup that the engine makes: it is how leaks are
    found. `directory` is on a real file system (overlay works on it), `runtime` what the engine has to call. `driver`
    is what manages the cgroups: with systemd's the host's own systemd is within reach.
    """

    def __init__(self, engine: str, runtime: str, path: str, driver: str = "cgroupfs") -> None:
        self.name = f"{support.ID_PREFIX}{engine}-{runtime}"
        self.driver = driver
        self.runtime_name = runtime
        self.directory = support.make_scratch()
        self.log = os.path.join(self.directory, "calls")
        self.runtime = os.path.join(self.directory, "bin", runtime)
        self._daemons: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        os.mkdir(os.path.dirname(self.runtime))
        self.take(path)
        with open(self.log, "w", encoding="utf-8"):
            os.chmod(self.log, 0o666)
        unshare = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _SCRIPT, "area"]
        kept = ["systemd", "dbus"] if driver == "systemd" else []
        self._holder = subprocess.Popen([*DIES_WITH_US, *unshare, *kept], stdout=subprocess.PIPE, cwd="/")
        assert self._holder.stdout is not None
        ready, _, _ = select.select([self._holder.stdout], [], [], patience(30))
        assert ready and self._holder.stdout.readline() == b"ready\n", "no namespaces"
        # How the area's file systems are reached from outside.
        self.root = f"/proc/{self._holder.pid}/root"
        self._mounts = self.mounts()
        self._cgroups = self._all_cgroups()
        self._namespaces = {self._namespace(self._holder.pid, kind) for kind in ("mnt", "net")}
        self.prefix = ["nsenter", "--target", str(self._holder.pid), "--mount", "--net", "--"]

    @staticmethod
    def _namespace(pid: int, kind: str) -> str:
        try:
            return os.readlink(f"/proc/{pid}/ns/{kind}")
        except OSError:
            return ""

    def take(self, path: str) -> None:
        """Call the program at `path` whenever the engine calls `runtime`."""
        with open(self.runtime, "w", encoding="utf-8") as stream:
            stream.write(_RECORDER.format(log=self.log, runtime=path))
        os.chmod(self.runtime, 0o755)

    @property
    def parent(self) -> str:
        """The cgroup that containers are to be in, as engines want it told: a path, or the name of a slice."""
        return f"{self.name}.slice" if self.driver == "systemd" else f"/{self.name}"

    def path(self, *names: str) -> str:
        """A path below the area's directory."""
        return os.path.join(self.directory, *names)

    def run(
        self, *argv: str, stdin: str = "", timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> support.Result:
        """Run a command inside to its end; `env` comes on top of nothing but PATH and HOME."""
        return support.run(*self.prefix, *argv, stdin=stdin, timeout=timeout, env=self.environment(env))

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What programs inside get as environment."""
        return {"PATH": PATH, "HOME": "/root", **(more or {})}

    def daemon(self, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program inside that stays; its output goes into the file `daemon.log`."""
        log = open(self.path("daemon.log"), "ab")  # noqa: SIM115 - closed by close()
        process = subprocess.Popen(
            [*DIES_WITH_US, *self.prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self.environment(env),
            cwd="/",
            # A Ctrl-C on the test run is not for the daemon: the fixture ends it in order.
            start_new_session=True,
        )
        self._daemons.append((process, log))
        return process

    def calls(self) -> list[str]:
        """The arguments of every call of the runtime so far, one string each."""
        with open(self.log, encoding="utf-8") as stream:
            return stream.read().splitlines()

    def mounts(self) -> set[str]:
        """The mount points inside."""
        with open(f"/proc/{self._holder.pid}/mountinfo", encoding="utf-8") as stream:
            return {line.split()[4] for line in stream}

    def new_mounts(self) -> set[str]:
        """The mount points inside that were not there when the area was made."""
        return self.mounts() - self._mounts

    def processes(self) -> list[int]:
        """Whoever lives in a namespace or a cgroup of the area, its holder aside.

        Who waits to be reaped lives no more, though the kernel still names the cgroup.
        """
        found: list[int] = []
        for word in os.listdir("/proc"):
            if not word.isdigit() or int(word) == self._holder.pid:
                continue
            pid = int(word)
            namespaces = {self._namespace(pid, kind) for kind in ("mnt", "net")}
            if namespaces & self._namespaces or (self._in_cgroup(pid) and not support.process_gone(pid)):
                found.append(pid)
        return found

    def running(self, text: str) -> list[int]:
        """Those with `text` in their command line."""
        return [pid for pid in self.processes() if text in _command_line(pid)]

    def _in_cgroup(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
                return self.name in stream.read()
        except OSError:
            return False

    def needs_mounted_cgroups(self) -> None:
        """Skip where somebody else has v1 hierarchies that are not mounted here: engines then give up on figures."""
        with open("/proc/self/cgroup", encoding="utf-8") as stream:
            names = [line.split(":")[1] for line in stream]
        with open(f"/proc/{self._holder.pid}/mountinfo", encoding="utf-8") as stream:
            options = [line.split()[-1].split(",") for line in stream if " - cgroup " in line]
        for name in filter(None, names):
            mounted = any(set(name.split(",")) <= set(found) for found in options)
            support.needs(mounted, f"a mount of the cgroup hierarchy '{name}'")

    def _all_cgroups(self) -> set[str]:
        """All cgroups of the host, also in hierarchies that are mounted in the area alone."""
        with open(f"/proc/{self._holder.pid}/mountinfo", encoding="utf-8") as stream:
            mounts = [line.split()[4] for line in stream if re.search(" - cgroup2? ", line)]
        return {path for mount in mounts for path, _, _ in os.walk(self.root + mount)}

    def cgroups(self) -> list[str]:
        """The cgroups of the area, deepest first."""
        return _deepest_first(path for path in self._all_cgroups() if self.name in path)

    def container_cgroups(self) -> list[str]:
        """The same but the engine's own: the directory for all of its containers, and podman's for its conmons."""
        own = re.compile(rf"{re.escape(self.name)}|{re.escape(self.parent)}|conmon|libpod-conmon-.*")
        return [path for path in self.cgroups() if not own.fullmatch(os.path.basename(path))]

    def _stop_daemons(self) -> None:
        for process, log in reversed(self._daemons):
            process.terminate()
            try:
                process.wait(timeout=patience(30))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=patience(10))
            log.close()

    def _nobody(self) -> bool:
        """Kill whoever is left, and reap: the first of a pid namespace ends only when all others in it are reaped."""
        found = [pid for pid in self.processes() if not support.process_gone(pid)]
        for pid in found:
            _kill(pid)
        for pid in support.children():
            if support.process_gone(pid):
                os.waitpid(pid, os.WNOHANG)
        return not found

    def close(self, parents: Sequence[str] = ()) -> list[str]:
        """End everything; what was still there after the daemons had stopped.

        `parents` are names of top cgroups that engines leave behind with any runtime; they go if they are empty and
        were not there before.
        """
        self._stop_daemons()
        # Shims and the like end by themselves, a moment later.
        support.comes_true(lambda: all(map(_going, self.processes())), timeout=10)
        left = [f"process {pid} {_command_line(pid)}" for pid in self.processes() if not _going(pid)]
        support.wait_until(self._nobody, "the end of all processes of the area", timeout=30)
        left += [f"cgroup {path}" for path in self.container_cgroups()]
        if self.driver == "systemd":
            # A slice a-b is in the slice a, and none of them goes by itself.
            words = self.name.split("-")
            slices = [f"{'-'.join(words[:count])}.slice" for count in range(len(words), 0, -1)]
            support.run("systemctl", "stop", *slices)
        support.remove_cgroups(self.cgroups())
        made = self._all_cgroups() - self._cgroups
        support.remove_cgroups(
            _deepest_first(path for path in made if any(f"/{name}" in path for name in parents))
        )
        self._holder.kill()
        self._holder.wait(timeout=patience(10))
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        left += [f"mount {point}" for point in support.remove_scratch(self.directory)]
        return left


def _deepest_first(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=len, reverse=True)


def _going(pid: int) -> bool:
    """Whether the process has given up its memory already, or is one of the kernel's moments in between."""
    return support.process_gone(pid) or not _command_line(pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""

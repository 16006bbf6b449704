"""A containerd of our own, its plain client `ctr`, and the configuration that docs/engines.md shows."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING

import support
from engines.image import IMAGE, make_image, make_pause
from machines import patience

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.area import Area

_CONFIG = """version = 2
root = "{directory}/root"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "{name}"
{snippet}
"""
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "tests",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "subnet": "10.231.0.0/24",
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}
# What users are given to copy is what runs here.
with open(os.path.join(support.PROJECT, "deploy/containerd.toml"), encoding="utf-8") as _stream:
    SNIPPET = _stream.read()


class Containerd:
    """A running containerd with the images of image.py in it; `ctr` has its namespace in the area's name."""

    def __init__(self, area: Area) -> None:
        self.area = area
        self._numbers = itertools.count(1)
        self._ids: list[str] = []
        # ctr forgets --runc-binary with some options, and then looks for runc in containerd's PATH.
        os.symlink(area.runtime, area.path("runc"))
        config = area.path("containerd.toml")
        snippet = SNIPPET.replace("runtimes.pyrunc", f"runtimes.{area.runtime_name}").replace(
            "/usr/local/sbin/pyrunc", area.runtime
        )
        if area.driver == "systemd":
            snippet = snippet.replace("SystemdCgroup = false", "SystemdCgroup = true")
        with open(config, "w", encoding="utf-8") as stream:
            stream.write(_CONFIG.format(directory=area.directory, name=area.runtime_name, snippet=snippet))
        os.mkdir(area.path("cni"))
        with open(area.path("cni", "10-tests.conflist"), "w", encoding="utf-8") as stream:
            json.dump(_NETWORK, stream)
        path = f"{area.directory}:{area.environment()['PATH']}"
        self._command = ("containerd", "--config", config)
        self._environment = {"PATH": path}
        self.process = area.daemon(*self._command, env=self._environment)
        self._wait()
        # The same socket, for clients that are not in the area.
        self.socket = f"{area.root}/run/containerd/containerd.sock"
        image = make_image(area.path("busybox.tar"))
        self.ctr("image", "import", image).ok()
        for one in (image, make_pause(area.path("pause.tar"))):
            area.run("ctr", "--namespace", "k8s.io", "image", "import", one).ok()

    def _wait(self) -> None:
        support.wait_until(lambda: self.area.run("ctr", "version").status == 0, "containerd", timeout=60)

    def restart(self) -> None:
        """End containerd alone, as an update of its package does, and start it again."""
        self.process.terminate()
        self.process.wait(timeout=patience(30))
        self.process = self.area.daemon(*self._command, env=self._environment)
        self._wait()

    def ctr(self, *argv: str, stdin: str = "", timeout: float = 60) -> support.Result:
        """Run `ctr` in the namespace of this area, which is also the parent cgroup of its containers."""
        return self.area.run("ctr", "--namespace", self.area.name, *argv, stdin=stdin, timeout=timeout)

    def id(self) -> str:
        """An id for a container that forget() will remove."""
        identity = f"c{next(self._numbers)}"
        self._ids.append(identity)
        return identity

    def run(self, *argv: str, options: tuple[str, ...] = ("--rm",), timeout: float = 60) -> support.Result:
        """`ctr run` of the busybox image with a program; options come before the image."""
        return self.start(self.id(), *argv, options=options, timeout=timeout)

    def start(
        self, identity: str, *argv: str, options: tuple[str, ...] = ("--detach",), timeout: float = 60
    ) -> support.Result:
        """`ctr run` with an id of its own."""
        runtime = ["--runc-binary", self.area.runtime]
        if self.area.driver == "systemd":
            runtime += ["--runc-systemd-cgroup", "--cgroup", f"{self.area.parent}:ctr:{identity}"]
        return self.ctr("run", *runtime, *options, IMAGE, identity, *argv, timeout=timeout)

    def status(self, identity: str) -> str:
        """What `ctr task ls` says of a container: RUNNING, STOPPED, CREATED, PAUSED, or nothing."""
        for line in self.ctr("task", "ls").ok().out.splitlines():
            words = line.split()
            if words[0] == identity:
                return words[2]
        return ""

    def wait_status(self, identity: str, status: str, timeout: float = 20) -> None:
        """Wait until `ctr task ls` says so."""
        support.wait_until(
            lambda: self.status(identity) == status, f"container {identity} {status}", timeout=timeout
        )

    def exec(self, identity: str, *argv: str, options: tuple[str, ...] = ()) -> support.Result:
        """`ctr task exec` of a program to its end."""
        name = f"e{next(self._numbers)}"
        return self.ctr("task", "exec", "--exec-id", name, *options, identity, *argv)

    def pid(self, identity: str) -> int:
        """The pid of a container's first process, as `ctr task ls` has it."""
        for line in self.ctr("task", "ls").ok().out.splitlines():
            words = line.split()
            if words[0] == identity:
                return int(words[1])
        raise AssertionError(f"no task {identity}")

    def left(self) -> list[str]:
        """Cgroups that containers of this containerd have left behind."""
        return self.area.container_cgroups()

    def forget(self) -> Iterator[str]:
        """Remove whatever is still there; what a test should have removed but did not comes out."""
        for identity in self._ids:
            self.ctr("task", "rm", "--force", identity)
            self.ctr("container", "rm", identity)
            if self.status(identity):
                yield f"task {identity}"
        self._ids.clear()
        # The same test then has the same names with every runtime.
        self._numbers = itertools.count(1)

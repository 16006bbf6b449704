"""A dockerd of our own, which starts its own containerd, and Debian's client `docker`."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import support
from engines.image import IMAGE, make_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.area import Area

# dockerd keeps the name runc for the one in its PATH.
RUNTIME = "tested"
# The same program with an argument, for `docker run --runtime`.
NAMED = "named"
# A newer client that somebody installed by hand speaks otherwise than the one of the package.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# What has nothing to do with a runtime and would reach out of the area, or wait.
_OPTIONS = (
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--shutdown-timeout=5",
)


class Docker:
    """A running dockerd with the image of image.py; containers are children of the cgroup in the area's name."""

    def __init__(self, area: Area) -> None:
        self.area = area
        self._numbers = itertools.count(1)
        self._names: list[str] = []
        self._environment = {"PATH": _PATH, "DOCKER_CONFIG": area.path("client"), "DOCKER_BUILDKIT": "0"}
        # dockerd's containerd makes a directory there.
        area.run("mount", "-t", "tmpfs", "tmpfs", "/opt").ok()
        config = area.path("daemon.json")
        with open(config, "w", encoding="utf-8") as stream:
            json.dump(
                {
                    "deprecated-key-path": area.path("key.json"),
                    "runtimes": {
                        RUNTIME: {"path": area.runtime},
                        NAMED: {"path": area.runtime, "runtimeArgs": ["--debug"]},
                    },
                },
                stream,
            )
        self._command = (
            "dockerd",
            f"--config-file={config}",
            f"--data-root={area.path('docker')}",
            f"--default-runtime={RUNTIME}",
            f"--cgroup-parent=/{area.name}",
            *_OPTIONS,
        )
        self._start()
        self.docker("load", "--quiet", "--input", make_image(area.path("busybox.tar"))).ok()

    def _start(self) -> None:
        self.process = self.area.daemon(*self._command, env={"PATH": _PATH})
        support.wait_until(lambda: self.docker("version").status == 0, "dockerd", timeout=60)

    def restart(self) -> None:
        """End dockerd in order, which ends its containers, and start it again."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self._start()

    def docker(self, *argv: str, stdin: str = "", timeout: float = 60) -> support.Result:
        """Run `docker` to its end."""
        return self.area.run("docker", *argv, stdin=stdin, timeout=timeout, env=self._environment)

    def typed(self, *argv: str) -> list[str]:
        """The same as an argument list for a terminal."""
        settings = [f"{name}={value}" for name, value in self._environment.items()]
        return [*self.area.prefix, "env", *settings, "docker", *argv]

    def name(self) -> str:
        """A name for a container that forget() will remove."""
        name = f"c{next(self._numbers)}"
        self._names.append(name)
        return name

    def run(self, *argv: str, options: tuple[str, ...] = ("--rm",), timeout: float = 60) -> support.Result:
        """`docker run` of a program to its end; options come before the image."""
        return self._run(self.name(), options, argv, timeout)

    def start(self, *argv: str, options: tuple[str, ...] = ()) -> str:
        """`docker run --detach`; the name."""
        name = self.name()
        self._run(name, ("--detach", *options), argv).ok()
        return name

    def _run(
        self, name: str, options: tuple[str, ...], argv: tuple[str, ...], timeout: float = 60
    ) -> support.Result:
        # Else it is a part of the id.
        first = ("--name", name, "--hostname", "box")
        return self.docker("run", *first, *options, IMAGE, *argv, timeout=timeout)

    def inspect(self, name: str, field: str) -> str:
        """One field of `docker inspect`, a template of Go's without braces."""
        return self.docker("inspect", "--format", f"{{{{{field}}}}}", name).ok().out.strip()

    def status(self, name: str) -> str:
        """created, running, paused, restarting, exited."""
        return self.inspect(name, ".State.Status")

    def wait_status(self, name: str, status: str, timeout: float = 20) -> None:
        """Wait until `docker inspect` says so."""
        support.wait_until(
            lambda: self.status(name) == status, f"container {name} {status}", timeout=timeout
        )

    def pid(self, name: str) -> int:
        """The pid of the first process, 0 when there is none."""
        return int(self.inspect(name, ".State.Pid"))

    def outcome(self, name: str) -> str:
        """How a container ended."""
        return self.inspect(name, ".State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error")

    def left(self) -> list[str]:
        """Cgroups that containers have left behind."""
        return [path for path in self.area.cgroups() if not path.endswith(self.area.name)]

    def forget(self) -> Iterator[str]:
        """Remove whatever is still there; what cannot be removed comes out."""
        if self._names:
            self.docker("rm", "--force", "--volumes", *self._names)
        yield from self.docker("ps", "--all", "--quiet", "--no-trunc").ok().out.split()
        self._names.clear()
        # The same test then has the same names with every runtime.
        self._numbers = itertools.count(1)

"""A dockerd of our own, which starts its own containerd, and Debian's client `docker`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import support
from engines.client import Client
from engines.image import make_image
from engines.scenario import OURS

if TYPE_CHECKING:
    from engines.area import Area

# What users are given to copy is what runs here.
with open(os.path.join(support.PROJECT, "deploy/daemon.json"), encoding="utf-8") as _stream:
    SNIPPET = _stream.read()
PROGRAM = "/usr/local/sbin/pyrunc"
# The same program with an argument, for `docker run --runtime`.
NAMED = "named"
# A newer client that somebody installed by hand speaks otherwise than the one of the package.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Docker(Client):
    """A running dockerd with the image of image.py; containers are children of the cgroup in the area's name.

    It has no network of its own unless `options` say so.
    """

    options: tuple[str, ...] = (
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
    )

    def __init__(self, area: Area) -> None:
        environment = {"PATH": _PATH, "DOCKER_CONFIG": area.path("client"), "DOCKER_BUILDKIT": "0"}
        super().__init__(area, "docker", environment=environment)
        # dockerd's containerd makes a directory there.
        area.run("mount", "-t", "tmpfs", "tmpfs", "/opt").ok()
        # dockerd keeps the name runc for the one in its PATH.
        self.runtime = OURS if area.runtime_name == OURS else "tested"
        config = area.path("daemon.json")
        with open(config, "w", encoding="utf-8") as stream:
            json.dump({**self._runtimes(), "deprecated-key-path": area.path("key.json")}, stream)
        self._command = (
            "dockerd",
            f"--config-file={config}",
            f"--data-root={area.path('docker')}",
            f"--cgroup-parent=/{area.name}",
            "--shutdown-timeout=5",
            *self._options(),
        )
        self._start()
        self.do("load", "--quiet", "--input", make_image(area.path("busybox.tar"))).ok()

    def _runtimes(self) -> dict[str, support.Json]:
        """What docs/engines.md puts into daemon.json, and one more name for the same program."""
        found = json.loads(SNIPPET.replace(PROGRAM, "PROGRAM").replace(OURS, self.runtime))
        found["runtimes"][self.runtime]["path"] = self.area.runtime
        found["runtimes"][NAMED] = {"path": self.area.runtime, "runtimeArgs": ["--debug"]}
        assert isinstance(found, dict)
        return found

    def _options(self) -> tuple[str, ...]:
        return self.options

    def _start(self) -> None:
        self.process = self.area.daemon(*self._command, env={"PATH": _PATH})
        support.wait_until(lambda: self.do("version").status == 0, "dockerd", timeout=60)

    def restart(self) -> None:
        """End dockerd in order, which ends its containers, and start it again."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self._start()

"""A dockerd of our own, which starts its own containerd, and Debian's client `docker`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import support
from engines.client import Client
from engines.image import make_image

if TYPE_CHECKING:
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


class Docker(Client):
    """A running dockerd with the image of image.py; containers are children of the cgroup in the area's name."""

    def __init__(self, area: Area) -> None:
        environment = {"PATH": _PATH, "DOCKER_CONFIG": area.path("client"), "DOCKER_BUILDKIT": "0"}
        super().__init__(area, "docker", environment=environment)
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
        self.do("load", "--quiet", "--input", make_image(area.path("busybox.tar"))).ok()

    def _start(self) -> None:
        self.process = self.area.daemon(*self._command, env={"PATH": _PATH})
        support.wait_until(lambda: self.do("version").status == 0, "dockerd", timeout=60)

    def restart(self) -> None:
        """End dockerd in order, which ends its containers, and start it again."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self._start()

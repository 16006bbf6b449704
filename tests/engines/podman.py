"""podman as root with storage, networks and a configuration of its own; it has no daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import support
from engines.client import Client
from engines.image import make_image, make_pause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.area import Area

# The limits: podman asks for more than it may have, and kube play swaps soft and hard ones.
_CONFIG = """
[containers]
log_driver = "k8s-file"
netns = "none"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
infra_image = "localhost/pause:1"
init_path = "/usr/bin/docker-init"
runtime = "{name}"
runtime_supports_json = ["{name}"]
volume_path = "{directory}/volumes"
[engine.runtimes]
{name} = ["{runtime}"]
[network]
network_config_dir = "{directory}/networks"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "/run/containers/storage"
"""


class Podman(Client):
    """podman with the images of image.py; containers are children of the cgroup in the area's name."""

    remove = ("rm", "--force", "--time", "0")

    def __init__(self, area: Area) -> None:
        names = {"name": area.runtime_name, "directory": area.directory, "runtime": area.runtime}
        for name, text in (
            ("containers.conf", _CONFIG),
            ("storage.conf", _STORAGE),
            ("config.json", "{{}}"),
        ):
            with open(area.path(name), "w", encoding="utf-8") as stream:
                stream.write(text.format(**names))
        environment = {
            "CONTAINERS_CONF": area.path("containers.conf"),
            "CONTAINERS_STORAGE_CONF": area.path("storage.conf"),
            "DOCKER_CONFIG": area.directory,
        }
        always = ("--cgroup-parent", f"/{area.name}")
        super().__init__(area, "podman", environment=environment, always=always)
        # Locks that all podmans of a host share are there.
        area.run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm").ok()
        for path in (make_image(area.path("busybox.tar")), make_pause(area.path("pause.tar"))):
            self.do("load", "--quiet", "--input", path).ok()

    def forget(self) -> Iterator[str]:
        """The same, and the conmon of every container is gone."""
        yield from super().forget()
        support.wait_until(lambda: not self.area.processes(), "the end of conmon and its clean-up")

"""podman with storage, networks and a configuration of its own, as root and as an ordinary user; it has no daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import containers
import support
from engines import accounts
from engines.area import PATH
from engines.client import Client
from engines.image import make_image, make_pause
from engines.scenario import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.area import Area

# The limits: podman asks for more than it may have, and kube play swaps soft and hard ones. Without systemd podman
# itself goes back to cgroupfs, but says so.
_CONFIG = """
[containers]
log_driver = "k8s-file"
netns = "none"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "{driver}"
events_logger = "file"
infra_image = "localhost/pause:1"
init_path = "/usr/bin/docker-init"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "/run/containers/storage"
"""
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
# What users are given to copy is what runs here.
with open(os.path.join(support.PROJECT, "deploy/podman.conf"), encoding="utf-8") as _stream:
    SNIPPET = _stream.read()
PROGRAM = "/usr/local/sbin/pyrunc"


class Podman(Client):
    """podman with the images of image.py; containers are children of the cgroup in the area's name."""

    remove = ("rm", "--force", "--time", "0")
    bridge = "podman"

    def __init__(self, area: Area) -> None:
        self._configure(area)
        self._connect(area)
        for path in (make_image(area.path("busybox.tar")), make_pause(area.path("pause.tar"))):
            self.do("load", "--quiet", "--input", path).ok()

    def _connect(self, area: Area) -> None:
        """How the command is called."""
        # buildah looks for the runtime by its name.
        environment = {"PATH": f"{os.path.dirname(area.runtime)}:{PATH}"}
        always = ("--cgroup-parent", area.parent)
        super().__init__(area, "podman", environment=environment, always=always)

    def wait_ended(self, name: str) -> None:
        """The same; conmon, and the podman that it calls to unmount the root file system, are gone."""
        super().wait_ended(name)
        identity = self.inspect(name, ".Id")
        support.wait_until(lambda: not self.area.running(identity), "the end of conmon and its clean-up")

    def buildah(self, *argv: str) -> support.Result:
        """buildah, which has podman's images."""
        return self.area.run("buildah", *argv, env=self.environment)

    @staticmethod
    def _configure(area: Area) -> None:
        """Write what stands in /etc/containers, and mount it there."""
        directory = area.path("containers")
        snippet = SNIPPET.replace(PROGRAM, "PROGRAM").replace(OURS, area.runtime_name)
        snippet = snippet.replace("PROGRAM", area.runtime)
        os.makedirs(f"{directory}/containers.conf.d")
        for name, text in (
            ("containers.conf", _CONFIG.format(driver=area.driver)),
            ("containers.conf.d/pyrunc.conf", snippet),
            ("storage.conf", _STORAGE.format(directory=area.directory)),
            ("policy.json", POLICY),
        ):
            with open(os.path.join(directory, name), "w", encoding="utf-8") as stream:
                stream.write(text)
        area.run("mount", "--bind", directory, "/etc/containers").ok()
        # Locks that all podmans of a host share are there.
        area.run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm").ok()

    def forget(self) -> Iterator[str]:
        """The same, and the conmon of every container is gone."""
        yield from super().forget()
        support.wait_until(lambda: not self.area.processes(), "the end of conmon and its clean-up")


class RootlessPodman(Podman):
    """podman called by an ordinary user, who exists in the area only. Containers have no cgroups of their own."""

    def _connect(self, area: Area) -> None:
        home, runtime_directory = area.path("home"), f"/run/user/{accounts.UID}"
        accounts.add(area, home)
        owned = ("-o", accounts.USER, "-g", accounts.USER, "-m", "700")
        area.run("install", "-d", *owned, home, runtime_directory).ok()
        # Where nobody has given it to all users, as udev does.
        area.run("mknod", "-m", "666", "/run/tun", "c", "10", "200").ok()
        area.run("mount", "--bind", "/run/tun", "/dev/net/tun").ok()
        environment = {"HOME": home, "XDG_RUNTIME_DIR": runtime_directory}
        identity = (
            "setpriv",
            f"--reuid={accounts.USER}",
            f"--regid={accounts.USER}",
            "--init-groups",
            "--inh-caps=-all",
        )
        Client.__init__(self, area, *identity, "podman", environment=environment)
        if area.run(*identity, area.runtime, "--version").status != 0:
            area.take(containers.copy_installation(area.directory))

    def path(self, name: str) -> str:
        """Below the user's home."""
        return self.area.path("home", name)

    def forget(self) -> Iterator[str]:
        """The same; also the process that keeps podman's user namespace."""
        yield from Client.forget(self)
        self.do("system", "migrate").ok()
        support.wait_until(lambda: not self.area.processes(), "the end of conmon and its clean-up")

"""podman of an ordinary user on top of the user's manager: limits, figures and the end of its containers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import limits
import support
import systemd_host as others
from engines.image import IMAGE, make_image
from engines.podman import POLICY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import User

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("v2_alone")]

MB = 1 << 20
OPTIONS = ("--memory", "64m", "--memory-swap", "96m", "--cpus", "0.5", "--pids-limit", "50")
FILES = {
    "memory.max": str(64 * MB),
    "memory.swap.max": str(32 * MB),
    "cpu.max": "50000 100000",
    "pids.max": "50",
}


class Podman:
    """podman with storage of its own in the user's home, and one runtime."""

    def __init__(self, user: User, runtime: str) -> None:
        self.user = user
        home = user.runtime_dir
        self.argv = [
            *(*user.prefix, f"XDG_RUNTIME_DIR=/run/user/{user.uid}", "podman"),
            *("--root", f"{home}/storage", "--runroot", f"{home}/podman", "--storage-driver", "vfs"),
            *("--cgroup-manager", "systemd", "--events-backend", "file", "--runtime", runtime),
        ]

    def do(self, *words: str) -> support.Result:
        """One command, which must work."""
        return support.run(*self.argv, *words, timeout=60).ok()


@pytest.fixture(params=others.RUNTIMES)
def podman(request: pytest.FixtureRequest, lingering: User) -> Iterator[Podman]:
    """podman with an image; afterwards nothing of it runs."""
    support.needs_program("podman")
    path = lingering.pyrunc if request.param == "pyrunc" else support.needs_program(request.param)
    configuration = os.path.join(lingering.runtime_dir, ".config/containers")
    support.run(*lingering.prefix, "mkdir", "-p", configuration).ok()
    with open(os.path.join(configuration, "policy.json"), "w", encoding="utf-8") as stream:
        stream.write(POLICY)
    made = Podman(lingering, path)
    made.do("load", "--quiet", "--input", make_image(os.path.join(lingering.runtime_dir, "image.tar")))
    yield made
    made.do("rm", "--force", "--all", "--time", "0")
    # Ends the process that keeps the user namespace.
    made.do("system", "migrate")


def test_a_life(podman: Podman) -> None:
    """Its cgroup is below the user's service and has the limits, which podman changes; exec, figures, the end."""
    network = ("--network", "none", "--log-driver", "k8s-file")
    one = podman.do("run", "--detach", *network, *OPTIONS, IMAGE, "sleep", "1000").out.strip()
    pid = int(podman.do("inspect", "--format", "{{.State.Pid}}", one).out)
    path = limits.directory(pid, "")
    assert f"/user@{podman.user.uid}.service/" in path and one in path
    assert {name: _read(path, name) for name in FILES} == FILES
    assert support.status_field(pid, "Uid").split()[0] == str(podman.user.uid)
    assert podman.do("exec", one, "cat", "/sys/fs/cgroup/pids.max").out == "50\n"
    figures = podman.do("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", one).out.split()
    assert figures[-2:] == ["67.11MB", "1"], figures
    podman.do("update", "--memory", "80m", "--memory-swap", "80m", one)
    assert (_read(path, "memory.max"), _read(path, "memory.swap.max")) == (str(80 * MB), "0")
    podman.do("pause", one)
    assert podman.do("inspect", "--format", "{{.State.Status}}", one).out == "paused\n"
    podman.do("unpause", one)
    podman.do("rm", "--force", "--time", "0", one)
    support.wait_until(lambda: not os.path.exists(path), "the end of its cgroup")
    assert podman.do("ps", "--all", "--quiet").out == ""


def _read(directory: str, name: str) -> str:
    with open(os.path.join(directory, name), encoding="utf-8") as stream:
        return stream.read().strip()

"""docker with `--userns-remap`: containers in a user namespace with another user's ids."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support
from engines import accounts, facts
from engines.docker import Docker
from engines.life import test_copy, test_exec, test_terminal
from engines.options import test_volumes

if TYPE_CHECKING:
    from engines.area import Area
    from engines.scenario import Seen

__all__ = ["test_copy", "test_exec", "test_terminal", "test_volumes"]


class RemappedDocker(Docker):
    """dockerd whose containers have the ids of the area's user."""

    options = (*Docker.options, f"--userns-remap={accounts.USER}")

    def __init__(self, area: Area) -> None:
        accounts.add(area, area.path("home"))
        super().__init__(area)


pytestmark = pytest.mark.root
ENGINE = "docker-remap"
CLIENT = RemappedDocker


@facts.COVERS
@pytest.mark.parametrize("name", ["remapped", "host"])
def test_around(client: RemappedDocker, seen: Seen, name: str) -> None:
    """`docker run` under --userns-remap: all that a program sees of its container"""
    options = ("--userns", "host") if name == "host" else ()
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *options)))


def test_identity(client: RemappedDocker, seen: Seen) -> None:
    """Root inside is the first subordinate id outside, also in exec; files that it makes are that one's."""
    directory = client.path("given")
    os.mkdir(directory)
    os.chmod(directory, 0o777)
    one = client.start(
        "sh", "-c", "touch /given/made; exec sleep 1000", options=("-v", f"{directory}:/given")
    )
    made = os.path.join(directory, "made")
    support.wait_until(lambda: os.path.exists(made), "the file")
    seen.value("file", os.stat(made).st_uid)
    seen.value("uid", support.status_field(client.pid(one), "Uid"))
    client.do("exec", "--detach", one, "sleep", "2000").ok()
    top = ("top", one, "-o", "pid,uid,args")
    support.wait_until(lambda: "sleep 2000" in client.do(*top).ok().out, "the second process")
    lines = client.do(*top).ok().out.splitlines()
    seen.value("top", "\n".join(sorted(" ".join(line.split()[1:]) for line in lines)))
    assert seen.values["file"] == accounts.SUBORDINATE

"""docker: the scenarios of options.py, and what it does otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import support
from engines import facts, options
from engines.docker import Docker
from engines.options import *  # noqa: F403 - tests

if TYPE_CHECKING:
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "docker-options"
CLIENT = Docker


# docker asks for every capability that it knows by name.
@pytest.mark.skipif(not support.has_capability(24), reason="CAP_SYS_RESOURCE")
@pytest.mark.parametrize("name", options.parameters(options.EVERYTHING))
def test_everything(client: Docker, seen: Seen, name: str) -> None:
    """`docker run` with all capabilities: all that a program sees of its container"""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *options.EVERYTHING[name])))


def test_directory_made(client: Docker, seen: Seen) -> None:
    """`docker run --workdir` makes a missing directory."""
    placed = ("--rm", "--workdir", "/no/directory", "--user", "1000")
    result = client.run("sh", "-c", "pwd; stat -c '%a %u %g' . ..", options=placed)
    assert seen.command("run", result).ok().out.startswith("/no/directory\n")


def test_memory_event(client: Docker, seen: Seen) -> None:
    """`docker inspect` says of a container that ran out of memory that it did."""
    client.area.needs_mounted_cgroups()
    one = client.start("tail", "/dev/zero", options=("--memory", "16m", "--memory-swap", "16m"))
    client.wait_status(one, "exited")
    seen.value("outcome", client.outcome(one))
    assert "137 true" in client.outcome(one)


@facts.COVERS
def test_read_only(client: Docker, seen: Seen) -> None:
    """`docker run --read-only`: all that a program sees of its container."""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *options.READ_ONLY)))

"""podman: the scenarios of options.py, and what it does otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engines import facts, options
from engines.options import *  # noqa: F403 - tests
from engines.podman import Podman

if TYPE_CHECKING:
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "podman-options"
CLIENT = Podman


@pytest.mark.parametrize("name", options.parameters(options.EVERYTHING))
def test_everything(client: Podman, seen: Seen, name: str) -> None:
    """`podman run` with all capabilities: all that a program sees of its container"""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *options.EVERYTHING[name])))


@facts.COVERS
@facts.RUN_MODE
def test_read_only(client: Podman, seen: Seen) -> None:
    """`podman run --read-only`: all that a program sees of its container."""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", *options.READ_ONLY)))

"""podman container checkpoint where CRIU cannot dump: refused, and the container goes on as if nothing had been."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import support
from engines.podman import Podman

if TYPE_CHECKING:
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "podman"
CLIENT = Podman


def test_checkpoint(client: Podman, seen: Seen) -> None:
    """`podman container checkpoint`: its status, and that the container still answers."""
    support.needs(support.run("criu", "check").status != 0, "a kernel that is too new for CRIU")
    one = client.start("sleep", "1000")
    result = client.do("container", "checkpoint", one)
    seen.value("status", result.status)
    assert result.status != 0
    seen.value("state", client.inspect(one, ".State.Status"))
    seen.command("exec", client.do("exec", one, "echo", "alive")).ok()

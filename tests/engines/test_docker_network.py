"""docker with the networks that it makes unless it is told otherwise, and its runtime named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engines.docker import Docker
from engines.networks import *  # noqa: F403 - tests

if TYPE_CHECKING:
    import support


class BridgedDocker(Docker):
    """dockerd as it comes: a bridge, and rules for it, in the area's network namespace."""

    def _runtimes(self) -> dict[str, support.Json]:
        return {}

    def _options(self) -> tuple[str, ...]:
        return (f"--add-runtime={self.runtime}={self.area.runtime}", f"--default-runtime={self.runtime}")


pytestmark = pytest.mark.root
ENGINE = "docker-network"
CLIENT = BridgedDocker

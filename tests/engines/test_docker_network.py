"""docker with the networks that it makes unless it is told otherwise."""

from __future__ import annotations

import pytest

from engines.docker import Docker
from engines.networks import *  # noqa: F403 - tests


class BridgedDocker(Docker):
    """dockerd as it comes: a bridge, and rules for it, in the area's network namespace."""

    options = ()


pytestmark = pytest.mark.root
ENGINE = "docker-network"
CLIENT = BridgedDocker

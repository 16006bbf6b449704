"""podman: the scenarios of life.py, and what it does otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engines.life import *  # noqa: F403 - tests
from engines.networks import *  # noqa: F403 - tests
from engines.podman import Podman
from engines.podman_life import *  # noqa: F403 - tests

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.root
ENGINE = "podman"
CLIENT = Podman

"""containerd's own client: containers, one more process, signals, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engines.containerd import Containerd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.area import Area
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "containerd"


@pytest.fixture(scope="module")
def daemon(area: Area) -> Containerd:
    """One containerd for the tests of this module."""
    return Containerd(area)


@pytest.fixture
def ctd(daemon: Containerd) -> Iterator[Containerd]:
    """It, without containers of earlier tests."""
    yield daemon
    left = list(daemon.forget())
    assert not left, f"containerd cannot remove {left}"


def test_run(ctd: Containerd, seen: Seen) -> None:
    """`ctr run` shows what the program writes and ends with its exit status."""
    seen.command("run", ctd.run("sh", "-c", "echo out; echo err >&2; exit 7")).fails("err", status=7)

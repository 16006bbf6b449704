"""Processes of a container that wait for init where it comes to them.

That is `exec`, `mounts add`, and `create` in a shared pid namespace. With CAP_SYS_PTRACE and without a user namespace
they may trace it, read and write its memory and take its descriptors, from its first instruction in there on.
csrc/testing/neighbour.c does, and says what it has found: nothing of the host must be among it, and no right beyond the
container's. What it says in init's name must have no effect outside.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import faults
import rounds
from pyrunc import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    from containers import Bundle, BundleFactory, Container, ContainerFactory

    class NeighbourFactory(Protocol):
        """A neighbour that runs; `change` may change its bundle, `more` are its last arguments."""

        def __call__(
            self, change: Callable[[Bundle], object] | None = None, *more: str, caps: list[str] = ...
        ) -> Neighbour: ...


pytestmark = pytest.mark.root

ROUNDS = 20
LONG = "3600"
CAPS = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
]


def mask(names: list[str]) -> str:
    return f"{sum(1 << capabilities.NAMES.index(name) for name in names):x}"


class Neighbour:
    """A container whose program attacks whoever comes, and what it has said so far."""

    def __init__(self, one: Container) -> None:
        self.container = one
        self.said = ""

    def caught(self) -> int:
        """How many inits it has stopped so far."""
        return self.lines().count("init ")

    def lines(self) -> str:
        os.set_blocking(self.container._reader, False)
        try:
            while chunk := os.read(self.container._reader, 1 << 16):
                self.said += chunk.decode()
        except BlockingIOError:
            pass
        return self.said

    def findings(self) -> list[str]:
        """What it has got hold of."""
        return [line for line in self.lines().splitlines() if line.startswith("FOUND")]


@pytest.fixture
def marker(scratch: str) -> str:
    """A file that is on the host only."""
    path = os.path.join(scratch, "marker")
    with open(path, "w", encoding="ascii") as stream:
        stream.write("of the host")
    return path


@pytest.fixture
def neighbour(
    container: ContainerFactory, bundle: BundleFactory, tmp_path: Path, marker: str
) -> NeighbourFactory:
    """neighbour(): one that runs; `change` may change its bundle, `more` are its last arguments."""
    program = faults.program("neighbour", tmp_path)

    def make(
        change: Callable[[Bundle], object] | None = None, *more: str, caps: list[str] = CAPS
    ) -> Neighbour:
        target = bundle("probe", "/bin/neighbour", LONG, mask(caps), marker, str(os.getpid()), *more)
        install(target, program)
        target.mapping("process")["capabilities"] = {
            kind: list(caps) for kind in ("bounding", "effective", "permitted")
        }
        if change:
            change(target)
        one = container(target).up()
        one.expect("ready")
        return Neighbour(one)

    return make


def install(target: Bundle, program: str) -> None:
    place = os.path.join(target.rootfs, "bin/neighbour")
    with open(program, "rb") as source, open(place, "wb") as stream:
        stream.write(source.read())
    os.chmod(place, 0o755)


def until_caught(attacker: Neighbour, act: Callable[[], object], count: int = ROUNDS) -> Iterator[int]:
    """Rounds of `act`, more of them while nobody was caught: an attack that never was one says nothing."""
    for turn in rounds.loop(count):
        act()
        yield turn
    for turn in range(10 * count):
        if attacker.caught():
            return
        act()
        yield turn
    pytest.fail("no init was ever caught")


def test_exec(neighbour: NeighbourFactory) -> None:
    """Nothing of the host, and no more rights than the container's."""
    attacker = neighbour()
    for _ in until_caught(attacker, lambda: attacker.container.exec("/bin/true")):
        assert attacker.findings() == []

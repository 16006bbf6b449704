"""Signals while CRIU works."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.criu.process import Interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def blocked() -> Iterator[set[int]]:
    """The signals an attached verb blocks, to forward them."""
    wanted = {signal.SIGTERM, signal.SIGUSR1}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    yield {int(number) for number in wanted}
    signal.sigtimedwait(wanted, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_what_an_attached_verb_blocks(blocked: set[int]) -> None:
    """One that ends programs interrupts; others wait for the program; afterwards all are blocked again."""
    # To this thread: a worker of pytest-xdist has another one, which does not block them.
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        support.wait_until(lambda: interrupts.taken() == signal.SIGTERM, "the signal")
        assert signal.sigpending() == {signal.SIGUSR1}
    assert blocked <= {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}

"""The fuzzers of csrc/fuzz: their corpora are replayed, and each looks for something new for a moment."""

from __future__ import annotations

import os

import pytest

import rounds
import support
from security import fuzz

FUZZERS = sorted(fuzz.fuzzers())
SECONDS = 4
CORPUS_BYTES = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """They are compiled by clang, whose libFuzzer they are made of."""
    support.needs_program("clang")
    fuzz.build()


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZERS)
def test_corpora(name: str) -> None:
    """Every input that was ever worth keeping; what once crashed is among them."""
    result = fuzz.replay(name)
    assert result.returncode == 0, result.stdout[-6000:]
    assert f"{len(os.listdir(fuzz.corpus_of(name)))} files found" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZERS)
def test_fuzzers(name: str) -> None:
    """New inputs, and no finding: no memory error, no endless loop, nothing that csrc/fuzz/kernel.h forbids."""
    outcome = fuzz.fuzz(name, SECONDS * rounds.FACTOR)
    assert not outcome.findings
    assert outcome.rounds > 100
    rounds.record(outcome.rounds, outcome.seconds)


def test_the_corpora_are_small() -> None:
    """They are part of the repository."""
    sizes = [
        os.path.getsize(os.path.join(directory, name))
        for directory, _, names in os.walk(fuzz.CORPUS)
        for name in names
    ]
    assert 0 < sum(sizes) < CORPUS_BYTES

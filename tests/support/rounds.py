"""How often attack loops go round, and with which seed; `./dev fuzz attacks` asks for more than a test run does.

    for turn in rounds.loop(20):      # 20 rounds, or as many times 20 as PYRUNC_ATTACK_ROUNDS says
    for turn in rounds.during(1.5):   # as many rounds as fit into 1.5 s, or that many times as long
    chance = rounds.chance()          # random.Random; its seed is printed, PYRUNC_ATTACK_SEED repeats a run

With PYRUNC_ATTACK_RECORD=FILE every loop adds a line of JSON to FILE: the test, its rounds and its seconds. That is
where the figures of docs/ATTACKS.md come from; that a test has failed is added by tests/security/conftest.py.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTOR = float(os.environ.get("PYRUNC_ATTACK_ROUNDS", "1"))


def rounds(count: int) -> int:
    """How many rounds to go where a test run goes `count`."""
    return max(1, round(count * FACTOR))


def seed() -> int:
    """The seed of this run, printed so that a failed run can be repeated."""
    given = os.environ.get("PYRUNC_ATTACK_SEED", "")
    number = int(given) if given else int.from_bytes(os.urandom(4), "little")
    print(f"PYRUNC_ATTACK_SEED={number}", file=sys.stderr)
    return number


def chance() -> random.Random:
    """A generator that PYRUNC_ATTACK_SEED repeats."""
    return random.Random(seed())


def loop(count: int) -> Iterator[int]:
    """The numbers of the rounds; those that were begun are recorded."""
    began, done = time.monotonic(), 0
    try:
        for turn in range(rounds(count)):
            done += 1
            yield turn
    finally:
        record(done, time.monotonic() - began)


def during(seconds: float) -> Iterator[int]:
    """The same for as long as `seconds` last."""
    began, done = time.monotonic(), 0
    try:
        while time.monotonic() - began < seconds * FACTOR:
            done += 1
            yield done - 1
    finally:
        record(done, time.monotonic() - began)


def record(done: int, seconds: float, *, finding: str = "", test: str = "") -> None:
    """Add what was tried to PYRUNC_ATTACK_RECORD; `test` is the running one unless it is given."""
    path = os.environ.get("PYRUNC_ATTACK_RECORD")
    if not path:
        return
    # "tests/security/test_x.py::test_y[case] (call)"
    name = test or os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    line = {"test": name, "rounds": done, "seconds": round(seconds, 3), "finding": finding}
    # One write(2) in O_APPEND: several runs may share the file.
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")

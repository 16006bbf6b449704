"""The table in docs/configuration.md: a cell for every combination, and behind every "yes" a test that runs there."""

from __future__ import annotations

import itertools
import os
import re

import pytest

import image
import session
import support
from systemd import test_support

MODULE = "tests/systemd/test_support.py"
# What a guest is, in the words of the table.
MODES = {"apparmor": "v2", "selinux": "v2", "v1": "v1", "hybrid": "hybrid"}
COLUMNS = ("no label", "AppArmor", "SELinux")
USERS = {"root": test_support.test_root, "rootless": test_support.test_rootless}


def cells() -> dict[tuple[str, ...], str]:
    """(cgroups, driver, user, label): the text."""
    with open(os.path.join(support.PROJECT, "docs/configuration.md"), encoding="utf-8") as stream:
        lines = re.findall(r"^\| (v2|v1|hybrid) \| (.*) \|$", stream.read(), re.MULTILINE)
    found: dict[tuple[str, ...], str] = {}
    for mode, rest in lines:
        driver, user, *texts = (word.strip() for word in rest.split("|"))
        assert len(texts) == len(COLUMNS)
        for column, text in zip(COLUMNS, texts, strict=True):
            assert (mode, driver, user, column) not in found
            found[mode, driver, user, column] = text
    return found


def test_every_cell_is_there() -> None:
    """Mode by driver by user by label, each with a yes or a reason."""
    found = cells()
    assert set(found) == set(itertools.product(MODES.values(), ("cgroupfs", "systemd"), USERS, COLUMNS))
    for cell, text in found.items():
        assert re.fullmatch(r"yes(, [a-z ]+)?:( `\w+`)+|(no|like v2): [a-z0-9 ]+", text), cell


def test_every_yes_is_run() -> None:
    """In a guest of that kind, which has that module and runs the tests of the table."""
    for (mode, _, _, column), text in cells().items():
        if not text.startswith("yes"):
            continue
        for guest in re.findall(r"`(\w+)`", text):
            assert MODES[guest] == mode
            paths = session.TESTS[guest]
            assert any(path == MODULE or MODULE.startswith(f"{path}/") for path in paths), guest
            assert column == "no label" or f"security={column.lower()}" in image.SNAPSHOTS[guest], (
                guest,
                column,
            )


def test_the_tests_of_the_table() -> None:
    """They go over drivers and labels; with the guests that makes the cells."""
    for function in USERS.values():
        every: list[pytest.Mark] = vars(function)["pytestmark"]
        marks = {mark.args[0]: mark for mark in every if mark.name == "parametrize"}
        assert tuple(marks["driver"].args[1]) == ("cgroupfs", "systemd")
        assert marks["label"].kwargs["ids"] == ["plain", "labelled"]

"""The plugins of this test suite, each by a small suite of its own that pytest runs: second chances, marks, locks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import durations
import support
import unsteady

if TYPE_CHECKING:
    from pathlib import Path

LUCK = """
import pathlib

def test_luck():
    here = pathlib.Path(__file__).with_name("seen")
    before = here.exists()
    here.touch()
    assert before

def test_fault():
    assert {fault}
"""
ALONE = """
import os, pathlib, time, pytest

def turn(name):
    here = pathlib.Path(__file__).parent
    mine = here / f"running-{name}"
    mine.touch()
    time.sleep(0.05)
    others = [path.name for path in here.glob("running-*") if path != mine]
    mine.unlink()
    return others

@pytest.mark.parametrize("number", range(8))
def test_together(number):
    assert "running-alone" not in turn(f"together{number}")

@pytest.mark.alone("it says so")
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    assert turn("alone") == []
"""
SLOW = """
import time, pytest
import durations

durations.SLOW_SECONDS = 0.1

def test_unmarked():
    time.sleep(0.2)

@pytest.mark.slow
def test_marked():
    time.sleep(0.2)

@pytest.mark.slow
def test_quick():
    pass
"""


def run_suite(tmp_path: Path, text: str, *options: str) -> support.Result:
    """Run pytest on a module of this text, with the plugins alone."""
    path = tmp_path / "test_suite.py"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  slow: x\n  alone(reason): x\n", encoding="utf-8"
    )
    plugins = ["-p", "alone", "-p", "durations", "-p", "unsteady", "-p", "no:cacheprovider"]
    argv = [support.PYTHON, "-m", "pytest", *plugins, "-rA", f"--rootdir={tmp_path}", str(path), *options]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.realpath(support.__file__))}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return support.run(*argv, env=environment, cwd=str(tmp_path))


def table(tmp_path: Path, name: str) -> str:
    """A table with one test of the small suite."""
    path = tmp_path / "unsteady.toml"
    path.write_text(
        f'[[test]]\nid = "test_suite.py::{name}"\ncause = "it is a matter of luck"\n', encoding="utf-8"
    )
    return str(path)


def test_a_second_chance(tmp_path: Path) -> None:
    """What passes the second time passes, and the summary names it with the cause and the first failure."""
    result = run_suite(tmp_path, LUCK.format(fault=True), "--unsteady", table(tmp_path, "test_luck")).ok()
    assert "2 passed" in result.out
    assert "unsteady: test_suite.py::test_luck passed when it was run once more" in result.out
    assert "it is a matter of luck" in result.out and "assert before" in result.out


def test_no_second_chance(tmp_path: Path) -> None:
    """What the table does not name fails at once."""
    result = run_suite(tmp_path, LUCK.format(fault=True), "--unsteady", table(tmp_path, "test_fault"))
    assert result.status == 1 and "1 failed, 1 passed" in result.out and "once more" not in result.out


def test_a_fault_stays_one(tmp_path: Path) -> None:
    """It fails both times."""
    result = run_suite(tmp_path, LUCK.format(fault=False), "--unsteady", table(tmp_path, "test_fault"))
    assert result.status == 1 and "2 failed" in result.out


def test_the_table() -> None:
    """Each entry names a test that exists, and says why it is there."""
    for name, cause in unsteady.read_table().items():
        path, _, function = name.partition("::")
        with open(os.path.join(support.PROJECT, path), encoding="utf-8") as stream:
            assert f"def {function.partition('[')[0]}(" in stream.read(), name
        assert len(cause) > 20, name


def test_alone_in_a_parallel_run(tmp_path: Path) -> None:
    """A test that is marked `alone` never runs beside another one."""
    result = run_suite(tmp_path, ALONE, "-n", "4").ok()
    assert "11 passed" in result.out


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["serial", "parallel"])
def test_slow_by_measurement(tmp_path: Path, options: list[str]) -> None:
    """With --check-slow a wrong mark fails the run."""
    module = SLOW if not options else SLOW.replace("durations.SLOW_SECONDS = 0.1", "")
    result = run_suite(tmp_path, module, "--check-slow", *options)
    wrong = [line for line in result.out.splitlines() if " s and " in line]
    if options:
        # The limit is the real one in the controller: only the marks that are too many are found.
        assert [line.partition(" ")[0][-11:] for line in wrong] == ["test_marked", ":test_quick"]
    else:
        assert [line.partition(" ")[0] for line in wrong] == [
            "test_suite.py::test_quick",
            "test_suite.py::test_unmarked",
        ]
    assert result.status == 1


@pytest.mark.parametrize(
    ("seconds", "marked", "expected"),
    [
        (1.5, False, None),
        (1.5, True, None),
        (2.5, False, "is not marked slow"),
        (0.5, True, "is marked slow"),
    ],
)
def test_the_limit(seconds: float, marked: bool, expected: str | None) -> None:
    """Between half the limit and the limit either is right."""
    factor = durations.SLOW_SECONDS / 2
    assert durations.misjudged(seconds * factor, marked=marked) == expected

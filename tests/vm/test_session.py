"""./dev test --vm: in CI, and nowhere else, what fails in a guest is run once more. The command line is run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import session
import support

if TYPE_CHECKING:
    import pathlib

_TESTS = """
import pathlib

def test_fault():
    assert {fault}

def test_luck():
    here = pathlib.Path(__file__).with_name("seen")
    before = here.exists()
    here.touch()
    assert before
"""


def run(tmp_path: pathlib.Path, *, fault: bool) -> support.Result:
    """A module with a test that passes the second time only, and one that fails every time if `fault`."""
    path = tmp_path / "test_luck.py"
    path.write_text(_TESTS.format(fault=not fault), encoding="utf-8")
    line = session.script(
        "v1", ["-c", "/dev/null", f"--rootdir={tmp_path}", str(path)], str(tmp_path / "cache")
    )
    return support.run("bash", "-c", line)


def test_once_more(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what failed; that it passes then is said."""
    monkeypatch.setenv("CI", "true")
    result = run(tmp_path, fault=False).ok()
    assert "1 failed, 1 passed" in result.out and "1 passed, 1 deselected" in result.out
    assert result.out.splitlines()[-1].startswith("vm: unsteady with v1: ")


def test_a_fault_stays_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails again, and that is the status."""
    monkeypatch.setenv("CI", "true")
    result = run(tmp_path, fault=True)
    assert result.status == 1 and "2 failed" in result.out and "1 failed, 1 passed" in result.out
    assert "unsteady" not in result.out


def test_elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs tests by hand sees the failure as it is."""
    monkeypatch.delenv("CI", raising=False)
    result = run(tmp_path, fault=False)
    assert result.status == 1 and result.out.count("1 failed, 1 passed") == 1

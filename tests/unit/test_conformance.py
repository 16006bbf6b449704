"""What ./dev conformance makes of the suite's words; the suite itself is run by CI."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import expected
import page
import suite
import support
import tap

if TYPE_CHECKING:
    from pathlib import Path

CONFORMANCE = os.path.join(support.PROJECT, "conformance")

GOOD = "TAP version 13\nok 1 - one\nok 2 - two\n1..2\n"
HOOK = 'TAP version 13\n  ---\n  {\n    "error": "late"\n  }\n  ...\n1..0\n'
ENTRY = '[[known]]\nprogram = "kill"\nruntimes = ["pyrunc"]\nsays = ["two"]\nreason = "r"\nsee = "s"\n'


@pytest.mark.parametrize(
    ("program", "out", "err", "status", "failures"),
    [
        ("kill", GOOD, "", 0, []),
        ("kill", GOOD + GOOD, "", 0, []),
        ("kill", GOOD.replace("ok 2", "not ok 2"), "", 0, ["two"]),
        ("kill", GOOD, "why\nexit status 1\n", 1, ["exit status 1: why"]),
        ("kill", GOOD, "", -9, ["signal 9"]),
        ("kill", "", "", 0, ["no assertion was made"]),
        ("kill", "TAP version 13\nok 1 - one\n", "", 0, ["the output ends before its plan"]),
        ("kill", GOOD.replace("1..2", "1..3"), "", 0, ["3 assertions were planned, 2 made"]),
        ("kill", "TAP version 13\nok 1 # SKIP no\n1..1\n", "", 0, ["no assertion was made"]),
        ("kill", GOOD.replace("ok 2 - two", "not ok 2 - exit status 1"), "why\n", 0, ["exit status 1: why"]),
        ("poststop", "TAP version 13\n1..0\n", "", 0, []),
        ("poststop", HOOK, "", 0, ["late"]),
        ("poststop", "", "", 0, ["no output"]),
        ("prestart_fail", "TAP version 13\n1..0\n", "", 0, ["the runtime did not refuse anything"]),
        ("prestart_fail", "TAP version 13\n1..0\n", "failed to create the container\n", 0, []),
        ("process_rlimits_fail", "", "failed to create the container\n", 0, []),
        ("process_rlimits_fail", "", "", 0, ["no container was refused"]),
    ],
)
def test_verdict(program: str, out: str, err: str, status: int, failures: list[str]) -> None:
    """A program passes only when it proves that it has tested something."""
    verdict = tap.judge(program, out, err, status)
    assert verdict.failures == failures
    assert verdict.passed == (not failures)


def test_counts() -> None:
    """What is planned but not made counts for nothing."""
    verdict = tap.judge("kill", GOOD.replace("ok 2", "not ok 2"), "", 0)
    assert (verdict.made, verdict.held) == (2, 1)


@pytest.mark.parametrize(
    ("failures", "left", "tries", "words"),
    [
        (["one two"], [], 0, None),
        ([], [], 0, "passes, but is expected to fail"),
        ([], [], 1, None),
        (["one two", "three"], [], 0, "fails in another way, too: three"),
        (["one two"], ["mount"], 0, "fails in another way, too: left behind: mount"),
        (["three"], [], 1, "fails in another way, too: three"),
    ],
)
def test_difference(failures: list[str], left: list[str], tries: int, words: str | None) -> None:
    """Another failure, one more, or none at all."""
    known = expected.load(ENTRY + f"tries = {tries}\n", ["kill"])
    verdict = tap.Verdict(2, 1, failures, left)
    found = expected.differences({"runc": {"kill": verdict}, "pyrunc": {"kill": verdict}}, known)
    assert [(column, program) for column, program, _ in found] == ([("pyrunc", "kill")] if words else [])
    assert all(text.startswith(words or "") for _, _, text in found)


def test_chance_alone_is_no_failure() -> None:
    """With tries a program has to pass once when it must; nothing it says is known then."""
    known = expected.load(ENTRY + "tries = 2\nmust_pass = true\n", ["kill"]).find("kill", "pyrunc")
    assert expected.difference(tap.Verdict(2, 2), known) is None
    assert expected.difference(tap.Verdict(2, 1, ["one two"]), known) == "fails: one two"


def test_a_failure_that_is_not_known() -> None:
    """It fails the run and stands in the page; so does what stays behind after success."""
    nothing = expected.Expected()
    bad, dirty = tap.Verdict(2, 1, ["two"]), tap.Verdict(2, 2, [], ["cgroup /x"])
    assert expected.difference(bad, None) == "fails: two"
    assert expected.difference(dirty, None) == "passes, but: left behind: cgroup /x"
    assert expected.difference(tap.Verdict(2, 2), None) is None
    text = page.whole({"pyrunc": {"kill": bad, "state": dirty}}, {"pyrunc": "1"}, nothing, ("m", "v"))
    assert "## NOT EXPECTED\n\n* pyrunc: `kill` fails: two" in text
    assert "| kill | **fails** 1 of 2 |\n| state | 2 |\n" in text
    assert "| **programs that pass** | **1 of 2** |\n| **assertions that hold** | **3 of 4** |" in text
    assert "* `state` (pyrunc): cgroup /x" in text


def test_known_failures_are_explained() -> None:
    """Once, with reason and pointer, and only while they fail."""
    known = expected.load(ENTRY, ["kill"])
    failing = page.whole(
        {"pyrunc": {"kill": tap.Verdict(1, 0, ["two"])}}, {"pyrunc": "1"}, known, ("m", "v")
    )
    assert "* `kill` (pyrunc only): r See s.\n" in failing
    passing = page.whole({"pyrunc": {"kill": tap.Verdict(1, 1)}}, {"pyrunc": "1"}, known, ("m", "v"))
    assert "What fails in pyrunc" not in passing


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[known", "Expected"),
        (ENTRY.replace("kill", "kil"), "'kil' is no program of the suite"),
        (ENTRY.replace('reason = "r"', ""), "'reason' is missing"),
        (ENTRY.replace('see = "s"', 'see = " "'), "'see' is missing"),
        (ENTRY.replace('["two"]', "[]"), "says must be a list of texts"),
        (ENTRY.replace("pyrunc", "runc"), "'runc' is not compared"),
        (ENTRY + "why = 1\n", "unknown key 'why'"),
        (ENTRY + 'tries = "1"\n', "tries must be a number"),
        (ENTRY + "must_pass = true\n", "needs more than one of tries"),
        (ENTRY + "tries = 2\nmust_pass = 1\n", "must_pass is true or false"),
        (ENTRY + ENTRY, "listed twice"),
    ],
)
def test_bad_expectations(text: str, words: str) -> None:
    """Nothing is expected to fail without a reason and a pointer."""
    with pytest.raises(expected.ExpectedError, match=words):
        expected.load(text, ["kill"])


def test_the_real_expectations() -> None:
    """They can be read, and belong to the suite that go.mod pins."""
    with open(os.path.join(CONFORMANCE, "expected.toml"), encoding="utf-8") as stream:
        known = expected.load(stream.read(), suite.programs())
    assert len(suite.programs()) == 58
    for program in ("delete", "prestart", "process_capabilities_fail"):
        assert known.find(program, "pyrunc strict") is None


def test_no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line; an older Go, such as the distribution's, is as good as none."""
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(suite, "_GO_PLACES", ())
    monkeypatch.setattr(suite, "GO_PACKAGE", str(tmp_path / "nowhere"))
    with pytest.raises(
        suite.SuiteError, match=r"^Go 1.24 or newer is missing, and .*nowhere is out of reach: .+$"
    ):
        suite.build(str(tmp_path / "suite"))


def test_module_out_of_reach(tmp_path: Path) -> None:
    """One line, before anything starts."""
    directory = tmp_path / "suite"
    go = tmp_path / "go"
    go.write_text(
        '#!/bin/sh\n[ $1 = env ] && echo go1.30.1 || { echo \'{"Error": "no route"}\'; exit 1; }\n'
    )
    go.chmod(0o755)
    done = subprocess.run(
        [sys.executable, os.path.join(CONFORMANCE, "suite.py"), directory],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert suite.pinned() in done.stderr
    assert done.stderr.endswith("no route\n")
    assert not directory.exists()

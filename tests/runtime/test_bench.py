"""bench measures real commands, says the same thing in all its forms, and believes no runtime what it does not see."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

import support
from figures import median, ratios

if TYPE_CHECKING:
    import pathlib

pytestmark = pytest.mark.root

BENCH = os.path.join(support.PROJECT, "bench/bench.py")
MEASURE = os.path.join(support.BUILD, "measure")
COMMANDS = ("create", "start", "state", "exec", "kill", "delete", "run")


def bench(*words: str) -> support.Result:
    """Run it in the view "v1", whatever else the machine does."""
    return support.run(sys.executable, BENCH, "--anyway", "--view", "v1", *words, timeout=120)


@pytest.mark.slow
def test_all_forms_say_the_same(tmp_path: pathlib.Path) -> None:
    """Table, JSON, Markdown and picture. pyrunc is compared with itself, which is always there."""
    files = {name: str(tmp_path / name) for name in ("json", "svg", "md")}
    done = bench(
        *("--only", "hot", "--rounds", "3", "--runtime", "pyrunc", "--runtime", f"twin={support.PYRUNC}"),
        *("--json", files["json"], "--svg", files["svg"], "--results", files["md"]),
    ).ok()
    with open(files["json"], encoding="utf-8") as stream:
        document = json.load(stream)
    assert document["machine"]["kernel"] == os.uname().release
    assert set(document["versions"]) == {"pyrunc", "twin"}
    rows = {(row["bundle"], row["command"], row["runtime"]): row for row in document["rows"]}
    assert len(rows) == 2 * 2 * (len(COMMANDS) + 1)
    with open(files["md"], encoding="utf-8") as stream:
        markdown = stream.read()
    picture = ElementTree.parse(files["svg"])
    labels = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    for command in COMMANDS:
        ours, theirs = (rows["minimal", command, name]["ms"] for name in ("pyrunc", "twin"))
        assert len(ours) == len(theirs) == 3
        assert min(*ours, *theirs) > 0
        row = re.search(rf"^{command} +(\S+) \(.*?\) +(\S+) \(.*?\) +(\S+) \(.*?\)$", done.out, re.MULTILINE)
        assert row is not None, command
        shown = [float(text) for text in row.groups()]
        wanted = [median(ours), median(theirs), median(ratios(ours, theirs))]
        assert shown == pytest.approx(wanted, rel=0.01, abs=0.006)
        assert f"| {command} | {row[1]} (" in markdown
        assert labels.count(command) == 1
        assert f"{median(ours):.1f}" in labels or f"{median(ours):.0f}" in labels
    assert "not the same work" not in done.out


LIES = {
    "a wrong status": ("state", 'exec {real} "$@" --bogus', "exit status 1, expected 0"),
    "an exec that does nothing": ("exec", "exit 0", "exit status 0, expected 7"),
    "a state that is no truth": (
        "state",
        'echo "{{\\"id\\": \\"x\\", \\"pid\\": 1, \\"status\\": \\"running\\"}}"',
        "state says",
    ),
    "a delete that does nothing": (
        "delete",
        'case "$*" in *--force*) exec {real} "$@";; esac',
        "there is still",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
def test_a_runtime_is_not_believed(tmp_path: pathlib.Path, lie: str) -> None:
    """A runtime that fails, or only says that it worked, is not measured; and it leaves nothing behind."""
    verb, script, complaint = LIES[lie]
    liar, log = tmp_path / "liar", tmp_path / "log"
    body = script.format(real=support.PYRUNC)
    # --root DIRECTORY VERB ...
    told = f'echo "$@" >>{log}'
    liar.write_text(
        f'#!/bin/sh\n{told}\nif [ "$3" = {verb} ]; then {body}; exit; fi\nexec {support.PYRUNC} "$@"\n'
    )
    liar.chmod(0o755)
    target = str(tmp_path / "out.json")
    done = bench("--only", "hot", "--rounds", "1", "--runtime", f"liar={liar}", "--json", target)
    done.fails("bench: ", complaint)
    assert not os.path.exists(target)
    names = {line.split()[-1] for line in log.read_text().splitlines() if " create " in line}
    assert len(names) == 1
    assert not [path for name in names for path in support.find_cgroups(name)]
    roots = {line.split()[1] for line in log.read_text().splitlines() if line.startswith("--root ")}
    assert not [root for root in roots if os.path.exists(root)]


@pytest.mark.slow
def test_a_runtime_that_is_not_there() -> None:
    """Said by name."""
    bench("--runtime", "nosuch").fails("there is no nosuch here", "NOSUCH=PATH")


def test_measure_counts_what_it_runs(tmp_path: pathlib.Path) -> None:
    """Status, output, peak and events of a command, of its children too; the figures are its own, not ours."""
    out, errors = str(tmp_path / "out"), str(tmp_path / "err")

    def figures(event: str, *argv: str) -> list[int]:
        done = subprocess.run([MEASURE, event, out, errors, *argv], capture_output=True, check=True)
        return [int(word) for word in done.stdout.split()]

    _, status, _, _, faults = figures("page-faults", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert os.waitstatus_to_exitcode(status) == 3
    with open(out, encoding="ascii") as stdout, open(errors, encoding="ascii") as stderr:
        assert (stdout.read(), stderr.read()) == ("out\n", "err\n")
    python = [sys.executable, "-I", "-c"]
    filled = "import time; begin = time.process_time(); x = b'x' * (64 << 20)"
    took, _, small, _, few = figures("page-faults", *python, "pass")
    longer, _, large, cpu, many = figures(
        "page-faults", *python, f"{filled}\nwhile time.process_time() - begin < .2: pass"
    )
    assert 0 < took < longer
    assert small < 40 << 10 < 64 << 10 < large
    assert faults > 0
    assert many > few + 100
    assert cpu > 200_000
    in_child = figures("page-faults", "/bin/sh", "-c", f'{sys.executable} -I -c "pass"; true')[4]
    assert in_child > few * 0.8
    assert figures("none", "/bin/true")[4] == -1

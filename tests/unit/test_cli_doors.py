"""The `pyrunc` command answers some verbs without Python: nobody may be able to tell."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    import pathlib

# ROOT is an empty directory, LOG a file that is not there yet.
CASES = [
    "--root ROOT state x",
    "--root ROOT state",
    "--root ROOT state x y",
    "--root ROOT state --bogus x",
    "--root ROOT state x --help",
    "--root ROOT state -- x",
    "--root ROOT state -",
    "--root ROOT state ..",
    "--root ROOT state a/b",
    "--root ROOT state \u00e9",
    "--root ROOT start x",
    "--root ROOT start --",
    "--root ROOT start -- -x",
    "--root ROOT kill x",
    "--root ROOT kill x 0",
    "--root ROOT kill x 09",
    "--root ROOT kill x 64",
    "--root ROOT kill x 65",
    "--root ROOT kill x -9",
    "--root ROOT kill x 0x9",
    "--root ROOT kill x sigkill",
    "--root ROOT kill x Term",
    "--root ROOT kill x RTMIN+3",
    "--root ROOT kill x rtmax-30",
    "--root ROOT kill x RTMIN+31",
    "--root ROOT kill x XX",
    "--root ROOT kill --all x 9",
    "--root ROOT kill -a=true x",
    "--root ROOT kill -all=false x",
    "--root ROOT kill --all=maybe x",
    "--root ROOT kill x 9 extra",
    "--root ROOT delete x",
    "--root ROOT delete -f x",
    "--root ROOT delete x -f",
    "--root ROOT delete --force=false x",
    "--root ROOT delete --force --force x",
    "--root ROOT delete -- -f",
    "-root=ROOT state x",
    "--root / state x",
    "--root= state x",
    "--root ROOT/.. --root ROOT state x",
    "--root /nonexistent state x",
    "--root /nonexistent delete --force x",
    "--root",
    "--bogus state x",
    "--version state x",
    "-h state",
    "h state",
    "help kill",
    "--root ROOT --log file:LOG --log-format json state x",
    "--root ROOT --log journald:x state x",
    "--root ROOT --log=syslog:x kill x",
    "--root ROOT --systemd-log state x",
    "--root ROOT kill --regex x 9",
    "--root ROOT kill -r --all ( 9",
    "--root ROOT delete --force -r x",
    "-- state --bogus",
    "checkpoint --help",
    "--root ROOT --systemd-cgroup state x",
    "--root ROOT --cgroup-manager foo state x",
    "--root ROOT --cgroup-manager disabled state x",
    "--root ROOT --rootless=maybe state x",
    "--root ROOT --rootless true state x",
    "--root ROOT --debug=no state x",
    "--root ROOT --log-format yaml state x",
    "--root ROOT --log-level loud state x",
    "--root ROOT --log-format json state x",
    "--root ROOT --log /nonexistent/log state x",
    "--root ROOT --log= state x",
    "--root ROOT --log LOG state x",
    "--root ROOT --log=LOG --log-format json state x",
    "--root ROOT --log=LOG --log-format=json kill x 9",
    "--root ROOT --log=LOG --log-format=json kill x XX",
    "--root ROOT --log=LOG --log-format=json kill",
    "--root ROOT --log=LOG --log-format=json delete --force x",
    "--root ROOT --log=LOG --log-level debug --log-format=text delete x",
]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")


def answer(command: list[str], argv: str, folder: pathlib.Path) -> tuple[int, str, str, str | None]:
    """Status, stdout, stderr and log, the time taken out."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    words = argv.replace("ROOT", str(folder / "root")).replace("LOG", str(log)).split()
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, cwd=folder)
    written = _TIME.sub("TIME", log.read_text()) if log.exists() else None
    return done.returncode, done.stdout, _TIME.sub("TIME", done.stderr), written


@pytest.mark.parametrize("argv", CASES)
def test_both_doors_answer_alike(argv: str, tmp_path: pathlib.Path) -> None:
    """Status, stdout, stderr and log of `pyrunc` and of `python3 -m pyrunc` are the same."""
    (tmp_path / "root").mkdir()
    python = answer([support.PYTHON, "-I", "-m", "pyrunc"], argv, tmp_path)
    assert answer([support.PYRUNC], argv, tmp_path) == python
    assert not list((tmp_path / "root").iterdir())

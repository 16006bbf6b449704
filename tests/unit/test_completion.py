"""`completion`, asked as a shell asks it, and `info`."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.cli import completion, options
from pyrunc.cli import main as cli

if TYPE_CHECKING:
    import pathlib

_ASK = """
PATH=$1:$PATH; shift
source "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_pyrunc
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def ask(tmp_path: pathlib.Path) -> pathlib.Path:
    """The script, and a pyrunc whose containers are one, two below the default root and three below /r."""
    (tmp_path / "script").write_text(completion.script("bash"))
    command = tmp_path / "pyrunc"
    command.write_text('#!/bin/sh\n[ "$1 $2" = "--root /r" ] && echo three || printf "one\\ntwo\\n"\n')
    command.chmod(0o755)
    return tmp_path


def answers(folder: pathlib.Path, *words: str) -> list[str]:
    argv = ["bash", "--norc", "-c", _ASK, str(folder / "script"), str(folder), *words]
    return support.run(*argv).ok().out.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pyrunc", "sta"], ["start", "state"]),
        (["pyrunc", "--debug", "feat"], ["features"]),
        (["pyrunc", "--root", "/r", "re"], ["restore", "resume"]),
        (["pyrunc", "--log-f"], ["--log-format"]),
        (["pyrunc", "create", "--bun"], ["--bundle"]),
        (["pyrunc", "create", ""], []),
        (["pyrunc", "kill", ""], ["one", "two"]),
        (["pyrunc", "--root", "/r", "delete", "--force", "t"], ["three"]),
        (["pyrunc", "help", "explai"], ["explain"]),
        (["pyrunc", "completion", ""], ["bash", "fish", "zsh"]),
        (["pyrunc", "nonsense", ""], []),
    ],
)
def test_bash(ask: pathlib.Path, words: list[str], expected: list[str]) -> None:
    """Verbs, options, ids: what begins as the last word does."""
    found = answers(ask, *words)
    assert [word for word in found if not word.startswith("--") or words[-1].startswith("-")] == expected


def test_every_verb_and_option() -> None:
    """All that --help shows is completed, by each script."""
    for shell in completion.SHELLS:
        text = completion.script(shell)
        dashes = "-l " if shell == "fish" else "--"
        for name, command in options.COMMANDS.items():
            assert (name in text.split()) or f"{name})" in text, (shell, name)
            for option in command.options:
                assert not option[3] or f"{dashes}{option[0]}" in text, (shell, name, option[0])


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shells_read_it(shell: str, tmp_path: pathlib.Path) -> None:
    """No syntax error."""
    support.needs_program(shell)
    path = tmp_path / "script"
    path.write_text(completion.script(shell))
    subprocess.run([shell, "-n", str(path)], check=True)


def test_another_shell(capfd: pytest.CaptureFixture[str]) -> None:
    """It is told which there are."""
    assert cli.main(["completion", "tcsh"]) == 1
    assert capfd.readouterr().err == (
        "pyrunc: completion: no completion for 'tcsh'\nhint: give one of bash, fish, zsh\n"
    )


def test_info(capfd: pytest.CaptureFixture[str]) -> None:
    """A table of two columns, with the kernel's own words."""
    assert cli.main(["info"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    facts = dict(re.split(r":\s+", line, maxsplit=1) for line in out.splitlines()[1:])
    assert facts["kernel"] == f"{os.uname().release} {os.uname().machine}"
    assert facts["processors"] == str(os.cpu_count())
    assert facts["cgroup version"] in ("v1", "v2", "hybrid")
    assert "user" in facts["namespaces"].split()
    assert out.startswith("runc version ")

"""The manual pages and the completions that an installation has, made by tools/manual.py."""

from __future__ import annotations

import os
import re
import sys

import pytest

import manual
import support
from pyrunc.cli import options
from terminals import Screen

PAGES = manual.pages()
PREFIX = os.path.dirname(os.path.dirname(support.PYRUNC))
MAN = os.path.join(PREFIX, "share/man/man8")


def plain(text: str) -> str:
    """Return a page as it is shown: without fonts and escapes."""
    return re.sub(r"\\f[BIR]", "", text).replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")


def test_a_page_for_each_command() -> None:
    """pyrunc(8) names every command and every global option."""
    assert set(PAGES) == {"pyrunc.8", *(f"pyrunc-{name}.8" for name in options.COMMANDS)}
    text = plain(PAGES["pyrunc.8"])
    for name, command in options.COMMANDS.items():
        assert f"\npyrunc-{name}(8)\n" in text
        assert command.summary[1:] in text
    for name, _, _, _ in options.GLOBALS:
        assert f"\n--{name}" in text, name


@pytest.mark.parametrize("name", options.COMMANDS)
def test_every_option_of_a_command(name: str) -> None:
    """Each that --help shows, in its long and short form, with its text; none that is hidden."""
    text = plain(PAGES[f"pyrunc-{name}.8"])
    command = options.COMMANDS[name]
    for long, short, kind, words in command.options:
        found = re.search(rf"^--{long}( [A-Z]+)?(, -\w( [A-Z]+)?)?\n(.*)$", text, re.MULTILINE)
        assert (found is not None) == bool(words), long
        if found is None:
            continue
        assert (found[1] is None) == (kind == "switch"), long
        assert (found[2] or "").startswith(f", -{short}" if short else ""), long
        assert words[1:] in found[4], long
    assert command.arguments.split(" | ")[0] in text


def test_the_page_of_the_site() -> None:
    """All commands and options are in it."""
    text = manual.markdown()
    parts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert list(parts) == [*options.COMMANDS]
    for name, command in options.COMMANDS.items():
        for long, _, _, words in command.options:
            found = re.search(rf"^\| `--{long}\b", parts[name], re.MULTILINE)
            assert (found is not None) == bool(words), long


def test_the_pages_are_well_formed() -> None:
    """groff has no warning, and mandoc but for the date, which would make two builds differ."""
    groff, mandoc = support.needs_program("groff"), support.needs_program("mandoc")
    paths = [os.path.join(MAN, name) for name in PAGES]
    for path in paths:
        result = support.run(groff, "-ww", "-man", "-Tutf8", path).ok()
        assert result.err == "", result
    lines = support.run(mandoc, "-T", "lint", "-W", "warning", *paths).out.splitlines()
    assert [line for line in lines if 'missing date, using ""' not in line] == []


def test_what_is_installed() -> None:
    """All of it, where man and the shells look in a prefix."""
    places = {
        "bash": "bash-completion/completions",
        "fish": "fish/vendor_completions.d",
        "zsh": "zsh/site-functions",
    }
    expected = {f"man/man8/{name}": text for name, text in PAGES.items()}
    for shell, directory in places.items():
        name = manual.COMPLETIONS[shell]
        expected[f"{directory}/{name}"] = manual.completions()[name]
    for name, text in expected.items():
        with open(os.path.join(PREFIX, "share", name), encoding="utf-8") as stream:
            assert stream.read() == text, name


def test_names_for_the_build() -> None:
    """meson asks for the list of pages."""
    program = os.path.join(support.PROJECT, "tools/manual.py")
    assert support.run(sys.executable, "-B", program, "--names").ok().out.split() == [*PAGES]


@pytest.mark.parametrize("way", ["installed", "sourced"])
def test_zsh_completes(way: str) -> None:
    """In a shell of its own, with the file that it finds and with what `pyrunc completion zsh` prints."""
    support.needs_program("zsh")
    directory = os.path.join(PREFIX, "share/zsh/site-functions")
    begin = f"fpath=({directory} $fpath); autoload -Uz compinit; compinit -u -D"
    if way == "sourced":
        begin = f"autoload -Uz compinit; compinit -u -D; source <({support.PYRUNC} completion zsh)"
    with Screen(["env", "TERM=dumb", "zsh", "-f", "-i"], columns=250) as screen:
        screen.send(f"{begin}; echo rea''dy\n")
        screen.expect("ready")
        screen.send("pyrunc create --bun\t")
        screen.expect("--bundle ")
        screen.send("\x15pyrunc resu\t")
        screen.expect("resume ")

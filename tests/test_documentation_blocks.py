"""README and docs: every block of commands runs as it is printed, or says why it does not."""

from __future__ import annotations

import json
import os
import re
import tomllib
from urllib.parse import urlsplit

import pytest

import documentation
import manual
import support

PAGES = documentation.pages()
RUN = [page for page in PAGES if any(block.runs for block in documentation.blocks(page))]
# How many blocks of each page are shown only. The reasons stand in the pages.
NOT_RUN = {
    "CONTRIBUTING.md": 1,
    "README.md": 3,
    "docs/developing.md": 1,
    "docs/engines.md": 2,
    "docs/kubernetes.md": 1,
    "docs/usage.md": 2,
}


@pytest.mark.root
@pytest.mark.parametrize("page", RUN)
def test_commands(page: str, scratch: str) -> None:
    """The commands and programs of a page run in order, and print what stands there."""
    support.needs_root()
    for block in documentation.blocks(page):
        if "needs" in block.marks:
            program, _, version = block.marks["needs"].partition(" ")
            support.needs_program(program)
            found = support.run(program, "--version").ok().out.splitlines()[0]
            support.needs(f" {version}" in found, f"{program} of version {version}, whose output is shown")
    assert documentation.run(page, scratch) == []


def test_what_does_not_run() -> None:
    """It is marked, with a reason of some words, and counted here."""
    found: dict[str, int] = {}
    for page in PAGES:
        for block in documentation.blocks(page):
            if "not run" in block.marks:
                assert block.language in ("console", "python"), block
                assert len(block.marks["not run"].split()) >= 3, block
                found[page] = found.get(page, 0) + 1
    assert found == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_blocks(page: str) -> None:
    """Each has a language; commands are in `console` blocks only; JSON and TOML can be read."""
    for block in documentation.blocks(page):
        assert block.language in documentation.LANGUAGES, block
        is_console = any(line.startswith("$ ") for line in block.lines)
        assert is_console == (block.language == "console"), block
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_hidden_by_its_form(page: str) -> None:
    """An indented block, which the tests would not see, is not used; a comment is one that they know."""
    inside = False
    before = ""
    for number, line in enumerate(documentation.read(page).splitlines(), start=1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            assert not (line.startswith("    ") and not before), f"{page}:{number}"
            assert "<!--" not in line or re.fullmatch(
                r"<!-- (not run: .+|output|file: .+|needs: .+|\./dev .+|to here) -->", line
            ), f"{page}:{number}"
        before = line


def _targets(page: str) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", documentation.read(page), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`\n]*`", "", text))


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """A link leads to a file of the project and a heading in it, or is an address of the right form."""
    for target in _targets(page):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", target
            assert re.fullmatch(r"[\w.-]+\.\w+", parts.netloc), target
            continue
        name = os.path.normpath(os.path.join(os.path.dirname(page), parts.path)) if parts.path else page
        assert os.path.exists(os.path.join(support.PROJECT, name)), f"{page}: {target}"
        if parts.fragment:
            headings = re.findall(r"^#+ (.*)$", documentation.read(name), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert parts.fragment in slugs, f"{page}: {target}"


def test_the_readme_is_short() -> None:
    """It shows what pyrunc is; everything else is in docs."""
    assert len(documentation.read("README.md").splitlines()) <= 150


def test_what_is_compared() -> None:
    """The comparison finds a wrong word, and forgives times, process ids and what stands for anything."""
    assert documentation.matches("a 12 ms\n", "a  7.5 ms\n")
    assert not documentation.matches("a 12 ms\n", "b 7.5 ms\n")
    assert documentation.matches("one\n...\nlast ... word\n", "one\ntwo\nthree\nlast or first word\n")
    assert not documentation.matches("one\n...\nlast\n", "one\ntwo\n")
    assert documentation.matches(
        "x  1  running 2026-01-01T00:00:00Z\n", "x 234 running 2027-02-02T01:02:03.4Z\n"
    )
    assert not documentation.matches("x 1 running\n", "x 1 stopped\n")
    assert not documentation.matches("", "more\n")


def test_every_environment_variable() -> None:
    """docs/environment.md has each that the sources read, and those of the manual page."""
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", documentation.read("docs/environment.md")))
    read: set[str] = set()
    for folder in ("pyrunc", "csrc", "tests", "vm", "tools"):
        for directory, _, names in os.walk(os.path.join(support.PROJECT, folder)):
            for name in (name for name in names if name.endswith((".py", ".c", ".h", ".sh"))):
                with open(os.path.join(directory, name), encoding="utf-8") as stream:
                    text = stream.read()
                read |= set(re.findall(r"environ(?:\.get\(|\[)[\"'](PYRUNC_[A-Z_]+)[\"']", text))
                read |= set(re.findall(r"getenv\(\"(PYRUNC_[A-Z_]+)\"\)", text))
    assert len(read) > 10
    assert read - named == set()
    of_manual = {name for names, _ in manual.ENVIRONMENT for name in names.split(", ")}
    assert of_manual - named == set()

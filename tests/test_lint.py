"""The linters, type checker and compiler warnings as ordinary tests, and the house's own rules about size."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = os.path.dirname(sys.executable)


def tracked(*suffixes: str) -> list[str]:
    """The project's files with one of these endings, from git where there is one."""
    command = ["git", "-c", f"safe.directory={support.PROJECT}", "ls-files", "-co", "--exclude-standard"]
    listing = support.run(*command, cwd=support.PROJECT)
    names = listing.ok().out.splitlines()
    return [
        name
        for name in names
        if name.endswith(suffixes) and os.path.exists(os.path.join(support.PROJECT, name))
    ]


def tool(name: str, *args: str) -> None:
    """Run a tool of the virtual environment on the source tree; its output is the failure's text."""
    done = subprocess.run(
        [os.path.join(SCRIPTS, name), *args],
        cwd=support.PROJECT,
        # meson looks for ninja, which need not be there outside of the virtual environment.
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{name}:\n{done.stdout}"


def test_ruff_check() -> None:
    """No finding of ruff; every exception is in pyproject.toml with its reason."""
    tool("ruff", "check", "--no-cache", "--output-format=concise", ".")


def test_ruff_format() -> None:
    """Python is formatted as `./dev format` does it."""
    tool("ruff", "format", "--no-cache", "--check", ".")


@pytest.mark.slow
def test_mypy() -> None:
    """mypy --strict finds nothing, explicit Any included."""
    tool("mypy", "--cache-dir", "build/mypy")


def test_clang_format() -> None:
    """C is formatted as `./dev format` does it."""
    tool("clang-format", "--dry-run", "-Werror", *tracked(".c", ".h"))


def test_codespell() -> None:
    """No common spelling mistake."""
    tool(
        "codespell",
        *tracked(".py", ".c", ".h", ".md", ".toml", ".yaml", ".build", ".sh", "dev", "make", "run"),
    )


@pytest.mark.slow
def test_compiler_warnings() -> None:
    """The C code compiles without warnings against glibc too, whatever the installation was built with."""
    directory = os.path.join(support.PROJECT, "build/glibc")
    if not os.path.exists(os.path.join(directory, "build.ninja")):
        tool("meson", "setup", directory, "-Dlibc=glibc", "-Dtests=true", "--werror")
    tool("meson", "compile", "-C", directory)


# Run by `sh -eu` in the guest that vm/image.py makes, so they name no shell.
GUEST_SCRIPTS = ["vm/selinux.sh", "vm/setup.sh"]


def _shell_scripts() -> list[str]:
    """Every tracked file that is a program of sh or bash, or has their suffix."""
    found = []
    for name in tracked(""):
        with open(os.path.join(support.PROJECT, name), "rb") as stream:
            first = stream.readline()
        if name.endswith(".sh") or (first.startswith(b"#!") and first.split()[-1].endswith(b"sh")):
            found.append(name)
    return found


def test_shellcheck() -> None:
    """shellcheck has no finding in the shell scripts; an exception stands beside its line with the reason."""
    scripts = _shell_scripts()
    assert {"dev", ".ci/run", "tools/setup.sh", "deploy/install.sh", *GUEST_SCRIPTS} <= set(scripts)
    tool("shellcheck", "--external-sources", *(name for name in scripts if name not in GUEST_SCRIPTS))
    tool("shellcheck", "--shell=sh", *GUEST_SCRIPTS)


def test_pre_commit_hooks() -> None:
    """The hooks of .pre-commit-config.yaml start programs that are there after `./dev lint`."""
    with open(os.path.join(support.PROJECT, ".pre-commit-config.yaml"), encoding="utf-8") as stream:
        programs = re.findall(r"^ +entry: (\S+)", stream.read(), flags=re.MULTILINE)
    assert len(programs) > 4
    missing = [name for name in programs if not os.access(os.path.join(support.PROJECT, name), os.X_OK)]
    assert not missing


def test_file_sizes() -> None:
    """No Python file has more than 600 lines and no C file more than 800."""
    limits = {".py": 600, ".c": 800, ".h": 800}
    for name in tracked(*limits):
        with open(os.path.join(support.PROJECT, name), encoding="utf-8") as stream:
            count = len(stream.readlines())
        assert count <= limits[os.path.splitext(name)[1]], f"{name} has {count} lines"


def test_function_sizes() -> None:
    """No Python function over 80 lines, the sequences that are read from top to bottom excepted."""
    excepted = {("pyrunc/verbs/create.py", "create")}
    found: list[str] = []
    for name in tracked(".py"):
        with open(os.path.join(support.PROJECT, name), encoding="utf-8") as stream:
            tree = ast.parse(stream.read(), name)
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.end_lineno is None:
                continue
            if node.end_lineno - node.lineno + 1 > 80 and (name, node.name) not in excepted:
                found.append(f"{name}: {node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert not found


# Phrases that are no idiomatic English, or metaphors where the field has a term, and what to write.
PLAIN_WORDS = {
    r"when there (?:is|are) none": '"if there is none"',
    r"when (?:not given|it is none)": '"if not given", "if it is not one"',
    r"\bfor ever\b": '"forever"',
    r"\b(?:somebody|whoever)\b": '"another process", "the caller", "the user"',
    r"\bnobody (?:is|has|waits|asks|asked|knows|can|could|says|wants|hears|reads|uses)\b": "a passive",
    r"(?<!never )\bimported by\b|\bmay be imported by\b": "nothing: the table of folders says it",
    r"\b(?:rooms|lanes?|scenes?|twins?|born|doors?)\b": "the field's term",
    r"\b(?:lets?|letting) go of\b": '"close", "release"',
    r"\bcontent when\b": '"do nothing if"',
    r"\bin its own words\b|\bthe words for\b": '"message"',
    r"(?-i:\bRaises) [A-Z]\w+Error\b": '"Raise X if"',
}


def _prose(name: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the comments of a Python or C file, and of a Python file's docstrings."""
    with open(os.path.join(support.PROJECT, name), encoding="utf-8") as stream:
        source = stream.read()
    if name.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT or token.string.startswith('"""'):
                yield token.start[0], token.string
    else:
        for found in re.finditer(r"/\*.*?\*/", source, re.DOTALL):
            yield source.count("\n", 0, found.start()) + 1, found[0]


def test_plain_words() -> None:
    """Comments and docstrings of the runtime are in plain English; `PLAIN_WORDS` says what to write instead."""
    patterns = [(re.compile(pattern, re.IGNORECASE), better) for pattern, better in PLAIN_WORDS.items()]
    wrong = [
        f"{name}:{line}: '{found[0]}': write {better}"
        for name in tracked(".py", ".c", ".h")
        if name.startswith(("pyrunc/", "csrc/")) and not name.startswith(("csrc/fuzz/", "csrc/testing/"))
        for line, text in _prose(name)
        for pattern, better in patterns
        if (found := pattern.search(" ".join(text.split())))
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_of_the_workplace() -> None:
    """The repository names no path of the machine that it was written on."""
    words = ["/" + "work" + "/", "/" + "farm" + "/"]
    found: list[str] = []
    for name in tracked(""):
        with open(os.path.join(support.PROJECT, name), "rb") as stream:
            text = stream.read().decode("utf-8", "replace")
        found += [f"{name}: {word}" for word in words if word in text]
    assert not found

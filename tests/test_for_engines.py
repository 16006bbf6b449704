"""docs/for-engines.md names what is there for engines: each place and its test exist, and no place is left out."""

from __future__ import annotations

import ast
import os
import re

import pytest

import support

PAGE = os.path.join(support.PROJECT, "docs/for-engines.md")
_ROW = re.compile(r"^\|.*\| `([\w./-]+): ([\w.]+)` \| `([\w./-]+): (\w+)` \|$", re.MULTILINE)
_REMARK = re.compile(
    r"podman|docker|containerd|cri-o|kubelet|buildah|conmon|moby|go-runc|\bengines?\b", re.IGNORECASE
)
# These speak of engines, but do nothing for one.
NOT_FOR_ENGINES = {
    "csrc/command/snapshot.h": "why a snapshot is kept, not a cache of answers",
    "csrc/container/container.h": "says what PYRUNC_STRICT is, whose places are named",
    "pyrunc/requests.py": "says what criu/request.py does",
    "pyrunc/seccomp/compile.py": "compares with the size of a known profile",
}


def rows() -> list[tuple[str, str, str, str]]:
    """Of each row of the tables: the file and the name in it, the test's file and its name."""
    with open(PAGE, encoding="utf-8") as stream:
        text = stream.read()
    found = [(row[0], row[1], row[2], row[3]) for row in _ROW.findall(text)]
    assert len(found) == len(re.findall(r"^\| (?!what is done|---)", text, re.MULTILINE)), (
        "a row of another form"
    )
    return found


def read(name: str) -> str:
    with open(os.path.join(support.PROJECT, name), encoding="utf-8") as stream:
        return stream.read()


def defined(name: str) -> set[str]:
    """Functions, methods, classes and constants of a Python file, functions of a C file."""
    if not name.endswith(".py"):
        return set(re.findall(r"^[a-z][\w ]*[ *](\w+)\(", read(name), re.MULTILINE))
    found: set[str] = set()
    for node in ast.parse(read(name)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


@pytest.mark.parametrize(("file", "name", "test_file", "test"), rows(), ids=lambda word: word)
def test_place_and_test_exist(file: str, name: str, test_file: str, test: str) -> None:
    assert name in defined(file), f"{file} has no {name}"
    assert test.startswith("test_") and test in defined(test_file), f"{test_file} has no {test}"


def test_no_place_is_left_out() -> None:
    """Each file of the package that speaks of engines is named in the page, or above."""
    named = {row[0] for row in rows()} | set(NOT_FOR_ENGINES)
    speaking = set()
    for name in (
        support.run("git", "-C", support.PROJECT, "ls-files", "pyrunc", "csrc").ok().out.splitlines()
    ):
        ours = name.endswith((".py", ".c", ".h")) and not name.startswith(("csrc/testing/", "csrc/fuzz/"))
        if ours and _REMARK.search(read(name)):
            speaking.add(name)
    assert speaking - named == set()
    assert set(NOT_FOR_ENGINES) - speaking == set(), "no longer needed above"

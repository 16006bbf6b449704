"""The README's Python program, run as it stands there but for its paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    import pathlib

    from containers import BundleFactory

pytestmark = pytest.mark.root


def _program() -> str:
    with open(os.path.join(support.PROJECT, "README.md"), encoding="utf-8") as stream:
        blocks = stream.read().split("```python\n")[1:]
    assert len(blocks) == 1
    return blocks[0].partition("```")[0]


def _run(tmp_path: pathlib.Path, bundle: str) -> support.Result:
    """In a process of its own, as a user would; what the container prints comes out, too."""
    text = _program()
    for old, new in (("/run/mine", str(tmp_path / "root")), ("/tmp/b", bundle)):
        assert text.count(f'"{old}"') == 1
        text = text.replace(f'"{old}"', repr(new))
    known = support.children()
    result = support.run(os.path.join(os.path.dirname(support.PYRUNC), "python"), "-I", "-c", text)
    # Orphans are ours now; what keeps the exit status ends when somebody has collected the container's init.
    while set(support.children()) - set(known):
        os.wait()
    return result


def test_the_example_of_the_readme(tmp_path: pathlib.Path, bundle: BundleFactory) -> None:
    """A whole life, and the exit status at its end."""
    target = bundle("probe").probe("exit", "7")
    target.write()
    result = _run(tmp_path, target.path).ok()
    assert result.out == "created\nexit status 7\n"
    assert os.listdir(tmp_path / "root") == []


def test_its_errors(tmp_path: pathlib.Path, bundle: BundleFactory) -> None:
    """They carry the place in the configuration."""
    target = bundle("probe")
    target.mapping("process")["cwd"] = "tmp"
    target.write()
    result = _run(tmp_path, target.path).ok()
    assert result.out.startswith("$.process.cwd Cwd must be an absolute path"), result
    assert not os.path.exists(tmp_path / "root") or os.listdir(tmp_path / "root") == []

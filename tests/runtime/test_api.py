"""The Python program of docs/python.md, run as it stands there but for its paths."""

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
    with open(os.path.join(support.PROJECT, "docs/python.md"), encoding="utf-8") as stream:
        blocks = stream.read().split("```python\n")[1:]
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


def test_the_example(tmp_path: pathlib.Path, bundle: BundleFactory) -> None:
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


_NEIGHBOUR = """
import ctypes, signal, subprocess, sys
from pyrunc import runtime
from pyrunc.requests import Context, RunOptions

said = []
signal.signal(signal.SIGCHLD, lambda *_: said.append("child"))
other = subprocess.Popen(["sh", "-c", "exit 7"], stdout=subprocess.PIPE)
other.stdout.read()
print("run", runtime.run(Context(root=sys.argv[1]), "one", sys.argv[2], RunOptions()))
print("other", other.wait(), bool(said), callable(signal.getsignal(signal.SIGCHLD)))
subreaper = ctypes.c_int()
ctypes.CDLL(None).prctl(37, ctypes.byref(subreaper))
print("subreaper", subreaper.value, "blocked", signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_run_beside_other_children(tmp_path: pathlib.Path, bundle: BundleFactory) -> None:
    """The process is the caller's: his children keep their status, he his handler."""
    target = bundle("probe").probe("exit", "3")
    target.write()
    python = os.path.join(os.path.dirname(support.PYRUNC), "python")
    result = support.run(python, "-I", "-c", _NEIGHBOUR, str(tmp_path / "root"), target.path).ok()
    assert result.out == "run 3\nother 7 True True\nsubreaper 0 blocked set()\n"

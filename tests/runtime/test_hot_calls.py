"""tools/hot_calls.txt names the functions that a common create, exec and run call.

tools/hot_modules.py lays them together. PYRUNC_UPDATE_GOLDENS=1 writes it anew.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from pathlib import Path

    from containers import BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

LIST = os.path.join(support.PROJECT, "tools/hot_calls.txt")
# Behaves as `python -m pyrunc`; at the end it adds what was called to the file that its first argument names.
RECORDER = """
import os, sys
from pyrunc import __file__ as package
from pyrunc.cli import main as cli

called = set()
below = os.path.dirname(os.path.dirname(package)) + "/"

def note(frame, event, _argument):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(below) and not code.co_qualname.startswith("<"):
        module = code.co_filename.removeprefix(below).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        called.add(f"{module} {code.co_qualname}")

sys.setprofile(note)
status = cli.main(sys.argv[2:])
sys.setprofile(None)
with open(sys.argv[1], "a") as stream:
    stream.writelines(line + chr(10) for line in called if line.startswith("pyrunc"))
os._exit(status)
"""


@pytest.fixture(scope="module")
def found() -> set[str]:
    """Empty: what was called in all views."""
    return set()


@pytest.mark.parametrize("view", ["v1", "v2"])
def test_what_is_called_is_listed(
    container: ContainerFactory, bundle: BundleFactory, found: set[str], view: str, tmp_path: Path
) -> None:
    """All but a few by chance: of those that are called most are in the list, and most of the list is called."""
    record = str(tmp_path / "called")
    one = container(bundle("probe").probe("pause"), view=view)

    def python(*words: str) -> None:
        argv = [*support.VIEWS[view], support.PYTHON, "-c", RECORDER, record, "--root", one.root, *words]
        # Into a file: the container keeps what create was given.
        with open(tmp_path / "output", "w+b") as output:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=60, check=False
            )
            output.seek(0)
            assert done.returncode == 0, output.read()

    pid_file = str(tmp_path / "pid")
    python("create", "--bundle", one.bundle.path, "--pid-file", pid_file, one.id)
    assert one.pyrunc("start", one.id).status == 0
    python("exec", "--pid-file", pid_file, one.id, "/bin/probe", "exit", "0")
    assert one.pyrunc("delete", "--force", one.id).status == 0
    short = bundle("probe").probe("exit", "0")
    python("run", "--bundle", short.path, one.id)
    with open(record, encoding="utf-8") as stream:
        called = set(stream.read().splitlines())
    found |= called
    if os.environ.get("PYRUNC_UPDATE_GOLDENS") == "1":
        with open(LIST, "w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in sorted(found))
    with open(LIST, encoding="utf-8") as stream:
        listed = set(stream.read().splitlines())
    missing = called - listed
    assert len(missing) <= len(called) // 20, f"PYRUNC_UPDATE_GOLDENS=1 adds {sorted(missing)}"
    if view == "v2":
        superfluous = listed - found
        assert len(superfluous) <= len(listed) // 20, f"PYRUNC_UPDATE_GOLDENS=1 drops {sorted(superfluous)}"

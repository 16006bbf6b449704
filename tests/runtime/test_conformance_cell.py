"""What a run of the OCI suite leaves behind when it is killed: nothing. The suite's program is a script here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import cell
import support
import views

if TYPE_CHECKING:
    from pathlib import Path

CELL = os.path.join(support.PROJECT, "conformance/cell.py")
PROGRAM = (
    '#!/bin/sh\nsetsid sleep 600 &\nmkdir /sys/fs/cgroup/pids/deeper\necho $! >"$TMPDIR/../pid"\nwait\n'
)


def _v1_alone() -> list[str]:
    """The view that cells run in; skips the test where the host cannot give it."""
    support.needs_root()
    done = subprocess.run([*views.VIEWS["v1-all"], "true"], capture_output=True, check=False)
    support.needs(done.returncode == 0, "cgroup v1")
    return views.VIEWS["v1-all"]


def test_a_killed_cell_leaves_nothing(tmp_path: Path) -> None:
    """When the run is over, processes and cgroups of a cell that was killed go, and so does its directory."""
    view = _v1_alone()
    directory, home, program = tmp_path / "run", tmp_path / "run/home", tmp_path / "program"
    home.mkdir(parents=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    request = cell.Request("program", str(tmp_path), "/bin/true", str(home), view, 60.0)
    (home / "request.json").write_text(json.dumps(asdict(request)))
    python = [*view, sys.executable, CELL]
    with subprocess.Popen(
        [*python, "hold", directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert "pids" in holder.stdout.readline().split()
        with subprocess.Popen([*python, home / "request.json"]) as killed:
            support.wait_until(
                lambda: (home / "pid").exists() and (home / "pid").read_text() != "", "the program"
            )
            sleeper = int((home / "pid").read_text())
            cgroups = f"pyrunc-conformance-{os.getpid()}-{killed.pid}"
            with open(f"/proc/{sleeper}/cgroup", encoding="ascii") as stream:
                assert cgroups in stream.read()
            killed.send_signal(signal.SIGKILL)
        assert not views.process_gone(sleeper)
        holder.communicate()
        assert holder.returncode == 0
    assert views.process_gone(sleeper)
    assert not directory.exists()
    left = subprocess.run(
        [*view, "find", "/sys/fs/cgroup", "-name", cgroups], capture_output=True, text=True, check=True
    )
    assert left.stdout == ""

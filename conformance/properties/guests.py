"""Rows that this host cannot show, in the guests of ./dev vm: those have an LSM, RDMA and a scheduler with weights."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
GUESTS = ("apparmor", "selinux")
SECONDS = 600
# What the guests have only when asked.
_PREPARE = """
modprobe --all rdma_rxe bfq || exit 99
ip link add rows-rdma type dummy && rdma link add rxe-rows type rxe netdev rows-rdma || exit 99
for file in /sys/block/*/queue/scheduler; do echo bfq >$file || exit 99; done
"""


def verdicts(path: str, rows: list[str]) -> dict[str, tuple[str, str]]:
    """What the rows are worth with the runtime at `path`: those that some guest can show, the worst of verdicts."""
    found: dict[str, tuple[str, str]] = {}
    for guest in GUESTS:
        for row, (verdict, reason) in _in(guest, path, rows).items():
            if verdict != "skip" and found.get(row, ("",))[0] != "fail":
                found[row] = (verdict, reason)
    return found


def _in(guest: str, path: str, rows: list[str]) -> dict[str, tuple[str, str]]:
    settings = {"RUNTIME": path, "PROPERTIES_ROWS": json.dumps(rows), "PROPERTIES_OUT": "/out/verdicts.json"}
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    pytest = ".venv/bin/pytest -q -p no:cacheprovider conformance/properties"
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [
                *(sys.executable, os.path.join(PROJECT, "vm/job.py"), "--snapshot", guest),
                *("--timeout", str(SECONDS), "--out", directory, f"{_PREPARE}{words} {pytest}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        result = os.path.join(directory, "verdicts.json")
        if not os.path.exists(result):
            raise SystemExit(
                f"properties: no verdicts from the guest '{guest}':\n{done.stdout}{done.stderr}"
            )
        with open(result, encoding="utf-8") as stream:
            return {
                row: (verdict, reason) for row, (verdict, reason) in json.load(stream).items() if row in rows
            }

"""The state directory: one creator wins, files are whole, the record reads as container.c wants it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pyrunc.container import directory as state_directory
from pyrunc.container.record import OWN_PID, Record
from pyrunc.errors import StateError
from pyrunc.kernel import container as kernel_container

if TYPE_CHECKING:
    from pathlib import Path


def record() -> Record:
    return Record(bundle="/b", rootfs="/b/rootfs", container_id="c1", annotations={"k": "v"})


@pytest.mark.parametrize("name", ["a", "A.b_c+d-1", "-x", "x" * 255])
def test_good_ids(name: str) -> None:
    assert state_directory.check_id(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a\n", "x" * 256])
def test_bad_ids(name: str) -> None:
    with pytest.raises(StateError, match="invalid container ID format"):
        state_directory.check_id(name)


def test_only_one_of_many_makes_the_directory(tmp_path: Path) -> None:
    def attempt(_number: int) -> str:
        try:
            state_directory.create(str(tmp_path / "root"), "c1").close()
        except StateError as error:
            return error.message
        return "made"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(32)))
    assert answers.count("made") == 1
    assert answers.count("container with given ID already exists") == 31


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    directory = state_directory.create(str(tmp_path), "c1")
    directory.write("state", b"one")
    directory.write("state", b"two")
    assert os.listdir(directory.path) == ["state"]
    assert (tmp_path / "c1" / "state").read_bytes() == b"two"
    directory.remove()
    directory.close()
    assert os.listdir(tmp_path) == []


def test_the_record_has_a_header_and_the_document() -> None:
    entry = record()
    entry.pid, entry.start_time, entry.pid_namespace = 12, 34, 56
    entry.needs = ["poststop"]
    entry.cgroups = [("memory", "/sys/fs/cgroup/memory/c1")]
    entry.made = ["/sys/fs/cgroup/memory/c1"]
    header, document = entry.render().decode().split("\n\n", 1)
    first, total, rest = header.split("\n", 2)
    assert total == f"sum {kernel_container.checksum(f'{rest}{chr(10)}'.encode())}"
    header = f"{first}\n{rest}"
    assert header.split("\n") == [
        "version 1",
        "pid 12",
        "starttime 34",
        "needs poststop",
        "pidns private",
        "keyring new",
        "pidnsid 56",
        "cgroup memory:/sys/fs/cgroup/memory/c1",
        "cgmade /sys/fs/cgroup/memory/c1",
    ]
    assert '\n  "pid": 0,\n  "status": "stopped",\n' in document
    assert list(json.loads(document)) == [
        "ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner",
    ]  # fmt: skip


def test_the_state_for_hooks() -> None:
    entry = record()
    assert json.loads(entry.hook_state("created", 9)) == {
        "ociVersion": "1.3.0",
        "id": "c1",
        "pid": 9,
        "status": "created",
        "bundle": "/b",
        "rootfs": "/b/rootfs",
        "created": entry.created,
        "annotations": {"k": "v"},
    }


def test_a_hook_inside_learns_its_own_pid() -> None:
    """init replaces the one byte that no JSON text contains."""
    marked = Record(bundle="/b", rootfs="/r", container_id="c-1", annotations=None)
    text = marked.hook_state("created", OWN_PID)
    assert text.count(b"\x01") == 1
    assert json.loads(text.replace(b"\x01", b"5"))["pid"] == 5
    assert json.loads(text.replace(b"\x01", b"5"))["id"] == "c-1"


def test_start_time_is_that_of_proc() -> None:
    with open("/proc/self/stat", encoding="ascii") as stat:
        assert kernel_container.process_start_time(os.getpid()) == int(
            stat.read().rsplit(")", 1)[1].split()[19]
        )
    assert kernel_container.process_start_time(2**22 + 1) == 0

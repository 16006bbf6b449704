"""The guest's image: when it is built and when not, and what is said when it cannot be."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

import hardware
import image
import machine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("PYRUNC_VM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def program(directory: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of ours before those of the host."""
    path = directory / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def nothing_built(cache: Path) -> None:
    """A failed build leaves no image, whole or half."""
    assert [entry.name for entry in cache.iterdir()] == ["lock"]


def test_tools_are_missing(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them in one line, with the command that brings them."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(hardware.VmError) as caught:
        image.get()
    words = "qemu-system-x86, qemu-utils, mmdebstrap, e2fsprogs"
    command = f"apt-get install --no-install-recommends {words.replace(',', '')}"
    assert str(caught.value) == f"missing: {words}; as root: {command}"
    assert not empty.exists()


def test_another_processor(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest has one kind only."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(hardware.VmError, match="the guest is an x86_64 machine, this is aarch64"):
        image.get()


def test_another_distribution(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual environment would not fit."""
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "fedora"})
    with pytest.raises(hardware.VmError, match="Debian host's own packages, this is 'fedora'"):
        image.get()


def test_a_build_that_fails(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which program, its status and its last words."""
    program(tmp_path, "mmdebstrap", "echo no route to the mirror >&2; exit 25", monkeypatch)
    with pytest.raises(
        hardware.VmError, match=r"^mmdebstrap ended with status 25\n  no route to the mirror$"
    ):
        image.get()
    nothing_built(empty)


def test_a_build_that_hangs(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended with all that it has started."""
    pids = tmp_path / "pids"
    script = f"readlink /proc/self >{pids}; sleep 1000 & sleep 1000"
    program(tmp_path, "mmdebstrap", script, monkeypatch)
    monkeypatch.setattr(image, "ROOT_SECONDS", 2.0)
    began = time.monotonic()
    with pytest.raises(hardware.VmError, match="^mmdebstrap takes longer than 2 s"):
        image.get()
    assert time.monotonic() - began < 30
    assert pids.exists()
    nothing_built(empty)


def test_no_source(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose apt has no lists."""
    program(tmp_path, "apt-get", "true", monkeypatch)
    with pytest.raises(
        hardware.VmError, match="apt knows no Debian source for '.*'; as root: apt-get update"
    ):
        image.get()
    nothing_built(empty)


def test_a_guest_that_does_not_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is there and silent is given up in time, with what its console had."""
    place = tmp_path / "place"
    place.mkdir()
    script = f"echo Booting >{place}/console; exec sleep 1000"
    program(tmp_path, hardware.QEMU, script, monkeypatch)
    (tmp_path / "root.ext4").touch()
    with (
        pytest.raises(TimeoutError) as caught,
        machine.Machine(str(tmp_path), "apparmor", str(place), 2) as guest,
    ):
        guest.boot("")
    assert caught.value.__notes__ == ["console: Booting"]


def test_a_machine_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told apart from one that is slow."""
    program(tmp_path, hardware.QEMU, "exit 3", monkeypatch)
    (tmp_path / "root.ext4").touch()
    with (
        pytest.raises(hardware.VmError, match="QEMU ended with status 3"),
        machine.Machine(str(tmp_path), "apparmor", str(tmp_path), 60) as guest,
    ):
        guest.boot("")


def test_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content, name and mode of whatever goes into the image change its name, and nothing else does."""
    copy = tmp_path / "vm"
    shutil.copytree(image.HERE, copy)
    monkeypatch.setattr(image, "HERE", str(copy))
    first = image.recipe()
    (copy / "job.py").write_text("# of the host alone\n")
    assert image.recipe() == first
    seen = {first}
    (copy / "guest/etc/hosts").write_text("127.0.0.1 other\n")
    seen.add(image.recipe())
    (copy / "guest/etc/hosts").rename(copy / "guest/etc/hosts2")
    seen.add(image.recipe())
    (copy / "guest/etc/hosts2").chmod(0o755)
    seen.add(image.recipe())
    monkeypatch.setattr(hardware, "version", lambda: "QEMU emulator version 99")
    seen.add(image.recipe())
    assert len(seen) == 5


def test_built_once(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another recipe is another image; the oldest go, but not while somebody uses them."""
    built: list[str] = []

    def build(directory: str) -> None:
        built.append(os.path.basename(directory))

    monkeypatch.setattr(image, "_build", build)
    users = []
    for name in ("one", "one", "two", "three"):
        monkeypatch.setattr(image, "recipe", lambda name=name: name)
        directory, user = image.get()
        assert directory == str(empty / name)
        users.append(user)
        os.utime(directory, (len(users), len(users)))
    assert built == ["one.new", "two.new", "three.new"]
    assert {entry.name for entry in empty.iterdir()} == {"lock", "one", "two", "three"}
    for user in users:
        os.close(user)
    os.close(image.get()[1])
    assert {entry.name for entry in empty.iterdir()} == {"lock", "two", "three"}

"""--log in places that cannot be written: nobody waits, a word says so, and a container can be looked at and ended."""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

DOORS = {"command": [support.PYRUNC], "module": [support.PYTHON, "-m", "pyrunc"]}
# What cannot be opened, and the word for it.
CLOSED = {
    "fifo": "no such device or address",
    "directory": "is a directory",
    "nowhere": "no such file or directory",
    "below a file": "not a directory",
    "journald:x": "no such file or directory",
    "syslog:x": "no such file or directory",
}
SECONDS = 10


@pytest.fixture
def places(scratch: str) -> str:
    """A directory with logs that are none."""
    os.mkfifo(f"{scratch}/fifo")
    os.mkdir(f"{scratch}/directory")
    with open(f"{scratch}/file", "w", encoding="ascii"):
        pass
    return scratch


def target(places: str, name: str) -> str:
    """The value of --log."""
    if ":" in name:
        path = "/run/systemd/journal/socket" if name.startswith("journald") else "/dev/log"
        support.needs(not os.path.exists(path), "a host without journald and syslog")
        return name
    return f"{places}/{ {'nowhere': 'nowhere/log', 'below a file': 'file/log'}.get(name, name) }"


def ask(door: str, one: Container, log: str, *words: str, form: str = "text") -> support.Result:
    """Call pyrunc through a door."""
    argv = [*DOORS[door], "--root", one.root, "--log", log, "--log-format", form, *words]
    return support.run(*argv, timeout=SECONDS)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", CLOSED)
def test_a_container_can_be_ended(
    container: ContainerFactory, bundle: BundleFactory, places: str, name: str, door: str
) -> None:
    """Without the log; verbs that make something say no."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    log = target(places, name)
    done = ask(door, one, log, "state", one.id).ok()
    assert json.loads(done.out)["status"] == "created"
    assert done.err == ""
    ask(door, one, log, "start", one.id).fails(CLOSED[name])
    for words in (["kill", one.id, "KILL"], ["delete", "--force", one.id]):
        done = ask(door, one, log, *words).ok()
        assert CLOSED[name] in done.err
        assert done.err.startswith(f"pyrunc: {words[0]}: ")
    ask(door, one, log, "state", one.id).fails("pyrunc: state: container does not exist")
    ask(door, one, log, "exec", one.id, "true").fails(CLOSED[name])


@pytest.fixture
def full(scratch: str) -> Iterator[str]:
    """A file system without room for a line."""
    path = f"{scratch}/full"
    os.mkdir(path)
    support.run("mount", "-t", "tmpfs", "-o", "size=4k", "none", path).ok()
    with open(f"{path}/log", "wb", buffering=0) as stream:
        stream.write(b"x" * 4096)
    yield f"{path}/log"
    support.run("umount", path).ok()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk(
    container: ContainerFactory, bundle: BundleFactory, full: str, form: str, door: str
) -> None:
    """The error is told on stderr all the same, and what works works."""
    one = container(bundle("probe").probe("pause"))
    for log in (full, "/dev/full"):
        one.create().ok()
        ask(door, one, log, "kill", one.id, "KILL", form=form).ok()
        ask(door, one, log, "delete", "--force", one.id, form=form).ok()
        for words in ("state", "kill", "delete"):
            done = ask(door, one, log, words, one.id, form=form).fails("container does not exist")
            assert done.err.splitlines()[0] == "pyrunc: write the log: no space left on device"
        done = ask(door, one, log, "exec", one.id, "true", form=form).fails(
            "container does not exist", status=255
        )
        assert "write the log: no space left on device" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("reader", ["asleep", "gone"])
def test_a_reader_that_does_not_read(
    container: ContainerFactory, bundle: BundleFactory, places: str, reader: str, door: str
) -> None:
    """It has a second; then the command ends as it would have."""
    fifo = f"{places}/fifo"
    held = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(held, fcntl.F_SETPIPE_SZ, 4096)
    os.write(held, b"x" * 4096)
    if reader == "gone":
        os.close(held)
    try:
        one = container(bundle("probe"))
        began = time.monotonic()
        done = ask(door, one, fifo, "state", one.id)
        assert time.monotonic() - began < SECONDS
    finally:
        if reader == "asleep":
            os.close(held)
    done.fails("container does not exist")
    if reader == "asleep":
        assert done.err.splitlines()[0] == "pyrunc: write the log: resource temporarily unavailable"


LINKS = {"nobody": 65534, "root": 0}


def linked(scratch: str, owner: str, target: str) -> str:
    """A link to a file, made by somebody."""
    path = f"{scratch}/link"
    os.symlink(target, path)
    os.lchown(path, LINKS[owner], LINKS[owner])
    return path


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("option", ["--log", "--trace"])
@pytest.mark.parametrize("owner", LINKS)
def test_a_link(scratch: str, owner: str, option: str, door: str) -> None:
    """In /tmp anybody could lead the log of root's to a file of root's; a link of our own may be /dev/stderr."""
    precious = f"{scratch}/precious"
    with open(precious, "w", encoding="ascii") as stream:
        stream.write("precious\n")
    path = linked(scratch, owner, precious)
    # One that C would answer, and one of Python's.
    for verb in ("kill", "create"):
        done = support.run(*DOORS[door], "--root", f"{scratch}/root", option, path, verb, "nothing")
        assert done.status == 1
        if owner != "root":
            assert f"open '{path}': permission denied" in done.err
            assert "it is a symbolic link of user 65534" in done.err
    with open(precious, encoding="ascii") as stream:
        text = stream.read()
    assert (text == "precious\n") == (owner != "root")


@pytest.mark.parametrize("door", DOORS)
def test_a_trace_that_nobody_reads(scratch: str, door: str) -> None:
    """A fifo in its place does not hold the command."""
    os.mkfifo(f"{scratch}/fifo")
    words = [*DOORS[door], "--trace", f"{scratch}/fifo", "version"]
    support.run(*words, timeout=SECONDS).fails(f"open '{scratch}/fifo': no such device or address")

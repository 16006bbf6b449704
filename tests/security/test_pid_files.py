"""--pid-file in a directory where others may write: what they have made before is neither followed nor reused."""

from __future__ import annotations

import os
import pwd
import socket
import stat
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.verbs import process_io

if TYPE_CHECKING:
    from collections.abc import Callable

    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

VERBS = ["create", "run", "exec"]


def stranger() -> int:
    """The uid of an ordinary user."""
    return pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def shared(scratch: str) -> str:
    """A directory such as /tmp."""
    path = f"{scratch}/shared"
    os.mkdir(path)
    os.chmod(path, 0o1777)
    return path


def call(one: Container, verb: str, pid_file: str) -> support.Result:
    """Run a verb that writes a pid file."""
    if verb == "exec":
        one.create().ok()
        return one.pyrunc("exec", "--pid-file", pid_file, one.id, "/bin/probe", "exit", "0")
    words = [verb, "--pid-file", pid_file, "--bundle", one.bundle.path, one.id]
    if verb == "run":
        return one.pyrunc(*words)
    # What stays must not hold our pipes.
    return support.run("sh", "-c", '"$@" >/dev/null 2>"$0"', f"{one.bundle.path}/err", *one.command, *words)


def said(one: Container, done: support.Result) -> support.Result:
    """The same with what create wrote to its file."""
    try:
        with open(f"{one.bundle.path}/err", encoding="utf-8") as stream:
            return support.Result(done.argv, done.status, done.out, done.err + stream.read())
    except FileNotFoundError:
        return done


def _fifo(path: str, _scratch: str) -> None:
    os.mkfifo(path)


def _link(path: str, scratch: str) -> None:
    os.symlink(f"{scratch}/precious", path)


def _hard_link(path: str, scratch: str) -> None:
    os.link(f"{scratch}/precious", path)


def _file(path: str, _scratch: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write("1")
    os.chown(path, stranger(), stranger())


BEFORE: dict[str, Callable[[str, str], None]] = {
    "fifo": _fifo,
    "link": _link,
    "hard link": _hard_link,
    "file": _file,
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("verb", VERBS)
def test_a_temporary_name_made_before(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, shared: str, verb: str, before: str
) -> None:
    """Under the name that used to be taken, and that a runtime which was killed leaves, there may be anything."""
    with open(f"{scratch}/precious", "w", encoding="ascii") as stream:
        stream.write("precious")
    BEFORE[before](f"{shared}/.pid", scratch)
    one = container(bundle("probe").probe("exit", "0"))
    call(one, verb, f"{shared}/pid").ok()
    with open(f"{shared}/pid", "rb") as stream:
        assert int(stream.read()) > 1
    status = os.lstat(f"{shared}/pid")
    assert (stat.S_IFMT(status.st_mode), status.st_uid, status.st_nlink) == (stat.S_IFREG, 0, 1)
    with open(f"{scratch}/precious", encoding="ascii") as stream:
        assert stream.read() == "precious"
    assert sorted(os.listdir(shared)) == [".pid", "pid"]


def _socket(path: str, _scratch: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def _device(path: str, _scratch: str) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))


def _directory(path: str, _scratch: str) -> None:
    os.mkdir(path)


TARGETS: dict[str, Callable[[str, str], None]] = {
    "fifo": _fifo,
    "link": _link,
    "socket": _socket,
    "device": _device,
    "directory": _directory,
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_file_is_left_alone(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, shared: str, verb: str, target: str
) -> None:
    """/dev/null is not to become a file; nothing is made before that is known."""
    path = f"{shared}/pid"
    TARGETS[target](path, scratch)
    before = os.lstat(path)
    one = container(bundle("probe").probe("exit", "0"))
    said(one, call(one, verb, path)).fails(
        f"the pid file '{path}' is no regular file", status=255 if verb == "exec" else 1
    )
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert os.listdir(shared) == ["pid"]
    if verb != "exec":
        one.pyrunc("state", one.id).fails("does not exist")


def test_restore_looks_first(scratch: str, bundle: BundleFactory) -> None:
    """As the others, before CRIU is asked for anything."""
    _device(f"{scratch}/pid", scratch)
    os.mkdir(f"{scratch}/image")
    one = bundle("probe").write()
    words = [
        "restore",
        "--image-path",
        f"{scratch}/image",
        "--pid-file",
        f"{scratch}/pid",
        "--bundle",
        one.path,
    ]
    done = support.run(support.PYRUNC, "--root", f"{scratch}/root", *words, "x")
    done.fails(f"the pid file '{scratch}/pid' is no regular file")


def test_an_old_one_is_replaced(container: ContainerFactory, bundle: BundleFactory, shared: str) -> None:
    """Of an earlier run, or of somebody else: a reader finds the new one whole."""
    _file(f"{shared}/pid", shared)
    one = container(bundle("probe").probe("exit", "0"))
    call(one, "create", f"{shared}/pid").ok()
    with open(f"{shared}/pid", "rb") as stream:
        assert stream.read().isdigit()
    assert os.stat(f"{shared}/pid").st_uid == 0
    assert os.listdir(shared) == ["pid"]


def _exchanged(path: str, scratch: str) -> None:
    """Its directory leads elsewhere now, to a file of that name."""
    folder = os.path.dirname(path)
    os.rename(folder, f"{folder}-old")
    os.symlink(scratch, folder)


def _gone(path: str, _scratch: str) -> None:
    os.unlink(path)


def _another(path: str, scratch: str) -> None:
    os.unlink(path)
    os.link(f"{scratch}/pid", path)


@pytest.mark.parametrize("change", [_exchanged, _gone, _another])
def test_what_is_removed_is_what_was_written(
    scratch: str, shared: str, change: Callable[[str, str], None]
) -> None:
    """When the verb fails after all; what others have done meanwhile is no error either."""
    with open(f"{scratch}/pid", "w", encoding="ascii") as stream:
        stream.write("precious")
    path = f"{shared}/pid"
    drop = process_io.write_pid_file(path, 4711)
    with open(path, encoding="ascii") as stream:
        assert stream.read() == "4711"
    change(path, scratch)
    drop()
    with open(f"{scratch}/pid", encoding="ascii") as stream:
        assert stream.read() == "precious"
    if change is _exchanged:
        assert os.path.exists(f"{shared}-old/pid")


def test_what_was_written_is_removed(scratch: str) -> None:
    """Otherwise."""
    process_io.write_pid_file(f"{scratch}/pid", 4711)()
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("name", ["open", "rename"])
def test_a_directory_that_is_exchanged(
    scratch: str, shared: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two calls: all of them are for the directory that was there at first."""
    with open(f"{scratch}/pid", "w", encoding="ascii") as stream:
        stream.write("precious")
    real = getattr(os, name)

    def call_later(*words: object, **more: object) -> object:
        if os.path.isdir(shared) and not os.path.islink(shared) and (name == "rename" or more):
            monkeypatch.setattr(os, name, real)
            _exchanged(f"{shared}/pid", scratch)
        return real(*words, **more)

    monkeypatch.setattr(os, name, call_later)
    process_io.write_pid_file(f"{shared}/pid", 4711)
    with open(f"{shared}-old/pid", encoding="ascii") as stream:
        assert stream.read() == "4711"
    assert os.listdir(f"{shared}-old") == ["pid"]
    with open(f"{scratch}/pid", encoding="ascii") as stream:
        assert stream.read() == "precious"


def test_somebody_removes_the_file_of_a_program_that_is_not_there(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """The error is about the program."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    code = (
        "import os; from pyrunc.verbs import process_io; from pyrunc.cli import main as cli\n"
        "write = process_io.write_pid_file\n"
        "def lost(path, pid):\n    drop = write(path, pid); os.unlink(path); return drop\n"
        "process_io.write_pid_file = lost; raise SystemExit(cli.main())"
    )
    words = ["--root", one.root, "exec", "--pid-file", f"{scratch}/exec.pid", one.id, "/no-program"]
    done = support.run(support.PYTHON, "-c", code, *words)
    assert done.status == 255
    assert "/no-program" in done.err
    assert "report" not in done.err
    assert not os.path.exists(f"{scratch}/exec.pid")

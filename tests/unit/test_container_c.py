"""csrc/container/ through the shim: what it makes of a state directory, of processes, and of hostile content.

The state directories are written here, the processes and cgroups are real.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.container import directory as state_directory
from pyrunc.container.record import Record
from pyrunc.errors import KernelError, PyruncError, StateError
from pyrunc.kernel import container as kernel_container
from state_dirs import DEAD, unsigned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from state_dirs import Root

# --- Status -----------------------------------------------------------------------------------------------------------


def test_created_then_running(root: Root) -> None:
    """The fifo tells the two apart; pid and status are filled in."""
    pid = root.process()
    directory = root.write(root.record(pid), fifo=True)
    found = kernel_container.state(root.path, "c1")
    assert (found.status, found.pid, found.start_time) == (
        "created",
        pid,
        kernel_container.process_start_time(pid),
    )
    os.unlink(f"{directory}/exec.fifo")
    found = kernel_container.state(root.path, "c1")
    document = json.loads(found.document)
    assert (document["status"], document["pid"]) == ("running", pid)
    assert list(document) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert found.bundle == document["bundle"] == '/b\u00e4"x'


@pytest.mark.parametrize(
    "change", [{"pid": DEAD}, {"start_time": 1}, {"start_time": 0}, {"pid": 0}, {"pid": 1}]
)
def test_another_process_of_that_pid_is_not_ours(root: Root, change: dict[str, object]) -> None:
    """pid reuse: without the same start time the container has stopped, and nothing is signalled."""
    pid = root.process()
    root.write(root.record(pid, **change))
    found = kernel_container.state(root.path, "c1")
    assert (found.status, found.pid) == ("stopped", 0)
    assert json.loads(found.document)["pid"] == 0
    with pytest.raises(StateError, match="^container not running$"):
        kernel_container.kill(root.path, "c1", signal.SIGKILL)
    kernel_container.delete(root.path, "c1", force=True)
    assert root.alive(pid)


def test_a_zombie_has_stopped(root: Root) -> None:
    """Dead but not collected by its parent."""
    pid = root.process("true")
    root.write(root.record(pid))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert root.status() == "stopped"


def test_other_threads_may_outlive_the_first(root: Root) -> None:
    """/proc calls such a process a zombie, but it runs."""
    code = (
        "import ctypes, threading, time, sys\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "ctypes.CDLL(None).syscall(ctypes.c_long({}), 0)"
    ).format({"x86_64": 60, "aarch64": 93}.get(os.uname().machine, 60))
    pid = root.process(sys.executable, "-c", code)
    record = root.record(pid)
    support.wait_until(lambda: support.process_gone(pid), "the main thread's end")
    root.write(record)
    assert root.status() == "running"


def test_creating_needs_a_creator(root: Root) -> None:
    """The lock tells a create at work from one that was killed."""
    pid = root.process()
    directory = root.write(root.record(0), name="state.creating")
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert root.status() == "creating"
    with pytest.raises(StateError, match="container not running: it is being created"):
        kernel_container.kill(root.path, "c1", signal.SIGTERM)
    os.close(lock)
    assert root.status() == "stopped"
    root.write(root.record(pid), name="state.creating")
    assert root.status() == "creating"
    root.write(root.record(pid))
    assert root.status() == "running"


def test_unknown(root: Root) -> None:
    """No root, no directory, an empty directory."""
    for path in (root.path, root.at("none")):
        with pytest.raises(StateError, match="^container does not exist$"):
            kernel_container.state(path, "c1")
    os.mkdir(root.at("c1"))
    with pytest.raises(StateError, match="^container does not exist$"):
        kernel_container.state(root.path, "c1")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "\u00e4", "a\n", "x" * 256])
def test_bad_ids_have_the_words_of_create(root: Root, name: str) -> None:
    with pytest.raises(StateError) as ours:
        kernel_container.delete(root.path, name, force=True)
    with pytest.raises(StateError) as theirs:
        state_directory.check_id(name)
    assert (ours.value.message, ours.value.hint) == (theirs.value.message, theirs.value.hint)


def test_what_is_no_directory(root: Root) -> None:
    """A file, and a symbolic link even to a good one."""
    root.write(root.record())
    os.symlink("c1", root.at("link"))
    with open(root.at("file"), "wb"):
        pass
    for name in ("link", "file"):
        with pytest.raises(KernelError, match=f"open '{root.at(name)}': not a directory"):
            kernel_container.state(root.path, name)


# --- The state file ---------------------------------------------------------------------------------------------------


def test_every_line_is_understood(root: Root) -> None:
    made = ["/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b"]
    changes = {
        "needs": ["poststop", "systemd"],
        "pidns_private": False,
        "cgroups": [("cpu,cpuacct", "/x: y"), ("name=systemd", "/z"), ("", "/v2")],
        "made": made,
    }
    root.write(unsigned(root.record(**changes)).replace(b"version 1\n", b"version 1\nlater whatever\n"))
    found = kernel_container.state(root.path, "c1")
    assert (found.needs, found.pidns_private) == (["poststop", "systemd"], False)
    assert (found.cgroups, found.made) == (changes["cgroups"], made)


def test_placeholders_are_the_top_level_ones(root: Root) -> None:
    """Annotations may look like them; the order of the two does not matter."""
    pid = root.process()
    record = root.record(pid)
    inner = {"pid": '  "pid": 0,', "status": 'x\n  "status": "stopped",\ny'}
    record.document = {"annotations": inner, "status": "stopped", "pid": 0, "owner": ""}
    root.write(record)
    document = json.loads(kernel_container.state(root.path, "c1").document)
    assert document == {"annotations": inner, "status": "running", "pid": pid, "owner": ""}


GOOD = unsigned(Record(bundle="/b", rootfs="/b/rootfs", container_id="c1", annotations=None))
LONG = b"/x" * 2048
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "line 0|the file ends here"),
    "no end": (b"version 1\npid 0\n", "line 2: the file ends here"),
    "version": (GOOD.replace(b"version 1", b"version 2"), "line 1: not 'version 1'"),
    "no version": (GOOD.replace(b"version 1\n", b""), "line 1: not 'version 1'"),
    "no value": (GOOD.replace(b"pid 0", b"pid"), "line 2: not 'key value'"),
    "no number": (GOOD.replace(b"pid 0", b"pid -5"), "line 2: the pid is none"),
    "a large number": (GOOD.replace(b"pid 0", b"pid 4294967297"), "line 2: the pid is none"),
    "a larger one": (
        GOOD.replace(b"starttime 0", b"starttime " + b"9" * 40),
        "line 3: the start time is none",
    ),
    "twice": (GOOD.replace(b"pid 0\n", b"pid 0\npid 7\n"), "line 3: the pid is none"),
    "pidns": (GOOD.replace(b"private", b"other"), "line 5: pidns is neither private nor shared"),
    "pidnsid": (GOOD.replace(b"\n\n", b"\npidnsid x\n\n", 1), "line 7: the pid namespace is none"),
    "missing": (GOOD.replace(b"pidns private\n", b""), "pid, starttime, needs or pidns is missing above"),
    "NUL": (GOOD.replace(b"pid 0", b"pid 0\0"), "line 2: a NUL byte"),
    "cgroup": (
        GOOD.replace(b"\n\n", b"\ncgroup /x\n\n", 1),
        "line 7: the cgroup is not 'controller:/directory'",
    ),
    "relative": (
        GOOD.replace(b"\n\n", b"\ncgmade x\n\n", 1),
        "line 7: the cgroup directory is not absolute",
    ),
    "dots": (
        GOOD.replace(b"\n\n", b"\ncgmade /x/../y\n\n", 1),
        "line 7: the cgroup directory is not absolute",
    ),
    "long": (GOOD.replace(b"\n\n", b"\ncgmade " + LONG + b"\n\n", 1), "line 7: the cgroup directory is not"),
    "no document": (GOOD[: GOOD.index(b"\n\n") + 2], "the document below has no place for pid and status"),
    "no status": (
        GOOD.replace(b"stopped", b"started"),
        "the document below has no place for pid and status",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named_and_can_be_removed(root: Root, name: str) -> None:
    """Every verb but delete --force refuses it."""
    content, words = BROKEN[name]
    directory = root.write(content)
    pattern = f"the state of container 'c1' is damaged: .*({words})"
    for verb in (
        lambda: kernel_container.state(root.path, "c1"),
        lambda: kernel_container.start(root.path, "c1"),
        lambda: kernel_container.kill(root.path, "c1", 0),
        lambda: kernel_container.delete(root.path, "c1"),
    ):
        with pytest.raises(StateError, match=pattern) as caught:
            verb()
        assert caught.value.hint == "remove it with: pyrunc delete --force c1"
    assert os.path.exists(directory)
    if "document" in words:
        kernel_container.delete(root.path, "c1", force=True)
        assert not os.path.exists(directory)
        return
    # Lines are lost, and there is no process by which to know that it is gone.
    with pytest.raises(StateError, match=pattern) as caught:
        kernel_container.delete(root.path, "c1", force=True)
    assert f"remove '{directory}'" in str(caught.value.hint)
    assert os.listdir(directory) == ["state"]


def test_a_state_file_that_is_none(root: Root) -> None:
    """A link, a directory, a fifo, one that is too large: nothing is followed, nothing hangs."""
    os.makedirs(root.at("c1", "state"))
    os.makedirs(root.at("c2"))
    os.symlink("/etc/passwd", root.at("c2", "state"))
    os.makedirs(root.at("c3"))
    os.mkfifo(root.at("c3", "state"))
    os.makedirs(root.at("c4"))
    with open(root.at("c4", "state"), "wb") as file:
        file.truncate(1 << 30)
    for name in ("c1", "c2", "c3", "c4"):
        with pytest.raises(StateError, match="is damaged: it is"):
            kernel_container.state(root.path, name)
        # It says nothing of a process, so it is not taken away as if there were none.
        with pytest.raises(StateError, match="is damaged: it is") as caught:
            kernel_container.delete(root.path, name, force=True)
        assert f"remove '{root.at(name)}'" in str(caught.value.hint)
    assert sorted(os.listdir(root.path)) == ["c1", "c2", "c3", "c4"]


def _mutations(count: int) -> Iterator[bytes]:
    chance = random.Random(1)
    words = [
        b"\n",
        b"\n\n",
        b"\0",
        b" ",
        b"cgroup x:/y\n",
        b"cgmade /z\n",
        b"pid 7\n",
        b'  "pid": 0,\n',
        b"-1",
        b"9" * 30,
    ]
    base = GOOD.replace(b"\n\n", b"\ncgroup freezer:/f\ncgroup :/u\ncgmade /f\n\n", 1)
    for _ in range(count):
        data = bytearray(base)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data) + 1)
            kind = chance.randrange(5)
            if kind == 0:
                data[at:at] = chance.choice(words)
            elif kind == 1:
                del data[at : at + chance.randint(1, 60)]
            elif kind == 2 and at < len(data):
                data[at] = chance.randrange(256)
            elif kind == 3:
                del data[at:]
            else:
                data[at:at] = data[: chance.randint(0, 80)]
        yield bytes(data)


@pytest.mark.slow
def test_hostile_content_under_sanitizers(root: Root, tmp_path: Path) -> None:
    """ASan and UBSan have nothing to say about 600 damaged files, whatever the verb."""
    driver = str(tmp_path / "driver")
    include = os.path.join(support.PROJECT, "csrc")
    sources = glob.glob(f"{include}/container/*.c")
    here = os.path.join(os.path.dirname(__file__), "container_driver.c")
    flags = [
        "-std=gnu11",
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-common",
    ]
    support.run("gcc", *flags, "-I", include, "-o", driver, here, *sources).ok()
    names = []
    for number, content in enumerate(_mutations(600)):
        names.append(f"m{number}")
        root.write(content, names[-1])
    outcomes = set()
    for verb in ("state", "kill", "start", "delete"):
        result = support.run(driver, verb, root.path, *names).ok()
        assert result.err == ""
        outcomes |= {(verb, line.split()[1]) for line in result.out.splitlines()}
    # Both damaged ones and some that are still good were among them.
    assert {("state", "0"), ("state", "3"), ("start", "2"), ("start", "3")} <= outcomes
    assert {("delete", "0"), ("delete", "3")} <= outcomes


# --- start ------------------------------------------------------------------------------------------------------------


def _waiting(root: Root, script: str) -> int:
    """A process that opens the fifo as init does, then goes on with the script. The fifo is descriptor 3."""
    directory = root.write(root.record(), fifo=True)
    # By a descriptor: start removes the name, perhaps before the process comes to open it.
    fifo = os.open(f"{directory}/exec.fifo", os.O_PATH)
    argv = ["sh", "-c", f"exec 3>/proc/self/fd/{fifo}; {script}"]
    root.started.append(subprocess.Popen(argv, pass_fds=[fifo], stdin=subprocess.DEVNULL))
    os.close(fifo)
    pid = root.started[-1].pid
    root.write(root.record(pid))
    return pid


def test_start(root: Root) -> None:
    """End of file without a byte: the program runs. Nobody can start it twice."""
    pid = _waiting(root, "exec 3>&-; exec sleep 1000")
    assert kernel_container.start(root.path, "c1") == b""
    assert not os.path.exists(root.at("c1", "exec.fifo"))
    assert (root.status(), root.alive(pid)) == ("running", True)
    with pytest.raises(StateError, match="^cannot start an already running container$"):
        kernel_container.start(root.path, "c1")


def test_start_hands_out_what_init_says(root: Root, tmp_path: Path) -> None:
    """512 bytes are a record, and the container has stopped by then."""
    record = bytes(range(256)) * 2
    (tmp_path / "record").write_bytes(record)
    _waiting(root, f"cat {tmp_path}/record >&3")
    assert kernel_container.start(root.path, "c1") == record
    assert root.status() == "stopped"


def test_start_refuses_half_a_record(root: Root) -> None:
    _waiting(root, "echo hello >&3")
    with pytest.raises(StateError, match="init's report is cut short: 6 of 512 bytes"):
        kernel_container.start(root.path, "c1")


def test_start_of_the_dead(root: Root) -> None:
    """Dead before, and dying while start waits."""
    root.write(root.record(DEAD, start_time=5), fifo=True)
    with pytest.raises(StateError, match="^cannot start a container that has stopped$"):
        kernel_container.start(root.path, "c1")
    pid = root.process()
    root.write(root.record(pid))
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(kernel_container.start, root.path, "c1")
        support.wait_until(lambda: not os.path.exists(root.at("c1", "exec.fifo")), "start to take the fifo")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(StateError, match="^cannot start a container that has stopped$"):
            start.result(timeout=10)


def test_one_of_many_starts_wins(root: Root) -> None:
    """And the others say so."""

    def attempt(_number: int) -> str:
        try:
            return str(kernel_container.start(root.path, "c1"))
        except StateError as error:
            return error.message

    _waiting(root, "exec 3>&-; exec sleep 1000")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(16)))
    assert sorted(answers) == ["b''"] + ["cannot start an already running container"] * 15


# --- kill -------------------------------------------------------------------------------------------------------------


def test_kill(root: Root) -> None:
    """The signal arrives; the dead are no process; --all makes that a success."""
    pid = root.process()
    root.write(root.record(pid))
    kernel_container.kill(root.path, "c1", 0)
    kernel_container.kill(root.path, "c1", signal.SIGUSR1)
    assert root.started[0].wait(10) == -signal.SIGUSR1
    with pytest.raises(StateError, match="^container not running$"):
        kernel_container.kill(root.path, "c1", signal.SIGCONT)
    kernel_container.kill(root.path, "c1", signal.SIGKILL, all_processes=True)
    with pytest.raises(StateError, match="^container does not exist$"):
        kernel_container.kill(root.path, "c2", signal.SIGKILL)
    with pytest.raises(KernelError, match="pidfd_send_signal"):
        root.write(root.record(root.process()))
        kernel_container.kill(root.path, "c1", 77)


# --- delete -----------------------------------------------------------------------------------------------------------


def test_delete_by_state(root: Root) -> None:
    """A container that runs is kept, one that was created or has stopped goes."""
    pid = root.process()
    directory = root.write(root.record(pid), fifo=True)
    kernel_container.delete(root.path, "c1")
    assert not os.path.exists(directory)
    assert root.started[0].wait(10) == -signal.SIGKILL
    pid = root.process()
    root.write(root.record(pid))
    with pytest.raises(
        StateError, match="^cannot delete container c1 that is not stopped: running$"
    ) as caught:
        kernel_container.delete(root.path, "c1")
    assert "delete --force c1" in (caught.value.hint or "")
    kernel_container.delete(root.path, "c1", force=True)
    assert root.started[1].wait(10) == -signal.SIGKILL
    assert os.listdir(root.path) == []


def test_delete_of_the_unknown(root: Root) -> None:
    """An error, unless forced."""
    for path in (root.path, root.at("none")):
        with pytest.raises(StateError, match="^container does not exist$"):
            kernel_container.delete(path, "c1")
        kernel_container.delete(path, "c1", force=True)
    os.mkdir(root.at("c1"))
    with pytest.raises(StateError, match="^container does not exist$"):
        kernel_container.delete(root.path, "c1")
    kernel_container.delete(root.path, "c1", force=True)
    assert os.listdir(root.path) == []


def test_delete_takes_files_nobody_knows(root: Root, tmp_path: Path) -> None:
    """Directories, links, sockets, read-only ones; what links point to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x", encoding="utf-8")
    directory = root.write(root.record())
    os.makedirs(f"{directory}/a/b/c")
    os.symlink(outside, f"{directory}/a/link")
    os.symlink("/nonexistent", f"{directory}/.hidden")
    os.mknod(f"{directory}/a/b/fifo", stat.S_IFIFO | 0o600)
    with open(f"{directory}/a/b/file", "wb") as file:
        os.fchmod(file.fileno(), 0o400)
    kernel_container.delete(root.path, "c1")
    assert os.listdir(root.path) == []
    assert os.listdir(outside) == ["kept"]


def test_delete_waits_for_the_lock(root: Root) -> None:
    """And finds out that the directory it waited for is gone, or another one."""
    for again in (False, True):
        directory = root.write(root.record(DEAD))
        lock = os.open(directory, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            delete = pool.submit(kernel_container.delete, root.path, "c1")
            deadline = time.monotonic() + 10
            while not _opened(directory, lock):
                assert time.monotonic() < deadline
            shutil.rmtree(directory)
            if again:
                root.write(root.record(DEAD))
            os.close(lock)
            if again:
                delete.result(timeout=10)
            else:
                with pytest.raises(StateError, match="^container does not exist$"):
                    delete.result(timeout=10)
        assert os.listdir(root.path) == []


def _opened(directory: str, lock: int) -> bool:
    """Whether somebody in this process has the directory open beside `lock`."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) != lock and os.readlink(f"/proc/self/fd/{name}") == directory:
                return True
        except OSError:
            continue
    return False


def _race(verbs: list[Callable[[], object]], rounds: int) -> set[str]:
    """Run the verbs at the same time, again and again; every answer that was no success."""
    answers: set[str] = set()
    barrier = threading.Barrier(len(verbs))

    def repeat(verb: Callable[[], object]) -> None:
        for _ in range(rounds):
            barrier.wait(30)
            try:
                verb()
            except PyruncError as error:
                answers.add(str(error))

    with ThreadPoolExecutor(len(verbs)) as pool:
        for future in [pool.submit(repeat, verb) for verb in verbs]:
            future.result(timeout=120)
    return answers


def test_create_and_delete_of_one_id_race(root: Root) -> None:
    """200 rounds: whoever loses says one of three things, and nothing is left behind."""

    def create() -> None:
        directory = state_directory.create(root.path, "c1")
        directory.write("config.json", b"{}")
        directory.write("state.creating", root.record(DEAD).render())
        directory.write("state", root.record(DEAD).render())
        os.unlink("state.creating", dir_fd=directory.fd)
        directory.close()

    def look() -> None:
        kernel_container.state(root.path, "c1")

    answers = _race(
        [
            create,
            create,
            lambda: kernel_container.delete(root.path, "c1"),
            lambda: kernel_container.delete(root.path, "c1", force=True),
            look,
        ],
        200,
    )
    assert answers <= {"container does not exist", "container with given ID already exists"}
    kernel_container.delete(root.path, "c1", force=True)
    assert os.listdir(root.path) == []

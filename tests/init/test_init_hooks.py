"""Hooks that run in the container's namespaces, by the real init."""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING

import pytest

from init.machine import NEWNS, NEWPID, PATIENCE, in_rootfs, op, shell
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from pathlib import Path

    from init.machine import Machine

INDEX = 3
WHICH = INDEX << 16
STATE = b'{"ociVersion":"1.2.0","status":"created"}'


def hook(
    script: str, *, env: tuple[str, ...] = (), stdin: bytes = STATE, timeout: int = 0, path: str = "/bin/sh"
) -> wire.Op:
    """A createContainer hook that is a shell script, the fourth of its kind."""
    return op("HOOK", path, ["hook", "-c", script], list(env), stdin, timeout, INDEX, 2)


def test_hook_gets_state_arguments_and_environment(machine: Machine, tmp_path: Path) -> None:
    """The state on stdin, argv[0] as given, the environment exactly as given, no descriptor of init, umask 022."""
    out = tmp_path / "out"
    script = f"(cat; echo; echo $0 $A; /usr/bin/env; ls /proc/self/fd; umask) > {out}"
    machine.run([hook(script, env=("A=1", "PATH=/bin:/usr/bin")), op("DONE")]).ok()
    lines = out.read_text().splitlines()
    assert lines[0] == STATE.decode()
    assert lines[1] == "hook 1"
    assert set(lines[2:-5]) <= {
        "A=1",
        "PATH=/bin:/usr/bin",
        f"PWD={os.getcwd()}",
        "_=/usr/bin/env",
        "OLDPWD=",
        "SHLVL=0",
    }
    # 3 is the directory that ls reads
    assert lines[-5:] == ["0", "1", "2", "3", "0022"]


def test_large_state_and_unread_state(machine: Machine, tmp_path: Path) -> None:
    """More than a pipe holds; and a hook that does not read it does not kill init by SIGPIPE."""
    state = b"x" * 1_000_000
    out = tmp_path / "out"
    machine.run([hook(f"cat > {out}", stdin=state, env=("PATH=/bin",)), op("DONE")]).ok()
    assert out.read_bytes() == state
    machine.run([hook("exec <&-; true", stdin=state), hook("exit 0", stdin=state), op("DONE")]).ok()


@pytest.mark.parametrize("state", [b'{"pid":\1}', b"\1", b'{"pid":\1,"x":"' + b"y" * 200_000 + b'"}'])
def test_own_pid_in_the_state(machine: Machine, tmp_path: Path, state: bytes) -> None:
    """The byte 1 stands for the pid that init has where it is: 1 in a new pid namespace."""
    out = tmp_path / "out"
    plan = [hook(f"cat > {out}", stdin=state, env=("PATH=/bin",)), op("DONE")]
    machine.run(plan, unshare=NEWNS | NEWPID).ok()
    assert out.read_bytes() == state.replace(b"\1", b"1")


def test_hooks_run_where_they_stand(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """Before PIVOT the path is the runtime's, after it the container's."""
    (rootfs / "bin/only-here").symlink_to("busybox")
    before = hook(f"echo outside > {tmp_path}/before", path="/bin/sh")
    after = op("HOOK", "/bin/only-here", ["sh", "-c", "echo inside > /after"], [], b"", 0, 0, 3)
    root = in_rootfs(rootfs)
    machine.run([root[0], before, root[1], after, op("DONE")]).ok()
    assert (tmp_path / "before").read_text() == "outside\n"
    assert (rootfs / "after").read_text() == "inside\n"


def test_failing_hook_is_quoted(machine: Machine) -> None:
    """Wait status and the end of what it printed on stdout and stderr; the next op is not reached."""
    script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; echo the reason >&2; exit 7"
    error = machine.run([hook(script), op("HOSTNAME", "x" * 100), op("DONE")]).failed()
    assert (error.step, error.errno, error.flags, error.op) == ("hook", 0, WHICH, 0)
    assert os.waitstatus_to_exitcode(error.value) == 7
    assert error.text.endswith("line 499\nthe reason")
    assert len(error.text) == 399


def test_hook_killed_by_a_signal(machine: Machine) -> None:
    """The wait status tells it."""
    error = machine.run([hook("kill -SEGV $$"), op("DONE")]).failed()
    assert os.waitstatus_to_exitcode(error.value) == -11


def test_missing_hook(machine: Machine, tmp_path: Path) -> None:
    """ENOENT and EACCES of its execve with the path."""
    (tmp_path / "data").touch()
    for path, number in (("/no/such/hook", errno.ENOENT), (str(tmp_path / "data"), errno.EACCES)):
        error = machine.run([hook("", path=path), op("DONE")]).failed()
        assert (error.step, error.errno, error.text, error.flags) == ("hook", number, path, WHICH)


def test_timeout_ends_the_whole_group(machine: Machine, tmp_path: Path) -> None:
    """Killed with its children when the time is over; what it printed is kept."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = f"exec 5> {alive}; echo busy; (while :; do :; done) & while :; do :; done"
        started = time.monotonic()
        error = machine.run([hook(script, timeout=300), op("DONE")]).failed()
        assert 0.3 <= time.monotonic() - started < PATIENCE
        assert (error.step, error.value, error.text) == ("hook_timeout", -1, "busy")
        # end of file: nobody of the group holds the fifo any more
        assert select.select([reader], [], [], PATIENCE)[0]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_hook_that_is_in_time(machine: Machine) -> None:
    """A timeout that is not reached does nothing."""
    machine.run([hook("exit 0", timeout=60_000), op("DONE")]).ok()


def test_hook_that_leaves_a_daemon(machine: Machine, tmp_path: Path) -> None:
    """A child of the hook that keeps its stdout does not hold init up."""
    script = f"(read x < {tmp_path}/fifo) & exit 0"
    os.mkfifo(tmp_path / "fifo")
    machine.run([hook(script), op("DONE")]).ok()
    # let it go
    writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.close(writer)


@pytest.mark.parametrize("failing", [True, False])
def test_start_container_hook(machine: Machine, rootfs: Path, tmp_path: Path, failing: bool) -> None:
    """After START_WAIT: a failure is one message on the fifo, success leaves no byte there."""
    path = tmp_path / "exec.fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_PATH)
    script = "echo why; exit 3" if failing else "exit 0"
    plan = [
        *in_rootfs(rootfs),
        op("SYNC", numbers.SYNC["READY"]),
        op("START_WAIT", fd),
        op("HOOK", "/bin/sh", ["sh", "-c", script], [], STATE, 0, 0, 3),
        *shell("echo runs"),
    ]
    with machine.start(plan, keep=[fd]) as running:
        os.close(fd)
        running.serve()
        start = os.open(path, os.O_RDONLY)
        try:
            data = os.read(start, numbers.SYNC_MESSAGE_SIZE)
        finally:
            os.close(start)
        result = running.wait()
    if failing:
        error = wire.message(data)
        assert (error.step, error.text, os.waitstatus_to_exitcode(error.value)) == ("hook", "why", 3)
        # Whoever starts the container does not know what came before.
        assert error.op == 0
        assert result.exit_code == 1
        assert result.out == ""
    else:
        assert data == b""
        assert result.out == "runs\n"

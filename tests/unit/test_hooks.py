"""Hooks of the runtime namespace, with real programs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.errors import ContainerError
from pyrunc.launch import hooks

if TYPE_CHECKING:
    from pathlib import Path

    from pyrunc.spec.shapes import Hook


def sh(script: str, **more: object) -> Hook:
    hook: dict[str, object] = {"path": "/bin/sh", "args": ["sh", "-c", script], **more}
    return hook  # type: ignore[return-value]


def test_a_hook_reads_the_state_and_runs_in_the_given_directory(tmp_path: Path) -> None:
    """stdin is the state, the working directory the bundle, the environment the hook's own and nothing else."""
    hooks.run("prestart", [sh("cat >state; env >environment", env=["ONE=1"])], b'{"pid":7}', str(tmp_path))
    assert (tmp_path / "state").read_text() == '{"pid":7}'
    names = {line.split("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert "ONE" in names
    assert names <= {"ONE", "PWD", "_", "SHLVL"}  # the shell's own


def test_hooks_run_in_order_and_stop_at_the_first_failure(tmp_path: Path) -> None:
    wanted = [sh("echo a >>log"), sh("echo b >>log; echo why >&2; exit 3"), sh("echo c >>log")]
    with pytest.raises(ContainerError) as caught:
        hooks.run("createRuntime", wanted, b"{}", str(tmp_path))
    assert (tmp_path / "log").read_text() == "a\nb\n"
    assert caught.value.path == "$.hooks.createRuntime[1]"
    assert caught.value.message == "createRuntime hook #1 '/bin/sh': exit status 3, output: why"


def test_poststop_hooks_all_run(tmp_path: Path) -> None:
    failed = hooks.run_all("poststop", [sh("exit 1"), sh("echo b >>log")], b"{}", str(tmp_path))
    assert (tmp_path / "log").read_text() == "b\n"
    assert [problem.path for problem in failed] == ["$.hooks.poststop[0]"]


@pytest.mark.slow
def test_a_hook_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    """The timeout is in seconds; a child that outlived the hook would keep the pipe and its pid."""
    with pytest.raises(ContainerError, match=r"hook ran past specified timeout of 1\.0s"):
        hooks.run("prestart", [sh("sleep 60 & echo $! >child; wait", timeout=1)], b"{}", str(tmp_path))
    child = int((tmp_path / "child").read_text())
    try:
        with open(f"/proc/{child}/stat", encoding="ascii") as stat:
            assert stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        pass


def test_what_cannot_be_found_is_not_gone(tmp_path: Path) -> None:
    """With no descriptor left nobody sees the hook's children: it ends, and that is said."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def run_out() -> None:
        support.wait_until((tmp_path / "started").exists, "the hook to run")
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))

    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(run_out)
        try:
            with pytest.raises(ContainerError, match="hook ran past specified timeout") as caught:
                hooks.run("prestart", [sh("echo >started; exec sleep 60", timeout=1)], b"{}", str(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        ready.result()
    assert caught.value.hint == "what it has started may be left: open '/proc': too many open files"


_TRACE = """
import ctypes, os, signal, sys
assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None) == 0
open("go", "w").close()
signal.pause()
"""


@pytest.mark.root
def test_a_hook_that_is_kept_by_its_tracer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has ended, and its parent cannot know how before the tracer lets go: nobody waits for ever."""
    monkeypatch.setattr(hooks, "_KILL_SECONDS", 0.5)

    def told() -> str:
        return (tmp_path / "pid").read_text()

    def trace() -> subprocess.Popen[bytes]:
        support.wait_until(lambda: (tmp_path / "pid").exists() and told().endswith("\n"), "the hook to run")
        return subprocess.Popen([sys.executable, "-c", _TRACE, told()], cwd=tmp_path)

    # No children: it would be stopped at the signal of their end.
    script = "echo $$ >pid; read line <go"
    os.mkfifo(tmp_path / "go")
    with ThreadPoolExecutor(1) as pool:
        tracer = pool.submit(trace)
        try:
            with pytest.raises(
                ContainerError, match="has ended, and its exit status is not known"
            ) as caught:
                hooks.run("prestart", [sh(script)], b"{}", str(tmp_path))
        finally:
            process = tracer.result()
            process.kill()
            process.wait()
    assert caught.value.hint == "another process traces it"
    os.waitpid(int(told()), 0)


def test_a_missing_hook_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContainerError) as caught:
        hooks.run("prestart", [{"path": "/no/such/hook"}], b"{}", str(tmp_path))
    assert caught.value.message == "prestart hook #0 '/no/such/hook': execve: no such file or directory"
    assert caught.value.hint is not None


def test_a_hook_killed_by_a_signal_says_so(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="killed by signal 9"):
        hooks.run("prestart", [sh("kill -9 $$")], b"{}", str(tmp_path))


def test_a_hook_need_not_read_its_state(tmp_path: Path) -> None:
    """A state larger than a pipe, a hook that does not look at it, and a lot of output: none may block."""
    hooks.run("prestart", [sh("head -c 300000 /dev/zero")], b"x" * 300_000, str(tmp_path))

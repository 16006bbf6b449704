"""Hooks of the runtime namespace, with real programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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

"""Builds init once per run (plain and with sanitizers) and makes a busybox rootfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pyrunc import __version__

from init.machine import Machine

CSRC = Path(__file__).resolve().parents[2] / "csrc"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wswitch-enum", "-Wformat=2"]
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUSL = ["-Os", "-static", "-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include"]
APPLETS = ["sh", "cat", "ls", "id", "mount", "stat", "echo", "pwd", "env", "readlink", "sleep", "true", "false", "grep"]


def _must(reason: str) -> None:
    if os.environ.get("PYRUNC_MUST_WORK"):
        pytest.fail(reason)
    pytest.skip(reason)


def _build(to: Path, *, sanitized: bool) -> Path:
    program = to / ("init.san" if sanitized else "init")
    sources = sorted(str(path) for path in CSRC.glob("init*.c"))
    musl = shutil.which("musl-gcc")
    compiler = "cc" if sanitized or musl is None else musl
    flags = SANITIZE if sanitized else MUSL if musl else ["-Os", "-static"]
    version = f'-DPYRUNC_VERSION="{__version__}"'
    subprocess.run([compiler, *WARNINGS, version, *flags, *sources, "-o", str(program)], check=True)
    return program


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The init as it is installed: static, musl when there is one."""
    if os.geteuid() != 0:
        _must("init's tests make namespaces and mounts: root only")
    return _build(tmp_path_factory.mktemp("init"), sanitized=False)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """init with ASan and UBSan."""
    if os.geteuid() != 0:
        _must("init's tests make namespaces and mounts: root only")
    return Machine(_build(tmp_path_factory.mktemp("init"), sanitized=True), sanitized=True)


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Machine:
    """The init under test: the plain build, or with PYRUNC_INIT_SANITIZE=1 the sanitized one."""
    if os.environ.get("PYRUNC_INIT_SANITIZE"):
        chosen: Machine = request.getfixturevalue("sanitized")
        return chosen
    return Machine(request.getfixturevalue("built"))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A directory with busybox and the usual empty directories."""
    root = tmp_path / "rootfs"
    busybox = shutil.which("busybox")
    if busybox is None:
        _must("busybox (static) is not installed")
    assert busybox is not None
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    tmp_path.chmod(0o755)
    return root

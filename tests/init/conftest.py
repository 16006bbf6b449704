"""Builds init once per run (plain and with sanitizers) and makes a busybox rootfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import support
from init.machine import Machine
from pyrunc import __version__

CSRC = Path(__file__).resolve().parents[2] / "csrc"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wswitch-enum", "-Wformat=2"]
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUSL = ["-Os", "-static", "-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include"]
APPLETS = [
    "sh",
    "cat",
    "ls",
    "id",
    "stat",
    "echo",
    "pwd",
    "env",
    "readlink",
    "true",
    "false",
    "grep",
    "touch",
    "sleep",
    "mkdir",
    "tty",
    "kill",
    "umask",
    "find",
    "dd",
]


def _build(to: Path, *, sanitized: bool) -> Path:
    program = to / ("init.san" if sanitized else "init")
    sources = sorted(str(path) for path in [*(CSRC / "init").glob("*.c"), CSRC / "shared/mounts.c"])
    musl = shutil.which("musl-gcc")
    compiler = "cc" if sanitized or musl is None else musl
    flags = SANITIZE if sanitized else MUSL if musl else ["-Os", "-static"]
    version = f'-DPYRUNC_VERSION="{__version__}"'
    subprocess.run(
        [compiler, *WARNINGS, version, f"-I{CSRC}", *flags, *sources, "-o", str(program)], check=True
    )
    return program


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The init as it is installed: static, musl when there is one."""
    support.needs_root()
    return _build(tmp_path_factory.mktemp("init"), sanitized=False)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """init with ASan and UBSan."""
    support.needs_root()
    ready = os.environ.get("PYRUNC_SANITIZED")
    program = Path(ready, "init") if ready else _build(tmp_path_factory.mktemp("init"), sanitized=True)
    return Machine(program, sanitized=True)


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Machine:
    """The init under test: the plain build, or the sanitized one when such a build is tested."""
    if os.environ.get("PYRUNC_INIT_SANITIZE") or os.environ.get("PYRUNC_SANITIZED"):
        chosen: Machine = request.getfixturevalue("sanitized")
        return chosen
    return Machine(request.getfixturevalue("built"))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A directory with busybox and the usual empty directories."""
    root = tmp_path / "rootfs"
    busybox = support.needs_program("busybox")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    tmp_path.chmod(0o755)
    return root

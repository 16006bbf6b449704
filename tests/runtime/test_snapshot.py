"""The snapshot of a started Python: when it is made and used, and that nobody can tell (docs/performance.md)."""

from __future__ import annotations

import glob
import json
import os
import platform
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import BundleFactory, ContainerFactory, User

pytestmark = pytest.mark.root

DEFAULT_ROOT = "/run/pyrunc"
COLD = 99
# Of csrc/shared/snapshot_file.h: magic, then the boot id.
BOOT_ID_AT = 32
BOOT_ID_SIZE = 36


def snapshot_of(command: str) -> str:
    """Where the command at that path keeps its snapshot: FNV-1a of the path."""
    value = 0xCBF29CE484222325
    for byte in os.fsencode(command):
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{DEFAULT_ROOT}/@python-{value:016x}"


class Installation:
    """pyrunc below a prefix of its own, and so with a snapshot of its own."""

    def __init__(self, prefix: str) -> None:
        python = os.path.realpath(support.PYTHON)
        packages = os.path.join(prefix, "lib", os.path.basename(python), "site-packages")
        self.package = os.path.join(packages, "pyrunc")
        self.command = os.path.join(prefix, "bin", "pyrunc")
        self.snapshot = snapshot_of(self.command)
        self.root = os.path.join(prefix, "root")
        os.makedirs(os.path.join(prefix, "bin"))
        shutil.copytree(support.PACKAGE, self.package)
        for name in ("_cffi_backend*.so", "prctl.py", "_prctl*.so"):
            for path in glob.glob(os.path.join(os.path.dirname(support.PACKAGE), name)):
                shutil.copy(path, packages)
        shutil.copy(support.PYRUNC, self.command)
        # By its full name, which the command looks for when there is no python3 beside it.
        self.python = os.path.join(prefix, "bin", os.path.basename(python))
        os.symlink(python, self.python)

    def ask(self, *options: str, **environment: str) -> support.Result:
        """Call a verb that needs Python and makes a snapshot: exec in a container that is not there."""
        argv = [self.command, "--root", self.root, *options, "exec", "nobody", "true"]
        return support.run(*argv, env=environment)

    def answers(self, *options: str, **environment: str) -> None:
        """Assert that Python, however started, words the error."""
        self.ask(*options, **environment).fails("container does not exist", status=255)

    def break_python(self) -> None:
        """From now on only a snapshot answers."""
        os.unlink(self.python)
        with open(self.python, "w", encoding="ascii") as stream:
            stream.write(f"#!/bin/sh\nexit {COLD}\n")
        os.chmod(self.python, 0o755)

    def change(self, content: bytes, at: int) -> None:
        """Overwrite a part of the snapshot."""
        with open(self.snapshot, "r+b") as stream:
            stream.seek(at)
            stream.write(content)


@pytest.fixture
def fresh(scratch: str) -> Iterator[Installation]:
    """An installation without a snapshot."""
    support.needs(platform.machine() == "x86_64", "snapshots on this architecture")
    one = Installation(os.path.join(scratch, "prefix"))
    yield one
    for path in glob.glob(one.snapshot + "*"):
        os.unlink(path)


@pytest.fixture
def warm(fresh: Installation) -> Installation:
    """One that has a snapshot, and no other way to start Python."""
    fresh.answers()
    fresh.break_python()
    return fresh


def test_first_call_makes_one(fresh: Installation) -> None:
    """Only a verb that engines call often does; it is closed to others, and nothing else is left beside it."""
    support.run(fresh.command, "list", env={}).ok()
    assert not os.path.exists(fresh.snapshot)
    fresh.answers()
    status = os.stat(fresh.snapshot)
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, os.geteuid())
    assert 1 << 20 < status.st_size < 16 << 20
    assert glob.glob(fresh.snapshot + "*") == [fresh.snapshot]


def test_default_root_is_as_create_makes_it(fresh: Installation) -> None:
    """Where no container has been yet, it is made, and open to be passed through."""
    script = 'mount -t tmpfs none /run; "$@"; stat -c "%a %F" /run/pyrunc /run/pyrunc/@python-*'
    argv = [fresh.command, "--root", fresh.root, "exec", "nobody", "true"]
    done = support.run("unshare", "-m", "sh", "-c", script, "sh", *argv, env={"PATH": "/usr/bin:/bin"}).ok()
    assert done.out.splitlines() == ["711 directory", "600 regular file"]


def test_old_ones_go(fresh: Installation) -> None:
    """Those of installations that are no more do not gather: six are kept, the newest."""
    script = (
        "mount -t tmpfs none /run; mkdir /run/pyrunc; cd /run/pyrunc; mkdir other;"
        'for i in 1 2 3 4 5 6 7 8; do touch -d "2020-01-0$i" @python-$i; done; "$@"; ls'
    )
    argv = [fresh.command, "--root", fresh.root, "exec", "nobody", "true"]
    done = support.run("unshare", "-m", "sh", "-c", script, "sh", *argv, env={"PATH": "/usr/bin:/bin"}).ok()
    own = os.path.basename(fresh.snapshot)
    assert set(done.out.splitlines()) == {own, "other", *(f"@python-{number}" for number in range(4, 9))}


def test_an_ordinary_user_has_an_own_one(rootless: User) -> None:
    """Below its runtime directory; without one there is no place to trust, and Python starts."""
    directory = os.path.join(rootless.runtime_dir, "pyrunc")
    argv = [rootless.pyrunc, "exec", "nobody", "true"]
    for _ in range(2):
        support.run(*rootless.prefix, *argv).fails("container does not exist", status=255)
    (name,) = [name for name in os.listdir(directory) if name.startswith("@python-")]
    status = os.stat(os.path.join(directory, name))
    assert (status.st_uid, status.st_mode & 0o777) == (rootless.uid, 0o600)
    assert status.st_size > 1 << 20
    prefix = [word for word in rootless.prefix if not word.startswith("XDG_RUNTIME_DIR=")]
    support.run(*prefix, *argv).fails("container does not exist", status=255)


def test_later_calls_use_it(warm: Installation) -> None:
    """Also verbs that would not have made it, also from a link elsewhere."""
    warm.answers()
    support.run(warm.command, "--root", warm.root, "features", env={}).ok()
    link = warm.root + "-link"
    os.symlink(warm.command, link)
    support.run(link, "--root", warm.root, "exec", "nobody", "true", env={}).fails(
        "does not exist", status=255
    )


@pytest.mark.parametrize("how", ["--debug", "PYRUNC_SNAPSHOT"])
def test_it_can_be_done_without(warm: Installation, how: str) -> None:
    """--debug wants line numbers; the environment may forbid it."""
    result = warm.ask("--debug") if how == "--debug" else warm.ask(PYRUNC_SNAPSHOT="0")
    assert result.status == COLD


DAMAGE = ["hot.bin changed", "library changed", "other boot", "other version", "cut", "open to others"]
DAMAGE += [
    "of another user",
    "link",
    "second name",
    "module changed",
    "module put in place",
    "module beside it",
]
DAMAGE += ["entry changed"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_it_is_not_used_when(warm: Installation, damage: str) -> None:
    """It is for what is there now, for this boot and for its owner: otherwise Python starts, and makes another."""
    size = os.path.getsize(warm.snapshot)
    match damage:
        case "hot.bin changed":
            os.utime(os.path.join(warm.package, "hot.bin"))
        case "library changed":
            shim = os.path.join(warm.package, "_shim.abi3.so")
            shutil.copy(shim, shim + ".new")
            os.rename(shim + ".new", shim)
        case "other boot":
            warm.change(b"0" * BOOT_ID_SIZE, BOOT_ID_AT)
        case "other version":
            warm.change(b"pyrunc 0.0.0", 0)
        case "cut":
            os.truncate(warm.snapshot, size - 4096)
        case "open to others":
            os.chmod(warm.snapshot, 0o644)
        case "of another user":
            os.chown(warm.snapshot, 1, 1)
        case "link":
            os.rename(warm.snapshot, warm.snapshot + "-moved")
            os.symlink(warm.snapshot + "-moved", warm.snapshot)
        case "second name":
            os.link(warm.snapshot, warm.snapshot + "-too")
        case "module changed":
            # As long as before, and with the old time.
            path = os.path.join(os.path.dirname(warm.package), "prctl.py")
            before = os.stat(path)
            with open(path, "r+b") as stream:
                first = stream.read(1)
                stream.seek(0)
                stream.write(b"x" if first == b"#" else b"#")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "module put in place":
            path = os.path.join(os.path.dirname(warm.package), "prctl.py")
            shutil.copy2(path, path + ".new")
            os.rename(path + ".new", path)
        case "module beside it":
            with open(os.path.join(os.path.dirname(warm.package), "json.py"), "w", encoding="ascii"):
                pass
        case "entry changed":
            os.utime(os.path.join(warm.package, "startup/entry.py"))
    # `list` never makes one.
    assert support.run(warm.command, "--root", warm.root, "list", env={}).status == COLD


HELD = """
import sys
sys.path.append(PACKAGES)
from pyrunc.startup import snapshot
for name in snapshot.MODULES:
    __import__(name)
snapshot._practise()
for module in sys.modules.values():
    file = getattr(module, "__file__", None)
    if file and module.__spec__.origin != "frozen" and "/pyrunc/" not in file:
        print(file)
"""


def test_every_module_counts(warm: Installation) -> None:
    """Each file of Python's own that is held: where another lies in its place, Python starts."""
    held = HELD.replace("PACKAGES", repr(os.path.dirname(warm.package)))
    python = os.path.realpath(support.PYTHON)
    files = support.run(python, "-I", "-S", "-B", "-c", held, env={}).ok().out.splitlines()
    assert len(files) > 20
    assert any("/json/" in path for path in files)
    script = (
        'copy=$1; shift; command=$1; shift; "$command" --root / list; echo $?;'
        'for path; do cp -p "$path" "$copy"; mount --bind "$copy" "$path"; "$command" --root "$copy" list; echo $?;'
        ' umount "$path"; rm "$copy"; done'
    )
    argv = ["unshare", "-m", "sh", "-c", script, "sh", f"{warm.root}-copy", warm.command, *files]
    done = support.run(*argv, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
    assert done.out.split() == ["1", *[str(COLD)] * len(files)], dict(
        zip(files, done.out.split()[1:], strict=False)
    )


def test_what_changes_while_it_is_made(fresh: Installation) -> None:
    """Nobody knows whether the old file was loaded or the new one: the next command makes it."""
    boot = os.path.join(fresh.package, "boot.py")
    with open(boot, encoding="ascii") as stream:
        text = stream.read()
    once, hot = os.path.join(fresh.root + "-once"), os.path.join(fresh.package, "hot.bin")
    change = f"import os, sys\nif '--snapshot' in sys.argv and not os.path.exists({once!r}):\n"
    change += f"    open({once!r}, 'w')\n    os.utime({hot!r})\n"
    with open(boot, "w", encoding="ascii") as stream:
        stream.write(change + text)
    fresh.answers()
    assert os.path.exists(once)
    assert not glob.glob(fresh.snapshot + "*")
    fresh.answers()
    assert os.path.getsize(fresh.snapshot) > 1 << 20


def test_it_is_made_anew(fresh: Installation) -> None:
    """After an update, in the place of the old one."""
    fresh.answers()
    old = os.stat(fresh.snapshot).st_ino
    os.utime(os.path.join(fresh.package, "hot.bin"))
    fresh.answers()
    assert os.stat(fresh.snapshot).st_ino != old
    fresh.break_python()
    fresh.answers()


def test_one_that_does_not_come_up_is_nobodys(fresh: Installation) -> None:
    """What cannot be made, or does not work when it is tried, is remembered for a while, and Python just starts."""
    tries = os.path.join(fresh.root + "-tries")
    with open(os.path.join(fresh.package, "boot.py"), encoding="ascii") as stream:
        boot = stream.read()
    with open(os.path.join(fresh.package, "boot.py"), "w", encoding="ascii") as stream:
        stream.write(
            f"import sys\nif '--snapshot' in sys.argv:\n    open({tries!r}, 'a').write('.')\n    sys.exit(3)\n{boot}"
        )
    for _ in range(3):
        fresh.answers()
    assert os.path.getsize(tries) == 1
    # Ten minutes later.
    past = os.stat(fresh.snapshot).st_mtime - 601
    os.utime(fresh.snapshot, (past, past))
    fresh.answers()
    assert os.path.getsize(tries) == 2


@pytest.mark.slow
def test_many_first_calls_at_once(fresh: Installation) -> None:
    """One makes it, the others do not wait; nothing is left beside it."""
    with ThreadPoolExecutor(20) as pool:
        for result in pool.map(lambda _: fresh.ask(), range(20)):
            result.fails("container does not exist", status=255)
    assert glob.glob(fresh.snapshot + "*") == [fresh.snapshot]
    fresh.break_python()
    fresh.answers()


def test_ignored_sigchld_does_not_matter(fresh: Installation) -> None:
    """Whoever calls us so would take the maker's status from us."""
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        argv = [fresh.command, "--root", fresh.root, "exec", "nobody", "true"]
        subprocess.run(argv, stderr=subprocess.DEVNULL, env={}, check=False, timeout=30)
    finally:
        signal.signal(signal.SIGCHLD, old)
    fresh.break_python()
    fresh.answers()


LOOK = """
import json, os, signal, sys
print(json.dumps({
    "argv": sys.argv, "environment": sorted(os.environ.items()), "directory": os.getcwd(), "umask": os.umask(0),
    "pipe": signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, "group": os.getpgrp() == os.getsid(0),
    "descriptors": sorted(os.listdir("/proc/self/fd"), key=int)[:-1],
    "caught": [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigCgt", "SigIgn"))],
}))
"""


def test_the_process_is_the_callers(fresh: Installation, scratch: str) -> None:
    """What the kernel and Python know of the process is the same, whichever way it started."""
    with open(os.path.join(fresh.package, "reports/features.py"), "w", encoding="ascii") as stream:
        stream.write(f"def render():\n    exec({LOOK!r}, dict())\n    return ''\n")
    fresh.answers()
    script = f'umask 027; cd {scratch}; trap "" USR1; exec "$@" 7</dev/null'
    argv = ["sh", "-c", script, "sh", fresh.command, "--root", fresh.root, "features"]
    seen = []
    for wish in ("1", "0"):
        result = support.run(*argv, env={"PYRUNC_SNAPSHOT": wish, "A": "b=c", "PATH": "/bin:/usr/bin"}).ok()
        seen.append(json.loads(result.out.splitlines()[0].replace(f'SNAPSHOT", "{wish}"', 'SNAPSHOT", "?"')))
    # Python without a locale makes one of its own; nobody else is told.
    assert seen[0] == {
        **seen[1],
        "environment": [pair for pair in seen[1]["environment"] if pair[0] != "LC_CTYPE"],
    }
    assert seen[0]["umask"] == 0o027
    assert seen[0]["directory"] == scratch


def test_a_life_is_the_same(container: ContainerFactory, bundle: BundleFactory) -> None:
    """create, exec, run and a refusal, with and without: the same output, status and files."""
    told = []
    for wish in ("1", "0"):
        one = container(
            bundle("probe").probe("pause"),
            name=f"{support.ID_PREFIX}snapshot",
            command=["/usr/bin/env", "-i", f"PYRUNC_SNAPSHOT={wish}", support.PYRUNC],
        )
        answers = [one.create(), one.exec("/bin/probe", "exit", "3"), one.start()]
        one.expect("ready")
        answers += [
            one.exec("/bin/probe", "exit", "3"),
            one.exec("/bin/nothing"),
            one.create(),
            one.kill("KILL"),
        ]
        files = sorted(os.listdir(os.path.join(one.root, one.id)))
        one.wait()
        answers.append(one.delete())
        told.append(([(answer.status, answer.out, answer.err) for answer in answers], files))
        one.clean_up()
    assert told[0] == told[1]
    assert [status for status, _, _ in told[0][0]] == [0, 3, 0, 3, 255, 1, 0, 0]

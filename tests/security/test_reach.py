"""The container looks through /proc while the runtime comes in, and has its own images and descriptors run.

CVE-2016-9962, CVE-2019-5736, CVE-2024-21626: nothing of the host is reachable by /proc/PID/{root,cwd,fd,exe,mem,...}
of what exec starts, and no name of a descriptor leads out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import rounds
import support
from callers import LEAKED, leaking
from security.scene import HOSTS, Outside, hostile

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

EXECS = 20


@pytest.fixture
def outside(scratch: str) -> Iterator[Outside]:
    made = Outside(scratch)
    yield made
    made.check()


def programs() -> list[tuple[int, bytes]]:
    """What of the host a container might overwrite."""
    found = []
    for path in (support.PYRUNC, os.path.realpath(support.PYTHON), os.path.join(support.PACKAGE, "init")):
        with open(path, "rb") as stream:
            found.append((os.stat(path).st_mtime_ns, stream.read()))
    return found


def met(one: Container) -> int:
    with open(os.path.join(one.bundle.rootfs, "met"), encoding="ascii") as stream:
        return int(stream.read() or 0)


@pytest.mark.parametrize(
    "words", [["/bin/probe", "echo", "well"], ["/script"], ["/link"]], ids=["plain", "script", "link"]
)
def test_what_comes_in_by_exec(
    container: ContainerFactory,
    bundle: BundleFactory,
    outside: Outside,
    tmp_path: pathlib.Path,
    words: list[str],
) -> None:
    """Root in the container, with the default capabilities, opens all that it can of every process that shows up."""
    target = bundle("probe")
    path = os.path.join(target.rootfs, "script")
    with open(path, "w", encoding="ascii") as stream:
        stream.write("#!/proc/self/exe\n")
    os.chmod(path, 0o755)
    os.symlink("/proc/self/exe", os.path.join(target.rootfs, "link"))
    before = programs()
    one = container(hostile(target, tmp_path, "reach", os.path.join(outside.path, "file"), "/met")).up()
    one.expect("ready")
    one.command = ["env", "HOST_SECRET=of the caller", *one.command]
    for _ in rounds.loop(EXECS):
        result = one.exec(*words)
        assert (result.status == 0) == (words[0] == "/bin/probe"), result
        assert "unexpected" not in result.err, result
    assert met(one) > 0 or words[0] != "/bin/probe"
    assert one.kill().status == 0
    lines = one.output().splitlines()
    if words[0] != "/bin/probe":
        # init once more, as a program of the container's own: its memory is nobody's secret
        lines = [line for line in lines if not line.startswith("OUT mem ")]
    assert lines == []
    assert programs() == before


def test_what_comes_in_by_mounts_add(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, tmp_path: pathlib.Path
) -> None:
    """The same while a proc is mounted, for which the runtime enters the pid namespace."""
    target = hostile(bundle("probe"), tmp_path, "reach", os.path.join(outside.path, "file"), "/met")
    one = container(target).up()
    one.expect("ready")
    mounts = '[{"destination": "/tmp/p", "type": "proc", "source": "proc"}]'
    for _ in rounds.loop(EXECS):
        for what in ("add", "remove"):
            one.pyrunc("mounts", what, one.id, "-", stdin=mounts).ok()
    assert one.kill().status == 0
    assert one.output() == ""


# --- Descriptors ------------------------------------------------------------------------------------------------------

NUMBERS = (*range(3, 24), 100, 101, 102)


def names(fd: int) -> list[str]:
    """How an image may name what a descriptor leads to."""
    return [f"/proc/self/fd/{fd}", f"/proc/1/fd/{fd}", f"/proc/thread-self/fd/{fd}", f"/dev/fd/{fd}"]


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_programs_named_by_descriptors(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, verb: str
) -> None:
    """argv[0] below a descriptor: the caller leaks the host's root directory and a file, and nothing of it is run."""
    chance = rounds.chance()
    one = container(bundle("probe").probe("pause"))
    if verb == "exec":
        one.up()
    leaking(one, LEAKED)
    tried = [
        f"{name}{rest}" for fd in NUMBERS for name in names(fd) for rest in ("", "/bin/sh", "/usr/bin/env")
    ]
    count = min(len(tried), rounds.rounds(20))
    for program in chance.sample(tried, count):
        if verb == "exec":
            result = one.exec(program, "-c", f"echo {HOSTS}")
        else:
            one.bundle.args(program, "-c", f"echo {HOSTS}").write()
            result = one.run()
        assert result.status == (255 if verb == "exec" else 1), (program, result)
        assert HOSTS not in result.out, (program, result)
        assert "unexpected" not in result.err, (program, result)
    rounds.record(count, 0)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["host", "user"])
def test_what_init_looks_up_by_names_of_the_image(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, space: str
) -> None:
    """A link of the image that leads through a descriptor of init reaches no file of the host: /etc/passwd, argv[0]."""
    with subprocess.Popen(["sleep", "600"], cwd="/") as process:
        try:
            for number in rounds.loop(6):
                root = f"/proc/self/fd/{number + 3}/{process.pid}/root"
                target = bundle("probe").probe("env")
                if space == "user":
                    target.namespace("user")
                    for key in ("uidMappings", "gidMappings"):
                        target.list_of("linux", key).append({"containerID": 0, "hostID": 0, "size": 65536})
                for kind in ("bounding", "effective", "permitted"):
                    target.list_of("process", "capabilities", kind).append("CAP_SYS_PTRACE")
                target.mapping("process")["env"] = ["PATH=/bin"]
                passwd = os.path.join(target.rootfs, "etc/passwd")
                os.unlink(passwd)
                os.symlink(f"{root}{outside.path}/passwd", passwd)
                assert container(target).run().ok().facts().all("env")[-1] == "HOME=/"
                target.args(f"{root}{outside.path}/passwd").write()
                result = container(target).run().fails("$.process.args[0]")
                assert result.err.endswith((": no such file or directory\n", ": not a directory\n")), result
        finally:
            process.kill()


@pytest.mark.parametrize("verb", ["run", "exec", "user"])
def test_directories_named_by_descriptors(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, verb: str
) -> None:
    """The working directory, for root and for an ordinary user, by every name that a descriptor has."""
    chance = rounds.chance()
    one = container(bundle("probe").probe("pause"))
    if verb != "run":
        one.up()
    leaking(one, LEAKED)
    shutil.rmtree(os.path.join(one.bundle.rootfs, "work"), ignore_errors=True)
    tried = [
        f"{name}{rest}"
        for fd in NUMBERS
        for name in names(fd)
        for rest in ("", "/..", "/tmp", "/proc/self/cwd")
    ]
    count = min(len(tried), rounds.rounds(20))
    for cwd in chance.sample(tried, count):
        if verb == "run":
            one.bundle.mapping("process")["cwd"] = cwd
            one.bundle.probe("cwd", "--", "ls", ".").write()
            result = one.run()
        else:
            user = ["--user", "1000"] if verb == "user" else []
            result = one.exec("/bin/probe", "cwd", "--", "ls", ".", options=["--cwd", cwd, *user])
        assert result.status == (1 if verb == "run" else 255), (cwd, result)
        assert result.out == "", (cwd, result)
        assert "unexpected" not in result.err, (cwd, result)
    rounds.record(count, 0)


@pytest.mark.parametrize("verb", ["create", "exec"])
def test_nothing_of_the_caller_is_inherited(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, verb: str
) -> None:
    """Whatever numbers a caller leaks, the program has its three."""
    chance = rounds.chance()
    one = container(bundle("probe").probe("pause"))
    if verb == "exec":
        one.up()
    plain = one.command
    for _ in rounds.loop(8):
        leaked = sorted(chance.sample(range(3, 99), chance.randrange(1, 20)))
        one.command = plain
        leaking(one, leaked)
        if verb == "exec":
            result = one.exec("/bin/probe", "fds")
        else:
            one.bundle.probe("fds").write()
            result = one.run()
        assert result.status == 0, (leaked, result)
        open_ones = {int(value.split()[0]) for value in result.facts().all("fd")}
        assert open_ones <= {0, 1, 2}, (leaked, result.out)

"""Hostile images, configurations, hooks and neighbours: the attacks that runtimes have fallen to.

Whatever a container is given, nothing of the host changes: `outside` is a directory that no link may lead to.
"""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import support
from callers import LEAKED, leaking
from terminals import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root


def snapshot(directory: str) -> dict[str, tuple[int, int, int, bytes]]:
    """Every file below: mode, owner, device and content."""
    found = {}
    for path, names, files in os.walk(directory):
        for name in (*names, *files):
            full = os.path.join(path, name)
            facts = os.lstat(full)
            content = pathlib.Path(full).read_bytes() if stat.S_ISREG(facts.st_mode) else b""
            found[full] = (facts.st_mode, facts.st_uid, facts.st_dev, content)
    return found


@pytest.fixture
def outside(scratch: str) -> Iterator[str]:
    """A directory of the host beside the bundle; at the end nothing in it has changed."""
    path = os.path.join(scratch, "outside")
    os.makedirs(os.path.join(path, "directory"))
    for name in ("file", "directory/file"):
        with open(os.path.join(path, name), "w", encoding="ascii") as stream:
            stream.write("of the host")
    before = snapshot(path)
    yield path
    assert snapshot(path) == before
    assert support.mounts_below(path) == []


def replace(bundle: Bundle, name: str, target: str) -> None:
    """Make `name` of the image a link to `target`."""
    path = os.path.join(bundle.rootfs, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.isdir(path) and not os.path.islink(path):
        os.rename(path, f"{path}.was")
    elif os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)


def up_above(path: str) -> str:
    return "../" * 20 + path.lstrip("/")


# How a link may try to name a file of the host.
LINKS: dict[str, Callable[[str], str]] = {
    "absolute": lambda path: path,
    "relative": up_above,
    "proc-self-root": lambda path: f"/proc/self/root{path}",
    "proc-self-fd": lambda path: f"/proc/self/fd/3/..{path}",
    "proc-self-cwd": lambda path: f"/proc/self/cwd/{up_above(path)}",
}


def outcome(one: Container) -> support.Result:
    """Run the container; it may be refused, in words and leaving nothing, or work."""
    result = one.run(timeout=20)
    assert result.status in (0, 1), result
    assert "unexpected" not in result.err, result
    assert (result.err == "") == (result.status == 0), result
    assert os.listdir(one.root) == [] if os.path.isdir(one.root) else True
    return result


# --- Links in the image -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("place", ["directory", "directory/new", "new/deeper", "file"])
@pytest.mark.parametrize("component", ["last", "middle"])
def test_mount_targets_that_are_links(
    container: ContainerFactory,
    bundle: BundleFactory,
    outside: str,
    scratch: str,
    kind: str,
    place: str,
    component: str,
) -> None:
    """CVE-2021-30465, CVE-2019-18837, CVE-2024-45310: made and mounted inside the image, or refused."""
    target = bundle("probe").probe("cat", "/proc/self/mountinfo")
    replace(target, "link", LINKS[kind](os.path.join(outside, place)))
    destination = "/link" if component == "last" else "/link/below/this"
    source = os.path.join(scratch, "volume")
    if place == "file":
        with open(source, "w", encoding="ascii") as stream:
            stream.write("volume")
    else:
        os.mkdir(source)
    target.mount(destination, "bind", source, "bind", "ro")
    target.mount(destination if place != "file" else "/tmp", "tmpfs", "tmpfs", "nosuid")
    result = outcome(container(target))
    # Plain links have a meaning inside the image, where they lead to a path of the same name; magic ones have none.
    if kind in ("absolute", "relative") and (place, component) != ("file", "middle"):
        points = [line.split()[4] for line in result.ok().out.splitlines()]
        assert any(point.startswith(os.path.join(outside, place)) for point in points), points


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_that_are_links(
    container: ContainerFactory, bundle: BundleFactory, outside: str, name: str, kind: str
) -> None:
    """CVE-2019-19921, CVE-2023-27561: never followed."""
    target = bundle("probe").probe("ids")
    if not any(
        isinstance(item, dict) and item["destination"] == "/sys" for item in target.list_of("mounts")
    ):
        target.mount("/sys", "sysfs", "sysfs", "ro")
    replace(target, name, LINKS[kind](os.path.join(outside, "directory")))
    assert outcome(container(target)).status == 1


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("mounted", [True, False], ids=["tmpfs", "image"])
def test_dev_that_is_a_link(
    container: ContainerFactory, bundle: BundleFactory, outside: str, kind: str, mounted: bool
) -> None:
    """CVE-2026-41579, CVE-2026-47766: no node and no link is made outside."""
    target = bundle("probe").probe("ids")
    if not mounted:
        mounts = target.list_of("mounts")
        mounts[:] = [
            item
            for item in mounts
            if isinstance(item, dict) and not str(item["destination"]).startswith("/dev")
        ]
    replace(target, "dev", LINKS[kind](os.path.join(outside, "directory")))
    outcome(container(target))


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("node", ["null", "console", "ptmx", "fd", "full"])
def test_device_nodes_that_are_links(
    container: ContainerFactory, bundle: BundleFactory, outside: str, kind: str, node: str
) -> None:
    """Without a tmpfs at /dev the image's own names stand where nodes are to be made (CVE-2025-52565)."""
    target = bundle("probe").probe("ids")
    mounts = target.list_of("mounts")
    mounts[:] = [
        item for item in mounts if isinstance(item, dict) and not str(item["destination"]).startswith("/dev")
    ]
    replace(target, f"dev/{node}", LINKS[kind](os.path.join(outside, "file")))
    outcome(container(target))


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("node", ["console", "ptmx", "pts", "pts/0"])
def test_a_terminal_on_links(
    container: ContainerFactory, bundle: BundleFactory, outside: str, kind: str, node: str
) -> None:
    """CVE-2025-52565: what the image has at /dev/console and /dev/pts does not lead the terminal anywhere."""
    target = bundle("probe").probe("tty")
    target.mapping("process")["terminal"] = True
    mounts = target.list_of("mounts")
    mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != "/dev"]
    if node.startswith("pts"):
        mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != "/dev/pts"]
    replace(
        target, f"dev/{node}", LINKS[kind](os.path.join(outside, "file" if node != "pts" else "directory"))
    )
    one = container(target)
    with Screen([*one.command, "run", "--bundle", target.write().path, one.id]) as screen:
        status = screen.wait()
    assert status in (0, 1)
    assert os.listdir(one.root) == [] if os.path.isdir(one.root) else True


@pytest.mark.parametrize("replacement", ["link", "file", "directory"])
def test_masks_do_not_come_from_the_image(
    container: ContainerFactory, bundle: BundleFactory, outside: str, replacement: str
) -> None:
    """CVE-2025-31133: what stands for /dev/null in the image is nobody's business; the mask holds."""
    target = bundle("probe").probe("cat", "/secret", "--", "echo", "end")
    mounts = target.list_of("mounts")
    mounts[:] = [
        item for item in mounts if isinstance(item, dict) and not str(item["destination"]).startswith("/dev")
    ]
    with open(os.path.join(target.rootfs, "secret"), "w", encoding="ascii") as stream:
        stream.write("secret")
    null = os.path.join(target.rootfs, "dev/null")
    if replacement == "link":
        os.symlink(os.path.join(outside, "file"), null)
    elif replacement == "directory":
        os.mkdir(null)
    else:
        with open(null, "w", encoding="ascii") as stream:
            stream.write("an image's")
    target.list_of("linux", "maskedPaths").append("/secret")
    result = outcome(container(target))
    if result.status == 0:
        assert "secret" not in result.out
        assert result.out.endswith("end\n")


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
@pytest.mark.parametrize("kind", LINKS)
def test_masked_paths_that_are_links(
    container: ContainerFactory, bundle: BundleFactory, outside: str, key: str, kind: str
) -> None:
    target = bundle("probe").probe("ids")
    replace(target, "masked", LINKS[kind](outside))
    target.list_of("linux", key).extend(["/masked/file", "/masked/directory", "/masked"])
    outcome(container(target))


@pytest.mark.parametrize("kind", LINKS)
def test_a_copied_up_tmpfs(
    container: ContainerFactory, bundle: BundleFactory, outside: str, kind: str
) -> None:
    """What is copied is the image's: a link is copied as a link, and what it leads to is not read."""
    target = bundle("probe").probe("ls", "/data", "--", "cat", "/data/stolen")
    replace(target, "data/stolen", LINKS[kind](os.path.join(outside, "file")))
    target.mount("/data", "tmpfs", "tmpfs", "tmpcopyup")
    assert "of the host" not in container(target).run().out


def test_a_root_that_is_a_link(container: ContainerFactory, bundle: BundleFactory, outside: str) -> None:
    """The bundle is the caller's: its link is followed, once, and only the image behind it is used."""
    target = bundle("probe").probe("ls", "/")
    os.rename(target.rootfs, f"{target.rootfs}.real")
    os.symlink("rootfs.real", target.rootfs)
    assert "bin" in container(target).run().ok().facts().all("entry")
    os.unlink(target.rootfs)
    os.symlink(os.path.join(outside, "file"), target.rootfs)
    container(target).run().fails("is no directory")


# --- Working directory and program ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_cwd_in_a_leaked_descriptor(
    container: ContainerFactory, bundle: BundleFactory, outside: str, verb: str
) -> None:
    """CVE-2024-21626: the caller leaks host directories, and the image's cwd names them."""
    one = container(bundle("probe").probe("pause"))
    if verb == "exec":
        one.up()
    leaking(one, LEAKED)
    for fd in (*range(3, 24), 100, 101, 102):
        for cwd in (f"/proc/self/fd/{fd}", f"/proc/self/fd/{fd}/tmp", f"/link{fd}"):
            if not cwd.startswith("/proc"):
                replace(one.bundle, f"link{fd}", f"/proc/self/fd/{fd}")
            if verb == "exec":
                result = one.exec("/bin/probe", "cwd", "--", "ls", ".", options=["--cwd", cwd])
                assert result.status == 255, (cwd, result)
            else:
                one.bundle.mapping("process")["cwd"] = cwd
                one.bundle.probe("cwd", "--", "ls", ".").write()
                result = one.run()
                assert result.status == 1, (cwd, result)
            assert "work" in result.err or "cwd" in result.err, result
            assert result.out == ""


@pytest.mark.parametrize("kind", ["script", "link", "fd"])
def test_a_program_that_is_the_runtimes(
    container: ContainerFactory, bundle: BundleFactory, kind: str
) -> None:
    """CVE-2019-5736: executing /proc/self/exe gives init again, which wants its arguments, and ends."""
    target = bundle("probe").args("/evil")
    path = os.path.join(target.rootfs, "evil")
    if kind == "script":
        with open(path, "w", encoding="ascii") as stream:
            stream.write("#!/proc/self/exe\n")
        os.chmod(path, 0o755)
    else:
        os.symlink("/proc/self/exe" if kind == "link" else "/proc/self/fd/3", path)
    programs = [support.PYRUNC, os.path.join(support.PACKAGE, "init")]
    before = [os.stat(program) for program in programs]
    one = container(target)
    assert one.run(timeout=20).status != 0
    one.bundle.probe("pause").write()
    assert one.up().exec("/evil").status != 0
    assert [os.stat(program).st_mtime_ns for program in programs] == [facts.st_mtime_ns for facts in before]


@pytest.mark.slow
def test_a_container_that_writes_to_every_program(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """CVE-2019-5736, CVE-2016-9962: while exec comes in, all in /proc is opened for writing and looked into."""
    script = (
        "while :; do for one in /proc/[0-9]*; do { true >$one/exe; echo evil >$one/mem; ls -l $one/fd; } 2>/dev/null;"
        " done; done >/dev/null"
    )
    programs = [support.PYRUNC, os.path.realpath(support.PYTHON), os.path.join(support.PACKAGE, "init")]
    before = [snapshot_file(program) for program in programs]
    one = container(bundle("busybox", "sh", "-c", script)).up()
    deadline = time.monotonic() + 2
    rounds = 0
    while time.monotonic() < deadline:
        assert one.exec("/bin/busybox", "echo", "well").ok().out == "well\n"
        rounds += 1
    assert rounds > 3
    assert [snapshot_file(program) for program in programs] == before
    assert one.status() == "running"


def snapshot_file(path: str) -> tuple[int, bytes]:
    with open(path, "rb") as stream:
        return os.stat(path).st_mtime_ns, stream.read()


@pytest.mark.parametrize("shape", ["fifo", "directory", "sparse", "long-line", "device", "loop", "host"])
def test_a_passwd_that_is_none(
    container: ContainerFactory, bundle: BundleFactory, outside: str, shape: str
) -> None:
    """HOME is looked up in the image's file, whatever that is: in no time, and only there."""
    target = bundle("probe").probe("env")
    path = os.path.join(target.rootfs, "etc/passwd")
    os.unlink(path)
    if shape == "fifo":
        os.mkfifo(path)
    elif shape == "directory":
        os.mkdir(path)
    elif shape == "device":
        os.symlink("/dev/zero", path)
    elif shape == "loop":
        os.symlink("passwd", path)
    elif shape == "host":
        os.symlink("/proc/1/root/etc/passwd", path)
    else:
        with open(path, "wb") as stream:
            stream.write(b"x" * (1 << 20) if shape == "long-line" else b"")
            stream.truncate(1 << 34 if shape == "sparse" else 1 << 20)
    began = time.monotonic()
    facts = container(target).run(timeout=20).ok().facts()
    assert "HOME=/" in facts.all("env")
    assert time.monotonic() - began < 5


def test_capabilities_given_by_exec_are_not_inheritable(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """CVE-2022-29162: a file with inheritable capabilities must not gain from --cap."""
    one = container(bundle("probe").probe("pause")).up()
    facts = one.exec("/bin/probe", "caps", options=["--cap", "CAP_NET_ADMIN"]).ok().facts()
    assert facts.capabilities("bounding") >> 12 & 1
    assert facts.capabilities("inheritable") == 0


# --- Configurations ---------------------------------------------------------------------------------------------------


def hostile_documents(text: str) -> dict[str, bytes]:
    """A good configuration made bad in ways a parser may not survive."""
    return {
        "empty": b"",
        "nul": text.encode() + b"\0",
        "nul inside": text.replace("pyrunc", "py\0runc").encode(),
        "cut": text.encode()[:-20],
        "deep arrays": text.replace(
            "{", '{"annotations": ' + "[" * 100_000 + "]" * 100_000 + ",", 1
        ).encode(),
        "deep objects": text.replace(
            "{", '{"x": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + ",", 1
        ).encode(),
        "open arrays": b"[" * 1_000_000,
        "huge number": text.replace('"uid": 0', '"uid": 1' + "0" * 5000).encode(),
        "huge exponent": text.replace('"uid": 0', '"uid": 1e999999999').encode(),
        "negative": text.replace('"uid": 0', '"uid": -1').encode(),
        "fraction": text.replace('"uid": 0', '"uid": 0.5').encode(),
        "not a number": text.replace('"uid": 0', '"uid": NaN').encode(),
        "above 32 bits": text.replace('"uid": 0', '"uid": 4294967296').encode(),
        "latin": text.replace("pyrunc", "p\xfcrunc").encode("latin-1"),
        "twice": text.replace("{", '{"process": {},', 1).encode(),
        "null argument": text.replace('"/bin/probe"', '"/bin/probe\\u0000x"').encode(),
        "null mount": text.replace('"/dev/pts"', '"/dev/pts\\u0000/.."').encode(),
        "half a character": text.replace('"/bin/probe"', '"/bin/probe\\ud800"').encode(),
        "no object": b'"text"',
        "megabytes": text.replace('"/bin/probe"', '"' + "x" * 8_000_000 + '"').encode(),
    }


def test_hostile_configurations(container: ContainerFactory, bundle: BundleFactory) -> None:
    """One line says what is wrong, quickly, and nothing is made."""
    target = bundle("probe").probe("ids").write()
    path = os.path.join(target.path, "config.json")
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    one = container(target)
    for name, document in hostile_documents(text).items():
        assert document != text.encode(), name
        with open(path, "wb") as stream:
            stream.write(document)
        result = one.pyrunc("run", "--bundle", target.path, one.id, timeout=20)
        assert result.status == 1, (name, result.err[:300])
        assert result.out == "", name
        first, _, rest = result.err.partition("\n")
        assert first.startswith("pyrunc: run: "), (name, result.err[:300])
        assert "unexpected" not in first, (name, first[:300])
        assert "Traceback" not in rest, (name, rest[:300])
        assert len(result.err) < 20_000, (name, len(result.err))
        assert os.listdir(one.root) == [] if os.path.isdir(one.root) else True


# --- Hooks ------------------------------------------------------------------------------------------------------------

NOISE = "head -c 5000000 /dev/urandom; head -c 5000000 /dev/urandom >&2; "


@pytest.mark.parametrize(
    "kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_hooks_that_print_megabytes(container: ContainerFactory, bundle: BundleFactory, kind: str) -> None:
    """Of a failed one the report is short and stays text; one that works is not in the way."""
    target = bundle("probe").probe("echo", "worked")
    target.spec["ociVersion"] = "1.3.0"  # up to 1.2 a failing poststart is a warning
    for status in (0, 1):
        target.mapping("hooks")[kind] = [{"path": "/bin/sh", "args": ["sh", "-c", f"{NOISE} exit {status}"]}]
        one = container(target)
        log = f"{one.error_file}.log"
        plain = one.command
        one.command = [*plain, "--log", log, "--log-format", "json"]
        result = one.run(timeout=30)
        one.command = plain
        if status == 0:
            assert result.ok().out == "worked\n"
            continue
        result.fails(f"{kind} hook #0 '/bin/sh': exit status 1")
        assert len(result.err) < 20_000
        with open(log, "rb") as stream:
            lines = stream.read().splitlines()
        assert [json.loads(line)["level"] for line in lines] == ["error"]
        assert os.listdir(one.root) == []


# --- Neighbours -------------------------------------------------------------------------------------------------------

# swap DIRECTORY LINK: exchange the two names as fast as possible. renameat2(2) RENAME_EXCHANGE.
SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
one, two = (word.encode() for word in sys.argv[1:])
print("ready", flush=True)
while True:
    libc.renameat2(-100, one, -100, two, 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["absolute", "relative", "proc-self-root"])
def test_a_neighbour_that_swaps_a_directory_for_a_link(
    container: ContainerFactory, bundle: BundleFactory, outside: str, scratch: str, kind: str
) -> None:
    """CVE-2021-30465, CVE-2024-45310: a volume that is shared with somebody who changes it while we mount into it."""
    volume = os.path.join(scratch, "volume")
    os.makedirs(os.path.join(volume, "a"))
    os.symlink(LINKS[kind](outside), os.path.join(volume, "b"))
    source = os.path.join(scratch, "source")
    os.mkdir(source)
    target = bundle("probe").probe("ids").mount("/volume", "bind", volume, "rbind")
    target.mount("/volume/a/directory", "tmpfs", "tmpfs")
    target.mount("/volume/a/made/here", "bind", source, "bind")
    target.list_of("linux", "maskedPaths").append("/volume/a/file")
    target.list_of("linux", "readonlyPaths").append("/volume/a/directory")
    one = container(target)
    argv = [support.PYTHON, "-I", "-c", SWAP, os.path.join(volume, "a"), os.path.join(volume, "b")]
    swapper = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"ready\n"
        statuses = set()
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            statuses.add(outcome(one).status)
    finally:
        swapper.kill()
        swapper.communicate()
    assert statuses


@pytest.mark.slow
def test_a_neighbour_that_swaps_proc(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """CVE-2025-52881, CVE-2019-16884: /proc of the image comes and goes, and what is written below it stays inside."""
    fake = os.path.join(scratch, "fake")
    for name in ("sys/kernel/msgmax", "self/attr/exec", "thread-self/attr/exec", "self/oom_score_adj"):
        os.makedirs(os.path.join(fake, os.path.dirname(name)), exist_ok=True)
        with open(os.path.join(fake, name), "w", encoding="ascii") as stream:
            stream.write("fake")
    before = snapshot(fake)
    target = bundle("probe").probe("sysctl", "kernel.msgmax")
    target.mapping("linux")["sysctl"] = {"kernel.msgmax": "4321"}
    target.mapping("process")["oomScoreAdj"] = 77
    os.symlink(up_above(fake), os.path.join(target.rootfs, "link"))
    one = container(target)
    argv = [support.PYTHON, "-I", "-c", SWAP, f"{target.rootfs}/proc", f"{target.rootfs}/link"]
    swapper = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            result = one.run(timeout=20)
            # The program may find the link when it looks for /proc; it never finds another value.
            assert "4321" in result.out or result.status == 1, result
            assert "unexpected" not in result.err, result
            assert os.listdir(one.root) == []
    finally:
        swapper.kill()
        swapper.communicate()
    assert snapshot(fake) == before
    assert support.mounts_below(fake) == []


@pytest.mark.parametrize("place", ["/proc", "/proc/sys", "/proc/self/attr", "/proc/version"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_name_that_leads_into_proc(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, place: str, kind: str
) -> None:
    """CVE-2019-16884: the configuration is innocent, the image makes a volume cover what the kernel says."""
    target = bundle("probe").probe("ids")
    replace(target, "data", place)
    source = os.path.join(scratch, "volume")
    if place.endswith("version"):
        with open(source, "w", encoding="ascii"):
            pass
    else:
        os.mkdir(source)
    if kind == "bind":
        target.mount("/data", "none", source, "bind")
    else:
        target.mount("/data", "tmpfs", "tmpfs")
    result = outcome(container(target))
    assert result.status == 1
    assert "inside /proc" in result.err or (kind == "tmpfs" and place.endswith("version")), result


@pytest.mark.parametrize("name", ["directory", "tmpfs", "link"])
def test_a_proc_that_is_none(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, name: str
) -> None:
    """CVE-2019-16884, CVE-2023-28642: a volume does not stand for /proc, whatever files it has."""
    fake = os.path.join(scratch, "fake")
    os.makedirs(os.path.join(fake, "self/attr"))
    target = bundle("probe").probe("ids")
    mounts = target.list_of("mounts")
    mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != "/proc"]
    if name == "link":
        os.symlink(fake, f"{fake}.link")
    source = f"{fake}.link" if name == "link" else fake
    mounts.insert(
        0,
        {"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}
        if name == "tmpfs"
        else {"destination": "/proc", "type": "none", "source": source, "options": ["bind"]},
    )
    container(target).run().fails("$.mounts[0]", "proc")
    assert os.listdir(fake) == ["self"]


@pytest.mark.slow
def test_a_container_that_changes_while_exec_starts(
    container: ContainerFactory, bundle: BundleFactory, outside: str
) -> None:
    """Its root is its own: exec may fail or work, but what it sees and changes is the container's."""
    script = "while :; do ln -sfn /proc/1/root/etc /x; ln -sfn /tmp /x; ln -sfn ../../../.. /x; done"
    one = container(bundle("busybox", "sh", "-c", script)).up()
    deadline = time.monotonic() + 1.5
    worked = 0
    while time.monotonic() < deadline:
        result = one.exec("/bin/sh", "-c", "/bin/pwd; ls -d /bin/busybox", options=["--cwd", "/x"])
        if result.status == 0:
            worked += 1
            assert result.out.splitlines()[0] in ("/etc", "/tmp", "/"), result
        else:
            assert result.status == 255, result
            assert "unexpected" not in result.err, result
    assert worked

"""A neighbour exchanges names on a shared volume while the runtime works there, many thousand times a second.

CVE-2021-30465, CVE-2024-45310, CVE-2025-31133, CVE-2025-52565, CVE-2026-41579: what is looked up twice is swapped in
between. `/volume/a` is a directory or a file now and a link to the host's files then; nothing of the host may change or
be read.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

import rounds
from security.scene import LINKS, Outside, hostile, neighbour, outcome
from terminals import Screen

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from support import Json

pytestmark = pytest.mark.root

ROUNDS = 3


@pytest.fixture
def outside(scratch: str) -> Iterator[Outside]:
    made = Outside(scratch)
    yield made
    made.check()


@pytest.fixture
def volume(scratch: str, outside: Outside) -> str:
    """`a` is innocent, `links` has one link of each kind, `files` one each to a file of the host."""
    path = os.path.join(scratch, "volume")
    os.makedirs(os.path.join(path, "a/directory"))
    os.makedirs(os.path.join(path, "a/full/deeper"))
    for name in ("a/file", "a/full/file", "a/full/deeper/file", "f"):
        with open(os.path.join(path, name), "w", encoding="ascii") as stream:
            stream.write("of the volume")
    for kind in LINKS:
        os.symlink(outside.link(kind), os.path.join(path, f"link-{kind}"))
        os.symlink(outside.link(kind, "file"), os.path.join(path, f"file-{kind}"))
    return path


def others(start: str) -> list[str]:
    return [f"/volume/{start}-{kind}" for kind in LINKS]


def _mount(*mounts: tuple[str, str, str, list[str]]) -> list[Json]:
    return [
        {"destination": target, "type": kind, "source": source, "options": list(options)}
        for target, kind, source, options in mounts
    ]


# What is asked for at or below /volume/a, while that is swapped.
MOUNTS: dict[str, list[Json]] = {
    "tmpfs": _mount(("/volume/a/directory", "tmpfs", "tmpfs", ["nosuid"])),
    "tmpfs-mode": _mount(("/volume/a/directory", "tmpfs", "tmpfs", ["mode=0700"])),
    "made": _mount(("/volume/a/new/deeper", "tmpfs", "tmpfs", [])),
    "bind": _mount(("/volume/a/directory", "bind", "SOURCE", ["rbind", "ro"])),
    "bind-made": _mount(("/volume/a/new/deeper", "bind", "SOURCE", ["bind"])),
    "bind-file": _mount(("/volume/a/file", "bind", "SOURCE/file", ["bind"])),
    "bind-file-made": _mount(("/volume/a/new/file", "bind", "SOURCE/file", ["bind"])),
    "bind-nofollow": _mount(("/volume/a/directory", "bind", "SOURCE", ["bind", "dest-nofollow"])),
    "copy-symlink": _mount(("/volume/a/copy", "bind", "SOURCE/link", ["bind", "copy-symlink"])),
    "proc": _mount(("/volume/a/directory", "proc", "proc", [])),
    "sysfs": _mount(("/volume/a/directory", "sysfs", "sysfs", ["ro"])),
    "mqueue": _mount(("/volume/a/directory", "mqueue", "mqueue", [])),
    "devpts": _mount(("/volume/a/directory", "devpts", "devpts", ["newinstance"])),
    "cgroup": _mount(("/volume/a/directory", "cgroup", "cgroup", ["ro"])),
    "propagation": _mount(("/volume/a/directory", "tmpfs", "tmpfs", ["rslave"])),
    "copy-up": _mount(("/volume/a/full", "tmpfs", "tmpfs", ["tmpcopyup"])),
    "copy-up-all": _mount(("/volume/a", "tmpfs", "tmpfs", ["tmpcopyup"])),
    "twice": _mount(
        ("/volume/a/directory", "tmpfs", "tmpfs", []),
        ("/volume/a/directory/new", "bind", "SOURCE", ["bind"]),
    ),
}


def _with_source(mounts: list[Json], scratch: str) -> list[Json]:
    source = os.path.join(scratch, "source")
    if not os.path.isdir(source):
        os.mkdir(source)
        with open(os.path.join(source, "file"), "w", encoding="ascii") as stream:
            stream.write("of the source")
        os.symlink("file", os.path.join(source, "link"))
    done: list[Json] = json.loads(json.dumps(mounts).replace("SOURCE", source))
    return done


def victim(bundle: BundleFactory, volume: str) -> Bundle:
    """It shares the volume, and reads what it finds there."""
    reads = [
        f"/volume/a/{name}" for name in ("file", "directory/file", "full/file", "full/deeper/file", "copy")
    ]
    words = [word for path in reads for word in ("--", "cat", path)][1:]
    return bundle("probe").probe(*words).mount("/volume", "bind", volume, "rbind")


@pytest.mark.parametrize("kind", MOUNTS)
def test_mount_targets(
    container: ContainerFactory,
    bundle: BundleFactory,
    volume: str,
    scratch: str,
    tmp_path: pathlib.Path,
    kind: str,
) -> None:
    """Every kind of mount whose target goes through a name that is not what it was a moment ago."""
    target = victim(bundle, volume)
    target.list_of("mounts").extend(_with_source(MOUNTS[kind], scratch))
    one = container(target)
    neighbour(container, bundle, tmp_path, volume, "swap", "/volume/a", *others("link"))
    for _ in rounds.loop(ROUNDS):
        outcome(one)


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_masks(
    container: ContainerFactory,
    bundle: BundleFactory,
    volume: str,
    tmp_path: pathlib.Path,
    key: str,
) -> None:
    """A mask is laid on what was looked up, and comes from nothing that the volume has."""
    target = victim(bundle, volume)
    target.list_of("linux", key).extend(["/volume/a/file", "/volume/a/directory", "/volume/a", "/volume/f"])
    one = container(target)
    neighbour(container, bundle, tmp_path, volume, "swap", "/volume/a", *others("link"))
    neighbour(container, bundle, tmp_path, volume, "swap", "/volume/f", *others("file"))
    for _ in rounds.loop(ROUNDS):
        outcome(one)


@pytest.mark.parametrize("kind", ["c", "b", "p"])
def test_devices(
    container: ContainerFactory,
    bundle: BundleFactory,
    volume: str,
    tmp_path: pathlib.Path,
    kind: str,
) -> None:
    """No node of ours appears elsewhere, and no node or file of the host gets another owner or mode."""
    target = victim(bundle, volume)
    numbers: dict[str, Json] = {} if kind == "p" else {"major": 1, "minor": 3}
    for path in ("/volume/a/node", "/volume/a/file", "/volume/f", "/volume/a/new/node"):
        target.list_of("linux", "devices").append(
            {"path": path, "type": kind, "fileMode": 0o666, "uid": 7, "gid": 7, **numbers}
        )
    one = container(target)
    folder = os.open(os.path.join(volume, "a"), os.O_DIRECTORY)
    neighbour(container, bundle, tmp_path, volume, "swap", "/volume/a", *others("link"))
    neighbour(container, bundle, tmp_path, volume, "swap", "/volume/f", *others("file"))
    try:
        for _ in rounds.loop(ROUNDS):
            outcome(one)
            remove(folder, "node", "new/node")
    finally:
        os.close(folder)


def remove(folder: int, *names: str) -> None:
    """What was made there, by descriptor: the name of the folder is being swapped."""
    for name in names:
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass


def test_dev(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, tmp_path: pathlib.Path
) -> None:
    """/dev of the image itself comes and goes: nodes, links, console, and the pty of the terminal."""
    target = bundle("probe").probe("tty")
    target.mapping("process")["terminal"] = True
    mounts = target.list_of("mounts")
    mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != "/dev"]
    os.makedirs(os.path.join(target.rootfs, "dev"), exist_ok=True)
    for kind in LINKS:
        os.symlink(outside.link(kind, "directory"), os.path.join(target.rootfs, f"link-{kind}"))
    one = container(target)
    neighbour(container, bundle, tmp_path, target.rootfs, "swap", "/volume/dev", *others("link"))
    for _ in rounds.loop(ROUNDS):
        with Screen([*one.command, "run", "--bundle", target.path, one.id]) as screen:
            assert screen.wait() in (0, 1)
        assert not os.path.lexists(os.path.join(one.root, one.id))


@pytest.mark.slow
@pytest.mark.parametrize("node", ["console", "ptmx", "null", "pts", "fd"])
def test_names_below_dev(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, tmp_path: pathlib.Path, node: str
) -> None:
    """CVE-2025-52565: a single name of /dev is a file, a link to the host's file, a link to its directory in turn."""
    target = bundle("probe").probe("tty")
    target.mapping("process")["terminal"] = True
    mounts = target.list_of("mounts")
    mounts[:] = [item for item in mounts if isinstance(item, dict) and item["destination"] != "/dev"]
    dev = os.path.join(target.rootfs, "dev")
    os.makedirs(dev, exist_ok=True)
    with open(os.path.join(dev, "plain"), "w", encoding="ascii"):
        pass
    os.makedirs(os.path.join(dev, node) if node == "pts" else os.path.join(dev, "folder"))
    if node != "pts":
        with open(os.path.join(dev, node), "w", encoding="ascii"):
            pass
    for kind in LINKS:
        place = "directory" if node == "pts" else "file"
        os.symlink(outside.link(kind, place), os.path.join(dev, f"link-{kind}"))
    one = container(target)
    words = [f"/volume/dev/{name}" for name in (node, "plain", *(f"link-{kind}" for kind in LINKS))]
    neighbour(container, bundle, tmp_path, target.rootfs, "swap", *words)
    for _ in rounds.loop(ROUNDS):
        with Screen([*one.command, "run", "--bundle", target.path, one.id]) as screen:
            assert screen.wait() in (0, 1)
        assert not os.path.lexists(os.path.join(one.root, one.id))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a", "a/directory", "a/new"])
def test_cwd(
    container: ContainerFactory,
    bundle: BundleFactory,
    volume: str,
    tmp_path: pathlib.Path,
    place: str,
) -> None:
    """CVE-2024-21626: the working directory of create is inside, or there is none."""
    target = bundle("probe").probe("cwd", "--", "cat", "file").mount("/volume", "bind", volume, "rbind")
    target.mapping("process")["cwd"] = f"/volume/{place}"
    one = container(target)
    neighbour(container, bundle, tmp_path, volume, "swap", "/volume/a", *others("link"))
    for _ in rounds.loop(2 * ROUNDS):
        outcome(one)


def test_cwd_and_program_of_exec(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, tmp_path: pathlib.Path
) -> None:
    """The container swaps its own names while exec looks for its directory, its program and its passwd file."""
    target = bundle("probe")
    os.makedirs(os.path.join(target.rootfs, "place/bin"))
    shutil.copy(os.path.join(target.rootfs, "bin/probe"), os.path.join(target.rootfs, "place/bin/probe"))
    for kind in LINKS:
        os.symlink(outside.link(kind), os.path.join(target.rootfs, f"link-{kind}"))
    words = ["/place", *(f"/link-{kind}" for kind in LINKS)]
    one = container(hostile(target, tmp_path, "swap", *words)).up()
    one.expect("ready")
    for _ in rounds.loop(4 * ROUNDS):
        result = one.exec(
            "/place/bin/probe", "cwd", "--", "cat", "file", "--", "ls", "..", options=["--cwd", "/place"]
        )
        assert result.status in (0, 1, 255), result
        assert "unexpected" not in result.err, result
        assert "of the host" not in result.out, result
        assert outside.path not in result.out, result
    assert one.status() == "running"


ADDED = [
    "tmpfs",
    "made",
    "bind",
    "bind-made",
    "bind-file",
    "bind-file-made",
    "proc",
    "copy-up",
    "copy-symlink",
]


@pytest.mark.parametrize("kind", ADDED)
def test_mounts_add(
    container: ContainerFactory,
    bundle: BundleFactory,
    volume: str,
    scratch: str,
    tmp_path: pathlib.Path,
    kind: str,
) -> None:
    """The container that a mount is added to swaps the target itself; a target that is made is made inside."""
    target = hostile(bundle("probe"), tmp_path, "swap", "/volume/a", *others("link"))
    one = container(target.mount("/volume", "bind", volume, "rbind")).up()
    one.expect("ready")
    mounts = _with_source(MOUNTS[kind], scratch)
    for _ in rounds.loop(ROUNDS):
        result = one.pyrunc("mounts", "add", one.id, "-", stdin=json.dumps(mounts))
        assert result.status in (0, 1), result
        assert "unexpected" not in result.err, result
        if result.status == 0:
            _remove(one, mounts)
    assert one.status() == "running"


def _remove(one: Container, mounts: list[Json]) -> None:
    """What was added may by now be found under another name, or under none."""
    result = one.pyrunc("mounts", "remove", one.id, "-", stdin=json.dumps(mounts))
    assert result.status in (0, 1), result
    assert "unexpected" not in result.err, result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["proc", "sys", "etc"])
def test_the_root_itself(
    container: ContainerFactory, bundle: BundleFactory, outside: Outside, tmp_path: pathlib.Path, name: str
) -> None:
    """CVE-2019-16884, CVE-2023-27561, CVE-2025-52881: where the kernel's own files are to be, links come and go."""
    target = bundle("probe").probe("cat", "/etc/passwd", "--", "sysctl", "kernel.msgmax")
    target.mapping("linux")["sysctl"] = {"kernel.msgmax": "4321"}
    target.mapping("process")["oomScoreAdj"] = 77
    target.mount("/sys", "sysfs", "sysfs", "ro")
    os.makedirs(os.path.join(target.rootfs, name), exist_ok=True)
    for kind in LINKS:
        os.symlink(outside.link(kind, "directory"), os.path.join(target.rootfs, f"link-{kind}"))
    one = container(target)
    neighbour(container, bundle, tmp_path, target.rootfs, "swap", f"/volume/{name}", *others("link"))
    for _ in rounds.loop(2 * ROUNDS):
        outcome(one)
    with open("/proc/sys/kernel/msgmax", encoding="ascii") as stream:
        assert stream.read() != "4321\n"


@pytest.mark.slow
def test_targets_that_are_linked_anew(
    container: ContainerFactory, bundle: BundleFactory, volume: str, outside: Outside, tmp_path: pathlib.Path
) -> None:
    """A link that leads to a good place now and to the host then, on the way of everything at once."""
    target = victim(bundle, volume)
    os.symlink("a", os.path.join(volume, "link"))
    for mount in ("/volume/link/directory", "/volume/link/new"):
        target.mount(mount, "tmpfs", "tmpfs")
    target.list_of("linux", "maskedPaths").append("/volume/link/file")
    target.list_of("linux", "devices").append(
        {"path": "/volume/link/node", "type": "c", "major": 1, "minor": 3, "uid": 7, "gid": 7}
    )
    target.mapping("process")["cwd"] = "/volume/link"
    texts = ["a", *(outside.link(kind) for kind in LINKS)]
    one = container(target)
    neighbour(container, bundle, tmp_path, volume, "relink", "/volume/link", *texts)
    folder = os.open(os.path.join(volume, "a"), os.O_DIRECTORY)
    try:
        for _ in rounds.loop(2 * ROUNDS):
            outcome(one)
            remove(folder, "node")
    finally:
        os.close(folder)


@pytest.mark.slow
def test_what_is_undone_by_mount(
    container: ContainerFactory, bundle: BundleFactory, tmp_path: pathlib.Path
) -> None:
    """Parameters too long for fsconfig(2): what mount(2) made is what goes when the next mount fails, nothing else."""
    target = hostile(bundle("probe"), tmp_path, "swap", "/a", "/link").mount("/c/x", "tmpfs", "tmpfs")
    lower = [f"/low/{'y' * 60}{number}" for number in range(6)]
    for path in ("/a/x", "/c/x", *lower):
        os.makedirs(target.rootfs + path)
    os.symlink("c", os.path.join(target.rootfs, "link"))
    one = container(target).up()
    overlay = {"destination": "/a/x", "type": "overlay", "options": [f"lowerdir={':'.join(lower)}"]}
    failing = {"destination": "/q", "type": "no-such-type"}
    for _ in rounds.loop(40):
        result = one.pyrunc("mounts", "add", one.id, "-", stdin=json.dumps([overlay, failing]))
        assert result.status == 1, result
        with open(f"/proc/{one.pid}/mountinfo", encoding="utf-8") as stream:
            found = stream.read()
        assert " overlay " not in found
        assert found.count("/x rw") == 1

"""Directories of images that lead elsewhere, wait, or belong to somebody else: neither verb follows, waits, or trusts.

The CRIU is fake_criu.py, which does not look at images: what is refused is refused before.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING

import pytest

import fake_criu
from criu_scene import Scene, images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root


def put(path: str, kind: str, victim: str) -> None:
    """Something that is no file of ours where CRIU or we would open one."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "link":
        os.symlink(victim, path)
    elif kind == "dangling link":
        os.symlink(f"{victim}-2", path)
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)
    elif kind == "hard link":
        os.link(victim, path)
    else:
        raise ValueError(kind)


WORDS = {
    "fifo": "is a fifo and no file",
    "directory": "is a directory and no file",
    "link": "is a symbolic link and no file",
    "dangling link": "is a symbolic link and no file",
    "device": "is a device and no file",
    "socket": "is a socket and no file",
    "hard link": "has 2 names",
}


@pytest.fixture
def victim(scratch: str) -> Iterator[str]:
    """A file of the host that stays as it is."""
    path = os.path.join(scratch, "victim")
    with open(path, "w", encoding="ascii") as stream:
        stream.write("secret")
    yield path
    with open(path, encoding="ascii") as stream:
        assert stream.read() == "secret"
    assert not os.path.exists(f"{path}-2")


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("name", ["descriptors.json", "dump.log", "core-1.img", "stats-dump"])
def test_dumps_over_what_is_no_file(running: Scene, victim: str, kind: str, name: str) -> None:
    """It is never followed, truncated or waited for."""
    where = running.work if name in ("dump.log", "stats-dump") else running.image
    os.mkdir(where)
    put(os.path.join(where, name), kind, victim)
    running.saves(fake_criu.SAVED).fails(f"'{where}/{name}' {WORDS[kind]}", "hint: ")
    running.goes_on()
    assert "inventory.img" not in os.listdir(running.image)


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("name", ["descriptors.json", "core-1.img", "restore.log", "stats-restore"])
def test_restores_from_what_is_no_file(saved: Scene, victim: str, kind: str, name: str) -> None:
    """The same; a backup may have its files by several names, as nobody writes to them."""
    image = name in ("descriptors.json", "core-1.img")
    where = saved.image if image else saved.work
    os.makedirs(where, exist_ok=True)
    path = os.path.join(where, name)
    if os.path.exists(path):
        os.rename(path, f"{victim}.image")
    put(path, kind, f"{victim}.image" if image and kind == "hard link" else victim)
    result = saved.comes_back(fake_criu.RESTORED)
    if image and kind == "hard link":
        result.ok()
        saved.one.delete("--force").ok()
        saved.one.wait()
        return
    result.fails(f"'{where}/{name}' {WORDS[kind]}", "hint: ")
    saved.left_nothing()


def test_others_files_in_a_work_directory(running: Scene) -> None:
    """podman's has fifos and sockets of its own."""
    os.mkdir(running.work)
    for name in ("ctl", "winsz"):
        os.mkfifo(os.path.join(running.work, name))
    running.saves([("images",), ("answer", "DUMP", 1)], "--leave-running").ok()
    running.goes_on()


def given_away(path: str) -> None:
    """Owned by somebody else."""
    os.chown(path, 4242, 4242)


def shared(path: str) -> None:
    """Writable for everybody."""
    os.chmod(path, 0o1777)


def shared_with_a_group(path: str) -> None:
    """Writable for a group."""
    os.chown(path, 0, 4242)
    os.chmod(path, 0o770)


def shared_with_group_0(path: str) -> None:
    """Users may be in root's group."""
    os.chmod(path, 0o770)


def shared_by_an_acl(path: str) -> None:
    """One user more may write, and the group as little as before. acl(5), linux/posix_acl_xattr.h"""
    rows = [(1, 7, -1), (2, 7, 4242), (4, 5, -1), (0x10, 7, -1), (0x20, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in rows)
    os.setxattr(path, "system.posix_acl_access", acl)


def linked(path: str) -> None:
    """A link of somebody else's to a directory of ours."""
    os.rename(path, f"{path}-real")
    os.symlink(f"{path}-real", path)
    os.lchown(path, 4242, 4242)


OWNERS = [
    (given_away, "belongs to user 4242"),
    (shared, "others may write to the directory"),
    (shared_with_a_group, "others may write to the directory"),
    (shared_with_group_0, "others may write to the directory"),
    (shared_by_an_acl, "others may write to the directory"),
    (linked, "is a symbolic link of user 4242"),
]


@pytest.mark.parametrize(("change", "text"), OWNERS)
@pytest.mark.parametrize("which", ["image", "work"])
def test_directories_of_others(running: Scene, change: object, text: str, which: str) -> None:
    """Who may write to them could lead CRIU to any file."""
    path: str = getattr(running, which)
    os.mkdir(path)
    change(path)  # type: ignore[operator]
    running.saves(fake_criu.SAVED).fails(f"'{path}'", text)
    running.goes_on()


@pytest.mark.parametrize(("change", "text"), OWNERS)
@pytest.mark.parametrize("which", ["image", "work"])
def test_images_of_others(saved: Scene, change: object, text: str, which: str) -> None:
    """Who may write to them could run anything as root."""
    path: str = getattr(saved, which)
    os.makedirs(path, exist_ok=True)
    change(path)  # type: ignore[operator]
    saved.comes_back(fake_criu.RESTORED).fails(f"'{path}'", text)
    saved.left_nothing()


def test_links_of_our_own(running: Scene) -> None:
    """`latest` may be one."""
    os.mkdir(f"{running.image}-real")
    os.symlink(f"{running.image}-real", running.image)
    running.saves([("images",), ("answer", "DUMP", 1)], "--leave-running").ok()
    assert "inventory.img" in os.listdir(f"{running.image}-real")


def writable(path: str) -> None:
    """For everybody."""
    os.chmod(path, 0o666)


@pytest.mark.parametrize("change", [writable, shared_by_an_acl])
def test_an_image_that_others_may_write(saved: Scene, change: Callable[[str], None]) -> None:
    """In a directory of ours."""
    change(os.path.join(saved.image, "core-1.img"))
    saved.comes_back(fake_criu.RESTORED).fails("others may write to '", "core-1.img'")
    saved.left_nothing()


def test_an_image_of_somebody_else(saved: Scene) -> None:
    """In a directory of ours."""
    os.chown(os.path.join(saved.image, "core-1.img"), 4242, 4242)
    saved.comes_back(fake_criu.RESTORED).fails("core-1.img' belongs to user 4242")
    saved.left_nothing()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (".", "parent' leads back to images that build on it"),
        ("../older", "leads back to images that build on it"),
        ("core-1.img", "not a directory"),
        ("/dev/null", "not a directory"),
        ("../others", "belongs to user 4242"),
        ("../bad", "core-1.img' is a fifo and no file"),
    ],
)
def test_parents(saved: Scene, scratch: str, target: str, text: str) -> None:
    """CRIU goes from one to the next."""
    os.symlink(target, os.path.join(saved.image, "parent"))
    for name in ("older", "others", "bad"):
        images(os.path.join(scratch, name))
    os.symlink("../image", os.path.join(scratch, "older", "parent"))
    os.chown(os.path.join(scratch, "others"), 4242, 4242)
    os.unlink(os.path.join(scratch, "bad", "core-1.img"))
    os.mkfifo(os.path.join(scratch, "bad", "core-1.img"))
    saved.comes_back(fake_criu.RESTORED).fails(text)
    saved.left_nothing()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 60000, "is no list of descriptors"),
        (b'["' + b"x" * 5000 + b'"]', "no file has the name of one of them"),
        (b'["a\\u0000b"]', "no file has the name of one of them"),
        (b" " * 70000, "is no list of descriptors: it has more than 65536 bytes"),
        (b'["\xff"]', "is no JSON"),
        (b"", "is no JSON"),
        (b"[1e999999]", "is no list of descriptors"),
        (b"[" + b"9" * 5000 + b"]", "is no"),
    ],
    ids=["deep", "long", "NUL", "large", "no UTF-8", "empty", "number", "digits"],
)
def test_descriptors_that_are_none(saved: Scene, text: bytes, words: str) -> None:
    """Words for each of them."""
    with open(os.path.join(saved.image, "descriptors.json"), "wb") as stream:
        stream.write(text)
    saved.comes_back(fake_criu.RESTORED).fails("descriptors.json' ", words)
    saved.left_nothing()


def test_names_that_are_no_keys(saved: Scene) -> None:
    """Only what CRIU calls a pipe or a file from outside gets a stream of ours."""
    with open(os.path.join(saved.image, "descriptors.json"), "w", encoding="ascii") as stream:
        json.dump(["pipe:\ud800", "file[/etc/shadow]", "pipe:[1]\n"], stream)
    saved.comes_back(fake_criu.RESTORED).ok()
    saved.one.delete("--force").ok()
    saved.one.wait()

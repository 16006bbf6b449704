"""Root of a container tries to change the device nodes that it shares with the host: masks, bound devices, stdin.

The host is a private /dev of the test's own, as a success would change the null device of everybody here.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest

import faults
import support
from namespaces import mapped
from terminals import Screen

if TYPE_CHECKING:
    import pathlib

    from containers import Bundle, BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# $0 is a directory for the new /dev, "$@" the command. Everything but the time of the last access is compared.
_PREPARE = (
    "mount --make-rprivate /; mkdir -p $0; mount -t tmpfs -o mode=755 none $0; mkdir $0/pts $0/shm;"
    " for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 $0/${node%:*} c 1 ${node#*:}; done;"
    " mknod -m 666 $0/tty c 5 0; ln -s pts/ptmx $0/ptmx; ln -s /proc/self/fd $0/fd; mount --rbind /dev/pts $0/pts;"
    " look() { stat -c '%n %a %u %g %y %z' " + " ".join(f"/dev/{name}" for name in DEVICES) + "; };"
    " mount --move $0 /dev; look >$0/../before; "
)
_COMPARE = "; status=$?; look >$0/../after; cmp $0/../before $0/../after && exit $status; exit 99"
MASKED = ("/proc/timer_list", "/proc/keys")


def command(scratch: str, call: str = '"$@" </dev/null') -> list[str]:
    """pyrunc with a /dev of its own; the exit status is 99 when a node has changed."""
    return ["unshare", "--mount", "sh", "-c", _PREPARE + call + _COMPARE, f"{scratch}/dev", support.PYRUNC]


@pytest.fixture
def alter(tmp_path: pathlib.Path, bundle: BundleFactory) -> Bundle:
    """A bundle with the program that tries."""
    made = bundle("probe")
    shutil.copy(faults.program("alter", tmp_path), os.path.join(made.rootfs, "bin/alter"))
    return made


def answers(result: support.Result) -> dict[tuple[str, str], int]:
    return {
        (path, way): int(number)
        for path, way, number in (line.split() for line in result.ok().out.splitlines())
    }


def refused(found: dict[tuple[str, str], int], path: str) -> None:
    """Every change is refused, as the mount is read-only; what is written goes to the device."""
    ways = {way: error for (name, way), error in found.items() if name == path}
    assert ways.pop("write") == (
        errno.ENXIO if path == "/dev/tty" else errno.ENOSPC if path == "/dev/full" else 0
    )
    # There is no length to change.
    assert ways.pop("truncate") == errno.EINVAL
    assert set(ways.values()) == {errno.EROFS}, (path, ways)


def test_masks(container: ContainerFactory, alter: Bundle, scratch: str) -> None:
    """A masked file reads as empty, and nothing can be changed by it."""
    one = container(alter.args("/bin/alter", *MASKED, "-"), command=command(scratch))
    found = answers(one.run())
    for path in MASKED:
        refused(found, path)
    # Standard input is the container's own null device by now, which it may do with as it likes.
    assert found["-", "fchmod"] == 0
    assert container(alter.args("/bin/cat", *MASKED)).run().ok().out == ""


def identity(what: Bundle) -> Bundle:
    """With a user namespace that has the host's root, which owns the nodes."""
    return mapped(what, 0)


def test_bound_devices(container: ContainerFactory, alter: Bundle, scratch: str) -> None:
    """In a user namespace, which makes no nodes, the host's are bound."""
    paths = [f"/dev/{name}" for name in DEVICES]
    one = container(identity(alter).args("/bin/alter", *paths, *MASKED, "-"), command=command(scratch))
    found = answers(one.run())
    for path in (*paths, *MASKED):
        refused(found, path)
    assert found["-", "fchmod"] == errno.EROFS


def test_devices_where_mknod_is_refused(
    container: ContainerFactory, alter: Bundle, scratch: str, tmp_path: pathlib.Path
) -> None:
    """The same as root of the host without the right to make nodes, as in a nested container."""
    paths = [f"/dev/{name}" for name in DEVICES]
    refuse = faults.build(tmp_path).prefix("mknodat EPERM when 2==0x21b6")
    prefix = command(scratch)
    one = container(
        alter.args("/bin/alter", *paths, *MASKED, "-"), command=[*prefix[:-1], *refuse, prefix[-1]]
    )
    found = answers(one.run())
    for path in (*paths, *MASKED):
        refused(found, path)


def test_bound_devices_work(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Read-only is the node, not the device: what programs do with devices."""
    script = (
        "set -e; echo x >/dev/null; echo x >>/dev/null; : <>/dev/null; test -w /dev/null; test -c /dev/zero;"
        " head -c3 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; ! echo x >/dev/full;"
        " dd if=/dev/zero of=/dev/null count=1; cat /proc/keys; echo x >/proc/keys; tty </dev/tty;"
        " echo to-the-terminal >/dev/tty; exec </dev/null; cat; echo done"
    )
    target = mapped(bundle("probe")).args("/bin/sh", "-c", script)
    os.chown(target.rootfs, 100000, 100000)
    target.mapping("process")["terminal"] = True
    one = container(target)
    with Screen([*one.command, "run", "--bundle", target.write().path, one.id]) as screen:
        for text in ("3", "4", "to-the-terminal", "done"):
            screen.expect(text)
        assert screen.wait() == 0


def test_standard_streams_keep_their_owner(container: ContainerFactory, alter: Bundle, scratch: str) -> None:
    """A device or a directory that is a standard stream is not given to the container's user; a pipe is."""
    alter.probe("fds").mapping("process")["user"] = {"uid": 1000, "gid": 1000}
    call = '"$@" </dev/zero >/dev/full 2>/dev/random'
    container(alter, command=command(scratch, call)).run().ok()
    directory = os.path.join(scratch, "directory")
    os.mkdir(directory)
    container(alter, command=command(scratch, f'"$@" <{directory}')).run().ok()
    assert os.stat(directory).st_uid == 0


@pytest.mark.parametrize("there", ["nothing", "file", "zero"])
def test_exec_without_a_null_device(
    container: ContainerFactory, alter: Bundle, scratch: str, there: str
) -> None:
    """Root of a container removes its /dev/null: an engine's exec must not bring the host's in."""
    one = container(alter.probe("pause"), command=command(scratch)).up()
    put = {"nothing": ":", "file": "touch /dev/null", "zero": "mknod /dev/null c 1 5"}[there]
    one.exec("/bin/sh", "-c", f"rm /dev/null; {put}").ok()
    found = answers(one.exec("/bin/alter", "-"))
    assert found["-", "fchmod"] == 0
    assert one.exec("/bin/sh", "-c", "cat; echo end").ok().out == "end\n"


def test_exec_where_none_can_be_made(container: ContainerFactory, alter: Bundle, scratch: str) -> None:
    """Rather an error than the host's, where root inside has a right to it."""
    one = container(identity(alter).probe("pause"), command=command(scratch)).up()
    one.exec("/bin/sh", "-c", "umount -l /dev/null; rm /dev/null", options=["--cap", "CAP_SYS_ADMIN"]).ok()
    hint = "hint: a standard stream is the host's null device"
    one.exec("/bin/alter", "-").fails("mknodat '/dev/null'", hint, status=255)

"""What the attack tests share: the host's files that must stay as they are, and containers that attack."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import faults
import support

if TYPE_CHECKING:
    import pathlib

    from containers import Bundle, BundleFactory, Container, ContainerFactory

HOSTS = "of the host"


class Outside:
    """A directory of the host that nothing may lead to: `check` says that all is as it was."""

    def __init__(self, scratch: str) -> None:
        self.path = os.path.join(scratch, "outside")
        os.makedirs(os.path.join(self.path, "directory"))
        for name in ("file", "directory/file"):
            with open(os.path.join(self.path, name), "w", encoding="ascii") as stream:
                stream.write(HOSTS)
        with open(os.path.join(self.path, "passwd"), "w", encoding="ascii") as stream:
            stream.write(f"root:x:0:0:{HOSTS}:/home/of/the/host:/bin/sh\n")
        self._before = facts(self.path)

    def check(self) -> None:
        """Nothing was made, removed, changed or mounted."""
        assert facts(self.path) == self._before
        assert support.mounts_below(self.path) == []

    def link(self, kind: str, place: str = "") -> str:
        """The text of a link that tries to lead there."""
        path = os.path.join(self.path, place)
        up = "../" * 20 + path.lstrip("/")
        return {
            "absolute": path,
            "relative": up,
            "proc-self-root": f"/proc/self/root{path}",
            "proc-1-root": f"/proc/1/root{path}",
            "proc-self-cwd": f"/proc/self/cwd/{up}",
        }[kind]


LINKS = ("absolute", "relative", "proc-self-root", "proc-1-root", "proc-self-cwd")


def facts(directory: str) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Every file below, and the directory itself: mode, owner, group, device and content."""
    found = {}
    for path, names, files in os.walk(directory):
        for full in (path, *(os.path.join(path, name) for name in (*names, *files))):
            about = os.lstat(full)
            content = b""
            if stat.S_ISREG(about.st_mode):
                with open(full, "rb") as stream:
                    content = stream.read()
            found[full] = (about.st_mode, about.st_uid, about.st_gid, about.st_dev, content)
    return found


def hostile(what: Bundle, folder: pathlib.Path, *words: str) -> Bundle:
    """Itself, with csrc/testing/hostile.c as its program."""
    shutil.copy(faults.program("hostile", folder), os.path.join(what.rootfs, "bin/hostile"))
    return what.args("/bin/hostile", *words)


def neighbour(
    container: ContainerFactory, bundle: BundleFactory, folder: pathlib.Path, volume: str, *words: str
) -> Container:
    """A container that has the volume at /volume, and attacks it."""
    one = container(hostile(bundle("probe"), folder, *words).mount("/volume", "bind", volume, "rbind")).up()
    one.expect("ready")
    return one


def outcome(one: Container, *options: str) -> support.Result:
    """Run the container; it may be refused, in words and leaving nothing, or work."""
    result = one.run(*options, timeout=30)
    assert result.status in (0, 1), result
    assert "unexpected" not in result.err, result
    # or it is the probe that has not found something, which it says to its standard output
    assert result.err == "" or result.status == 1, result
    assert not os.path.lexists(os.path.join(one.root, one.id))
    assert HOSTS not in result.out, result
    return result

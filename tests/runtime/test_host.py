"""What the host is asked: two ways to find the mounted cgroup hierarchies that must agree."""

from __future__ import annotations

import os
import sys

import pytest

import support

pytestmark = pytest.mark.root

LOOK = """
from pyrunc.host import gather as host
own = list(host._own_cgroups())
found = host._cgroup_directories(own)
print("none" if found is None else "same" if found == host._cgroup_mounts() else "other")
"""


def look(*prefix: str) -> str:
    """Whether the directories tell the same as /proc/self/mountinfo."""
    return support.run(*prefix, support.PYTHON, "-I", "-c", LOOK).ok().out.strip()


def needs_v1() -> str:
    """A v1 hierarchy that is mounted where it usually is."""
    support.needs(os.path.isdir("/sys/fs/cgroup/freezer"), "the v1 freezer hierarchy")
    return "/sys/fs/cgroup/freezer"


def test_directories_tell_what_mountinfo_tells() -> None:
    """As systemd and this host mount them; nothing is looked up that grows with the number of mounts."""
    needs_v1()
    assert look() == "same"


def in_view(script: str) -> list[str]:
    """A prefix that changes the mounts for what follows."""
    return ["unshare", "-m", "--propagation", "private", "sh", "-ec", f'{script}; exec "$@"', "sh"]


def test_symbolic_links_are_no_hierarchies() -> None:
    """`cpu -> cpu,cpuacct`: the directory counts, under both names."""
    place = needs_v1()
    script = (
        f"t=$(mktemp -d); mount -t tmpfs t $t; mkdir $t/freezer; mount --bind {place} $t/freezer;"
        "ln -s freezer $t/frost; umount -R /sys/fs/cgroup; mount --move $t /sys/fs/cgroup; rmdir $t"
    )
    assert look(*in_view(script)) == "same"


@pytest.mark.parametrize("what", ["a cgroup below the root", "something else"])
def test_mountinfo_is_asked_when_there_is(what: str) -> None:
    """What the name of a directory does not tell is left to /proc/self/mountinfo."""
    place = needs_v1()
    inner = f"{place}/{support.ID_PREFIX}host"
    script = f"mount -t tmpfs t {place}"
    if what == "a cgroup below the root":
        os.mkdir(inner)
        script = f"mount --bind {inner} {place}"
    try:
        assert look(*in_view(script)) == "none"
    finally:
        if os.path.isdir(inner):
            os.rmdir(inner)


def test_mounts_with_odd_names(scratch: str) -> None:
    """Only a newline ends a line of mountinfo, and that is escaped; what Python calls the end of a line is not one."""
    support.needs_program("unshare")
    names = [
        "a b",
        "tab\there",
        "new\nline",
        "back\\slash",
        "v\x0bt",
        "next\x85line",
        "sep\u2028line",
        " - ",
    ]
    code = """
import os, subprocess, sys
from pyrunc.host import proc
for name in sys.argv[1:]:
    os.mkdir(name)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "odd source", os.path.abspath(name)], check=True)
for fields, (kind, source, options) in proc.mountinfo():
    point = proc.unescape(fields[4])
    if point.startswith(os.getcwd() + "/"):
        print(ascii((os.path.basename(point), kind, proc.unescape(source), "size=8k" in options.split(","))))
"""
    done = support.run("unshare", "-m", sys.executable, "-c", code, *names, cwd=scratch).ok()
    assert done.out.splitlines() == [ascii((name, "tmpfs", "odd source", True)) for name in names]

"""What a program can see of the container around it, told by a shell of busybox, for any engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import views

if TYPE_CHECKING:
    import support
    from engines.scenario import Seen

# Limits as files, of either version of cgroups; leaves the shell there.
RESOURCES = """cd /sys/fs/cgroup
cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us pids/pids.max
cat memory.max cpu.max cpu.weight pids.max
"""
# Hierarchies that others may make and let go at any moment are not compared.
_SPARE = "|".join(views.SPARE)
CGROUP = f"cut -d: -f2- /proc/self/cgroup | grep -v '[a-z]:/$' | grep -vE '^({_SPARE})' | sort"
SCRIPT = """
cd /proc/self
echo == identity; grep -E '^(Uid|Gid|Groups|Umask)' status
echo == privileges; grep -E '^(Cap|NoNew|Seccomp:)' status; cat attr/current 2>/dev/null
echo == signals; grep -E '^(SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt)' status
echo == cgroup; CGROUP
echo == limits; cat limits oom_score_adj
echo == maps; cat uid_map gid_map
echo == mounts; mount
echo == environment; env | sort
echo == names; hostname; cat /proc/sys/kernel/domainname; pwd
echo == devices; find /dev ! -type d -exec ls -ld '{}' ';' | sed 's/  *[A-Z][a-z][a-z]  *[0-9]* .*:[0-9][0-9]//' | sort
echo == descriptors; for f in fd/*; do readlink $f; done
echo == network; ip -o link | wc -l
echo == resources; RESOURCES
echo == writable; touch /new && echo root; touch /tmp/new && echo tmp
echo x >/proc/sys/kernel/domainname && echo sysctl
touch /sys/new && echo sys
echo == masked; head -c 1 /proc/kcore | wc -c; head -c 1 /proc/keys | wc -c; ls /sys/firmware | wc -l
echo == leaves; unshare -m true && echo unshare; mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mount
true
""".replace("RESOURCES", RESOURCES).replace("CGROUP", CGROUP)
COMMAND = ("sh", "-c", f"({SCRIPT}) 2>&1")
_SPARE_MOUNT = re.compile(rf" on /sys/fs/cgroup/({_SPARE})\b")
# What hides a path is no file system of the configuration's, nor is a device that is bound.
_COVER = re.compile(
    r" on (/proc/(acpi|asound|kcore|keys|latency_stats|sched_debug|scsi|timer\w+|version)|/sys/[\w/]+"
    r"|/dev/(full|null|random|tty|urandom|zero)) type (dev)?tmpfs "
)
COVERS = pytest.mark.improvement(
    "run.covers",
    "masked directories are also nosuid, nodev and noexec; masked files are the host's /dev/null, not one of the image,"
    " and read-only, as are the host's devices in a user namespace",
)
RUN_MODE = pytest.mark.improvement(
    "run.mounts", "/run has its mode as it is mounted, as with newer runc, not a moment later"
)


def note(seen: Seen, result: support.Result, name: str = "run") -> dict[str, str]:
    """Note every section of what a program said, each under its name; the sections."""
    found: dict[str, str] = {}
    for part in seen.command(name, result, out=False).out.split("== ")[1:]:
        title, _, text = part.partition("\n")
        found[title] = re.sub(r"(pipe|socket):\[\d+\]", r"\1", text)
    # The default devices come in any order.
    # Of a hierarchy without a controller, a new mount and a bound one have other sources: only a name.
    mounts = found["mounts"].replace("systemd on /sys/fs/cgroup", "cgroup on /sys/fs/cgroup")
    mounts = re.sub(r"size=\d+k,nr_inodes=\d+", "size=N,nr_inodes=N", mounts)
    lines = sorted(line for line in mounts.splitlines() if not _SPARE_MOUNT.search(line))
    found["mounts"] = "".join(f"{line}\n" for line in lines if not _COVER.search(line))
    found["covers"] = "".join(f"{line}\n" for line in lines if _COVER.search(line))
    for title, text in found.items():
        seen.value(f"{name}.{title}", text)
    return found


# A program of more than any limit, whose end the first process notes and outlives: an empty scope is taken away by
# systemd, and who watches for the end of memory comes too late then.
OUTLIVED_HOG = "sh -c 'x=a; while :; do x=$x$x; done'; echo $? >/status; sleep 1000"

"""The machines that tests run on: how patient one has to be there, and what each may lack. Imports nothing of ours.

PYRUNC_VM names the guest of ./dev vm (vm/image.py: SNAPSHOTS); elsewhere it is not set.
"""

from __future__ import annotations

import os

GUEST = os.environ.get("PYRUNC_VM", "")
# Emulated, a fork and an exec take 12 to 40 times as long; who waits for a minute is patient enough anywhere.
_FACTOR = 10 if GUEST else 1
_ENOUGH = 60.0

# The only reasons for which a test may be skipped where everything must work (PYRUNC_MUST_WORK=1).
_EVERYWHERE = {"FUSE", "x86_64"}
_V1_WITH_CONTROLLERS = {
    "a cgroup2 controller",
    "a cgroup2 controller for cpu, memory or pids",
    "cgroup v2 alone",
    "the hugetlb controller on cgroup2",
}
# What Debian 12 with systemd has or has not.
_DEBIANS = {"a host without journald and syslog", "a kernel that is too new for CRIU"}
_LACKS = {
    # CI's machine: cgroup v1, with cgroup2 beside it, and no systemd.
    "": {
        "AppArmor",
        "CAP_SYS_RESOURCE",
        "a CRIU that works with this kernel",
        "SELinux",
        "a kernel without SELinux",
        "systemd",
        "a second processor",
        *_V1_WITH_CONTROLLERS,
    },
    "apparmor": {"SELinux", "cgroup v1", *_DEBIANS},
    "selinux": {"AppArmor", "a kernel without SELinux", "cgroup v1", *_DEBIANS},
    "v1": {"SELinux", *_V1_WITH_CONTROLLERS, *_DEBIANS},
    "hybrid": {"AppArmor", "a kernel without SELinux", *_V1_WITH_CONTROLLERS, *_DEBIANS},
}
ALLOWED_LACKS = _EVERYWHERE | _LACKS[GUEST]


def patience(seconds: float) -> float:
    """How long to wait, here, for what elsewhere takes no longer than `seconds`."""
    return max(seconds, min(seconds * _FACTOR, _ENOUGH))

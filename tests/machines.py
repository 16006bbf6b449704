"""The machines that tests run on: how patient one has to be there, and what each may lack. Imports nothing of ours.

PYRUNC_VM names the guest of ./dev vm by its LSM; elsewhere it is not set.
"""

from __future__ import annotations

import os

GUEST = os.environ.get("PYRUNC_VM", "")
# Emulated, a fork and an exec take 12 to 40 times as long.
FACTOR = 10 if GUEST else 1

# The only reasons for which a test may be skipped where everything must work (PYRUNC_MUST_WORK=1).
_EVERYWHERE = {"FUSE", "x86_64"}
_LACKS = {
    # CI's machine: cgroup v1, with cgroup2 beside it, and no systemd.
    "": {
        "AppArmor",
        "CAP_SYS_RESOURCE",
        "a CRIU that works with this kernel",
        "SELinux",
        "a kernel without SELinux",
        "a cgroup2 controller",
        "a cgroup2 controller for cpu, memory or pids",
        "the hugetlb controller on cgroup2",
        "systemd",
        "a second processor",
    },
    # The guests: systemd on cgroup v2.
    "apparmor": {"SELinux", "a kernel that is too new for CRIU", "cgroup v1"},
    "selinux": {"AppArmor", "a kernel that is too new for CRIU", "a kernel without SELinux", "cgroup v1"},
}
ALLOWED_LACKS = _EVERYWHERE | _LACKS[GUEST]


def patience(seconds: float) -> float:
    """How long to wait, here, for what elsewhere takes no longer than `seconds`."""
    return seconds * FACTOR

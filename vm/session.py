"""Run the tests that want systemd, cgroup v2 and an LSM: ./dev test --vm [ARG...].

In the guests of ./dev vm, or right here on a host that is such a machine. Arguments go to pytest in place of the
tests that are listed here; then only the guest with AppArmor is used, or the one that PYRUNC_VM names.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import image
import job

PYTEST = os.path.join(job.PROJECT, ".venv/bin/pytest")
# What each guest runs. The limits of cgroup v2, delegation and engines need no LSM: once is enough.
TESTS = {
    "apparmor": (
        "--engines",
        "tests/systemd",
        "tests/runtime/test_lsm.py",
        "tests/runtime/test_resources.py",
        "tests/runtime/test_update.py",
        "tests/runtime/test_checkpoint.py",
        "tests/runtime/test_checkpoint_refusals.py",
        "tests/runtime/test_exec.py::test_init_in_a_child_of_a_v2_cgroup_with_controllers",
        "tests/runtime/test_process.py::test_raising_a_limit",
        "tests/engines/test_systemd_podman.py",
        "tests/engines/test_systemd_containerd.py",
    ),
    "selinux": (
        "tests/runtime/test_lsm.py",
        "tests/runtime/test_strict.py",
        "tests/systemd/test_support.py",
    ),
    "v1": ("tests/systemd/test_support.py", "tests/systemd/test_driver.py"),
    "hybrid": ("tests/systemd/test_support.py", "tests/systemd/test_driver.py"),
}
# Seconds for each guest: about twice what the longest takes on an idle machine with two processors. The tests are told
# to end a moment before, which leaves time to say what has failed so far.
SECONDS = 1800
LAST_WORDS = 60


def is_such_a_machine() -> bool:
    """Whether this host can do what the guests do."""
    return (
        os.geteuid() == 0
        and os.path.isdir("/run/systemd/system")
        and os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    )


def script(words: list[str]) -> str:
    """The guest's command line."""
    limit = ["timeout", "--signal=INT", f"--kill-after={LAST_WORDS}", str(SECONDS - LAST_WORDS)]
    return shlex.join(
        [*limit, PYTEST, "-o", "cache_dir=/tmp/cache", "--durations=10", "--tb=short", "-v", *words]
    )


def in_guest(snapshot: str, words: list[str]) -> int:
    """Run pytest in a guest, where no skip is allowed for what it has; the exit status."""
    print(f"vm: tests in the guest with {snapshot}", file=sys.stderr, flush=True)
    os.environ["PYRUNC_MUST_WORK"] = "1"
    return job.main(["--snapshot", snapshot, "--timeout", str(SECONDS), script(words)])


def main(words: list[str]) -> int:
    """All tests of the guests, or what the words choose; the first bad exit status."""
    if is_such_a_machine():
        everything = dict.fromkeys(path for paths in TESTS.values() for path in paths)
        return subprocess.run([PYTEST, *(words or everything)], check=False, cwd=job.PROJECT).returncode
    if words:
        return in_guest(os.environ.get("PYRUNC_VM", "apparmor"), words)
    statuses = [subprocess.run([PYTEST, "--vm", "tests/vm"], check=False, cwd=job.PROJECT).returncode]
    statuses += [in_guest(snapshot, list(TESTS[snapshot])) for snapshot in image.SNAPSHOTS]
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

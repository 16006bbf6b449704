"""What a verb asks of the kernel and loads, counted: it does not depend on how busy the machine is, as time does.

The numbers are what was counted when they were written, and a little more. Whoever needs more says so here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import support
from runtime.test_start_up import BOOT, PYTHON, bare, loaded

if TYPE_CHECKING:
    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

# System calls of the command's own process, exec included, not of its children; on cgroup v1 with nine controllers.
# They include the look at who owns each directory above the root, SIGKILL that lets go of what a v1 freezer holds, and
# start that sees whether init has become the program, if need be more than once.
CALLS = {"create": 590, "start": 72, "state": 51, "exec": 530, "kill": 60, "delete": 85}
LIGHT = ("start", "state", "kill", "delete")
# Modules beyond the bare interpreter's.
MODULES = {"create": 90, "exec": 82}


def count_calls(program: str, one: Container) -> dict[str, int]:
    """A life of the container by this runtime, each command under strace; how many calls each made.

    Runs in the view "v1" in a process of its own, as crun wants it.
    """
    done = subprocess.run(
        [*support.VIEWS["v1"], sys.executable, __file__, program, one.root, one.bundle.path, one.id],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}


def main(program: str, root: str, bundle: str, name: str) -> None:
    """Count and print."""
    support.become_subreaper()
    pid_file = f"{root}.pid"
    words = {
        "create": ["--bundle", bundle, "--pid-file", pid_file, name],
        "start": [name],
        "state": [name],
        "exec": [name, "/bin/probe", "exit", "0"],
        "kill": [name, "KILL"],
        "delete": [name],
    }
    for verb, arguments in words.items():
        output = f"{root}.{verb}"
        argv = ["strace", "-qq", "-o", output, program, "--root", root, verb, *arguments]
        with open(f"{root}.err", "w+", encoding="utf-8") as errors:
            status = subprocess.call(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )
            errors.seek(0)
            assert status == 0, (argv, errors.read())
        with open(output, encoding="utf-8", errors="replace") as lines:
            print(verb, sum(line[0] not in "+-" for line in lines))
        if verb == "kill":
            with open(pid_file, encoding="ascii") as stream:
                os.waitpid(int(stream.read()), 0)


@pytest.fixture
def pause(container: ContainerFactory, bundle: BundleFactory) -> Container:
    """A container that waits for a signal."""
    support.needs_program("strace")
    return container(bundle("probe", "/bin/probe", "pause"))


def test_system_calls(pause: Container) -> None:
    """No verb asks the kernel for more than it did."""
    found = count_calls(support.PYRUNC, pause)
    assert set(found) == set(CALLS)
    assert {verb: count for verb, count in found.items() if count > CALLS[verb]} == {}


@pytest.mark.slow
def test_light_verbs_need_half_of_what_crun_does(pause: Container) -> None:
    """The promise of state, start, kill and delete, in calls instead of milliseconds."""
    crun = support.needs_program("crun")
    ours, theirs = count_calls(support.PYRUNC, pause), count_calls(crun, pause)
    assert {verb: (ours[verb], theirs[verb]) for verb in LIGHT if ours[verb] > theirs[verb] / 2} == {}


def test_modules(container: ContainerFactory, bundle: BundleFactory) -> None:
    """create and exec load no more modules than they did; which ones, test_start_up knows."""
    one = container(bundle("probe").probe("pause"), command=[*PYTHON, BOOT, "--"])
    counts = {"create": len(loaded(one.create().ok().err) - bare())}
    one.start().ok()
    one.expect("ready")
    counts["exec"] = len(loaded(one.exec("/bin/probe", "exit", "0").ok().err) - bare())
    assert {verb: count for verb, count in counts.items() if not 20 < count <= MODULES[verb]} == {}


if __name__ == "__main__":
    main(*sys.argv[1:])

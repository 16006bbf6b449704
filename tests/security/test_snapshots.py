"""Attacks on the making of a snapshot: makers that are killed, file systems that are full, many at once.

Whatever happens to who makes it, every command gives its own answer, and what is kept in the end is whole.
"""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import rounds
import support
from runtime.test_snapshot import Installation, fresh

pytestmark = pytest.mark.root
__all__ = ["fresh"]

# A snapshot is made in less; later kills meet commands that use it.
MOST_SECONDS = 0.25
# From less than one page to more than a snapshot needs.
MOST_KIB = 12 << 10


def ask(one: Installation) -> list[str]:
    """A command that makes a snapshot, and answers that there is no such container."""
    return [one.command, "--root", one.root, "exec", "nobody", "true"]


def made(one: Installation) -> bool:
    """Whether there is a snapshot now; the command is right with and without."""
    one.answers()
    return os.path.exists(one.snapshot)


@pytest.mark.slow
def test_makers_that_are_killed(fresh: Installation) -> None:
    """With all that they have started, at any moment: the next command is right, and makes one that is whole."""
    chance = rounds.chance()
    for _ in rounds.loop(12):
        for path in glob.glob(fresh.snapshot + "*"):
            os.unlink(path)
        with subprocess.Popen(
            ask(fresh), stderr=subprocess.DEVNULL, env={}, start_new_session=True
        ) as maker:
            # No event to wait for: any moment is meant.
            time.sleep(chance.random() * MOST_SECONDS)
            try:
                os.killpg(maker.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        # What the killed command has started may be making one still.
        support.wait_until(lambda: made(fresh), "a snapshot", 30)
    fresh.break_python()
    fresh.answers()


def test_full_file_systems(fresh: Installation) -> None:
    """What does not fit is not kept; the command answers all the same, and so does the next one."""
    chance = rounds.chance()
    script = (
        'mount -t tmpfs -o size="$0"k,mode=755 none /run; "$@" 2>/dev/null; "$@"; echo $?; ls -A /run/pyrunc'
    )
    for _ in rounds.loop(6):
        size = chance.randrange(4, MOST_KIB)
        words = ["unshare", "-m", "sh", "-c", script, str(size), *ask(fresh)]
        done = support.run(*words, env={"PATH": "/usr/bin:/bin"}).ok()
        assert done.err == "pyrunc: exec: container does not exist\n", (size, done)
        status, *kept = done.out.splitlines()
        assert (status, kept) in (("255", []), ("255", [os.path.basename(fresh.snapshot)])), (size, done)


def test_many_at_once(fresh: Installation) -> None:
    """Some make it, some find it half made, some use it."""
    for _ in rounds.loop(2):
        for path in glob.glob(fresh.snapshot + "*"):
            os.unlink(path)
        with ThreadPoolExecutor(30) as pool:
            for result in pool.map(lambda _: fresh.ask(), range(30)):
                result.fails("container does not exist", status=255)
        assert glob.glob(fresh.snapshot + "*") == [fresh.snapshot]

"""Hooks with a timeout are over when it is, whatever they do; and what they leave behind keeps nobody waiting."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

import support
from machines import patience

if TYPE_CHECKING:
    from containers import BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
# More than a pipe holds, so that the state does not fit into it.
_LONG_TEXT = "x" * 300_000
# Eight writers keep a pipe full for one reader.
_FLOOD = "for i in 1 2 3 4 5 6 7 8; do yes $i & done"

# In the environment of each hook, to find what it has started.
MARK = f"HOOK_OF={os.getpid()}"
# Each would run for ever.
ENDLESS = {
    "flood": f"{_FLOOD}; wait",
    "silent": "exec sleep 471",
    "closed": "exec <&- >&- 2>&-; exec sleep 471",
    "unread": "exec sleep 471",
    "stopped": "kill -STOP $$",
    "stubborn": "trap '' TERM HUP INT QUIT; while :; do sleep 471; done",
    "group": "set -m; sleep 471 & wait",
    "session": "setsid sleep 471 & wait",
    "tree": "setsid sh -c 'setsid sleep 471 & sleep 471 & wait' & (sleep 471 & sleep 471); wait",
}
# Each has ended although somebody holds its pipes.
ENDED = {
    "flood": f"{_FLOOD}; exit 0",
    "daemon": "setsid sh -c 'while :; do echo x || exit; done' & exit 0",
    "holder": "sleep 471 & exit 0",
}


def family(argv: str = "") -> list[int]:
    """Processes that hooks of these tests have started, all or those of this argv; dead ones do not count."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as stream:
                ours = MARK.encode() in stream.read().split(b"\0")
            with open(f"/proc/{name}/cmdline", "rb") as stream:
                words = stream.read()
        except OSError:
            continue
        if ours and argv.replace(" ", "\0").encode() in words and not support.process_gone(int(name)):
            found.append(int(name))
    return found


def hook(script: str, timeout: int) -> support.Json:
    env: support.Json = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", MARK]
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": env, "timeout": timeout}


def reach(
    kind: str, hooks: support.Json, container: ContainerFactory, bundle: BundleFactory
) -> tuple[support.Result, float]:
    """Bring a container with these hooks to where they run; that call's result, and how long it took."""
    box = bundle("busybox", "sleep", "600")
    box.spec["hooks"] = {kind: hooks}
    box.spec["annotations"] = {"long": _LONG_TEXT}
    one = container(box)
    began = time.monotonic()
    done = one.create()
    if kind in ("startContainer", "poststart", "poststop"):
        done.ok()
        began = time.monotonic()
        done = one.start()
    if kind == "poststop":
        done.ok()
        one.kill().ok()
        one.wait()
        began = time.monotonic()
        done = one.pyrunc("--log-level", "warning", "delete", one.id)
    return done, time.monotonic() - began


# Two programs mind hooks, Python and init; the other kinds are those of Python, and once more in init.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "kind"),
    [(way, "createRuntime") for way in ENDLESS]
    + [(way, "startContainer") for way in ("flood", "closed", "stopped", "stubborn")]
    + [("flood", kind) for kind in KINDS if kind not in ("createRuntime", "startContainer")],
)
def test_timeout(way: str, kind: str, container: ContainerFactory, bundle: BundleFactory) -> None:
    """It is kept, the hook and its children are gone, and the error says so; after poststart and poststop, nothing."""
    done, seconds = reach(kind, [hook(ENDLESS[way], 1)], container, bundle)
    words = f"$.hooks.{kind}[0]: {kind} hook #0 '/bin/sh': hook ran past specified timeout of 1.0s"
    if kind == "poststart":
        done.ok()
    elif kind == "poststop":
        assert words in done.ok().err
    else:
        done.fails(words)
    assert 1 <= seconds < patience(6)
    support.wait_until(lambda: not family(), "the end of the hook's children")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer", "poststop"])
@pytest.mark.parametrize("way", ENDED)
def test_what_a_hook_leaves_behind(
    way: str, kind: str, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """A hook has ended when its process has: who holds its pipe, or fills it, is not waited for."""
    done, seconds = reach(kind, [hook(ENDED[way], 60)], container, bundle)
    done.ok()
    assert seconds < patience(6)

    def ended() -> bool:
        # A child that was forked a moment ago may be the sleep a moment later.
        for pid in family("sleep 471"):
            os.kill(pid, 9)
        # The writers end by SIGPIPE, each when it gets to it.
        return not family()

    support.wait_until(ended, "the end of what the hook has started")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer", "poststop"])
def test_long_timeouts(kind: str, container: ContainerFactory, bundle: BundleFactory) -> None:
    """No width of a number on the way cuts them short: of a C int in ms, of 64 bits in ms."""
    # 18446744073709552 s are 384 ms more than 64 bits hold.
    hooks: support.Json = [
        hook("sleep 0.5" if timeout > 1 << 33 else "exit 0", timeout)
        for timeout in (2147484, 1 << 31, 1 << 32, 18446744073709552, (1 << 63) - 1)
    ]
    done, _ = reach(kind, hooks, container, bundle)
    assert done.ok().err == ""


@pytest.mark.parametrize("timeout", [0, -1, 1 << 63, 1 << 64, 10**400, 1.5, 1e300, "1", True])
def test_timeouts_that_are_none(
    timeout: support.Json, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Refused with the place, before anything is made."""
    box = bundle("probe")
    box.spec["hooks"] = {"prestart": [{"path": "/bin/true", "timeout": timeout}]}
    one = container(box)
    one.create().fails("$.hooks.prestart[0].timeout: ")
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_the_end_of_much_output(container: ContainerFactory, bundle: BundleFactory) -> None:
    """What stands last is what is told, also after more than a pipe holds, in Python and in init."""
    for kind in ("createRuntime", "createContainer"):
        script = "head -c 700000 /dev/zero | tr '\\0' x; echo; echo the reason; exit 3"
        done, _ = reach(kind, [hook(script, 60)], container, bundle)
        done.fails("exit status 3, output: ")
        assert done.err.endswith("x\\nthe reason\n"), done

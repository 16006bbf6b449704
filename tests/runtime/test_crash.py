"""A runtime that is killed, or whose system call fails, at any step: delete --force, or nothing, is all it takes."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import faults
import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

FEWEST_STEPS = {
    "create": 30, "run": 40, "start": 2, "exec": 10, "kill": 2, "pause": 2, "delete": 5, "delete --force": 5,
}  # fmt: skip
# More steps than any verb has: the walk ends when the command comes to its own end.
MOST_STEPS = 400
KILLED = 128 + 9


@pytest.fixture
def at_call(tmp_path_factory: pytest.TempPathFactory) -> faults.AtCall:
    return faults.build_at_call(tmp_path_factory.mktemp("crash"))


def files_below(directory: str) -> set[str]:
    return {os.path.join(path, name) for path, names, files in os.walk(directory) for name in names + files}


def argv_of(verb: str, one: Container) -> list[str]:
    """What stands behind --root for a verb; with files to write where there is an option for it."""
    if verb == "create":
        return ["create", "--bundle", one.bundle.path, "--pid-file", one.pid_file, one.id]
    if verb == "run":
        return ["run", "--bundle", one.bundle.path, one.id]
    if verb == "exec":
        return ["exec", one.id, "/bin/probe", "ids"]
    return [*verb.split(), one.id, *(["USR1"] if verb == "kill" else [])]


def prepare(verb: str, one: Container) -> None:
    """The state in which a verb finds its container."""
    if verb in ("start", "delete"):
        one.create().ok()
    elif verb not in ("create", "run"):
        one.up()


def invoke(prefix: Sequence[str], verb: str, one: Container) -> support.Result:
    """Run a verb, with something before the command. Its output is a file: init keeps it open after the command."""
    at = one.command.index(support.PYRUNC)
    argv = [*one.command[:at], *prefix, *one.command[at:], *argv_of(verb, one)]
    with open(one.error_file, "wb") as errors:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            timeout=60,
            check=False,
        )
    return support.Result(argv, done.returncode, "", one.errors())


def leftovers(one: Container) -> list[str]:
    """What exists of the container, its process excepted."""
    found = support.find_cgroups(f"/{one.id}")
    names = os.listdir(one.root) if os.path.isdir(one.root) else []
    return found + [name for name in names if name != "@seccomp"] + support.mounts_below(one.bundle.path)


def reap(known: Sequence[int]) -> None:
    """Wait until nobody is left: who was started but not yet told of its container notices that it is alone."""
    for pid in support.children():
        if pid not in known:
            support.wait_for_exit(pid)


def delete_by_force(one: Container, known: Sequence[int]) -> support.Result:
    """delete --force while we reap what is ours, as an engine does.

    Init cannot end before everybody of its pid namespace is reaped, and one whose exec was killed is ours to reap.
    """
    argv = [*one.command, "delete", "--force", one.id]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        reaped = [*known, process.pid]

        def over() -> bool:
            for pid in support.children():
                if pid not in reaped:
                    os.waitpid(pid, os.WNOHANG)
            return process.poll() is not None

        support.wait_until(over, "the end of delete --force", 30)
        out, err = process.communicate()
    return support.Result(argv, process.returncode, out, err)


def walk(
    verb: str, one: Container, prefix: Callable[[int], list[str]], at_call: faults.AtCall
) -> Iterator[tuple[str, support.Result]]:
    """Run the verb with the prefix for its call 1, 2, ... while there are so many; yield call and result."""
    for number in range(1, MOST_STEPS):
        prepare(verb, one)
        result = invoke(prefix(number), verb, one)
        calls = at_call.calls()
        if len(calls) < number:
            return
        yield f"{number} {calls[number - 1]}", result
    pytest.fail(f"{verb} has no end")


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", ["create", "run", "start", "exec", "kill", "pause", "delete", "delete --force"]
)
def test_killed_at_every_step(
    container: ContainerFactory, bundle: BundleFactory, at_call: faults.AtCall, verb: str, view: str
) -> None:
    """Whatever a runtime was doing when it was killed, delete --force works and leaves nothing."""
    program = ("exit", "3") if verb == "run" else ("pause",)
    one = container(bundle("probe").probe(*program), view=view)
    before = files_below(one.bundle.path)
    known = support.children()
    steps = 0
    for where, result in walk(verb, one, at_call.kill, at_call):
        steps += 1
        assert result.status == KILLED, (where, result)
        deleted = delete_by_force(one, known)
        assert (deleted.status, deleted.out, deleted.err) == (0, "", ""), (where, deleted)
        reap(known)
        assert leftovers(one) == [], where
        assert files_below(one.bundle.path) == before, where
    assert steps >= FEWEST_STEPS[verb]


# What the errors call it where a C library's function has another name than the system call.
WORDS = {"openat": "open", "renameat": "rename", "unlinkat": "unlink", "mknodat": "mkfifo", "fchmodat": "chmod",
         "sendto": "send"}  # fmt: skip


def does_without(call: str, path: str) -> bool:
    """Whether create can do without this call, because it helps only, or because there is another way."""
    # Priming the lock of cgroup.procs, and hierarchies that limit nothing.
    if call == "clone" or path.endswith("//cgroup.procs") or "/systemd/" in path or "/unified/" in path:
        return True
    # The command looks whether there is a snapshot that it can trust; without one it starts Python.
    if call == "open" or (call == "openat" and path in ("run", "pyrunc")):
        return True
    # Python looks whether the root is there by making it.
    return call == "mkdir" and path.endswith("/root")


@pytest.mark.slow
def test_failed_at_every_step(
    container: ContainerFactory, bundle: BundleFactory, at_call: faults.AtCall, view: str
) -> None:
    """Whichever system call of create fails, it says so and leaves nothing, without a delete."""
    error = errno.EIO if view == "host" else errno.ENOSPC
    one = container(bundle("probe").probe("pause"), view=view)
    os.mkdir(one.root)
    files = files_below(os.path.dirname(one.root)) | {one.error_file}
    known = support.children()
    for where, result in walk("create", one, lambda number: at_call.fail(number, error), at_call):
        _, call, path = where.split(" ", 2)
        if does_without(call, path):
            assert (result.status, result.err) == (0, ""), (where, result)
            assert delete_by_force(one, known).status == 0
            os.unlink(one.pid_file)
        else:
            assert result.status == 1, (where, result)
            # A file of a cgroup is opened and written in one.
            words = {WORDS.get(call, call), "write" if path.startswith("/sys/fs/cgroup") else ""}
            assert any(f"{word} '" in result.err or f"{word}:" in result.err for word in words if word), (
                where,
                result,
            )
            assert f": {os.strerror(error).lower()}\n" in result.err, (where, result)
            assert "unexpected" not in result.err
            assert "while cleaning up" not in result.err
        reap(known)
        assert leftovers(one) == [], where
        assert files_below(os.path.dirname(one.root)) == files, where

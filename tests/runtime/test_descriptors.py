"""What a container's program inherits: three descriptors, a plain signal state, the configured environment, no more."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from callers import LEAKED, UNTIDY, leaking

if TYPE_CHECKING:
    from containers import BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root


def fds_of(facts: support.Facts) -> dict[int, str]:
    """Descriptor -> what it is, from `probe fds`."""
    found = {}
    for entry in facts.all("fd"):
        number, _, target = entry.partition(" ")
        found[int(number)] = target
    return found


def host_fds(pid: int) -> dict[int, str]:
    """The same for a process seen from the host."""
    directory = f"/proc/{pid}/fd"
    return {int(name): os.readlink(os.path.join(directory, name)) for name in os.listdir(directory)}


# --- Descriptors ------------------------------------------------------------------------------------------------------


def test_create_passes_no_descriptor(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Neither the waiting init nor the program has any that the caller, or the runtime, had open."""
    one = leaking(container(bundle("probe").probe("fds", "--", "pause"), view=view), LEAKED)
    one.create().ok()
    assert unexpected_in_init(one, one.pid) == {}
    one.start().ok()
    facts = support.Facts(one.expect("ready"))
    assert sorted(fds_of(facts)) == [0, 1, 2]
    assert sorted(host_fds(one.pid)) == [0, 1, 2]


def unexpected_in_init(one: Container, pid: int) -> dict[int, str]:
    """What a waiting init holds beyond stdio and what it needs: its socket, plan, fifo and a procfs of its own."""

    def is_needed(fd: int, target: str) -> bool:
        if target == "/":
            return os.path.lexists(f"/proc/{pid}/fd/{fd}/self")
        fifo = f"{one.root}/{one.id}/exec.fifo"
        return target == fifo or target.startswith(("/memfd:plan", "socket:"))

    return {fd: target for fd, target in host_fds(pid).items() if fd > 2 and not is_needed(fd, target)}


def test_run_and_exec_pass_no_descriptor(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    one = leaking(container(bundle("probe").probe("fds"), view=view), LEAKED)
    assert sorted(fds_of(one.run().ok().facts())) == [0, 1, 2]
    one.bundle.probe("pause").write()
    one.up()
    assert sorted(fds_of(one.exec("/bin/probe", "fds").ok().facts())) == [0, 1, 2]


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_preserve_fds(container: ContainerFactory, bundle: BundleFactory, verb: str) -> None:
    """--preserve-fds 3: 3, 4 and 5 and no other, as the caller had them."""
    one = leaking(container(bundle("probe").probe("fds")), LEAKED)
    if verb == "run":
        result = one.run("--preserve-fds", "3")
    else:
        one.bundle.probe("pause").write()
        result = one.up().exec("/bin/probe", "fds", options=["--preserve-fds", "3"])
    found = fds_of(result.ok().facts())
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert found[3].endswith("/secret")
    assert found[4] == "/"
    assert found[5].startswith("socket:")


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_listen_fds_come_first(container: ContainerFactory, bundle: BundleFactory, verb: str) -> None:
    """LISTEN_FDS of the caller's environment, then --preserve-fds; the program hears of the former only."""
    one = leaking(container(bundle("probe").probe("fds", "--", "listen")), LEAKED)
    if verb == "exec":
        one.bundle.probe("pause").write()
        one.up()
    plain = one.command
    one.command = ["env", "LISTEN_FDS=2", "LISTEN_PID=1", *plain]
    options = ["--preserve-fds", "1"]
    if verb == "run":
        facts = one.run(*options).ok().facts()
    else:
        facts = one.exec("/bin/probe", "fds", "--", "listen", options=options).ok().facts()
    assert (facts["LISTEN_FDS"], facts["LISTEN_PID"]) == ("2", "1")
    assert sum(1 for _, value in facts.pairs if value.startswith(("3 ", "4 "))) == 4
    assert {0, 1, 2, 3, 4, 5} == {int(value.split()[0]) for key, value in facts.pairs if key == "fd"}


@pytest.mark.parametrize(("fds", "missing"), [([], 3), ([3], 4), ([4], 3), ([3, 4, 6], 5)])
@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_a_closed_descriptor_is_refused(
    container: ContainerFactory, bundle: BundleFactory, verb: str, fds: list[int], missing: int
) -> None:
    """Otherwise one of the runtime's own would take the number, and with it go into the container."""
    one = container(bundle("probe").probe("exit", "0"))
    if verb == "exec":
        one.bundle.probe("pause").write()
        one.up()
    leaking(one, fds)
    refusal = f"cannot preserve file descriptor {missing}: it is not open"
    options = ["--preserve-fds", "3"]
    if verb == "create":
        one.create(*options).fails(refusal)
    elif verb == "run":
        one.run(*options).fails(refusal)
    else:
        one.exec("/bin/probe", "fds", options=options).fails(refusal, status=255)
    if verb != "exec":
        assert os.listdir(one.root) == [] if os.path.isdir(one.root) else True


@pytest.mark.parametrize("value", ["x", "-1", "", "1x", "\u00b2", "9" * 30, "9" * 5000])
def test_an_odd_listen_fds(container: ContainerFactory, bundle: BundleFactory, value: str) -> None:
    """What is no number is not for us; what is too many is refused in one line."""
    one = leaking(container(bundle("probe").probe("fds")), LEAKED)
    one.command = ["env", f"LISTEN_FDS={value}", *one.command]
    result = one.run()
    if value.startswith("9"):
        result.fails("cannot preserve file descriptor")
        assert "unexpected" not in result.err
    else:
        assert sorted(fds_of(result.ok().facts())) == [0, 1, 2]


def test_stdio_is_the_callers(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """The very files, for run and for exec; a closed one stays closed or is /dev/null, never one of ours."""
    one = container(bundle("probe").probe("fds"))
    paths = [os.path.join(scratch, name) for name in ("in", "out", "err")]
    for path in paths:
        with open(path, "wb"):
            pass
    command = " ".join([*one.command, "run", "--bundle", one.bundle.path, one.id])
    support.run("sh", "-c", f"{command} <{paths[0]} >{paths[1]} 2>{paths[2]}").ok()
    with open(paths[1], encoding="utf-8") as stream:
        assert fds_of(support.Facts(stream.read())) == dict(enumerate(paths))
    for closed in ("<&-", "2>&-", "<&- 2>&-"):
        result = support.run("sh", "-c", f"{command} {closed}").ok()
        found = fds_of(result.facts())
        assert set(found) <= {0, 1, 2}, closed
        for fd in {"<&-": [0], "2>&-": [2], "<&- 2>&-": [0, 2]}[closed]:
            assert found.get(fd, "/dev/null") == "/dev/null", (closed, found)


# --- The program that is not yet the container's ----------------------------------------------------------------------


def assert_sealed(pid: int) -> None:
    """It runs from a memfd that cannot be written, by whatever way it is opened (CVE-2019-5736)."""
    exe = f"/proc/{pid}/exe"
    assert os.readlink(exe) == "/memfd:pyrunc-init (deleted)"
    with pytest.raises(OSError, match="Text file busy"):
        os.close(os.open(exe, os.O_WRONLY))
    seals = memfd_seals(exe)
    # F_SEAL_SEAL, SHRINK, GROW, WRITE; and EXEC where the kernel has it (6.3).
    assert seals & 0xF == 0xF


def memfd_seals(path: str) -> int:
    import fcntl

    fd = os.open(path, os.O_RDONLY)
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    finally:
        os.close(fd)


def assert_hidden(one: Container, pid: str) -> None:
    """A process of the container, uid 0 in it, gets nothing of that one (CVE-2016-9962)."""
    for name in ("exe", "mem", "maps", "environ", "root", "cwd"):
        facts = one.exec("/bin/probe", "open", f"/proc/{pid}/{name}").ok().facts()
        assert facts["open"] == f"/proc/{pid}/{name} {-errno.EACCES}", name
    assert (
        one.exec("/bin/probe", "open", f"/proc/{pid}/exe", "rw")
        .ok()
        .facts()["open"]
        .endswith(f"{-errno.EACCES}")
    )
    # Their numbers are no secret; what they are, and opening them once more, is.
    numbers = one.exec("/bin/probe", "ls", f"/proc/{pid}/fd").ok().facts().all("entry")
    assert len(numbers) > 3
    for number in numbers:
        facts = one.exec("/bin/probe", "open", f"/proc/{pid}/fd/{number}").ok().facts()
        assert facts["open"] == f"/proc/{pid}/fd/{number} {-errno.EACCES}"


def test_the_waiting_init(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Sealed, and nothing to get at from a process that was executed beside it; the program is plain again."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    assert_sealed(one.pid)
    assert_hidden(one, "1")
    one.start().ok()
    one.expect("ready")
    assert one.exec("/bin/probe", "open", "/proc/1/exe").ok().facts()["open"] == "/proc/1/exe 0"
    assert not os.readlink(f"/proc/{one.pid}/exe").startswith("/memfd")


def test_the_init_of_exec(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """The same before its execve, when it is already inside: held there while the runtime renames its pid file."""
    support.needs_program("strace")
    one = container(bundle("probe").probe("pause")).up()
    place = os.path.join(scratch, "pids")
    os.mkdir(place)
    pid_file = os.path.join(place, "exec.pid")
    # Only the runtime's own calls, and only until the tracer is ended: then it goes on.
    held = [
        "strace",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=renameat",
        "-e",
        "inject=renameat:delay_enter=60s",
    ]
    argv = [*held, *one.command, "exec", "--pid-file", pid_file, one.id, "/bin/probe", "ids"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        # It waits for the runtime, which has written what it then renames.
        support.wait_until(lambda: bool(written_in(place)), "a pid file before it has its name")
        pid = int(written_in(place))
        assert_sealed(pid)
        inside = support.status_field(pid, "NSpid").split()[-1]
        assert_hidden(one, inside)
        # Two pipes to the runtime, no socket, and no directory: not the container's root, and no /proc.
        targets = list(unexpected_in_init(one, pid).values())
        assert [target.partition(":")[0] for target in targets] == ["pipe"] * len(targets), targets
        assert len(targets) <= 2, targets
        assert not [fd for fd in host_fds(pid) if os.path.lexists(f"/proc/{pid}/fd/{fd}/self")]
        # Not by a signal that it would pass on: the runtime goes on where it was held.
        process.kill()
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
        support.kill_children([one.pid])
    assert support.Facts(output)["uid"] == "0 0 0"
    with open(pid_file, "rb") as stream:
        assert stream.read() == b"%d" % pid


def written_in(place: str) -> str:
    """What the one file in the directory says, "" while there is none."""
    for name in os.listdir(place):
        with open(os.path.join(place, name), encoding="ascii") as stream:
            return stream.read()
    return ""


# --- The rest of what a process inherits ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_an_untidy_caller(container: ContainerFactory, bundle: BundleFactory, verb: str) -> None:
    """Signals, pdeath signal, environment and umask stay the caller's own; oom_score_adj is inherited."""
    words = ["signals", "--", "process", "--", "env", "--", "umask", "--", "cat", "/proc/self/oom_score_adj"]
    one = container(bundle("probe").probe(*words))
    if verb == "exec":
        one.bundle.probe("pause").write()
        one.up()
    one.command = [support.PYTHON, "-I", "-c", UNTIDY, *one.command]
    result = one.run() if verb == "run" else one.exec("/bin/probe", *words)
    facts = result.ok().facts()
    assert "blocked" not in facts
    assert "ignored" not in facts
    assert facts["signals"] == "done"
    assert facts["pdeathsig"] == "0"
    assert facts["dumpable"] == "1"
    assert facts["keepcaps"] == "0"
    assert facts["umask"] == "0022"
    env = one.bundle.at("process", "env")
    assert isinstance(env, list)
    assert facts.all("env") == [
        *env,
        *(entry for entry in facts.all("env")[len(env) :] if entry.startswith("HOME=")),
    ]
    assert facts.text.strip().splitlines()[-1] == "123"

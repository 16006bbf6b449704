"""What the program is in the end: ids, capabilities, limits, descriptors, directory, environment."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from init.machine import (
    MS_REC,
    MS_SLAVE,
    NEWIPC,
    NEWNET,
    NEWNS,
    NEWPID,
    NEWTIME,
    NEWUSER,
    NEWUTS,
    Machine,
    box,
    in_rootfs,
    libc,
    map_root,
    mount_new,
    op,
    shell,
)
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from init.machine import Running

ALL = numbers.PLAN_NO_PATH
CHOWN, KILL, SETUID, NET_RAW = 1 << 0, 1 << 5, 1 << 7, 1 << 13


def status(out: str) -> dict[str, str]:
    """The lines of /proc/self/status."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in out.splitlines())}


STATUS = shell("cat /proc/self/status")


# --- Ids and capabilities ---------------------------------------------------------------------------------------------


def test_user_groups_and_capabilities(machine: Machine, rootfs: Path) -> None:
    """All five sets exactly as asked; groups of the caller are gone."""
    wanted = CHOWN | KILL | NET_RAW
    plan = [
        *box(rootfs),
        op("CAPS_BOUNDING", wanted | SETUID),
        op("USER", 1000, 1001, [7, 8], 1),
        op("CAPSET", CHOWN, wanted, KILL | NET_RAW, KILL),
        *STATUS,
    ]
    facts = status(machine.run(plan).ok())
    assert facts["Uid"].split() == ["1000"] * 4
    assert facts["Gid"].split() == ["1001"] * 4
    assert facts["Groups"].split() == ["7", "8"]
    assert int(facts["CapBnd"], 16) == wanted | SETUID
    assert int(facts["CapInh"], 16) == KILL | NET_RAW
    assert int(facts["CapAmb"], 16) == KILL
    # execve(2) of a program without file capabilities by an ordinary user leaves the ambient set
    assert int(facts["CapPrm"], 16) == int(facts["CapEff"], 16) == KILL


def test_capabilities_of_root_come_from_the_bounding_set(machine: Machine, rootfs: Path) -> None:
    """CVE-2022-29162: nothing is inheritable unless asked for."""
    change = [op("CAPS_BOUNDING", CHOWN), op("USER", 0, 0, [], 1), op("CAPSET", CHOWN, CHOWN, 0, 0)]
    plan = [*box(rootfs), *change, *STATUS]
    facts = status(machine.run(plan).ok())
    assert [int(facts[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [
        0,
        CHOWN,
        CHOWN,
        0,
    ]
    assert facts["Groups"] == ""


def test_capability_that_cannot_be_granted_is_a_warning(machine: Machine, rootfs: Path) -> None:
    """config.md: it is told, and the container runs."""
    plan = [
        *box(rootfs),
        op("CAPSET", CHOWN, CHOWN, 0, 0),
        op("CAPSET", CHOWN | NET_RAW, CHOWN | NET_RAW, NET_RAW, NET_RAW),
        *STATUS,
    ]
    result = machine.run(plan)
    result.ok()
    assert [(one.step, one.value) for one in result.warnings] == [("capset", NET_RAW)]


def test_unmapped_user(machine: Machine, rootfs: Path) -> None:
    """EINVAL with the number."""
    plan = [*in_rootfs(rootfs), op("USER", 5, 0, [], 0), op("DONE")]
    error = machine.run(plan, unshare=NEWNS | NEWUSER, outside=map_root).failed()
    assert (error.step, error.errno, error.text) == ("setuid", errno.EINVAL, "5")


def test_setgroups_denied(machine: Machine, rootfs: Path) -> None:
    """A user namespace that denies setgroups is named as the reason."""

    def deny(pid: int) -> None:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
        map_root(pid)

    plan = [*in_rootfs(rootfs), op("USER", 0, 0, [1000], 1), op("DONE")]
    error = machine.run(plan, unshare=NEWNS | NEWUSER, outside=deny).failed()
    assert (error.step, error.errno) == ("setgroups_denied", errno.EPERM)


def test_no_new_privileges(machine: Machine, rootfs: Path) -> None:
    """The bit is set, and only when asked for."""
    assert status(machine.run([*box(rootfs), op("NO_NEW_PRIVS"), *STATUS]).ok())["NoNewPrivs"] == "1"
    assert status(machine.run([*box(rootfs), *STATUS]).ok())["NoNewPrivs"] == "0"


# --- Namespaces -------------------------------------------------------------------------------------------------------


def test_user_namespace_by_unshare(machine: Machine, rootfs: Path) -> None:
    """The whole way of a rootless container: unshare, maps, root of it, the other namespaces, fork, mounts."""
    values = "/proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward"
    plan = [
        op("UNSHARE", NEWUSER),
        op("SYNC", numbers.SYNC["MAPS"]),
        op("USERNS_ROOT", 0, 0, 1),
        op("DUMPABLE", 0),
        op("UNSHARE", NEWNS | NEWPID | NEWUTS | NEWIPC | NEWNET),
        op("FORK", -1, -1),
        op("LOOPBACK_UP"),
        *in_rootfs(
            rootfs,
            mount_new("/proc", "proc", flags=numbers.MOUNT_FLAG_ORDINARY_DIR),
            mount_new("/sys", "sysfs", attrs=1),
            op("DEVICE", "/dev/null", stat.S_IFCHR | 0o666, 1, 3, 0, 0, 0),
        ),
        op("HOSTNAME", "inner"),
        op("SYSCTL", "net/ipv4/ip_forward", "1"),
        op("MASKED_PATH", "/proc/kcore", ""),
        op("MASKED_PATH", "/proc/scsi", ""),
        op("READONLY_PATH", "/proc/sys"),
        op("USER", 1000, 1000, [], 1),
        op("CHDIR", "/tmp", 0),
        *shell(f"echo $$; id -u; cat {values}; ls -d /sys/class/net/lo; pwd"),
    ]
    result = machine.run(plan, unshare=0, answers={"MAPS": lambda running: map_root(running.pid)})
    assert result.ok().split() == ["1", "1000", "inner", "1", "/sys/class/net/lo", "/tmp"]
    assert result.codes == ["MAPS", "FORKED"]


def test_joining_namespaces(machine: Machine, rootfs: Path) -> None:
    """As exec does: the namespaces of a running init, by descriptor and type; pid needs the fork."""
    plan = [
        *in_rootfs(rootfs, mount_new("/proc", "proc")),
        op("HOSTNAME", "joined"),
        op("SYNC", 8),
        op("DONE"),
    ]
    with machine.start(plan, unshare=NEWNS | NEWPID | NEWUTS) as first:
        message = first.receive()
        assert message is not None
        assert message.code == numbers.SYNC["READY"]
        fds = {kind: os.open(f"/proc/{first.pid}/ns/{kind}", os.O_RDONLY) for kind in ("uts", "pid", "mnt")}
        types = {"uts": NEWUTS, "pid": NEWPID, "mnt": NEWNS}
        joins = [op("SETNS", fd, types[kind]) for kind, fd in fds.items()]
        inside = shell("cat /proc/sys/kernel/hostname; echo $$; ls -d /proc/[0-9]*")
        result = machine.run(
            [*joins, op("FORK", -1, -1), op("CHDIR", "/", 0), *inside], unshare=0, keep=list(fds.values())
        )
        assert result.ok().split() == ["joined", "2", "/proc/1", "/proc/2"]
        wrong = machine.run(
            [op("SETNS", fds["uts"], NEWIPC), op("DONE")], unshare=0, keep=list(fds.values())
        )
        assert (wrong.failed().step, wrong.failed().errno) == ("setns", errno.EINVAL)
        for fd in fds.values():
            os.close(fd)


def test_time_offsets(machine: Machine, rootfs: Path) -> None:
    """Written between unshare and fork."""
    plan = [
        op("UNSHARE", NEWTIME),
        op("PROC_SELF", "timens_offsets", "boottime 864000 0\n"),
        op("FORK", -1, -1),
        *box(rootfs),
        *shell("cat /proc/uptime"),
    ]
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert float(machine.run(plan).ok().split()[0]) > uptime + 863_000


# --- Limits and attributes --------------------------------------------------------------------------------------------


def test_limits(machine: Machine, rootfs: Path) -> None:
    """Exactly as asked; what may not be raised is an error with the resource's number."""
    plan = [*box(rootfs), op("RLIMIT", resource.RLIMIT_NOFILE, 100, 200), *shell("cat /proc/self/limits")]
    line = next(line for line in machine.run(plan).ok().splitlines() if line.startswith("Max open files"))
    assert line.split()[3:5] == ["100", "200"]
    bad = machine.run([op("RLIMIT", resource.RLIMIT_NOFILE, 200, 100), op("DONE")]).failed()
    assert (bad.step, bad.errno, bad.text) == ("setrlimit", errno.EINVAL, str(resource.RLIMIT_NOFILE))


def test_values_below_proc_self(machine: Machine, rootfs: Path) -> None:
    """oom_score_adj is the program's; a missing file names itself."""
    plan = [op("PROC_SELF", "oom_score_adj", "321"), *box(rootfs), *shell("cat /proc/self/oom_score_adj")]
    assert machine.run(plan).ok() == "321\n"
    error = machine.run([op("PROC_SELF", "attr/nothing/here", "x"), op("DONE")]).failed()
    assert (error.step, error.errno, error.text) == ("openat2", errno.ENOENT, "attr/nothing/here")


def test_sysctl_of_the_containers_namespaces(machine: Machine, rootfs: Path) -> None:
    """Written without a /proc in the container; the host's value stays."""
    before = Path("/proc/sys/kernel/msgmax").read_text()
    plan = [op("SYSCTL", "kernel/msgmax", "4321"), *box(rootfs), *shell("cat /proc/sys/kernel/msgmax")]
    assert machine.run(plan, unshare=NEWNS | NEWIPC).ok() == "4321\n"
    assert Path("/proc/sys/kernel/msgmax").read_text() == before


@pytest.mark.parametrize("path", ["../self/oom_score_adj", "kernel/../../self/oom_score_adj", "/etc/passwd"])
def test_sysctl_does_not_leave_its_directory(machine: Machine, path: str) -> None:
    """Neither by ".." nor by an absolute path."""
    error = machine.run([op("SYSCTL", path, "1"), op("DONE")], unshare=NEWNS | NEWIPC).failed()
    assert (error.step, error.errno) == ("openat2", errno.EXDEV)


def test_sysctl_refused_by_the_kernel(machine: Machine) -> None:
    """EINVAL of the write, with its path."""
    error = machine.run([op("SYSCTL", "kernel/msgmax", "nonsense"), op("DONE")], unshare=NEWIPC).failed()
    assert (error.step, error.errno, error.text) == ("write", errno.EINVAL, "kernel/msgmax")


def test_values_do_not_follow_the_containers_proc(machine: Machine, rootfs: Path) -> None:
    """CVE-2019-16884, CVE-2025-52881: a fake /proc over the container's takes no writes."""
    fake = rootfs / "proc/self"
    fake.mkdir()
    (fake / "oom_score_adj").write_text("fake")
    plan = [
        *in_rootfs(rootfs),
        op("PROC_SELF", "oom_score_adj", "123"),
        op("SYSCTL", "kernel/msgmax", "4321"),
        op("DONE"),
    ]
    machine.run(plan, unshare=NEWNS | NEWIPC).ok()
    assert (fake / "oom_score_adj").read_text() == "fake"


def test_kernel_attributes(machine: Machine, rootfs: Path) -> None:
    """Scheduling, io priority, affinity, memory policy, personality, session: all reach the program."""
    attr = struct.pack("=IIQiIQQQ", 48, 3, 0, 7, 0, 0, 0, 0)  # SCHED_BATCH, nice 7
    plan = [
        *box(rootfs),
        op("SCHEDULER", attr),
        op("IOPRIO", 3 << 13),
        op("AFFINITY", b"\1"),
        op("MEMPOLICY", 2, b"\1"),
        op("PERSONALITY", 8),
        op("KEYRING", "_ses.test"),
        op("SETSID"),
        op("UMASK", 0o027),
        *shell("cat /proc/self/stat /proc/self/status /proc/self/personality /proc/self/numa_maps; umask"),
    ]
    out = machine.run(plan).ok()
    fields = out.splitlines()[0].rpartition(") ")[2].split()
    assert fields[16] == "7", "nice"
    assert fields[38] == "3", "policy"
    assert status(out)["Cpus_allowed_list"] == "0"
    assert "00000008" in out
    assert out.endswith("0027\n")


def test_signals(machine: Machine, rootfs: Path) -> None:
    """What the caller ignores or blocks does not reach the program."""

    def disturb() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})

    plan = [*box(rootfs), op("EXEC", ["/bin/cat", "/proc/self/status"], [], ALL)]
    facts = status(machine.run(plan, prepare=disturb).ok())
    assert int(facts["SigIgn"], 16) == 0
    assert int(facts["SigBlk"], 16) == 0


@pytest.mark.parametrize("given", [True, False])
def test_umask(machine: Machine, rootfs: Path, given: bool) -> None:
    """The plan's, or the caller's when it has none."""
    mask = [op("UMASK", 0o011)] if given else []
    plan = [*in_rootfs(rootfs), *mask, *shell("umask")]
    assert machine.run(plan, prepare=lambda: os.umask(0o035)).ok() == ("0011\n" if given else "0035\n")


def test_death_signal_of_an_engine(machine: Machine, rootfs: Path) -> None:
    """The runtime may die with its engine, the container may not: PR_SET_PDEATHSIG is not inherited by it."""
    heard, told = os.pipe()
    plan = [*in_rootfs(rootfs), op("SYNC", numbers.SYNC["READY"]), op("DONE")]
    middle = os.fork()
    if middle == 0:
        try:
            running = machine.start(plan, prepare=lambda: libc.prctl(1, signal.SIGKILL, 0, 0, 0))
            running.receive()
            os.write(told, struct.pack("i", running.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(middle, 0)
    (pid,) = struct.unpack("i", os.read(heard, 4))
    _, status_word = os.waitpid(pid, 0)
    os.close(heard)
    os.close(told)
    assert os.waitstatus_to_exitcode(status_word) == 1, "end of file, not the signal"


# --- Directory, program, descriptors ----------------------------------------------------------------------------------


def test_working_directory(machine: Machine, rootfs: Path) -> None:
    """Entered, or an error with its path."""
    assert machine.run([*in_rootfs(rootfs), op("CHDIR", "/bin", 0), *shell("pwd")]).ok() == "/bin\n"
    error = machine.run([*in_rootfs(rootfs), op("CHDIR", "/none", 0), op("DONE")]).failed()
    assert (error.step, error.errno, error.text) == ("chdir", errno.ENOENT, "/none")
    error = machine.run([*in_rootfs(rootfs), op("CHDIR", "/bin/busybox", 0), op("DONE")]).failed()
    assert error.errno == errno.ENOTDIR


def test_working_directory_of_the_user(machine: Machine, rootfs: Path) -> None:
    """CHDIR_TRY: what root may enter and the user may not is entered as root, and the other way round."""
    (rootfs / "private").mkdir(mode=0o700)
    user = [op("USER", 1000, 1000, [], 1), op("CAPSET", 0, 0, 0, 0)]
    as_root = [op("CHDIR", "/private", numbers.CHDIR_TRY), *user, op("CHDIR", "/private", 0)]
    assert machine.run([*in_rootfs(rootfs), *as_root, *shell("pwd")]).ok() == "/private\n"
    error = machine.run([*in_rootfs(rootfs), *user, op("CHDIR", "/private", 0), op("DONE")]).failed()
    assert (error.step, error.errno) == ("chdir", errno.EACCES)
    os.chown(rootfs / "private", 1000, 1000)
    late = [op("CAPSET", SETUID | 1 << 6, SETUID | 1 << 6, 0, 0), op("CHDIR", "/private", numbers.CHDIR_TRY)]
    late += [op("USER", 1000, 1000, [], 0), op("CHDIR", "/private", 0)]
    assert machine.run([*in_rootfs(rootfs), *late, *shell("pwd")]).ok() == "/private\n"


def test_working_directory_outside(machine: Machine, rootfs: Path) -> None:
    """CVE-2024-21626: by a magic link to a leaked descriptor, and by a directory that is not below the root."""
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        leaked = op("CLOSE_FROM", host + 1)
        plan = [*box(rootfs), leaked, op("CHDIR", f"/proc/self/fd/{host}", 0), op("DONE")]
        error = machine.run(plan, keep=[host]).failed()
    finally:
        os.close(host)
    assert error.step == "cwd_outside"
    (rootfs / "way").symlink_to("/proc/self/cwd")
    error = machine.run([*box(rootfs), op("CHDIR", "/way", 0), op("DONE")]).failed()
    assert error.step == "cwd_outside"


@pytest.mark.parametrize(
    ("name", "path", "error"),
    [
        ("nothing", "/bin:/sbin", errno.ENOENT),
        ("nothing", "", errno.ENOENT),
        ("busybox", "", errno.ENOENT),
        ("", "/bin", errno.ENOENT),
        ("/no/such", "/bin", errno.ENOENT),
        ("/etc/passwd", "/bin", errno.EACCES),
        ("passwd", "/etc:/bin", errno.EACCES),
        ("/etc", "/bin", errno.EISDIR),
        ("/bin/busybox/below", "/bin", errno.ENOTDIR),
    ],
)
def test_program_not_found(machine: Machine, rootfs: Path, name: str, path: str, error: int) -> None:
    """Already at LOOKUP, with its name."""
    (rootfs / "etc/passwd").touch()
    found = machine.run([*in_rootfs(rootfs), op("LOOKUP", name, path), op("DONE")]).failed()
    assert (found.step, found.errno, found.text) == ("lookup", error, name)


def test_program_found_by_path(machine: Machine, rootfs: Path) -> None:
    """The first executable file in PATH; directories of that name are passed by; argv[0] is as given."""
    (rootfs / "opt/sh").mkdir(parents=True)
    (rootfs / "etc/sh").touch()
    plan = [
        *in_rootfs(rootfs),
        op("LOOKUP", "sh", "/opt:/etc:/bin"),
        op("EXEC", ["sh", "-c", "echo $0"], [], ALL),
    ]
    assert machine.run(plan).ok() == "sh\n"


def test_program_that_cannot_run(machine: Machine, rootfs: Path) -> None:
    """ENOEXEC of the kernel with the path that was found."""
    script = rootfs / "bin/odd"
    script.write_text("no interpreter")
    script.chmod(0o755)
    plan = [*in_rootfs(rootfs), op("LOOKUP", "odd", "/bin"), op("EXEC", ["odd"], [], ALL)]
    error = machine.run(plan).failed()
    assert (error.step, error.errno, error.text) == ("execve", errno.ENOEXEC, "/bin/odd")


@pytest.mark.parametrize(
    ("passwd", "env", "home"),
    [
        ("root:x:0:0::/root:/bin/sh\nme:x:1000:1000:Me:/home/me:/bin/sh\n", [], "/home/me"),
        ("me:x:1000:1000:Me:/home/me:/bin/sh", [], "/home/me"),
        ("me:x:1000:1000:Me:/home/me", [], "/home/me"),
        ("me:x:1000:1000:Me:/home/me:/bin/sh\n", ["HOME="], "/home/me"),
        ("me:x:1000:1000:Me:/home/me:/bin/sh\n", ["HOME=/given"], "/given"),
        (":::::\n1000\n+\n+::::::\n\n  \nme:x:1000:1000:Me:relative:/bin/sh\n", [], "relative"),
        ("me:x:1000\nother:x:1000:1000::/other:\n", [], "/"),
        ("me:x:1000:1000:::\nother:x:1000:1000::/other:\n", [], "/"),
        ("# me\n #me:x:1000:1000::/comment:\nme:x:1000:1000::/home/me:\n", [], "/home/me"),
        ("+me:x:1000:1000::/plus:\nme:x:1000:1000::/home/me:\n", [], "/plus"),
        ("me:x: +01000:1000::/home/me:\n", [], "/home/me"),
        ("me:x:1000x:1000::/x:\nme:x::1000::/none:\nme:x:10000000001000:1::/huge:\n", [], "/"),
        ("me:x:1000:1000::/home/me:/bin/sh\r\n", [], "/home/me"),
        ("me:x:1000:1000::/home/me \r\n", [], "/home/me"),
        ("me:x:1000:1000::/home/my own :\n", [], "/home/my own "),
        ("me:x:1000:1000::/home/me\0/more:\n", [], "/home/me"),
        ("me:x:1000:1000::\0/more:\n", [], "/"),
        ("me:x:1000:1000::/" + "h" * 5_000 + ":\n", [], "/"),
        ("x" * (1 << 20) + "\nme:x:1000:1000::/home/me:\n", [], "/"),
        ("x" * 10_000 + "\nme:x:1000:1000::/home/me:\n", [], "/home/me"),
        ("a:x:1000:1000:" + "y" * 10_000 + ":/long:\nme:x:1000:1:::\n", [], "/long"),
        (None, [], "/"),
    ],
)
def test_home(machine: Machine, rootfs: Path, passwd: str | None, env: list[str], home: str) -> None:
    """From the container's /etc/passwd when process.env has none or an empty one; read by hand and bounded."""
    if passwd is not None:
        (rootfs / "etc/passwd").write_text(passwd)
    plan = [*in_rootfs(rootfs), op("LOOKUP", "env", "/bin"), op("EXEC", ["env"], [*env, "LAST=1"], 1000)]
    assert sorted(machine.run(plan).ok().splitlines()) == [f"HOME={home}", "LAST=1"]


def test_home_of_a_fifo(machine: Machine, rootfs: Path) -> None:
    """A passwd file that blocks whoever opens it."""
    os.mkfifo(rootfs / "etc/passwd")
    plan = [*in_rootfs(rootfs), op("EXEC", ["/bin/env"], [], 1000)]
    assert machine.run(plan).ok() == "HOME=/\n"


def test_descriptors(machine: Machine, rootfs: Path) -> None:
    """Those below CLOSE_FROM are given, a number nobody uses stays closed, nothing else gets through."""
    base = os.open("/", os.O_RDONLY)
    low = [os.dup2(base, number, inheritable=False) for number in (20, 22)]
    high = os.dup2(base, 60)
    names = [op("EXEC", ["/bin/ls", "/proc/self/fd"], [], ALL)]
    try:
        ops = [*box(rootfs), op("CLOSE_FROM", 24), *names]
        out = machine.run(ops, keep=[*low, high]).ok()
    finally:
        for fd in (base, *low, high):
            os.close(fd)
    # ls itself opens the directory with the lowest free number.
    assert out.split() == ["0", "1", "2", "20", "22", "3"]
    assert machine.run([*box(rootfs), *names], keep=[]).ok().split() == ["0", "1", "2", "3"]


def test_descriptors_of_init_are_never_given(machine: Machine) -> None:
    """A plan that would hand out init's own is refused."""
    error = machine.run([op("CLOSE_FROM", 1000), op("DONE")]).failed()
    assert error.step == "plan"


def test_program_may_not_see_init(machine: Machine, rootfs: Path) -> None:
    """The environment is the plan's alone."""
    plan = [*in_rootfs(rootfs), op("EXEC", ["/bin/env"], ["A=1"], ALL)]
    assert machine.run(plan, prepare=lambda: os.environ.update({"LEAK": "1"})).ok() == "A=1\n"


# --- Waiting for start ------------------------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """exec.fifo as the state directory has it."""
    path = tmp_path / "exec.fifo"
    os.mkfifo(path)
    path.chmod(0o622)
    return path


def wait_on(
    machine: Machine, fifo: Path, before: list[wire.Op], after: list[wire.Op], unshare: int
) -> Running:
    """Start a plan with START_WAIT; returns when init has closed the socket."""
    fd = os.open(fifo, os.O_PATH)
    try:
        plan = [*before, op("SYNC", numbers.SYNC["READY"]), op("START_WAIT", fd), *after]
        running = machine.start(plan, unshare=unshare, keep=[fd], outside=map_root)
    finally:
        os.close(fd)
    result = running.serve()
    assert result.error is None
    assert result.codes[-1] == "READY"
    return running


@pytest.mark.parametrize("namespaces", [NEWNS, NEWNS | NEWUSER | NEWPID])
def test_start(machine: Machine, rootfs: Path, fifo: Path, namespaces: int) -> None:
    """Blocks until start opens the fifo, also as a user that is not dumpable; the end of the fifo means it runs."""
    user = [op("DUMPABLE", 0), op("USER", 1000, 1000, [], 1), op("CAPSET", 0, 0, 0, 0), op("DUMPABLE", 0)]
    before = [*in_rootfs(rootfs), *user]
    with wait_on(machine, fifo, before, shell("id -u"), namespaces) as running:
        start = os.open(fifo, os.O_RDONLY)
        try:
            assert os.read(start, 512) == b""
        finally:
            os.close(start)
        assert running.wait().ok() == "1000\n"


@pytest.mark.parametrize("namespaces", [NEWNS, NEWNS | NEWPID, NEWNS | NEWUSER | NEWPID])
def test_descriptors_while_waiting(machine: Machine, rootfs: Path, fifo: Path, namespaces: int) -> None:
    """stdio, the fifo, and a proc that shows processes of the container only: nothing that leads to the host."""
    ops = box(rootfs, op("DEVICE", "/dev/null", stat.S_IFCHR | 0o666, 1, 3, 0, 0, 0))
    if namespaces & NEWPID:
        ops = in_rootfs(rootfs, mount_new("/proc", "proc"))
    ops += [
        op("MASKED_PATH", "/proc/kcore", ""),
        op("MASKED_PATH", "/etc", ""),
        op("SYSCTL", "kernel/msgmax", "4321"),
    ]
    with wait_on(machine, fifo, ops, [op("DONE")], namespaces | NEWIPC) as running:
        directory = Path(f"/proc/{running.pid}/fd")
        # what the caller has leaked is gone by now, not only when the program starts
        held = {one: os.readlink(one) for one in directory.iterdir() if int(one.name) > 2}
        assert sorted(held.values()) == ["/", str(fifo)]
        (proc,) = [one for one, leads in held.items() if leads == "/"]
        assert (proc / "self").is_symlink()
        assert not (proc / "sys").exists()
        shown = {one.name for one in proc.iterdir() if one.name.isdigit()}
        assert shown == {"1"} if namespaces & NEWPID else str(running.pid) in shown


def test_start_that_fails(machine: Machine, rootfs: Path, fifo: Path) -> None:
    """An error after start goes to the fifo as one message."""
    (rootfs / "bin/odd").write_text("no interpreter")
    (rootfs / "bin/odd").chmod(0o755)
    after = [op("EXEC", ["/bin/odd"], [], ALL)]
    with wait_on(machine, fifo, in_rootfs(rootfs), after, NEWNS) as running:
        start = os.open(fifo, os.O_RDONLY)
        try:
            error = wire.message(os.read(start, numbers.SYNC_MESSAGE_SIZE))
        finally:
            os.close(start)
        assert (error.step, error.errno, error.text) == ("execve", errno.ENOEXEC, "/bin/odd")
        assert running.wait().exit_code == 1


def test_fifo_of_somebody_else(machine: Machine, rootfs: Path, tmp_path: Path) -> None:
    """A fifo that the user may not open is an error of create, not a silent death at start."""
    path = tmp_path / "exec.fifo"
    os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_PATH)
    plan = [*in_rootfs(rootfs), op("USER", 1000, 1000, [], 1), op("START_WAIT", fd), op("DONE")]
    error = machine.run([*plan[:-1], op("DONE")], keep=[fd]).failed()
    os.close(fd)
    assert (error.step, error.errno) == ("openat", errno.EACCES)


def test_memory_while_waiting(built: Path, rootfs: Path, fifo: Path) -> None:
    """A container that waits costs less than 0.3 MB, however large its plan was."""
    blob = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000) * 4000
    before = [*in_rootfs(rootfs, propagation=MS_SLAVE | MS_REC), op("SECCOMP", blob, 0, 0, 0)]
    with wait_on(Machine(built), fifo, before, [op("DONE")], NEWNS) as running:
        rollup = Path(f"/proc/{running.pid}/smaps_rollup").read_text()
        pss = int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
        assert pss <= 300, f"{pss} kB"

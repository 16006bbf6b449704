"""config.md, "Process": what the program gets is what the configuration says, property by property."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, ContainerFactory
    from support import Facts, Json

pytestmark = pytest.mark.root

CAP_CHOWN = 0
CAP_KILL = 5
CAP_NET_RAW = 13
CAP_SYS_RESOURCE = 24
X86_64 = os.uname().machine == "x86_64"
# Of the bundles: what a shell in a container takes for granted.
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def facts(container: ContainerFactory, what: Bundle, *words: str) -> Facts:
    """What the probe says in a container of this bundle."""
    result = container(what.probe(*words)).run().ok()
    assert result.err == "", result
    return result.facts()


# --- args, env, cwd ---------------------------------------------------------------------------------------------------


def test_args_arrive_as_they_are(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Empty ones, spaces, line breaks, quotes, other alphabets, and one that is longer than a page."""
    words = ["", "a b", "'\"$HOME", "two\nlines", "ä€", "x" * 5000, "\\"]
    found = facts(container, bundle("probe"), "args", *words).all("arg")
    assert [item.replace("\\012", "\n").replace("\\134", "\\") for item in found] == words


@pytest.mark.parametrize(
    ("path", "program"),
    [("/nowhere:/etc:/bin", "probe"), (":/nowhere", "probe"), ("", "/bin/probe"), ("/x", "./bin/probe")],
)
def test_the_program_is_looked_up_as_execvp_does(
    container: ContainerFactory, bundle: BundleFactory, path: str, program: str
) -> None:
    """In the container's PATH, an empty element is the working directory; a name with a slash needs no PATH."""
    what = bundle("probe").args(program, "echo", "found")
    what.mapping("process")["env"] = [f"PATH={path}"]
    if path.startswith(":"):
        what.mapping("process")["cwd"] = "/bin"
    assert container(what).run().ok().out == "found\n"


def test_the_hosts_programs_are_not_found(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe").args("python3")
    what.mapping("process")["env"] = ["PATH=/usr/bin:/usr/local/bin"]
    container(what).run().fails("$.process.args", 'exec: "python3": executable file not found in $PATH')


def test_env_is_exactly_that_of_the_configuration(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """The last of equal names wins, values may hold "=", and nothing of the runtime's environment gets in."""
    what = bundle("probe")
    what.mapping("process")["env"] = ["A=1", PATH, "HOME=/tmp", "B==x=", "A=2", "EMPTY="]
    found = facts(container, what, "env").all("env")
    assert sorted(found) == sorted(["A=2", PATH, "HOME=/tmp", "B==x=", "EMPTY="])


@pytest.mark.parametrize(
    ("uid", "given", "home"),
    [
        (0, [], "/root"),
        (1000, [], "/home"),
        (1000, ["HOME="], "/home"),
        (4711, [], "/"),
        (1000, ["HOME=/x"], "/x"),
    ],
)
def test_home_comes_from_the_containers_passwd(
    container: ContainerFactory, bundle: BundleFactory, uid: int, given: list[Json], home: str
) -> None:
    """Engines rely on it; where the file knows nobody of that id it is "/"."""
    what = bundle("probe")
    what.mapping("process")["env"] = [PATH, *given]
    what.mapping("process", "user")["uid"] = uid
    assert f"HOME={home}" in facts(container, what, "env").all("env")


@pytest.mark.parametrize("entry", ["NOEQUALS", "=value"])
def test_a_bad_env_entry_is_named(container: ContainerFactory, bundle: BundleFactory, entry: str) -> None:
    what = bundle("probe")
    what.mapping("process")["env"] = [PATH, entry]
    container(what).run().fails("$.process.env[1]")


def test_a_missing_cwd_is_made(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Mode 0755 whatever the umask; also with a read-only root, because it is made before that."""
    what = bundle("probe")
    what.mapping("process")["cwd"] = "/new/dir/"
    what.mapping("process", "user")["umask"] = 0o077
    what.mapping("root")["readonly"] = True
    assert facts(container, what, "cwd")["cwd"] == "/new/dir"
    made = os.stat(os.path.join(what.rootfs, "new/dir"))
    assert (stat.S_IMODE(made.st_mode), made.st_uid) == (0o755, 0)


def test_cwd_through_a_link_stays_inside(container: ContainerFactory, bundle: BundleFactory) -> None:
    """An absolute link of the image counts from the image's root."""
    what = bundle("probe")
    os.symlink("/var", os.path.join(what.rootfs, "link"))
    what.mapping("process")["cwd"] = "/link"
    assert facts(container, what, "cwd")["cwd"] == "/var"


def test_a_cwd_of_the_user_alone(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Only the user may enter it, root without CAP_DAC_OVERRIDE may not; and the other way round."""
    what = bundle("probe")
    process = what.mapping("process")
    for name, uid in (("theirs", 1000), ("roots", 0)):
        os.mkdir(os.path.join(what.rootfs, name), 0o700)
        os.chown(os.path.join(what.rootfs, name), uid, uid)
    process["user"] = {"uid": 1000, "gid": 1000}
    process["cwd"] = "/theirs"
    assert facts(container, what, "cwd")["cwd"] == "/theirs"
    process["cwd"] = "/roots"
    assert facts(container, what, "cwd")["cwd"] == "/roots"


@pytest.mark.parametrize(
    "cwd", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/cwd/../..", "/proc/1/fd/5/.."]
)
def test_cwd_leads_nowhere_outside(container: ContainerFactory, bundle: BundleFactory, cwd: str) -> None:
    """CVE-2024-21626: no descriptor of the runtime is a way out."""
    what = bundle("probe").probe("cwd")
    what.mapping("process")["cwd"] = cwd
    result = container(what).run()
    assert result.status != 0 or result.facts()["cwd"] == "/", result
    assert result.status == 0 or "$.process.cwd" in result.err, result


def test_a_relative_cwd_is_refused(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe")
    what.mapping("process")["cwd"] = "tmp"
    container(what).run().fails("$.process.cwd", "absolute")


# --- Ids and capabilities ---------------------------------------------------------------------------------------------


def test_user_and_groups(container: ContainerFactory, bundle: BundleFactory) -> None:
    """All of real, effective and saved; supplementary groups are the listed ones alone."""
    what = bundle("probe")
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6, 4294967294]}
    found = facts(container, what, "ids")
    assert (found["uid"], found["gid"]) == ("1000 1000 1000", "1001 1001 1001")
    assert sorted(found["groups"].split()) == ["4294967294", "5", "6"]


def test_without_additional_groups_there_are_none(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Those of the caller are dropped."""
    one = container(bundle("probe").probe("ids"), command=["setpriv", "--groups", "4,20", support.PYRUNC])
    assert one.run().ok().facts()["groups"] == ""


def test_an_unmapped_id_is_refused(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("userns")
    what.mapping("process")["user"] = {"uid": 70000, "gid": 0}
    container(what).run().fails("$.process.user.uid", "uid 70000 is not mapped")


@pytest.mark.parametrize(
    ("umask", "expected"), [(None, "0022"), (0, "0000"), (0o027, "0027"), (0o777, "0777")]
)
def test_umask(container: ContainerFactory, bundle: BundleFactory, umask: int | None, expected: str) -> None:
    what = bundle("probe")
    if umask is not None:
        what.mapping("process", "user")["umask"] = umask
    assert facts(container, what, "umask")["umask"] == expected


def test_all_five_capability_sets(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Each set is what its list says; an ordinary user keeps what is ambient."""
    what = bundle("probe")
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1000}
    what.mapping("process")["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    found = facts(container, what, "caps")
    assert found.capabilities("bounding") == 1 << CAP_KILL | 1 << CAP_CHOWN | 1 << CAP_NET_RAW
    # execve(2) of an ordinary user: permitted and effective become the ambient set.
    for kind in ("permitted", "effective", "inheritable", "ambient"):
        assert found.capabilities(kind) == 1 << CAP_KILL, kind


def test_capabilities_of_root(container: ContainerFactory, bundle: BundleFactory) -> None:
    """execve(2) of root: the bounding set becomes permitted; nothing is inheritable that was not asked for."""
    what = bundle("probe")
    what.mapping("process")["capabilities"] = {
        kind: ["CAP_KILL", "CAP_CHOWN"] for kind in ("bounding", "permitted", "effective")
    }
    found = facts(container, what, "caps")
    expected = 1 << CAP_KILL | 1 << CAP_CHOWN
    assert [found.capabilities(kind) for kind in ("bounding", "permitted", "effective")] == [expected] * 3
    assert [found.capabilities(kind) for kind in ("inheritable", "ambient")] == [0, 0]


def test_without_capabilities_there_are_none(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe")
    del what.mapping("process")["capabilities"]
    found = facts(container, what, "caps")
    assert [value for _, value in found.pairs] == ["0" * 16] * 5


def test_a_capability_that_cannot_be_granted_is_a_warning(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """config.md: "MUST be logged", "SHOULD NOT" fail. Engines read stderr: quiet there without --debug."""
    what = bundle("probe")
    listed: list[Json] = ["CAP_KILL", "CAP_OF_TOMORROW", "CAP_SYS_RESOURCE"]
    what.mapping("process")["capabilities"] = {"bounding": listed, "permitted": listed, "effective": listed}
    lacking = not support.has_capability(CAP_SYS_RESOURCE)
    found = facts(container, what, "caps")
    assert found.capabilities("effective") == 1 << CAP_KILL | (0 if lacking else 1 << CAP_SYS_RESOURCE)
    one = container(what.probe("caps"))
    loud = one.pyrunc("--debug", "run", "--bundle", what.path, one.id).ok()
    assert "CAP_OF_TOMORROW" in loud.err
    assert ("CAP_SYS_RESOURCE" in loud.err) == lacking
    assert "CAP_KILL" not in loud.err


def test_an_ambient_capability_must_be_permitted_and_inheritable(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """capabilities(7): the kernel would not raise it; that is no error."""
    what = bundle("probe")
    what.mapping("process")["capabilities"] = {
        "bounding": ["CAP_KILL"],
        "permitted": ["CAP_KILL"],
        "effective": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    assert facts(container, what, "caps").capabilities("ambient") == 0


# --- Limits and attributes --------------------------------------------------------------------------------------------

RLIMITS = {
    "RLIMIT_AS": (1 << 32, 1 << 33),
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_CPU": (100, 200),
    "RLIMIT_DATA": (1 << 31, 1 << 32),
    "RLIMIT_FSIZE": (1 << 20, 1 << 21),
    "RLIMIT_LOCKS": (10, 20),
    "RLIMIT_MEMLOCK": (4096, 8192),
    "RLIMIT_MSGQUEUE": (1000, 2000),
    "RLIMIT_NICE": (0, 0),
    "RLIMIT_NOFILE": (16, 64),
    "RLIMIT_NPROC": (50, 60),
    "RLIMIT_RSS": (1 << 30, 1 << 31),
    "RLIMIT_RTPRIO": (0, 0),
    "RLIMIT_RTTIME": (1000, 2000),
    "RLIMIT_SIGPENDING": (5, 6),
    "RLIMIT_STACK": (1 << 20, 1 << 22),
}


def test_all_sixteen_limits(container: ContainerFactory, bundle: BundleFactory) -> None:
    """getrlimit(2) inside says what the configuration says."""
    what = bundle("probe")
    what.mapping("process")["rlimits"] = [
        {"type": name, "soft": soft, "hard": hard} for name, (soft, hard) in RLIMITS.items()
    ]
    found = facts(container, what, "rlimits")
    assert dict(found.pairs) == {name: f"{soft} {hard}" for name, (soft, hard) in RLIMITS.items()}


def test_raising_a_limit(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Only CAP_SYS_RESOURCE allows it; without it nothing less than what was asked for is given."""
    with open("/proc/sys/fs/nr_open", encoding="ascii") as stream:
        most = int(stream.read())
    what = bundle("probe").probe("rlimits")
    what.mapping("process")["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": most}]
    result = container(what).run()
    if support.has_capability(CAP_SYS_RESOURCE) or resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= most:
        assert result.ok().facts()["RLIMIT_NOFILE"] == f"64 {most}"
    else:
        result.fails("$.process.rlimits[0]", "operation not permitted")


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(container: ContainerFactory, bundle: BundleFactory, wanted: bool) -> None:
    what = bundle("probe")
    what.mapping("process")["noNewPrivileges"] = wanted
    assert facts(container, what, "process")["no_new_privs"] == str(int(wanted))


def test_a_process_of_its_own(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A session of its own, no signal disposition of the runtime, dumpable again, no descriptor but stdio."""
    found = facts(container, bundle("probe"), "process", "--", "signals", "--", "fds")
    assert (found["pid"], found["sid"], found["pgid"], found["ppid"]) == ("1", "1", "1", "0")
    assert (found["dumpable"], found["keepcaps"], found["securebits"]) == ("1", "0", "0")
    assert found.all("blocked") == found.all("ignored") == []
    assert [item.split()[0] for item in found.all("fd")] == ["0", "1", "2"]


def test_oom_score_adj(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Written when it is set, and left alone when it is not."""
    with open("/proc/self/oom_score_adj", encoding="ascii") as stream:
        own = int(stream.read())
    what = bundle("busybox", "cat", "/proc/self/oom_score_adj")
    assert container(what).run().ok().out == f"{own}\n"
    what.mapping("process")["oomScoreAdj"] = 500
    assert container(what).run().ok().out == "500\n"
    with open(f"/proc/{os.getpid()}/oom_score_adj", encoding="ascii") as stream:
        assert int(stream.read()) == own
    what.mapping("process")["oomScoreAdj"] = 1001
    container(what).run().fails("$.process.oomScoreAdj")


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"policy": "SCHED_OTHER", "nice": 5}, ("0", "0", "5")),
        ({"policy": "SCHED_BATCH", "nice": -3}, ("3", "0", "-3")),
        ({"policy": "SCHED_IDLE"}, ("5", "0", "0")),
        ({"policy": "SCHED_FIFO", "priority": 7}, ("1", "7", "0")),
        (
            {"policy": "SCHED_RR", "priority": 9, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            ("1073741826", "9", "0"),
        ),
    ],
)
def test_scheduler(
    container: ContainerFactory, bundle: BundleFactory, scheduler: Json, expected: tuple[str, str, str]
) -> None:
    """A real-time policy goes to a cgroup with a real-time budget only; where the host has none it is refused."""
    what = bundle("probe").probe("sched")
    what.mapping("process")["scheduler"] = scheduler
    result = container(what).run()
    if result.status != 0 and expected[1] != "0":
        result.fails("$.process.scheduler", "operation not permitted")
        return
    found = result.ok().facts()
    assert (found["policy"], found["priority"], found["nice"]) == expected


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "SCHED_MAGIC"},
        {"policy": "SCHED_FIFO", "nice": 3},
        {"policy": "SCHED_OTHER", "priority": 3},
    ],
)
def test_a_bad_scheduler_is_refused(
    container: ContainerFactory, bundle: BundleFactory, scheduler: Json
) -> None:
    what = bundle("probe")
    what.mapping("process")["scheduler"] = scheduler
    container(what).run().fails("$.process.scheduler")


@pytest.mark.parametrize(
    ("name", "priority", "value"),
    [
        ("IOPRIO_CLASS_BE", 6, 2 << 13 | 6),
        ("IOPRIO_CLASS_IDLE", 0, 3 << 13),
        ("IOPRIO_CLASS_RT", 1, 1 << 13 | 1),
    ],
)
def test_io_priority(
    container: ContainerFactory, bundle: BundleFactory, name: str, priority: int, value: int
) -> None:
    what = bundle("probe")
    what.mapping("process")["ioPriority"] = {"class": name, "priority": priority}
    assert facts(container, what, "sched")["ioprio"] == str(value)


@pytest.mark.parametrize(("domain", "value"), [("LINUX", "00000000"), ("LINUX32", "00000008")])
def test_personality(container: ContainerFactory, bundle: BundleFactory, domain: str, value: str) -> None:
    what = bundle("probe")
    what.mapping("linux")["personality"] = {"domain": domain}
    found = facts(container, what, "personality")
    assert found["personality"] == value
    assert found["machine"] == ("i686" if domain == "LINUX32" and X86_64 else os.uname().machine)


# --- Standard streams -------------------------------------------------------------------------------------------------


def test_pipes_belong_to_the_user(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Or an ordinary user could not open /dev/stdout; what the host shares with others is left alone."""
    what = bundle(
        "busybox", "stat", "-L", "-c", "%u %g %n", "/proc/self/fd/0", "/proc/self/fd/1", "/dev/null"
    )
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1000}
    found = [line.split() for line in container(what).run().ok().out.splitlines()]
    assert [line[0] for line in found] == ["1000", "1000", "0"]
    assert os.stat("/dev/null").st_uid == 0


def test_a_terminal(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """A pty of the container on 0, 1 and 2, of the size asked for, as controlling terminal and as /dev/console."""
    what = bundle("probe").probe("tty", "--", "winsize", "--", "stat", "/dev/console", "--", "process")
    what.mapping("process")["terminal"] = True
    what.mapping("process")["consoleSize"] = {"height": 12, "width": 34}
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1000}
    one = container(what)
    path = os.path.join(scratch, "console.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(10)
        one.create("--console-socket", path).ok()
        connection, _ = server.accept()
        with connection:
            name, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    master = fds[0]
    try:
        assert name
        one.start().ok()
        text = _read_terminal(master)
    finally:
        os.close(master)
    found = support.Facts(text.replace("\r\n", "\n"))
    assert [item.split()[:2] for item in found.all("tty")] == [["0", "yes"], ["1", "yes"], ["2", "yes"]]
    assert {item.split(" ", 2)[2] for item in found.all("tty")} == {"136:0 uid 1000 gid 5"}
    assert (found["controlling"], found["winsize"], found["sid"]) == ("yes", "12 34", "1")
    assert "rdev 136:0" in found["stat"]


def _read_terminal(master: int) -> str:
    text = b""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # EIO: nobody holds the other end any more
            chunk = b""
        if not chunk:
            return text.decode()
        text += chunk


def test_console_size_without_terminal_is_ignored(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """config.md: "MUST ignore consoleSize if terminal is false or unset"."""
    what = bundle("probe")
    what.mapping("process")["consoleSize"] = {"height": 1, "width": 2}
    assert facts(container, what, "tty").all("tty") == ["0 no", "1 no", "2 no"]


# --- Seccomp ----------------------------------------------------------------------------------------------------------

MKDIR, GETPRIORITY, SETHOSTNAME, TOMORROW = 83, 140, 170, 1000


@pytest.fixture
def profile(bundle: BundleFactory) -> Bundle:
    """A bundle whose filter allows everything so far."""
    support.needs(X86_64, "x86_64")
    what = bundle("probe")
    what.mapping("linux")["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    return what


def _rule(what: Bundle, *names: str, **members: Json) -> None:
    what.list_of("linux", "seccomp", "syscalls").append({"names": list(names), **members})


@pytest.mark.parametrize("privileged", [True, False])
def test_denied_calls(container: ContainerFactory, profile: Bundle, privileged: bool) -> None:
    """With the errno asked for, EPERM without one, by argument; with and without noNewPrivileges."""
    profile.mapping("process")["noNewPrivileges"] = not privileged
    _rule(profile, "mkdir", action="SCMP_ACT_ERRNO", errnoRet=28)
    _rule(profile, "sethostname", action="SCMP_ACT_ERRNO")
    wanted: Json = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    _rule(profile, "getpriority", action="SCMP_ACT_ERRNO", errnoRet=77, args=wanted)
    words = f"seccomp {SETHOSTNAME} -- mkdir /new -- seccomp {GETPRIORITY} 1 -- seccomp {GETPRIORITY} 0"
    found = facts(container, profile, *words.split(), "--", "process")
    assert found.all("syscall") == [f"{SETHOSTNAME} -1", f"{GETPRIORITY} -77", f"{GETPRIORITY} 20"]
    assert (found["mkdir"], found["seccomp"]) == ("-28", "2")


def test_a_killing_filter(container: ContainerFactory, profile: Bundle) -> None:
    """128 + SIGSYS."""
    _rule(profile, "sethostname", action="SCMP_ACT_KILL_PROCESS")
    container(profile.probe("seccomp", str(SETHOSTNAME))).run().fails(status=128 + 31)


def test_a_call_of_a_later_kernel_is_not_known(container: ContainerFactory, profile: Bundle) -> None:
    """Programs try a newer call and fall back at ENOSYS; EPERM would be the end of them."""
    profile.mapping("linux", "seccomp").update(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=1)
    _rule(profile, *EVERYDAY, "mkdir", action="SCMP_ACT_ALLOW")
    found = facts(container, profile, "seccomp", str(TOMORROW), "--", "seccomp", str(SETHOSTNAME))
    assert found.all("syscall") == [f"{TOMORROW} -38", f"{SETHOSTNAME} -1"]


@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
@pytest.mark.parametrize("privileged", [True, False])
def test_a_profile_may_forbid_getcwd(
    container: ContainerFactory, profile: Bundle, action: str, privileged: bool
) -> None:
    """The check of the working directory is not what the filter is for: it is made before."""
    _rule(profile, "getcwd", action=action)
    profile.mapping("process").update(noNewPrivileges=not privileged, cwd="/tmp")
    assert container(profile.probe("echo", "alive")).run().ok().out == "alive\n"


# What runc 1.1 calls with its filter on, and what the probe does; not sendmsg, recvmsg, openat2, setresuid or stat.
EVERYDAY = (  # noqa: SIM905
    "prctl setgroups setgid setuid capget capset getcwd chdir newfstatat fstat read write close openat execve"
    " exit_group futex getppid arch_prctl set_tid_address writev brk mmap munmap ioctl rt_sigprocmask"
).split()


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("privileged", [True, False])
def test_a_profile_made_for_runc_is_enough(
    container: ContainerFactory, profile: Bundle, user: int, privileged: bool
) -> None:
    """Without noNewPrivileges the filter is on while init still works: it then does with what others need."""
    profile.mapping("linux", "seccomp")["defaultAction"] = "SCMP_ACT_ERRNO"
    _rule(profile, *EVERYDAY, action="SCMP_ACT_ALLOW")
    process = profile.mapping("process")
    process["user"] = {"uid": user, "gid": user, "additionalGids": [5]}
    process["noNewPrivileges"] = not privileged
    process["cwd"] = "/tmp"
    assert container(profile.probe("echo", "alive")).run().ok().out == "alive\n"


def test_a_listener_answers_for_the_kernel(
    container: ContainerFactory, profile: Bundle, scratch: str
) -> None:
    """The agent gets one message with the container's state and the descriptor, and decides what the call returns."""
    path = os.path.join(scratch, "agent.sock")
    profile.mapping("linux", "seccomp").update(listenerPath=path, listenerMetadata="for the agent")
    _rule(profile, "sethostname", action="SCMP_ACT_NOTIFY")
    one = container(profile.probe("seccomp", str(SETHOSTNAME)))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(10)
        one.create().ok()
        connection, _ = server.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 4)
            assert connection.recv(1) == b""
    message = json.loads(data)
    assert (message["fds"], message["metadata"], len(fds)) == (["seccompFd"], "for the agent", 1)
    assert (message["pid"], message["state"]["id"], message["state"]["status"]) == (
        one.pid,
        one.id,
        "creating",
    )
    one.start().ok()
    support.answer_seccomp(fds[0], number=SETHOSTNAME, error=19)
    os.close(fds[0])
    assert one.output() == f"syscall {SETHOSTNAME} -19\n"


def test_an_agent_that_is_not_there_is_an_error(
    container: ContainerFactory, profile: Bundle, scratch: str
) -> None:
    """config-linux.md: "MUST ... if the runtime fails to send" an error."""
    profile.mapping("linux", "seccomp")["listenerPath"] = os.path.join(scratch, "nobody.sock")
    _rule(profile, "sethostname", action="SCMP_ACT_NOTIFY")
    container(profile).create().fails("$.linux.seccomp.listenerPath")


def test_unknown_names_are_skipped_and_unknown_actions_are_not(
    container: ContainerFactory, profile: Bundle
) -> None:
    """A profile may name calls of other kernels."""
    _rule(profile, "call_of_tomorrow", "mkdir", action="SCMP_ACT_ERRNO", errnoRet=5)
    assert facts(container, profile, "mkdir", "/new")["mkdir"] == "-5"
    _rule(profile, "chown", action="SCMP_ACT_WISH")
    container(profile).run().fails("$.linux.seccomp.syscalls[1].action", "SCMP_ACT_WISH")

"""exec: one more process in a container that runs, described by options or by a file."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from namespaces import FILES, inode, mapped, recorded_cgroups

if TYPE_CHECKING:
    from containers import BundleFactory, Container, ContainerFactory
    from support import Json, Spec

pytestmark = pytest.mark.root

CAP_SYS_ADMIN, CAP_KILL, CAP_NET_RAW = 21, 5, 13


@pytest.fixture
def running(container: ContainerFactory, bundle: BundleFactory) -> Container:
    """A container whose init sleeps."""
    one = container(bundle("probe").probe("pause")).up()
    one.expect("ready")
    return one


def process_file(one: Container, *argv: str, **changes: Json) -> str:
    """A process.json next to the bundle, from the container's own process object."""
    process: Spec = {**one.bundle.mapping("process"), "args": list(argv), **changes}
    path = os.path.join(one.bundle.path, "process.json")
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(process, stream)
    return path


def detach(one: Container, *words: str) -> int:
    """Start a process by `exec --detach` without a pipe of ours; its pid, which is our child's then."""
    pid_file = one.pid_file + ".exec"
    script = 'exec "$@" 0<>/dev/null >&0 2>&0'
    support.run(
        "sh", "-c", script, "sh", *one.command, "exec", "--detach", "--pid-file", pid_file, *words
    ).ok()  # fmt: skip
    with open(pid_file, "rb") as stream:
        digits = stream.read()
    assert digits.isdigit()
    return int(digits)


def cgroups_of(pid: int) -> dict[str, str]:
    """Controller list -> path, as the host sees them."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as stream:
        lines = [line.rstrip("\n").split(":", 2) for line in stream]
    return {controllers: path for _, controllers, path in lines}


# --- What the process is ----------------------------------------------------------------------------------------------


def test_in_all_namespaces_and_cgroups(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """Every kind of namespace, user and time included, and the very cgroups of init."""
    what = mapped(bundle("probe")).namespace("time").probe("pause")
    one = container(what, view=view).up()
    one.expect("ready")
    pid = detach(one, one.id, "/bin/probe", "pause")
    for kind in FILES:
        assert inode(pid, kind) == inode(one.pid, kind), kind
    assert cgroups_of(pid) == cgroups_of(one.pid)
    assert support.children().count(pid) == 1
    one.kill("KILL").ok()
    assert support.wait_for_exit(pid) == -9
    assert one.wait() == -9


def test_it_is_not_in_a_namespace_of_its_own(running: Container) -> None:
    facts = running.exec("/bin/probe", "ns", "--", "process").ok().facts()
    assert facts["pid_for_children"] == inode(running.pid, "pid")
    assert facts["ppid"] == "0"
    assert facts["sid"] == facts.all("pid")[1]
    assert facts["no_new_privs"] == "1"


def test_descriptors_and_environment(running: Container) -> None:
    """Nothing but stdio, and only what the configuration says."""
    facts = running.exec("/bin/probe", "fds", "--", "env", "--", "cwd", "--", "umask").ok().facts()
    assert [line.split()[0] for line in facts.all("fd")] == ["0", "1", "2"]
    assert sorted(line.partition("=")[0] for line in facts.all("env")) == ["HOME", "PATH", "TERM"]
    assert (facts["cwd"], facts["umask"]) == ("/", "0022")


def test_capabilities_are_those_of_the_configuration(running: Container) -> None:
    facts = running.exec("/bin/probe", "caps").ok().facts()
    for kind in ("effective", "permitted", "bounding"):
        assert facts.capabilities(kind) >> CAP_KILL & 1
        assert not facts.capabilities(kind) >> CAP_SYS_ADMIN & 1
    assert facts.capabilities("inheritable") == 0
    assert facts.capabilities("ambient") == 0


def test_rlimits(running: Container) -> None:
    assert running.exec("/bin/probe", "rlimits").ok().facts()["RLIMIT_NOFILE"] == "1024 1024"


def test_rlimits_of_a_file(running: Container) -> None:
    path = process_file(
        running, "/bin/probe", "rlimits", rlimits=[{"type": "RLIMIT_CORE", "soft": 7, "hard": 8}]
    )
    assert running.pyrunc("exec", "-p", path, running.id).ok().facts()["RLIMIT_CORE"] == "7 8"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp(container: ContainerFactory, bundle: BundleFactory, no_new_privileges: bool) -> None:
    what = bundle("seccomp", "/bin/probe", "pause")
    what.mapping("process")["noNewPrivileges"] = no_new_privileges
    one = container(what).up()
    one.expect("ready")
    facts = one.exec("/bin/probe", "sethostname", "x", "--", "process").ok().facts()
    assert (facts["sethostname"], facts["seccomp"]) == ("-1", "2")


def test_in_a_container_whose_init_is_another_user(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    what = bundle("probe").probe("pause")
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [9]}
    one = container(what).up()
    one.expect("ready")
    facts = one.exec("/bin/probe", "ids", "--", "env").ok().facts()
    assert (facts["uid"], facts["gid"], facts["groups"]) == ("1000 1000 1000", "1000 1000 1000", "9")
    assert "HOME=/home" in facts.all("env")
    facts = one.exec("/bin/probe", "ids", "--", "env", options=["--user", "0:0"]).ok().facts()
    assert facts["uid"] == "0 0 0"
    assert "HOME=/root" in facts.all("env")


def test_without_a_mount_namespace(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The container is a chroot, and exec must be in it, too."""
    what = bundle("probe").without_namespace("mount").probe("pause")
    what.spec["mounts"] = []
    what.mapping("linux").pop("maskedPaths", None)
    what.mapping("linux").pop("readonlyPaths", None)
    one = container(what).up()
    one.expect("ready")
    facts = one.exec("/bin/probe", "ls", "/", "--", "cwd").ok().facts()
    assert "boot" not in facts.all("entry")
    assert facts["cwd"] == "/"


# --- Options ----------------------------------------------------------------------------------------------------------


def test_cwd(running: Container) -> None:
    assert running.exec("/bin/probe", "cwd", options=["--cwd", "/usr/bin"]).ok().facts()["cwd"] == "/usr/bin"


def test_env(running: Container) -> None:
    """Added to the configuration's; the last of a name wins."""
    options = ["--env", "A=1", "-e", "TERM=dumb", "--env=A=2,3"]
    env = running.exec("/bin/probe", "env", options=options).ok().facts().all("env")
    assert "A=2,3" in env
    assert "A=1" not in env
    assert "TERM=dumb" in env
    assert "TERM=xterm" not in env
    assert any(item.startswith("PATH=") for item in env)


def test_user_and_groups(running: Container) -> None:
    facts = running.exec(
        "/bin/probe", "ids", options=["-u", "7:8", "-g", "20", "--additional-gids", "30"]
    ).facts()
    assert (facts["uid"], facts["gid"], facts["groups"]) == ("7 7 7", "8 8 8", "20 30")
    assert running.exec("/bin/probe", "ids", options=["--user", "7"]).facts()["gid"] == "0 0 0"


@pytest.mark.parametrize("user", ["root", "0:root", "-1", "0x0", "", ":", "1:", "4294967295", " 1"])
def test_a_user_is_digits(running: Container, user: str) -> None:
    """CVE-2026-30892: what is no number must never become 0."""
    result = running.exec("/bin/probe", "ids", options=[f"--user={user}"])
    if user:
        result.fails("--user", status=255)
    else:
        assert result.ok().facts()["uid"] == "0 0 0"


def test_cap(running: Container) -> None:
    """Bounding, effective and permitted; never inheritable (CVE-2022-29162), ambient only with inheritable ones."""
    facts = (
        running.exec("/bin/probe", "caps", options=["--cap", "CAP_SYS_ADMIN", "-c", "sys_chroot"])
        .ok()
        .facts()
    )
    for kind in ("effective", "permitted", "bounding"):
        assert facts.capabilities(kind) >> CAP_SYS_ADMIN & 1
    assert facts.capabilities("inheritable") == 0
    assert facts.capabilities("ambient") == 0
    words = ["--log-level", "warning", "exec", "--cap", "CAP_NO_SUCH", running.id, "/bin/probe", "caps"]
    assert "CAP_NO_SUCH" in running.pyrunc(*words).ok().err


def test_capabilities_of_a_file(running: Container) -> None:
    only: Json = ["CAP_NET_RAW"]
    path = process_file(
        running,
        "/bin/probe",
        "caps",
        user={"uid": 1000, "gid": 1000},
        capabilities=dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), only),
    )
    facts = running.pyrunc("exec", "--process", path, running.id).ok().facts()
    for kind in ("bounding", "effective", "permitted", "inheritable", "ambient"):
        assert facts.capabilities(kind) == 1 << CAP_NET_RAW, kind


def test_no_new_privs(container: ContainerFactory, bundle: BundleFactory) -> None:
    what = bundle("probe").probe("pause")
    what.mapping("process")["noNewPrivileges"] = False
    one = container(what).up()
    one.expect("ready")
    assert one.exec("/bin/probe", "process").ok().facts()["no_new_privs"] == "0"
    options = ["--no-new-privs"]
    assert one.exec("/bin/probe", "process", options=options).ok().facts()["no_new_privs"] == "1"


def test_preserve_fds(running: Container) -> None:
    words = [*running.command, "exec", "--preserve-fds", "2", running.id, "/bin/probe", "fds"]
    script = 'exec 3</etc/passwd 4</etc/group 5</etc/hosts; exec "$@"'
    facts = support.run("sh", "-c", script, "sh", *words).ok().facts()
    assert [line.split()[0] for line in facts.all("fd")] == ["0", "1", "2", "3", "4"]
    running.exec("/bin/probe", "fds", options=["--preserve-fds", "60"]).fails("preserve", status=255)


def test_ignore_paused(running: Container) -> None:
    """The process is in the frozen cgroup, so it runs when the container does."""
    running.pyrunc("pause", running.id).ok()
    text = "cannot exec in a paused container (use --ignore-paused to override)"
    running.exec("/bin/probe", "ids").fails(text, status=255)
    running.pyrunc("resume", running.id).ok()
    assert running.exec("/bin/probe", "ids", options=["--ignore-paused"]).ok().facts()["uid"] == "0 0 0"


def seen_here(directory: str) -> str:
    """Where a directory of the v2 view is on the host as it is."""
    if os.path.isdir(directory):
        return directory
    unified = next(path for path in support.cgroup_mounts() if os.path.exists(f"{path}/cgroup.controllers"))
    return directory.replace("/sys/fs/cgroup", unified, 1)


def test_cgroup_below(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    one = container(bundle("probe").probe("pause"), view=view).up()
    one.expect("ready")
    directories = dict(recorded_cgroups(one))
    controller = "" if view == "v2" else "pids"
    below = os.path.join(seen_here(directories[controller]), "below")
    os.mkdir(below)
    argument = "below" if view == "v2" else "pids:/below"
    pid = detach(one, "--cgroup", argument, one.id, "/bin/probe", "pause")
    with open(os.path.join(below, "cgroup.procs"), encoding="ascii") as stream:
        assert stream.read().split() == [str(pid)]
    if view == "host":
        assert cgroups_of(pid)["memory"] == cgroups_of(one.pid)["memory"]
    for bad in ("../..", "/missing"):
        words = bad if view == "v2" else f"pids:{bad}"
        one.exec("/bin/probe", "ids", options=["--cgroup", words]).fails("cgroup", status=255)
    one.kill("KILL").ok()
    assert support.wait_for_exit(pid) == -9
    assert one.wait() == -9
    one.delete().ok()
    assert not os.path.exists(below)


def test_init_in_a_child_of_a_v2_cgroup_with_controllers(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """As systemd as init does it: the container's own cgroup may then hold no process any more."""
    one = container(bundle("probe").probe("pause"), view="v2").up()
    one.expect("ready")
    directory = dict(recorded_cgroups(one))[""]
    seen = seen_here(directory)
    with open(f"{seen}/cgroup.controllers", encoding="ascii") as stream:
        controllers = stream.read().split()
    support.needs(bool(controllers), "a cgroup2 controller")
    os.mkdir(f"{seen}/init")
    with open(f"{seen}/init/cgroup.procs", "w", encoding="ascii") as stream:
        stream.write(str(one.pid))
    with open(f"{seen}/cgroup.subtree_control", "w", encoding="ascii") as stream:
        stream.write(f"+{controllers[0]}")
    assert one.exec("/bin/probe", "cgroup").ok().out.endswith("0::/init\n")
    one.exec("/bin/probe", "cgroup", options=["--cgroup", "/"]).fails("holds no processes", status=255)
    assert one.exec("/bin/probe", "cgroup", options=["--cgroup", "/init"]).ok().out.endswith("0::/init\n")


# --- Input, output, exit status ---------------------------------------------------------------------------------------


def test_standard_streams(running: Container) -> None:
    result = running.exec("/bin/probe", "stdin", "--", "stderr", "to stderr", stdin="line 1\nline 2").ok()
    assert (result.out, result.err) == ("line 1\nline 2", "to stderr\n")


@pytest.mark.parametrize(
    ("words", "status"),
    [(["exit", "0"], 0), (["exit", "42"], 42), (["signal", "TERM"], 143), (["signal", "KILL"], 137)],
)
def test_exit_status(running: Container, words: list[str], status: int) -> None:
    """128 + the signal, as shells count."""
    result = running.exec("/bin/probe", *words)
    assert (result.status, result.err) == (status, "")


@pytest.mark.parametrize(
    ("program", "options", "text"),
    [
        ("no-such-program", [], 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such", [], 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/etc/passwd", [], 'exec: "/etc/passwd": permission denied'),
        ("/bin/probe", ["--cwd", "/no/such"], "chdir '/no/such': no such file or directory"),
        ("/bin/probe", ["--cwd", "/etc/passwd"], "not a directory"),
        ("/bin/probe", ["--cwd", "etc"], "Cwd must be an absolute path"),
        ("/bin/probe", ["--env", "A"], "invalid environment variable"),
    ],
)
def test_own_failures_are_255(running: Container, program: str, options: list[str], text: str) -> None:
    running.exec(program, options=options).fails(text, status=255)
    assert support.status_field(running.pid, "State").startswith("S")


def test_nothing_to_run(running: Container) -> None:
    running.exec().fails("args must not be empty", status=255)
    path = process_file(running)
    running.pyrunc("exec", "-p", path, running.id).fails("args must not be empty", "$.args", status=255)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"args": ["x"]}', '{"cwd": "/", "args": [1]}'])
def test_a_bad_process_file(running: Container, text: str) -> None:
    path = os.path.join(running.bundle.path, "process.json")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    result = running.pyrunc("exec", "-p", path, running.id)
    result.fails("process.json" if text in ("", "{") else "$", status=255)
    running.pyrunc("exec", "-p", path + ".missing", running.id).fails(
        f"JSON specification file {path}.missing not found", status=255
    )


def test_in_a_stopped_container(running: Container) -> None:
    running.kill("KILL").ok()
    running.wait()
    running.exec("/bin/probe", "ids").fails("cannot exec in a stopped container", status=255)


@pytest.mark.parametrize("reaped", [True, False])
def test_in_a_container_that_ends_meanwhile(running: Container, reaped: bool) -> None:
    """It was there when exec looked, and has ended before exec joins it: the words are the same."""
    path = process_file(running, "/bin/probe", "ids")
    with open(path, "rb") as stream:
        text = stream.read()
    os.unlink(path)
    os.mkfifo(path)
    argv = [*running.command, "exec", "-p", path, running.id]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        # Opens when exec does, which is after its look.
        with open(path, "wb") as stream:
            running.kill("KILL").ok()
            if reaped:
                running.wait()
            else:
                support.wait_until(lambda: running.status() == "stopped", "its end")
            stream.write(text)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (255, "pyrunc: exec: cannot exec in a stopped container\n")
    running.pyrunc("exec", "missing", "/bin/probe").fails("container does not exist", status=255)


def test_in_a_created_container(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """runc allows it, and so do engines: the container's environment is there."""
    one = container(bundle("probe").probe("pause"), view=view)
    one.create().ok()
    facts = one.exec("/bin/probe", "process", "--", "uname").ok().facts()
    assert facts["hostname"] == "pyrunc"
    assert one.status() == "created"
    one.start().ok()
    one.expect("ready")


def test_a_failed_detached_exec_leaves_nothing(running: Container) -> None:
    pid_file = running.pid_file + ".exec"
    before = support.children()
    words = ["exec", "-d", "--pid-file", pid_file, running.id]
    running.pyrunc(*words, "/no/such").fails("no such file or directory", status=255)
    with open(os.path.join(running.bundle.rootfs, "script"), "w", encoding="ascii") as stream:
        stream.write("#!/no/such/interpreter\n")
    os.chmod(stream.name, 0o755)
    running.pyrunc(*words, "/script").fails("no such file or directory", "hint: ", status=255)
    assert not os.path.exists(pid_file)
    assert support.children() == before


def test_detached_is_adopted_by_the_subreaper(running: Container) -> None:
    """containerd's shim and conmon wait for it."""
    path = process_file(running, "/bin/probe", "exit", "9")
    pid = detach(running, "--process", path, running.id)
    assert support.children().count(pid) == 1
    assert support.wait_for_exit(pid) == 9


def test_many_at_once(running: Container) -> None:
    """Twenty at the same time: each has its own status."""
    started = [
        subprocess.Popen(
            [*running.command, "exec", running.id, "/bin/probe", "exit", str(number)],
            stdin=subprocess.DEVNULL,
        )
        for number in range(20)
    ]
    assert [process.wait(timeout=30) for process in started] == list(range(20))


@pytest.mark.slow
def test_one_that_nobody_collects_holds_up_the_end(running: Container) -> None:
    """pid_namespaces(7): init waits for all in its namespace, be they dead; delete tells that after its 10 s."""
    pid = detach(running, running.id, "/bin/probe", "pause")
    running.delete("--force").fails("container init still running", "its parent does not collect it")
    assert support.wait_for_exit(pid) == -9
    assert running.wait() == -9
    running.delete().ok()

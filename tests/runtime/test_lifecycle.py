"""The lifecycle on real bundles: create, start, state, kill, delete, run, and what a failure leaves behind."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from containers import Bundle, BundleFactory, Container, ContainerFactory, User

pytestmark = pytest.mark.root


def leftovers(one: Container) -> list[str]:
    """What exists of a container that must be gone."""
    found = support.find_cgroups(f"/{one.id}")
    if os.path.lexists(os.path.join(one.root, one.id)):
        found.append(one.root)
    found += support.mounts_below(one.bundle.path)
    return found


def test_a_whole_life(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """created, running, stopped, gone; the program runs at start and not before."""
    one = container(bundle("probe").probe("pause"), view=view)
    assert one.create().ok().out == ""
    state = one.state()
    assert list(state) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert (state["status"], state["pid"], state["bundle"]) == ("created", one.pid, one.bundle.path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", str(state["created"]))
    with open(f"/proc/{one.pid}/cmdline", "rb") as stream:
        assert b"pause" not in stream.read()
    assert one.start().ok().out == ""
    one.expect("ready")
    assert one.status() == "running"
    one.kill("TERM").ok()
    assert one.wait() == 0
    assert one.state()["status"] == "stopped"
    assert one.state()["pid"] == 0
    assert one.delete().ok().err == ""
    assert leftovers(one) == []
    one.delete().fails("container does not exist")


def test_the_pid_file_has_digits_only(container: ContainerFactory, bundle: BundleFactory) -> None:
    """go-runc's Atoi takes no newline."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    with open(one.pid_file, "rb") as stream:
        assert re.fullmatch(rb"[0-9]+", stream.read())


def test_run_returns_the_status_of_the_program(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    one = container(bundle("probe").probe("exit", "7"), view=view)
    assert one.run().fails(status=7).err == ""
    assert leftovers(one) == []


def test_run_of_a_program_killed_by_a_signal(container: ContainerFactory, bundle: BundleFactory) -> None:
    """128 + the signal, as shells count. In the host's pid namespace: elsewhere init is immune to its own signals."""
    one = container(bundle("probe").probe("signal", "KILL").without_namespace("pid"))
    one.run().fails(status=137)


def test_run_keep_leaves_the_stopped_container(container: ContainerFactory, bundle: BundleFactory) -> None:
    one = container(bundle("hello"))
    assert one.run("--keep").ok().out == "hello from a container\n"
    assert one.status() == "stopped"
    one.delete().ok()


def test_create_twice_is_refused(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The first container does not notice."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    again = one.pyrunc("create", "--bundle", one.bundle.path, one.id)
    again.fails("container with given ID already exists")
    assert one.status() == "created"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "ä"])
def test_a_bad_id_is_refused(container: ContainerFactory, bundle: BundleFactory, name: str) -> None:
    one = container(bundle("probe"))
    result = one.pyrunc("create", "--bundle", one.bundle.path, name)
    result.fails("invalid container ID format" if name else "")
    assert not os.path.exists(one.root) or os.listdir(one.root) == []


def test_delete_of_a_created_container_ends_it(container: ContainerFactory, bundle: BundleFactory) -> None:
    """containerd needs it to succeed."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    one.delete().ok()
    assert one.wait() == -9
    assert leftovers(one) == []


def test_delete_of_a_running_container_is_refused_without_force(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    one = container(bundle("probe").probe("pause")).up()
    one.delete().fails(f"cannot delete container {one.id} that is not stopped: running")
    one.delete("--force").ok()
    assert one.wait() == -9
    assert leftovers(one) == []


def test_delete_force_of_an_unknown_container_is_fine(container: ContainerFactory) -> None:
    """Engines send it behind every delete."""
    one = container()
    result = one.delete("--force").ok()
    assert (result.out, result.err) == ("", "")


def test_start_fits_a_created_container_only(container: ContainerFactory, bundle: BundleFactory) -> None:
    one = container(bundle("probe").probe("pause")).up()
    one.start().fails("cannot start an already running container")
    one.kill("KILL").ok()
    one.wait()
    one.start().fails("cannot start a container that has stopped")


def test_kill_fits_a_living_container_only(container: ContainerFactory, bundle: BundleFactory) -> None:
    """By number, name and prefix, in any case; --all on a stopped container is no error."""
    one = container(bundle("probe").probe("sigwait")).up()
    one.expect("ready")
    for spelling, number in (("USR1", 10), ("sigusr2", 12), ("1", 1)):
        one.kill(spelling).ok()
        one.expect(f"signal {number}")
    one.kill("NOSUCH").fails("NOSUCH")
    one.kill("TERM").ok()
    assert one.wait() == 0
    one.kill("TERM").fails("container not running")
    one.kill("KILL", "--all").ok()


def test_kill_reaches_all_of_a_shared_pid_namespace(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """Without a pid namespace of its own the death of init ends nobody else."""
    what = bundle("busybox", "sh", "-c", "sleep 600 & echo $!; exec sleep 600").without_namespace("pid")
    one = container(what, view=view).up()
    child = int(one.expect("\n"))
    one.kill("KILL").ok()
    one.wait()
    support.wait_until(lambda: support.process_gone(child), "the child's end")


def test_later_edits_of_the_configuration_do_not_matter(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """runtime.md, step 2: any updates to config.json after this step MUST NOT affect the container."""
    one = container(bundle("busybox", "echo", "first"))
    one.create().ok()
    one.bundle.args("echo", "second").mapping("process")["env"] = []
    one.bundle.write()
    one.start().ok()
    assert one.output() == "first\n"


def test_a_container_without_process_cannot_start(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """config.md: process is optional at create, REQUIRED at start."""
    what = bundle("probe")
    del what.spec["process"]
    one = container(what)
    one.create().ok()
    one.start().fails("$.process")
    assert one.status() == "created"
    one.delete().ok()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_missing_program_is_an_error_of_create(
    container: ContainerFactory, bundle: BundleFactory, program: str, text: str
) -> None:
    """Engines turn these texts into exit codes 126 and 127."""
    one = container(bundle("busybox", program))
    one.create().fails(text, "$.process.args")
    assert leftovers(one) == []


def test_start_fails_when_execve_does(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A script whose interpreter is missing: found at create, refused by the kernel at start."""
    what = bundle("busybox", "/script")
    with open(os.path.join(what.rootfs, "script"), "w", encoding="ascii") as stream:
        stream.write("#!/no/such/interpreter\n")
    os.chmod(stream.name, 0o755)
    one = container(what)
    one.create().ok()
    one.start().fails('exec: "/script": no such file or directory', "hint: ")
    assert one.status() == "stopped"
    one.delete().ok()
    assert leftovers(one) == []


def test_an_error_is_one_json_line_and_the_bare_message(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """podman reads the log as one JSON document, conmon reads stderr."""
    one = container(bundle("busybox", "/no/such"))
    log = os.path.join(os.path.dirname(one.root), "log.json")
    result = one.pyrunc(
        "--log",
        log,
        "--log-format",
        "json",
        "create",
        "--bundle",
        one.bundle.path,
        "--pid-file",
        one.pid_file,
        one.id,
    )
    with open(log, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    assert len(lines) == 1
    entry = json.loads(lines[0])
    assert entry["level"] == "error"
    assert "no such file or directory" in entry["msg"]
    result.fails(entry["msg"].splitlines()[0])
    assert not os.path.exists(one.pid_file)


def broken(what: Bundle, kind: str) -> str:
    """Make the configuration fail at a certain point; the JSON path that must be named."""
    linux = what.mapping("linux")
    if kind == "mount":
        what.mount("/data", "bind", "/no/such/source", "rbind")
        return f"$.mounts[{len(what.list_of('mounts')) - 1}]"
    if kind == "resources":
        what.mapping("linux", "resources", "cpu")["cpus"] = "4000"
        return "$.linux.resources.cpu.cpus"
    if kind == "hook":
        what.spec["hooks"] = {"createContainer": [{"path": "/bin/false"}]}
        return "$.hooks.createContainer[0]"
    if kind == "namespace":
        what.namespace("ipc", "/proc/self/ns/net")
        return "$.linux.namespaces"
    if kind == "sysctl":
        linux["sysctl"] = {"net.ipv4.no_such_key": "1"}
        return "$.linux.sysctl"
    if kind == "cwd":
        what.mapping("process")["cwd"] = "/etc/passwd"
        return "$.process.cwd"
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["mount", "resources", "hook", "namespace", "sysctl", "cwd"])
def test_a_failed_create_leaves_nothing(
    container: ContainerFactory, bundle: BundleFactory, view: str, kind: str
) -> None:
    """runtime.md, Errors: the state of the environment MUST be as if the operation was never attempted."""
    what = bundle("busybox", "true")
    path = broken(what, kind)
    one = container(what, view=view)
    one.create().fails(path)
    assert leftovers(one) == []
    assert not os.path.exists(one.pid_file)


def test_kill_and_delete_by_pattern(container: ContainerFactory, bundle: BundleFactory) -> None:
    """--regex is found anywhere in the id; who fails is named and keeps nobody else."""
    what = bundle("busybox", "sleep", "600")
    first, second, other = (container(what).up() for _ in range(3))
    first.pyrunc("kill", "--regex", f"({first.id}|{second.id})$", "KILL").ok()
    assert [first.wait(), second.wait()] == [-9, -9]
    assert [one.status() for one in (first, second, other)] == ["stopped", "stopped", "running"]
    refused = first.pyrunc("kill", "-r", f"^{support.ID_PREFIX}", "URG")
    refused.fails(f"container '{first.id}': container not running")
    refused.fails(f"note: container '{second.id}': container not running")
    assert other.id not in refused.err
    first.pyrunc("kill", "--regex", "nobody", "URG").ok()
    first.pyrunc("kill", "--regex", "(", "URG").fails("invalid regular expression '('")
    first.pyrunc("delete", "--regex", ".").fails(
        f"container '{other.id}': cannot delete container {other.id}"
    )
    assert os.listdir(first.root) == [other.id]
    first.pyrunc("delete", "--force", "--regex", ".").ok()
    assert os.listdir(first.root) == []
    other.wait()


def test_another_configuration(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """--config names it, from the working directory on; what it says is relative to the bundle as ever."""
    what = bundle("busybox", "echo", "of the bundle").write()
    other = os.path.join(scratch, "other.json")
    what.args("/bin/busybox", "echo", "of the option")
    with open(other, "w", encoding="utf-8") as stream:
        json.dump(what.spec, stream)
    os.unlink(os.path.join(what.path, "config.json"))
    one = container(what)
    words = ["run", "--bundle", what.path, "--config"]
    assert one.pyrunc(*words, other, one.id).ok().out == "of the option\n"
    assert support.run(*one.command, *words, "other.json", one.id, cwd=scratch).ok().out == "of the option\n"
    assert "of the option" in one.pyrunc("explain", "--bundle", what.path, "-f", other).ok().out
    missing = os.path.join(scratch, "missing.json")
    one.pyrunc(*words, missing, one.id).fails(f"JSON specification file {missing} not found")
    assert leftovers(one) == []


def test_list_and_ps(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    one = container(bundle("busybox", "sh", "-c", "sleep 600 & echo ready; wait"), view=view).up()
    one.expect("ready")
    listed = one.pyrunc("list", "--format", "json").ok().json()
    assert isinstance(listed, list)
    entry = listed[0]
    assert isinstance(entry, dict)
    assert (entry["id"], entry["status"], entry["owner"]) == (one.id, "running", "root")
    assert one.pyrunc("list", "-q").ok().out == f"{one.id}\n"
    assert one.pyrunc("list").ok().out.split("\n")[0].split() == [
        "ID",
        "PID",
        "STATUS",
        "BUNDLE",
        "CREATED",
        "OWNER",
    ]
    pids = one.pyrunc("ps", "--format", "json", one.id).ok().json()
    assert isinstance(pids, list)
    assert len(pids) == 2
    assert one.pid in pids
    table = one.pyrunc("ps", one.id).ok().out.splitlines()
    assert table[0].split()[:2] == ["UID", "PID"]
    assert len(table) == 3


@pytest.mark.slow
def test_pause_and_resume(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    one = container(bundle("probe").probe("sigwait"), view=view).up()
    one.expect("ready")
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "paused"
    one.exec("/bin/probe", "ids").fails("cannot exec in a paused container", status=255)
    one.kill("USR1").ok()
    one.pyrunc("resume", one.id).ok()
    one.expect("signal 10")
    assert one.status() == "running"
    one.pyrunc("resume", one.id).fails("container not paused")
    one.pyrunc("pause", one.id).ok()
    one.kill("KILL").ok()
    assert one.wait() == -9


@pytest.mark.slow
def test_a_created_container_can_be_paused_and_resumed(
    container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """It stays created; start would wait for a program that cannot run, so it is refused until then."""
    one = container(bundle("probe").probe("pause"), view=view)
    one.create().ok()
    one.pyrunc("resume", one.id).fails("container not paused")
    one.pyrunc("pause", one.id).ok()
    one.start().fails("paused")
    one.pyrunc("resume", one.id).ok()
    one.start().ok()
    one.expect("ready")


def test_explain_needs_no_root_and_changes_nothing(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """An ordinary user sees the plan that root's create would carry out, as text and as JSON."""
    what = bundle("busybox", "true").write()
    os.chmod(os.path.dirname(what.path), 0o755)
    words = [*rootless.prefix, rootless.pyrunc, "explain", "--bundle", what.path]
    text = support.run(*words).ok().out
    assert "$.process.args" in text
    document = support.run(*words, "--json").ok().json()
    assert isinstance(document, dict)
    mine = container(what).pyrunc("explain", "--bundle", what.path).ok().out
    assert mine.count("\n") == text.count("\n")
    assert support.mounts_below(what.path) == []


def test_explain_names_the_root_itself(
    container: ContainerFactory, bundle: BundleFactory, rootless: User
) -> None:
    """As create takes it, without links; one that cannot be read is an error of the configuration's in words."""
    what = bundle("probe").probe("ids")
    os.symlink("rootfs", os.path.join(what.path, "link"))
    what.spec["root"] = {"path": "link"}
    what.write()
    told = container(what).pyrunc("explain", "--bundle", what.path).ok().out
    assert what.rootfs in told
    assert f"{what.path}/link" not in told
    what.spec["root"] = {"path": "/proc/1/cwd"}
    what.write()
    os.chmod(what.path, 0o755)
    words = [*rootless.prefix, rootless.pyrunc, "explain", "--bundle", what.path]
    support.run(*words).fails("$.root.path: readlink '/proc/1/cwd': permission denied")

"""Rows of the command line: every command and every option of runc's column, called as engines do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from box import RUNTIME, cgroup_mount, lacks, row
from terminals import FdSocket

if TYPE_CHECKING:
    from box import Box


# --- create and run ---------------------------------------------------------------------------------------------------


@row("create", "create --bundle", "create --pid-file")
def test_create(box: Box) -> None:
    one = box.container()
    one.create().ok()
    with open(one.pid_file, "rb") as stream:
        assert stream.read() == str(one.state()["pid"]).encode()
    assert one.status() == "created"


@row("create: the working directory is the default bundle")
def test_bundle_default(box: Box) -> None:
    one = box.container()
    one.bundle.probe("ids").write()
    result = support.run(*one.command, "run", one.id, cwd=one.bundle.path)
    assert "uid 0 0 0" in result.ok().out


@row("create --config")
def test_config(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "other.json")
    one = box.container()
    one.bundle.probe("ids").write()
    os.rename(os.path.join(one.bundle.path, "config.json"), path)
    result = one.pyrunc("run", "--config", path, "--bundle", one.bundle.path, one.id)
    assert "uid 0 0 0" in result.ok().out


@row("create --console-socket")
def test_console_socket(box: Box, scratch: str) -> None:
    receiver = FdSocket(os.path.join(scratch, "socket"))
    box.set("process.terminal", True)
    one = box.container()
    one.create("--console-socket", receiver.path).ok()
    payload, master = receiver.receive()
    receiver.close()
    assert payload
    assert os.isatty(master)
    os.close(master)


@row("create: a terminal needs a console socket")
def test_terminal_without_socket(box: Box) -> None:
    box.set("process.terminal", True).refused()


@row("create --pidfd-socket")
def test_pidfd_socket(box: Box, scratch: str) -> None:
    receiver = FdSocket(os.path.join(scratch, "socket"))
    one = box.container()
    one.create("--pidfd-socket", receiver.path).ok()
    _, pidfd = receiver.receive()
    receiver.close()
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert one.wait() == -signal.SIGKILL


@row("create --no-pivot")
def test_no_pivot(box: Box) -> None:
    """The root is still the rootfs alone."""
    box.bundle.probe("ls", "/")
    assert "bin" in box.container().run("--no-pivot").ok().facts().all("entry")


@row("create --no-new-keyring")
def test_no_new_keyring(box: Box) -> None:
    """Without it the container has a session keyring of its own, with it ours."""
    ours = support.run(os.path.join(box.bundle.rootfs, "bin/probe"), "keyring").ok().out
    box.bundle.probe("keyring")
    assert box.container().run().ok().out != ours
    assert box.container().run("--no-new-keyring").ok().out == ours


@row("create --record-exit")
def test_record_exit(box: Box) -> None:
    one = box.container()
    one.bundle.probe("exit", "7").write()
    one.create("--record-exit").ok()
    one.start().ok()
    assert one.wait() == 7
    assert one.pyrunc("wait", one.id).ok().out == "7\n"


@row("create --preserve-fds")
def test_preserve_fds(box: Box) -> None:
    one = box.container()
    one.bundle.probe("fds").write()
    words = ["sh", "-c", 'exec 3</dev/null; exec "$@"', "sh", *one.command]
    words += ["run", "--preserve-fds", "1", "--bundle", one.bundle.path, one.id]
    facts = support.run(*words).ok().facts()
    assert [line.split()[0] for line in facts.all("fd")] == ["0", "1", "2", "3"]


@row("create: an id that is taken or invalid is refused")
def test_ids(box: Box) -> None:
    one = box.up()
    assert one.pyrunc("create", "--bundle", one.bundle.path, one.id).status != 0
    for name in ("..", "a/b", "a b"):
        assert one.pyrunc("create", "--bundle", one.bundle.path, name).status != 0


@row("create: later edits of config.json do not matter")
def test_private_copy(box: Box) -> None:
    box.bundle.probe("pause")
    one = box.container()
    one.create().ok()
    with open(os.path.join(one.bundle.path, "config.json"), "w", encoding="ascii") as stream:
        stream.write("nonsense")
    one.start().ok()
    one.expect("ready")
    assert one.status() == "running"


@row("run", "run: the exit status is the program's")
@pytest.mark.parametrize("status", [0, 7])
def test_run(box: Box, status: int) -> None:
    assert box.run("exit", str(status)).status == status


@row("run: 128 + signal")
def test_run_signal(box: Box) -> None:
    box.bundle.probe("signal", "KILL")
    # Signals from within do not end the init of a pid namespace.
    box.bundle.without_namespace("pid")
    assert box.run().status == 137


@row("run --detach", "run --pid-file")
def test_run_detached(box: Box) -> None:
    one = box.container()
    one.bundle.probe("pause").write()
    one.detached("run", "--detach", "--pid-file", one.pid_file, "--bundle", one.bundle.path, one.id).ok()
    assert one.status() == "running"


@row("run --keep")
def test_run_keep(box: Box) -> None:
    one = box.container()
    one.bundle.probe("exit", "0").write()
    one.run("--keep").ok()
    assert one.status() == "stopped"


@row("run --no-subreaper")
def test_run_no_subreaper(box: Box) -> None:
    box.bundle.probe("exit", "0")
    box.container().run("--no-subreaper").ok()


# --- The other verbs --------------------------------------------------------------------------------------------------


@row("start")
def test_start(box: Box) -> None:
    one = box.up()
    assert one.status() == "running"
    assert one.start().status != 0


@row("state")
def test_state(box: Box) -> None:
    one = box.up()
    state = one.state()
    assert {"ociVersion", "id", "status", "pid", "bundle"} <= state.keys()
    assert state["bundle"] == one.bundle.path
    assert one.pyrunc("state", "no-such-container").status != 0


@row("kill")
@pytest.mark.parametrize("name", ["KILL", "SIGKILL", "9", "sigkill"])
def test_kill(box: Box, name: str) -> None:
    one = box.up()
    one.kill(name).ok()
    assert one.wait() == -signal.SIGKILL


@row("kill")
def test_kill_default(box: Box) -> None:
    one = box.up()
    one.pyrunc("kill", one.id).ok()
    assert one.wait() == 0


@row("kill --all")
def test_kill_all(box: Box) -> None:
    one = box.up()
    one.pyrunc("kill", "--all", one.id, "9").ok()
    assert one.wait() == -signal.SIGKILL
    # CRI-O and containerd do it to a stopped one.
    one.pyrunc("kill", "--all", one.id, "9").ok()


@row("kill --regex", "delete --regex")
def test_regex(box: Box) -> None:
    one = box.up()
    assert one.pyrunc("kill", f"^{one.id[:-1]}.$", "KILL").status != 0
    one.pyrunc("kill", "--regex", f"^{one.id[:-1]}.$", "KILL").ok()
    assert one.wait() == -signal.SIGKILL
    one.pyrunc("delete", "--regex", one.id[1:]).ok()
    assert one.pyrunc("state", one.id).status != 0


@row("kill: a stopped container is an error")
def test_kill_stopped(box: Box) -> None:
    one = box.up()
    one.kill().ok()
    one.wait()
    one.kill().fails("not running")


@row("delete")
def test_delete(box: Box) -> None:
    one = box.up()
    assert one.delete().status != 0
    one.kill().ok()
    one.wait()
    one.delete().ok()
    assert one.pyrunc("state", one.id).status != 0


@row("delete: of a created container kills it")
def test_delete_created(box: Box) -> None:
    one = box.container()
    one.create().ok()
    one.delete().ok()


@row("delete --force")
def test_delete_force(box: Box) -> None:
    one = box.up()
    one.delete("--force").ok()
    one.pyrunc("delete", "--force", "no-such-container").ok()


@row("list", "list --format", "list --quiet")
def test_list(box: Box) -> None:
    one = box.up()
    assert one.id in one.pyrunc("list").ok().out
    assert one.pyrunc("list", "--quiet").ok().out.split() == [one.id]
    entries = one.pyrunc("list", "--format", "json").ok().json()
    assert isinstance(entries, list)
    (entry,) = entries
    assert isinstance(entry, dict)
    assert entry["id"] == one.id


@row("ps", "ps --format")
def test_ps(box: Box) -> None:
    one = box.up()
    assert one.pyrunc("ps", "--format", "json", one.id).ok().json() == [one.pid]
    assert str(one.pid) in one.pyrunc("ps", one.id).ok().out


@row("ps: options of ps(1)")
def test_ps_options(box: Box) -> None:
    one = box.up()
    assert "probe" in one.pyrunc("ps", one.id, "-o", "pid,comm").ok().out


@row("pause", "resume")
def test_pause(box: Box) -> None:
    one = box.up()
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "paused"
    one.pyrunc("resume", one.id).ok()
    assert one.status() == "running"
    assert one.pyrunc("resume", one.id).status != 0


@row("spec", "spec --bundle", "spec --rootless")
@pytest.mark.parametrize("options", [[], ["--rootless"]])
def test_spec(scratch: str, options: list[str]) -> None:
    support.run(RUNTIME, "spec", *options, "--bundle", scratch).ok()
    with open(os.path.join(scratch, "config.json"), encoding="utf-8") as stream:
        assert "ociVersion" in json.load(stream)
    assert support.run(RUNTIME, "spec", "--bundle", scratch).status != 0


@row("spec --file")
def test_spec_file(scratch: str) -> None:
    support.run(RUNTIME, "spec", "--bundle", scratch, "--file", "other.json").ok()
    assert os.listdir(scratch) == ["other.json"]


@row("explain")
def test_explain(box: Box) -> None:
    """pyrunc's own: what create would do, without doing it."""
    box.bundle.probe("ids").write()
    assert "pivot_root" in support.run(RUNTIME, "explain", "--bundle", box.bundle.path).ok().out


@row("explain --json")
def test_explain_json(box: Box) -> None:
    """pyrunc's own: the same for programs."""
    box.bundle.probe("ids").write()
    found = support.run(RUNTIME, "explain", "--json", "--bundle", box.bundle.path).ok().json()
    assert "$.process.args" in str(found)


@row("version")
def test_version_command() -> None:
    """pyrunc's own: the same as the option."""
    assert support.run(RUNTIME, "version").ok().out == support.run(RUNTIME, "--version").ok().out


@row("features")
def test_features() -> None:
    found = support.run(RUNTIME, "features").ok().json()
    assert isinstance(found, dict)
    assert found["ociVersionMin"]
    assert "rro" in str(found["mountOptions"])


# --- exec -------------------------------------------------------------------------------------------------------------


@row("exec", "exec: the exit status is the program's")
def test_exec(box: Box) -> None:
    one = box.up()
    assert one.exec("/bin/probe", "exit", "9").status == 9
    assert one.exec("/bin/nowhere").status == 255


EXEC_OPTIONS: list[tuple[str, list[str], list[str], str]] = [
    ("--cwd", ["--cwd", "/dev"], ["cwd"], "cwd /dev"),
    ("--env", ["--env", "A=1"], ["env"], "env A=1"),
    ("--user", ["--user", "5:6"], ["ids"], "uid 5 5 5\ngid 6 6 6"),
    ("--additional-gids", ["--additional-gids", "7", "-g", "8"], ["ids"], "groups 7 8"),
    ("--no-new-privs", ["--no-new-privs"], ["process"], "no_new_privs 1"),
    ("--cap", ["--cap", "CAP_NET_ADMIN"], ["caps"], "effective 00000000a80435fb"),
    ("--ignore-paused", ["--ignore-paused"], ["ids"], "uid 0"),
    ("--cgroup", ["--cgroup", "/"], ["ids"], "uid 0"),
]


@row("exec {option}")
@pytest.mark.parametrize(("option", "words", "command", "shown"), EXEC_OPTIONS)
def test_exec_option(box: Box, option: str, words: list[str], command: list[str], shown: str) -> None:
    one = box.up()
    assert shown in one.exec("/bin/probe", *command, options=words).ok().out


@row("exec --process", "exec --detach", "exec --pid-file")
def test_exec_process(box: Box, scratch: str) -> None:
    one = box.up()
    path, pid_file = os.path.join(scratch, "process.json"), os.path.join(scratch, "exec.pid")
    with open(path, "w", encoding="ascii") as stream:
        json.dump({**box.bundle.mapping("process"), "args": ["/bin/probe", "pause"]}, stream)
    one.detached("exec", "--process", path, "--detach", "--pid-file", pid_file, one.id).ok()
    with open(pid_file, encoding="ascii") as stream:
        pid = int(stream.read())
    os.kill(pid, signal.SIGKILL)
    assert support.wait_for_exit(pid) == -signal.SIGKILL


@row("exec --tty", "exec --console-socket")
def test_exec_tty(box: Box, scratch: str) -> None:
    receiver = FdSocket(os.path.join(scratch, "socket"))
    one = box.up()
    pid_file = os.path.join(scratch, "exec.pid")
    words = ["exec", "--detach", "--tty", "--console-socket", receiver.path, "--pid-file", pid_file]
    one.detached(*words, one.id, "/bin/probe", "tty").ok()
    _, master = receiver.receive()
    receiver.close()
    assert os.isatty(master)
    with open(pid_file, encoding="ascii") as stream:
        support.wait_for_exit(int(stream.read()))
    os.close(master)


@row("exec --preserve-fds")
def test_exec_preserve_fds(box: Box) -> None:
    one = box.up()
    words = ["sh", "-c", 'exec 3</dev/null; exec "$@"', "sh", *one.command, "exec", "--preserve-fds", "1"]
    facts = support.run(*words, one.id, "/bin/probe", "fds").ok().facts()
    assert [line.split()[0] for line in facts.all("fd")] == ["0", "1", "2", "3"]


@row("exec --pidfd-socket")
def test_exec_pidfd_socket(box: Box, scratch: str) -> None:
    receiver = FdSocket(os.path.join(scratch, "socket"))
    one = box.up()
    argv = [*one.command, "exec", "--pidfd-socket", receiver.path, one.id, "/bin/probe", "exit", "3"]
    process = subprocess.Popen(argv, cwd="/")
    _, pidfd = receiver.receive()
    os.close(pidfd)
    receiver.close()
    assert process.wait(timeout=10) == 3


@row("exec {option}")
@pytest.mark.parametrize(
    ("option", "path", "module"),
    [
        ("--apparmor", "/sys/kernel/security/apparmor", "AppArmor"),
        ("--process-label", "/sys/fs/selinux/enforce", "SELinux"),
    ],
)
def test_exec_labels(box: Box, option: str, path: str, module: str) -> None:
    one = box.up()
    result = one.exec("/bin/probe", "ids", options=[option, "nonexistent"])
    assert result.status == 255
    if not os.path.exists(path):
        lacks(f"{module}; that it is refused then was seen")


@row("exec --cgroup: a cgroup below the container's, of one controller")
def test_exec_below(box: Box) -> None:
    one = box.up()
    mount = cgroup_mount("pids")
    if mount is None:
        lacks("the v1 controller pids")
    with open(f"/proc/{one.pid}/cgroup", encoding="ascii") as stream:
        lines = [line.rstrip("\n").split(":", 2) for line in stream]
    path = next(path for _, controllers, path in lines if "pids" in controllers.split(","))
    os.mkdir(f"{mount}{path}/below")
    shown = one.exec("/bin/probe", "cgroup", options=["--cgroup", "pids:below"]).ok().out.splitlines()
    assert [line.rpartition("/")[2] for line in shown if ":pids:" in line] == ["below"]
    assert not any(line.endswith("/below") for line in shown if ":memory:" in line)
    assert one.exec("/bin/probe", "cgroup", options=["--cgroup", "pids:nowhere"]).status == 255
    assert one.exec("/bin/probe", "cgroup", options=["--cgroup", "pids:.."]).status == 255


@row("exec: a paused or stopped container is an error")
def test_exec_states(box: Box) -> None:
    one = box.up()
    one.pyrunc("pause", one.id).ok()
    assert one.exec("/bin/probe", "ids").status == 255
    one.pyrunc("resume", one.id).ok()
    one.kill().ok()
    one.wait()
    assert one.exec("/bin/probe", "ids").status == 255


# --- Environment and descriptors --------------------------------------------------------------------------------------


@row("LISTEN_FDS")
def test_listen_fds(box: Box) -> None:
    one = box.container()
    one.bundle.probe("listen", "--", "fds").write()
    words = ["sh", "-c", 'exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh", *one.command]
    facts = support.run(*words, "run", "--bundle", one.bundle.path, one.id).ok().facts()
    assert facts["LISTEN_FDS"] == "1"
    assert [line.split()[0] for line in facts.all("fd")[-4:]] == ["0", "1", "2", "3"]


@row("NOTIFY_SOCKET")
def test_notify_socket(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10)
        one = box.container()
        one.bundle.probe("notify", "READY=1").write()
        env = {**os.environ, "NOTIFY_SOCKET": path}
        support.run(*one.command, "run", "--bundle", one.bundle.path, one.id, env=env).ok()
        assert b"READY=1" in manager.recv(4096)


@row("HOME is set from the container's /etc/passwd")
@pytest.mark.parametrize("given", [None, "HOME=", "HOME=/mine"])
def test_home(box: Box, given: str | None) -> None:
    with open(os.path.join(box.bundle.rootfs, "etc/passwd"), "a", encoding="ascii") as stream:
        stream.write("five:x:5:5::/home/five:/bin/sh\n")
    box.set("process.user", {"uid": 5, "gid": 5})
    if given:
        box.add("process.env", given)
    found = [line for line in box.facts("env").all("env") if line.startswith("HOME=")]
    assert found == ["HOME=/mine" if given == "HOME=/mine" else "HOME=/home/five"]


@row("attached run forwards signals")
def test_forwarded_signals(box: Box) -> None:
    one = box.container()
    one.bundle.probe("sigwait").write()
    argv = [*one.command, "run", "--bundle", one.bundle.path, one.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == f"signal {signal.SIGUSR1:d}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0

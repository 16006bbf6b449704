"""Rows of what a runtime prints and writes for programs: state, list, ps, events, features, files and sockets."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import support
from box import RUNTIME, entry, row
from terminals import FdSocket

if TYPE_CHECKING:
    from box import Box
    from support import Json, Spec

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z"


# --- state and list ---------------------------------------------------------------------------------------------------


@row("state: ociVersion id pid status bundle rootfs created annotations owner, in this order")
def test_state(box: Box) -> None:
    one = box.set("annotations", {"a": "b"}).up()
    text = one.pyrunc("state", one.id).ok().out
    state = entry(json.loads(text))
    keys = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"]
    assert list(state) == keys
    assert text == json.dumps(state, indent=2)
    assert (state["id"], state["pid"], state["status"]) == (one.id, one.pid, "running")
    assert (state["bundle"], state["rootfs"]) == (one.bundle.path, one.bundle.rootfs)
    assert re.fullmatch(TIME, str(state["created"]))
    assert re.fullmatch(r"1\.\d+\.\d+.*", str(state["ociVersion"]))


@row("state: without annotations there is no such key", "state: of a stopped container the pid is 0")
def test_state_of_a_stopped_one(box: Box) -> None:
    one = box.up()
    assert "annotations" not in one.state()
    one.kill().ok()
    one.wait()
    assert (one.state()["pid"], one.status()) == (0, "stopped")


@row("state: creating, created, running, paused, stopped")
def test_statuses(box: Box) -> None:
    box.bundle.probe("pause")
    one = box.container()
    one.create().ok()
    seen = [one.status()]
    one.start().ok()
    one.expect("ready")
    seen.append(one.status())
    one.pyrunc("pause", one.id).ok()
    seen.append(one.status())
    one.pyrunc("resume", one.id).ok()
    one.kill().ok()
    one.wait()
    assert [*seen, one.status()] == ["created", "running", "paused", "stopped"]


@row("list: the table is runc's to the byte")
def test_list_table(box: Box) -> None:
    one = box.up()
    heading, line = one.pyrunc("list").ok().out.splitlines()
    assert heading.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    cells = line.split()
    assert cells[:4] == [one.id, str(one.pid), "running", one.bundle.path]
    assert re.fullmatch(TIME, cells[4])
    assert cells[5] == pwd.getpwuid(os.getuid()).pw_name
    # Go's tabwriter: columns of 12 at least, 3 between, the last one as it is.
    widths = [max(12, len(cell) + 3) for cell in cells[:5]]
    for shown, texts in ((heading, heading.split()), (line, cells)):
        assert (
            shown
            == "".join(f"{text:{width}}" for text, width in zip(texts, widths, strict=False)) + texts[5]
        )


@row("list --format json: one line, the keys of state, the owner")
def test_list_json(box: Box) -> None:
    one = box.up()
    text = one.pyrunc("list", "--format", "json").ok().out
    assert text.endswith("\n")
    (state,) = json.loads(text.removesuffix("\n"))
    assert "\n" not in text.removesuffix("\n")
    assert list(state) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert state["owner"] == pwd.getpwuid(os.getuid()).pw_name


@row("list: null for none", "list: a --root that is not there is an error")
def test_empty_list(box: Box, scratch: str) -> None:
    one = box.container()
    os.makedirs(one.root)
    assert one.pyrunc("list", "--format", "json").ok().out.strip() == "null"
    assert one.pyrunc("list", "--quiet").ok().out == ""
    assert support.run(RUNTIME, "--root", os.path.join(scratch, "nowhere"), "list").status != 0


@row("list: a broken container is left out with a word on stderr")
def test_broken_container(box: Box) -> None:
    one = box.up()
    os.mkdir(os.path.join(one.root, "broken"))
    for name in os.listdir(os.path.join(one.root, one.id)):
        if "state" in name or name == "status":
            with open(os.path.join(one.root, "broken", name), "w", encoding="ascii") as stream:
                stream.write("nonsense")
    result = one.pyrunc("list", "--quiet").ok()
    assert result.out.split() == [one.id]
    assert "broken" in result.err


@row("list --format: an unknown one is an error", "ps --format: an unknown one is an error")
def test_unknown_format(box: Box) -> None:
    one = box.up()
    assert one.pyrunc("list", "--format", "xml").status != 0
    assert one.pyrunc("ps", "--format", "xml", one.id).status != 0


# --- ps and events ----------------------------------------------------------------------------------------------------


@row("ps: ps -ef, the heading and the container's processes")
def test_ps(box: Box) -> None:
    one = box.up()
    lines = one.pyrunc("ps", one.id).ok().out.splitlines()
    assert lines[0].split()[:3] == ["UID", "PID", "PPID"]
    assert [line.split()[1] for line in lines[1:]] == [str(one.pid)]


@row("ps: options of ps(1)")
@pytest.mark.parametrize("words", [["-o", "pid,comm"], ["aux"], ["-eo", "user,pid,args"]])
def test_ps_options(box: Box, words: list[str]) -> None:
    one = box.up()
    lines = one.pyrunc("ps", one.id, *words).ok().out.splitlines()
    at = lines[0].split().index("PID")
    assert [line.split()[at] for line in lines[1:]] == [str(one.pid)]


@row("ps: without a PID column it is an error")
def test_ps_without_pids(box: Box) -> None:
    one = box.up()
    assert one.pyrunc("ps", one.id, "-o", "comm").status != 0


# Key of runc's stats -> what is always in it.
STATS: dict[str, list[str]] = {
    "cpu": ["usage", "throttling"],
    "cpuset": ["cpu_exclusive", "mem_hardwall", "sched_load_balance"],
    "memory": ["usage", "swap", "kernel", "kernelTCP"],
    "pids": [],
    "blkio": [],
    "hugetlb": [],
    "intel_rdt": [],
    "network_interfaces": [],
}


@row("events --stats: type, id, data and the keys of data")
def test_stats(box: Box) -> None:
    """go-runc's Stats."""
    one = (
        box.set("linux.resources.pids", {"limit": 99})
        .set("linux.resources.memory", {"limit": 64 << 20})
        .up()
    )
    text = one.pyrunc("events", "--stats", one.id).ok().out
    assert text.count("\n") == 1
    event = entry(json.loads(text))
    assert list(event) == ["type", "id", "data"]
    data = entry(event["data"])
    assert list(data) == list(STATS)
    for key, members in STATS.items():
        assert set(members) <= set(entry(data[key] or {})), key
    assert data["network_interfaces"] is None or isinstance(data["network_interfaces"], list)
    box.cgroup_value(one, ("pids", "pids.max"), "pids.max")
    assert entry(data["pids"]) == {"current": 1, "limit": 99}
    usage = entry(entry(data["memory"])["usage"])
    assert usage["limit"] == 64 << 20
    assert 0 < int(str(usage["usage"])) < 64 << 20
    assert int(str(entry(entry(data["cpu"])["usage"])["total"])) > 0


@row("events: oom")
def test_out_of_memory(box: Box) -> None:
    box.set("linux.resources.memory", {"limit": 16 << 20, "swap": 16 << 20})
    box.bundle.probe("sigonce", "USR1", "--", "oom", "64")
    one = box.container().up()
    one.expect("waiting")
    box.cgroup_value(one, ("memory", "memory.limit_in_bytes"), "memory.max")
    argv = [*one.command, "events", "--interval", "50ms", one.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/") as process:
        assert process.stdout is not None
        process.stdout.readline()
        one.kill("USR1").ok()
        one.wait()
        one.delete().ok()
        # It ends with the cgroup; whoever does not is ended.
        watchdog = threading.Timer(10, process.kill)
        watchdog.start()
        found = [json.loads(line) for line in process.stdout]
        status = process.wait()
        watchdog.cancel()
    assert status == 0
    assert {"type": "oom", "id": one.id} in [{key: event[key] for key in ("type", "id")} for event in found]


@row("events: of a stopped container is an error", "events --interval: must be a duration above 0")
def test_events_refused(box: Box) -> None:
    one = box.up()
    for text in ("0s", "-1s", "5", "nonsense"):
        assert one.pyrunc("events", "--stats", "--interval", text, one.id).status != 0
    one.kill().ok()
    one.wait()
    result = one.pyrunc("events", "--stats", one.id)
    assert result.status != 0
    assert "not running" in result.err


# --- features ---------------------------------------------------------------------------------------------------------


@row("features: the document of the specification")
def test_features() -> None:
    """features.md and features-linux.md; CRI-O and containerd read it."""
    text = support.run(RUNTIME, "features").ok().out
    found = entry(json.loads(text))
    assert text == json.dumps(found, indent=4) + "\n"
    for key in ("ociVersionMin", "ociVersionMax"):
        assert re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?(\+[\w.]+)?", str(found[key]))
    kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    assert found["hooks"] == kinds
    linux = entry(found["linux"])
    spaces = {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
    assert set(_texts(linux["namespaces"])) >= spaces - {"time"}
    assert all(re.fullmatch("CAP_[A-Z_]+", name) for name in _texts(linux["capabilities"]))
    assert {"v1", "v2", "systemd", "systemdUser"} <= set(entry(linux["cgroup"]))
    seccomp = entry(linux["seccomp"])
    assert seccomp["enabled"] is True
    assert "SCMP_ACT_NOTIFY" in _texts(seccomp["actions"])
    assert "SCMP_CMP_MASKED_EQ" in _texts(seccomp["operators"])
    for name in ("apparmor", "selinux"):
        assert isinstance(entry(linux[name])["enabled"], bool)


def _texts(value: Json) -> list[str]:
    assert isinstance(value, list)
    return [str(item) for item in value]


@row("features: intelRdt, memoryPolicy, mountExtensions, netDevices of 1.2 and 1.3")
def test_new_features() -> None:
    linux = entry(entry(json.loads(support.run(RUNTIME, "features").ok().out))["linux"])
    assert {"enabled", "schemata", "monitoring"} <= set(entry(linux["intelRdt"]))
    assert "MPOL_BIND" in _texts(entry(linux["memoryPolicy"])["modes"])
    assert isinstance(entry(entry(linux["mountExtensions"])["idmap"])["enabled"], bool)
    assert isinstance(entry(linux["netDevices"])["enabled"], bool)


@row("features: mountOptions are those that are taken, and no other")
def test_mount_options_of_features(box: Box) -> None:
    """mqueue takes no data: an option that is not known reaches it as such and is refused."""
    listed = set(_texts(entry(json.loads(support.run(RUNTIME, "features").ok().out))["mountOptions"]))
    apart = {"remount", "tmpcopyup", "idmap", "ridmap", "copy-symlink", "src-nofollow", "dest-nofollow"}
    binds = {"bind", "rbind"}
    assert listed >= {"ro", "rro", "nosymfollow", "lazytime", "iversion"}
    for index, name in enumerate(sorted(listed - apart - binds)):
        box.bundle.mount(f"/m{index}", "mqueue", "mqueue", name)
    box.facts("ids")
    box.bundle.mount("/nonsense", "mqueue", "mqueue", "nonsense")
    box.refused()


@row("features: potentiallyUnsafeConfigAnnotations")
def test_annotations_of_features() -> None:
    found = entry(json.loads(support.run(RUNTIME, "features").ok().out))
    assert any(
        "org.systemd.property.".startswith(name)
        for name in _texts(found["potentiallyUnsafeConfigAnnotations"])
    )


# --- Files and sockets ------------------------------------------------------------------------------------------------


@row("--pid-file: digits and nothing else, of create, run and exec")
def test_pid_files(box: Box, scratch: str) -> None:
    """go-runc reads it with strconv.Atoi, which takes no newline."""
    one = box.up()
    path = os.path.join(scratch, "exec.pid")
    one.detached("exec", "--detach", "--pid-file", path, one.id, "/bin/probe", "pause").ok()
    for name in (one.pid_file, path):
        with open(name, "rb") as stream:
            text = stream.read()
        assert re.fullmatch(rb"\d+", text)
        assert support.status_field(int(text), "Name") == "probe"
    with open(path, encoding="ascii") as stream:
        pid = int(stream.read())
    os.kill(pid, signal.SIGKILL)
    support.wait_for_exit(pid)
    assert [name for name in os.listdir(scratch) if name.startswith(".")] == []


@row("--console-socket: one message with a name, one descriptor, then the end")
def test_console_protocol(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "socket")
    box.set("process.terminal", True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()
        listening.settimeout(10)
        box.container().create("--console-socket", path).ok()
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(10)
            payload, fds, _, _ = socket.recv_fds(connection, 8192, 8)
            assert 0 < len(payload) < 4096
            assert [os.isatty(fd) for fd in fds] == [True]
            assert connection.recv(1) == b""
        for fd in fds:
            os.close(fd)


@row("--pidfd-socket: standard of create, setns of exec")
def test_pidfd_protocol(box: Box, scratch: str) -> None:
    box.bundle.probe("pause")
    one = box.container()
    for name in ("standard", "setns"):
        receiver = FdSocket(os.path.join(scratch, name))
        if name == "standard":
            one.create("--pidfd-socket", receiver.path).ok()
            one.start().ok()
        else:
            one.detached(
                "exec", "--detach", "--pidfd-socket", receiver.path, one.id, "/bin/probe", "pause"
            ).ok()
        payload, pidfd = receiver.receive()
        receiver.close()
        assert payload.decode() == name
        if name == "setns":
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


@row("stdio of create is the program's")
def test_stdio(box: Box, scratch: str) -> None:
    """The very same files: containerd's shim gives pipes, conmon too."""
    paths = [os.path.join(scratch, name) for name in ("in", "out", "err")]
    for path in paths:
        with open(path, "wb"):
            pass
    box.bundle.probe("pause").write()
    one = box.container()
    argv = [*one.command, "create", "--bundle", one.bundle.path, "--pid-file", one.pid_file, one.id]
    with open(paths[0], "rb") as first, open(paths[1], "ab") as second, open(paths[2], "ab") as third:
        subprocess.run(argv, stdin=first, stdout=second, stderr=third, check=True, timeout=60)
    found = [os.readlink(f"/proc/{one.pid}/fd/{fd}") for fd in range(3)]
    assert found == paths


@row("init is the subreaper's once create is done")
def test_orphan(box: Box) -> None:
    one = box.container()
    one.create().ok()
    assert int(support.status_field(one.pid, "PPid")) == os.getpid()


@row("spec: a configuration that runs")
def test_spec_runs(box: Box) -> None:
    one = box.container()
    os.unlink(os.path.join(one.bundle.path, "config.json"))
    support.run(RUNTIME, "spec", "--bundle", one.bundle.path).ok()
    path = os.path.join(one.bundle.path, "config.json")
    with open(path, encoding="utf-8") as stream:
        document: Spec = json.load(stream)
    process = entry(document["process"])
    process["terminal"] = False
    process["args"] = ["/bin/probe", "echo", "it runs"]
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(document, stream)
    assert one.pyrunc("run", "--bundle", one.bundle.path, one.id).ok().out == "it runs\n"


@row("completion")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """youki's."""
    assert "checkpoint" in support.run(RUNTIME, "completion", shell).ok().out


@row("info")
def test_info() -> None:
    """youki's: what the host offers, in words."""
    assert os.uname().release in support.run(RUNTIME, "info").ok().out

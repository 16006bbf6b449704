"""Kubernetes' interface: pods and containers through containerd's CRI plugin, the runtime as RuntimeClass handler."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.cri import RUNNING, Kubelet, Pod
from engines.scenario import EXEC_WORDS, WORDS

if TYPE_CHECKING:
    from engines.cri import Container
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "cri"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"
POLITE = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def pod(kubelet: Kubelet, seen: Seen) -> Pod:
    """A pod sandbox with a network of its own."""
    made = kubelet.pod()
    seen.replace(made.id, "POD")
    return made


def wait_log(one: Container, text: str) -> None:
    """Wait until a container has written a line."""
    support.wait_until(
        lambda: os.path.exists(one.log) and any(text in line for line in one.lines()), f"'{text}' in the log"
    )


def test_pod_sandbox(kubelet: Kubelet, seen: Seen) -> None:
    """A pod sandbox of the handler: ready, with an address; stopped and removed twice without a complaint."""
    pod = kubelet.pod()
    status = pod.status()
    # READY is 0 and therefore not written.
    seen.value("state", status.get("state", "SANDBOX_READY"))
    network = status["network"]
    assert isinstance(network, dict)
    seen.value("address", str(network["ip"]).startswith("10.231.0."))
    pod.remove()
    assert seen.values == {"state": "SANDBOX_READY", "address": True} and not kubelet.ctd.left()


def test_host_network(kubelet: Kubelet, seen: Seen) -> None:
    """A pod in the network of the host: no address, no network namespace of its own."""
    pod = kubelet.pod(host_network=True)
    one = pod.run("sleep", "1000")
    inside = one.output("readlink", "/proc/self/ns/net").out.strip()
    seen.value("same", inside == os.readlink(f"/proc/{kubelet.ctd.process.pid}/ns/net"))
    seen.value("network", pod.status().get("network"))
    assert seen.values["same"] is True


def test_container(pod: Pod, seen: Seen) -> None:
    """A container runs to its end: log of both streams, exit status and reason."""
    one = pod.run("sh", "-c", "echo out; echo err >&2; exit 7")
    seen.value("ended", one.ended())
    support.wait_until(lambda: len(one.lines()) == 2, "both lines")
    lines = sorted(one.lines())
    seen.value("log", "\n".join(lines))
    one.remove().ok()
    assert lines == ["stderr F err", "stdout F out"]


@facts.COVERS
def test_around(pod: Pod, seen: Seen) -> None:
    """What a program sees of its container as the kubelet configures it"""
    limits = {"cpu_shares": 512, "cpu_period": 100000, "cpu_quota": 50000, "memory_limit_in_bytes": 64 << 20}
    one = pod.run("sleep", "1000", resources={**limits, "oom_score_adj": 900})
    seen.replace(one.id, "CONTAINER")
    assert facts.note(seen, one.output(*facts.COMMAND))["privileges"].count("\n") >= 6


CONTEXTS: dict[str, dict[str, object]] = {
    "user": {"run_as_user": {"value": 1000}, "run_as_group": {"value": 1000}, "supplemental_groups": [5555]},
    "read-only": {"readonly_rootfs": True},
    "capabilities": {"capabilities": {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]}},
    "privileged": {"privileged": True, "masked_paths": [], "readonly_paths": [], "seccomp": None},
}


_SYSFS = (
    "the pod's own read-only /sys does not make that of a privileged container read-only, which asks for rw"
)
_MARKS = {
    "privileged": [pytest.mark.improvement(f"run.{name}", _SYSFS) for name in ("mounts", "writable")],
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=_MARKS.get(name, [facts.COVERS])) for name in CONTEXTS]
)
def test_security_context(kubelet: Kubelet, seen: Seen, name: str) -> None:
    """A container with a security context: all that a program sees of it"""
    pod = kubelet.pod() if name != "privileged" else kubelet.pod(privileged=True)
    seen.replace(pod.id, "POD")
    one = pod.run("sleep", "1000", context=CONTEXTS[name])
    seen.replace(one.id, "CONTAINER")
    facts.note(seen, one.output(*facts.COMMAND))


def test_exec(pod: Pod, seen: Seen) -> None:
    """ExecSync: both streams and the exit status; the container goes on."""
    one = pod.run("sleep", "1000")
    seen.command("exec", one.output("sh", "-c", "echo out; echo err >&2; id; exit 3")).fails("err", status=3)
    seen.value("state", one.status()["state"])
    assert seen.values["state"] == RUNNING


@EXEC_WORDS
def test_exec_missing(pod: Pod, seen: Seen) -> None:
    """ExecSync of a command that is not there: the reason reaches the client."""
    one = pod.run("sleep", "1000")
    seen.replace(one.id, "CONTAINER")
    reason = 'exec: "/no/such": stat /no/such: no such file or directory'
    pod.kubelet.refusal(seen, "exec", one.exec("/no/such"), reason)


def test_exec_timeout(pod: Pod, seen: Seen) -> None:
    """ExecSync with a timeout: refused when it is over, and the process is gone."""
    one = pod.run("sleep", "1000")
    seen.replace(one.id, "CONTAINER")
    before = time.monotonic()
    pod.kubelet.refusal(seen, "exec", one.exec("sleep", "2000", timeout=1), "timeout 1s exceeded")
    assert time.monotonic() - before < 20
    seen.value("left", "sleep 2000" in one.output("ps").out)
    assert seen.values["left"] is False


def test_update(pod: Pod, seen: Seen) -> None:
    """UpdateContainerResources changes the cgroups of a running container."""
    one = pod.run("sleep", "1000", resources={"memory_limit_in_bytes": 64 << 20, "cpu_shares": 512})
    limits = {
        "cpu_shares": 1024,
        "cpu_period": 100000,
        "cpu_quota": 80000,
        "memory_limit_in_bytes": 128 << 20,
    }
    one.update(**limits).ok()
    one.update(cpuset_cpus="0").ok()
    files = ["memory/memory.limit_in_bytes", "cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpuset/cpuset.cpus"]
    seen.command("files", one.output("cat", *(f"/sys/fs/cgroup/{name}" for name in files))).ok()


@pytest.mark.improvement(
    "run.message", "the message names the property of the resources, and a hint says what is allowed"
)
def test_update_refused(pod: Pod, seen: Seen) -> None:
    """UpdateContainerResources with a processor that does not exist is refused; the container goes on."""
    one = pod.run("sleep", "1000")
    seen.replace(one.id, "CONTAINER")
    pod.kubelet.refusal(seen, "run", one.update(cpuset_cpus="99"), "cpuset.cpus")
    seen.value("state", one.status()["state"])


def test_out_of_memory(pod: Pod, seen: Seen) -> None:
    """A container that is killed for its memory is reported as OOMKilled."""
    pod.kubelet.ctd.area.needs_mounted_cgroups()
    script = "sleep 0.5; tail /dev/zero; sleep 1"
    one = pod.run("sh", "-c", f"exec sh -c '{script}'", resources={"memory_limit_in_bytes": 16 << 20})
    one.ended()
    support.wait_until(lambda: one.status().get("reason") == "OOMKilled", "the reason")
    seen.value("ended", one.ended())


@pytest.mark.parametrize("script", [POLITE, STUBBORN], ids=["polite", "stubborn"])
def test_stop(pod: Pod, seen: Seen, script: str) -> None:
    """StopContainer: TERM, the period of grace, KILL"""
    one = pod.run("sh", "-c", script)
    wait_log(one, "up")
    before = time.monotonic()
    one.stop(1 if script == STUBBORN else 30).ok()
    took = time.monotonic() - before
    seen.value("waited", took >= 1 if script == STUBBORN else took >= 30)
    seen.value("ended", one.ended())
    one.stop(0).ok()
    assert seen.values["waited"] is (script == STUBBORN)


def test_stats(pod: Pod, seen: Seen) -> None:
    """ContainerStats and PodSandboxStats have figures of the container's cgroups."""
    pod.kubelet.ctd.area.needs_mounted_cgroups()
    one = pod.run("sleep", "1000")
    stats = one.stats()["stats"]
    assert isinstance(stats, dict)
    memory, cpu = stats["memory"], stats["cpu"]
    assert isinstance(memory, dict) and isinstance(cpu, dict)
    seen.value("members", " ".join(sorted(memory) + sorted(cpu)))
    whole = pod.stats()["stats"]
    assert isinstance(whole, dict) and isinstance(whole["linux"], dict)
    seen.value("pod", " ".join(sorted(whole["linux"])))
    process = whole["linux"]["process"]
    assert isinstance(process, dict)
    seen.value("processes", process["processCount"])


def test_log_reopened(pod: Pod, seen: Seen) -> None:
    """A log that was moved away goes on in a new file."""
    one = pod.run("sh", "-c", "while :; do echo tick; sleep 0.05; done")
    wait_log(one, "tick")
    os.rename(one.log, f"{one.log}.1")
    one.reopen_log().ok()
    wait_log(one, "tick")
    seen.value("line", one.lines()[0])


BAD = {
    "missing": ("/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-in-path": ("no-such", 'exec: "no-such": executable file not found in $PATH'),
    "not-executable": ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
}


@pytest.mark.improvement("ended", WORDS.args[1])
@WORDS
@pytest.mark.parametrize("name", BAD)
def test_bad_image(pod: Pod, seen: Seen, name: str) -> None:
    """A command that cannot be executed: the reason reaches the kubelet, in the refusal and in the status"""
    program, reason = BAD[name]
    one = pod.create(program)
    seen.replace(one.id, "CONTAINER")
    pod.kubelet.refusal(seen, "run", one.start(), reason)
    ended = one.ended()
    assert isinstance(ended, dict) and reason in str(ended["message"])
    seen.value("ended", ended)
    seen.value("exit", [ended["exitCode"], ended["reason"]])


def test_shared_processes(kubelet: Kubelet, seen: Seen) -> None:
    """Containers that share the pod's pid namespace see each other, and end with their pod."""
    pod = kubelet.pod(shared_processes=True)
    first = pod.run("sleep", "1001", context={"namespace_options": pod.namespaces})
    second = pod.run("sleep", "1002", context={"namespace_options": pod.namespaces})

    def both() -> bool:
        shown = second.output("ps", "-o", "args").out
        return "sleep 1001" in shown and "sleep 1002" in shown

    support.wait_until(both, "both programs")
    seen.value("both", both())
    first.stop(0).ok()
    seen.value("first", first.ended())
    seen.value("second", second.status()["state"])
    assert seen.values["both"] is True


def test_containerd_restarts(pod: Pod, seen: Seen) -> None:
    """A container outlives the end of containerd, and the next containerd has it as it was."""
    one = pod.run("sleep", "1000")
    pod.kubelet.ctd.restart()
    pod.kubelet.wait_ready()
    seen.value("state", one.status()["state"])
    seen.command("exec", one.output("echo", "still", "here")).ok()
    one.stop(0).ok()
    seen.value("ended", one.ended())

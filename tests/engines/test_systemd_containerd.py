"""containerd with the systemd cgroup driver, by ctr and by the CRI: scopes in a slice, limits, figures, no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import support
from engines import facts
from engines.cri import Kubelet

if TYPE_CHECKING:
    from engines.containerd import Containerd
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "containerdsystemd"
DRIVER = "systemd"
LIMITS = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"


def scope(pid: int) -> str:
    """The cgroup of a process."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as stream:
        return scope_line(stream.read())


def scope_line(text: str) -> str:
    """The path in the one line of /proc/PID/cgroup."""
    return text.strip().removeprefix("0::")


def properties(unit: str) -> support.Result:
    """What systemd has of the limits."""
    names = ("MemoryMax", "CPUQuotaPerSecUSec", "Slice", "Delegate", "LoadState")
    return support.run("systemctl", "show", *(f"--property={name}" for name in names), unit)


def test_ctr(ctd: Containerd, seen: Seen) -> None:
    """`ctr run` in a scope: limits, exec, figures, pause, and an end that systemd hears of."""
    one = ctd.id()
    options = ("--detach", "--memory-limit", str(64 << 20), "--cpus", "0.5")
    seen.command("run", ctd.start(one, "sleep", "1000", options=options)).ok()
    path = scope(ctd.pid(one))
    assert path.endswith(f"/{ctd.area.parent}/ctr-{one}.scope")
    seen.value("cgroup", path)
    assert scope_line(seen.command("exec", ctd.exec(one, "cat", "/proc/self/cgroup")).ok().out) == path
    for name in ("memory.max", "cpu.max"):
        with open(f"/sys/fs/cgroup{path}/{name}", encoding="ascii") as stream:
            seen.value(name, stream.read())
    shown = seen.command("unit", properties(f"ctr-{one}.scope")).ok()
    assert f"MemoryMax={64 << 20}" in shown.out and seen.values["memory.max"] == f"{64 << 20}\n"
    figures = ctd.ctr("task", "metrics", one).ok().out
    seen.value(
        "limit", [line.split()[1] for line in figures.splitlines() if line.startswith("memory.limit")]
    )
    ctd.ctr("task", "pause", one).ok()
    seen.value("paused", ctd.status(one))
    ctd.ctr("task", "resume", one).ok()
    seen.command("kill", ctd.ctr("task", "kill", "--signal", "KILL", one)).ok()
    ctd.wait_status(one, "STOPPED")
    seen.command("delete", ctd.ctr("task", "delete", one), err=False)
    seen.command("gone", properties(f"ctr-{one}.scope"))
    assert "LoadState=not-found" in str(seen.values["gone.out"]) and not ctd.left()


def test_out_of_memory_with_ctr(ctd: Containerd, seen: Seen) -> None:
    """A program beyond its limit ends with 137."""
    options = ("--rm", "--memory-limit", str(16 << 20))
    result = ctd.run("sh", "-c", "x=a; while :; do x=$x$x; done", options=options)
    seen.command("run", result).fails(status=137)


def test_kubernetes(kubelet: Kubelet, seen: Seen) -> None:
    """A pod's slice with scopes in it; exec, figures and an update, which systemd has too."""
    pod = kubelet.pod(host_network=True)
    resources = {"memory_limit_in_bytes": 64 << 20, "cpu_quota": 50_000, "cpu_period": 100_000}
    one = pod.run("sleep", "1000", resources=resources)
    seen.replace(one.id, "ID")
    inside = one.output("sh", "-c", LIMITS)
    seen.command("limits", inside).ok()
    unit = f"cri-containerd-{one.id}.scope"
    shown = seen.command("unit", properties(unit)).ok()
    assert f"MemoryMax={64 << 20}" in shown.out and f"Slice={kubelet.ctd.area.parent}" in shown.out
    one.update(memory_limit_in_bytes=96 << 20, cpu_quota=20_000, cpu_period=100_000).ok()
    support.run("systemctl", "daemon-reload").ok()
    seen.command("updated", one.output("sh", "-c", LIMITS)).ok()
    assert seen.values["updated.out"] == f"{96 << 20}\n20000 100000\n"
    seen.command("updated-unit", properties(unit)).ok()
    stats = one.stats()["stats"]
    assert isinstance(stats, dict)
    seen.value("stats", " ".join(sorted(stats)))
    one.stop(0).ok()
    seen.value("end", one.ended())


def test_out_of_memory_in_a_pod(kubelet: Kubelet, seen: Seen) -> None:
    """The kubelet is told that it was the memory."""
    pod = kubelet.pod(host_network=True)
    one = pod.run("sh", "-c", facts.OUTLIVED_HOG, resources={"memory_limit_in_bytes": 16 << 20})
    support.wait_until(lambda: one.status().get("reason") == "OOMKilled", "the event")
    support.wait_until(lambda: one.output("cat", "/status").out == "137\n", "the program's end")
    one.stop(0).ok()
    seen.value("end", one.ended())
    assert seen.values["end"] == {
        "state": "CONTAINER_EXITED",
        "exitCode": 137,
        "reason": "OOMKilled",
        "message": None,
    }

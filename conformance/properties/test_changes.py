"""Rows of the verbs that change, watch and move a running container."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from box import RUNTIME, lacks, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from box import Box


UPDATES: list[tuple[str, str, tuple[str, str], str, str]] = [
    ("--memory", "33554432", ("memory", "memory.limit_in_bytes"), "memory.max", "33554432"),
    ("--memory-reservation", "16M", ("memory", "memory.soft_limit_in_bytes"), "memory.low", "16777216"),
    ("--cpu-share", "300", ("cpu", "cpu.shares"), "cpu.weight", "300"),
    ("--cpu-quota", "20000", ("cpu", "cpu.cfs_quota_us"), "cpu.max", "20000"),
    ("--cpu-period", "50000", ("cpu", "cpu.cfs_period_us"), "cpu.max", "50000"),
    ("--cpu-burst", "1000", ("cpu", "cpu.cfs_burst_us"), "cpu.max.burst", "1000"),
    ("--cpu-idle", "1", ("cpu", "cpu.idle"), "cpu.idle", "1"),
    ("--cpu-rt-period", "500000", ("cpu", "cpu.rt_period_us"), "", "500000"),
    ("--cpu-rt-runtime", "500", ("cpu", "cpu.rt_runtime_us"), "", "500"),
    ("--cpuset-cpus", "0", ("cpuset", "cpuset.cpus"), "cpuset.cpus", "0"),
    ("--cpuset-mems", "0", ("cpuset", "cpuset.mems"), "cpuset.mems", "0"),
    ("--pids-limit", "44", ("pids", "pids.max"), "pids.max", "44"),
    (
        "--memory-swap",
        "134217728",
        ("memory", "memory.memsw.limit_in_bytes"),
        "memory.swap.max",
        "134217728",
    ),
    ("--blkio-weight", "200", ("blkio", "blkio.bfq.weight"), "io.bfq.weight", "200"),
]


@row("update {option}")
@pytest.mark.parametrize(("option", "value", "v1", "v2", "shown"), UPDATES)
def test_update(box: Box, option: str, value: str, v1: tuple[str, str], v2: str, shown: str) -> None:
    box.set("linux.resources.memory", {"limit": 64 << 20})
    box.set("linux.resources.cpu", {"quota": 50000, "period": 100000})
    one = box.up()
    box.cgroup_value(one, v1, v2 or None)
    one.pyrunc("update", option, value, one.id).ok()
    found = box.cgroup_value(one, v1, v2 or None)
    assert shown in found.split() or v2 == "cpu.weight", found


@row("update --resources")
@pytest.mark.parametrize("source", ["-", "file"])
def test_update_resources(box: Box, scratch: str, source: str) -> None:
    one = box.up()
    text = json.dumps({"pids": {"limit": 55}})
    path = os.path.join(scratch, "resources.json")
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)
    one.pyrunc("update", "--resources", "-" if source == "-" else path, one.id, stdin=text).ok()
    assert box.cgroup_value(one, ("pids", "pids.max"), "pids.max") == "55"


@row("update --kernel-memory", "update --kernel-memory-tcp")
@pytest.mark.parametrize("option", ["--kernel-memory", "--kernel-memory-tcp"])
def test_update_kernel_memory(box: Box, option: str) -> None:
    """Gone from the kernel: accepted, without effect."""
    one = box.up()
    one.pyrunc("update", option, "16777216", one.id).ok()


@row("update --l3-cache-schema", "update --mem-bw-schema")
@pytest.mark.parametrize(
    ("option", "value"), [("--l3-cache-schema", "L3:0=f"), ("--mem-bw-schema", "MB:0=50")]
)
def test_update_rdt(box: Box, option: str, value: str) -> None:
    """Without intelRdt in the configuration it is an error."""
    one = box.up()
    assert one.pyrunc("update", option, value, one.id).status != 0


@row("events --stats")
def test_events(box: Box) -> None:
    one = box.up()
    found = one.pyrunc("events", "--stats", one.id).ok().json()
    assert isinstance(found, dict)
    assert found["type"] == "stats"
    assert found["id"] == one.id


@row("events --interval")
def test_events_interval(box: Box) -> None:
    one = box.up()
    argv = [*one.command, "events", "--interval", "50ms", one.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.kill()
    assert [json.loads(line)["type"] for line in lines] == ["stats", "stats"]


@row("wait")
def test_wait(box: Box) -> None:
    one = box.up()
    with subprocess.Popen(
        [*one.command, "wait", one.id], stdout=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        support.wait_until(lambda: process.poll() is not None or _sleeps(process.pid), "wait has begun")
        one.kill().ok()
        one.wait()
        assert process.stdout is not None
        assert process.stdout.read().strip() == "137"


def _sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/wchan", encoding="ascii") as stream:
        return "poll" in stream.read()


@row("mounts add", "mounts remove")
def test_mounts(box: Box, scratch: str) -> None:
    one = box.up()
    path = os.path.join(scratch, "mounts.json")
    with open(path, "w", encoding="ascii") as stream:
        json.dump(
            [{"destination": "/added", "type": "tmpfs", "source": "tmpfs", "options": ["mode=711"]}], stream
        )
    one.pyrunc("mounts", "add", one.id, path).ok()
    assert " /added " in one.exec("/bin/probe", "mounts").ok().out
    one.pyrunc("mounts", "remove", one.id, path).ok()
    assert " /added " not in one.exec("/bin/probe", "mounts").ok().out


@row("checkpoint", "restore")
@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_checkpoint_help(verb: str) -> None:
    """podman and CRI-O ask so whether it is there."""
    support.run(RUNTIME, verb, "--help").ok()


@row("restore --lsm-mount-context")
def test_probe_of_podman() -> None:
    result = support.run(RUNTIME, "restore", "--lsm-mount-context")
    assert result.status != 0
    assert (
        "needs an argument" in result.err + result.out or "requires an argument" in result.err + result.out
    )


@row("checkpoint", "restore")
def test_checkpoint(box: Box, scratch: str, make_box: Callable[[], Box]) -> None:
    """Where CRIU cannot, the container goes on as if nothing had been."""
    one = box.up()
    image, work = os.path.join(scratch, "image"), os.path.join(scratch, "work")
    result = one.pyrunc("checkpoint", "--image-path", image, "--work-path", work, one.id)
    if support.run("criu", "check").status != 0:
        assert result.status != 0
        assert one.status() == "running"
        lacks("a CRIU that works with this kernel; that it is refused then was seen")
    result.ok()
    assert one.pyrunc("state", one.id).status != 0
    again = make_box().container()
    words = ["restore", "--detach", "--image-path", image, "--work-path", work, "--bundle", one.bundle.path]
    again.detached(*words, again.id).ok()
    assert again.status() == "running"

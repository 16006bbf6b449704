"""The systemd driver on a host that systemd runs: the system's manager and a user's, beside runc on the same cases."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

import limits
import support
import systemd_host as others
from machines import patience

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory, User
    from support import Json, Spec

pytestmark = pytest.mark.root
# What differs from one start of the same thing to the next, and whose words the description has.
CHANGING = (
    "Timestamp",
    "InvocationID",
    "ControlGroupId",
    "Current",
    "NSec",
    "IORead",
    "IOWrite",
    "MemoryAvailable",
)
CHANGING_NAMES = ("Description", "DropInPaths", "DeviceAllow")


def in_unit(container: ContainerFactory, bundle: Bundle, user: User | None = None) -> Container:
    """A container whose scope is lab-ID.scope in lab.slice."""
    program = [user.pyrunc if user else support.PYRUNC, "--systemd-cgroup"]
    one = container(bundle, user=user, command=program)
    bundle.mapping("linux")["cgroupsPath"] = f"lab.slice:lab:{one.id}"
    bundle.write()
    return one


RESOURCES: Spec = {
    "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
    "cpu": {"quota": 25_500, "period": 50_000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 77},
}
V1 = limits.version("host") == 1
# After create, and what update changes of it.
FILES = {
    "memory.limit_in_bytes": str(64 << 20), "memory.memsw.limit_in_bytes": str(96 << 20),
    "memory.soft_limit_in_bytes": str(32 << 20), "cpu.cfs_quota_us": "25500", "cpu.cfs_period_us": "50000",
    "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "77",
} if V1 else {
    "memory.max": str(64 << 20), "memory.swap.max": str(32 << 20), "memory.low": str(32 << 20),
    "cpu.max": "25500 50000", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "77",
}  # fmt: skip
CHANGED_FILES = {
    "memory.limit_in_bytes": str(80 << 20), "memory.memsw.limit_in_bytes": str(80 << 20), "cpu.cfs_quota_us": "10000",
} if V1 else {
    "memory.max": str(80 << 20), "memory.swap.max": "0", "cpu.max": "10000 50000",
}  # fmt: skip
# With v1 systemd has no word for swap and reservation.
PROPERTIES = {
    "TasksMax": "77", "CPUQuotaPerSecUSec": "510ms", "CPUQuotaPeriodUSec": "50ms", "AllowedCPUs": "0",
    "AllowedMemoryNodes": "0", "Delegate": "yes", "DefaultDependencies": "no", "Slice": "lab.slice", "Transient": "yes",
} | ({"MemoryLimit": str(64 << 20)} if V1 else {
    "MemoryMax": str(64 << 20), "MemorySwapMax": str(32 << 20), "MemoryLow": str(32 << 20),
})  # fmt: skip
CHANGED_PROPERTIES = {"CPUQuotaPerSecUSec": "200ms"} | (
    {"MemoryLimit": str(80 << 20)} if V1 else {"MemoryMax": str(80 << 20), "MemorySwapMax": "0"}
)


def files(one: Container, *names: str) -> dict[str, str]:
    """Those files of the container's cgroup."""
    return {name: limits.read(one, name.partition(".")[0] if V1 else "", name) for name in names}


def test_limits_are_in_the_unit_and_in_the_cgroup(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Both have them, and a daemon-reload, which writes the unit's, changes nothing; nor does update to the others."""
    made = bundle("probe").probe("pause")
    # Its file on v1 is there with some schedulers only.
    made.mapping("linux")["resources"] = RESOURCES if V1 else {**RESOURCES, "blockIO": {"weight": 500}}
    one = in_unit(container, made).up()
    unit = f"lab-{one.id}.scope"
    wanted = FILES | ({"io.weight": "default 4950"} if os.path.exists(f"{path(one)}/io.weight") else {})
    for reload in (False, True):
        if reload:
            support.run("systemctl", "daemon-reload").ok()
        found = others.show(unit)
        assert {key: found[key] for key in PROPERTIES} == PROPERTIES
        assert files(one, *wanted) == wanted
    one.pyrunc("update", "--memory", "80M", "--memory-swap", "80M", "--cpu-quota", "10000", one.id).ok()
    support.run("systemctl", "daemon-reload").ok()
    found = others.show(unit)
    assert {key: found[key] for key in PROPERTIES} == PROPERTIES | CHANGED_PROPERTIES
    assert files(one, *FILES) == FILES | CHANGED_FILES


def path(one: Container) -> str:
    """The container's cgroup directory, on v1 one of those that systemd manages."""
    return limits.directory(one.pid, "memory" if V1 else "")


def test_a_life_and_its_end(container: ContainerFactory, bundle: BundleFactory) -> None:
    """pause, resume, exec, kill go by the cgroup; delete takes the scope away, also when the option is missing."""
    one = in_unit(container, bundle("busybox", "sleep", "600").namespace("cgroup")).up()
    unit, directory = f"lab-{one.id}.scope", path(one)
    assert directory.endswith(f"/lab.slice/{unit}")
    lines = one.exec("cat", "/proc/self/cgroup").ok().out.splitlines()
    assert lines and [line for line in lines if not line.endswith(":/")] == []
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "paused"
    one.pyrunc("resume", one.id).ok()
    one.kill("KILL").ok()
    one.wait()
    support.run(support.PYRUNC, "--root", one.root, "delete", one.id).ok()
    assert not others.exists(unit)
    assert not os.path.exists(directory)


def test_forced_delete_of_a_running_one(container: ContainerFactory, bundle: BundleFactory) -> None:
    """containerd's cleanup comes without --systemd-cgroup: what was recorded decides."""
    one = in_unit(container, bundle("probe").probe("pause")).up()
    directory = path(one)
    support.run(support.PYRUNC, "--root", one.root, "delete", "--force", one.id).ok()
    assert not others.exists(f"lab-{one.id}.scope")
    assert not os.path.exists(directory)


def test_a_failed_create_leaves_no_scope(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Neither active nor failed."""
    made = bundle("probe").probe("pause")
    made.spec["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    one = in_unit(container, made)
    one.create().fails("hook")
    assert not others.exists(f"lab-{one.id}.scope")
    assert not support.find_cgroups(one.id)


def test_the_name_can_be_used_again(container: ContainerFactory, bundle: BundleFactory) -> None:
    """At once, and also when the one before ended as failed."""
    made = bundle("probe").probe("pause")
    made.spec["annotations"] = {"org.systemd.property.RuntimeMaxSec": "1"}
    one = in_unit(container, made).up()
    unit = f"lab-{one.id}.scope"
    support.wait_until(lambda: others.show(unit)["ActiveState"] == "failed", "the scope is out of time", 60)
    one.wait()
    one.delete().ok()
    assert not others.exists(unit)
    one.create().ok()


def test_a_scope_in_use_is_left_alone(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Another container with the same cgroupsPath is refused and the first one lives."""
    first = in_unit(container, bundle("probe").probe("pause")).up()
    made = bundle("probe").probe("pause")
    second = in_unit(container, made)
    made.mapping("linux")["cgroupsPath"] = f"lab.slice:lab:{first.id}"
    made.write()
    second.create().fails("$.linux.cgroupsPath")
    assert first.status() == "running"
    assert others.show(f"lab-{first.id}.scope")["ActiveState"] == "active"


# On v1 it is systemd alone who judges: there it keeps the rules that it has names for.
@pytest.mark.parametrize(
    ("unknown", "policy"), [(False, "strict"), (True, "strict" if V1 else "auto")], ids=["known", "unknown"]
)
def test_devices_outlast_a_reload(
    container: ContainerFactory, bundle: BundleFactory, unknown: bool, policy: str
) -> None:
    """Allowed before and after, and denied before and after; also beside a rule that systemd has no name for."""
    made = bundle("busybox", "sleep", "600")
    linux = made.mapping("linux")
    linux["devices"] = [
        {"path": "/dev/yes", "type": "c", "major": 10, "minor": 229},
        {"path": "/dev/no", "type": "c", "major": 10, "minor": 228},
    ]
    rules: list[Json] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ]
    if unknown:
        with open("/proc/devices", encoding="ascii") as stream:
            taken = {line.split()[0] for line in stream if line.strip()}
        major = next(number for number in range(60, 511) if str(number) not in taken)
        rules.append({"allow": True, "type": "c", "major": major, "access": "rw"})
    linux["resources"] = {"devices": rules}
    one = in_unit(container, made).up()
    for reload in (False, True):
        if reload:
            support.run("systemctl", "daemon-reload").ok()
        one.exec("sh", "-c", ": </dev/no").fails("Operation not permitted")
        assert "Operation not permitted" not in one.exec("sh", "-c", ": </dev/yes").err
        one.exec("sh", "-c", ": </dev/null >/dev/zero").ok()
    assert others.show(f"lab-{one.id}.scope")["DevicePolicy"] == policy


# --- The bus ----------------------------------------------------------------------------------------------------------


def test_a_bus_that_hangs(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The host's own takes connections and answers none: in time systemd itself is asked, from create to delete."""
    one = in_unit(container, bundle("probe").probe("pause"))
    one.command[:0] = ["env", "SYSTEMD_BUS_TIMEOUT=2"]
    daemon = int(others.show("dbus.service")["MainPID"])
    os.kill(daemon, signal.SIGSTOP)
    try:
        began = time.monotonic()
        one.up()
        assert 2 <= time.monotonic() - began < patience(10)
        one.kill("KILL").ok()
        one.wait()
        one.delete().ok()
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert not others.exists(f"lab-{one.id}.scope")
    assert not support.find_cgroups(one.id)


@pytest.mark.usefixtures("v2_alone")
def test_a_manager_that_hangs(lingering: User, container: ContainerFactory, bundle: BundleFactory) -> None:
    """A user's systemd that answers nobody: create gives up in time and leaves nothing; delete can be repeated."""
    manager = int(others.show(f"user@{lingering.uid}.service")["MainPID"])
    one = in_unit(container, bundle("probe", user=lingering).probe("pause"), lingering)
    one.command[len(lingering.prefix) : len(lingering.prefix)] = ["env", "SYSTEMD_BUS_TIMEOUT=2"]
    os.kill(manager, signal.SIGSTOP)
    try:
        began = time.monotonic()
        one.create().fails("no answer within 2 s")
        assert time.monotonic() - began < patience(10)
    finally:
        os.kill(manager, signal.SIGCONT)
    assert not os.path.lexists(os.path.join(one.root, one.id))
    support.wait_until(lambda: not support.find_cgroups(one.id), "the end of what was begun")
    one.up()
    one.kill("KILL").ok()
    one.wait()
    os.kill(manager, signal.SIGSTOP)
    try:
        one.delete().fails("no answer within 2 s")
    finally:
        os.kill(manager, signal.SIGCONT)
    one.delete().ok()
    assert not others.exists(f"lab-{one.id}.scope", "--user", prefix=lingering.prefix)


def test_no_bus(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Early at boot, or after it has crashed: systemd itself is asked."""
    one = in_unit(container, bundle("probe").probe("pause"))
    one.command[:0] = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /run/dbus && exec "$@"', "sh"]
    one.up()
    assert others.show(f"lab-{one.id}.scope")["ActiveState"] == "active"
    one.delete("--force").ok()
    assert not others.exists(f"lab-{one.id}.scope")


# --- Beside runc ------------------------------------------------------------------------------------------------------


def comparable(found: dict[str, str]) -> dict[str, str]:
    """Without what cannot be equal."""
    return {
        key: value
        for key, value in found.items()
        if key not in CHANGING_NAMES and not any(word in key for word in CHANGING)
    } | {"DeviceAllow": found.get("DeviceAllow", "")}


@pytest.fixture
def runc(scratch: str) -> Iterator[list[str]]:
    """runc with a root of its own."""
    support.needs_program("runc")
    root = os.path.join(scratch, "runc")
    yield ["runc", "--root", root, "--systemd-cgroup"]
    for name in os.listdir(root) if os.path.isdir(root) else ():
        support.run("runc", "--root", root, "delete", "--force", name)


def test_the_unit_is_runcs(container: ContainerFactory, bundle: BundleFactory, runc: list[str]) -> None:
    """Property by property, for limits, devices and annotations, on the system's manager."""
    made = bundle("probe").probe("pause")
    device: Spec = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    made.mapping("linux")["resources"] = {
        **RESOURCES,
        "devices": [{"allow": False, "access": "rwm"}, device],
    }
    made.spec["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "uint64 7",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    one = in_unit(container, made).up()
    unit = f"lab-{one.id}.scope"
    ours = comparable(others.show(unit))
    one.delete("--force").ok()
    # Its init would hold our pipes.
    quiet = ["sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh"]
    support.run(*quiet, *runc, "create", "--bundle", made.path, one.id).ok()
    theirs = comparable(others.show(unit))
    support.run(*runc, "delete", "--force", one.id).ok()
    assert ours == theirs


# --- A user's manager -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("v2_alone")
def test_rootless_in_a_users_manager(
    lingering: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """The scope is the user's, below the user's service; exec gets in although the kernel alone would not let it."""
    made = bundle("busybox", "sleep", "600", user=lingering)
    made.mapping("linux")["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 77}}
    if {"type": "cgroup"} not in made.list_of("linux", "namespaces"):
        made.namespace("cgroup")
    one = in_unit(container, made, lingering).up()
    unit, prefix = f"lab-{one.id}.scope", lingering.prefix
    directory = path(one)
    assert directory.endswith(f"/user@{lingering.uid}.service/lab.slice/{unit}")
    assert files(one, "memory.max", "pids.max") == {"memory.max": str(64 << 20), "pids.max": "77"}
    assert others.show(unit, "--user", prefix=prefix)["TasksMax"] == "77"
    assert one.exec("cat", "/proc/self/cgroup").ok().out.splitlines()[-1] == "0::/"
    one.pyrunc("pause", one.id).ok()
    one.pyrunc("resume", one.id).ok()
    one.pyrunc("update", "--pids-limit", "80", one.id).ok()
    assert others.show(unit, "--user", prefix=prefix)["TasksMax"] == "80"
    one.kill("KILL").ok()
    one.wait()
    one.delete().ok()
    assert not others.exists(unit, "--user", prefix=prefix)
    assert not os.path.exists(directory)


@pytest.mark.usefixtures("v2_alone")
def test_a_user_without_a_manager(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """What is missing is named, with what to do."""
    made = bundle("probe", user=rootless).probe("pause")
    program = [
        "env",
        "-u",
        "XDG_RUNTIME_DIR",
        "-u",
        "DBUS_SESSION_BUS_ADDRESS",
        rootless.pyrunc,
        "--systemd-cgroup",
    ]
    one = container(made, user=rootless, command=program)
    one.create().fails("no user manager", "hint: log in through systemd")
    assert shutil.which("loginctl")

"""The systemd driver on a host that systemd runs: the system's manager and a user's, beside runc on the same cases."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

import limits
import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


@pytest.fixture(scope="module", autouse=True)
def _systemd() -> Iterator[None]:
    """None of this goes without it. A slice stays when the last scope in it has gone."""
    support.needs(os.path.isdir("/run/systemd/system"), "systemd")
    yield
    support.run("systemctl", "stop", "lab.slice").ok()


def show(unit: str, *options: str, prefix: Sequence[str] = ()) -> dict[str, str]:
    """The properties of a unit; DeviceAllow, of which there are several, sorted in one."""
    found: dict[str, list[str]] = {}
    for line in support.run(*prefix, "systemctl", *options, "show", unit).ok().out.splitlines():
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return {key: "\n".join(sorted(values)) for key, values in found.items()}


def exists(unit: str, *options: str, prefix: Sequence[str] = ()) -> bool:
    """Whether systemd knows the unit."""
    return show(unit, *options, prefix=prefix)["LoadState"] != "not-found"


def in_unit(container: ContainerFactory, bundle: Bundle, user: User | None = None) -> Container:
    """A container whose scope is lab-ID.scope in lab.slice."""
    program = [user.pyrunc if user else support.PYRUNC, "--systemd-cgroup"]
    one = container(bundle, user=user, command=[*bus(user), *program])
    bundle.mapping("linux")["cgroupsPath"] = f"lab.slice:lab:{one.id}"
    bundle.write()
    return one


def bus(user: User | None) -> list[str]:
    """Before a command of the user: where its manager listens."""
    return ["env", f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{user.uid}/bus"] if user else []


RESOURCES: Spec = {
    "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
    "cpu": {"quota": 25_500, "period": 50_000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 77},
}
FILES = {
    "memory.max": str(64 << 20), "memory.swap.max": str(32 << 20), "memory.low": str(32 << 20),
    "cpu.max": "25500 50000", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "77",
}  # fmt: skip
PROPERTIES = {
    "MemoryMax": str(64 << 20), "MemorySwapMax": str(32 << 20), "MemoryLow": str(32 << 20), "TasksMax": "77",
    "CPUQuotaPerSecUSec": "510ms", "CPUQuotaPeriodUSec": "50ms", "AllowedCPUs": "0", "AllowedMemoryNodes": "0",
    "Delegate": "yes", "DefaultDependencies": "no", "Slice": "lab.slice", "Transient": "yes",
}  # fmt: skip


def files(one: Container, *names: str) -> dict[str, str]:
    """Those files of the container's cgroup."""
    return {name: limits.read(one, "", name) for name in names}


def needs_v2() -> None:
    """The tables here are those of cgroup v2."""
    limits.needs_v2_controller("memory")


def test_limits_are_in_the_unit_and_in_the_cgroup(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Both have them, and a daemon-reload, which writes the unit's, changes nothing; nor does update to the others."""
    needs_v2()
    made = bundle("probe").probe("pause")
    made.mapping("linux")["resources"] = {**RESOURCES, "blockIO": {"weight": 500}}
    one = in_unit(container, made).up()
    unit = f"lab-{one.id}.scope"
    wanted = FILES | ({"io.weight": "default 4950"} if os.path.exists(f"{path(one)}/io.weight") else {})
    for reload in (False, True):
        if reload:
            support.run("systemctl", "daemon-reload").ok()
        found = show(unit)
        assert {key: found[key] for key in PROPERTIES} == PROPERTIES
        assert files(one, *wanted) == wanted
    one.pyrunc("update", "--memory", "80M", "--memory-swap", "80M", "--cpu-quota", "10000", one.id).ok()
    support.run("systemctl", "daemon-reload").ok()
    found = show(unit)
    changed = {"MemoryMax": str(80 << 20), "MemorySwapMax": "0", "CPUQuotaPerSecUSec": "200ms"}
    assert {key: found[key] for key in PROPERTIES} == PROPERTIES | changed
    changed = {"memory.max": str(80 << 20), "memory.swap.max": "0", "cpu.max": "10000 50000"}
    assert files(one, *FILES) == FILES | changed


def path(one: Container) -> str:
    """The container's cgroup directory."""
    return limits.directory(one.pid, "")


def test_a_life_and_its_end(container: ContainerFactory, bundle: BundleFactory) -> None:
    """pause, resume, exec, kill go by the cgroup; delete takes the scope away, also when the option is missing."""
    one = in_unit(container, bundle("busybox", "sleep", "600").namespace("cgroup")).up()
    unit, directory = f"lab-{one.id}.scope", path(one)
    assert directory.endswith(f"/lab.slice/{unit}")
    assert one.exec("cat", "/proc/self/cgroup").ok().out.splitlines()[-1] == "0::/"
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "paused"
    one.pyrunc("resume", one.id).ok()
    one.kill("KILL").ok()
    one.wait()
    support.run(support.PYRUNC, "--root", one.root, "delete", one.id).ok()
    assert not exists(unit)
    assert not os.path.exists(directory)


def test_forced_delete_of_a_running_one(container: ContainerFactory, bundle: BundleFactory) -> None:
    """containerd's cleanup comes without --systemd-cgroup: what was recorded decides."""
    one = in_unit(container, bundle("probe").probe("pause")).up()
    directory = path(one)
    support.run(support.PYRUNC, "--root", one.root, "delete", "--force", one.id).ok()
    assert not exists(f"lab-{one.id}.scope")
    assert not os.path.exists(directory)


def test_a_failed_create_leaves_no_scope(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Neither active nor failed."""
    made = bundle("probe").probe("pause")
    made.spec["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    one = in_unit(container, made)
    one.create().fails("hook")
    assert not exists(f"lab-{one.id}.scope")
    assert not support.find_cgroups(one.id)


def test_the_name_can_be_used_again(container: ContainerFactory, bundle: BundleFactory) -> None:
    """At once, and also when the one before ended as failed."""
    made = bundle("probe").probe("pause")
    made.spec["annotations"] = {"org.systemd.property.RuntimeMaxSec": "1"}
    one = in_unit(container, made).up()
    unit = f"lab-{one.id}.scope"
    support.wait_until(lambda: show(unit)["ActiveState"] == "failed", "the scope is out of time", 60)
    one.wait()
    one.delete().ok()
    assert not exists(unit)
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
    assert show(f"lab-{first.id}.scope")["ActiveState"] == "active"


@pytest.mark.parametrize(("unknown", "policy"), [(False, "strict"), (True, "auto")])
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
    assert show(f"lab-{one.id}.scope")["DevicePolicy"] == policy


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
    ours = comparable(show(unit))
    one.delete("--force").ok()
    # Its init would hold our pipes.
    quiet = ["sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh"]
    support.run(*quiet, *runc, "create", "--bundle", made.path, one.id).ok()
    theirs = comparable(show(unit))
    support.run(*runc, "delete", "--force", one.id).ok()
    assert ours == theirs


# --- A user's manager -------------------------------------------------------------------------------------------------


@pytest.fixture
def lingering(rootless: User) -> Iterator[User]:
    """An ordinary user whose manager runs."""
    support.run("loginctl", "enable-linger", rootless.name).ok()
    support.run("systemctl", "start", f"user@{rootless.uid}.service", timeout=120).ok()
    support.wait_until(lambda: os.path.exists(f"/run/user/{rootless.uid}/bus"), "the user's bus", 60)
    yield rootless
    support.run("loginctl", "disable-linger", rootless.name).ok()
    support.run("systemctl", "stop", f"user@{rootless.uid}.service", timeout=120).ok()


def test_rootless_in_a_users_manager(
    lingering: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """The scope is the user's, below the user's service; exec gets in although the kernel alone would not let it."""
    needs_v2()
    made = bundle("busybox", "sleep", "600", user=lingering)
    made.mapping("linux")["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 77}}
    if {"type": "cgroup"} not in made.list_of("linux", "namespaces"):
        made.namespace("cgroup")
    one = in_unit(container, made, lingering).up()
    unit, prefix = f"lab-{one.id}.scope", [*lingering.prefix, *bus(lingering)]
    directory = path(one)
    assert directory.endswith(f"/user@{lingering.uid}.service/lab.slice/{unit}")
    assert files(one, "memory.max", "pids.max") == {"memory.max": str(64 << 20), "pids.max": "77"}
    assert show(unit, "--user", prefix=prefix)["TasksMax"] == "77"
    assert one.exec("cat", "/proc/self/cgroup").ok().out.splitlines()[-1] == "0::/"
    one.pyrunc("pause", one.id).ok()
    one.pyrunc("resume", one.id).ok()
    one.pyrunc("update", "--pids-limit", "80", one.id).ok()
    assert show(unit, "--user", prefix=prefix)["TasksMax"] == "80"
    one.kill("KILL").ok()
    one.wait()
    one.delete().ok()
    assert not exists(unit, "--user", prefix=prefix)
    assert not os.path.exists(directory)


def test_a_user_without_a_manager(
    rootless: User, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """What is missing is named, with what to do."""
    needs_v2()
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

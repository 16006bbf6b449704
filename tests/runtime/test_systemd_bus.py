"""The systemd driver against a real message bus with a service manager of our own behind it, which can misbehave."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

import fake_systemd
import faults
import limits
import support
from pyrunc.container import directory as state_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root
MOST_CALLS = 9999
SECONDS = 1  # the patience of pyrunc in these tests


@pytest.fixture
def systemd(scratch: str) -> Iterator[fake_systemd.FakeSystemd]:
    """A service manager that is gone after the test."""
    support.needs_program("dbus-daemon")
    made = fake_systemd.FakeSystemd(scratch)
    yield made
    made.close()


def command(systemd: fake_systemd.FakeSystemd, *options: str) -> list[str]:
    """pyrunc as an engine on a host with systemd calls it, with little patience."""
    return [*systemd.command, f"SYSTEMD_BUS_TIMEOUT={SECONDS}", support.PYRUNC, *options]


def in_unit(
    systemd: fake_systemd.FakeSystemd,
    container: ContainerFactory,
    bundle: Bundle,
    view: str = "host",
    path: str = "",
) -> Container:
    """A container in a slice of its own, to be created by systemd."""
    one = container(bundle, view=view, command=command(systemd, "--systemd-cgroup"))
    bundle.mapping("linux")["cgroupsPath"] = path or f"pyrunctest.slice:lab:{one.id}"
    bundle.write()
    return one


def leftovers(one: Container) -> list[str]:
    """What exists of a container that must be gone."""
    found = support.find_cgroups(one.id)
    if os.path.lexists(os.path.join(one.root, one.id)):
        found.append(one.root)
    return found


def test_a_whole_life(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """systemd makes the scope around init; kill needs no bus, delete stops the scope, even without the option."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"), view)
    one.up()
    one.expect("ready")
    name = f"lab-{one.id}.scope"
    unit = systemd.units[name]
    wanted = {"Slice": "pyrunctest.slice", "Delegate": True, "DefaultDependencies": False, "PIDs": [one.pid]}
    io = "IOAccounting" if limits.version(view) == 2 else "BlockIOAccounting"
    wanted |= dict.fromkeys(("MemoryAccounting", "CPUAccounting", "TasksAccounting", io), True)
    assert {key: unit.properties[key] for key in wanted} == wanted
    assert unit.properties["DevicePolicy"] == "strict"
    controller = "memory" if limits.version(view) == 1 else ""
    assert limits.directory(one.pid, controller).endswith(f"/pyrunctest.slice/{name}")
    systemd.calls.clear()
    plain = [*systemd.command, support.PYRUNC, "--root", one.root]
    support.run(*support.VIEWS[view], *plain, "kill", one.id, "KILL").ok()
    assert not systemd.calls
    one.wait()
    support.run(*support.VIEWS[view], *plain, "delete", one.id).ok()
    assert not systemd.units
    assert systemd.asked("StopUnit") == [(name, "replace")]
    assert leftovers(one) == []


@pytest.mark.slow
def test_a_killed_create_with_hooks_leaves_no_unit(
    systemd: fake_systemd.FakeSystemd,
    container: ContainerFactory,
    bundle: BundleFactory,
    tmp_path: Path,
) -> None:
    """delete knows the unit also where create came to its end before the copy of the configuration was there."""
    made = bundle("probe").probe("pause")
    made.mapping("hooks")["poststop"] = [{"path": "/bin/true"}]
    one = in_unit(systemd, container, made)
    at_call = faults.build_at_call(tmp_path)
    at = one.command.index(support.PYRUNC)

    def killed(number: int) -> list[str]:
        """create, killed behind this call; the calls so far."""
        prefix = [*one.command[:at], *at_call.kill(number), *one.command[at:]]
        argv = ["sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *prefix]
        support.run(*argv, "create", "--bundle", one.bundle.path, one.id)
        return at_call.calls()

    calls: list[str] = []
    # The first may keep a snapshot for the second, which then has fewer calls.
    for _ in range(2):
        calls = killed(MOST_CALLS)
        one.delete("--force").ok()
    number = (
        next(at for at, call in enumerate(calls, 1) if call == f"openat .{state_directory.CONFIG}.new") - 1
    )

    def is_between() -> bool:
        """Killed there: a wait on a busy machine is a call more or less, and then it was not."""
        killed(number)
        if systemd.units and not os.path.exists(os.path.join(one.root, one.id, state_directory.CONFIG)):
            return True
        one.delete("--force").ok()
        return False

    assert any(is_between() for _ in range(10))
    one.delete("--force").ok()
    assert not systemd.units
    assert leftovers(one) == []


def test_every_hierarchy_has_the_container(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """On v1 systemd uses some of them only; pyrunc makes the same path in the others, and takes it away again."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"))
    one.create().ok()
    paths = support.cgroup_of(one.pid)
    assert "cpuset" in paths
    assert set(paths.values()) == {f"/pyrunctest.slice/lab-{one.id}.scope"}
    one.delete("--force").ok()
    assert leftovers(one) == []
    for controller in ("cpuset", "freezer"):
        assert not os.path.exists(f"/sys/fs/cgroup/{controller}/pyrunctest.slice")


@pytest.mark.slow
def test_the_cgroup_namespace_begins_at_the_scope(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """init unshares it only after systemd has moved it; exec joins the scope as well."""
    made = bundle("busybox", "sh", "-c", "cat /proc/self/cgroup; echo end; exec sleep 600").namespace(
        "cgroup"
    )
    one = in_unit(systemd, container, made, view).up()
    # The v2 view hides hierarchies of v1 that the kernel has all the same.
    kept = ("0::",) if limits.version(view) == 2 else tuple("0123456789")
    for text in (one.expect("end"), one.exec("cat", "/proc/self/cgroup").ok().out):
        lines = [line.split(":", 2)[2] for line in text.splitlines() if line.startswith(kept)]
        assert lines
        assert set(lines) == {"/"}, text


def test_limits_are_told_to_systemd_too(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """The unit knows what the cgroup has, after create and after update; device rules are for create alone."""
    made = bundle("probe").probe("pause")
    made.mapping("linux")["resources"] = {
        "memory": {"limit": 50 << 20}, "pids": {"limit": 70}, "cpu": {"quota": 25_000, "period": 50_000},
    }  # fmt: skip
    one = in_unit(systemd, container, made).up()
    properties = systemd.units[f"lab-{one.id}.scope"].properties
    memory = "MemoryLimit" if limits.version("host") == 1 else "MemoryMax"
    names = (memory, "TasksMax", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec")
    assert [properties[name] for name in names] == [50 << 20, 70, 500_000, 50_000]
    systemd.calls.clear()
    one.pyrunc("update", "--memory", "60M", "--cpu-quota", "10000", "--pids-limit", "80", one.id).ok()
    assert [properties[name] for name in names] == [60 << 20, 80, 200_000, 50_000]
    (arguments,) = systemd.asked("SetUnitProperties")
    assert isinstance(arguments[2], list)
    assert not {"DevicePolicy", "DeviceAllow"} & {name for name, _ in arguments[2]}


def test_a_refused_update_is_taken_back_in_the_unit(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """What the kernel does not take must not come with the next reload either."""
    made = bundle("probe").probe("pause")
    made.mapping("linux")["resources"] = {"pids": {"limit": 70}}
    one = in_unit(systemd, container, made).up()
    properties = systemd.units[f"lab-{one.id}.scope"].properties
    one.pyrunc("update", "--pids-limit", "80", "--cpuset-cpus", "900", one.id).fails("cpuset")
    assert properties["TasksMax"] == 70


def test_annotations_are_properties(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """They come last, and seconds are microseconds by then."""
    made = bundle("probe").probe("pause")
    made.spec["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "uint64 7", "org.systemd.property.CollectMode": "'inactive'",
        "org.systemd.property.After": "['a.service']", "other": "x",
    }  # fmt: skip
    one = in_unit(systemd, container, made)
    one.create().ok()
    properties = systemd.units[f"lab-{one.id}.scope"].properties
    wanted = {"TimeoutStopUSec": 7_000_000, "CollectMode": "inactive", "After": ["a.service"]}
    assert {key: properties[key] for key in wanted} == wanted


def test_a_failed_unit_of_that_name_goes_first(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """An earlier container that was killed by its memory limit leaves one."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"))
    systemd.units[f"lab-{one.id}.scope"] = old = fake_systemd.Unit({}, [])
    old.failed = True
    one.create().ok()
    assert systemd.units[f"lab-{one.id}.scope"] is not old
    assert len(systemd.asked("StartTransientUnit")) == 2


def test_a_unit_that_runs_is_left_alone(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """It is somebody else's: neither stopped nor forgotten."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"))
    name = f"lab-{one.id}.scope"
    systemd.units[name] = fake_systemd.Unit({}, [])
    one.create().fails(
        "$.linux.cgroupsPath: systemd refuses StartTransientUnit", f"Unit {name} already exists"
    )
    assert not systemd.asked("StopUnit")
    assert name in systemd.units
    assert leftovers(one) == []


def test_a_failure_after_the_scope_is_made_removes_it(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory, view: str
) -> None:
    """A failed create leaves no scope and no cgroup."""
    made = bundle("probe").probe("pause")
    made.spec["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    one = in_unit(systemd, container, made, view)
    one.create().fails("hook")
    assert systemd.asked("StartTransientUnit")
    assert not systemd.units
    assert leftovers(one) == []


# --- A bus that does not do as it should ------------------------------------------------------------------------------

REFUSED = "org.freedesktop.DBus.Error.AccessDenied"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "fault", "words"),
    [
        ("StartTransientUnit", f"error {REFUSED}", ["systemd refuses StartTransientUnit: As told"]),
        ("StartTransientUnit", "silent", ["systemd's StartTransientUnit: no answer within 1 s"]),
        ("StartTransientUnit", "endless", ["systemd's job: no answer within 1 s"]),
        ("StartTransientUnit", "job failed", ["systemd could not start unit", "failed"]),
        ("SetUnitProperties", f"error {REFUSED}", ["systemd refuses SetUnitProperties: As told"]),
        ("SetUnitProperties", "silent", ["systemd's SetUnitProperties: no answer within 1 s"]),
        ("Subscribe", "silent", ["systemd's Subscribe: no answer within 1 s"]),
    ],
)
def test_a_create_that_systemd_does_not_answer_leaves_nothing(
    systemd: fake_systemd.FakeSystemd,
    container: ContainerFactory,
    bundle: BundleFactory,
    method: str,
    fault: str,
    words: Sequence[str],
) -> None:
    """In time, with the reason, and without process, cgroup or state."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"))
    systemd.faults[method] = fault
    began = time.monotonic()
    one.create().fails(*words)
    assert time.monotonic() - began < 20 * SECONDS
    assert leftovers(one) == []
    support.wait_until(lambda: not systemd.units, "the scope is stopped")


@pytest.mark.slow
def test_a_bus_that_hangs(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """It takes connections and says nothing: create gives up, nothing was started."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"))
    systemd.daemon.send_signal(signal.SIGSTOP)
    one.create().fails(f"connect to '{systemd.address}': no answer within 1 s", "hint: ")
    assert leftovers(one) == []


def test_no_bus(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Nobody listens any more."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"))
    systemd.daemon.kill()
    systemd.daemon.wait(10)
    one.create().fails(f"connect to '{systemd.address}': connection refused")
    assert leftovers(one) == []


@pytest.mark.slow
def test_delete_without_a_bus_can_be_repeated(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """The state stays as long as the unit may be there; --force does without, as the scope is empty by then."""
    one = in_unit(systemd, container, bundle("probe").probe("pause")).up()
    one.kill().ok()
    one.wait()
    systemd.faults["StopUnit"] = "silent"
    one.delete().fails("systemd's StopUnit: no answer within 1 s")
    assert one.status() == "stopped"
    systemd.faults.clear()
    one.delete().ok()
    assert leftovers(one) == []


def test_forced_delete_without_a_bus(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Processes, cgroups and state go; what may be left of the unit is a warning."""
    one = in_unit(systemd, container, bundle("probe").probe("pause")).up()
    systemd.faults["StopUnit"] = f"error {REFUSED}"
    gone = support.run(
        *command(systemd, "--root", one.root, "--log-level", "warning", "delete", "--force", one.id)
    )
    assert "the unit may be left: systemd refuses StopUnit" in gone.ok().err
    assert leftovers(one) == []


def test_delete_of_a_unit_that_is_gone(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """systemd forgets a scope as soon as its last process has ended."""
    one = in_unit(systemd, container, bundle("probe").probe("pause")).up()
    one.kill().ok()
    one.wait()
    systemd.units.clear()
    one.delete().ok()
    assert leftovers(one) == []


def test_a_stopped_unit_that_failed_is_forgotten(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Otherwise the name could not be used again."""
    one = in_unit(systemd, container, bundle("probe").probe("pause")).up()
    one.kill().ok()
    one.wait()
    systemd.units[f"lab-{one.id}.scope"].failed = True
    one.delete().ok()
    assert not systemd.units


def test_without_libsystemd(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """It is looked for when it is needed, and named when it is not there."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"))
    empty = os.path.join(scratch, "empty")
    with open(empty, "wb"):
        pass
    # The library is hidden from this command alone.
    hide = 'for f in $(ldconfig -p | grep -o "/.*libsystemd.so.0"); do mount --bind "$0" "$f" || exit; done; exec "$@"'
    one.command = ["unshare", "-m", "--propagation", "private", "sh", "-c", hide, empty, *one.command]
    one.create().fails("libsystemd.so.0 cannot be loaded", "hint: install libsystemd")
    assert leftovers(one) == []


# --- What is wrong before anybody is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--systemd-cgroup", "--cgroup-manager=systemd"])
def test_refusal_without_systemd(container: ContainerFactory, bundle: BundleFactory, option: str) -> None:
    """The words are runc's; engines show them."""
    hide = 'mount -t tmpfs tmpfs /run && exec "$@"'
    prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", hide, "hide"]
    one = container(bundle("probe").probe("pause"), command=[*prefix, support.PYRUNC, option])
    one.create().fails("systemd not running on this host")
    assert leftovers(one) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/a/b",
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead',
        ),
        ("a:b:c", "$.linux.cgroupsPath: invalid slice name: 'a'"),
        ("a.slice:b:c.slice", "$.linux.cgroupsPath: 'c.slice' would be a slice"),
    ],
)
def test_wrong_places_are_refused(
    systemd: fake_systemd.FakeSystemd,
    container: ContainerFactory,
    bundle: BundleFactory,
    path: str,
    words: str,
) -> None:
    """Before anything is made or asked."""
    one = in_unit(systemd, container, bundle("probe").probe("pause"), path=path)
    one.create().fails(words)
    assert not systemd.calls
    assert leftovers(one) == []


def test_a_wrong_annotation_is_refused(
    systemd: fake_systemd.FakeSystemd, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """With its path."""
    made = bundle("probe").probe("pause")
    made.spec["annotations"] = {"org.systemd.property.TimeoutStopSec": "soon"}
    one = in_unit(systemd, container, made)
    one.create().fails("$.annotations['org.systemd.property.TimeoutStopSec']: value parse error")
    assert not systemd.calls
    assert leftovers(one) == []

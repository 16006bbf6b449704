"""cgroups/systemd/unit.py: names, places and properties of the systemd unit that a container becomes."""

from __future__ import annotations

import pytest

from pyrunc.cgroups import device_rules, resources
from pyrunc.cgroups.systemd import unit
from pyrunc.errors import ConfigError

UNLIMITED = (1 << 64) - 1
SYSTEMD = 252


# --- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("system.slice", "/system.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("machine.slice", "/machine.slice"),
        ("-.slice", ""),
    ],
)
def test_slices_are_where_their_dashes_say(name: str, path: str) -> None:
    """systemd.slice(5): the name of a slice holds those it is in."""
    assert unit.expand_slice(name) == path


@pytest.mark.parametrize(
    "name", ["", "a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "a b.slice"]
)
def test_no_slice_is_refused(name: str) -> None:
    """What systemd would not take as a slice never gets as far as a path."""
    with pytest.raises(ConfigError, match="invalid slice name"):
        unit.expand_slice(name)


@pytest.mark.parametrize(
    ("given", "rootless", "expected"),
    [
        ("", False, ("system.slice", "runc-c1.scope", "system.slice/runc-c1.scope")),
        ("", True, ("user.slice", "runc-c1.scope", "user.slice/runc-c1.scope")),
        (":crio:1", False, ("system.slice", "crio-1.scope", "system.slice/crio-1.scope")),
        ("a-b.slice:libpod:x", True, ("a-b.slice", "libpod-x.scope", "a.slice/a-b.slice/libpod-x.scope")),
        ("-.slice:p:n", False, ("-.slice", "p-n.scope", "p-n.scope")),
        # systemd calls the directory of such a unit otherwise: the kernel has files of these names.
        ("a.slice:memory.x:n", False, ("a.slice", "memory.x-n.scope", "a.slice/_memory.x-n.scope")),
        ("a.slice:_x:n", False, ("a.slice", "_x-n.scope", "a.slice/__x-n.scope")),
        ("a.slice:memoryx:n", False, ("a.slice", "memoryx-n.scope", "a.slice/memoryx-n.scope")),
    ],
)
def test_unit_of_a_cgroups_path(given: str, rootless: bool, expected: tuple[str, str, str]) -> None:
    """slice:prefix:name is the scope prefix-name in the slice; without any there is a default."""
    found = unit.of(given, "c1", rootless=rootless)
    assert (found.slice, found.name, found.directory) == expected


def test_default_unit_of_every_id() -> None:
    """The one character of an id that no unit name has is escaped."""
    assert unit.of("", "a+b_c.d-e", rootless=False).name == "runc-a\\x2bb_c.d-e.scope"


@pytest.mark.parametrize("given", ["/a/b", "a", "a.slice:b", "a.slice:b:c:d"])
def test_other_formats_are_refused_in_runcs_words(given: str) -> None:
    """features: the text is a contract."""
    with pytest.raises(ConfigError) as caught:
        unit.of(given, "c1", rootless=False)
    expected = 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got '
    assert expected + f'"{given}"' in str(caught.value)
    assert caught.value.path == "$.linux.cgroupsPath"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("system.slice:x:y.slice", "would be a slice"),
        ("system:x:y", "invalid slice name: 'system'"),
        ("../a.slice:x:y", "invalid slice name"),
        ("a.slice:x:../y", "invalid unit name"),
        ("a.slice:x:" + "y" * 250, "invalid unit name"),
    ],
)
def test_impossible_names_are_refused(given: str, words: str) -> None:
    """Nothing that systemd would refuse, or that leads elsewhere, is tried."""
    with pytest.raises(ConfigError, match=words):
        unit.of(given, "c1", rootless=False)


# --- Annotations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", "s", "inactive-or-failed")),
        ("TimeoutStopUSec", "uint64 5", ("TimeoutStopUSec", "t", 5)),
        ("TimeoutStopSec", "5", ("TimeoutStopUSec", "t", 5_000_000)),
        ("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", "t", 5_000_000)),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", "t", 1_500_000)),
        ("SendSIGHUP", "true", ("SendSIGHUP", "b", True)),
        ("After", "['a.service', 'b.service']", ("After", "as", ["a.service", "b.service"])),
        ("IODeviceWeight", "[('/dev/sda', @t 5)]", ("IODeviceWeight", "a(st)", [["/dev/sda", 5]])),
    ],
)
def test_annotations_are_properties(name: str, text: str, expected: object) -> None:
    """org.systemd.property.NAME holds GVariant text; seconds become microseconds as the bus wants them."""
    assert unit.from_annotations({"other": "x", f"org.systemd.property.{name}": text}) == [expected]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("TimeoutStopSec", "'5s'", "number of seconds"),
        ("TimeoutStopSec", "-1", "number of seconds"),
        ("TimeoutStopSec", "true", "number of seconds"),
        ("TimeoutStopUSec", "soon", "value parse error"),
        ("TimeoutStopUSec", "1 2", "more than one value"),
        ("Sec", "1", "the unit property 'Sec' cannot be set by an annotation"),
        ("usec", "1", "the unit property 'usec' cannot be set by an annotation"),
        ("x y", "1", "no name of a property"),
        ("", "1", "no name of a property"),
    ],
)
def test_bad_annotations_are_refused(name: str, text: str, words: str) -> None:
    """The error has the path of the annotation."""
    with pytest.raises(ConfigError, match=words) as caught:
        unit.from_annotations({f"org.systemd.property.{name}": text})
    assert caught.value.path == f"$.annotations['org.systemd.property.{name}']"


# --- Resources --------------------------------------------------------------------------------------------------------


def properties(
    wanted: dict[str, object],
    version: int = 2,
    systemd: int = SYSTEMD,
    current: tuple[int, int] = (-1, 100_000),
) -> dict[str, object]:
    """Name -> value for linux.resources."""
    found = unit.from_writes(resources.plan_writes(wanted, version), systemd, current)
    assert len({name for name, _, _ in found}) == len(found), "a property twice"
    assert {kind for name, kind, _ in found} <= {"t", "ay"}
    return {name: value for name, _, value in found}


@pytest.mark.parametrize(
    ("wanted", "version", "expected"),
    [
        ({"memory": {"limit": 100, "swap": 150, "reservation": 50}}, 2,
         {"MemoryMax": 100, "MemorySwapMax": 50, "MemoryLow": 50}),
        ({"memory": {"limit": 100, "swap": 100}}, 2, {"MemoryMax": 100, "MemorySwapMax": 0}),
        ({"memory": {"limit": -1}}, 2, {"MemoryMax": UNLIMITED, "MemorySwapMax": UNLIMITED}),
        ({"memory": {"limit": 100, "swap": 150, "reservation": 50}}, 1, {"MemoryLimit": 100}),
        ({"pids": {"limit": 7}}, 2, {"TasksMax": 7}),
        ({"pids": {"limit": 7}}, 1, {"TasksMax": 7}),
        ({"pids": {"limit": 0}}, 2, {"TasksMax": 1}),
        ({"pids": {"limit": -1}}, 2, {"TasksMax": UNLIMITED}),
        ({"cpu": {"shares": 1024}}, 2, {"CPUWeight": 100}),
        ({"cpu": {"shares": 512}}, 1, {"CPUShares": 512}),
        ({"cpu": {"idle": 1}}, 2, {"CPUWeight": 0}),
        ({"cpu": {"idle": 1, "shares": 1024}}, 2, {"CPUWeight": 0}),
        ({"cpu": {"idle": 0, "shares": 1024}}, 2, {"CPUWeight": 100}),
        ({"cpu": {"cpus": "0-2,9", "mems": "1"}}, 2, {"AllowedCPUs": [7, 2], "AllowedMemoryNodes": [2]}),
        ({"blockIO": {"weight": 500}}, 2, {"IOWeight": 4950}),
        ({"blockIO": {"weight": 500}}, 1, {"BlockIOWeight": 500}),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 20}]}}, 2, {}),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 5}]}, 2, {}),
        ({}, 2, {}),
    ],
)  # fmt: skip
def test_resources_are_properties(
    wanted: dict[str, object], version: int, expected: dict[str, object]
) -> None:
    """One property for each value that systemd would otherwise overwrite at its next reload."""
    assert properties(wanted, version) == expected


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("cpu", "current", "per_second", "period"),
    [
        ({"quota": 25_000, "period": 50_000}, (-1, 100_000), 500_000, 50_000),
        # systemd cuts off below one percent: the unit gets a little more, the cgroup what was asked for.
        ({"quota": 25_500, "period": 50_000}, (-1, 100_000), 510_000, 50_000),
        ({"quota": 25_501, "period": 50_000}, (-1, 100_000), 520_000, 50_000),
        ({"quota": 25_000}, (-1, 100_000), 250_000, None),
        ({"quota": 25_000}, (10_000, 50_000), 500_000, None),
        ({"quota": -1, "period": 50_000}, (-1, 100_000), UNLIMITED, 50_000),
        ({"quota": 300_000}, (-1, 100_000), 3_000_000, None),
    ],
)
def test_cpu_bandwidth(
    version: int, cpu: dict[str, object], current: tuple[int, int], per_second: int, period: int | None
) -> None:
    """The quota is per second of CPU time; without a period it counts in the one that applies."""
    expected = {"CPUQuotaPerSecUSec": per_second, **({"CPUQuotaPeriodUSec": period} if period else {})}
    assert properties({"cpu": cpu}, version, current=current) == expected


def test_a_new_period_keeps_the_quota_on_v1() -> None:
    """v1 has a file for each, so a period alone changes nothing else; in the unit neither."""
    found = properties({"cpu": {"period": 50_000}}, 1, current=(25_000, 100_000))
    assert found == {"CPUQuotaPerSecUSec": 500_000, "CPUQuotaPeriodUSec": 50_000}


@pytest.mark.parametrize(
    ("unified", "expected"),
    [
        ({"memory.max": "1G", "memory.high": "max", "memory.min": "4096", "memory.low": "5"},
         {"MemoryMax": 1 << 30, "MemoryHigh": UNLIMITED, "MemoryMin": 4096, "MemoryLow": 5}),
        ({"memory.swap.max": "0"}, {"MemorySwapMax": 0}),
        ({"pids.max": "max"}, {"TasksMax": UNLIMITED}),
        ({"cpu.max": "10000 20000"}, {"CPUQuotaPerSecUSec": 500_000, "CPUQuotaPeriodUSec": 20_000}),
        ({"cpu.max": "max"}, {"CPUQuotaPerSecUSec": UNLIMITED}),
        ({"cpu.weight": "77"}, {"CPUWeight": 77}),
        ({"cpu.idle": "1", "cpu.weight": "77"}, {"CPUWeight": 0}),
        ({"cpuset.cpus": "0", "cpuset.mems": "0"}, {"AllowedCPUs": [1], "AllowedMemoryNodes": [1]}),
        ({"io.weight": "default 50"}, {"IOWeight": 50}),
        ({"io.weight": "8:0 50"}, {}),
        # The kernel's error, with the path of the key, says more than we could.
        ({"memory.max": "lots", "cpuset.cpus": "0-", "cpu.max": "a b"}, {}),
        ({"cpuset.cpus": "0-4000000000"}, {}),
        ({"memory.peak": "1"}, {}),
    ],
)  # fmt: skip
def test_unified_keys_are_properties(unified: dict[str, str], expected: dict[str, object]) -> None:
    """Keys of `unified` are the same files, so they come to the same properties."""
    assert properties({"unified": unified}) == expected


def test_unified_wins() -> None:
    """It is written last, and so the unit has its value."""
    assert properties({"memory": {"limit": 100}, "unified": {"memory.max": "200"}}) == {"MemoryMax": 200}


@pytest.mark.parametrize(
    ("systemd", "names"),
    [
        (241, {"CPUQuotaPerSecUSec"}),
        (243, {"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"}),
        (251, {"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs"}),
        (252, {"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs", "CPUWeight"}),
    ],
)
def test_older_systemds_are_not_asked_for_what_they_do_not_know(systemd: int, names: set[str]) -> None:
    """An unknown property would make them refuse all."""
    cpu: dict[str, object] = {"quota": 1000, "period": 10_000, "cpus": "0", "idle": 1}
    assert set(properties({"cpu": cpu}, systemd=systemd)) == names


@pytest.mark.parametrize(
    ("value", "systemd", "expected"),
    [("0", 253, [("OOMPolicy", "s", "continue")]), ("1", 253, [("OOMPolicy", "s", "kill")]), ("1", 252, [])],
)
def test_oom_group_is_said_at_the_start(value: str, systemd: int, expected: object) -> None:
    """OOMPolicy cannot be changed later; scopes have it since version 253."""
    writes = resources.plan_writes({"unified": {"memory.oom.group": value}}, 2)
    assert unit.at_start(writes, systemd) == expected
    assert unit.from_writes(writes, systemd, (-1, 100_000)) == []


# --- Devices ----------------------------------------------------------------------------------------------------------

PROC_DEVICES = """Character devices:
  1 mem
  5 /dev/tty
 10 misc
136 pts
180 usb
189 usb
195 nvidia

Block devices:
  8 sd
 65 sd
"""
GROUPS = unit.device_groups(PROC_DEVICES)
DENY: dict[str, object] = {"allow": False, "access": "rwm"}
ALLOW: dict[str, object] = {"allow": True, "access": "rwm"}
FREE = [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]
DEFAULTS = {
    ("char-*", "m"), ("block-*", "m"), ("char-pts", "rwm"),
    *((f"/dev/char/{numbers}", "rwm") for numbers in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2", "10:200")),
}  # fmt: skip


def entry(
    kind: str, major: int | None, minor: int | None, access: str, *, allow: bool = True
) -> dict[str, object]:
    """One rule of linux.resources.devices."""
    found: dict[str, object] = {"allow": allow, "type": kind, "access": access}
    found.update({key: value for key, value in (("major", major), ("minor", minor)) if value is not None})
    return found


def allowed(rules: list[object], version: int = 2) -> set[tuple[str, str]]:
    """What DeviceAllow holds, having made sure that nothing else gets in."""
    found, lost = unit.from_devices(device_rules.policy(rules), GROUPS, version)
    assert found[:2] == [("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", [])]
    assert not lost
    name, kind, value = found[2]
    assert (name, kind) == ("DeviceAllow", "a(ss)")
    assert isinstance(value, list)
    return {(device, access) for device, access in value}


@pytest.mark.parametrize("version", [1, 2])
def test_default_devices(version: int) -> None:
    """Without rules there is what every container may use: as runc has it."""
    assert allowed([], version) == DEFAULTS
    assert allowed([DENY], version) == DEFAULTS


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (entry("c", 195, None, "rw"), ("char-nvidia", "rw")),
        (entry("c", 195, 0, "rwm"), ("/dev/char/195:0", "rwm")),
        (entry("b", 8, 1, "r"), ("/dev/block/8:1", "r")),
        (entry("b", None, None, "rm"), ("block-*", "rm")),
    ],
)
def test_device_rules_have_systemds_names(rule: dict[str, object], expected: tuple[str, str]) -> None:
    """A device by its numbers, all of a driver by its name in /proc/devices."""
    found = allowed([DENY, rule])
    assert expected in found
    assert {item for item in DEFAULTS if item[0] != expected[0]} | {expected} == found


@pytest.mark.parametrize(
    "rules",
    [
        [DENY, entry("c", 240, None, "rw")],  # no such driver is loaded
        [DENY, entry("c", 189, None, "rw")],  # two drivers have that name
        [DENY, entry("b", 8, None, "rw")],
        [DENY, entry("c", None, 3, "rw")],
        [ALLOW, entry("c", 1, 1, "rwm", allow=False)],
        [DENY, entry("c", 10, None, "rw"), entry("c", 10, 5, "w", allow=False)],
    ],
)
def test_what_systemd_cannot_hold_is_left_to_our_program(rules: list[object]) -> None:
    """On v2 systemd's list would take away what the rules grant; ours judges alone then."""
    assert unit.from_devices(device_rules.policy(rules), GROUPS, 2) == (FREE, [])


def test_all_devices() -> None:
    """A privileged container is free on both versions."""
    for version in (1, 2):
        assert unit.from_devices(device_rules.policy([ALLOW]), GROUPS, version) == (FREE, [])


def test_on_v1_systemd_holds_what_it_can() -> None:
    """There its list is the only one after a reload: rather too little than everything."""
    rules: list[object] = [DENY, entry("c", 240, None, "rw"), entry("c", 195, 0, "rw")]
    found, lost = unit.from_devices(device_rules.policy(rules), GROUPS, 1)
    assert found[0] == ("DevicePolicy", "s", "strict")
    assert ["/dev/char/195:0", "rw"] in found[2][2]  # type: ignore[operator]
    assert lost == ["systemd cannot hold the device rule 'allow c 240:* rw'"]
    found, lost = unit.from_devices(
        device_rules.policy([ALLOW, entry("c", 1, 1, "rwm", allow=False)]), GROUPS, 1
    )
    assert (found[0], found[2]) == (("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", []))
    assert len(lost) == 1

"""What update asks for: options become resources, what is stored completes them and is merged with them."""

from __future__ import annotations

import os

import pytest

from pyrunc.cgroups import files, resources
from pyrunc.config import resource_update
from pyrunc.errors import UsageError

Table = dict[str, object]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("9007199254740993", 9007199254740993),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("64m", 64 << 20),
        ("64 MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2T", 2 << 40),
        ("1p", 1 << 50),
        ("7b", 7),
        ("-1", -1),
    ],
)
def test_sizes(text: str, number: int) -> None:
    """Bytes with the suffixes that runc takes; -1 lifts the limit."""
    assert resource_update.size("memory", text) == number


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "m",
        "1x",
        "1mm",
        "1bb",
        "1ibm",
        "-2",
        "1.",
        ".5",
        "1  m",
        " 1",
        "1e3",
        "\u0661",
        "9999999p",
        "9" * 5000,
        "1." + "9" * 5000,
        "1_0",
    ],
)
def test_no_sizes(text: str) -> None:
    """What is no size is an error that names the option and the text."""
    with pytest.raises(UsageError, match="invalid value for memory-swap: invalid size") as caught:
        resource_update.size("memory-swap", text)
    assert f"'{text}'" in str(caught.value)


def test_options() -> None:
    """Each option has its place; an empty one is not given; a pids limit of 0 is one."""
    given: dict[str, object] = {
        "blkio-weight": 500,
        "cpu-period": "50000",
        "cpu-quota": "-1",
        "cpu-burst": "0",
        "cpu-share": "100",
        "cpu-rt-period": "9",
        "cpu-rt-runtime": "-1",
        "cpu-idle": "1",
        "cpuset-cpus": "0-1",
        "cpuset-mems": "",
        "memory": "1g",
        "memory-reservation": "-1",
        "memory-swap": "2g",
        "kernel-memory": "5",
        "pids-limit": 0,
    }
    wanted, names = resource_update.from_options(given)
    assert wanted == {
        "blockIO": {"weight": 500},
        "cpu": {
            "period": 50000,
            "quota": -1,
            "burst": 0,
            "shares": 100,
            "realtimePeriod": 9,
            "realtimeRuntime": -1,
            "idle": 1,
            "cpus": "0-1",
        },
        "memory": {"limit": 1 << 30, "reservation": -1, "swap": 2 << 30},
        "pids": {"limit": 0},
    }
    assert names["$.memory.limit"] == "--memory"
    assert names["$.cpu.realtimeRuntime"] == "--cpu-rt-runtime"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("cpu-share", "-1"),
        ("cpu-period", "1k"),
        ("cpu-quota", "x"),
        ("cpu-idle", "1.0"),
        ("cpu-quota", "9223372036854775808"),
        ("cpu-share", "18446744073709551616"),
        ("cpu-burst", "²"),
    ],
)
def test_options_that_are_no_number(option: str, text: str) -> None:
    """The error names the option, the text and the range."""
    with pytest.raises(UsageError, match=f"invalid value for {option}: parsing '{text}'") as caught:
        resource_update.from_options({option: text})
    assert str(caught.value.hint).startswith("give a whole number from ")


@pytest.mark.parametrize(
    ("wanted", "stored", "full", "stands_for"),
    [
        (
            {"cpu": {"quota": 5}},
            {"cpu": {"period": 7, "quota": 6}},
            {"cpu": {"quota": 5, "period": 7}},
            {"$.cpu.period": "$.cpu.quota"},
        ),
        ({"cpu": {"quota": 5}}, {"cpu": {"quota": 6}}, {"cpu": {"quota": 5}}, {}),
        (
            {"cpu": {"period": 5}},
            {"cpu": {"quota": 6, "shares": 9}},
            {"cpu": {"period": 5, "quota": 6}},
            {"$.cpu.quota": "$.cpu.period"},
        ),
        ({"cpu": {"period": 5, "quota": 1}}, {"cpu": {"quota": 6}}, {"cpu": {"period": 5, "quota": 1}}, {}),
        (
            {"memory": {"swap": 5, "limit": 0}},
            {"memory": {"limit": 3}},
            {"memory": {"swap": 5, "limit": 3}},
            {"$.memory.limit": "$.memory.swap"},
        ),
        ({"memory": {"swap": -1}}, {"memory": {"limit": 3}}, {"memory": {"swap": -1}}, {}),
        (
            {"memory": {"limit": 5}},
            {"memory": {"limit": 3, "checkBeforeUpdate": True}},
            {"memory": {"limit": 5, "checkBeforeUpdate": True}},
            {},
        ),
        (
            {"memory": {"limit": 5, "checkBeforeUpdate": False}},
            {"memory": {"checkBeforeUpdate": True}},
            {"memory": {"limit": 5, "checkBeforeUpdate": False}},
            {},
        ),
        ({"pids": {"limit": 5}}, {}, {"pids": {"limit": 5}}, {}),
    ],
)
def test_complete(wanted: Table, stored: Table, full: Table, stands_for: dict[str, str]) -> None:
    """A value that cannot be set without another one brings the stored one along."""
    assert resource_update.complete(wanted, stored) == (full, stands_for)


@pytest.mark.parametrize(
    ("stored", "wanted", "merged"),
    [
        ({}, {"pids": {"limit": 0}}, {"pids": {"limit": 0}}),
        (
            {"cpu": {"shares": 9, "quota": 5, "cpus": "0"}},
            {"cpu": {"shares": 0, "quota": 6, "cpus": ""}},
            {"cpu": {"shares": 9, "quota": 6, "cpus": "0"}},
        ),
        (
            {"cpu": {"shares": 9, "burst": 4}},
            {"cpu": {"idle": 0, "burst": 0}},
            {"cpu": {"idle": 0, "burst": 0}},
        ),
        (
            {"memory": {"limit": 5, "swap": 9}},
            {"memory": {"limit": -1}},
            {"memory": {"limit": -1, "swap": -1}},
        ),
        ({"memory": {"swappiness": 9}}, {"memory": {"swappiness": 0}}, {"memory": {"swappiness": 0}}),
        (
            {"devices": [{"allow": True}]},
            {"devices": [{"allow": False, "access": "rwm"}]},
            {"devices": [{"allow": True}]},
        ),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}]}},
            {
                "blockIO": {
                    "weight": 0,
                    "weightDevice": [
                        {"major": 8, "minor": 0, "weight": 30},
                        {"major": 8, "minor": 1, "weight": 40},
                    ],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
                }
            },
            {
                "blockIO": {
                    "weightDevice": [
                        {"major": 8, "minor": 0, "weight": 30, "leafWeight": 20},
                        {"major": 8, "minor": 1, "weight": 40},
                    ],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
                }
            },
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}]},
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 3}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 3}]},
        ),
        (
            {"unified": {"a.b": "1", "c.d": "2"}, "network": {"classID": 5}},
            {
                "unified": {"a.b": "3"},
                "network": {"priorities": [{"name": "lo", "priority": 1}], "classID": 0},
            },
            {
                "unified": {"a.b": "3", "c.d": "2"},
                "network": {"classID": 5, "priorities": [{"name": "lo", "priority": 1}]},
            },
        ),
        (
            {"rdma": {"a": {"hcaHandles": 1}}},
            {"rdma": {"a": {"hcaObjects": 1}, "b": {"hcaHandles": 2}}},
            {"rdma": {"a": {"hcaHandles": 1, "hcaObjects": 1}, "b": {"hcaHandles": 2}}},
        ),
    ],
)
def test_merge(stored: Table, wanted: Table, merged: Table) -> None:
    """What is stored after an update is what the container has then; the old document is not changed."""
    before = repr(stored)
    assert resource_update.merge(stored, wanted) == merged
    assert repr(stored) == before


@pytest.mark.parametrize(
    ("file", "written", "old", "undoing"),
    [
        ("memory.max", "5", "max\n", "max"),
        ("cpu.max", "5000 100000", "max 100000\n", "max 100000"),
        ("cpu.weight", "5", "0\n", None),
        ("cpuset.cpus", "0", "\n", ""),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "0"),
        ("io.weight", "300", "default 100\n8:0 200\n", "default 100"),
        ("io.weight", "8:0 300", "default 100\n8:0 200\n", "8:0 200"),
        ("io.weight", "8:1 300", "default 100\n8:0 200\n", "8:1 default"),
        (
            "io.max",
            "8:0 rbps=5",
            "8:0 rbps=max wbps=7 riops=max wiops=max\n",
            "8:0 rbps=max wbps=7 riops=max wiops=max",
        ),
        ("io.max", "8:0 rbps=5", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:16 7\n", "8:0 0"),
        ("rdma.max", "mlx hca_handle=5", "", "mlx hca_handle=max hca_object=max"),
        (
            "io.max",
            "8:0 rbps=5\n8:1 rbps=6",
            "8:1 rbps=9\n",
            "8:0 rbps=max wbps=max riops=max wiops=max\n8:1 rbps=9",
        ),
    ],
)
def test_going_back(tmp_path: object, file: str, written: str, old: str, undoing: str | None) -> None:
    """The value from before in the form in which the kernel takes it."""
    path = f"{tmp_path}/{file}"
    with open(path, "w", encoding="ascii") as stream:
        stream.write(old)
    items = [(str(tmp_path), resources.Write("any", "$", (file, written)))]
    saved = files.saved(items)
    files.put_all(items)
    # A plain file keeps the tail of a longer text, unlike a cgroup's.
    assert files.read(path).startswith(written.replace("\n", "")) or "\n" in written
    os.truncate(path, 0)
    files.restore(saved, ValueError())
    assert files.read(path) == ("" if undoing is None else undoing.replace("\n", "") or "\n")


@pytest.mark.parametrize(
    "unknown",
    [{"cpu": {"x": [0]}}, {"blockIO": {"x": [0]}}, {"x": [0]}, {"network": {"x": [{"name": ["a"]}]}}],
)
def test_members_that_nobody_knows(unknown: Table) -> None:
    """They are no error, whatever is in them, and are kept as they came."""
    assert resource_update.merge({"pids": {"limit": 5}}, unknown) == {"pids": {"limit": 5}} | (
        {} if "x" in unknown else unknown
    )

"""cgroups/stats.py: recorded cgroup files become runc's document."""

from __future__ import annotations

import pytest

from pyrunc.cgroups import stats
from pyrunc.errors import UsageError
from pyrunc.verbs import events as runtime_events

V1 = {
    "cpu.stat": "nr_periods 4\nnr_throttled 2\nthrottled_time 300\n",
    "cpuacct.usage": "12345678\n",
    "cpuacct.usage_percpu": "12000000 345678 \n",
    "cpuacct.usage_all": "cpu user system\n0 10000000 2000000\n1 300000 45678\n",
    "cpuacct.stat": "user 3\nsystem 1\n",
    "cpuset.cpus": "0-2,5\n",
    "cpuset.mems": "0\n",
    "cpuset.sched_load_balance": "1\n",
    "cpuset.sched_relax_domain_level": "-1\n",
    "memory.stat": "cache 4096\nrss 8192\n",
    "memory.limit_in_bytes": "67108864\n",
    "memory.usage_in_bytes": "20480\n",
    "memory.max_usage_in_bytes": "40960\n",
    "memory.failcnt": "7\n",
    "memory.kmem.usage_in_bytes": "100\n",
    "pids.current": "2\n",
    "pids.max": "max\n",
    "blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
    "blkio.throttle.io_serviced": "8:0 Read 1\nTotal 1\n",
    "hugetlb.2MB.usage_in_bytes": "0\n",
    "hugetlb.2MB.rsvd.usage_in_bytes": "2097152\n",
    "hugetlb.2MB.rsvd.max_usage_in_bytes": "4194304\n",
    "hugetlb.2MB.rsvd.failcnt": "1\n",
}
V2 = {
    "cpu.stat": "usage_usec 500\nuser_usec 300\nsystem_usec 200\nnr_periods 3\nnr_throttled 1\nthrottled_usec 9\n",
    "cpu.pressure": "some avg10=0.00 avg60=1.50 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "cpuset.cpus": "0-1\n",
    "memory.stat": "anon 4096\nfile 8192\n",
    "memory.current": "1000\n",
    "memory.max": "5000\n",
    "memory.peak": "2000\n",
    "memory.swap.current": "10\n",
    "memory.swap.max": "max\n",
    "memory.swap.peak": "20\n",
    "pids.current": "3\n",
    "pids.max": "40\n",
    "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n8:16\n",
    "hugetlb.2MB.current": "0\n",
    "hugetlb.2MB.rsvd.current": "2097152\n",
    "hugetlb.2MB.events": "max 4\n",
}


def test_v1() -> None:
    """Ticks become nanoseconds; what runc leaves out when it is 0 is left out."""
    document = stats.document(V1, 1)
    assert list(document) == [
        *("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"),
    ]
    assert document["cpu"] == {
        "usage": {
            "total": 12345678,
            "percpu": [12000000, 345678],
            "percpu_kernel": [2000000, 45678],
            "percpu_user": [10000000, 300000],
            "kernel": 10_000_000,
            "user": 30_000_000,
        },
        "throttling": {"periods": 4, "throttledPeriods": 2, "throttledTime": 300},
    }
    cpuset = document["cpuset"]
    assert isinstance(cpuset, dict)
    assert (cpuset["cpus"], cpuset["mems"], cpuset["sched_relax_domain_level"]) == ([0, 1, 2, 5], [0], -1)
    assert document["memory"] == {
        "cache": 4096,
        "usage": {"limit": 67108864, "usage": 20480, "max": 40960, "failcnt": 7},
        "swap": {"limit": 0, "failcnt": 0},
        "kernel": {"limit": 0, "usage": 100, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": {"cache": 4096, "rss": 8192},
    }
    assert document["pids"] == {"current": 2}
    assert document["blkio"] == {
        "ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 4096},
            {"major": 8, "op": "Write"},
        ],
        "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 1}],
    }
    assert document["hugetlb"] == {"2MB": {"usage": 2097152, "max": 4194304, "failcnt": 1}}
    assert document["network_interfaces"] is None


def test_v2() -> None:
    """Microseconds become nanoseconds, swap is memory and swap together, no limit is 2^64-1."""
    document = stats.document(V2, 2)
    zero = {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}
    assert document["cpu"] == {
        "usage": {"total": 500_000, "kernel": 200_000, "user": 300_000},
        "throttling": {"periods": 3, "throttledPeriods": 1, "throttledTime": 9000},
        "psi": {"some": {**zero, "avg60": 1.5, "total": 77}, "full": zero},
    }
    memory = document["memory"]
    assert isinstance(memory, dict)
    assert memory["cache"] == 8192
    assert memory["usage"] == {"limit": 5000, "usage": 1000, "max": 2000, "failcnt": 0}
    assert memory["swap"] == {"limit": stats.UNLIMITED, "usage": 1010, "failcnt": 0}
    assert document["pids"] == {"current": 3, "limit": 40}
    assert document["blkio"] == {
        "ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 4096},
            {"major": 8, "op": "Write"},
        ],
        "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write"}],
    }
    assert document["hugetlb"] == {"2MB": {"usage": 2097152, "failcnt": 4}}
    cpuset = document["cpuset"]
    assert isinstance(cpuset, dict)
    assert "cpus" not in cpuset


def test_swap_limits_of_v2() -> None:
    """A limit of swap adds to that of memory; none at all of it is that of memory alone."""
    for given, expected in (("100", 5100), ("0", 5000)):
        memory = stats.document({**V2, "memory.swap.max": given}, 2)["memory"]
        assert isinstance(memory, dict)
        assert memory["swap"]["limit"] == expected


def test_nothing_known() -> None:
    """A host without controllers gives a document without numbers, not an error."""
    for version in (1, 2):
        document = stats.document({}, version)
        assert document["pids"] == {}
        assert document["hugetlb"] == {}


def test_network_devices() -> None:
    """lo does not count; the columns are those of proc_pid_net(5)."""
    text = "Inter-|  Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
    assert stats.interfaces(text) is None
    found = stats.interfaces(text + "  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n")
    expected = dict(zip(("RxBytes", "RxPackets", "RxErrors", "RxDropped"), (10, 2, 3, 4), strict=True))
    expected.update(zip(("TxBytes", "TxPackets", "TxErrors", "TxDropped"), (50, 6, 7, 8), strict=True))
    assert found == [{"Name": "eth0", **expected}]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("2us", 2e-6),
        ("1\u00b5s", 1e-6),
        ("+3s", 3),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Go's time.ParseDuration."""
    assert runtime_events.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1.2.3s", "1s2", "9999999999h", "5 s"])
def test_what_is_no_duration(text: str) -> None:
    """runc's words of a flag that cannot be parsed."""
    with pytest.raises(UsageError, match="for flag -interval: parse error"):
        runtime_events.duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "-5s"])
def test_durations_that_never_end(text: str) -> None:
    """No time at all is refused."""
    with pytest.raises(UsageError, match="duration interval must be greater than 0"):
        runtime_events.duration(text)

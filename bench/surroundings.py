"""The machine a measurement was taken on, and whether it had anything else to do meanwhile."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import sys
import time

# The share of all processors that may be busy with something else before the figures mean little, and nothing.
WARN, REFUSE = 0.05, 0.25
_TICKS = os.sysconf("SC_CLK_TCK")


def _first(path: str, key: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith(key))
    except (OSError, StopIteration, IndexError):
        return ""


def _release() -> str:
    return (
        platform.freedesktop_os_release().get("PRETTY_NAME", "") if os.path.exists("/etc/os-release") else ""
    )


def facts() -> dict[str, str]:
    """What may matter for a figure."""
    memory = int(_first("/proc/meminfo", "MemTotal").split()[0]) // 1024
    virtual = " (virtual)" if " hypervisor " in _first("/proc/cpuinfo", "flags") + " " else ""
    return {
        "processor": f"{os.cpu_count()} x {_first('/proc/cpuinfo', 'model name') or platform.machine()}{virtual}",
        "memory": f"{memory} MB",
        "kernel": platform.release(),
        "system": _release(),
        "Python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def load() -> str:
    """The load average of now."""
    with open("/proc/loadavg", encoding="ascii") as stream:
        return " ".join(stream.read().split()[:3])


def _busy() -> tuple[float, float]:
    """Seconds of processor time that were spent by anybody, and in all, since the machine started. proc(5), stat."""
    with open("/proc/stat", encoding="ascii") as stream:
        values = [int(word) for word in stream.readline().split()[1:9]]
    idle = values[3] + values[4]
    return (sum(values) - idle) / _TICKS, sum(values) / _TICKS


def _own() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


class Watch:
    """How busy the machine is with other things than this process and its children, from now on."""

    def __init__(self) -> None:
        self.own = _own()
        self.busy, self.all = _busy()

    def others(self) -> float:
        """The share of all processors, 0 to 1. The kernel's own work for us counts among the others."""
        busy, whole = _busy()
        spent = busy - self.busy - (_own() - self.own)
        return max(spent / (whole - self.all), 0.0) if whole > self.all else 0.0


def wait_quiet(looks: int, seconds: float = 1.0) -> float:
    """Look at most that often, each time so long, until the machine is not too busy; what the last look showed."""
    share = 1.0
    for _ in range(looks):
        watch = Watch()
        time.sleep(seconds)
        share = watch.others()
        if share <= REFUSE:
            break
    return share


def check_quiet(*, anyway: bool, seconds: float = 1.0, looks: int = 60) -> float:
    """Wait for a quiet moment, say how quiet it is, and end the program if there is none.

    `anyway`: look once and only say so.
    """
    share = wait_quiet(1 if anyway else looks, seconds)
    if share > WARN:
        print(
            f"bench: {share:.0%} of the processors are busy with something else (load {load()}): "
            "the figures will be noisy",
            file=sys.stderr,
        )
    if share > REFUSE and not anyway:
        raise SystemExit("bench: too busy to measure; wait, or say --anyway")
    return share

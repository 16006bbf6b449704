"""The verb `info`: versions, and what this host offers to containers, one line each, for bug reports.

Changes nothing and needs no root.
"""

from __future__ import annotations

import os

from pyrunc import printable
from pyrunc.host import gather, proc
from pyrunc.spec.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.host_facts import HostFacts

_OS_RELEASE = "/etc/os-release"


def _distribution() -> str:
    for line in proc.read_file(_OS_RELEASE).split("\n"):
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip("\"'")
    return "unknown"


def _memory() -> str:
    for line in proc.read_file("/proc/meminfo").split("\n"):
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return f"{int(value.split()[0]) >> 10} MiB"
    return "unknown"


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _cgroups(facts: HostFacts) -> list[tuple[str, str]]:
    rows = [("cgroup version", facts.cgroup_mode)]
    if facts.cgroup_mounts:
        rows.append(("cgroup v1 controllers", " ".join(facts.cgroup_mounts)))
    if facts.unified_mount:
        controllers = proc.read_file(f"{facts.unified_mount}/cgroup.controllers").strip()
        rows += [("cgroup2 mount", facts.unified_mount), ("cgroup2 controllers", controllers or "none")]
    return rows


def rows() -> list[tuple[str, str]]:
    """Return the rows in order."""
    from pyrunc.reports.version import version

    facts = gather.gather()
    uname = os.uname()
    missing = sorted(set(NAMESPACES) - facts.namespaces)
    return [
        *[
            (name, text)
            for name, _, text in (line.partition(": ") for line in version().splitlines())
            if text
        ],
        ("kernel", f"{uname.release} {uname.machine}"),
        ("operating system", _distribution()),
        ("processors", str(os.cpu_count() or 0)),
        ("memory", _memory()),
        *_cgroups(facts),
        ("systemd", _yes(os.path.isdir("/run/systemd/system"))),
        ("namespaces", " ".join(sorted(facts.namespaces))),
        *([("missing namespaces", " ".join(missing))] if missing else []),
        ("in a user namespace", _yes(facts.in_userns)),
        ("rootless", _yes(facts.rootless)),
        ("apparmor", _yes(facts.apparmor)),
        ("selinux", _yes(facts.selinux)),
    ]


def render() -> str:
    """Return the rows as a table of two columns."""
    from pyrunc.reports.version import version

    table = rows()
    width = max(len(name) for name, _ in table) + 2
    return f"{version().splitlines()[0]}\n" + "".join(
        f"{name + ':':{width}}{printable.line(text)}\n" for name, text in table
    )

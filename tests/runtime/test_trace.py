"""--trace and --timings: what they say is true, and nothing else changes."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, TypeAlias

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containers import BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

DOORS = {"pyrunc": [support.PYRUNC], "python3 -m pyrunc": [support.PYTHON, "-I", "-m", "pyrunc"]}
# Times have three digits behind the point, and sums of such doubles are not exact.
NOISE = 0.0005
Event: TypeAlias = "dict[str, object]"


def number(event: Event, key: str) -> float:
    """A field that must be a number."""
    value = event[key]
    assert isinstance(value, int | float), event
    return value


def read(path: str) -> list[Event]:
    """The complete events of a trace file; asserts that it is a valid one."""
    with open(path, encoding="utf-8") as stream:
        events = json.load(stream)["traceEvents"]
    assert {event["ph"] for event in events} == {"X", "M"}
    for event in events:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
    complete = [event for event in events if event["ph"] == "X"]
    for event in complete:
        assert number(event, "ts") > 0
        assert number(event, "dur") >= 0, event
    assert {event["tid"] for event in complete} == {event["tid"] for event in events if event["ph"] == "M"}
    return complete


def lanes(events: Sequence[Event]) -> dict[int, list[Event]]:
    """The events of each thread, by time, what encloses first."""
    found: dict[int, list[Event]] = {}
    for event in sorted(events, key=lambda item: (number(item, "ts"), -number(item, "dur"))):
        found.setdefault(int(number(event, "tid")), []).append(event)
    return found


def uncovered(lane: Sequence[Event]) -> dict[str, float]:
    """Asserts that the events nest; for each that has parts, the share of its time that none of them covers."""
    own: list[float] = []
    parts: list[int] = []
    open_: list[int] = []
    for index, event in enumerate(lane):
        begin, end = number(event, "ts"), number(event, "ts") + number(event, "dur")
        while open_ and number(lane[open_[-1]], "ts") + number(lane[open_[-1]], "dur") <= begin + NOISE:
            open_.pop()
        own.append(number(event, "dur"))
        parts.append(0)
        if open_:
            outer = lane[open_[-1]]
            assert end <= number(outer, "ts") + number(outer, "dur") + NOISE, (outer, event)
            own[open_[-1]] -= number(event, "dur")
            parts[open_[-1]] += 1
        open_.append(index)
    return {
        str(event["name"]): own[index] / number(event, "dur")
        for index, event in enumerate(lane)
        if parts[index] and number(event, "dur") > 0
    }


def check(path: str, verb: str, names: set[str], *, init: int = 0) -> list[Event]:
    """Assert that the trace is one of this verb, has these phases and that many inits."""
    events = read(path)
    whole = next(event for event in events if event["name"] == f"pyrunc {verb}")
    found = lanes(events)
    assert len(found) == 1 + init
    assert names <= {str(event["name"]) for event in events}, verb
    for event in events:
        assert number(event, "ts") >= number(whole, "ts") - NOISE
        assert (
            number(event, "ts") + number(event, "dur") <= number(whole, "ts") + number(whole, "dur") + NOISE
        )
    for tid, lane in found.items():
        shares = uncovered(lane)
        if tid == whole["tid"]:
            assert lane[0] is whole
        else:
            assert not shares, "ops lie one behind the other"
    return events


@pytest.mark.parametrize("door", DOORS)
def test_a_whole_life(container: ContainerFactory, bundle: BundleFactory, scratch: str, door: str) -> None:
    """Every verb of a life by either door: each phase, each import, and each op of init."""
    path = os.path.join(scratch, "trace.json")
    one = container(bundle("probe").probe("pause"), command=[*DOORS[door], "--trace", path])
    early = {"launcher", "interpreter start"} if door == "pyrunc" else set()
    one.create().ok()
    phases = {
        "configuration",
        "schema",
        "rules",
        "plan",
        "cgroup: make",
        "clone and exec",
        "rename to state",
    }
    # Not START_WAIT: create may be done before init comes to it.
    ops = {f"ROOTFS {one.bundle.rootfs}", "SYNC ENV", "PIVOT", "SYNC READY"}
    events = check(path, "create", early | phases | ops, init=1)
    # The command's Python has loaded them already, when it comes out of a snapshot.
    imports = [str(event["name"]) for event in events if event["cat"] == "import"]
    assert "import pyrunc.verbs.create" in imports or door == "pyrunc"
    mount = next(event for event in events if str(event["name"]).startswith("MOUNT_NEW /proc"))
    assert mount["args"] == {"path": "$.mounts[0]"}
    assert one.status() == "created"
    check(path, "state", early | {"state"})
    one.start().ok()
    check(path, "start", early | {"let init go"})
    one.expect("ready")
    assert one.exec("/bin/probe", "exit", "7").status == 7
    check(path, "exec", early | {"plan", "program", "FORK, SETSID, SYNC READY, EXEC"}, init=1)
    one.kill().ok()
    check(path, "kill", early | {"kill"})
    one.wait()
    one.delete().ok()
    check(path, "delete", early | {"delete"})


def test_phases_are_nearly_the_whole(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """What takes long has a name. A busy machine may stop us between two phases, but not again and again."""
    path = os.path.join(scratch, "trace.json")
    one = container(bundle("probe", "/bin/probe", "exit", "0"), command=[support.PYRUNC, "--trace", path])
    least: dict[str, float] = {}
    for _ in range(8):
        one.run().ok()
        whole, *_ = lane = max(lanes(read(path)).values(), key=lambda lane: number(lane[0], "dur"))
        assert whole["name"] == "pyrunc run"
        for name, share in uncovered(lane).items():
            least[name] = min(least.get(name, 1), share)
    assert {name: least[name] for name in ("pyrunc run", "run", "bring up") if least[name] > 0.15} == {}


@pytest.mark.parametrize("namespace", ["pid", "time", "joined pid", "no_new_privs"])
def test_ops_lie_between_clone_and_ready(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, namespace: str
) -> None:
    """Also where init sees another clock, goes on in another process, or has a filter that forbids to ask."""
    what = bundle("seccomp", "/bin/busybox", "true")
    what.mapping("process")["noNewPrivileges"] = namespace == "no_new_privs"
    spaces = what.list_of("linux", "namespaces")
    if namespace == "time":
        spaces.append({"type": "time"})
        what.mapping("linux")["timeOffsets"] = {"monotonic": {"secs": 7200}, "boottime": {"secs": 7200}}
    if namespace == "joined pid":
        spaces[:] = [item for item in spaces if item != {"type": "pid"}]
        spaces.append({"type": "pid", "path": "/proc/self/ns/pid"})
    path = os.path.join(scratch, "trace.json")
    container(what, command=[support.PYRUNC, "--trace", path]).run().ok()
    events = check(path, "run", {"program"}, init=1)
    inits = [event for event in events if event["cat"] == "init"]
    clone = next(event for event in events if event["name"] == "clone and exec")
    start = next(event for event in events if event["name"] == "let init go")
    assert len(inits) > 20
    assert min(number(event, "ts") for event in inits) > number(clone, "ts")
    last = max(number(event, "ts") + number(event, "dur") for event in inits)
    assert last <= number(start, "ts") + number(start, "dur") + NOISE
    # All of them: the last row names those that no clock was near.
    said = " ".join(str(event["name"]) for event in inits)
    for name in ("ROOTFS", "PIVOT", "USER", "CAPSET", "SYNC READY", "SECCOMP", "START_WAIT", "EXEC"):
        assert name in said, said


def test_hooks_are_phases_or_ops(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Those of the runtime namespace and those of the container."""
    what = bundle("busybox", "true")
    kinds = ("createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    what.spec["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", "cat >/dev/null"]}] for kind in kinds
    }
    path = os.path.join(scratch, "trace.json")
    container(what, command=[support.PYRUNC, "--trace", path]).run().ok()
    names = [str(event["name"]) for event in check(path, "run", set(), init=1)]
    assert [name for name in names if "hook " in name] == [
        *("hook createRuntime[0]", "hook poststart[0]", "hook poststop[0]")
    ]
    assert names.count("HOOK /bin/sh") == 2


@pytest.mark.parametrize("door", DOORS)
def test_timings(container: ContainerFactory, bundle: BundleFactory, door: str) -> None:
    """The program's output stays clean; the chart is on stderr, its first row is the whole."""
    one = container(bundle("busybox", "sh", "-c", "echo out; echo err >&2; exit 3"), command=DOORS[door])
    done = one.run("--timings")
    assert (done.status, done.out) == (3, "out\n")
    assert done.err.startswith("err\n")
    rows = done.err.splitlines()[1:]
    found = [re.fullmatch(r"( *)(\S.*?) +(\d+\.\d\d) ms  +([█▏▎▍▌▋▊▉]*)", row) for row in rows]
    assert all(found), rows
    times = {match[2]: float(match[3]) for match in found if match}
    assert rows[0].startswith("pyrunc run ")
    assert times["pyrunc run"] >= max(times.values())
    assert times["run"] >= times["bring up"] > 0
    assert "init" in times
    assert ("interpreter start" in times) == (door == "pyrunc")


def test_timings_of_create_and_exec(container: ContainerFactory, bundle: BundleFactory) -> None:
    """They have the option too; an argument of the program that looks like it is only that."""
    one = container(bundle("busybox", "sh", "-c", "echo ready; sleep 600"))
    assert "bring up" in one.create("--timings").ok().err
    one.start().ok()
    one.expect("ready")
    assert "start in cgroup" in one.exec("true", options=["--timings"]).ok().err
    assert one.exec("echo", "--timings").ok().out == "--timings\n"
    assert one.exec("echo", "--timings").err == ""


def test_a_failure_is_reported_as_ever(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """Exit status and words are the same, nothing stays behind, and the trace tells how far it came."""
    what = bundle("busybox", "true")
    what.list_of("mounts").append(
        {"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}
    )
    path = os.path.join(scratch, "trace.json")
    plain, one = container(what), container(what, command=[support.PYRUNC, "--trace", path])
    words = plain.run().fails("/nowhere").err
    assert one.run().fails("/nowhere").err == words
    assert not os.path.exists(os.path.join(one.root, one.id))
    check(path, "run", {"configuration", "plan"}, init=1)


def test_a_file_that_cannot_be_written(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """Said before anything is done."""
    path = os.path.join(scratch, "no/trace.json")
    one = container(bundle("busybox", "true"), command=[support.PYRUNC, "--trace", path])
    one.run().fails("open", path, "hint: --trace")
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_a_full_disk(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Said when it happens, and by the exit status."""
    one = container(bundle("busybox", "true"), command=[support.PYRUNC, "--trace", "/dev/full"])
    one.run().fails("write '/dev/full'")


def test_nobody_pays_who_does_not_ask(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Without the option no module of it is loaded, and init gets no memory to share."""
    boot = os.path.join(support.PACKAGE, "boot.py")
    python = [os.path.realpath(support.PYTHON), "-I", "-S", "-X", "importtime", boot, "--"]
    done = container(bundle("probe", "/bin/probe", "exit", "0"), command=python).run().ok()
    assert "pyrunc.verbs.create" in done.err
    assert "pyrunc.timing.trace" not in done.err
    assert "pyrunc.timing.timeline" not in done.err

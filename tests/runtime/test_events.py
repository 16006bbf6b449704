"""events: what real containers use, and when they run out of memory."""

from __future__ import annotations

import json
import os
import select
import subprocess
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import BundleFactory, Container, ContainerFactory
    from support import Json, Spec

pytestmark = pytest.mark.root

VIEWS = ["host", "v2"]
LIMIT = 32 << 20
# Doubles a variable until the kernel ends the shell that holds it.
HOG = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"


class Follower:
    """`events` under way, read line by line."""

    def __init__(self, one: Container, *options: str) -> None:
        self._process = subprocess.Popen(
            [*one.command, "events", *options, one.id], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def next(self) -> Spec:
        """The next event."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 20)
        assert ready, "no event in time"
        event = json.loads(self._process.stdout.readline())
        assert isinstance(event, dict)
        return event

    def stop_reading(self) -> int:
        """Close our end of its standard output; its exit status."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(20)

    def end(self) -> tuple[int, bytes, bytes]:
        """Its exit status, the rest of its output, its errors."""
        out, err = self._process.communicate(timeout=20)
        return self._process.returncode, out, err

    def clean_up(self) -> None:
        """End it in any case."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def followers() -> Iterator[list[Follower]]:
    """Those that a test has started."""
    made: list[Follower] = []
    yield made
    for follower in made:
        follower.clean_up()


@pytest.mark.parametrize("view", VIEWS)
def test_stats_once(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """One line in runc's form, with the limits of the configuration."""
    what = bundle("probe", "/bin/probe", "pause")
    if view == "host":  # the other view has no controllers for limits where v1 has them
        what.mapping("linux", "resources")["memory"] = {"limit": LIMIT}
        what.mapping("linux", "resources")["pids"] = {"limit": 17}
    one = container(what.write(), view=view).up()
    result = one.pyrunc("events", "--stats", one.id).ok()
    assert result.out.startswith('{"type":"stats","id":"' + one.id + '","data":{"cpu":{"usage":{')
    assert result.out.count("\n") == 1
    event = json.loads(result.out)
    memory, pids = event["data"]["memory"], event["data"]["pids"]
    assert event["data"]["cpu"]["usage"]["total"] > 0
    if view == "host":
        assert memory["usage"]["limit"] == LIMIT
        assert memory["usage"]["usage"] > 0
        assert pids == {"current": 1, "limit": 17}


def test_stats_again_and_again(
    container: ContainerFactory, bundle: BundleFactory, followers: list[Follower]
) -> None:
    """Until the container ends, with exit status 0."""
    one = container(bundle("probe", "/bin/probe", "pause")).up()
    follower = Follower(one, "--interval", "50ms")
    followers.append(follower)
    for _ in range(3):
        event = follower.next()
        assert (event["type"], event["id"]) == ("stats", one.id)
    one.delete("--force").ok()
    status, _, errors = follower.end()
    assert (status, errors) == (0, b"")


def test_a_reader_that_goes_ends_it(
    container: ContainerFactory, bundle: BundleFactory, followers: list[Follower]
) -> None:
    """Also long before the next line is due."""
    one = container(bundle("probe", "/bin/probe", "pause")).up()
    follower = Follower(one, "--interval=1h")
    followers.append(follower)
    assert follower.stop_reading() == 0


def test_out_of_memory(
    container: ContainerFactory, bundle: BundleFactory, followers: list[Follower]
) -> None:
    """runc's event, without data, while the container goes on."""
    what = bundle("busybox", "sh", "-c", f"read line; sh -c '{HOG}'; echo ended; sleep 600")
    what.mapping("linux", "resources")["memory"] = {"limit": LIMIT, "swap": LIMIT}
    one = container(what.write())
    reader, writer = os.pipe()
    try:
        one.create(stdin=reader).ok()
        one.start().ok()
        follower = Follower(one, "--interval", "100ms")
        followers.append(follower)
        follower.next()
        os.write(writer, b"\n")
        one.expect("ended", timeout=60)
        event = follower.next()
        while event["type"] == "stats":
            event = follower.next()
        assert event == {"type": "oom", "id": one.id}
    finally:
        os.close(reader)
        os.close(writer)


def test_a_stopped_container(container: ContainerFactory, bundle: BundleFactory) -> None:
    """runc's words."""
    one = container(bundle("probe", "/bin/probe", "ids")).up()
    one.wait()
    one.pyrunc("events", one.id).fails(f"container with id {one.id} is not running")
    one.pyrunc("events", "--stats", one.id).fails(f"container with id {one.id} is not running")


def test_bad_intervals(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Before the container is looked for."""
    one = container(bundle("probe", "/bin/probe", "ids"))
    one.pyrunc("events", "--interval", "5", "nobody").fails('invalid value "5" for flag -interval')
    one.pyrunc("events", "--interval=0s", "nobody").fails("duration interval must be greater than 0")


# Whether a container that starts is throttled once is up to the host's scheduler.
CHANCE = {"periods", "throttledPeriods", "throttledTime"}


def same_words(ours: Json, theirs: Json, path: str = "") -> None:
    """Every word of runc's document that is in ours is of the same kind, in the same order."""
    assert type(ours) is type(theirs), path
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert [key for key in ours if key in theirs] == [key for key in theirs if key in ours], path
        # What is 0 is left out, by both; of these runc is alone with none.
        alone = (
            set(theirs)
            - set(ours)
            - {"cache", "usage", "max", *CHANCE}
            - {key for key in theirs if "Recursive" in key}
        )
        assert not alone, f"{path}: {alone}"
        for key in set(ours) & set(theirs):
            same_words(ours[key], theirs[key], f"{path}.{key}")


def test_as_runc_says_it(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The same container under both: the same words in the same order, and the same limits."""
    runc = support.needs_program("runc")
    documents = []
    for command in ([support.PYRUNC], [runc]):
        what = bundle("probe", "/bin/probe", "pause")
        what.mapping("linux", "resources")["memory"] = {"limit": LIMIT, "swap": LIMIT + (1 << 20)}
        what.mapping("linux", "resources")["pids"] = {"limit": 17}
        what.mapping("linux", "resources")["cpu"] = {"quota": 50000, "period": 100000}
        one = container(what, command=command).up()
        event = one.pyrunc("events", "--stats", one.id).ok().json()
        assert isinstance(event, dict)
        assert isinstance(event["data"], dict)
        documents.append(event["data"])
        one.delete("--force").ok()
    ours, theirs = documents
    same_words(ours, theirs)
    for key in ("cpuset", "hugetlb", "intel_rdt", "network_interfaces"):
        assert ours[key] == theirs[key]
    for kind in ("usage", "swap", "kernel", "kernelTCP"):
        memory = [document["memory"] for document in documents]
        limits = [entry[kind]["limit"] for entry in memory]  # type: ignore[call-overload, index]  # objects all
        assert limits[0] == limits[1], kind

"""A bundle and its container, driven by whatever runtime RUNTIME names, and what rows of the table say of them.

Imports the tests' own support and containers; the fixture `box` stands in conftest.py.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containers import Bundle, Container, ContainerFactory
    from support import Facts, Json, Result, Spec

RUNTIME = os.environ.get("RUNTIME") or support.PYRUNC
# A key of support.VIEWS: crun refuses a host with v1 controllers and cgroup2 side by side.
VIEW = os.environ.get("RUNTIME_VIEW") or "host"


def row(*names: str) -> pytest.MarkDecorator:
    """Mark a test with the rows that it decides: the way to a property as config.json has it, or a command line."""
    return pytest.mark.row(*names)


def lacks(what: str) -> None:
    """Skip the row: the host has no `what`."""
    pytest.skip(what)


def cgroup_mount(controller: str) -> str | None:
    """Where a v1 controller, or with "" cgroup v2, is mounted here."""
    kind = "cgroup" if controller else "cgroup2"
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for line in stream:
            left, _, right = line.partition(" - ")
            words = right.split()
            if words[0] == kind and (not controller or controller in words[2].split(",")):
                return left.split()[4]
    return None


class Box:
    """One bundle with the probe as its program, and the containers made of it."""

    def __init__(self, bundle: Bundle, make: ContainerFactory) -> None:
        self.bundle = bundle
        self._make = make
        self.view = VIEW

    def set(self, path: str, value: Json) -> Box:
        """Itself, with a property set: set("process.user.uid", 5)."""
        *parents, last = path.split(".")
        self.bundle.mapping(*parents)[last] = value
        return self

    def add(self, path: str, *values: Json) -> Box:
        """Itself, with entries put at the end of an array."""
        self.bundle.list_of(*path.split(".")).extend(values)
        return self

    def drop(self, path: str) -> Box:
        """Itself, with a property taken away."""
        *parents, last = path.split(".")
        self.bundle.mapping(*parents).pop(last, None)
        return self

    def capability(self, *names: str) -> Box:
        """Itself, with more capabilities in the bounding, effective and permitted sets."""
        for kind in ("bounding", "effective", "permitted"):
            self.add(f"process.capabilities.{kind}", *names)
        return self

    def container(self) -> Container:
        """A container of the bundle as it is now, not created yet."""
        return self._make(self.bundle, view=self.view, command=[RUNTIME])

    def run(self, *words: str, options: Sequence[str] = (), stdin: str = "") -> Result:
        """Run the probe with these words to its end."""
        if words:
            self.bundle.probe(*words)
        return self.container().run(*options, stdin=stdin)

    def facts(self, *words: str) -> Facts:
        """What the probe says; the run must succeed."""
        return self.run(*words).ok().facts()

    def up(self, *words: str) -> Container:
        """A running container whose probe has said `ready`: without words it waits for SIGTERM."""
        self.bundle.probe(*(words or ("pause",)))
        one = self.container().up()
        one.expect("ready")
        return one

    def refused(self, *texts: str) -> Result:
        """Assert that create fails, says each of `texts`, and that nothing is left of the container."""
        one = self.container()
        result = one.create()
        assert result.status != 0, f"accepted: {result}"
        for text in texts:
            assert text in result.err, result
        assert not os.path.lexists(os.path.join(one.root, one.id)), "the state directory stays behind"
        left = support.find_cgroups(one.id)
        assert not left, f"cgroups stay behind: {left}"
        return result

    def cgroup_value(self, one: Container, v1: tuple[str, str] | None, v2: str | None) -> str:
        """A control file of a running container: (controller, file) on v1, the file's name on v2."""
        with open(f"/proc/{one.pid}/cgroup", encoding="ascii") as stream:
            lines = [line.rstrip("\n").split(":", 2) for line in stream]
        for _, controllers, path in lines:
            if v1 is not None and v1[0] in controllers.split(","):
                return _read(cgroup_mount(v1[0]), path, v1[1])
        path = next(path for number, _, path in lines if number == "0")
        if v2 is None:
            lacks(f"the v1 controller {v1[0] if v1 else ''}")
        assert v2 is not None
        return _read(cgroup_mount(""), path, v2)


def _read(mount: str | None, path: str, name: str) -> str:
    if mount is None or not os.path.exists(f"{mount}{path}/{name}"):
        lacks(f"the control file {name}")
    with open(f"{mount}{path}/{name}", encoding="ascii") as stream:
        return stream.read().strip()


def entry(value: Json) -> Spec:
    """`value`, known to be an object."""
    assert isinstance(value, dict)
    return value

"""What the command lines of docker and podman have in common."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import support
from engines.image import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engines.area import Area


class Client:
    """A command that runs containers of the image of image.py; they are in cgroups below the one in the area's name.

    `always` are options of `run` and `create` that place a container below it.
    """

    # How to take away a running container at once.
    remove: tuple[str, ...] = ("rm", "--force")
    # The network that containers have when none is given.
    bridge = "bridge"

    def __init__(
        self, area: Area, *program: str, environment: Mapping[str, str], always: tuple[str, ...] = ()
    ) -> None:
        self.area = area
        self._program = program
        self.environment = dict(environment)
        self.always = always
        self._numbers = itertools.count(1)
        self._names: list[str] = []

    def do(self, *argv: str, stdin: str = "", timeout: float = 60) -> support.Result:
        """Run the command to its end."""
        return self.area.run(*self._program, *argv, stdin=stdin, timeout=timeout, env=self.environment)

    def typed(self, *argv: str) -> list[str]:
        """The same as an argument list for a terminal."""
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        return [*self.area.prefix, "env", *settings, *self._program, *argv]

    def path(self, name: str) -> str:
        """Where the user of the command has files of their own."""
        return self.area.path(name)

    def name(self) -> str:
        """A name for a container that forget() will remove."""
        name = f"c{next(self._numbers)}"
        self._names.append(name)
        return name

    def run(self, *argv: str, options: tuple[str, ...] = ("--rm",), timeout: float = 60) -> support.Result:
        """`run` of a program to its end; options come before the image."""
        return self._run(self.name(), options, argv, timeout)

    def start(self, *argv: str, options: tuple[str, ...] = ()) -> str:
        """`run --detach`; the name."""
        name = self.name()
        self._run(name, ("--detach", *options), argv).ok()
        return name

    def _run(
        self, name: str, options: tuple[str, ...], argv: tuple[str, ...], timeout: float = 60
    ) -> support.Result:
        # Else the host name is a part of the id.
        first = ("--name", name, "--hostname", "box", *self.always)
        return self.do("run", *first, *options, IMAGE, *argv, timeout=timeout)

    def inspect(self, name: str, field: str) -> str:
        """One field of `inspect`, a template of Go's without braces."""
        return self.do("inspect", "--format", f"{{{{{field}}}}}", name).ok().out.strip()

    def status(self, name: str) -> str:
        """created, running, paused, restarting, exited."""
        return self.inspect(name, ".State.Status")

    def wait_status(self, name: str, status: str, timeout: float = 20) -> None:
        """Wait until `inspect` says so."""
        support.wait_until(
            lambda: self.status(name) == status, f"container {name} {status}", timeout=timeout
        )

    def wait_ended(self, name: str) -> None:
        """Wait until it has exited and nobody clears up behind it any more."""
        self.wait_status(name, "exited")

    def pid(self, name: str) -> int:
        """The pid of the first process, 0 when there is none."""
        return int(self.inspect(name, ".State.Pid"))

    def outcome(self, name: str) -> str:
        """How a container ended."""
        return self.inspect(name, ".State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error")

    def left(self) -> list[str]:
        """Cgroups that containers have left behind."""
        return self.area.container_cgroups()

    def forget(self) -> Iterator[str]:
        """Remove whatever is still there; what cannot be removed comes out."""
        left = self._names
        # Whom another one depends on goes in a second round.
        for _ in range(2):
            if left:
                self.do(*self.remove, "--volumes", *left)
                left = self.do("ps", "--all", "--quiet", "--no-trunc").ok().out.split()
        yield from left
        self._names.clear()
        # The same test then has the same names with every runtime.
        self._numbers = itertools.count(1)

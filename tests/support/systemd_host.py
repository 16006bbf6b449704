"""The same container with pyrunc, runc and crun, below either cgroup driver, on a host with systemd."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import limits
import support

if TYPE_CHECKING:
    from collections.abc import Iterable

    from containers import Bundle, Container, ContainerFactory, User
    from support import Spec

RUNTIMES = ("pyrunc", "runc", "crun")
DRIVERS = ("cgroupfs", "systemd")
SLICE = "lab.slice"


def needs_systemd() -> None:
    """Skip where systemd does not run."""
    support.needs(os.path.isdir("/run/systemd/system"), "systemd")


def needs_v2_alone() -> None:
    """Skip where cgroup v2 is not all there is."""
    support.needs(os.path.exists("/sys/fs/cgroup/cgroup.controllers"), "cgroup v2 alone")


def program(runtime: str, driver: str) -> list[str]:
    """The command of a runtime; skips where it is not installed."""
    path = support.PYRUNC if runtime == "pyrunc" else support.needs_program(runtime)
    return [path, "--systemd-cgroup"] if driver == "systemd" else [path]


def rootless(
    container: ContainerFactory, bundle: Bundle, user: User, runtime: str, place: str | None
) -> Container:
    """A container of the user, not created yet: in the delegated cgroup `place`, else in a scope of its manager."""
    argv = program(runtime, "systemd" if place is None else "cgroupfs")
    if runtime == "pyrunc":
        argv[0] = user.pyrunc
    one = container(bundle, user=user, command=argv)
    if place is not None:
        # Only root can move a process that far.
        one.command[:0] = ["sh", "-c", f'echo $$ >{place}/self/cgroup.procs && exec "$@"', "sh"]
    else:
        in_slice(one, "systemd")
    return one


def in_slice(one: Container, driver: str) -> None:
    """Give a container a cgroup in its id: lab-ID.scope in the slice, or /lab-ID."""
    linux = one.bundle.mapping("linux")
    linux["cgroupsPath"] = f"{SLICE}:lab:{one.id}" if driver == "systemd" else f"/lab-{one.id}"
    one.bundle.write()


def made(container: ContainerFactory, bundle: Bundle, runtime: str, driver: str) -> Container:
    """A container of that runtime in its place, not created yet."""
    one = container(bundle, command=program(runtime, driver))
    in_slice(one, driver)
    return one


def running(container: ContainerFactory, bundle: Bundle, runtime: str, driver: str) -> Container:
    """The same, with its program running; runc's own words, when it fails, are in the assertion."""
    return made(container, bundle, runtime, driver).up()


def unit(one: Container) -> str:
    """The scope of a container in its place."""
    return f"lab-{one.id}.scope"


def directory(one: Container) -> str:
    """Where its program is: with crun 1.8 that is a cgroup `container` in the scope, which has the limits."""
    return limits.directory(one.pid, "")


def files(one: Container, names: Iterable[str]) -> dict[str, str]:
    """These files of its cgroup; "" for one that is not there."""
    found = {}
    for name in names:
        path = os.path.join(directory(one), name)
        found[name] = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                found[name] = stream.read().strip()
    return found


def show(name: str, *options: str, prefix: Iterable[str] = ()) -> dict[str, str]:
    """The properties of a unit; those that come several times, such as DeviceAllow, sorted in one."""
    found: dict[str, list[str]] = {}
    for line in support.run(*prefix, "systemctl", *options, "show", name).ok().out.splitlines():
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return {key: "\n".join(sorted(values)) for key, values in found.items()}


def exists(name: str, *options: str, prefix: Iterable[str] = ()) -> bool:
    """Whether systemd knows the unit."""
    return show(name, *options, prefix=prefix)["LoadState"] != "not-found"


def limited(made: Bundle, resources: Spec) -> Bundle:
    """Itself, with these resources beside its device rules."""
    made.mapping("linux", "resources").update(resources)
    return made

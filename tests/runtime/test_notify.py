"""NOTIFY_SOCKET: a container tells the host's service manager that it is ready. sd_notify(3)."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from namespaces import mapped
from pyrunc.errors import KernelError
from pyrunc.host import notify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

SOCKET = "/run/notify/notify.sock"


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(10)

    def receive(self) -> tuple[list[str], list[int]]:
        """The lines of the next message and its descriptors."""
        data, fds, _flags, _sender = socket.recv_fds(self._socket, 4096, 4)
        return data.decode().splitlines(), list(fds)

    def barrier(self) -> int:
        """The descriptor of the next message, which must be a barrier."""
        lines, fds = self.receive()
        assert lines == ["BARRIER=1"]
        assert len(fds) == 1
        return fds[0]

    def silent(self) -> bool:
        """Whether nothing has come."""
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        """Close it."""
        self._socket.close()


@pytest.fixture
def manager(scratch: str) -> Iterator[Manager]:
    """A service manager that listens at a path."""
    made = Manager(os.path.join(scratch, "manager.sock"))
    yield made
    made.close()


def notifying(
    container: ContainerFactory, what: Bundle, manager: Manager, *, view: str = "host"
) -> Container:
    """A container whose every command has NOTIFY_SOCKET in its environment."""
    one = container(what, view=view)
    one.command[:0] = ["env", f"NOTIFY_SOCKET={manager.address}"]
    return one


def says(*messages: str, then: str = "pause") -> list[str]:
    """The probe's words for sending these, each as one message, and going on."""
    words: list[str] = []
    for message in messages:
        words += ["notify", message, "--"]
    return [*words, then]


def starting(one: Container) -> subprocess.Popen[str]:
    """`start` in the background."""
    return subprocess.Popen([*one.command, "start", one.id], stderr=subprocess.PIPE, text=True, cwd="/")


@pytest.mark.parametrize("user", [False, True])
def test_start_waits_for_readiness(
    container: ContainerFactory, bundle: BundleFactory, manager: Manager, user: bool
) -> None:
    """READY=1 and the pid go on, nothing else does, and start ends with the barrier."""
    what = bundle("probe").probe(*says("STATUS=soon", "READY=1\nSTOPPING=1"))
    what.mapping("process")["user"] = {"uid": 1000, "gid": 1000}
    # The rootfs is not the mapped root's, who could not make it.
    os.makedirs(os.path.join(what.rootfs, "run/notify"))
    one = notifying(container, mapped(what) if user else what, manager)
    one.create().ok()
    assert one.status() == "created"
    with starting(one) as process:
        lines, fds = manager.receive()
        assert (sorted(lines), fds) == ([f"MAINPID={one.pid}", "READY=1"], [])
        barrier = manager.barrier()
        assert process.poll() is None
        os.close(barrier)
        assert process.wait(timeout=10) == 0
    assert manager.silent()
    one.expect("ready")
    assert one.status() == "running"


def test_start_waits_as_long_as_it_takes(
    container: ContainerFactory, bundle: BundleFactory, manager: Manager
) -> None:
    """Not before somebody tells the program to go on does start end."""
    one = notifying(container, bundle("probe").probe("sigonce", "USR1", "--", *says("READY=1")), manager)
    one.create().ok()
    with starting(one) as process:
        one.expect("waiting")
        assert process.poll() is None
        assert manager.silent()
        one.kill("USR1").ok()
        manager.receive()
        os.close(manager.barrier())
        assert process.wait(timeout=10) == 0


def test_a_program_that_ends_without_a_word(
    container: ContainerFactory, bundle: BundleFactory, manager: Manager
) -> None:
    one = notifying(container, bundle("probe").probe("exit", "0"), manager)
    one.create().ok()
    one.start().ok()
    assert manager.silent()
    assert one.wait() == 0


def test_the_environment_inside(
    container: ContainerFactory, bundle: BundleFactory, manager: Manager
) -> None:
    """The host's path means nothing inside; the directory cannot be written to."""
    words = ["env", "--", "stat", "/run/notify", SOCKET, "--", "open", "/run/notify/x", "rw", "--", "mounts"]
    what = bundle("probe").probe(*words)
    what.list_of("process", "env").append("NOTIFY_SOCKET=/elsewhere")
    one = notifying(container, what, manager)
    facts = one.run().ok().facts()
    assert [item for item in facts.all("env") if item.startswith("NOTIFY")] == [f"NOTIFY_SOCKET={SOCKET}"]
    assert "mode 140777" in facts.all("stat")[1]
    mount = next(line for line in facts.text.splitlines() if "/notify /run/notify " in line)
    for option in ("ro", "nosuid", "nodev", "noexec"):
        assert option in mount.split()[5].split(",")


def test_an_attached_run(container: ContainerFactory, bundle: BundleFactory, manager: Manager) -> None:
    """The service's main process is then the runtime, which stays; it forwards signals meanwhile."""
    one = notifying(container, bundle("probe").probe(*says("READY=1", then="sigwait")), manager)
    argv = [*one.command, "run", "--bundle", one.bundle.path, one.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        lines, _ = manager.receive()
        assert sorted(lines) == [f"MAINPID={process.pid}", "READY=1"]
        os.close(manager.barrier())
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "signal 15\n"
        assert process.wait(timeout=10) == 0
    assert not os.path.exists(os.path.join(one.root, one.id))


@pytest.mark.slow
def test_a_manager_that_is_slow(
    container: ContainerFactory, bundle: BundleFactory, manager: Manager
) -> None:
    """Whoever waits for its word forwards signals meanwhile, and does not wait once told to end."""
    one = notifying(container, bundle("probe").probe(*says("READY=1", then="sigwait")), manager)
    argv = [*one.command, "run", "--bundle", one.bundle.path, one.id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        manager.receive()
        barrier = manager.barrier()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "signal 15\n"
        assert process.wait(timeout=15) == 0
        os.close(barrier)


def test_a_detached_run(container: ContainerFactory, bundle: BundleFactory, manager: Manager) -> None:
    one = notifying(container, bundle("probe").probe(*says("READY=1")), manager)
    argv = [*one.command, "run", "-d", "--pid-file", one.pid_file, "--bundle", one.bundle.path, one.id]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd="/") as process:
        lines, _ = manager.receive()
        assert sorted(lines) == [f"MAINPID={one.pid}", "READY=1"]
        assert process.poll() is None
        os.close(manager.barrier())
        assert process.wait(timeout=10) == 0


def test_an_abstract_socket(container: ContainerFactory, bundle: BundleFactory) -> None:
    manager = Manager(f"@pyrunc-test-{os.getpid()}")
    try:
        one = notifying(container, bundle("probe").probe(*says("READY=1")), manager)
        one.create().ok()
        with starting(one) as process:
            assert "READY=1" in manager.receive()[0]
            os.close(manager.barrier())
            assert process.wait(timeout=10) == 0
    finally:
        manager.close()


def test_only_create_or_only_start_knows_of_it(
    container: ContainerFactory, bundle: BundleFactory, manager: Manager
) -> None:
    """Without it at start nobody waits; without it at create there is nothing to wait for."""
    one = container(bundle("probe").probe("pause"))
    plain = list(one.command)
    one.command[:0] = ["env", f"NOTIFY_SOCKET={manager.address}"]
    one.create().ok()
    one.command[:] = plain
    one.start().ok()
    one.expect("ready")
    two = container(bundle("probe").probe("pause"))
    two.create().ok()
    two.command[:0] = ["env", f"NOTIFY_SOCKET={manager.address}"]
    two.start().ok()
    two.expect("ready")
    assert manager.silent()


def test_nobody_listens(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """start says so before the program has run."""
    one = container(bundle("probe").probe("pause"))
    one.command[:0] = ["env", f"NOTIFY_SOCKET={scratch}/missing"]
    one.create().ok()
    one.start().fails("connect", "missing", "NOTIFY_SOCKET")
    assert one.status() == "created"
    one.delete().ok()


def test_a_failed_create_leaves_nothing(
    container: ContainerFactory, bundle: BundleFactory, manager: Manager
) -> None:
    one = notifying(container, bundle("probe", "/no/such"), manager)
    one.create().fails("no such file or directory")
    assert not os.path.exists(os.path.join(one.root, one.id))
    assert support.mounts_below(one.bundle.path) == []


def test_a_long_root(container: ContainerFactory, bundle: BundleFactory, manager: Manager) -> None:
    """Longer than a socket address may be."""
    one = notifying(container, bundle("probe").probe(*says("READY=1")), manager)
    at = one.command.index("--root")
    one.root = one.command[at + 1] = os.path.join(one.root, "x" * 120)
    one.create().ok()
    with starting(one) as process:
        manager.receive()
        os.close(manager.barrier())
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize("call", ["open", "chmod"])
def test_a_link_in_place_of_the_socket(
    manager: Manager, scratch: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put there between two calls by a container that may mount: no file of the host becomes everybody's."""
    precious, place = f"{scratch}/precious", f"{scratch}/{notify.DIRECTORY}"
    os.mkdir(place)
    with open(precious, "w", encoding="ascii"):
        os.chmod(precious, 0o600)
    real = getattr(os, call)

    def call_later(path: str, *words: object, **more: object) -> object:
        if call == "chmod" or path == notify.NAME:
            os.unlink(f"{place}/{notify.NAME}")
            os.symlink(precious, f"{place}/{notify.NAME}")
        return real(path, *words, **more)

    monkeypatch.setattr(os, call, call_later)
    try:
        with notify.Proxy(scratch, manager.address, 1):
            pass
    except KernelError as error:
        assert error.syscall == "bind"
    assert os.stat(precious).st_mode & 0o777 == 0o600

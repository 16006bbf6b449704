"""checkpoint and restore on hosts whose CRIU can dump: programs go on where they were, here and elsewhere.

What is said where it cannot be done is in test_checkpoint_refusals.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

import limits
import support
import terminals
from machines import patience
from namespaces import inode, mapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from containers import Bundle, BundleFactory, Container, ContainerFactory

    class Save(Protocol):
        """Saves a container with these options, and returns the images' directory."""

        def __call__(self, one: Container, *options: str) -> str:
            """Do so."""


pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def _criu() -> None:
    """None of this goes without one that works here."""
    criu = support.needs_program("criu")
    support.needs(support.run(criu, "check").status == 0, "a CRIU that works with this kernel")


@pytest.fixture
def save(scratch: str) -> Save:
    """A function that saves a container with these options, and returns the images' directory."""
    count = iter(range(100))

    def saved(one: Container, *options: str) -> str:
        image = os.path.join(scratch, f"image-{next(count)}")
        result = one.pyrunc("checkpoint", "--image-path", image, *options, one.id)
        assert result.status == 0, (result, _errors(image, "dump.log"))
        return image

    return saved


def _errors(directory: str, name: str) -> list[str]:
    with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as stream:
        return [line for line in stream if "Error" in line]


def restore(one: Container, image: str, *options: str) -> Container:
    """The container back from its images, with standard streams of its own."""
    result = one.comes("restore", "--detach", "--image-path", image, *options)
    assert result.status == 0, (result, _errors(image, "restore.log"))
    assert one.status() == "running"
    return one


def gone(one: Container) -> None:
    """It has left nothing."""
    assert not os.path.exists(os.path.join(one.root, one.id))
    assert not support.find_cgroups(one.id)
    one.wait()


# What the program says of SIGUSR1.
HEARD = f"signal {int(signal.SIGUSR1)}"


def signalled(one: Container) -> None:
    """Its program, `probe sigwait`, hears a signal and says so."""
    one.kill("USR1").ok()
    one.expect(HEARD, patience(10))


def ends(one: Container) -> None:
    """It ends well when it is asked to, as a child of whoever restored it, and can be deleted."""
    one.kill("TERM").ok()
    assert one.wait(patience(10)) == 0
    assert one.status() == "stopped"
    one.delete().ok()


def listening(bundle: BundleFactory) -> Bundle:
    """A program that says every signal."""
    return bundle("probe").probe("sigwait")


# --- There and back ---------------------------------------------------------------------------------------------------


def test_there_and_back(container: ContainerFactory, bundle: BundleFactory, save: Save) -> None:
    """Saved it is gone, restored it goes on with the same id, and then is a container like any other."""
    one = container(listening(bundle)).up()
    one.expect("ready", patience(10))
    image = save(one)
    gone(one)
    restore(one, image)
    signalled(one)
    state = one.state()
    assert (state["pid"], state["bundle"]) == (one.pid, one.bundle.path)
    assert not support.mounts_below(one.root)
    assert one.exec("/bin/probe", "process").ok().facts()["pid"] != "1"
    one.pyrunc("pause", one.id).ok()
    assert one.status() == "paused"
    one.pyrunc("resume", one.id).ok()
    assert " lo " in f" {one.exec('/bin/probe', 'net').ok().out} ".replace("\n", " ")
    again = save(one)
    gone(one)
    restore(one, again)
    signalled(one)
    ends(one)


def test_moved(container: ContainerFactory, bundle: BundleFactory, save: Save, scratch: str) -> None:
    """To another host: another root and id, a new rootfs without mount points, other sources and limits."""
    for name in ("here", "there"):
        os.makedirs(os.path.join(scratch, name, "below"))
        with open(os.path.join(scratch, name, "file"), "w", encoding="ascii") as stream:
            stream.write(name)
    what = listening(bundle).mount("/made/for/it", "bind", os.path.join(scratch, "here"), "rbind")
    what.mapping("linux", "resources")["pids"] = {"limit": 77}
    one = container(what).up()
    one.expect("ready", patience(10))
    # Of the image's own file systems the content goes along.
    one.exec("/bin/probe", "write", "/dev/shm/kept", "kept").ok()
    assert "here" in one.exec("/bin/probe", "cat", "/made/for/it/file").ok().out
    image = save(one)
    gone(one)

    other = bundle("probe").probe("other", "things")
    other.mount("/made/for/it", "bind", os.path.join(scratch, "there"), "rbind")
    other.mapping("linux", "resources")["pids"] = {"limit": 78}
    other.write()
    two = container(other, name=f"{one.id}-two")
    two.command = [*two.command[: two.command.index("--root")], "--root", os.path.join(scratch, "root2")]
    two.root = os.path.join(scratch, "root2")
    restore(two, image)
    signalled(two)
    assert "there" in two.exec("/bin/probe", "cat", "/made/for/it/file").ok().out
    assert "kept" in two.exec("/bin/probe", "cat", "/dev/shm/kept").ok().out
    assert limits.read(two, "", "pids.max") == "78"
    assert os.listdir(two.root) == [two.id]
    ends(two)


def test_left_running_and_in_steps(container: ContainerFactory, bundle: BundleFactory, save: Save) -> None:
    """--leave-running and --pre-dump do not end it; with --parent-path only what has changed is saved."""
    one = container(listening(bundle)).up()
    one.expect("ready", patience(10))
    first = save(one, "--pre-dump")
    signalled(one)
    assert not os.path.exists(os.path.join(first, "descriptors.json"))
    second = save(one, "--leave-running", "--parent-path", f"../{os.path.basename(first)}")
    assert os.path.realpath(os.path.join(second, "parent")) == os.path.realpath(first)
    signalled(one)
    ends(one)
    restore(one, second)
    signalled(one)
    ends(one)


def test_paused(container: ContainerFactory, bundle: BundleFactory, save: Save) -> None:
    """containerd pauses a container, saves it and lets it go on."""
    one = container(listening(bundle)).up()
    one.expect("ready", patience(10))
    one.pyrunc("pause", one.id).ok()
    image = save(one, "--leave-running")
    assert one.status() == "paused"
    one.pyrunc("resume", one.id).ok()
    signalled(one)
    ends(one)
    restore(one, image)
    signalled(one)
    ends(one)


def test_user_namespace(container: ContainerFactory, bundle: BundleFactory, save: Save) -> None:
    """Ids stay mapped, and bound device nodes come back."""
    one = container(mapped(listening(bundle)).write())
    # A file of root's could not be opened again inside.
    up = ["--bundle", one.bundle.path, "--pid-file", one.pid_file]
    one.detached("run", "--detach", *up, one.id).ok()
    maps = support.run("cat", f"/proc/{one.pid}/uid_map").ok().out
    image = save(one)
    gone(one)
    # CRIU looks for some images as root of the container.
    os.chmod(image, 0o711)
    one.detached("restore", "--detach", "--image-path", image, *up, one.id).ok()
    assert support.run("cat", f"/proc/{one.pid}/uid_map").ok().out == maps
    one.exec("/bin/probe", "devread", "/dev/zero").ok()
    ends(one)


def test_joined_network(container: ContainerFactory, bundle: BundleFactory, save: Save) -> None:
    """A network namespace that is named by its path is not saved; the container comes back into it."""
    holder = container(bundle("probe").probe("pause")).up()
    path = f"/proc/{holder.pid}/ns/net"
    one = container(listening(bundle).namespace("network", path)).up()
    one.expect("ready", patience(10))
    image = save(one)
    gone(one)
    restore(one, image)
    assert inode(one.pid, "network") == inode(holder.pid, "network")
    signalled(one)
    ends(one)


# --- Attached, terminals ----------------------------------------------------------------------------------------------


@pytest.fixture
def fd_socket(scratch: str) -> Iterator[terminals.FdSocket]:
    """A socket that takes a terminal."""
    made = terminals.FdSocket(os.path.join(scratch, "fd.sock"))
    yield made
    made.close()


def test_attached(container: ContainerFactory, bundle: BundleFactory, save: Save) -> None:
    """Without --detach signals go through, the program's status comes back, and the container is deleted."""
    one = container(listening(bundle)).up()
    one.expect("ready", patience(10))
    image = save(one)
    gone(one)
    words = [*one.command, "restore", "--image-path", image, "--bundle", one.bundle.path, one.id]
    with (
        open(one.error_file, "ab") as errors,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd="/"
        ) as process,
    ):
        try:
            support.wait_until(
                lambda: one.pyrunc("state", one.id).status == 0, "the container is there", patience(20)
            )
            support.wait_until(lambda: process.poll() is None, "restore waits", 1)
            process.send_signal(signal.SIGUSR1)
            assert process.stdout is not None
            assert HEARD.encode() in process.stdout.readline()
            one.kill("KILL").ok()
            assert process.wait(patience(10)) == 128 + signal.SIGKILL
        finally:
            process.kill()
    assert not os.path.exists(os.path.join(one.root, one.id))
    assert not support.find_cgroups(one.id)


def test_terminal(
    container: ContainerFactory,
    bundle: BundleFactory,
    save: Save,
    fd_socket: terminals.FdSocket,
    scratch: str,
) -> None:
    """The master of a restored terminal goes to the console socket."""
    what = listening(bundle)
    what.mapping("process")["terminal"] = True
    what.write()
    one = container(what).up("--console-socket", os.path.join(scratch, "fd.sock"))
    _, master = fd_socket.receive()
    terminals.read_until(master, "ready", timeout=patience(10))
    image = save(one)
    os.close(master)
    gone(one)
    again = terminals.FdSocket(os.path.join(scratch, "again.sock"))
    try:
        restore(one, image, "--console-socket", os.path.join(scratch, "again.sock"))
        _, master = again.receive()
    finally:
        again.close()
    one.kill("USR1").ok()
    terminals.read_until(master, HEARD, timeout=patience(10))
    os.close(master)
    ends(one)


# --- Hooks, failures --------------------------------------------------------------------------------------------------


def test_hooks(container: ContainerFactory, bundle: BundleFactory, save: Save, scratch: str) -> None:
    """prestart and createRuntime hooks run again, in order and with the new pid; the others do not, as in runc."""
    log = os.path.join(scratch, "hooks")
    what = listening(bundle)
    for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
        args = ["sh", "-c", f'echo "{kind} $(tr , "\\n" | grep -o "pid.*[0-9]")" >>{log}']
        what.mapping("hooks")[kind] = [{"path": "/bin/sh", "args": list(args)}]
    what.write()
    one = container(what).up()
    one.expect("ready", patience(10))
    image = save(one)
    os.unlink(log)
    restore(one, image)
    with open(log, encoding="ascii") as stream:
        assert stream.read().splitlines() == [
            f'{kind} pid":{one.pid}' for kind in ("prestart", "createRuntime")
        ]
    ends(one)
    with open(log, encoding="ascii") as stream:
        assert stream.read().splitlines()[2:] == ['poststop pid":0']


@pytest.mark.parametrize("what", ["hook", "pid file", "source"])
def test_a_restore_that_fails_leaves_nothing(
    container: ContainerFactory, bundle: BundleFactory, save: Save, scratch: str, what: str
) -> None:
    """Early or late; and the images are as good as before."""
    source = os.path.join(scratch, "source")
    os.mkdir(source)
    one = container(listening(bundle).mount("/bound", "bind", source, "bind")).up()
    one.expect("ready", patience(10))
    image = save(one)
    gone(one)
    mounts, pid_file = support.mounts_below(""), one.pid_file
    if what == "hook":
        one.bundle.mapping("hooks")["createRuntime"] = [{"path": "/bin/false"}]
        text = "createRuntime hook #0 '/bin/false'"
    elif what == "pid file":
        pid_file, text = os.path.join(scratch, "none", "pid"), "the pid file cannot be written"
    else:
        os.rmdir(source)
        text = "no such file or directory"
    one.bundle.write()
    os.unlink(one.pid_file)
    result = one.comes("restore", "--detach", "--image-path", image, "--pid-file", pid_file)
    assert result.status == 1
    assert text in result.err
    assert not os.path.exists(os.path.join(one.root, one.id))
    assert not support.find_cgroups(one.id)
    assert support.mounts_below("") == mounts
    assert not os.path.exists(pid_file)
    one.bundle.spec.pop("hooks", None)
    one.bundle.write()
    os.makedirs(source, exist_ok=True)
    restore(one, image)
    signalled(one)
    ends(one)


def test_the_cause_is_named(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """A program that holds a socket of somebody outside; and it goes on after the refusal."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = container(listening(bundle))
        one.create(stdin=theirs.fileno()).ok()
        one.start().ok()
        one.expect("ready", patience(10))
        result = one.pyrunc("checkpoint", "--image-path", os.path.join(scratch, "refused"), one.id)
        assert result.status == 1
        assert "criu failed: type DUMP errno 0: unix: Unix socket " in result.err
        assert "hint: a socket came in from outside" in result.err
        signalled(one)
        ends(one)


# --- Others -----------------------------------------------------------------------------------------------------------


def test_runc_restores_our_images(
    container: ContainerFactory, bundle: BundleFactory, save: Save, scratch: str
) -> None:
    """The files beside CRIU's are runc's."""
    runc = [support.needs_program("runc"), "--root", os.path.join(scratch, "runc")]
    what = listening(bundle).write()
    one = container(what)
    # CRIU makes the cgroup of the image, too: the same id, so that runc takes it away again.
    name = one.id
    # runc knows no files from outside as standard streams.
    quiet = ("sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh")
    support.run(*quiet, *one.command, "run", "-d", "-b", what.path, one.id).ok()
    words = ["restore", "--detach", "--image-path", save(one), "--bundle", what.path, name]
    try:
        support.run(*quiet, *runc, *words, timeout=patience(60)).ok()
        assert '"status": "running"' in support.run(*runc, "state", name).ok().out
    finally:
        support.run(*runc, "delete", "--force", name)


def test_lazy_pages(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """The container runs before its memory is there; whoever has the status descriptor hears when that can begin."""
    one = container(listening(bundle)).up()
    one.expect("ready", patience(10))
    image = os.path.join(scratch, "image")
    reader, writer = os.pipe()
    words = ["checkpoint", "--lazy-pages", "--page-server", "127.0.0.1:27277", "--image-path", image]
    words += ["--work-path", os.path.join(scratch, "w1"), "--status-fd", str(writer), one.id]
    dump = subprocess.Popen([*one.command, *words], cwd="/", pass_fds=[writer], stderr=subprocess.PIPE)
    os.close(writer)
    assert os.read(reader, 10) == b"\0", dump.communicate()
    os.close(reader)
    pages_words = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", "27277"]
    work = os.path.join(scratch, "w2")
    os.mkdir(work)
    pages = subprocess.Popen(["criu", *pages_words, "-D", image, "-W", work], cwd="/")
    support.wait_until(
        lambda: os.path.exists(os.path.join(work, "lazy-pages.socket")), "the daemon listens", patience(10)
    )
    two = container(one.bundle, name=f"{one.id}-two")
    restore(two, image, "--lazy-pages", "--work-path", work)
    signalled(two)
    assert pages.wait(patience(30)) == 0
    assert dump.communicate(timeout=patience(30))[1] == b""
    assert dump.returncode == 0
    assert not os.path.exists(os.path.join(one.root, one.id))
    one.wait()
    ends(two)


@pytest.mark.parametrize("mode", ["soft", "full", "ignore"])
def test_modes_of_cgroups(container: ContainerFactory, bundle: BundleFactory, save: Save, mode: str) -> None:
    """In each the container is in its own cgroup afterwards. The mode strict wants that there is none yet."""
    one = container(listening(bundle)).up()
    one.expect("ready", patience(10))
    image = save(one, "--manage-cgroups-mode", mode)
    gone(one)
    two = container(one.bundle, name=f"{one.id}-two")
    restore(two, image, "--manage-cgroups-mode", mode)
    assert two.id in "".join(support.cgroup_of(two.pid).values())
    signalled(two)
    ends(two)


def test_under_systemd(container: ContainerFactory, bundle: BundleFactory, save: Save) -> None:
    """--systemd-cgroup: the restored container is in a scope of its own."""
    support.needs(os.path.isdir("/run/systemd/system"), "systemd")
    what = listening(bundle)
    what.mapping("linux")["cgroupsPath"] = f"system.slice:pyrunc:c{os.getpid()}"
    what.write()
    one = container(what)
    one.command = [*one.command, "--systemd-cgroup"]
    one.up()
    one.expect("ready", patience(10))
    image = save(one)
    gone(one)
    restore(one, image)
    scope = f"pyrunc-c{os.getpid()}.scope"
    assert scope in "".join(support.cgroup_of(one.pid).values())
    support.run("systemctl", "is-active", scope).ok()
    signalled(one)
    ends(one)


def test_a_rootfs_that_is_a_mount_point(
    container: ContainerFactory, bundle: BundleFactory, save: Save, scratch: str
) -> None:
    """Engines give an overlay."""
    what = listening(bundle)
    for name in ("upper", "work", "merged"):
        os.mkdir(os.path.join(scratch, name))
    options = f"lowerdir={what.rootfs},upperdir={scratch}/upper,workdir={scratch}/work"
    merged = os.path.join(scratch, "merged")
    support.run("mount", "-t", "overlay", "overlay", "-o", options, merged).ok()
    try:
        what.mapping("root")["path"] = merged
        what.write()
        one = container(what).up()
        one.expect("ready", patience(10))
        image = save(one)
        gone(one)
        restore(one, image)
        signalled(one)
        ends(one)
    finally:
        support.run("umount", merged).ok()
        shutil.rmtree(os.path.join(scratch, "work"))

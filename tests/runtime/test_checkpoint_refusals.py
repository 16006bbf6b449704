"""checkpoint and restore where they cannot: what is said, and that nothing has changed. With a CRIU of any kind.

That it works is in test_checkpoint.py, for hosts whose CRIU can dump.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import BundleFactory, Container, ContainerFactory
    from support import Result

pytestmark = pytest.mark.root


@pytest.fixture
def one(container: ContainerFactory, bundle: BundleFactory) -> Container:
    """A container that runs until it is killed."""
    return container(bundle("probe").probe("pause")).up()


def refused(one: Container, result: Result, text: str) -> None:
    """The error is this one, and the container runs as before."""
    assert result.status == 1
    assert text in result.err
    assert one.status() == "running"
    assert not support.process_gone(one.pid)


# --- checkpoint -------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken() -> Iterator[str]:
    """A configuration file that lets CRIU fail, on any host, where an annotation may name one."""
    path = f"/etc/pyrunc-test-{os.getpid()}.conf"
    with open(path, "w", encoding="ascii") as stream:
        stream.write("no-such-option\n")
    yield path
    os.unlink(path)


def test_a_failed_dump_leaves_the_container_running(
    broken: str, container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """The error names CRIU's answer; nothing is frozen, stopped, mounted or left in a cgroup."""
    support.needs_program("criu")
    made = bundle("probe").probe("pause")
    made.mapping("annotations")["org.criu.config"] = broken
    one = container(made).up()
    cgroups, mounts = support.find_cgroups(one.id), support.mounts_below("")
    image = os.path.join(scratch, "image")
    result = one.pyrunc("checkpoint", "--image-path", image, one.id)
    refused(one, result, "pyrunc: checkpoint: criu failed: type DUMP errno ")
    assert (support.find_cgroups(one.id), support.mounts_below("")) == (cgroups, mounts)
    assert support.cgroup_of(one.pid)
    one.exec("/bin/probe", "ids").ok()
    assert not [name for name in os.listdir(image) if name.endswith(".img")]


def test_where_the_kernel_is_too_new_for_criu(one: Container, scratch: str) -> None:
    """The reason out of CRIU's log, in one line, with the log's path; and what to do."""
    criu = support.needs_program("criu")
    check = support.run(criu, "check")
    support.needs(check.status != 0 and "vdso" in check.err, "a kernel that is too new for CRIU")
    work = os.path.join(scratch, "work")
    words = ["checkpoint", "--image-path", os.path.join(scratch, "image"), "--work-path", work, one.id]
    refused(one, one.pyrunc(*words), "criu failed: type DUMP errno 0: vdso: ")
    result = one.pyrunc("--log", os.path.join(scratch, "log"), "--log-format", "json", *words)
    assert f"(log file: {work}/dump.log)\nhint: " in result.err
    assert "newer CRIU" in result.err
    assert os.path.getsize(os.path.join(work, "dump.log"))
    with open(os.path.join(scratch, "log"), encoding="utf-8") as stream:
        (line,) = stream.read().splitlines()
    assert json.loads(line)["msg"].startswith("criu failed: type DUMP errno 0: vdso: ")


def test_without_criu(one: Container, scratch: str) -> None:
    """It is said before anything is made."""
    image = os.path.join(scratch, "image")
    command = ["env", f"PATH={scratch}", *one.command]
    result = support.run(*command, "checkpoint", "--image-path", image, one.id)
    refused(one, result, 'criu failed: "criu": executable file not found in $PATH')
    assert "hint: install CRIU" in result.err
    assert not os.path.exists(image)
    os.mkdir(image)
    words = ["restore", "--detach", "--image-path", image, "--bundle", one.bundle.path, "again"]
    result = support.run(*command, *words)
    assert (result.status, "executable file not found" in result.err) == (1, True)
    assert os.listdir(one.root) == [one.id]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--manage-cgroups-mode loose", 'invalid manage-cgroups-mode value: "loose"'),
        ("--empty-ns pid", 'namespace "pid" is not supported'),
        ("--page-server nowhere", "Use --page-server ADDRESS:PORT to specify page server"),
        ("--page-server a:b", 'Invalid port number: "b"'),
        ("--parent-path /one", "--parent-path must be relative"),
        ("--parent-path ../none", "invalid --parent-path: stat"),
        ("--parent-path ../file", "not a directory"),
        ("--lazy-pages --status-fd 77", "invalid --status-fd argument 77: bad file descriptor"),
        ("--lazy-pages --status-fd 0", "invalid --status-fd argument 0: not writable"),
        ("--image-path /proc/nothing", "mkdir '/proc/nothing': no such file or directory"),
    ],
)
def test_options_that_are_none(one: Container, scratch: str, options: str, text: str) -> None:
    """Values that cannot be meant are refused without asking CRIU."""
    support.needs_program("criu")
    with open(os.path.join(scratch, "file"), "w", encoding="ascii"):
        pass
    image = os.path.join(scratch, "image")
    # Our standard input is the reading end of a pipe.
    result = one.pyrunc("checkpoint", "--image-path", image, *options.split(), one.id)
    refused(one, result, text)
    assert not os.path.exists(image)


def test_states_that_cannot_be_saved(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """Only what runs has something to save."""
    one = container(bundle("probe").probe("pause"))
    one.create().ok()
    words = ["checkpoint", "--image-path", os.path.join(scratch, "image"), one.id]
    one.pyrunc(*words).fails("Container cannot be checkpointed in created state")
    one.start().ok()
    one.kill().ok()
    one.wait()
    one.pyrunc(*words).fails("Container cannot be checkpointed in stopped state")
    one.delete().ok()
    one.pyrunc(*words).fails("container does not exist")


# --- restore ----------------------------------------------------------------------------------------------------------


def nothing_left(one: Container, mounts: list[str]) -> None:
    """No state, no cgroup, no mount, no pid file."""
    assert not os.path.exists(os.path.join(one.root, one.id))
    assert not support.find_cgroups(one.id)
    assert support.mounts_below("") == mounts
    assert not os.path.exists(one.pid_file)


def test_what_is_no_image(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Nothing is made for it; a directory that CRIU cannot use leaves nothing, and the log is named."""
    support.needs_program("criu")
    one = container(bundle("probe"))
    mounts = support.mounts_below("")
    image = os.path.join(scratch, "image")
    words = ["restore", "--detach", "--pid-file", one.pid_file, "--bundle", one.bundle.path]
    words += ["--image-path", image, one.id]
    one.detached(*words).fails()
    one.pyrunc(*words).fails(f"open '{image}': no such file or directory")
    os.mkdir(image)
    one.pyrunc(*words).fails(f"open '{image}/descriptors.json': no such file or directory")
    for text in ("no json", '{"a": 1}', "[1]"):
        with open(os.path.join(image, "descriptors.json"), "w", encoding="ascii") as stream:
            stream.write(text)
        one.pyrunc(*words).fails("descriptors.json' is no ")
    nothing_left(one, mounts)
    with open(os.path.join(image, "descriptors.json"), "w", encoding="ascii") as stream:
        json.dump(["/dev/null"] * 3, stream)
    result = one.pyrunc(*words).fails("criu failed: type RESTORE errno 0: ")
    assert f"(log file: {image}/restore.log)" in result.err
    nothing_left(one, mounts)


def test_an_id_in_use(one: Container, scratch: str) -> None:
    """The container that has it is not touched."""
    support.needs_program("criu")
    image = os.path.join(scratch, "image")
    os.mkdir(image)
    with open(os.path.join(image, "descriptors.json"), "w", encoding="ascii") as stream:
        json.dump(["/dev/null"] * 3, stream)
    words = ["restore", "--detach", "--image-path", image, "--bundle", one.bundle.path, one.id]
    refused(one, one.pyrunc(*words), "container with given ID already exists")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--manage-cgroups-mode loose", 'invalid manage-cgroups-mode value: "loose"'),
        ("--network-lock none", 'invalid network-lock value: "none"'),
        ("--console-socket /x", "cannot use console socket if runc will not detach or allocate tty"),
    ],
)
def test_restore_options_that_are_none(
    container: ContainerFactory, bundle: BundleFactory, options: str, text: str
) -> None:
    """As with checkpoint."""
    support.needs_program("criu")
    one = container(bundle("probe"))
    one.pyrunc("restore", "--detach", "--bundle", one.bundle.path, *options.split(), one.id).fails(text)
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_probes_of_engines(pyrunc: str) -> None:
    """podman and CRI-O ask so what there is."""
    support.run(pyrunc, "checkpoint", "--help").ok()
    support.run(pyrunc, "restore", "--help").ok()
    support.run(pyrunc, "restore", "--lsm-mount-context").fails("flag needs an argument: -lsm-mount-context")

"""process.apparmorProfile, process.selinuxLabel, linux.mountLabel: applied where the module is."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import labels
import machines
import support
from labels import FACTS, LABEL, MOUNT_LABEL, PROFILE, STRICTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root


@pytest.fixture
def profile(scratch: str) -> Iterator[str]:
    """Two profiles are loaded, this one and STRICTER."""
    support.needs(labels.has_apparmor(), "AppArmor")
    with labels.loaded_profiles(scratch):
        yield PROFILE


@pytest.fixture
def labelled(bundle: BundleFactory) -> Bundle:
    """A bundle with both labels, whose files have the right one."""
    support.needs(labels.has_selinux(), "SELinux")
    return labels.label_files(bundle("busybox"))


# A host's mode is its own affair; the guest of ./dev vm only warns unless it is told otherwise.
@pytest.fixture(params=["as it is", *(["enforcing"] if machines.GUEST and FACTS.selinux else [])])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """SELinux as the host has it, and in a guest also with its policy in force."""
    support.needs(labels.has_selinux(), "SELinux")
    before = int(labels.enforcing())
    _set_enforcing(1 if request.param == "enforcing" else before)
    yield
    _set_enforcing(before)


def _set_enforcing(value: int) -> None:
    if int(labels.enforcing()) != value:
        with open("/sys/fs/selinux/enforce", "w", encoding="ascii") as stream:
            stream.write(str(value))


def _waiting(what: Bundle) -> Bundle:
    return what.args("/bin/sh", "-c", "cat /proc/self/attr/current; echo; echo ready; exec sleep 600")


# --- Where there is none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "name", "has"),
    [
        ("process", "apparmorProfile", FACTS.apparmor),
        ("process", "selinuxLabel", FACTS.selinux),
    ],
)
def test_a_module_that_is_off(
    container: ContainerFactory, bundle: BundleFactory, where: str, name: str, has: bool
) -> None:
    """What nothing would enforce is not accepted; and the words are for the first of the two."""
    what = bundle("probe")
    what.mapping(where)[name] = "some:label:or:profile"
    result = container(what).create()
    assert result.status == 1, result
    assert f"$.{where}.{name}" in result.err or has, result
    module = "apparmor" if name == "apparmorProfile" else "selinux"
    assert f"is specified in config, but {module} is disabled or not supported" in result.err or has, result


@pytest.mark.parametrize(
    ("option", "name", "has"),
    [("--apparmor", "apparmorProfile", FACTS.apparmor), ("--process-label", "selinuxLabel", FACTS.selinux)],
)
def test_a_module_that_is_off_at_exec(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, option: str, name: str, has: bool
) -> None:
    """By option and by process.json; where the module is there the label is one that nobody knows."""
    one = container(bundle("probe").probe("pause")).up()
    one.expect("ready")
    word = "is disabled or not supported" if not has else "unable to apply"
    one.exec("/bin/probe", "ids", options=[option, "x:y:z"]).fails(f"$.process.{name}", word, status=255)
    path = os.path.join(scratch, "process.json")
    with open(path, "w", encoding="ascii") as stream:
        json.dump(
            {"args": ["/bin/probe", "ids"], "cwd": "/", "user": {"uid": 0, "gid": 0}, name: "x:y:z"}, stream
        )
    one.pyrunc("exec", "--process", path, one.id).fails(f"$.{name}", word, status=255)


def test_unconfined_needs_no_module(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Without AppArmor every process is."""
    what = bundle("probe").probe("echo", "alive")
    what.mapping("process")["apparmorProfile"] = "unconfined"
    assert container(what).run().ok().out == "alive\n"


# --- AppArmor ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def confined(profile: str, bundle: BundleFactory) -> Bundle:
    """A bundle under the profile, which prints its label and waits; with files that it may and may not read."""
    what = _waiting(bundle("busybox"))
    for name in ("secret", "public"):
        with open(os.path.join(what.rootfs, "tmp", name), "w", encoding="ascii") as stream:
            stream.write(f"{name}\n")
    what.mapping("process")["apparmorProfile"] = profile
    return what


def _current(one: Container) -> str:
    with open(f"/proc/{one.pid}/attr/current", encoding="ascii") as stream:
        return stream.read().rstrip("\0\n")


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("name", ["busybox", "userns"])
def test_a_profile_is_applied(
    container: ContainerFactory, confined: Bundle, bundle: BundleFactory, no_new_privileges: bool, name: str
) -> None:
    """To the program only: init that waits for start has none yet. With and without a user namespace."""
    if name == "userns":
        confined.spec["linux"] = bundle(name).spec["linux"]
        support.run("chown", "-R", "100000:100000", confined.rootfs).ok()
    confined.mapping("process")["noNewPrivileges"] = no_new_privileges
    one = container(confined)
    one.create().ok()
    assert _current(one) == "unconfined"
    one.start().ok()
    assert one.expect("ready").splitlines()[0] == f"{PROFILE} (enforce)"
    assert _current(one) == f"{PROFILE} (enforce)"


def test_what_the_profile_denies(container: ContainerFactory, confined: Bundle) -> None:
    confined.args("/bin/sh", "-c", "cat /tmp/public /tmp/secret")
    result = container(confined).run()
    assert (result.status, result.out) == (1, "public\n")
    assert "/tmp/secret': Permission denied" in result.err


def test_profiles_of_exec(container: ContainerFactory, confined: Bundle, scratch: str) -> None:
    """The container's by default, another by option or process.json, none by "unconfined"."""
    one = container(confined).up()
    one.expect("ready")
    command = ["/bin/cat", "/proc/self/attr/current"]
    assert one.exec(*command).ok().out == f"{PROFILE} (enforce)\n"
    assert one.exec(*command, options=["--apparmor", STRICTER]).ok().out == f"{STRICTER} (enforce)\n"
    assert one.exec(*command, options=["--apparmor", "unconfined"]).ok().out == "unconfined\n"
    one.exec("/bin/cat", "/tmp/public", options=["--apparmor", STRICTER]).fails("Permission denied")
    path = os.path.join(scratch, "process.json")
    with open(path, "w", encoding="ascii") as stream:
        json.dump(
            {"args": command, "cwd": "/", "user": {"uid": 0, "gid": 0}, "apparmorProfile": STRICTER}, stream
        )
    assert one.pyrunc("exec", "--process", path, one.id).ok().out == f"{STRICTER} (enforce)\n"


def test_a_profile_that_is_not_loaded(container: ContainerFactory, confined: Bundle) -> None:
    """Named, with the file that podman looks for and without the words that mean a missing program."""
    running = container(confined).up()
    running.expect("ready")
    words = [
        "unable to apply AppArmor profile 'no-such'",
        "`/proc/self/attr/apparmor/exec`",
        "apparmor_parser",
    ]
    result = running.exec("/bin/true", options=["--apparmor", "no-such"])
    result.fails("$.process.apparmorProfile", *words, status=255)
    confined.mapping("process")["apparmorProfile"] = "no-such"
    one = container(confined)
    failed = one.create().fails("$.process.apparmorProfile", *words)
    assert "no such file" not in failed.err
    assert not os.path.lexists(os.path.join(one.root, one.id))


# --- SELinux ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_label_is_applied(
    container: ContainerFactory, labelled: Bundle, mode: None, no_new_privileges: bool
) -> None:
    """To the program only: init that waits for start has the runtime's."""
    labelled.mapping("process")["noNewPrivileges"] = no_new_privileges
    one = container(_waiting(labelled))
    one.create().ok()
    with open("/proc/self/attr/current", encoding="ascii") as stream:
        assert _current(one) == stream.read().rstrip("\0\n")
    one.start().ok()
    assert one.expect("ready").split("\0")[0].splitlines()[0] == LABEL
    assert _current(one) == LABEL


def test_labels_of_exec(container: ContainerFactory, labelled: Bundle, mode: None) -> None:
    one = container(_waiting(labelled)).up()
    one.expect("ready")
    command = ["/bin/cat", "/proc/self/attr/current"]
    assert one.exec(*command).ok().out.rstrip("\0") == LABEL
    other = LABEL + ",c7"
    assert one.exec(*command, options=["--process-label", other]).ok().out.rstrip("\0") == other


def test_the_session_keyring_has_the_label(container: ContainerFactory, labelled: Bundle) -> None:
    """Or the program could not use it; a policy may forbid the question, though."""
    support.needs(not labels.enforcing(), "SELinux that only warns")
    labelled.args("/bin/probe", "keyring")
    assert container(labelled).run().ok().facts()["keyring_label"] == LABEL


def test_a_label_that_the_policy_does_not_know(container: ContainerFactory, labelled: Bundle) -> None:
    running = container(_waiting(labelled)).up()
    running.expect("ready")
    words = [
        "unable to apply SELinux label 'no:such:label'",
        "`/proc/self/attr/",
        "invalid argument",
        "policy",
    ]
    result = running.exec("/bin/true", options=["--process-label", "no:such:label"])
    result.fails("$.process.selinuxLabel", *words, status=255)
    labelled.mapping("process")["selinuxLabel"] = "no:such:label"
    container(labelled).create().fails("$.process.selinuxLabel", *words)
    labelled.mapping("process")["selinuxLabel"] = LABEL
    labelled.mapping("linux")["mountLabel"] = "no:such:label"
    container(labelled).create().fails("$.mounts[", "mountLabel")


def _label_of(one: Container, path: str) -> str:
    return os.getxattr(f"/proc/{one.pid}/root{path}", "security.selinux").decode().rstrip("\0")


def test_mounts_are_labelled(container: ContainerFactory, labelled: Bundle, mode: None) -> None:
    """File systems that take a label have it, also where one is filled, read-only, or hides a directory."""
    labelled.mount("/copied", "tmpfs", "tmpfs", "tmpcopyup", "ro").mount("/mq", "mqueue", "mqueue", "ro")
    os.mkdir(os.path.join(labelled.rootfs, "copied"))
    with open(os.path.join(labelled.rootfs, "copied/file"), "wb"):
        pass
    one = container(_waiting(labelled)).up()
    one.expect("ready")
    for path in (
        "/dev",
        "/dev/shm",
        "/dev/pts",
        "/dev/null",
        "/copied",
        "/copied/file",
        "/mq",
        "/sys/firmware",
    ):
        assert _label_of(one, path) == MOUNT_LABEL, path
    with open(f"/proc/{one.pid}/mounts", encoding="utf-8") as stream:
        lines = {fields[1]: fields for fields in (line.split() for line in stream)}
    assert f'context="{MOUNT_LABEL}"' in lines["/dev/shm"][3]
    assert "context" not in lines["/proc"][3]
    assert lines["/copied"][3].split(",")[0] == lines["/mq"][3].split(",")[0] == "ro"


def test_a_mount_with_a_label_of_its_own(container: ContainerFactory, labelled: Bundle) -> None:
    """It keeps that, in quotes or not; and the annotation of crun chooses the kind for all others."""
    support.needs(not labels.enforcing(), "SELinux that only warns")
    own = MOUNT_LABEL.replace("c1,c2", "c5,c9")
    labelled.mount("/a", "tmpfs", "tmpfs", f"context={own}").mount(
        "/b", "tmpfs", "tmpfs", f'context="{own}"'
    )
    labelled.mount("/c", "tmpfs", "tmpfs")
    labelled.mapping("annotations")["run.oci.mount_context_type"] = "rootcontext"
    one = container(_waiting(labelled)).up()
    one.expect("ready")
    assert [_label_of(one, path) for path in ("/a", "/b", "/c")] == [own, own, MOUNT_LABEL]
    with open(f"/proc/{one.pid}/mounts", encoding="utf-8") as stream:
        assert any(" /c " in line and f'rootcontext="{MOUNT_LABEL}"' in line for line in stream)


def test_a_label_of_a_mount_that_is_too_long_for_fsconfig(
    container: ContainerFactory, labelled: Bundle, scratch: str
) -> None:
    """An overlay of many layers goes through mount(2), where a comma in a label needs quotes."""
    layers = [os.path.join(scratch, f"a-layer-with-a-long-name-{number:03}") for number in range(8)]
    for layer in layers:
        os.mkdir(layer)
    labelled.mount("/over", "overlay", "overlay", "lowerdir=" + ":".join(layers))
    one = container(_waiting(labelled)).up()
    one.expect("ready")
    assert _label_of(one, "/over") == MOUNT_LABEL


def test_a_policy_in_force(container: ContainerFactory, labelled: Bundle, mode: None) -> None:
    """What the label may not read it does not: a file of another category."""
    path = os.path.join(labelled.rootfs, "etc/other")
    with open(path, "w", encoding="ascii") as stream:
        stream.write("of another\n")
    os.setxattr(path, "security.selinux", MOUNT_LABEL.replace("c1,c2", "c8,c9").encode())
    result = container(labelled.args("/bin/cat", "/etc/other")).run()
    if labels.enforcing():
        result.fails("/etc/other': Permission denied")
    else:
        assert result.ok().out == "of another\n"

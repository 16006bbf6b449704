"""Annotations come from whoever uses an engine, or from an image: none of them acts on the host as root."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.cgroups.systemd import unit
from pyrunc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

# --- org.systemd.property -------------------------------------------------------------------------------------------

# What a user of systemd's bus may say of a unit and what it would do; GVariant text of the right type.
PROPERTIES = {
    # programs
    "ExecStartPre": "[('/bin/sh', ['sh', '-c', 'id'], false)]",
    "ExecStart": "[('/bin/sh', ['sh'], false)]",
    "ExecStop": "[('/bin/sh', ['sh'], false)]",
    "ExecStopPost": "[('/bin/sh', ['sh'], false)]",
    "ExecStopPostEx": "[('/bin/sh', ['sh'], @as [])]",
    "ExecCondition": "[('/bin/sh', ['sh'], false)]",
    "BPFProgram": "[('ingress', '/sys/fs/bpf/x')]",
    "IPIngressFilterPath": "['/sys/fs/bpf/x']",
    "IPEgressFilterPath": "['/sys/fs/bpf/x']",
    # the host
    "SuccessAction": "'poweroff-force'",
    "FailureAction": "'reboot'",
    "JobTimeoutAction": "'exit-force'",
    "StartLimitAction": "'reboot-immediate'",
    "RebootArgument": "'x'",
    "JobTimeoutRebootArgument": "'x'",
    # other units
    **dict.fromkeys(
        (
            *("Wants", "Requires", "BindsTo", "Upholds", "Conflicts", "OnFailure", "OnSuccess", "WantedBy"),
            *(
                "RequiredBy",
                "UpheldBy",
                "ConflictedBy",
                "BoundBy",
                "Triggers",
                "TriggeredBy",
                "PropagatesStopTo",
            ),
            *("PropagatesReloadTo", "JoinsNamespaceOf", "RequiresOverridable", "RequisiteOf", "ConsistsOf"),
        ),
        "['poweroff.target']",
    ),
    "RequiresMountsFor": "['/mnt']",
    "WantsMountsFor": "['/mnt']",
    # what the engine and pyrunc decide
    "Slice": "'-.slice'",
    "PIDs": "[uint32 1]",
    "Delegate": "false",
    "DelegateControllers": "['cpu']",
    "DelegateSubgroup": "'x'",
    "DisableControllers": "['memory']",
    "DevicePolicy": "'auto'",
    "DeviceAllow": "[('/dev/sda', 'rwm')]",
    "User": "'nobody'",
    "Group": "'nobody'",
    "Controller": "':1.1'",
    "AddRef": "true",
    "RefuseManualStop": "true",
    "RefuseManualStart": "true",
    "SurviveFinalKillSignal": "true",
    "IPAddressAllow": "[(2, [byte 0, 0, 0, 0], uint32 0)]",
    "SocketBindAllow": "[(2, 6, uint16 1, uint16 1)]",
    "RestrictNetworkInterfaces": "(true, ['eth0'])",
    "NFTSet": "[(0, 1, 'a', 'b')]",
    # those of services
    "RootDirectory": "'/'",
    "BindPaths": "[('/etc', '/etc', false, uint64 0)]",
    "Environment": "['LD_PRELOAD=/x.so']",
    "EnvironmentFiles": "[('/x', false)]",
    "AmbientCapabilities": "uint64 1",
    "NoNewPrivileges": "false",
    "LogExtraFields": "[[byte 1]]",
    "RestartMode": "'direct'",
    "SourcePath": "'/etc/passwd'",
    # not named as systemd does
    "Sec": "1",
    "execstart": "1",
    "MemoryMax2": "uint64 5",
}
ALLOWED = {
    "TimeoutStopUSec": "uint64 7000000",
    "CollectMode": "'inactive-or-failed'",
    "DefaultDependencies": "true",
    "After": "['crio.service']",
    "Before": "['a.service']",
    "PartOf": "['a.service']",
    "KillSignal": "15",
    "Description": "'words'",
    "RuntimeMaxUSec": "uint64 5",
    "OOMPolicy": "'continue'",
    "MemoryHigh": "uint64 100000000",
    "MemorySwapMax": "uint64 0",
    "TasksMax": "uint64 100",
    "CPUWeight": "uint64 100",
    "IOWeight": "uint64 100",
    "ManagedOOMMemoryPressure": "'kill'",
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_unit_properties_that_are_refused(name: str) -> None:
    """By name and with the path, whatever the value."""
    key = f"{unit.ANNOTATION}{name}"
    with pytest.raises(ConfigError, match=f"the unit property '{name}' cannot be set") as caught:
        unit.from_annotations({key: PROPERTIES[name]})
    assert caught.value.path == f"$.annotations['{key}']"


def test_a_refused_unit_property_leaves_nothing(container: ContainerFactory, bundle: BundleFactory) -> None:
    """systemd is not even asked."""
    box = bundle("probe")
    box.spec["annotations"] = {f"{unit.ANNOTATION}SuccessAction": PROPERTIES["SuccessAction"]}
    one = container(box)
    done = one.pyrunc("--systemd-cgroup", "create", "--bundle", one.bundle.path, one.id)
    words = (
        f"$.annotations['{unit.ANNOTATION}SuccessAction']: the unit property 'SuccessAction' cannot be set"
    )
    done.fails(words, "hint: limits and weights of resources can")
    assert not os.path.lexists(os.path.join(one.root, one.id))


def test_unit_properties_that_are_taken() -> None:
    """What engines write of themselves is among them: podman, CRI-O, moby."""
    given = {f"{unit.ANNOTATION}{name}": text for name, text in ALLOWED.items()}
    assert [name for name, _, _ in unit.from_annotations(given)] == list(ALLOWED)


@pytest.mark.parametrize("name", ["ExecStartPreSec", "SuccessActionSec", "JobTimeoutSec"])
def test_seconds_are_no_way_around(name: str) -> None:
    """The list is asked for the name that systemd would get."""
    with pytest.raises(ConfigError, match="cannot be set"):
        unit.from_annotations({f"{unit.ANNOTATION}{name}": "5"})


# --- org.criu.config ------------------------------------------------------------------------------------------------


@pytest.fixture
def below_etc() -> Iterator[str]:
    """A directory of the host's configuration."""
    path = f"/etc/pyrunc-test-{os.getpid()}.d"
    os.mkdir(path, 0o755)
    yield path
    for name in os.listdir(path):
        os.unlink(os.path.join(path, name))
    os.rmdir(path)


def script_of(box: Bundle) -> tuple[str, str]:
    """A CRIU configuration in the image, with a script of its own: (the file, what the script would make)."""
    proof = os.path.join(box.rootfs, "proof")
    script, config = os.path.join(box.rootfs, "script"), os.path.join(box.rootfs, "criu.conf")
    with open(script, "w", encoding="ascii") as stream:
        stream.write(f"#!/bin/sh\nid >{proof}\n")
    os.chmod(script, 0o755)
    with open(config, "w", encoding="ascii") as stream:
        stream.write(f"action-script {script}\n")
    return config, proof


def checkpoint(one: Container, scratch: str) -> support.Result:
    return one.pyrunc("checkpoint", "--image-path", os.path.join(scratch, "image"), one.id)


WAYS = [
    "image",
    "image by /proc",
    "image by ..",
    "image by a link of /etc",
    "relative",
    "volume",
    "null byte",
]


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
@pytest.mark.parametrize("way", WAYS)
def test_criu_configuration_of_a_user(
    way: str, verb: str, container: ContainerFactory, bundle: BundleFactory, scratch: str, below_etc: str
) -> None:
    """Refused with the path; its script does not run, the container goes on."""
    support.needs_program("criu")
    box = bundle("probe").probe("pause")
    config, proof = script_of(box)
    path = {
        "image": config,
        "image by /proc": f"/proc/self/root{config}",
        "image by ..": f"/etc/..{config}",
        "image by a link of /etc": f"{below_etc}/link",
        "relative": os.path.relpath(config, "/"),
        "volume": os.path.join(scratch, "criu.conf"),
        "null byte": "/etc/passwd\0",
    }[way]
    os.symlink(config, f"{below_etc}/link")
    os.rename(config, path) if way == "volume" else None
    box.spec["annotations"] = {"org.criu.config": path}
    one = container(box)
    words = "$.annotations['org.criu.config']: cannot be CRIU's configuration file: "
    if verb == "checkpoint":
        one.up()
        checkpoint(one, scratch).fails(words, "below /etc/")
        assert one.status() == "running"
    else:
        image = os.path.join(scratch, "image")
        os.mkdir(image, 0o700)
        with open(os.path.join(image, "descriptors.json"), "w", encoding="ascii") as stream:
            json.dump(["/dev/null"] * 3, stream)
        done = one.pyrunc("restore", "--detach", "--image-path", image, "--bundle", box.path, one.id)
        assert done.status == 1
        assert words in done.err, done
    assert not os.path.lexists(proof)


def change(path: str, what: str) -> None:
    """Let somebody else be able to change the file, or put something else in its place."""
    target = os.path.dirname(path) if what.endswith("directory") else path
    if what.startswith("mode"):
        os.chmod(target, 0o777)
    elif what == "group":
        os.chmod(target, 0o664)
    elif what.startswith("owner"):
        os.chown(target, 1234, 0)
    else:
        os.unlink(path)
        kind = stat.S_IFIFO if what == "fifo" else stat.S_IFCHR
        os.mknod(path, kind | 0o600, os.makedev(1, 3))


@pytest.mark.parametrize(
    "what", ["mode", "group", "owner", "mode of directory", "owner of directory", "fifo", "device"]
)
def test_criu_configuration_that_others_can_change(
    what: str, container: ContainerFactory, bundle: BundleFactory, scratch: str, below_etc: str
) -> None:
    """Also below /etc: its owner may exchange it between our look and CRIU's."""
    support.needs_program("criu")
    path = f"{below_etc}/criu.conf"
    with open(path, "w", encoding="ascii") as stream:
        stream.write("log-level 4\n")
    change(path, what)
    box = bundle("probe").probe("pause")
    box.spec["annotations"] = {"org.criu.config": path}
    one = container(box).up()
    checkpoint(one, scratch).fails("$.annotations['org.criu.config']: cannot be CRIU's configuration file: ")
    assert one.status() == "running"

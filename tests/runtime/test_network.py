"""linux.netDevices: devices of a namespace of the test's own, which stands for the host's, go into containers."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory
    from support import Json, Spec

pytestmark = pytest.mark.root


class Namespace:
    """A network namespace, held by a process that does nothing else."""

    def __init__(self) -> None:
        support.needs_program("ip")
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; read line"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n"
        self.path = f"/proc/{self._holder.pid}/ns/net"
        self.prefix = ["nsenter", f"--net={self.path}"]

    def ip(self, words: str) -> str:
        """What `ip WORDS` prints in it."""
        return support.run(*self.prefix, "ip", *words.split()).ok().out

    def names(self) -> set[str]:
        """Its devices but lo."""
        return names(self.prefix)

    def facts(self, name: str) -> list[Json]:
        """All that must be as before when a device is put back: addresses, state, number, bridge, routes."""
        device = json.loads(self.ip(f"-j address show dev {name}"))[0]
        device.pop("operstate")
        # Those of fe80:: are made by the kernel, in its own time.
        device["addr_info"] = [item for item in device["addr_info"] if not item["local"].startswith("fe80:")]
        for address in device["addr_info"]:
            for key in ("valid_life_time", "preferred_life_time"):
                address[key] = "forever" if address[key] == 0xFFFFFFFF else address[key] > 3000
        routes = [json.loads(self.ip(f"-j {family} route show dev {name}")) for family in ("-4", "-6")]
        return [device, *routes]

    def end(self) -> None:
        """Let go of it."""
        self._holder.communicate()


def names(prefix: list[str]) -> set[str]:
    """The devices of the namespace that the prefix enters."""
    links = json.loads(support.run(*prefix, "ip", "-j", "link").ok().out)
    return {link["ifname"] for link in links} - {"lo"}


def inside(one: Container) -> list[str]:
    """What enters the container's network namespace, with the host's programs."""
    return ["nsenter", f"--net=/proc/{one.pid}/ns/net"]


@pytest.fixture
def host() -> Iterator[Namespace]:
    """What the runtime takes for the host: a veth pair, whose end "d0" has addresses of all kinds and a route."""
    made = Namespace()
    for words in (
        "link set lo up",
        "link add d0 type veth peer name p0",
        "link set p0 up",
        "address add 10.1.2.3/24 broadcast 10.1.2.255 dev d0",
        "address add 10.1.2.4/24 dev d0 label d0:x",
        "address add 10.9.9.9 peer 10.9.9.8 dev d0",
        "address add 169.254.7.7/16 scope link dev d0",
        "address add 10.1.3.3/24 dev d0 valid_lft 5000 preferred_lft 4000",
        "address add 2001:db8::5/64 dev d0 nodad",
        "address add 2001:db8:1::5/64 dev d0 nodad valid_lft 5000 preferred_lft 4000",
        "link set d0 up",
        "route add 192.0.2.0/24 via 10.1.2.1 dev d0 metric 7",
        "-6 route add 2001:db8:9::/48 via 2001:db8::1 dev d0",
    ):
        made.ip(words)
    yield made
    made.end()


@pytest.fixture
def other() -> Iterator[Namespace]:
    """A namespace for containers to join, in which "d0" and "net0" are taken."""
    made = Namespace()
    made.ip("link add d0 type veth peer name net0")
    yield made
    made.end()


def on(host: Namespace, container: ContainerFactory, what: Bundle, devices: Spec) -> Container:
    """A container with these devices whose every command runs in `host`."""
    what.mapping("linux")["netDevices"] = devices
    one = container(what.write())
    one.command[:0] = host.prefix
    return one


def test_a_device_keeps_its_name_and_permanent_global_addresses(
    host: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """config-linux.md: "permanent IP addresses [...] of any family with global scope", and set "up"."""
    one = on(host, container, bundle("probe", "/bin/probe", "pause"), {"d0": {}})
    one.create().ok()
    assert host.names() == {"p0"}
    device = json.loads(support.run(*inside(one), "ip", "-j", "address", "show", "dev", "d0").ok().out)[0]
    assert "UP" in device["flags"]
    kept = {item["local"]: item for item in device["addr_info"] if item["scope"] == "global"}
    assert set(kept) == {"10.1.2.3", "10.1.2.4", "10.9.9.9", "2001:db8::5"}
    assert kept["10.1.2.3"]["broadcast"] == "10.1.2.255"
    assert kept["10.1.2.4"]["label"] == "d0:x"
    assert kept["10.9.9.9"]["address"] == "10.9.9.8"
    assert not [item for item in device["addr_info"] if item["local"] == "169.254.7.7"]


def test_a_device_is_renamed(host: Namespace, container: ContainerFactory, bundle: BundleFactory) -> None:
    """Labels follow the name; prestart hooks find the device in its place already."""
    what = bundle("probe", "/bin/probe", "pause")
    seen = os.path.join(what.path, "seen")
    script = (
        f"nsenter --net=/proc/$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')/ns/net ip link show dev eth0 >{seen}"
    )
    hook: Spec = {
        "path": "/bin/sh",
        "args": ["sh", "-c", script],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    }
    what.spec["hooks"] = {"prestart": [hook]}
    one = on(host, container, what, {"d0": {"name": "eth0"}})
    one.create().ok()
    with open(seen, encoding="utf-8") as stream:
        assert "UP" in stream.read()
    assert names(inside(one)) == {"eth0"}
    text = support.run(*inside(one), "ip", "address", "show", "dev", "eth0").ok().out
    assert "global secondary eth0:x" in text
    assert "2001:db8::5/64" in text


def test_a_template_gets_the_next_free_number(
    host: Namespace, other: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """ "unless the user has provided a template by appending `%d` to the new name"."""
    what = bundle("probe", "/bin/probe", "pause")
    one = on(host, container, what, {"d0": {"name": "net%d"}, "p0": {"name": "net%d"}})
    one.create().ok()
    assert host.names() == set()
    assert names(inside(one)) == {"net0", "net1"}
    assert "10.1.2.3/24" in support.run(*inside(one), "ip", "address", "show", "dev", "net0").ok().out


def test_a_template_avoids_names_that_are_taken(
    host: Namespace, other: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Also when the host's name of the device is taken, for which the kernel looks twice."""
    what = bundle("probe", "/bin/probe", "pause").namespace("network", other.path)
    one = on(host, container, what, {"p0": {"name": "net%d"}, "d0": {"name": "net%d"}})
    one.create().ok()
    assert other.names() >= {"d0", "net0", "net1"}
    assert len(other.names()) == 4
    assert "10.1.2.3/24" in other.ip("address")


def test_a_joined_namespace_keeps_its_devices(
    host: Namespace, other: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """They belong to the namespace: delete does not move them. A taken host name is no obstacle to another name."""
    what = bundle("probe", "/bin/probe", "pause").namespace("network", other.path)
    one = on(host, container, what, {"d0": {"name": "x0"}})
    one.up()
    one.delete("--force").ok()
    assert other.names() == {"d0", "net0", "x0"}
    assert "10.1.2.3/24" in other.ip("address show dev x0")
    assert host.names() == {"p0"}


@pytest.mark.parametrize("name", ["d0", "net0"])
def test_a_taken_name_is_an_error(
    host: Namespace, other: Namespace, container: ContainerFactory, bundle: BundleFactory, name: str
) -> None:
    """ "If a network device with the specified name already exists [...] the runtime MUST generate an error"."""
    before = host.facts("d0")
    what = bundle("probe", "/bin/probe", "pause").namespace("network", other.path)
    one = on(host, container, what, {"p0": {"name": "y0"}, "d0": {"name": name}})
    one.create().fails(
        f'$.linux.netDevices.d0: network device name "{name}" is already used in the container'
    )
    assert other.names() == {"d0", "net0"}
    assert host.facts("d0") == before
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_a_missing_device_is_an_error(
    host: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """What had been moved before it is back."""
    before = host.facts("d0")
    one = on(host, container, bundle("probe", "/bin/probe", "pause"), {"d0": {}, "nope": {}})
    one.create().fails('$.linux.netDevices.nope: network device "nope" does not exist')
    assert host.facts("d0") == before


def test_what_the_kernel_keeps_stays(
    host: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """lo is bound to its namespace: the kernel's own words are the hint."""
    one = on(host, container, bundle("probe", "/bin/probe", "pause"), {"lo": {"name": "l1"}})
    one.create().fails("$.linux.netDevices.lo: RTM_NEWLINK 'lo': invalid argument", "hint: ")
    assert "LOOPBACK" in host.ip("link show lo")


@pytest.mark.parametrize("failure", ["prestart", "createRuntime", "createContainer", "limits", "program"])
def test_a_failed_create_puts_devices_back(
    host: Namespace, container: ContainerFactory, bundle: BundleFactory, failure: str
) -> None:
    """runtime.md: as if it had never been attempted; the veth pair would end with the namespace otherwise."""
    host.ip("link add br0 type bridge")
    host.ip("link set p0 master br0")
    before, peer = host.facts("d0"), host.facts("p0")
    what = bundle("probe", "/bin/probe", "pause")
    if failure == "program":
        what.args("/no/such/program")
    elif failure == "limits":
        what.mapping("linux", "resources")["unified"] = {"no.such.file": "1"}
        what.mapping("linux", "resources")["hugepageLimits"] = [{"pageSize": "3MB", "limit": 1}]
    else:
        what.spec["hooks"] = {failure: [{"path": "/bin/false"}]}
    one = on(host, container, what, {"d0": {"name": "eth0"}, "p0": {}})
    result = one.create().fails()
    assert "while cleaning up" not in result.err
    assert host.facts("d0") == before
    assert host.facts("p0") == peer
    assert host.names() == {"d0", "p0", "br0"}


def test_ones_own_namespace_is_no_container_namespace(
    host: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """A path that leads back to the runtime's namespace must not rename the host's devices."""
    what = bundle("probe", "/bin/probe", "pause").namespace("network", host.path)
    one = on(host, container, what, {"d0": {"name": "eth0"}})
    one.create().fails("unable to move network devices without a NET namespace", "hint: ")
    assert host.names() == {"d0", "p0"}


def test_a_device_with_a_taken_number_gets_another(
    host: Namespace, other: Namespace, container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Numbers of devices are counted in every namespace for itself."""
    host.ip("link add v0 index 77 type veth peer name v1")
    other.ip("link add w0 index 77 type veth peer name w1")
    what = bundle("probe", "/bin/probe", "pause").namespace("network", other.path)
    one = on(host, container, what, {"v0": {"name": "t%d"}})
    one.create().ok()
    assert "t0" in other.names()
    assert host.names() == {"d0", "p0", "v1"}

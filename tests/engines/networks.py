"""Scenarios for any Client whose engine has a bridge: a network of containers, ports of the host that lead there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import support
from engines import facts

if TYPE_CHECKING:
    from engines.client import Client
    from engines.scenario import Seen

SERVER = ("nc", "-ll", "-p", "80", "-e", "echo", "hello")


def _rules(client: Client) -> str:
    return client.area.run("iptables-save").ok().out


def test_published_port(client: Client, seen: Seen) -> None:
    """A port of the host leads to a container on the bridge, another container reaches it; both ways end with it."""
    bridge = ("--network", client.bridge)
    one = client.start(*SERVER, options=(*bridge, "--publish", "8080:80"))
    assert "8080" in _rules(client)
    outside = (support.needs_program("busybox"), "nc", "127.0.0.1", "8080")
    support.wait_until(lambda: client.area.run(*outside).out != "", "the server")
    seen.command("outside", client.area.run(*outside)).ok()
    address = client.inspect(one, f'(index .NetworkSettings.Networks "{client.bridge}").IPAddress')
    inside = client.run("nc", address, "80", options=("--rm", *bridge))
    assert seen.command("inside", inside).ok().out == "hello\n"
    client.do(*client.remove, one).ok()
    seen.value("left", "8080" in _rules(client))
    assert seen.values["outside.out"] == "hello\n" and seen.values["left"] is False


@facts.COVERS
def test_bridge(client: Client, seen: Seen) -> None:
    """`run` on a bridge: all that a program sees of its container."""
    facts.note(seen, client.run(*facts.COMMAND, options=("--rm", "--network", client.bridge)))


def test_address(client: Client, seen: Seen) -> None:
    """A container on a bridge has an address, a route and a name server's file; a stopped one comes back with them."""
    script = (
        "ip -o link | cut -d: -f2 | sed 's/@.*//'; ip route | sed 's/[0-9.]*[0-9]/N/g'; ls /etc/resolv.conf"
    )
    one = client.start("sh", "-c", f"{script}; exec sleep 1000", options=("--network", client.bridge))
    support.wait_until(lambda: client.do("logs", one).ok().out.endswith("conf\n"), "the first lines")
    client.do("restart", "--time", "0", one).ok()
    support.wait_until(lambda: client.do("logs", one).ok().out.count("conf\n") == 2, "the lines once more")
    assert "eth0" in seen.command("logs", client.do("logs", one)).ok().out

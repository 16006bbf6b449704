"""Scenarios for any Client whose engine builds images: what RUN steps do, and how they fail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import support
from engines.image import IMAGE
from engines.scenario import WORDS

if TYPE_CHECKING:
    from engines.client import Client
    from engines.scenario import Seen

STEPS = """
ENV GREETING=hello
RUN echo "$GREETING $(id -u) $(pwd)" >/who && grep -E '^(CapPrm|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status >>/who
WORKDIR /made/for/it
COPY given .
USER 1000:2000
RUN ["sh", "-c", "id; pwd; cat given; touch /tmp/mine"]
"""
TAG = "localhost/built:1"


def context(client: Client, name: str, steps: str) -> str:
    """A directory to build from; `steps` follow FROM."""
    directory = client.path(name)
    os.makedirs(directory, exist_ok=True)
    for file, text in (("Dockerfile", f"FROM {IMAGE}\n{steps}"), ("given", "given\n")):
        with open(os.path.join(directory, file), "w", encoding="utf-8") as stream:
            stream.write(text)
    return directory


def build(client: Client, name: str, steps: str) -> support.Result:
    """`build` without network and without anything from earlier builds."""
    options = ("--network", "none", "--no-cache", "--tag", TAG)
    return client.do("build", *options, context(client, name, steps))


def test_build(client: Client, seen: Seen) -> None:
    """`build`: RUN steps see environment, user, directory and files of earlier steps, and leave files in the image."""
    calls = len(client.area.calls())
    built = build(client, "context", STEPS).ok()
    # All else is about layers.
    lines = (built.out + built.err).splitlines()
    seen.value("step", [line for line in lines if line.startswith(("uid=", "/made", "given"))])
    # One container for each RUN.
    assert sum(" create " in f" {call}" for call in client.area.calls()[calls:]) == 2
    one = client.name()
    script = "cat /who; stat -c '%a %u %g' /tmp/mine /made/for/it/given; pwd; id"
    result = client.do("run", "--rm", "--name", one, *client.always, TAG, "sh", "-c", script)
    assert seen.command("run", result).ok().out.startswith("hello 0 /\n")
    client.do("rmi", TAG).ok()
    assert not client.left()


def test_build_fails(client: Client, seen: Seen) -> None:
    """A RUN step that fails ends `build`; its exit status is in the message, nothing is left of it."""
    result = build(client, "failing", "RUN echo before; exit 3\nRUN touch /after\n")
    assert result.status != 0 and "3" in result.err
    seen.value("status", result.status)
    seen.value("err", result.err)
    assert client.do("images", "--quiet", TAG).ok().out == "" and not client.left()


@WORDS
def test_build_missing(client: Client, seen: Seen) -> None:
    """A RUN step whose program is not there ends `build` with the reason."""
    result = build(client, "missing", 'RUN ["/no/such"]\n')
    assert result.status != 0
    reason = "stat /no/such: no such file or directory"
    seen.value("status", result.status)
    seen.value("reason", reason in result.err)
    seen.value("run.message", result.err)
    assert seen.values["reason"] is True and not client.left()

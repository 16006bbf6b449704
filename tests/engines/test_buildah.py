"""buildah and `podman build`: RUN steps of a build, and commands in a working container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import support
from engines.builds import *  # noqa: F403 - tests
from engines.builds import STEPS, TAG, context
from engines.image import IMAGE
from engines.podman import Podman
from engines.scenario import WORDS

if TYPE_CHECKING:
    from engines.scenario import Seen

pytestmark = pytest.mark.root
ENGINE = "buildah"
CLIENT = Podman


def test_bud(client: Podman, seen: Seen) -> None:
    """`buildah bud` runs the same steps as `podman build`."""
    argv = ("bud", "--network", "none", "--tag", TAG, context(client, "bud", STEPS))
    built = client.buildah(*argv).ok()
    seen.value(
        "step", [line for line in built.out.splitlines() if line.startswith(("uid=", "/made", "given"))]
    )
    one = client.run("true", options=("--rm",))
    seen.value("status", one.status)
    result = client.do("run", "--rm", "--name", client.name(), *client.always, TAG, "cat", "/who")
    seen.command("run", result).ok()
    client.do("rmi", TAG).ok()


def test_run(client: Podman, seen: Seen) -> None:
    """`buildah from`, `run`, `commit`: each command is a container of its own, and waits for its end by `state`."""
    one = client.buildah("from", "--name", "working", IMAGE).ok().out.strip()
    before = len(client.area.calls())
    run = ("run", "--network", "none")
    seen.command("run", client.buildah(*run, one, "--", "sh", "-c", "echo out; echo err >&2; exit 7")).fails(
        "err", status=7
    )
    verbs = [call.split()[0] for call in client.area.calls()[before:]]
    seen.value("verbs", " ".join(sorted(set(verbs))))
    options = ("--user", "1000:2000", "--workingdir", "/tmp", "--env", "A=b", "--hostname", "box")
    script = "id; pwd; echo $A; hostname; grep -E '^(Cap|Seccomp:)' /proc/self/status"
    seen.command("options", client.buildah(*run, *options, one, "--", "sh", "-c", script)).ok()
    client.buildah(*run, one, "--", "sh", "-c", "echo kept >/file").ok()
    client.buildah("commit", one, TAG).ok()
    client.buildah("rm", one).ok()
    result = client.do("run", "--rm", "--name", client.name(), *client.always, TAG, "cat", "/file")
    assert seen.command("kept", result).ok().out == "kept\n"
    client.do("rmi", TAG).ok()
    assert seen.values["verbs"] == "create delete start state" and not client.left()


@WORDS
def test_run_missing(client: Podman, seen: Seen) -> None:
    """`buildah run` of a program that is not there says why."""
    one = client.buildah("from", "--name", "working", IMAGE).ok().out.strip()
    result = client.buildah("run", "--network", "none", one, "--", "/no/such")
    client.buildah("rm", one).ok()
    seen.value("status", result.status)
    seen.value("run.message", result.err)
    assert "stat /no/such: no such file or directory" in result.err
    support.wait_until(lambda: not client.left(), "the end of its cgroups")

"""State files that are damaged, too large or somebody else's, and callers that stand nowhere.

`delete --force` ends and removes what the file still proves to be the container's, nothing else, and never leaves
without a word what may be left.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

import rounds
import support
from pyrunc.kernel import container as kernel_container

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root


def _paths(one: Container) -> list[str]:
    with open(os.path.join(one.root, one.id, "state"), encoding="utf-8") as stream:
        return [line.partition(":")[2].strip() for line in stream if line.startswith("cgroup ")]


def _damage(content: bytes, chance: random.Random) -> bytes:
    """One thing that goes wrong with a file."""
    header = content.index(b"\n\n")
    at = chance.randrange(header)
    data = bytearray(content)
    kind = chance.randrange(7)
    lines = bytes(data[:header]).split(b"\n")
    if kind == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + chance.randint(1, 40)]
    elif kind == 3:
        data[at] = chance.randrange(256)
    elif kind == 4:
        del lines[chance.randrange(len(lines))]
        data[:header] = b"\n".join(lines)
    elif kind == 5:
        lines.insert(chance.randrange(len(lines)), chance.choice(lines))
        data[:header] = b"\n".join(lines)
    else:
        data[at:at] = chance.choice([b"\n", b"\0", b" ", b"/", b"9", b"\n\n", b":"])
    return bytes(data)


@pytest.fixture
def neighbour(container: ContainerFactory, bundle: BundleFactory) -> Iterator[Container]:
    """Another container, whose name and cgroups differ from the damaged one's by one bit."""
    one = container(bundle("busybox", "sleep", "1000"), name=f"{support.ID_PREFIX}damage0").up()
    before = [support.process_gone(one.pid), [os.path.isdir(path) for path in _paths(one)]]
    yield one
    assert before == [support.process_gone(one.pid), [os.path.isdir(path) for path in _paths(one)]]
    assert one.status() == "running"


@pytest.mark.slow
def test_damaged_states(neighbour: Container, container: ContainerFactory, bundle: BundleFactory) -> None:
    """Nothing of another container is touched, and 0 means that all is gone."""
    assert neighbour.status() == "running"
    chance = rounds.chance()
    target = bundle("busybox", "sh", "-c", "sleep 1000 & sleep 1000")
    outcomes = set()
    for _ in rounds.loop(25):
        one = container(target, name=f"{support.ID_PREFIX}damage1").up()
        pid, paths = one.pid, _paths(one)
        below = os.path.join(paths[-1], "below")
        os.mkdir(below)
        path = os.path.join(one.root, one.id, "state")
        with open(path, "rb") as stream:
            good = stream.read()
        with open(path, "wb") as stream:
            stream.write(_damage(good, chance))
        result = one.delete("--force")
        outcomes.add(result.status)
        left = [path for path in paths if os.path.isdir(path)]
        if result.status == 0:
            assert support.process_gone(pid), result
            assert left == [], result
        else:
            assert "is damaged: " in result.err, result
            assert "below /sys/fs/cgroup" in result.err or "remove" in result.err, result
        # And with the right file again it can be removed in any case.
        if os.path.isdir(os.path.dirname(path)):
            with open(path, "wb") as stream:
                stream.write(good)
        elif not support.process_gone(pid) or left:
            os.makedirs(os.path.dirname(path))
            with open(path, "wb") as stream:
                stream.write(good)
        one.delete("--force").ok()
        assert support.process_gone(pid)
        assert not any(os.path.isdir(path) for path in paths)
    assert 1 in outcomes


def _annotated(bundle: Bundle, count: int) -> Bundle:
    bundle.spec["annotations"] = {f"k{number}": "\u00e9" * 20 for number in range(count)}
    bundle.write()
    # As an engine writes it, so that the document grows when the state is written.
    path = os.path.join(bundle.path, "config.json")
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text.replace("\\u00e9", "\u00e9").replace("    ", ""))
    return bundle


@pytest.mark.slow
def test_a_configuration_that_makes_too_large_a_state(
    container: ContainerFactory, bundle: BundleFactory
) -> None:
    """Nobody could read it again, so nothing is made."""
    one = container(_annotated(bundle("busybox", "sleep", "1000"), 1))
    _annotated(one.bundle, 290000)
    assert 14 << 20 < os.stat(os.path.join(one.bundle.path, "config.json")).st_size <= 16 << 20
    result = one.create().fails("$.annotations: they make a state of")
    assert "16 MiB are the most that can be read again" in result.err
    assert support.find_cgroups(one.id) == []
    assert not os.path.exists(os.path.join(one.root, one.id))


def test_a_state_that_has_grown_too_large(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The lines in front say what to end and to remove; the document is not needed for that."""
    one = container(bundle("busybox", "sleep", "1000")).up()
    pid, paths = one.pid, _paths(one)
    with open(os.path.join(one.root, one.id, "state"), "ab") as stream:
        stream.truncate(kernel_container.STATE_MAX + 1)
    one.pyrunc("state", one.id).fails("is damaged: it is larger than 16 MiB")
    one.delete().fails("is damaged: it is larger than 16 MiB")
    assert not support.process_gone(pid)
    one.delete("--force").ok()
    assert support.process_gone(pid)
    assert not any(os.path.isdir(path) for path in paths)


# --- A caller whose directory is gone -----------------------------------------------------------------------------


NEEDS_NO_DIRECTORY = (
    ["state", "{}"],
    ["list"],
    ["ps", "{}"],
    ["exec", "{}", "true"],
    ["pause", "{}"],
    ["resume", "{}"],
)
NEEDS_ONE = (
    ["create", "{}2"],
    ["create", "--bundle", "b", "{}2"],
    ["run", "--bundle", ".", "{}2"],
    ["exec", "--process", "p.json", "{}"],
    ["exec", "--pid-file", "p", "{}", "true"],
    ["checkpoint", "{}"],
    ["explain"],
)


def test_the_current_directory_is_gone(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """What has an absolute path works; what is relative says why it cannot."""
    one = container(bundle("busybox", "sleep", "1000"))
    gone = os.path.join(scratch, "gone")
    nowhere = ["sh", "-c", f'mkdir -p {gone}; cd {gone}; rmdir {gone}; exec "$@"', "sh", *one.command]
    bundle_path = ["--bundle", one.bundle.path]
    support.run(
        "sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *nowhere, "create", *bundle_path, one.id
    ).ok()
    support.run(*nowhere, "start", one.id).ok()
    for words in NEEDS_NO_DIRECTORY:
        support.run(*nowhere, *(word.format(one.id) for word in words)).ok()
    for words in NEEDS_ONE:
        result = support.run(*nowhere, *(word.format(one.id) for word in words))
        assert result.status in (1, 255), result
        assert "getcwd: no such file or directory\nhint: '" in result.err, result
        assert "is relative: give an absolute path, or call from a directory that exists" in result.err
    at = nowhere.index("--root")
    result = support.run(*nowhere[:at], "--root", "r", "state", one.id).fails(
        "getcwd: no such file or directory"
    )
    assert "'r' is relative" in result.err
    support.run(*nowhere, "kill", one.id, "KILL").ok()
    support.run(*nowhere, "delete", "--force", one.id).ok()
    assert not os.path.exists(os.path.join(one.root, one.id))
    shutil.rmtree(gone, ignore_errors=True)

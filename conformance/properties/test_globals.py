"""Rows of what stands before a command: the global options, help and version."""

from __future__ import annotations

import json
import os
import re
import socket
from typing import TYPE_CHECKING

import pytest

import support
from box import RUNTIME, lacks, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from box import Box


@row("--root")
def test_root(box: Box) -> None:
    one = box.up()
    assert os.listdir(one.root) == [one.id]


def read(path: str) -> list[str]:
    with open(path, encoding="utf-8") as stream:
        return stream.read().splitlines()


@row("--log", "--log-format")
@pytest.mark.parametrize("form", ["json", "text"])
def test_log(box: Box, scratch: str, form: str) -> None:
    """containerd reads the last error, podman the whole file as one document: there is one line, and nothing else."""
    path = os.path.join(scratch, "log")
    one = box.set("root.path", "nowhere").container()
    result = one.pyrunc("--log", path, "--log-format", form, "create", "--bundle", one.bundle.path, one.id)
    assert result.status != 0
    (line,) = read(path)
    if form == "json":
        entry = json.loads(line)
        assert entry["level"] == "error"
        assert entry["msg"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", entry["time"])
    else:
        assert re.match(r'time="\d{4}-.*" level=error msg=', line)
    # conmon and CRI-O look at stderr.
    assert "nowhere" in result.err


@row("--log: nothing is written when nothing is wrong")
def test_silent_log(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "log")
    one = box.container()
    one.bundle.probe("ids").write()
    one.pyrunc("--log", path, "--log-format", "json", "run", "--bundle", one.bundle.path, one.id).ok()
    assert read(path) == []


@row("--log: it is appended to")
def test_log_is_appended(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "log")
    for _ in range(2):
        assert box.container().pyrunc("--log", path, "state", "no-such-container").status != 0
    assert len(read(path)) == 2


@row("--log: file:PATH")
def test_log_file(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "log")
    assert box.container().pyrunc("--log", f"file:{path}", "state", "no-such-container").status != 0
    assert len(read(path)) == 1


@pytest.fixture
def daemon(scratch: str) -> Iterator[tuple[socket.socket, list[str]]]:
    """A daemon's socket, and what makes a command see it as journald's and syslog's."""
    path = os.path.join(scratch, "daemon")
    script = (
        "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/journal; mount -t tmpfs tmpfs /mnt;"
        ' cp -a /dev/null /dev/full /dev/tty /mnt/; for name in /run/systemd/journal/socket /mnt/log; do : >"$name";'
        ' mount --bind "$0" "$name"; done; mount --rbind /mnt /dev; exec "$@"'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(10)
        yield listening, ["unshare", "-m", "sh", "-c", script, path]


@row("--log: journald:ID", "--log: syslog:ID", "--systemd-log")
@pytest.mark.parametrize("words", [["--log", "journald:me"], ["--log=syslog:me"], ["--systemd-log"]])
def test_log_of_a_service(box: Box, daemon: tuple[socket.socket, list[str]], words: list[str]) -> None:
    listening, seen = daemon
    one = box.container()
    result = support.run(*seen, *one.command, *words, "state", "no-such-container")
    assert result.status != 0
    entry = listening.recv(65536)
    assert b"does not exist" in entry
    assert (b"me" in entry) == (words != ["--systemd-log"])


@row("--log-format")
def test_unknown_log_format(box: Box) -> None:
    assert box.container().pyrunc("--log-format", "xml", "list").status != 0


@row("--log-level")
@pytest.mark.parametrize(("level", "lines"), [("error", 0), ("warning", 1)])
def test_log_level(box: Box, scratch: str, level: str, lines: int) -> None:
    """A capability that does not exist is a warning, which is heard by who asks for warnings."""
    path = os.path.join(scratch, "log")
    box.capability("CAP_NO_SUCH_THING").bundle.probe("ids").write()
    one = box.container()
    one.pyrunc("--log", path, "--log-level", level, "run", "--bundle", one.bundle.path, one.id).ok()
    assert len(read(path)) == lines


@row("--log-level")
def test_unknown_log_level(box: Box) -> None:
    assert box.container().pyrunc("--log-level", "loud", "list").status != 0


@row("--debug", "--rootless")
@pytest.mark.parametrize("option", ["--debug", "--rootless=auto", "--rootless=false", "--rootless=true"])
def test_global_switches(box: Box, option: str) -> None:
    one = box.container()
    one.bundle.probe("ids").write()
    assert "uid 0 0 0" in one.pyrunc(option, "run", "--bundle", one.bundle.path, one.id).ok().out


@row("--rootless")
def test_rootless_is_a_bool(box: Box) -> None:
    one = box.container()
    one.bundle.write()
    assert one.pyrunc("--rootless=maybe", "run", "--bundle", one.bundle.path, one.id).status != 0


@row("--debug")
def test_debug_tells_more(box: Box, scratch: str) -> None:
    path = os.path.join(scratch, "log")
    one = box.container()
    one.bundle.probe("ids").write()
    one.pyrunc("--debug", "--log", path, "run", "--bundle", one.bundle.path, one.id).ok()
    assert any("level=debug" in line for line in read(path))


@row("--cgroup-manager")
def test_without_cgroups(box: Box) -> None:
    """disabled: the container stays in the caller's; anything but the three names is an error."""
    one = box.container()
    one.bundle.probe("cat", "/proc/self/cgroup").write()
    box.bundle.without_namespace("cgroup").write()
    words = ["run", "--bundle", one.bundle.path, one.id]
    shown = one.pyrunc("--cgroup-manager", "disabled", *words).ok().out
    assert one.id not in shown
    assert one.id in one.pyrunc("--cgroup-manager", "cgroupfs", *words).ok().out
    assert one.pyrunc("--cgroup-manager", "nonsense", *words).status != 0


@row("--systemd-cgroup", "--cgroup-manager")
@pytest.mark.parametrize("option", ["--systemd-cgroup", "--cgroup-manager=systemd"])
def test_systemd_is_missing(box: Box, option: str) -> None:
    if os.path.isdir("/run/systemd/system"):
        lacks("a host without systemd; tests/runtime has those with it")
    one = box.container()
    one.bundle.write()
    result = one.pyrunc(option, "run", "--bundle", one.bundle.path, one.id)
    assert result.status != 0
    assert "systemd" in result.err


@row("--version", "-v")
@pytest.mark.parametrize("option", ["--version", "-v"])
def test_version(option: str) -> None:
    """go-runc wants the first line to begin so, moby a commit, runc's own tests three numbers and the specification."""
    lines = support.run(RUNTIME, option).ok().out.splitlines()
    assert re.match(r"\w+ version \d+\.\d+\.\d+", lines[0])
    assert any(line.startswith("commit: ") for line in lines)
    assert any(re.match(r"spec: \d+\.\d+\.\d+", line) for line in lines)


@row("--help", "-h", "help", "h")
@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["create", "--help"], ["help"], ["h"], ["help", "create"]]
)
def test_help(words: list[str]) -> None:
    result = support.run(RUNTIME, *words).ok()
    assert "create" in result.out


@row("an unknown command is an error", "an unknown option is an error")
@pytest.mark.parametrize("words", [["nonsense"], ["--nonsense"], ["list", "--nonsense"]])
def test_unknown_words(words: list[str]) -> None:
    assert support.run(RUNTIME, *words).status != 0


@row("options: --x=v, --x v, -x v, -long")
@pytest.mark.parametrize(
    "words", [["--bundle={}"], ["--bundle", "{}"], ["-bundle", "{}"], ["-bundle={}"], ["-b", "{}"]]
)
def test_spellings(box: Box, words: list[str]) -> None:
    one = box.container()
    one.bundle.probe("ids").write()
    one.pyrunc("run", "-no-subreaper", *(word.format(one.bundle.path) for word in words), one.id).ok()


@row("--trace")
def test_trace(box: Box, scratch: str) -> None:
    """pyrunc's own: the time of every phase, as a Chrome trace."""
    path = os.path.join(scratch, "trace.json")
    one = box.container()
    one.bundle.probe("ids").write()
    one.pyrunc("--trace", path, "run", "--bundle", one.bundle.path, one.id).ok()
    with open(path, encoding="utf-8") as stream:
        assert json.load(stream)


@row("create --timings", "run --timings", "exec --timings")
def test_timings(box: Box) -> None:
    """pyrunc's own: the same as a chart on stderr."""
    box.bundle.probe("pause")
    one = box.container()
    assert "ms" in one.create("--timings").ok().err
    one.start().ok()
    assert "ms" in one.pyrunc("exec", "--timings", one.id, "/bin/probe", "ids").ok().err
    one.delete("--force").ok()
    assert "ms" in box.run("ids", options=["--timings"]).ok().err

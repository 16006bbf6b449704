"""Where the log goes when it is no file: journald and syslog, each played by a socket."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING

import pytest

from pyrunc import log
from pyrunc.cli import main as cli
from pyrunc.errors import KernelError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def service(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A daemon's socket, where both services are looked for."""
    path = str(tmp_path / "daemon")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        daemon.settimeout(5)
        monkeypatch.setattr(log, "_JOURNAL", path)
        monkeypatch.setattr(log, "_SYSLOG", path)
        yield daemon
    log.setup()


def journal_fields(data: bytes) -> dict[str, str]:
    """An entry of the journal's protocol, both ways to write a field."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[9 + size :]
        fields[name.decode()] = value.decode()
    return fields


def test_journald(service: socket.socket, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The entry has the caller's name, the severity of an error and the message; stderr has the bare message."""
    root = str(tmp_path / "root")
    assert cli.main(["--log", "journald:shim", "--log-format", "json", "--root", root, "state", "x"]) == 1
    expected = {"PRIORITY": "3", "SYSLOG_IDENTIFIER": "shim", "MESSAGE": "container does not exist"}
    assert journal_fields(service.recv(65536)) == expected
    assert capfd.readouterr() == ("", "container does not exist\n")


def test_journald_as_well(
    service: socket.socket, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """--systemd-log changes nothing else."""
    assert cli.main(["--systemd-log", "--root", str(tmp_path / "root"), "state", "x"]) == 1
    assert journal_fields(service.recv(65536))["SYSLOG_IDENTIFIER"] == "pyrunc"
    assert capfd.readouterr() == ("", "pyrunc: state: container does not exist\n")


def test_lines_hints_and_levels(service: socket.socket) -> None:
    """A message of several lines is one entry; a warning is one only when it is asked for."""
    log.setup("journald:x", level="warning")
    log.warning("one\ntwo")
    log.debug("three")
    log.error("four", "five")
    assert journal_fields(service.recv(65536))["MESSAGE"] == "one\\ntwo"
    assert journal_fields(service.recv(65536))["MESSAGE"] == "four (hint: five)"


def test_syslog(service: socket.socket) -> None:
    """RFC 3164, as the C library's syslog(3) writes it; the lines of a message become one."""
    log.setup("syslog:shim")
    log.error("one\ntwo")
    line = service.recv(65536).decode()
    assert re.fullmatch(r"<11>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d shim\[\d+\]: one\\ntwo", line)


def test_a_file_by_its_long_name(tmp_path: pathlib.Path) -> None:
    """file:PATH is PATH, and the only way to a file whose name begins like a service's."""
    path = tmp_path / "journald:x"
    log.setup(f"file:{path}", "json")
    log.error("words")
    log.setup()
    assert '"msg":"words"' in path.read_text()


@pytest.mark.parametrize("target", ["journald:x", "syslog:x"])
def test_a_service_that_is_not_there(
    target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, not a log that nobody ever reads."""
    monkeypatch.setattr(log, "_JOURNAL", str(tmp_path / "nothing"))
    monkeypatch.setattr(log, "_SYSLOG", str(tmp_path / "nothing"))
    with pytest.raises(KernelError, match=r"connect '.*': no such file or directory"):
        log.setup(target)
    log.setup()


def test_debug_says_where(tmp_path: pathlib.Path) -> None:
    """--debug: each step with its function and file, as text and as JSON; an error has neither."""
    path = tmp_path / "log"
    for form in ("json", "text"):
        words = ["--debug", "--log", str(path), "--log-format", form, "--root", str(tmp_path / "root")]
        assert cli.main([*words, "state", "x"]) == 1
    log.setup()
    first, second, third, _ = path.read_text().splitlines()
    step = json.loads(first)
    assert (step["level"], step["msg"], step["func"]) == ("debug", "state x", "_run")
    assert step["file"].endswith("cli/main.py")
    assert sorted(json.loads(second)) == ["level", "msg", "time"]
    assert re.fullmatch(r'time="[^"]+" level=debug msg="state x" file="[^"]+cli/main.py" func="_run"', third)

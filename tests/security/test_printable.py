"""Text of images, hooks, containers and services: nothing of it reaches a terminal or a log as a command.

An escape sequence sets a terminal's title, its colours, and on some its input; a line feed in a message begins a line
that looks like pyrunc's own. CWE-150, CWE-117.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING

import pytest

import rounds
import support
from pyrunc import errors, log, printable
from pyrunc.cli import main as cli
from pyrunc.cli import verbs
from pyrunc.json_text import document as json_text

if TYPE_CHECKING:
    from containers import BundleFactory, Container, ContainerFactory
    from support import Result

# Title, colours, C1's CSI, DEL, directions, line separators, a line of ours, a byte that is no UTF-8.
HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\u202e\u2028\u2066\r\nhint: run this\ttab"
EVERY_KIND = (HOSTILE.encode() + b"\xff\x9b").decode("utf-8", "surrogateescape")


def assert_clean(text: str, *, also: str = "\n") -> None:
    """Nothing but printable characters and `also`; it was UTF-8."""
    assert not [char for char in text if not char.isprintable() and char not in also], repr(text)


def assert_report(result: Result, *, status: int = 1) -> None:
    """An error and its hints: no line that is not ours."""
    assert result.status == status, result
    assert_clean(result.out + result.err)
    assert "\nhint: run this" not in result.err, result
    assert "owned" in result.err, result


@pytest.mark.slow
def test_every_character() -> None:
    """The two rules, over all of Unicode: what comes out is printable, and what was printable is unchanged."""
    everything = "".join(map(chr, range(0x110000)))
    assert_clean(printable.line(everything), also="")
    assert_clean(printable.lines(everything), also="\n\t")
    good = "".join(filter(str.isprintable, everything))
    assert printable.line(good) == printable.lines(good) == good
    text = json_text.dumps([everything])
    assert_clean(text, also="")
    (back,) = json.loads(text)
    assert back == re.sub("[\ud800-\udfff]", "\ufffd", everything)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x00\x1b\x7f\x9b", r"\x00\x1b\x7f\x9b"),
        (os.fsdecode(b"\xff\x9b"), r"\xff\x9b"),
        ("\u202e\u2028\ufeff", r"\u202e\u2028\ufeff"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
        ("é 漢 \\ ü\u0301", "é 漢 \\ ü\u0301"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    """Those of Python and C; a backslash stays, as names hold it."""
    assert printable.line(text) == shown


def test_texts_by_chance() -> None:
    """Whatever bytes come: line() and lines() leave nothing, a JSON document nothing and all of the text."""
    chance = rounds.chance()
    for _ in rounds.during(0.2):
        text = os.fsdecode(chance.randbytes(chance.randrange(64)))
        assert_clean(printable.line(text), also="")
        assert_clean(printable.lines(text), also="\n\t")
        assert printable.lines(text).count("\n") == text.count("\n")
        assert_clean(json_text.dumps(text), also="")


class _UnforeseenError(Exception):
    def __str__(self) -> str:
        return f"owned{EVERY_KIND}"


@pytest.mark.parametrize(
    "error",
    [
        errors.BusError(f"systemd: owned{EVERY_KIND}", name=EVERY_KIND, hint=HOSTILE),
        errors.CriuError(f"criu failed: owned{EVERY_KIND}", hint=f"see {EVERY_KIND}"),
        errors.KernelError("open", 2, f"/owned{EVERY_KIND}", path=f"$.{HOSTILE}", hint=EVERY_KIND),
        errors.StateError(f"owned{HOSTILE}"),
        OSError(2, "words", f"/owned{EVERY_KIND}"),
        _UnforeseenError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("words", [[], ["--debug"], ["--log-format", "json"], ["--log-level", "debug"]])
def test_errors_of_every_kind(
    error: Exception, words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Answers of systemd, CRIU's log, paths, hints, notes, and what nobody foresaw with its traceback."""

    def fail(*_: object) -> str:
        raise error

    if "--debug" not in words:
        error.add_note(f"while going back: {EVERY_KIND}")
    monkeypatch.setitem(verbs.HANDLERS, "features", fail)
    assert cli.main([*words, "features"]) == 1
    log.setup()
    out, err = capfd.readouterr()
    assert_clean(out + err)
    assert "owned" in err
    assert not re.search("^hint: run", err, re.MULTILINE)


pytestmark = pytest.mark.root


def hook(output: str, status: int = 1) -> support.Json:
    words = "".join(f"\\{byte:03o}" for byte in os.fsencode(output))
    return {"path": "/bin/sh", "args": ["sh", "-c", f"printf {shlex.quote(words)} >&2; exit {status}"]}


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_output_of_a_hook(
    kind: str, container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """On stderr and in both forms of the log, which engines read and show to somebody."""
    box = bundle("probe")
    box.spec["hooks"] = {kind: [hook(EVERY_KIND)]}
    one = container(box)
    assert_report(one.create())
    for form in ("json", "text"):
        log = os.path.join(scratch, f"log.{form}")
        command = (*one.command, "--log", log, "--log-format", form, "create", "-b", box.path, one.id)
        assert_report(support.run(*command))
        with open(log, encoding="utf-8") as stream:
            (line,) = stream.read().splitlines()
        assert_clean(line)
        if form == "json":
            assert_clean(json.loads(line)["msg"])


@pytest.mark.parametrize("door", [support.PYRUNC, f"{support.PYTHON} -m pyrunc"])
def test_output_of_a_hook_of_start(door: str, container: ContainerFactory, bundle: BundleFactory) -> None:
    """startContainer: C reads init's message, Python words it."""
    box = bundle("busybox", "true")
    box.spec["hooks"] = {"startContainer": [hook(EVERY_KIND)]}
    one = container(box, command=door.split())
    one.create().ok()
    assert_report(one.start())


def test_a_program_of_that_name(container: ContainerFactory, bundle: BundleFactory) -> None:
    """args[0] comes from the image: create and exec name it, a file that is there and cannot run, too."""
    box = bundle("probe", f"owned{HOSTILE}")
    assert_report(container(box).create())
    up = container(bundle("probe").probe("pause")).up()
    assert_report(up.exec(f"owned{EVERY_KIND}"), status=255)
    os.mkdir(os.path.join(up.bundle.rootfs, f"owned{HOSTILE.replace('/', '')}"))
    assert_report(up.exec(f"/owned{HOSTILE}"), status=255)


def test_warnings(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """They go to the log alone."""
    box = bundle("probe", "/bin/probe", "pause")
    box.mapping("process", "capabilities")["bounding"] = [f"CAP_{HOSTILE}"]
    one = container(box)
    log = os.path.join(scratch, "log")
    words = ("--log", log, "--log-level", "debug", "create", "-b", box.path, one.id)
    support.run("sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *one.command, *words).ok()
    with open(log, encoding="utf-8") as stream:
        text = stream.read()
    assert_clean(text)
    assert "owned" in text
    assert all(line.startswith("time=") for line in text.splitlines())


def test_list_and_state(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """A bundle's path is a cell of a table; annotations are strings of JSON, on a terminal nevertheless."""
    box = bundle("probe").probe("pause")
    box.spec["annotations"] = {"owned": HOSTILE}
    box.write()
    directory = os.path.join(scratch, "owned" + EVERY_KIND.replace("/", ""))
    os.symlink(box.path, directory)
    one = container(box)
    one.detached("create", "-b", directory, one.id).ok()
    table = one.pyrunc("list").ok().out
    assert_clean(table)
    assert len(table.splitlines()) == 2
    for command in (("list", "--format", "json"), ("state", one.id)):
        text = one.pyrunc(*command).ok().out
        assert_clean(text)
        document = json.loads(text)
        document = document[0] if isinstance(document, list) else document
        assert document["annotations"]["owned"] == HOSTILE


def test_ps(container: ContainerFactory, bundle: BundleFactory) -> None:
    """A process names itself."""
    program = "printf '\\033[31mowned\\237\\177' >/proc/$$/comm; echo renamed; sleep 600; :"
    one = container(bundle("busybox", "sh", "-c", program)).up()
    one.expect("renamed")
    text = one.pyrunc("ps", one.id, "-o", "pid,comm").ok().out
    assert_clean(text)
    assert "owned" in text


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_explain(form: list[str], bundle: BundleFactory) -> None:
    """A configuration that nobody has run yet."""
    box = bundle("probe", HOSTILE)
    box.mount(f"/owned{HOSTILE}", "bind", f"/{HOSTILE}", "bind", HOSTILE)
    box.spec["hostname"] = HOSTILE
    box.spec["hooks"] = {"createContainer": [{"path": f"/{HOSTILE}", "args": [HOSTILE], "env": [HOSTILE]}]}
    box.write()
    done = support.run(support.PYRUNC, "explain", *form, "-b", box.path)
    assert_clean(done.out + done.err)
    assert "owned" in done.out + done.err


@pytest.mark.parametrize(
    "words",
    [
        [f"owned{EVERY_KIND}"],
        [f"--owned{EVERY_KIND}"],
        ["create", f"--owned{EVERY_KIND}"],
        ["--root", f"/owned{EVERY_KIND}", "list"],
        ["--root", "/nothing", "state", f"owned{EVERY_KIND}"],
        ["--log", f"/owned/{EVERY_KIND}", "list"],
        ["create", "-b", f"/owned{EVERY_KIND}", "x"],
        ["kill", "x", f"owned{EVERY_KIND}"],
    ],
)
@pytest.mark.parametrize("door", [support.PYRUNC, f"{support.PYTHON} -m pyrunc"])
def test_arguments(door: str, words: list[str]) -> None:
    """A script hands on what it was given; both doors."""
    done = support.run(*door.split(), *words)
    assert done.status != 0
    assert_clean(done.out + done.err)


def test_a_configuration_that_is_refused(bundle: BundleFactory, container: ContainerFactory) -> None:
    """Names of members, values, and what is no JSON at all."""
    box = bundle("probe")
    box.mapping("linux")["cgroupsPath"] = f"/owned{HOSTILE}"
    one: Container = container(box)
    assert_report(one.create())
    box.spec["process"] = {"owned" + HOSTILE: {}}
    box.write()
    done = one.create()
    assert done.status == 1
    assert_clean(done.err)
    with open(os.path.join(box.path, "config.json"), "wb") as stream:
        stream.write(b'{"' + os.fsencode(EVERY_KIND) + b'": \x1b[31m\x9b')
    done = one.create()
    assert done.status == 1
    assert_clean(done.err)

"""The caller's environment has root's Python load and read nothing; it is handed over as data.

See csrc/command/environment.h.
"""

from __future__ import annotations

import os
import platform
import re
import struct

import pytest

import support

# Says so when it is loaded, as what the dynamic linker or iconv takes it for.
EVIL = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) { close(open(MARKER, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)); }
int gconv_init(void *step) { (void)step; return 1; }
int gconv(void *step) { (void)step; return 1; }
"""
LOCALE = "comment_char %\nescape_char /\nLC_CTYPE\nupper <U0041>\nlower <U0061>\nEND LC_CTYPE\n"
CHARACTERS = "\n".join(f"<U{number:04X}> /x{number:02x}" for number in range(128))
CHARMAP = (
    "<code_set_name> EVIL\n<comment_char> %\n<escape_char> /\n<mb_cur_min> 1\n<mb_cur_max> 1\n"
    f"CHARMAP\n{CHARACTERS}\nEND CHARMAP\n"
)


class Trap:
    """A shared object, and a locale whose character set only it can convert. `sprung`: it was loaded."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.marker = f"{directory}/marker"
        self.object = f"{directory}/EVIL.so"
        self._write("evil.c", EVIL)
        self._write("charmap", CHARMAP)
        self._write("locale", LOCALE)
        self._write(
            "gconv-modules",
            f"module EVIL// INTERNAL {directory}/EVIL 1\nmodule INTERNAL EVIL// {directory}/EVIL 1\n",
        )
        source = [f'-DMARKER="{self.marker}"', "-o", self.object, f"{directory}/evil.c"]
        support.run("gcc", "-shared", "-fPIC", *source).ok()
        os.mkdir(f"{directory}/locales")
        # Its status is 1 for the many things that the locale has not got.
        names = ["-i", f"{directory}/locale", "-f", f"{directory}/charmap", f"{directory}/locales/xx_XX"]
        support.run("localedef", "--no-archive", "-c", *names)

    def _write(self, name: str, text: str) -> None:
        with open(f"{self.directory}/{name}", "w", encoding="ascii") as stream:
            stream.write(text)

    def environment(self, kind: str) -> dict[str, str]:
        """What loads it into a program that lets it."""
        kinds = {
            "gconv": {
                "LC_ALL": "xx_XX",
                "LOCPATH": f"{self.directory}/locales",
                "GCONV_PATH": self.directory,
            },
            "preload": {"LD_PRELOAD": self.object},
            "audit": {"LD_AUDIT": self.object},
        }
        return {"PATH": "/usr/bin:/bin", **kinds[kind]}

    def sprung(self) -> bool:
        """Whether it was loaded since this was last asked."""
        there = os.path.exists(self.marker)
        if there:
            os.unlink(self.marker)
        return there


@pytest.fixture
def trap(scratch: str) -> Trap:
    """A trap, which works."""
    support.needs_program("localedef")
    os.mkdir(f"{scratch}/trap")
    return Trap(f"{scratch}/trap")


@pytest.mark.parametrize("kind", ["gconv", "preload", "audit"])
def test_nothing_of_the_callers_is_loaded(trap: Trap, scratch: str, kind: str) -> None:
    """Neither into a Python that starts, nor one out of a snapshot, nor into the maker of a snapshot."""
    environment = trap.environment(kind)
    support.run(os.path.realpath(support.PYTHON), "-I", "-S", "-c", "", env=environment)
    assert trap.sprung(), "the trap does not work: nothing is proved"
    os.mkdir(f"{scratch}/root")
    for wish in ("0", "1"):
        given = {**environment, "PYRUNC_SNAPSHOT": wish}
        for words, status in (("list", 0), ("exec nobody true", 255), ("features", 0)):
            argv = [support.PYRUNC, "--root", f"{scratch}/root", *words.split()]
            done = support.run(*argv, env=given)
            assert done.status == status, done
            assert not trap.sprung(), (wish, words)


def test_python_knows_it_all_the_same(scratch: str) -> None:
    """As data: os.environ is the caller's, to the byte, and nothing is added."""
    given = {
        "PATH": "/bin", "LC_ALL": "xx", "LD_PRELOAD_": "x", "PYTHONPATH": scratch, "A": "b=c", "-x": "-", "E": "",
    }  # fmt: skip
    package = os.path.dirname(support.PACKAGE)
    code = f"""
import sys
sys.path.append({package!r})
sys.argv = ["boot", "--", "x"]
from pyrunc.startup import entry as launched
launched._answer = lambda argv, told: print(*sorted(__import__("os").environ.items()), sep="\\n") or 0
launched.main()
"""
    with open(f"{scratch}/boot.py", "w", encoding="ascii") as stream:
        stream.write(code)
    marked = {f"-{name}": value for name, value in given.items()} | {"LC_ALL": "C", "TZ": "XXX-5"}
    done = support.run(support.PYTHON, "-I", "-S", f"{scratch}/boot.py", env=marked).ok()
    assert done.out.splitlines() == [str(pair) for pair in sorted(given.items())]


@pytest.fixture
def fake_criu(scratch: str) -> str:
    """A directory with a criu that says what its environment is."""
    path = f"{scratch}/criu"
    with open(path, "w", encoding="ascii") as stream:
        stream.write(f"#!/bin/sh\nenv >{scratch}/seen\n")
    os.chmod(path, 0o755)
    return scratch


def asked_criu(fake_criu: str, **environment: str) -> dict[str, str]:
    """The environment that it got."""
    # Answers nothing, and so ends before its first answer.
    code = (
        "from pyrunc.criu import server as criu, process as criu_process\n"
        "with criu_process.Interrupts() as interrupts: criu.Server(interrupts).ask({'type': 1}, seconds=10)"
    )
    given = {"PATH": f"{fake_criu}:/usr/bin:/bin", **environment}
    support.run(support.PYTHON, "-c", code, env=given).fails("criu failed")
    with open(f"{fake_criu}/seen", encoding="utf-8") as stream:
        seen = dict(line.rstrip("\n").split("=", 1) for line in stream)
    return {name: seen[name] for name in seen if name not in ("PWD", "_", "PYRUNC_CRIU", "SHLVL")}


@pytest.mark.root
def test_criu_gets_no_orders_either(fake_criu: str, trap: Trap) -> None:
    """It runs as root for us: PATH and HOME are all it gets of the caller's."""
    others = dict.fromkeys(("CRIU_LIBS_DIR", "GCONV_PATH", "TMPDIR", "LD_LIBRARY_PATH"), fake_criu)
    assert asked_criu(fake_criu, HOME="/root", **others).keys() == {"PATH", "HOME"}


@pytest.mark.root
def test_criu_has_no_home_of_others(fake_criu: str, scratch: str) -> None:
    """sudo -E keeps it, and CRIU runs what ~/.criu/default.conf names."""
    homes = {name: f"{scratch}/{name}" for name in ("theirs", "shared", "ours")}
    for home in homes.values():
        os.mkdir(home)
    os.chown(homes["theirs"], 4242, 4242)
    os.chmod(homes["shared"], 0o777)
    os.mkdir(f"{homes['theirs']}/below")
    for home in (homes["theirs"], homes["shared"], f"{homes['theirs']}/below", "relative", "", "/nowhere"):
        assert asked_criu(fake_criu, HOME=home).keys() == {"PATH"}, home
    assert asked_criu(fake_criu, HOME=homes["ours"])["HOME"] == homes["ours"]


# --- The time zone, which the log shows ---


def zone_file(path: str, offset: int) -> str:
    """Write a time zone of one row. tzfile(5)"""
    with open(path, "wb") as stream:
        stream.write(
            b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", offset, 0, 0)
        )
        stream.write(b"XYZ\0")
    return path


def offset_in_log(scratch: str, verb: str, **environment: str) -> str:
    """The offset in the time of a line of the log."""
    log = f"{scratch}/log"
    argv = [support.PYRUNC, "--root", f"{scratch}/none", "--log", log, verb, "nobody", "true"]
    support.run(*(argv if verb == "exec" else argv[:-1]), env=environment).fails(
        "does not exist", status=255 if verb == "exec" else 1
    )
    with open(log, encoding="utf-8") as stream:
        line = stream.read().splitlines()[-1]
    found = re.match(r'time="\d+-\d+-\d+T\d+:\d+:\d+([^"]*)"', line)
    assert found, line
    return found[1]


@pytest.mark.parametrize("how", ["launcher", "python", "snapshot"])
def test_the_zone_is_the_callers(scratch: str, how: str) -> None:
    """Not that of whoever made the snapshot; a file that is no time zone of this host's is not opened for it."""
    support.needs(how != "snapshot" or platform.machine() == "x86_64", "snapshots on this architecture")
    wish = "1" if how == "snapshot" else "0"
    verb = "state" if how == "launcher" else "exec"

    def ask(zone: str) -> str:
        return offset_in_log(scratch, verb, TZ=zone, TZDIR=scratch, PYRUNC_SNAPSHOT=wish)

    assert ask("AAA-5:30") == "+05:30"
    assert ask("BBB+3") == "-03:00"
    usual = offset_in_log(scratch, verb, PYRUNC_SNAPSHOT=wish)
    foreign = zone_file(f"{scratch}/zone", 5 * 3600)
    assert support.run("date", "+%z", env={"TZ": foreign}).out == "+0500\n", "no trap at all"
    for zone in (foreign, f":{foreign}", "zone", f"/usr/share/zoneinfo/../../..{foreign}"):
        assert ask(zone) in ("Z", usual)
    assert ask("AAA-5:30") == "+05:30"

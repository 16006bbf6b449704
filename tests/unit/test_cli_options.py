"""The parser of the command line against a corpus of good and bad argv."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrunc.cli import context, options
from pyrunc.cli import parse as cli_parse
from pyrunc.errors import KernelError, UsageError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Mapping

G = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json"
CRIU = "--shell-job --file-locks --empty-ns network --leave-running"
GLOBALS = {"root": "/run/containerd/runc/k8s.io", "log": "/b/log.json", "log-format": "json"}

# What engines send (one line each), and what it means: global options, verb, its options, arguments.
ENGINES: list[tuple[str, Mapping[str, object], str, Mapping[str, object], list[str]]] = [
    (
        f"{G} --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /t/s c1",
        {**GLOBALS, "systemd-cgroup": True},
        "create",
        {"bundle": "/b", "pid-file": "/b/init.pid", "console-socket": "/t/s"},
        ["c1"],
    ),
    (
        f"{G} create --bundle /b --pid-file /b/init.pid --no-pivot --no-new-keyring c1",
        GLOBALS,
        "create",
        {"bundle": "/b", "pid-file": "/b/init.pid", "no-pivot": True, "no-new-keyring": True},
        ["c1"],
    ),
    (f"{G} start c1", GLOBALS, "start", {}, ["c1"]),
    (f"{G} pause c1", GLOBALS, "pause", {}, ["c1"]),
    (f"{G} resume c1", GLOBALS, "resume", {}, ["c1"]),
    (f"{G} ps --format json c1", GLOBALS, "ps", {"format": "json"}, ["c1"]),
    (f"{G} kill c1 15", GLOBALS, "kill", {}, ["c1", "15"]),
    (f"{G} kill --all c1 9", GLOBALS, "kill", {"all": True}, ["c1", "9"]),
    (f"{G} delete c1", GLOBALS, "delete", {}, ["c1"]),
    (f"{G} delete --force c1", GLOBALS, "delete", {"force": True}, ["c1"]),
    (f"{G} update --resources - c1", GLOBALS, "update", {"resources": "-"}, ["c1"]),
    (f"{G} update --resources=- c1", GLOBALS, "update", {"resources": "-"}, ["c1"]),
    (
        f"{G} exec --process /tmp/runc-process1 --console-socket /s --detach --pid-file /b/e.pid c1",
        GLOBALS,
        "exec",
        {"process": "/tmp/runc-process1", "console-socket": "/s", "detach": True, "pid-file": "/b/e.pid"},
        ["c1"],
    ),
    (
        f"{G} checkpoint --image-path /i --work-path /w --parent-path ../p --tcp-established --ext-unix-sk {CRIU} c1",
        GLOBALS,
        "checkpoint",
        {
            "image-path": "/i",
            "work-path": "/w",
            "parent-path": "../p",
            "tcp-established": True,
            "ext-unix-sk": True,
            "shell-job": True,
            "file-locks": True,
            "empty-ns": ["network"],
            "leave-running": True,
        },
        ["c1"],
    ),
    (
        f"{G} restore --image-path /i --work-path /w --detach --pid-file /f --no-pivot -no-subreaper --bundle /b c1",
        GLOBALS,
        "restore",
        {
            "image-path": "/i",
            "work-path": "/w",
            "detach": True,
            "pid-file": "/f",
            "no-pivot": True,
            "no-subreaper": True,
            "bundle": "/b",
        },
        ["c1"],
    ),
    ("features", {}, "features", {}, []),
    (
        "--log-format=json --log=/f create --bundle /b --pid-file /p --preserve-fds 2 c1",
        {"log-format": "json", "log": "/f"},
        "create",
        {"bundle": "/b", "pid-file": "/p", "preserve-fds": 2},
        ["c1"],
    ),
    (
        "--cgroup-manager disabled create --bundle /b --pid-file /p c1",
        {"cgroup-manager": "disabled"},
        "create",
        {"bundle": "/b", "pid-file": "/p"},
        ["c1"],
    ),
    (
        "exec --pid-file /p --process /j --detach --tty --preserve-fds 1 --console-socket /s c1",
        {},
        "exec",
        {
            "pid-file": "/p",
            "process": "/j",
            "detach": True,
            "tty": True,
            "preserve-fds": 1,
            "console-socket": "/s",
        },
        ["c1"],
    ),
    ("--debug --log=/x kill c1 9", {"debug": True, "log": "/x"}, "kill", {}, ["c1", "9"]),
    ("update --resources=/var/tmp/podman1 c1", {}, "update", {"resources": "/var/tmp/podman1"}, ["c1"]),
    ("--root=/r kill -a c1 9", {"root": "/r"}, "kill", {"all": True}, ["c1", "9"]),
    ("--root /r exec --process /p c1", {"root": "/r"}, "exec", {"process": "/p"}, ["c1"]),
    (
        "--root=/r exec -d --console-socket=/s --tty --pid-file=/f c1 ls -l --color=auto",
        {"root": "/r"},
        "exec",
        {"detach": True, "console-socket": "/s", "tty": True, "pid-file": "/f"},
        ["c1", "ls", "-l", "--color=auto"],
    ),
    (
        "--log /f --log-format json run --bundle /b --no-pivot --keep c1",
        {"log": "/f", "log-format": "json"},
        "run",
        {"bundle": "/b", "no-pivot": True, "keep": True},
        ["c1"],
    ),
    ("kill buildah-1 SIGKILL", {}, "kill", {}, ["buildah-1", "SIGKILL"]),
    ("events --interval=5s c1", {}, "events", {"interval": "5s"}, ["c1"]),
    ("list --format=json", {}, "list", {"format": "json"}, []),
    ("ps --format table c1 -o pid,args", {}, "ps", {"format": "table"}, ["c1", "-o", "pid,args"]),
]
# The rules of Go's flag package, one by one.
RULES: list[tuple[str, Mapping[str, object], str, Mapping[str, object], list[str]]] = [
    ("-root /r list", {"root": "/r"}, "list", {}, []),
    ("-root=/r list -q", {"root": "/r"}, "list", {"quiet": True}, []),
    ("--root= list", {"root": ""}, "list", {}, []),
    ("--root /a --root /b list", {"root": "/b"}, "list", {}, []),
    ("--debug=false list", {"debug": False}, "list", {}, []),
    ("--debug=T list --quiet=0", {"debug": True}, "list", {"quiet": False}, []),
    ("create c1 --bundle /b", {}, "create", {"bundle": "/b"}, ["c1"]),
    ("create -b=/b -- c1", {}, "create", {"bundle": "/b"}, ["c1"]),
    ("create -- -c1", {}, "create", {}, ["-c1"]),
    ("create --bundle --bundle c1", {}, "create", {"bundle": "/cwd/--bundle"}, ["c1"]),
    ("create --bundle=a=b c1", {}, "create", {"bundle": "/cwd/a=b"}, ["c1"]),
    ("create --pid-file ./x/../p c1", {}, "create", {"pid-file": "/cwd/p"}, ["c1"]),
    ("create --console-socket s c1", {}, "create", {"console-socket": "s"}, ["c1"]),
    ("create --bundle= c1", {}, "create", {"bundle": ""}, ["c1"]),
    ("delete c1 -f", {}, "delete", {"force": True}, ["c1"]),
    ("delete -", {}, "delete", {}, ["-"]),
    ("exec c1 -- ls -d", {}, "exec", {}, ["c1", "--", "ls", "-d"]),
    ("exec -- c1 ls", {}, "exec", {}, ["c1", "ls"]),
    (
        "exec -e A=1,B=2 --env C=3 -g 5 -g 6 -c CAP_KILL c1 ls",
        {},
        "exec",
        {"env": ["A=1,B=2", "C=3"], "additional-gids": [5, 6], "cap": ["CAP_KILL"]},
        ["c1", "ls"],
    ),
    ("kill c1 -9", {}, "kill", {}, ["c1", "-9"]),
    ("run --preserve-fds -1 c1", {}, "run", {"preserve-fds": -1}, ["c1"]),
    ("-- list", {}, "list", {}, []),
]


def parse(argv: str) -> tuple[dict[str, object], str, dict[str, object], list[str]]:
    words = argv.split()
    first = cli_parse.Parsed()
    at = cli_parse.global_options(words, first)
    parsed = cli_parse.command_options(words[at], words[at + 1 :])
    return dict(first.given), words[at], dict(parsed.given), parsed.arguments


@pytest.mark.parametrize("case", [*ENGINES, *RULES], ids=lambda case: case[0])
def test_good(
    case: tuple[str, Mapping[str, object], str, Mapping[str, object], list[str]],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every argv of the corpus is understood as it was meant."""
    monkeypatch.chdir(tmp_path)
    first, verb, given, arguments = parse(case[0])
    expected = {
        name: value.replace("/cwd", str(tmp_path)) if isinstance(value, str) else value
        for name, value in case[3].items()
    }
    assert (first, verb, given, arguments) == (case[1], case[2], expected, case[4])


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--root", "flag needs an argument: -root"),
        ("restore --lsm-mount-context", "flag needs an argument: -lsm-mount-context"),
        ("create c1 -b", "flag needs an argument: -b"),
        ("--bogus list", "flag provided but not defined: -bogus"),
        ("create --bogus=1 c1", "flag provided but not defined: -bogus"),
        ("create -x c1", "flag provided but not defined: -x"),
        ("--criu /bin/criu list", "flag provided but not defined: -criu"),
        ("list -qf json", "flag provided but not defined: -qf"),
        ("create --log /x c1", "flag provided but not defined: -log"),
        ("create ---bundle c1", "bad flag syntax: ---bundle"),
        ("create --=x c1", "bad flag syntax: --=x"),
        ("create -=x c1", "bad flag syntax: -=x"),
        ("--debug=yes list", 'invalid boolean value "yes" for -debug: parse error'),
        ("create --no-pivot= c1", 'invalid boolean value "" for -no-pivot: parse error'),
        ("create --preserve-fds x c1", 'invalid value "x" for flag -preserve-fds: parse error'),
        ("create --preserve-fds= c1", 'invalid value "" for flag -preserve-fds: parse error'),
        ("create --preserve-fds 010 c1", 'invalid value "010" for flag -preserve-fds: parse error'),
        ("create --preserve-fds 1_0 c1", 'invalid value "1_0" for flag -preserve-fds: parse error'),
        ("create --preserve-fds \u0663 c1", 'invalid value "\u0663" for flag -preserve-fds: parse error'),
        ("create --preserve-fds 9223372036854775808 c1", "parse error"),
        ("exec -g 1.5 c1 ls", 'invalid value "1.5" for flag -g: parse error'),
        ("create", '"create" requires exactly 1 argument(s), got 0'),
        ("create a b", '"create" requires exactly 1 argument(s), got 2'),
        ("state", '"state" requires exactly 1 argument(s), got 0'),
        ("list a", '"list" requires exactly 0 argument(s), got 1'),
        ("features a", '"features" requires exactly 0 argument(s), got 1'),
        ("kill", '"kill" requires a minimum of 1 argument(s), got 0'),
        ("kill a 9 b", '"kill" requires a maximum of 2 argument(s), got 3'),
        ("kill a --all 9", '"kill" requires a maximum of 2 argument(s), got 3'),
        ("exec", '"exec" requires a minimum of 1 argument(s), got 0'),
        ("ps -f json", '"ps" requires a minimum of 1 argument(s), got 0'),
    ],
)
def test_bad(argv: str, text: str) -> None:
    """Every bad argv is refused, in the words that programs look for."""
    with pytest.raises(UsageError) as caught:
        parse(argv)
    assert text in caught.value.message


def test_short_and_long_name_are_one_option() -> None:
    """The last of both counts."""
    assert parse("create -b /a --bundle /b c1")[2] == {"bundle": "/b"}


def test_help_needs_no_arguments() -> None:
    """--help stands alone, but not beside a wrong option."""
    assert cli_parse.command_options("create", ["--help"]).switch("help")
    assert cli_parse.command_options("create", ["-h", "a", "b"]).switch("help")
    with pytest.raises(UsageError):
        cli_parse.command_options("create", ["--help", "--bogus"])


def test_every_option_of_the_tables_is_well_formed() -> None:
    """Names are unique within a command, and kinds are known."""
    kinds = {"switch", "text", "path", "number", "texts", "numbers"}
    for name, command in [
        *options.COMMANDS.items(),
        ("", options.Command("", "", 0, 0, options.GLOBALS[:-1])),
    ]:
        rows = (*command.options, options.GLOBALS[-1])
        names = [item for row in rows for item in row[:2] if item]
        assert len(names) == len(set(names)), name
        assert {row[2] for row in rows} <= kinds, name


def context_of(argv: str) -> tuple[str, bool, str, bool, bool | None]:
    parsed = cli_parse.Parsed()
    cli_parse.global_options(argv.split(), parsed)
    ctx = context.from_options(parsed)
    return ctx.root, ctx.root_explicit, ctx.cgroup_manager, ctx.systemd_cgroup, ctx.rootless


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--root /a/../b", ("/b", True, "cgroupfs", False, None)),
        ("--root /b --systemd-cgroup", ("/b", True, "systemd", True, None)),
        ("--root /b --cgroup-manager systemd", ("/b", True, "systemd", True, None)),
        ("--root /b --cgroup-manager disabled", ("/b", True, "disabled", False, None)),
        ("--root /b --rootless=auto", ("/b", True, "cgroupfs", False, None)),
        ("--root /b --rootless true", ("/b", True, "cgroupfs", False, True)),
        ("--root /b --rootless=0", ("/b", True, "cgroupfs", False, False)),
    ],
)
def test_context(argv: str, expected: tuple[str, bool, str, bool, bool | None]) -> None:
    """Global options become the runtime's context."""
    assert context_of(argv) == expected


@pytest.mark.parametrize("root", ["/", "//", "", "..", "../.."])
def test_root_is_not_the_root(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A --root that ends up at / is refused, whatever it is called."""
    monkeypatch.chdir("/usr")
    parsed = cli_parse.Parsed()
    parsed.given["root"] = root
    with pytest.raises(UsageError, match="must not be /"):
        context.from_options(parsed)


@pytest.mark.parametrize("argv", ["--rootless maybe", "--cgroup-manager cgroup"])
def test_context_refuses(argv: str) -> None:
    """A value that is none of those possible is an error."""
    with pytest.raises(UsageError, match="invalid value"):
        context_of(argv)


@pytest.mark.parametrize(
    ("euid", "userns", "xdg", "user", "expected"),
    [
        (0, False, "/run/user/0", None, "/run/pyrunc"),
        (0, False, "", None, "/run/pyrunc"),
        (1000, False, "/run/user/1000", "u", "/run/user/1000/pyrunc"),
        (1000, False, "", "u", "/run/pyrunc"),
        (0, True, "/run/user/1000", None, "/run/user/1000/pyrunc"),
        (0, True, "/run/user/1000", "u", "/run/user/1000/pyrunc"),
        (0, True, "/run/user/1000", "root", "/run/pyrunc"),
        (0, True, "", None, "/run/pyrunc"),
    ],
)
def test_default_root(
    euid: int, userns: bool, xdg: str, user: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """runc's rule for who gets a root below XDG_RUNTIME_DIR."""
    monkeypatch.setattr("os.geteuid", lambda: euid)
    monkeypatch.setattr("pyrunc.host.gather.in_user_namespace", lambda: userns)
    monkeypatch.setenv("XDG_RUNTIME_DIR", xdg)
    if user is None:
        monkeypatch.delenv("USER", raising=False)
    else:
        monkeypatch.setenv("USER", user)
    assert context.default_root() == expected


def test_default_root_is_made_sticky(tmp_path: pathlib.Path) -> None:
    """The XDG base directory specification spares what has the sticky bit."""
    root = tmp_path / "pyrunc"
    context.make_default_root(str(root))
    context.make_default_root(str(root))
    assert root.stat().st_mode & 0o7777 == 0o1700


def test_default_root_that_cannot_be_made(tmp_path: pathlib.Path) -> None:
    """The error names the directory and what to look at."""
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match="not a directory") as caught:
        context.make_default_root(str(tmp_path / "file/pyrunc"))
    assert "XDG_RUNTIME_DIR" in (caught.value.hint or "")


def test_parsing_imports_nothing_else() -> None:
    """A good argv pays for errors, options, requests, and log: nothing of the standard library but os."""
    program = (
        "import sys, os, time; before = set(sys.modules)\n"
        "from pyrunc.cli import context, main, parse\n"
        f"parsed = parse.Parsed(); words = {ENGINES[0][0].split()!r}\n"
        "at = parse.global_options(words, parsed)\n"
        "parse.command_options(words[at], words[at + 1:]); context.from_options(parsed)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert loaded == {
        "__future__",
        "pyrunc",
        "pyrunc.cli",
        "pyrunc.cli.main",
        "pyrunc.errors",
        "pyrunc.log",
        "pyrunc.cli.context",
        "pyrunc.cli.options",
        "pyrunc.cli.parse",
        "pyrunc.requests",
    }

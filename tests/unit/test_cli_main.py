"""What the command line prints, logs and returns. A runtime that only records stands in for the real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import pyrunc
from pyrunc import log
from pyrunc.cli import context, options
from pyrunc.cli import help as help_pages
from pyrunc.cli import main as cli
from pyrunc.errors import ConfigError, KernelError, StateError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from pyrunc.requests import Context, CreateOptions, ExecOptions, RunOptions

STATE: dict[str, object] = {
    "ociVersion": "1.3.0",
    "id": "c1",
    "pid": 7,
    "status": "running",
    "bundle": "/b",
    "rootfs": "/b/rootfs",
    "created": "2026-01-02T03:04:05.6Z",
    "owner": "root",
}
ERROR = """\
pyrunc: {}: $.mounts[3]: open_tree 'data': no such file or directory
hint: look
note: while cleaning up: rmdir '/x': device or resource busy
"""


class _FakeRuntime:
    """Records the calls; raises or returns what a test sets."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.error: BaseException | None = None
        self.status = 0
        self.documents: list[dict[str, object]] = []
        self.problems: list[str] = []
        self.ctx: Context | None = None
        self.request: object = None

    def _note(self, ctx: Context, *call: object) -> None:
        self.ctx = ctx
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def create(self, ctx: Context, container_id: str, bundle: str, wanted: CreateOptions) -> None:
        self.request = wanted
        self._note(ctx, "create", container_id, bundle)

    def run(self, ctx: Context, container_id: str, bundle: str, wanted: RunOptions) -> int:
        self.request = wanted
        self._note(ctx, "run", container_id, bundle)
        return self.status

    def exec_(self, ctx: Context, container_id: str, wanted: ExecOptions) -> int:
        self.request = wanted
        self._note(ctx, "exec", container_id)
        return self.status

    def start(self, ctx: Context, container_id: str, _record: bytes = b"") -> None:
        self._note(ctx, "start", container_id)

    def state(self, ctx: Context, container_id: str) -> dict[str, object]:
        self._note(ctx, "state", container_id)
        return STATE

    def kill(self, ctx: Context, container_id: str, signal: int, everyone: bool) -> None:
        self._note(ctx, "kill", container_id, signal, everyone)

    def delete(self, ctx: Context, container_id: str, force: bool) -> None:
        self._note(ctx, "delete", container_id, force)

    def pause(self, ctx: Context, container_id: str) -> None:
        self._note(ctx, "pause", container_id)

    def resume(self, ctx: Context, container_id: str) -> None:
        self._note(ctx, "resume", container_id)

    def wait(self, ctx: Context, container_id: str) -> int:
        self._note(ctx, "wait", container_id)
        return self.status

    def ps(self, ctx: Context, container_id: str) -> list[int]:
        self._note(ctx, "ps", container_id)
        return [os.getpid()]

    def list_(self, ctx: Context) -> tuple[list[dict[str, object]], list[str]]:
        self._note(ctx, "list")
        return list(self.documents), list(self.problems)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> _FakeRuntime:
    fake = _FakeRuntime()
    monkeypatch.setitem(sys.modules, "pyrunc.runtime", fake)
    monkeypatch.setattr(pyrunc, "runtime", fake, raising=False)
    return fake


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    yield
    log.setup()


Captured = pytest.CaptureFixture[str]


def main(words: str) -> int:
    return cli.main(words.split())


def run(capfd: Captured, *argv: str) -> tuple[int, str, str]:
    status = cli.main(argv)
    captured = capfd.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("argv", "call"),
    [
        ("start c1", ("start", "c1")),
        ("kill c1", ("kill", "c1", 15, False)),
        ("kill --all c1 9", ("kill", "c1", 9, True)),
        ("kill c1 sigusr1", ("kill", "c1", 10, False)),
        ("delete c1", ("delete", "c1", False)),
        ("delete -f c1", ("delete", "c1", True)),
        ("pause c1", ("pause", "c1")),
        ("resume c1", ("resume", "c1")),
        ("create --bundle /b c1", ("create", "c1", "/b")),
        ("run --bundle=/b c1", ("run", "c1", "/b")),
        ("exec c1 ls", ("exec", "c1")),
    ],
)
def test_verbs_reach_the_runtime_and_are_silent(
    argv: str, call: tuple[object, ...], runtime: _FakeRuntime, capfd: Captured
) -> None:
    """When all is well nothing is printed: engines read stdout and stderr as one."""
    assert run(capfd, "--root", "/r", *argv.split()) == (0, "", "")
    assert runtime.calls == [call]
    assert runtime.ctx is not None
    assert (runtime.ctx.root, runtime.ctx.root_explicit) == ("/r", True)


def test_bundle_is_the_current_directory(
    runtime: _FakeRuntime, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --bundle, or with an empty one."""
    monkeypatch.chdir(tmp_path)
    cli.main(["--root", "/r", "create", "c1"])
    cli.main(["--root", "/r", "create", "--bundle=", "c1"])
    assert runtime.calls == [("create", "c1", str(tmp_path))] * 2


def values(request: object) -> dict[str, object]:
    names = {name for kind in type(request).__mro__ for name in getattr(kind, "__annotations__", ())}
    return {name: getattr(request, name) for name in names}


def test_every_option_of_run_reaches_the_request(runtime: _FakeRuntime) -> None:
    """No option is parsed and forgotten."""
    main(
        "--root /r run -b /b -f /c.json --console-socket c --pidfd-socket p --pid-file /f --no-pivot --no-new-keyring "
        "--preserve-fds 3 -d --keep --no-subreaper --record-exit c1"
    )
    assert values(runtime.request) == {
        "console_socket": "c",
        "pidfd_socket": "p",
        "pid_file": "/f",
        "preserve_fds": 3,
        "no_pivot": True,
        "no_new_keyring": True,
        "detach": True,
        "keep": True,
        "no_subreaper": True,
        "config": "/c.json",
        "record_exit": True,
    }


def test_every_option_of_exec_reaches_the_request(runtime: _FakeRuntime) -> None:
    """No option is parsed and forgotten."""
    main(
        "--root /r exec --cwd /w -e A=1 -t -u 1:2 -g 3 -c kill --no-new-privs=false --apparmor a "
        "--process-label l --cgroup cpu,memory:x --ignore-paused -d --pid-file /f --console-socket c "
        "--pidfd-socket p --preserve-fds 4 c1 ls -l"
    )
    assert values(runtime.request) == {
        "process": "",
        "args": ["ls", "-l"],
        "cwd": "/w",
        "env": ["A=1"],
        "tty": True,
        "user": "1:2",
        "additional_gids": [3],
        "cap": ["kill"],
        "no_new_privs": False,
        "apparmor": "a",
        "process_label": "l",
        "cgroup": [("cpu", "x"), ("memory", "x")],
        "ignore_paused": True,
        "detach": True,
        "pid_file": "/f",
        "console_socket": "c",
        "pidfd_socket": "p",
        "preserve_fds": 4,
    }


def test_exec_by_file(runtime: _FakeRuntime) -> None:
    """With --process there is no command; no_new_privs stays the file's."""
    assert cli.main(["--root", "/r", "exec", "-p", "/p.json", "c1"]) == 0
    got = values(runtime.request)
    assert (got["process"], got["args"], got["no_new_privs"]) == ("/p.json", (), None)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_attached_status_is_handed_on(verb: str, runtime: _FakeRuntime, capfd: Captured) -> None:
    """The status of the process is ours, 128 + N for a signal."""
    runtime.status = 137
    assert run(capfd, "--root", "/r", verb, "c1", *(["ls"] if verb == "exec" else [])) == (137, "", "")


def test_wait_prints_the_status(runtime: _FakeRuntime, capfd: Captured) -> None:
    """Its own exit status says whether it could wait."""
    runtime.status = 7
    assert run(capfd, "--root", "/r", "wait", "c1") == (0, "7\n", "")


@pytest.mark.parametrize(("argv", "status"), [("state c1", 1), ("run c1", 1), ("exec c1 ls", 255)])
def test_error(argv: str, status: int, runtime: _FakeRuntime, capfd: Captured) -> None:
    """One line says verb, path and what; exec's own failure is 255."""
    runtime.error = ConfigError(
        "open_tree 'data': no such file or directory", path="$.mounts[3]", hint="look"
    )
    runtime.error.add_note("while cleaning up: rmdir '/x': device or resource busy")
    verb, *_ = argv.split()
    assert run(capfd, "--root", "/r", *argv.split()) == (status, "", ERROR.format(verb))


def test_json_log(runtime: _FakeRuntime, capfd: Captured, tmp_path: pathlib.Path) -> None:
    """Exactly one line in the log, the bare message on stderr."""
    runtime.error = StateError("container does not exist")
    path = tmp_path / "log.json"
    argv = ["--log", str(path), "--log-format", "json", "--root", "/r", "kill", "c1", "9"]
    assert run(capfd, *argv) == (1, "", "container does not exist\n")
    assert path.stat().st_mode & 0o777 == 0o644
    line = path.read_text()
    assert line.endswith("\n")
    entry = json.loads(line)
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", entry["time"])
    assert list(entry) == ["level", "msg", "time"]
    runtime.error = StateError("again", hint="do that")
    assert run(capfd, *argv) == (1, "", "again\nhint: do that\n")
    assert path.read_text().startswith(line), "the log is appended to"
    assert json.loads(path.read_text()[len(line) :])["hint"] == "do that"


def test_json_log_of_a_usage_error(capfd: Captured, tmp_path: pathlib.Path) -> None:
    """Mistakes behind the global options are logged like all others."""
    path = tmp_path / "log"
    assert cli.main([f"--log={path}", "--log-format=json", "create", "--bogus"]) == 1
    assert json.loads(path.read_text())["msg"] == "flag provided but not defined: -bogus"
    assert capfd.readouterr().err.startswith("flag provided but not defined: -bogus\n")


def test_json_on_stderr(runtime: _FakeRuntime, capfd: Captured) -> None:
    """Without --log the JSON line is all there is on stderr."""
    runtime.error = StateError("container does not exist")
    status, out, err = run(capfd, "--log-format", "json", "--root", "/r", "state", "c1")
    assert (status, out, json.loads(err)["msg"]) == (1, "", "container does not exist")


def test_text_log(runtime: _FakeRuntime, capfd: Captured, tmp_path: pathlib.Path) -> None:
    """The text format is logrus's."""
    runtime.error = StateError('say "x"')
    path = tmp_path / "log"
    assert run(capfd, "--log", str(path), "--root", "/r", "state", "c1") == (1, "", 'say "x"\n')
    assert re.fullmatch(r'time="[^"]+" level=error msg="say \\"x\\""\n', path.read_text())


def test_nothing_is_logged_when_all_is_well(runtime: _FakeRuntime, tmp_path: pathlib.Path) -> None:
    """podman reads the whole file as one JSON value: no other line may come before an error."""
    path = tmp_path / "log"
    assert cli.main(["--log", str(path), "--log-format", "json", "--root", "/r", "start", "c1"]) == 0
    log.warning("w")
    log.debug("d")
    assert path.read_text() == ""


@pytest.mark.parametrize(
    ("level", "expected"),
    [(["--log-level", "warning"], ["warning"]), (["--debug"], ["debug", "warning", "debug"]), ([], [])],
)
def test_log_level(
    level: list[str], expected: list[str], runtime: _FakeRuntime, tmp_path: pathlib.Path
) -> None:
    """Who asks for more gets more."""
    path = tmp_path / "log"
    assert cli.main([*level, "--log", str(path), "--log-format", "json", "--root", "/r", "start", "c1"]) == 0
    log.warning("w")
    log.debug("d")
    assert [json.loads(line)["level"] for line in path.read_text().splitlines()] == expected


def test_log_time_has_the_local_offset(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 3339, also where the offset has minutes or is negative."""
    for zone, expected in (("AAA-5:45", "+05:45"), ("BBB3:30", "-03:30"), ("UTC0", "Z")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        path = tmp_path / expected
        log.setup(str(path), "json")
        log.error("x")
        assert json.loads(path.read_text())["time"].endswith(expected)
    monkeypatch.undo()
    time.tzset()


def test_log_of_bytes_that_are_no_text(tmp_path: pathlib.Path) -> None:
    """A path may hold any byte; the line stays UTF-8."""
    path = tmp_path / "log"
    log.setup(str(path), "json")
    log.error(os.fsdecode(b"open '/\xff'"))
    assert json.loads(path.read_text("utf-8"))["msg"] == r"open '/\xff'"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--log-format yaml list", "pyrunc: invalid log-format: yaml\n"),
        ("--log-level loud list", "pyrunc: invalid log-level: loud\n"),
        ("--log /nonexistent/x list", "pyrunc: open '/nonexistent/x': no such file or directory\n"),
        ("crate c1", "pyrunc: unknown command 'crate'\nhint: did you mean create?\n"),
        ("help crate", "pyrunc: help: unknown command 'crate'\nhint: did you mean create?\n"),
        ("--root / list", "pyrunc: list: the --root directory must not be /\n"),
        ("--root /r kill c1 XX", 'pyrunc: kill: unknown signal "XX"\n'),
        ("--root /r list --format xml", "pyrunc: list: invalid format option: 'xml'\n"),
        ("--root /nonexistent list", "pyrunc: list: open '/nonexistent': no such file or directory\n"),
        ("--root /r create --preserve-fds -1 c1", 'pyrunc: create: invalid value "-1" for flag'),
        ("--root /r checkpoint c1", "pyrunc: checkpoint: container does not exist\n"),
        (
            "--root /r restore --bundle /nonexistent c1",
            "pyrunc: restore: JSON specification file config.json not",
        ),
        ("mounts add c1 /no/f", "pyrunc: mounts: open '/no/f': no such file or directory\n"),
        ("mounts swap c1 f", "pyrunc: mounts: unknown subcommand 'mounts swap'\nhint: give add or remove\n"),
    ],
)
def test_refusals(argv: str, text: str, capfd: Captured) -> None:
    """What cannot be done is refused with status 1, on stderr, without a help page."""
    status, out, err = run(capfd, *argv.split())
    assert (status, out) == (1, "")
    assert err.startswith(text)


@pytest.mark.parametrize(
    ("argv", "status", "text"),
    [
        ("exec c1", 255, "args must not be empty"),
        ("exec -u root c1 ls", 255, "bad uid in --user 'root'"),
        ("exec -e =x c1 ls", 255, "name cannot be empty"),
        ("exec --cgroup a --cgroup b c1 ls", 255, "invalid --cgroup argument: a"),
    ],
)
def test_exec_refuses_before_it_looks(
    argv: str, status: int, text: str, runtime: _FakeRuntime, capfd: Captured
) -> None:
    """Options that can never work do not reach the runtime."""
    got, out, err = run(capfd, "--root", "/r", *argv.split())
    assert (got, out, runtime.calls) == (status, "", [])
    assert text in err


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        ("create --bundel /b c1", "flag provided but not defined: -bundel", "did you mean --bundle?"),
        ("create --root /r c1", "flag provided but not defined: -root", "comes before the command"),
        ("--bundle /b create c1", "flag provided but not defined: -bundle", "is an option of create"),
        ("create --xyzzy c1", "flag provided but not defined: -xyzzy", "pyrunc create --help"),
        ("--xyzzy", "flag provided but not defined: -xyzzy", "pyrunc --help"),
        ("create -b", "flag needs an argument: -b", "--bundle PATH"),
        ("restore --lsm-mount-context", "flag needs an argument: -lsm-mount-context", "VALUE"),
        ("exec --preserve-fds x c1", 'invalid value "x" for flag -preserve-fds: parse error', "decimal"),
        ("state", '"state" requires exactly 1 argument(s), got 0', "usage: pyrunc state <container-id>"),
    ],
)
def test_incorrect_usage(argv: str, message: str, hint: str, capfd: Captured) -> None:
    """A bad argv is answered as runc does: the help on stdout, the error on stderr, status 1."""
    status, out, err = run(capfd, *argv.split())
    lines = err.splitlines()
    assert status == 1
    assert out.startswith(f"Incorrect Usage. {message}\n\nNAME:\n   pyrunc")
    assert lines[0].endswith(f": {message}")
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize("argv", ["", "help", "h", "--help", "-h", "--help create"])
def test_help(argv: str, capfd: Captured) -> None:
    """The program's own page names all commands that work."""
    status, out, err = run(capfd, *argv.split())
    assert (status, err) == (0, "")
    for name in options.COMMANDS:
        assert f"\n   {name} " in out, name


@pytest.mark.parametrize("name", sorted(options.COMMANDS))
def test_help_of_a_command(name: str, capfd: Captured) -> None:
    """--help, help NAME and h NAME show one page, with every option that is meant to be seen."""
    pages = {run(capfd, *argv) for argv in ([name, "--help"], ["help", name], ["h", name], [name, "-h"])}
    assert len(pages) == 1
    status, out, err = pages.pop()
    assert (status, err) == (0, "")
    for option in options.COMMANDS[name].options:
        assert (f"--{option[0]}" in out) == bool(option[3])


def test_help_pages_of_all_commands_fit_a_terminal() -> None:
    """No line of a help page is over 120 wide."""
    for name in ("", *options.COMMANDS):
        assert max(len(line) for line in help_pages.page(name).splitlines()) <= 120, name


def test_state(runtime: _FakeRuntime, capfd: Captured) -> None:
    """Two spaces of indentation, no newline at the end, the runtime's order of keys."""
    status, out, err = run(capfd, "--root", "/r", "state", "c1")
    assert (status, err) == (0, "")
    assert out == json.dumps(STATE, indent=2)


def test_list(runtime: _FakeRuntime, capfd: Captured, tmp_path: pathlib.Path) -> None:
    """Table, JSON on one line, ids only; `null` for none."""
    root = ["--root", str(tmp_path)]
    assert run(capfd, *root, "list", "-f", "json") == (0, "null\n", "")
    assert run(capfd, *root, "list", "-q") == (0, "", "")
    assert run(capfd, *root, "list")[1].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    runtime.problems = ["container 'x' is left out: broken"]
    assert run(capfd, *root, "list", "-q") == (0, "", "container 'x' is left out: broken\n")
    runtime.problems = []
    runtime.documents = [STATE, {**STATE, "id": "a-long-container-id"}]
    assert run(capfd, *root, "list", "--quiet") == (0, "c1\na-long-container-id\n", "")
    line = run(capfd, *root, "list", "--format=json")[1]
    assert json.loads(line) == runtime.documents
    assert line.startswith('[{"ociVersion":"1.3.0","id":"c1",')
    assert line.index("\n") == len(line) - 1
    assert run(capfd, *root, "list")[1].splitlines() == [
        "ID                    PID         STATUS      BUNDLE      CREATED                  OWNER",
        "c1                    7           running     /b          2026-01-02T03:04:05.6Z   root",
        "a-long-container-id   7           running     /b          2026-01-02T03:04:05.6Z   root",
    ]


def test_list_without_a_default_root(capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """No container was ever made: that is no error."""
    monkeypatch.setattr(context, "default_root", lambda: "/nonexistent/pyrunc")
    assert run(capfd, "list", "--format", "json") == (0, "null\n", "")


def test_ps(runtime: _FakeRuntime, capfd: Captured) -> None:
    """json has the pids only; table is what ps(1) says about them, with its own options."""
    assert run(capfd, "--root", "/r", "ps", "--format", "json", "c1") == (0, f"[{os.getpid()}]\n", "")
    heading, line = run(capfd, "--root", "/r", "ps", "c1")[1].splitlines()
    assert heading.split()[:3] == ["UID", "PID", "PPID"]
    assert line.split()[1] == str(os.getpid())
    status, out, err = run(capfd, "--root", "/r", "ps", "c1", "-A", "-o", "args,pid")
    assert (status, err) == (0, "")
    assert [words[-1] for words in map(str.split, out.splitlines())] == ["PID", str(os.getpid())]
    status, out, err = run(capfd, "--root", "/r", "ps", "c1", "-A", "-o", "args,pid,comm")
    assert (status, out) == (1, "")
    assert "unable to parse pid" in err
    status, out, err = run(capfd, "--root", "/r", "ps", "c1", "-A", "-o", "args")
    assert (status, out) == (1, "")
    assert "couldn't find PID field in ps output" in err
    status, out, err = run(capfd, "--root", "/r", "ps", "c1", "--bogus")
    assert (status, out) == (1, "")
    assert err.startswith("pyrunc: ps: ps: exit status 1: ")


def test_unexpected_exception(runtime: _FakeRuntime, capfd: Captured) -> None:
    """A mistake of ours is one line, and a traceback with --debug."""
    runtime.error = RuntimeError("a\nb")
    status, _, err = run(capfd, "--root", "/r", "state", "c1")
    assert status == 1
    assert err.startswith("pyrunc: state: unexpected RuntimeError: a\\nb\nhint: please report this")
    assert err.count("\n") == 2
    _, _, err = run(capfd, "--debug", "--root", "/r", "state", "c1")
    assert "Traceback (most recent call last)" in err
    assert "pyrunc: state: unexpected RuntimeError: a\\nb\n" in err


def test_unexpected_os_error(runtime: _FakeRuntime, capfd: Captured) -> None:
    """Even then the kernel's answer is in the words that engines look for."""
    runtime.error = PermissionError(13, "Permission denied", "/x")
    status, _, err = run(capfd, "--root", "/r", "exec", "c1", "ls")
    assert status == 255
    assert err.startswith("pyrunc: exec: unexpected PermissionError '/x': permission denied\n")


def test_interrupt(runtime: _FakeRuntime, capfd: Captured) -> None:
    """^C ends quietly, with the status a shell expects."""
    runtime.error = KeyboardInterrupt()
    assert run(capfd, "--root", "/r", "run", "c1") == (130, "", "")


def test_broken_pipe() -> None:
    """Nobody reads our output: no message, the status of SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pyrunc", "help"], stdout=write, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_standard_output_that_takes_nothing() -> None:
    """A full disk, a terminal that was hung up: words, and nothing to report."""
    argv = [sys.executable, "-m", "pyrunc", "features"]
    with open("/dev/full", "wb") as stream:
        done = subprocess.run(argv, stdout=stream, stderr=subprocess.PIPE, text=True, cwd="/", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "pyrunc: features: write 'standard output': no space left on device\n",
    )
    # With nobody to tell.
    with open("/dev/full", "wb") as stream:
        assert subprocess.call([*argv, "--no-such"], stdout=stream, stderr=stream, cwd="/") == 1


def test_kernel_error_in_the_log_is_lower_case(runtime: _FakeRuntime, capfd: Captured) -> None:
    """Engines search for Go's spelling of an errno."""
    runtime.error = KernelError("open", 2, "/x")
    assert (
        run(capfd, "--root", "/r", "start", "c1")[2]
        == "pyrunc: start: open '/x': no such file or directory\n"
    )


def test_create_makes_the_default_root(runtime: _FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the verbs that need one do."""
    made: list[str] = []
    monkeypatch.setattr(context, "default_root", lambda: "/x/pyrunc")
    monkeypatch.setattr("pyrunc.cli.verbs.make_default_root", made.append)
    for verb in ("state", "delete", "start"):
        cli.main([verb, "c1"])
    assert made == []
    cli.main(["create", "c1"])
    cli.main(["run", "c1"])
    cli.main(["--root", "/r", "run", "c1"])
    assert made == ["/x/pyrunc"] * 2

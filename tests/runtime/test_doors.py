"""The light verbs on real containers: `pyrunc` without Python, `python3 -m pyrunc` with it, and nobody can tell.

tests/unit/test_cli_doors.py holds what needs no container: argv, logs, unknown ids.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc import requests, runtime
from pyrunc.cli import options
from pyrunc.errors import ContainerError
from pyrunc.plan import numbers, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

PYTHON_DOOR = [support.PYTHON, "-I", "-m", "pyrunc"]
DOORS = {"command": [support.PYRUNC], "python": PYTHON_DOOR}
_VARIES = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "TIME"),
    (re.compile(r'"pid": [1-9]\d*'), '"pid": PID'),
]


class Story:
    """What one container is asked through one door; `told` is what it answered, without what must differ."""

    def __init__(self, one: Container, door: Sequence[str]) -> None:
        self.one = one
        self.told: list[tuple[str, int, str, str, str]] = []
        # Made by the same command, whichever the door: the verbs under test are the light ones.
        self.command = [*one.command[: one.command.index(support.PYRUNC)], *door, "--root", one.root]
        self.log = os.path.join(os.path.dirname(one.root), "log")

    def ask(self, *argv: str, log: str = "") -> support.Result:
        """Call a verb and keep the answer."""
        options = ["--log", self.log, "--log-format", log] if log else []
        result = support.run(*self.command, *options, *argv)
        written = ""
        if os.path.exists(self.log):
            with open(self.log, encoding="utf-8") as stream:
                written = stream.read()
            os.unlink(self.log)
        out, err, written = (self._common(text) for text in (result.out, result.err, written))
        self.told.append((" ".join(argv), result.status, out, err, written))
        return result

    def _common(self, text: str) -> str:
        for pattern, word in _VARIES:
            text = pattern.sub(word, text)
        return text


def compare(
    tell: Callable[[Story], None], prepare: Callable[[], Container]
) -> list[tuple[str, int, str, str, str]]:
    """Tell the story once through each door, with a container of the same id, and compare; what was told."""
    stories = []
    for door in DOORS.values():
        one = prepare()
        story = Story(one, door)
        tell(story)
        one.clean_up()
        stories.append(story.told)
    assert stories[0] == stories[1]
    return stories[0]


def test_a_whole_life(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """Every light verb in every state, and its refusals."""
    what = bundle("busybox", "sleep", "600")

    def tell(story: Story) -> None:
        one = story.one
        one.create().ok()
        pid = one.pid
        story.ask("state", one.id)
        story.ask("kill", one.id, "0")
        story.ask("start", one.id)
        story.ask("state", one.id)
        story.ask("start", one.id, log="json")
        story.ask("delete", one.id)
        story.ask("delete", one.id, log="text")
        story.ask("delete", one.id, log="json")
        story.ask("kill", "--all", one.id, "SIGCONT")
        one.pyrunc("pause", one.id).ok()
        story.ask("state", one.id)
        story.ask("delete", one.id)
        story.ask("start", one.id)
        one.pyrunc("resume", one.id).ok()
        story.ask("kill", one.id, "kill")
        assert support.wait_for_exit(pid) == -9
        story.ask("state", one.id)
        story.ask("start", one.id)
        story.ask("kill", one.id, "0")
        story.ask("kill", one.id, "9", log="json")
        story.ask("kill", "-a", one.id, "9")
        story.ask("delete", one.id)
        story.ask("delete", one.id)
        story.ask("state", one.id)

    name = f"{support.ID_PREFIX}door-{view}"
    told = compare(tell, lambda: container(what, name=name, view=view))
    statuses = [status for _, status, _, _, _ in told]
    assert statuses == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert [text.split('"status": "')[1].split('"')[0] for _, _, text, _, _ in told if text] == [
        "created",
        "running",
        "paused",
        "stopped",
    ]


def test_force(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """delete of a created, delete --force of a running and of a paused container."""
    what = bundle("busybox", "sleep", "600")

    def tell(story: Story) -> None:
        one = story.one
        one.create().ok()
        story.ask("delete", one.id)
        one.wait()
        for pause in (False, True):
            one.up()
            if pause:
                one.pyrunc("pause", one.id).ok()
            story.ask("delete", "--force", one.id)
            one.wait()
            assert support.find_cgroups(f"/{one.id}") == []

    told = compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}force-{view}", view=view))
    assert [row[1:] for row in told] == [(0, "", "", "")] * 3


def test_a_shared_pid_namespace(container: ContainerFactory, bundle: BundleFactory, view: str) -> None:
    """SIGKILL of init takes the others along, also when init is dead already."""
    what = bundle("busybox", "sh", "-c", "sleep 600 & echo child $!; exec sleep 600").without_namespace(
        "pid"
    )

    def tell(story: Story) -> None:
        one = story.one
        one.up()
        child = int(one.expect("child").split()[1])
        os.kill(one.pid, 9)
        one.wait()
        story.ask("kill", one.id, "TERM")
        story.ask("kill", one.id, "KILL")
        support.wait_until(lambda: support.process_gone(child), "the other process's end")
        story.ask("delete", one.id)

    told = compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}pid-{view}", view=view))
    assert [row[1] for row in told] == [1, 0, 0]


def without_interpreter(what: Bundle) -> Bundle:
    """The bundle with a program that is found and cannot be run."""
    with open(os.path.join(what.rootfs, "script"), "w", encoding="ascii") as stream:
        stream.write("#!/no/such/interpreter\n")
    os.chmod(stream.name, 0o755)
    return what


def test_what_init_says_instead_of_the_program(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The record goes from C to Python's words; the container has stopped."""
    what = without_interpreter(bundle("busybox", "/script"))

    def tell(story: Story) -> None:
        for log in ("", "json"):
            story.one.create().ok()
            story.ask("start", story.one.id, log=log)
            story.ask("state", story.one.id)
            story.ask("delete", story.one.id)

    told = compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}door-exec"))
    assert [row[1] for row in told] == [1, 0, 0] * 2
    assert 'exec: "/script": no such file or directory' in told[0][3]


def test_what_init_says_is_handed_on_in_memory(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """From C to Python: everybody may read the arguments of a process, and they may be too long."""
    strace = support.needs_program("strace")
    one = container(without_interpreter(bundle("busybox", "/script")))
    one.create().ok()
    trace = os.path.join(scratch, "trace")
    command = [strace, "-qq", "-s", "4096", "-e", "trace=execve", "-o", trace, *one.command, "start", one.id]
    done = support.run(*command, env={**os.environ, "PYRUNC_SNAPSHOT": "0"})
    done.fails('exec: "/script": no such file or directory')
    with open(trace, encoding="utf-8") as stream:
        (call,) = [line for line in stream if "boot.py" in line]
    assert re.search(r'"--start-record", "[0-9]{1,9}", "--"', call), call


@pytest.mark.parametrize("step", ["hook", "execve", "pivot_root"])
def test_a_process_of_the_container_may_say_anything(
    container: ContainerFactory, bundle: BundleFactory, step: str
) -> None:
    """Whoever has taken init's place may write to exec.fifo: an op that there is not is taken for the last."""
    one = container(bundle("busybox", "true"))
    one.create().ok()
    words = (
        numbers.SYNC["ERROR"],
        7000,
        7000,
        numbers.STEPS.index(step),
        0,
        5 << numbers.SYNC_FLAG_HOOK_SHIFT,
    )
    record = b"".join(word.to_bytes(4, wire.ORDER) for word in words).ljust(numbers.SYNC_MESSAGE_SIZE, b"\0")
    with pytest.raises(ContainerError) as caught:
        runtime.start(requests.Context(one.root), one.id, record)
    assert caught.value.path == "$.process.args"
    assert one.status() == "created"


def test_hooks(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Hooks that concern start and delete bring Python in, through either door."""
    trace = os.path.join(scratch, "trace")

    def hook(kind: str) -> dict[str, support.Json]:
        return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} >>{trace}"]}

    what = bundle("busybox", "sleep", "600")
    what.spec["hooks"] = {"poststart": [hook("poststart")], "poststop": [hook("poststop")]}
    what.write()

    def tell(story: Story) -> None:
        story.one.create().ok()
        story.ask("start", story.one.id)
        story.ask("delete", "-f", story.one.id)
        with open(trace, encoding="ascii") as stream:
            assert stream.read() == "poststart\npoststop\n"
        os.unlink(trace)

    compare(tell, lambda: container(what, name=f"{support.ID_PREFIX}door-hooks"))


def test_the_light_verbs_need_no_python(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """A copy of the command alone, which could not find Python, leads through a whole life."""
    alone = os.path.join(scratch, "bin", "pyrunc")
    os.mkdir(os.path.dirname(alone))
    shutil.copy(support.PYRUNC, alone)
    one = container(bundle("busybox", "sleep", "600"))
    one.create().ok()
    for argv, status in (
        (["state", one.id], 0),
        (["start", one.id], 0),
        (["start", one.id], 1),
        (["delete", one.id], 1),
        (["kill", "--all", one.id, "KILL"], 0),
        (["delete", "--force", one.id], 0),
        (["state", one.id], 1),
        (["delete", "--force", one.id], 0),
    ):
        result = support.run(alone, "--root", one.root, *argv, env={})
        assert result.status == status, result
    missing = "cannot find lib/python3*/site-packages/pyrunc/boot.py"
    support.run(alone, "--root", one.root, "list", env={}).fails(missing, status=127)


def test_nobody_else_becomes_our_child(container: ContainerFactory, bundle: BundleFactory) -> None:
    """The child that primes the cgroup lock is collected; an engine's shim adopts init and nothing else."""
    before = set(support.children())
    one = container(bundle("busybox", "sleep", "600"))
    one.create().ok()
    assert set(support.children()) - before == {one.pid}


@pytest.mark.parametrize("runtime_dir", ["set", "empty", None])
@pytest.mark.parametrize("user", ["root", "other", "", None])
def test_the_default_root_is_the_same(scratch: str, user: str | None, runtime_dir: str | None) -> None:
    """$XDG_RUNTIME_DIR counts for whoever is not the machine's root, and in a user namespace."""
    support.needs_program("unshare")
    directory = os.path.join(scratch, "pyrunc", "c1")
    os.makedirs(directory)
    with open(os.path.join(directory, "state"), "wb") as stream:
        stream.write(b"damage")
    os.chmod(scratch, 0o755)
    os.chmod(os.path.dirname(directory), 0o755)
    environment = {"PATH": os.environ["PATH"]}
    if runtime_dir is not None:
        environment["XDG_RUNTIME_DIR"] = scratch if runtime_dir == "set" else ""
    if user is not None:
        environment["USER"] = user
    for prefix in ([], ["unshare", "-U", "-r"], ["unshare", "-U", "--map-user=5"]):
        answers = [support.run(*prefix, *door, "state", "c1", env=environment) for door in DOORS.values()]
        assert [answers[0].status, answers[0].err] == [answers[1].status, answers[1].err]
        found = runtime_dir == "set" and bool(prefix) and (user != "root" or "--map-user=5" in prefix)
        answers[0].fails("damage" if found else "does not exist")


def test_pyrunc_runs_without_an_environment(container: ContainerFactory, bundle: BundleFactory) -> None:
    """podman gives kill, state and delete nothing but XDG_RUNTIME_DIR: the interpreter is not looked up by PATH."""
    one = container(bundle("busybox", "sleep", "600"), command=["/usr/bin/env", "-i", support.PYRUNC])
    one.up()
    one.pyrunc("list", "--format", "json").ok()
    one.pyrunc("exec", one.id, "true").ok()
    one.delete("--force").ok()
    one.wait()


# Where an installation may put its parts, below a prefix: (package, and whether bin/python3 is beside the command).
LAYOUTS = {
    "virtual environment": ("lib/{python}/site-packages", True),
    "Debian package": ("lib/python3/dist-packages", True),
    "pip on Debian as root": ("local/lib/{python}/dist-packages", True),
    "pip as a user": ("lib/{python}/site-packages", False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_command_finds_its_python(scratch: str, layout: str) -> None:
    """From its own place, in each of the ways to install it, however it is called and with an empty environment."""
    place, beside = LAYOUTS[layout]
    interpreter = os.path.realpath(support.PYTHON)
    python = os.path.basename(interpreter)
    support.needs(beside or os.path.exists(f"/usr/bin/{python}"), "this Python in /usr/bin")
    prefix, other = os.path.join(scratch, "prefix"), os.path.join(scratch, "other", "bin")
    directory = os.path.join(prefix, place.format(python=python))
    for path in (os.path.join(prefix, "bin"), directory, other):
        os.makedirs(path)
    shutil.copytree(support.PACKAGE, os.path.join(directory, "pyrunc"))
    command = shutil.copy(support.PYRUNC, os.path.join(prefix, "bin"))
    if beside:
        os.symlink(interpreter, os.path.join(prefix, "bin", "python3"))
    os.symlink(command, os.path.join(scratch, "link"))
    os.symlink("../prefix/bin/pyrunc", os.path.join(scratch, "other", "relative"))
    calls = {
        "its path": (command, "/"),
        "a link": (os.path.join(scratch, "link"), "/"),
        "a relative link": (os.path.join(scratch, "other", "relative"), "/"),
        "a relative path": ("bin/pyrunc", prefix),
        "a relative path from within": ("./pyrunc", os.path.join(prefix, "bin")),
        "a path with dots": ("../prefix/bin/../bin/pyrunc", prefix),
        "the current directory": ("./link", scratch),
    }
    for how, (path, directory) in calls.items():
        result = support.run("sh", "-c", f'cd "{directory}"; exec env -i "{path}" help', env={})
        assert "create a container" in result.ok().out, how
    copy = shutil.copy(command, other)
    result = support.run(copy, "help", env={}).fails("cannot find lib/python3", status=127)
    assert "hint: install pyrunc with pip; a copy of the program alone does not work" in result.err


@pytest.mark.parametrize("shared", ["true", "false", None])
def test_a_virtual_environment_may_use_the_systems_packages(scratch: str, shared: str | None) -> None:
    """As pyvenv.cfg says, which site would have read; without that file it is no virtual environment."""
    site_packages = os.path.join(scratch, "lib", "python3", "site-packages")
    if shared is not None:
        with open(os.path.join(scratch, "pyvenv.cfg"), "w", encoding="ascii") as stream:
            stream.write(f"home = /usr/bin\ninclude-system-site-packages = {shared}\n")
    code = (
        f"import sys; sys.path.append({os.path.dirname(support.PACKAGE)!r})\n"
        "from pyrunc.startup import entry as launched\n"
        f"before = len(sys.path); sys.meta_path.append(launched._LateFinder({site_packages!r}))\n"
        "try:\n    import there_is_no_such_module\nexcept ImportError:\n    print(len(sys.path) > before)"
    )
    result = support.run(os.path.realpath(support.PYTHON), "-I", "-S", "-c", code).ok()
    assert result.out == f"{shared != 'false'}\n"


def test_fifty_at_once(container: ContainerFactory, bundle: BundleFactory) -> None:
    """Fifty creates in parallel, then as many deletes: each succeeds, and the fixture finds nothing left."""
    what = bundle("busybox", "sleep", "600")
    many = [container(what) for _ in range(50)]
    with ThreadPoolExecutor(50) as pool:
        for result in pool.map(lambda one: one.create(), many):
            assert result.ok().err == ""
        assert set(pool.map(lambda one: one.status(), many)) == {"created"}
        for result in pool.map(lambda one: one.delete("--force"), many):
            assert result.ok().err == ""
    assert support.find_cgroups(f"/{support.ID_PREFIX}") == []
    assert os.listdir(many[0].root) == []


# All that a Python door has to start: from a snapshot, the ordinary way, and as a module.
PYTHON_DOORS = {
    "warm": ["/usr/bin/env", "PYRUNC_SNAPSHOT=1", support.PYRUNC],
    "cold": ["/usr/bin/env", "PYRUNC_SNAPSHOT=0", support.PYRUNC],
    "module": PYTHON_DOOR,
}


def _life_of_all_verbs(story: Story, bundle_path: str, scratch: str) -> None:
    one = story.one
    process = os.path.join(scratch, "process.json")
    with open(process, "w", encoding="ascii") as stream:
        json.dump(
            {"args": ["sh", "-c", "echo $A; id -u; exit 7"], "cwd": "/", "env": ["A=b"], "user": {}}, stream
        )
    added = os.path.join(scratch, "mounts.json")
    with open(added, "w", encoding="ascii") as stream:
        json.dump([{"destination": "/added", "type": "tmpfs", "source": "tmpfs"}], stream)
    # Its own way to call create keeps our pipes out of the container.
    one.command = story.command
    one.pid_file = os.path.join(scratch, "pid")
    result = one.create()
    story.told.append(("create", result.status, result.out, result.err, ""))
    story.ask("state", one.id)
    story.ask("exec", one.id, "echo", "early")
    story.ask("start", one.id)
    story.ask("exec", "--process", process, one.id)
    story.ask("exec", one.id, "nothing-of-that-name", log="json")
    story.ask("exec", "--cwd", "/nowhere", one.id, "true")
    story.ask("list", "--quiet")
    story.ask("mounts", one.id)
    for what in ("add", "remove", "remove"):
        story.ask("mounts", what, one.id, added)
    story.ask("ps", one.id, "-o", "comm")
    story.ask("pause", one.id)
    story.ask("pause", one.id)
    story.ask("resume", one.id)
    story.ask("update", "--pids-limit", "77", one.id)
    story.ask("update", "--pids-limit", "no number", one.id)
    story.ask("explain", "--bundle", bundle_path)
    story.ask("features")
    story.ask("spec", "--bundle", scratch)
    story.ask("spec", "--bundle", scratch, log="text")
    story.ask("version")
    story.ask("info")
    story.ask("completion", "bash")
    story.ask("help", "create")
    story.ask("checkpoint", "--image-path", "/dev/null", "nobody")
    story.ask("restore", "--bundle", bundle_path, "--image-path", "/nowhere", "another")
    story.ask("wait", "nobody")
    story.ask("no-such-verb")
    story.ask("create", "--bundle", bundle_path, one.id)
    story.ask("run", "--bundle", "/nowhere", "another")
    story.ask("kill", one.id, "KILL")
    one.wait()
    story.ask("exec", one.id, "true")
    story.ask("events", "--stats", one.id)
    story.ask("delete", one.id)


@pytest.mark.slow
def test_every_verb_through_every_door(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, view: str
) -> None:
    """Output, errors, log, exit status, and the files that are there afterwards."""
    told, files = [], []
    sleeping = bundle("busybox", "sleep", "600")
    ending = bundle("busybox", "sh", "-c", "echo out; echo err >&2; exit 9")
    for number, door in enumerate(PYTHON_DOORS.values()):
        folder = os.path.join(scratch, f"door{number}")
        os.mkdir(folder)
        one = container(sleeping, name=f"{support.ID_PREFIX}all-{view}", view=view)
        story = Story(one, door)
        _life_of_all_verbs(story, sleeping.path, folder)
        story.ask("run", "--bundle", ending.path, one.id)
        told.append(
            [
                [text.replace(folder, "FOLDER") if isinstance(text, str) else text for text in line]
                for line in story.told
            ]
        )
        files.append(
            sorted(
                os.path.relpath(os.path.join(at, name), folder)
                for at, _, names in os.walk(folder)
                for name in names
            )
        )
        assert os.listdir(one.root) == []
        one.clean_up()
    assert told[0] == told[1] == told[2]
    assert {str(line[0]).split(" ")[0] for line in told[0]} >= set(options.COMMANDS)
    assert files[0] == files[1] == files[2] == ["config.json", "mounts.json", "pid", "process.json"]


@pytest.mark.slow
def test_create_and_delete_of_one_id_race(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """200 times each: whoever comes too late is told so in one of these ways, and nothing is left behind."""
    what = bundle("busybox", "sleep", "600")
    one = container(what)
    words: set[str] = set()

    def create() -> None:
        argv = [*one.command, "create", "--bundle", what.path, one.id]
        # A file, as the container keeps what it inherits open.
        with open("/dev/null", "r+b") as null, TemporaryFile("w+", dir=scratch) as errors:
            subprocess.run(argv, stdin=null, stdout=null, stderr=errors, check=False, timeout=60)
            errors.seek(0)
            words.update(errors.read().splitlines())

    def delete(*options: str) -> None:
        words.update(one.delete(*options).err.splitlines())

    verbs = [create, create, delete, lambda: delete("--force")]
    with ThreadPoolExecutor(len(verbs)) as pool:
        for _ in range(100):
            for future in [pool.submit(verb) for verb in verbs]:
                future.result(timeout=120)
    one.delete("--force").ok()
    assert {line for line in words if not line.startswith("hint: ")} <= {
        "pyrunc: create: container with given ID already exists",
        "pyrunc: delete: container does not exist",
    }
    assert support.find_cgroups(f"/{one.id}") == []
    assert os.listdir(one.root) == []

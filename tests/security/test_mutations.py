"""Documents, options and environments that are almost right: refused in words, or done; never a surprise of ours.

Whatever comes: no traceback, no "unexpected", one error that names its place, in time, and what is refused leaves
nothing. `PYRUNC_ATTACK_ROUNDS=500 ./dev test tests/security/test_mutations.py` goes on for long.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import rounds
import support
from machines import patience
from mutations import Json, Source, dumps
from pyrunc import requests, runtime
from pyrunc.cli import options
from pyrunc.errors import ConfigError, PyruncError
from pyrunc.plan import wire
from pyrunc.reports import explain

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from containers import Bundle, BundleFactory, Container, ContainerFactory

pytestmark = pytest.mark.root

CORPUS = os.path.join(support.PROJECT, "tests/corpus")
# Errors of a document as a whole have no path in it.
WHOLE = ("invalid JSON in ", "config cannot be null", "config.json is larger than ")
IN_PROCESS_SECONDS, COMMAND_SECONDS = 2.0, 10.0


def corpus(kind: str) -> list[Json]:
    """The good documents of one kind: "" config.json, ".process", ".resources"."""
    found: list[Json] = []
    for path in sorted(glob.glob(f"{CORPUS}/good/*.json") + glob.glob(f"{CORPUS}/engines/*.json")):
        if os.path.basename(path).removesuffix(".json").partition(".")[1:] == (kind[:1], kind[1:]):
            with open(path, encoding="utf-8") as stream:
                found.append(json.load(stream))
    assert found, kind
    return found


# --- In process -----------------------------------------------------------------------------------------------------


def exact_u32(value: int) -> bytes:
    """As wire's, which cuts off what does not fit: nothing may come that far that does not."""
    assert -(1 << 31) <= value < 1 << 32, value
    return (value & 0xFFFFFFFF).to_bytes(4, wire.ORDER)


def accepted(bundle: str) -> bool:
    """Whether the configuration makes a plan, to its last byte. Raises nothing but what nobody foresaw."""
    try:
        plan = runtime.explain(requests.Context(root=f"{bundle}/root"), bundle, requests.CreateOptions())
    except PyruncError as error:
        message = str(error)
        assert isinstance(error, ConfigError), repr(error)
        assert error.message
        assert error.path or message.startswith(WHOLE), message
        return False
    explain.document(plan)
    assert explain.text(plan)
    return True


@pytest.mark.slow
def test_configurations(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `explain`: reading, form, rules, plan, bytes of the plan."""
    monkeypatch.setattr(wire, "_u32", exact_u32)
    bundle = str(tmp_path)
    os.mkdir(f"{bundle}/rootfs")
    source = Source(rounds.chance(), corpus(""))
    good = 0
    for turn in rounds.during(3):
        data = source.next()
        with open(f"{bundle}/config.json", "wb") as stream:
            stream.write(data)
        began = time.monotonic()
        try:
            good += accepted(bundle)
        except BaseException as error:
            error.add_note(f"round {turn}: {data[:4000]!r}")
            raise
        assert time.monotonic() - began < patience(IN_PROCESS_SECONDS), data[:4000]
    assert good, "no mutation is harmless: that cannot be"


# --- For real -------------------------------------------------------------------------------------------------------

# The host as it is, but nothing of it can be written: what a configuration names by chance is often the host's. The
# default root is another's, so that nobody's containers are found.
_GLASS = """
scratch=$1
mount --bind "$scratch" "$scratch"
mkdir -p /run/pyrunc && mount -t tmpfs -o mode=711 tmpfs /run/pyrunc
for point in $(awk '{print $5}' /proc/self/mountinfo | sort -u); do
    case $point in
    "$scratch"*|/proc*|/sys*|/run/pyrunc|/dev/pts|/dev/mqueue) ;;
    *) mount -o remount,bind,ro "$point" 2>/dev/null || : ;;
    esac
done
echo ready
exec sleep 86400
"""


@pytest.fixture
def glass(scratch: str) -> Iterator[list[str]]:
    """Put before a command: only `scratch` can be written. Its directory is the root as it is seen in there."""
    holder = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", _GLASS, "sh", scratch],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield [support.needs_program("nsenter"), "-t", str(holder.pid), "-m", support.PYRUNC]
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def assert_printable(output: str) -> None:
    """Nothing of a document reaches a terminal as a command."""
    assert not [char for char in output if not char.isprintable() and char not in "\n\t"], repr(output)


class Caller:
    """Runs commands of one container and judges them."""

    def __init__(self, one: Container, scratch: str) -> None:
        self.one = one
        self.output = os.path.join(scratch, "output")
        self.known = support.children()

    def call(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """(exit status, all output) of a command that has ended in time, with nothing that is ours to mend.

        Its streams are a pipe and a file, never a device: a container may be given them.
        """
        with open(self.output, "wb+") as stream:
            child = subprocess.Popen(
                [*self.one.command, *words], stdin=subprocess.PIPE, stdout=stream, stderr=stream, env=env
            )
            assert child.stdin is not None
            child.stdin.close()
            try:
                status = child.wait(patience(COMMAND_SECONDS))
            finally:
                child.kill()
                child.wait()
            self.reap()
            stream.seek(0)
            output = stream.read().decode("utf-8", "surrogateescape")
        assert status >= 0, f"killed by signal {-status}: {output}"
        for bad in ("unexpected ", "Traceback", "report this", "Sanitizer"):
            assert bad not in output, output
        return status, output

    def reap(self) -> None:
        """Collect what `exec --detach` left to us: the init of a pid namespace waits for those in it."""
        for pid in support.children():
            if pid not in self.known:
                os.waitpid(pid, os.WNOHANG)

    def create(self) -> int:
        """create, and delete by force after it; both leave nothing."""
        known = support.children()
        status, output = self.call("create", "--bundle", self.one.bundle.path, self.one.id)
        assert_printable(output)
        if status != 0:
            assert output.startswith("pyrunc: create: "), output
            assert [pid for pid in support.children() if pid not in known] == []
            assert not os.path.lexists(os.path.join(self.one.root, self.one.id))
        else:
            self.call("delete", "--force", self.one.id)
            for pid in support.children():
                if pid not in known:
                    support.wait_for_exit(pid)
        return status


def attacked(
    source: Source, seconds: float, case: Callable[[bytes], object], write: Callable[[], bytes] | None = None
) -> None:
    """Rounds of `case` with a document each; a failure is told with the document."""
    for turn in rounds.during(seconds):
        data = write() if write else source.next()
        try:
            case(data)
        except BaseException as error:
            error.add_note(f"round {turn}: {data[:4000]!r}")
            raise


def enriched(box: Bundle) -> support.Spec:
    """The bundle's configuration with much of what this host accepts."""
    process = box.mapping("process")
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}]
    process["oomScoreAdj"] = 100
    process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 1}
    process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 4}
    process["execCPUAffinity"] = {"initial": "0", "final": "0"}
    process["user"] = {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5, 6]}
    box.spec["hostname"] = "name"
    box.spec["domainname"] = "domain"
    box.spec["annotations"] = {"a.b": "c"}
    hook: support.Json = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}
    box.spec["hooks"] = {
        kind: [hook] for kind in ("prestart", "createRuntime", "createContainer", "poststop")
    }
    box.mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "size=1m", "mode=1777", "tmpcopyup")
    box.mount("/mnt", "bind", box.path, "rbind", "ro", "rprivate")
    linux = box.mapping("linux")
    box.namespace("uts").namespace("ipc").namespace("network")
    linux["sysctl"] = {"kernel.msgmax": "4096", "net.ipv4.ip_forward": "1"}
    linux["devices"] = [
        {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}
    ]
    linux["maskedPaths"] = ["/proc/kcore", "/sys/firmware"]
    linux["readonlyPaths"] = ["/proc/sys", "/proc/bus"]
    linux["rootfsPropagation"] = "private"
    linux["personality"] = {"domain": "LINUX"}
    linux["resources"] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "access": "rw"},
        ],
        "memory": {"limit": 100 << 20, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
        "pids": {"limit": 50},
    }
    linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {
                "names": ["ptrace", "mknodat"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 1,
                "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    return box.spec


@pytest.mark.slow
def test_create(container: ContainerFactory, bundle: BundleFactory, scratch: str, glass: list[str]) -> None:
    """A container of every configuration that is taken; of every other one, nothing."""
    box = bundle("busybox", "sleep", "600")
    good = enriched(box)
    caller = Caller(container(box, command=glass), scratch)
    assert caller.create() == 0, "the configuration to begin with"
    source = Source(rounds.chance(), [json.loads(json.dumps(good))])

    def case(data: bytes) -> None:
        with open(f"{box.path}/config.json", "wb") as stream:
            stream.write(data)
        caller.create()

    attacked(source, 4, case)


@pytest.fixture
def running(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, glass: list[str]
) -> Iterator[Caller]:
    """A container to try things on."""
    one = container(bundle("busybox", "sleep", "600"), command=glass).up()
    yield Caller(one, scratch)
    one.clean_up()  # while the glass is there


def refused_or_done(caller: Caller, *words: str, programs: bool = False) -> None:
    """The command succeeds, or says why not, and the container goes on. `programs` have any exit status."""
    status, output = caller.call(*words)
    if not programs:
        assert status in (0, 1), (status, output)
        assert_printable(output)
    if status in (1, 255):
        assert output or programs, status
    assert not support.process_gone(caller.one.pid), output


def written(scratch: str, data: bytes) -> str:
    """A file with this content."""
    path = os.path.join(scratch, "document")
    with open(path, "wb") as stream:
        stream.write(data)
    return path


@pytest.mark.slow
def test_exec_process(running: Caller, scratch: str) -> None:
    """--process FILE."""
    documents: list[Json] = [
        {
            "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0, "additionalGids": [5]},
            "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}], "noNewPrivileges": True,
            "execCPUAffinity": {"initial": "0", "final": "0"}, "scheduler": {"policy": "SCHED_OTHER"},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4}, "oomScoreAdj": 10, "terminal": False,
        }
    ]  # fmt: skip
    source = Source(rounds.chance(), documents + corpus(".process"))

    def case(data: bytes) -> None:
        refused_or_done(running, "exec", "--process", written(scratch, data), running.one.id, programs=True)

    attacked(source, 2, case)


@pytest.mark.slow
def test_update_resources(running: Caller, scratch: str) -> None:
    """--resources FILE, and the limits as options."""
    source = Source(rounds.chance(), corpus(".resources"))
    table = [row for row in options.COMMANDS["update"].options if row[2] != "switch"]

    def case(data: bytes) -> None:
        words = ["--resources", written(scratch, data)]
        if source.chance.random() < 0.5:
            words = []
            for row in source.chance.sample(table, source.chance.choice([1, 2])):
                words += [f"--{row[0]}", argument(source)]
        refused_or_done(running, "update", *words, running.one.id)

    attacked(source, 2, case)


@pytest.mark.slow
def test_mounts_add(running: Caller, scratch: str) -> None:
    """A document of mounts, added and removed again as far as that goes."""
    os.mkdir(f"{scratch}/source")
    documents: list[Json] = [
        [{"destination": "/tmp/a", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "nosuid"]}],
        [
            {
                "destination": "/tmp/b",
                "type": "bind",
                "source": f"{scratch}/source",
                "options": ["rbind", "ro"],
            }
        ],
        [{"destination": "/tmp/c", "type": "proc", "source": "proc", "options": ["nosuid"]}],
    ]
    source = Source(rounds.chance(), documents)

    def case(data: bytes) -> None:
        path = written(scratch, data)
        refused_or_done(running, "mounts", "add", running.one.id, path)
        refused_or_done(running, "mounts", "remove", running.one.id, path)

    attacked(source, 2, case)


# --- Options and environment ----------------------------------------------------------------------------------------

# What acts on one container and comes back by itself; `@` is its id.
VERBS: dict[str, Sequence[str]] = {
    "create": ["new"],
    "completion": ["bash"],
    "delete": ["new"],
    "events": ["--stats", "@"],
    "exec": ["@", "/bin/true"],
    "explain": [],
    "features": [],
    "help": ["create"],
    "info": [],
    "kill": ["@", "0"],
    "list": [],
    "ps": ["@"],
    "restore": ["new"],
    "resume": ["missing"],
    "spec": [],
    "start": ["missing"],
    "state": ["@"],
    "update": ["@"],
    "version": [],
    "wait": ["missing"],
}
ENVIRONMENT = (
    *(
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "XDG_RUNTIME_DIR",
        "HOME",
        "USER",
        "PATH",
        "TZ",
        "TMPDIR",
    ),
    *(
        "PYRUNC_SNAPSHOT",
        "PYRUNC_STRICT",
        "SYSTEMD_BUS_TIMEOUT",
        "DBUS_SYSTEM_BUS_ADDRESS",
        "LC_ALL",
        "LANG",
    ),
    *("LOCPATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONHASHSEED", "COLUMNS", "NO_COLOR", ""),
)


def argument(source: Source) -> str:
    """A value for an option: no null byte, which argv does not hold, and no device's name."""
    value = source.value(near=source.chance.choice(["1", "a", "/tmp/x", "0-1", "1:2", "json", "A=b", "5s"]))
    text = value if isinstance(value, str) else dumps(value)
    text = text.replace("\0", "").encode("utf-8", "replace").decode()[: source.chance.choice([50, 100_000])]
    return "" if text.startswith("/dev") else text


def command_line(source: Source, one: Container, scratch: str) -> list[str]:
    """Global options, a verb, its options, its arguments, a few of them wrong."""
    chance = source.chance
    words: list[str] = []
    for row in chance.sample(options.GLOBALS, chance.choice([0, 0, 1, 2])):
        if row[0] in ("log", "trace"):
            words += [f"--{row[0]}", f"{scratch}/{chance.choice(['log', 'no/log', '.', 'x' * 300])}"]
        elif row[0] not in ("root", "systemd-cgroup", "cgroup-manager", "debug"):
            words += option(row, source)
    verb = chance.choice([*VERBS])
    words.append(verb if chance.random() < 0.97 else argument(source))
    for row in chance.sample(options.COMMANDS[verb].options, min(len(options.COMMANDS[verb].options), 2)):
        if row[0] in ("pid-file", "bundle", "config", "image-path", "work-path", "process"):
            words += [f"--{row[0]}", f"{scratch}/{chance.choice(['x', 'x/y', '.', '', 'document'])}"]
        elif row[0] not in ("regex", "tty", "ignore-paused"):
            words += option(row, source)
    words += [one.id if word == "@" else word for word in VERBS[verb]]
    if chance.random() < 0.2:
        words.insert(chance.randrange(len(words) + 1), argument(source))
    return words


def option(row: options.Option, source: Source) -> list[str]:
    """One option in one of the ways to give it."""
    chance: random.Random = source.chance
    name = row[1] if row[1] and chance.random() < 0.3 else row[0]
    dashes = chance.choice(["-", "--"])
    if row[2] == "switch":
        return [dashes + name + chance.choice(["", "", "", "=true", "=false", f"={argument(source)[:50]}"])]
    if chance.random() < 0.5:
        return [f"{dashes}{name}={argument(source)}"]
    return [dashes + name] + ([argument(source)] if chance.random() < 0.95 else [])


@pytest.mark.slow
def test_command_lines(running: Caller, scratch: str) -> None:
    """Any options of any verb in any environment: both doors see it first."""
    source = Source(rounds.chance(), corpus(""))
    one = running.one
    tried: list[str] = []

    def write() -> bytes:
        chance = source.chance
        tried[:] = command_line(source, one, scratch)
        names = chance.sample(ENVIRONMENT, chance.choice([0, 1, 3]))
        # Files that these name are those of the host, which cannot be written here.
        environment = {name or "a b": argument(source).replace("\n", "")[:5000] for name in names}
        return json.dumps([tried, environment]).encode()

    def case(data: bytes) -> None:
        _, environment = json.loads(data)
        if "--root" in tried or any(word.startswith("-") and "root" in word for word in tried):
            return
        path = {"PATH": os.environ["PATH"]}
        status, output = running.call(*tried, env={**path, **environment})
        assert status in (0, 1, 2, 126, 127, 255), (status, output)
        if "exec" not in tried:
            assert_printable(output)
        assert not support.process_gone(one.pid)

    attacked(source, 3, case, write)

#!/usr/bin/env python3
"""Compare pyrunc with runc and crun: how long each command takes, and what a waiting container costs.

Hot: commands back to back. Cold: a quiet moment before each, as on a real host, where the first write to a
cgroup.procs waits for an RCU grace period. Rounds of the runtimes alternate, so that drift of the machine hits all.
Absolute numbers say little about another machine; the ratios do. Standard library only; needs root.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

HERE = os.path.dirname(os.path.realpath(__file__))
PR_SET_CHILD_SUBREAPER = 36
COMMANDS = ("create", "start", "state", "exec", "kill", "delete", "run")
LIFECYCLE = ("create", "start", "state", "kill", "delete")
QUIET = 0.3

# What /sys/fs/cgroup shows: crun refuses a host that has both kinds mounted in its own way.
_V1_CONTROLLERS = "cpu cpuacct cpuset memory devices freezer blkio pids"
VIEWS = {
    "host": "true",
    "v1": "d=$(mktemp -d /run/bench.XXXXXX); mount -t tmpfs -o mode=755 tmpfs $d; "
    f"for c in {_V1_CONTROLLERS}; do mkdir $d/$c; mount -t cgroup -o $c cgroup $d/$c; done; "
    "mkdir $d/systemd; mount -t cgroup -o none,name=systemd cgroup $d/systemd; "
    "umount -R /sys/fs/cgroup; mount --move $d /sys/fs/cgroup; rmdir $d; mount --make-rshared /",
    "v2": "umount -R /sys/fs/cgroup || umount -l /sys/fs/cgroup; "
    "mount -t cgroup2 none /sys/fs/cgroup; mount --make-rshared /",
}

Times = dict[str, list[float]]


def load_bundles() -> ModuleType:
    """bundles/make as a module."""
    loader = importlib.machinery.SourceFileLoader("bundles_make", os.path.join(HERE, "../bundles/make"))
    spec = importlib.util.spec_from_loader("bundles_make", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class CommandError(Exception):
    """A runtime failed."""


class Runtime:
    """One runtime under measurement: its program, its bundles' containers, and the times so far."""

    def __init__(self, name: str, program: str, scratch: str) -> None:
        self.name = name
        self.root = os.path.join(scratch, f"root-{name}")
        self.command = [program, "--root", self.root]
        self.pid_file = os.path.join(scratch, f"{name}.pid")
        self.errors = os.path.join(scratch, f"{name}.err")
        self.memory = os.path.join(scratch, f"{name}.rss")
        self.container = f"bench-{name}"
        self.hot: Times = {name: [] for name in COMMANDS}
        self.cold: Times = {name: [] for name in COMMANDS}
        self.waiting_kb: list[int] = []

    def timed(self, *words: str) -> float:
        """Run one command; milliseconds from before fork until its exit is known."""
        argv = [*self.command, *words]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, self.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        begin = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        took = (time.perf_counter() - begin) * 1000
        if status != 0:
            with open(self.errors, encoding="utf-8", errors="replace") as stream:
                raise CommandError(f"bench: {' '.join(argv)}: status {status}: {stream.read()}")
        return took

    def round(self, times: Times, bundles: dict[str, str], *, quiet: float) -> None:
        """One whole life of a container, and one `run`."""

        def step(name: str, *words: str) -> None:
            if quiet:
                time.sleep(quiet)
            times[name].append(self.timed(name, *words))

        step("create", "--bundle", bundles["pause"], "--pid-file", self.pid_file, self.container)
        with open(self.pid_file, encoding="ascii") as stream:
            pid = int(stream.read())
        self.waiting_kb.append(proportional_size(pid))
        step("start", self.container)
        step("state", self.container)
        step("exec", self.container, "/bin/probe", "exit", "0")
        step("kill", self.container, "KILL")
        os.waitpid(pid, 0)
        step("delete", self.container)
        step("run", "--bundle", bundles["exit"], self.container)

    def clean_up(self) -> None:
        """Leave nothing behind when a round was cut off."""
        if os.path.isdir(os.path.join(self.root, self.container)):
            subprocess.run([*self.command, "delete", "--force", self.container], check=False)


def proportional_size(pid: int) -> int:
    """The process's share of memory in kB. proc(5), smaps_rollup."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("Pss:"))


def python_api(bundle: str, rounds: int, scratch: str) -> list[float]:
    """create + start + wait + delete through the Python API, in this process: milliseconds each."""
    from pyrunc import runtime
    from pyrunc.requests import Context, CreateOptions

    pid_file = os.path.join(scratch, "api.pid")
    context = Context(os.path.join(scratch, "root-api"), root_explicit=True)
    options = CreateOptions(pid_file=pid_file)
    times: list[float] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        runtime.create(context, "bench-api", bundle, options)
        runtime.start(context, "bench-api")
        with open(pid_file, encoding="ascii") as stream:
            os.waitpid(int(stream.read()), 0)
        runtime.delete(context, "bench-api")
        times.append((time.perf_counter() - begin) * 1000)
    return times


def subprocess_lives(one: Runtime, bundle: str, rounds: int) -> list[float]:
    """The same life by a runtime's commands: milliseconds each."""
    times: list[float] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        one.timed("create", "--bundle", bundle, "--pid-file", one.pid_file, one.container)
        one.timed("start", one.container)
        with open(one.pid_file, encoding="ascii") as stream:
            os.waitpid(int(stream.read()), 0)
        one.timed("delete", one.container)
        times.append((time.perf_counter() - begin) * 1000)
    return times


# --- The report -------------------------------------------------------------------------------------------------------


def median(values: list[float]) -> float:
    """The median, not a number for nothing."""
    return statistics.median(values) if values else float("nan")


def lifecycle(times: Times) -> float:
    """The sum of the medians of one life."""
    return sum(median(times[name]) for name in LIFECYCLE)


def table(title: str, runtimes: list[Runtime], kind: str) -> None:
    """Milliseconds per command and runtime, and what pyrunc needs in relation to each other runtime."""
    rows = {one.name: one.hot if kind == "hot" else one.cold for one in runtimes}
    print(f"\n{title:24}" + "".join(f"{name:>9}" for name in (*COMMANDS, "life")))
    for name, times in rows.items():
        print(
            f"{name + ' ms':24}"
            + "".join(f"{median(times[c]):9.2f}" for c in COMMANDS)
            + f"{lifecycle(times):9.2f}"
        )
    for name, times in rows.items():
        if name != "pyrunc" and "pyrunc" in rows:
            ours = rows["pyrunc"]
            ratios = [median(ours[c]) / median(times[c]) for c in COMMANDS]
            print(
                f"{'pyrunc / ' + name:24}"
                + "".join(f"{ratio:9.2f}" for ratio in ratios)
                + f"{lifecycle(ours) / lifecycle(times):9.2f}"
            )


def report_waiting(runtimes: list[Runtime]) -> None:
    """Memory of an init that waits for start."""
    print(
        "\nwaiting init, Pss kB: "
        + ", ".join(f"{one.name} {median([*map(float, one.waiting_kb)]):.0f}" for one in runtimes)
    )


def warm_up(runtimes: list[Runtime], bundles: dict[str, str]) -> list[Runtime]:
    """A round that does not count, and those that came through it: not every runtime bears every view."""
    usable: list[Runtime] = []
    for one in runtimes:
        try:
            one.round({name: [] for name in COMMANDS}, bundles, quiet=0)
        except CommandError as error:
            print(error, file=sys.stderr)
            one.clean_up()
        else:
            one.waiting_kb.clear()
            usable.append(one)
    return usable


def measure(runtimes: list[Runtime], bundles: dict[str, str], rounds: int, cold_rounds: int) -> None:
    """Alternate the runtimes."""
    for _ in range(rounds):
        for one in runtimes:
            one.round(one.hot, bundles, quiet=0)
    for _ in range(cold_rounds):
        for one in runtimes:
            one.round(one.cold, bundles, quiet=QUIET)


def report_api(runtimes: list[Runtime], bundles: dict[str, str], rounds: int, scratch: str) -> None:
    """The Python API in process against commands."""
    ours = median(python_api(bundles["exit"], rounds, scratch))
    print(f"\ncreate + start + wait + delete: Python API in process {ours:.2f} ms")
    for one in runtimes:
        theirs = median(subprocess_lives(one, bundles["exit"], rounds))
        print(f"  by {one.name} commands {theirs:.2f} ms, ratio {ours / theirs:.2f}")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="compare pyrunc with runc and crun")
    parser.add_argument(
        "--view", choices=VIEWS, default="v1", help="what /sys/fs/cgroup shows (default: v1)"
    )
    parser.add_argument("--rounds", type=int, default=30, help="hot rounds (default: 30)")
    parser.add_argument(
        "--cold", type=int, default=5, metavar="ROUNDS", help="cold rounds (default: 5; 2 s each)"
    )
    parser.add_argument("--runtimes", default="pyrunc,runc,crun", help="names or NAME=PATH, comma-separated")
    parser.add_argument("--no-api", action="store_true", help="leave out the Python API")
    parser.add_argument("--json", metavar="FILE", help="write all times there as well")
    return parser.parse_args(argv)


def enter_view(view: str) -> None:
    """Start again inside a private mount namespace that shows the wanted kind of cgroups."""
    if view == "host" or os.environ.get("BENCH_VIEW") == view:
        return
    script = f'set -e; {VIEWS[view]}; exec "$@"'
    argv = [
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "bench",
        sys.executable,
        *sys.argv,
    ]
    os.execvpe(argv[0], argv, {**os.environ, "BENCH_VIEW": view})


def find_runtimes(names: str, scratch: str) -> list[Runtime]:
    """The runtimes that are there; pyrunc is the one beside this Python."""
    found: list[Runtime] = []
    for item in names.split(","):
        name, _, path = item.partition("=")
        beside = os.path.join(os.path.dirname(sys.executable), name)
        program = path or (beside if os.path.exists(beside) else shutil.which(name))
        if program:
            found.append(Runtime(name, program, scratch))
        else:
            print(f"bench: no {name} here", file=sys.stderr)
    return found


def reap() -> None:
    """Collect whatever orphan came to us."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass


def main(argv: list[str]) -> int:
    """Measure and report."""
    options = parse(argv)
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 1
    enter_view(options.view)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    scratch = tempfile.mkdtemp(prefix="pyrunc-bench-")
    make = load_bundles()
    bundles = {"pause": os.path.join(scratch, "pause"), "exit": os.path.join(scratch, "exit")}
    make.make("probe", bundles["pause"], ["/bin/probe", "pause"])
    make.make("probe", bundles["exit"], ["/bin/probe", "exit", "0"])
    runtimes = find_runtimes(options.runtimes, scratch)
    try:
        runtimes = warm_up(runtimes, bundles)
        measure(runtimes, bundles, options.rounds, options.cold)
        table(f"hot, {options.view}", runtimes, "hot")
        if options.cold:
            table(f"cold, {options.view}", runtimes, "cold")
        report_waiting(runtimes)
        if not options.no_api:
            report_api(runtimes, bundles, options.rounds, scratch)
    finally:
        for one in runtimes:
            one.clean_up()
        reap()
        shutil.rmtree(scratch, ignore_errors=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as stream:
            json.dump(
                {one.name: {"hot": one.hot, "cold": one.cold, "kB": one.waiting_kb} for one in runtimes},
                stream,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

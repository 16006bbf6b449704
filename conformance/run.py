"""Run the OCI runtime-tools suite against pyrunc and, where they are installed, runc and crun: ./dev conformance.

Prints one table, keeps what every program said, writes RESULTS.md, and fails on every difference from expected.toml.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

HERE = os.path.dirname(os.path.realpath(__file__))
PROJECT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(PROJECT, "tests", "support"))

import expected
import page
import suite
import tap
from cell import Outcome, Request
from views import SPARE, VIEWS, v1_with

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT = os.path.join(PROJECT, "build/conformance")
SUITE = os.path.join(OUTPUT, "suite")
RESULTS = os.path.join(HERE, "RESULTS.md")
# The slowest program needs 25 s on a machine with nothing else to do; linux_ns_itype can hang for good.
SECONDS = 120.0
# What a cell may need on top: to end and delete what a program has left.
CLEAN_UP_SECONDS = 300.0
PATIENCE = 10.0


class RunError(Exception):
    """Nothing can be run; the text is one line."""


@dataclass
class Column:
    """One runtime: a column of the table."""

    name: str
    path: str
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""

    @property
    def directory(self) -> str:
        """Where what its programs said is kept."""
        return os.path.join(OUTPUT, "tap", self.name.replace(" ", "-"))


@dataclass
class Options:
    """The command line."""

    programs: list[str]
    runtimes: list[str]
    jobs: int
    seconds: float
    view: str


def _version(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except OSError as error:
        raise RunError(f"cannot run '{path}': {error.strerror}") from error
    return (done.stdout.splitlines() or ["unknown version"])[0]


def columns(given: list[str]) -> list[Column]:
    """The runtimes: those given as NAME=PATH, else runc and crun where installed, and pyrunc. Raise RunError."""
    found: list[Column] = []
    for item in given:
        name, _, path = item.partition("=")
        real = shutil.which(path) if path else None
        if not name or real is None:
            raise RunError(f"'{item}' is not NAME=PATH of a program")
        if name in expected.OURS or name in [one.name for one in found]:
            raise RunError(f"the name '{name}' is taken")
        found.append(Column(name, os.path.abspath(real)))
    if not given:
        found = [Column(name, there) for name in ("runc", "crun") if (there := shutil.which(name))]
        pyrunc = os.path.join(PROJECT, ".venv/bin/pyrunc")
        found.append(Column("pyrunc", pyrunc))
        found.append(Column("pyrunc strict", pyrunc, {"PYRUNC_STRICT": "1"}))
    for column in found:
        column.version = _version(column.path)
    return found


def _keep(column: Column, program: str, home: str, outcome: Outcome) -> None:
    os.makedirs(column.directory, exist_ok=True)
    for name, suffix in (("out", "tap"), ("err", "stderr"), ("commands", "commands")):
        if os.path.exists(f"{home}/{name}"):
            shutil.copyfile(f"{home}/{name}", os.path.join(column.directory, f"{program}.{suffix}"))
    with open(os.path.join(column.directory, f"{program}.json"), "w", encoding="utf-8") as stream:
        json.dump(asdict(outcome), stream)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _hierarchies() -> dict[str, str]:
    """Each controller's hierarchy, by number; 0 is cgroup2. cgroups(7)"""
    with open("/proc/cgroups", encoding="ascii") as stream:
        return {line.split()[0]: line.split()[1] for line in stream if not line.startswith("#")}


def _give_back(view: str, before: dict[str, str]) -> None:
    """A hierarchy whose last cgroups were still going away when it was unmounted ends with the next unmounting."""
    deadline = time.monotonic() + PATIENCE
    while kept := sorted(
        name for name, number in _hierarchies().items() if number != "0" == before.get(name)
    ):
        if time.monotonic() > deadline:
            print(f"conformance: still a cgroup v1 hierarchy of its own: {', '.join(kept)}", file=sys.stderr)
            return
        subprocess.run([*VIEWS[view], "true"], capture_output=True, check=False)
        time.sleep(0.2)


@dataclass
class Place:
    """Where cells run: `view` goes before a command, `directory` is for their homes."""

    view: list[str]
    directory: str


@contextmanager
def held_place(name: str) -> Iterator[Place]:
    """A view that stays as it is: a hierarchy that nobody has mounted ends, or goes to somebody else, some time later.

    Raise RunError if the host has none.
    """
    directory = tempfile.mkdtemp(prefix="pyrunc-conformance-")
    # Root of a user namespace must get through to its bundle.
    os.chmod(directory, 0o711)
    command = [*VIEWS[name], sys.executable, os.path.join(HERE, "cell.py"), "hold", directory]
    before = _hierarchies()
    # In a session of its own it outlives us when we are killed, and clears away.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        there = holder.stdout.readline().decode().split()
        if not there:
            shutil.rmtree(directory)
            said = " ".join(holder.stderr.read().decode().split())
            raise RunError(f"no view of the host with cgroup v1 controllers alone ({said}): try --view host")
        try:
            yield Place(v1_with(c for c in SPARE if c in there) if name != "host" else [], directory)
        finally:
            holder.stdin.close()
            sys.stderr.write(holder.stderr.read().decode())
            holder.wait()
            _give_back(name, before)


def run_one(column: Column, program: str, options: Options, place: Place) -> tap.Verdict:
    """One program against one runtime. A cell that breaks is a failure of the program."""
    home = tempfile.mkdtemp(dir=place.directory)
    os.chmod(home, 0o711)
    request = Request(program, SUITE, column.path, home, place.view, options.seconds, column.environment)
    try:
        with open(f"{home}/request.json", "w", encoding="utf-8") as stream:
            json.dump(asdict(request), stream)
        command = [*place.view, sys.executable, os.path.join(HERE, "cell.py"), f"{home}/request.json"]
        limit = options.seconds + CLEAN_UP_SECONDS
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        if done.returncode != 0:
            return tap.Verdict(failures=[f"the cell failed: {' | '.join(done.stderr.splitlines()[-1:])}"])
        outcome = Outcome(**json.loads(_read(f"{home}/outcome.json")))
        _keep(column, program, home, outcome)
        verdict = tap.judge(program, _read(f"{home}/out"), _read(f"{home}/err"), outcome.status)
    except subprocess.TimeoutExpired:
        return tap.Verdict(failures=["the cell does not end"])
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if outcome.out_of_time:
        verdict.failures.insert(0, "ended by the deadline")
    verdict.left = outcome.left
    return verdict


def run_all(
    found: list[Column], programs: list[str], options: Options, place: Place, known: expected.Expected
) -> dict[str, dict[str, tap.Verdict]]:
    """All programs for all runtimes, some at a time."""

    def job(column: Column, program: str) -> tap.Verdict:
        verdict = run_one(column, program, options, place)
        for _ in range(known.tries(program) - 1):
            if verdict.passed:
                break
            verdict = run_one(column, program, options, place)
        return verdict

    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {
            (column.name, program): pool.submit(job, column, program)
            for column in found
            for program in programs
        }
        try:
            return {
                column.name: {program: futures[column.name, program].result() for program in programs}
                for column in found
            }
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _parse(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="./dev conformance",
        description="Run the OCI runtime-tools suite and compare with expected.toml.",
    )
    parser.add_argument("program", nargs="*", help="run only these programs of the suite")
    parser.add_argument(
        "--runtime",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="run this binary instead; repeatable",
    )
    parser.add_argument("--jobs", type=int, help="programs at a time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="deadline of one program")
    parser.add_argument(
        "--view",
        choices=("v1-all", "host"),
        default="v1-all",
        help="what the programs see at /sys/fs/cgroup (default: v1 controllers alone)",
    )
    given = parser.parse_args(argv)
    # They sleep most of the time. In the host's view they share their cgroups' names.
    jobs = given.jobs or (2 * (os.cpu_count() or 1) if given.view != "host" else 1)
    return Options(given.program, given.runtime, jobs, given.seconds, given.view)


def _write(
    verdicts: dict[str, dict[str, tap.Verdict]],
    found: list[Column],
    options: Options,
    known: expected.Expected,
) -> None:
    versions = {column.name: column.version for column in found}
    text = page.whole(verdicts, versions, known, (suite.MODULE, suite.pinned()))
    paths = [os.path.join(OUTPUT, "RESULTS.md")]
    if not options.programs and not options.runtimes and options.view != "host":
        paths.append(RESULTS)
    for path in paths:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)


def _run(options: Options) -> int:
    if os.geteuid() != 0:
        raise RunError("containers of the suite need root")
    every = suite.programs()
    for name in options.programs:
        if name not in every:
            raise RunError(f"'{name}' is no program of the suite: {', '.join(every)}")
    found = columns(options.runtimes)
    known = expected.load(_read(os.path.join(HERE, "expected.toml")), every)
    suite.build(SUITE)
    for column in found if not options.programs else ():
        shutil.rmtree(column.directory, ignore_errors=True)
    begin = time.monotonic()
    with held_place(options.view) as place:
        verdicts = run_all(found, options.programs or every, options, place, known)
    _write(verdicts, found, options, known)
    print(page.table(verdicts))
    print(f"{time.monotonic() - begin:.0f} s; what each program said is in {os.path.relpath(OUTPUT)}/tap")
    if options.view == "host":
        print("nothing is compared: expected.toml is about the v1 view")
        return 0
    wrong = expected.differences(verdicts, known)
    for name, program, words in wrong:
        print(f"conformance: {name}: {program} {words}", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    """0: as expected. 1: not, each difference on stderr. 2: could not be run, why in one line."""
    try:
        return _run(_parse(sys.argv[1:]))
    except (RunError, suite.SuiteError, expected.ExpectedError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("conformance: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""`./dev fuzz`: runs the fuzzers of csrc/fuzz and the attack loops of tests/security for as long as one likes.

    ./dev fuzz --list                  what there is
    ./dev fuzz                         every fuzzer, a minute each
    ./dev fuzz ops --seconds 3600      one of them
    ./dev fuzz attacks --seconds 3600  the attack tests again and again, each time with another seed
    ./dev fuzz swaps --seconds 3600    those of tests/security/test_swaps.py
    ./dev fuzz ops --keep              afterwards the inputs that reach something new become part of the corpus
    ./dev fuzz --figures               adds what was tried since the last time to docs/ATTACKS.md
    ./dev fuzz --page                  writes docs/ATTACKS.md anew from its parts (page.py)

An input that crashes is kept in build/fuzz/crashes, and shown with the command that repeats it; then the exit status
is 1. Fixed, it becomes a file of the corpus with a name of its own, which tests/security/test_fuzz.py replays.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(PROJECT, "tests", "support"))

# Run as a program, this directory alone is where imports are looked for.
import rounds  # noqa: E402
from security import page  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCES = os.path.join(PROJECT, "csrc/fuzz")
BUILD = os.path.join(PROJECT, "build/fuzz")
CRASHES = os.path.join(BUILD, "crashes")
CORPUS = os.path.join(PROJECT, "tests/security/corpus")
RECORD = os.path.join(PROJECT, "build/attacks.jsonl")
SCRIPTS = os.path.dirname(sys.executable)
# Longer inputs make each run slower and reach nothing that shorter ones do not.
INPUT_BYTES = 4096
# An input that takes longer is a finding: a thousandth of that is usual.
INPUT_SECONDS = 20
# How often an attack goes round where a test run goes once: a test has to end within 300 s.
ATTACK_FACTOR = 3
# A pass of the attack tests that is ended gets this long to clean up.
END_SECONDS = 120

# Of tests/security these are no attacks, or attacks of this program itself.
NOT_ATTACKS = ("fuzz", "documentation")
# Randomized tests of other rooms.
ELSEWHERE = ("tests/unit/test_dialogue.py",)


class Outcome:
    """What came out of one fuzzer or test."""

    def __init__(self, name: str, done: int, seconds: float, findings: Sequence[str]) -> None:
        self.name = name
        self.rounds = done
        self.seconds = seconds
        self.findings = list(findings)

    def __str__(self) -> str:
        return f"{self.name}: {self.rounds:,} rounds in {self.seconds:.0f} s, {len(self.findings)} findings"


# --- Fuzzers ----------------------------------------------------------------------------------------------------------


def fuzzers() -> dict[str, str]:
    """Their names, each with the first sentence of its source."""
    found = {}
    for name in sorted(os.listdir(SOURCES)):
        match = re.fullmatch(r"fuzz_(\w+)\.c", name)
        if match:
            with open(os.path.join(SOURCES, name), encoding="utf-8") as stream:
                comment = stream.read().split("/*\n", 1)[1].split("*/", 1)[0].replace(" * ", "")
            found[match[1]] = re.split(r"[.:;]\s", " ".join(comment.split()))[0]
    return found


def build() -> None:
    """Compile them; meson does only what is to be done."""
    environment = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "CC": "clang"}
    commands = []
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        commands.append(["setup", BUILD, "-Dfuzz=true", "--buildtype=debug", "-Doptimization=1"])
    commands.append(["compile", "-C", BUILD, "fuzzers"])
    for words in commands:
        done = subprocess.run(
            [os.path.join(SCRIPTS, "meson"), *words],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{done.stdout}\nfuzz: the fuzzers cannot be built")
    os.makedirs(CRASHES, exist_ok=True)


def run_fuzzer(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """One of them with libFuzzer's own options and paths."""
    # addr2line is where a compiler is; llvm-symbolizer may not be.
    symbols = shutil.which("llvm-symbolizer") or shutil.which("addr2line") or ""
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "quarantine_size_mb=16:detect_leaks=0",
        "ASAN_SYMBOLIZER_PATH": symbols,
    }
    return subprocess.run(
        [os.path.join(BUILD, f"csrc/fuzz/fuzz-{name}"), *words],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def corpus_of(name: str) -> str:
    """Where the committed inputs are."""
    return os.path.join(CORPUS, name)


def replay(name: str) -> subprocess.CompletedProcess[str]:
    """Every input of the corpus, once."""
    return run_fuzzer(name, "-runs=0", f"-timeout={INPUT_SECONDS}", corpus_of(name))


def fuzz(name: str, seconds: float) -> Outcome:
    """New inputs for so long."""
    fresh = os.path.join(BUILD, "corpus", name)
    os.makedirs(fresh, exist_ok=True)
    known = set(os.listdir(CRASHES))
    seed = rounds.seed()
    began = time.monotonic()
    done = run_fuzzer(
        name,
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={INPUT_BYTES}",
        "-len_control=50",
        f"-timeout={INPUT_SECONDS}",
        f"-seed={seed % (1 << 32)}",
        f"-artifact_prefix={CRASHES}/{name}-",
        fresh,
        corpus_of(name),
    )
    took = time.monotonic() - began
    count = [int(number) for number in re.findall(r"^#(\d+)\s", done.stdout, re.MULTILINE)]
    findings = []
    if done.returncode != 0:
        made = sorted(set(os.listdir(CRASHES)) - known)
        print("\n".join(line for line in done.stdout.splitlines() if not line.startswith("#")))
        for path in made:
            print(f"\nfuzz: to repeat it:\n    build/fuzz/csrc/fuzz/fuzz-{name} build/fuzz/crashes/{path}")
        findings = made or [f"exit status {done.returncode}"]
    return Outcome(name, max(count, default=0), took, findings)


def keep(name: str) -> None:
    """The smallest set of inputs that reaches all that is reached; what has a name of its own stays."""
    kept, merged = corpus_of(name), os.path.join(BUILD, "merged", name)
    shutil.rmtree(merged, ignore_errors=True)
    os.makedirs(merged)
    os.makedirs(kept, exist_ok=True)
    done = run_fuzzer(
        name,
        "-merge=1",
        "-use_counters=0",
        f"-max_len={INPUT_BYTES}",
        merged,
        kept,
        f"{BUILD}/corpus/{name}",
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout)
    for path in os.listdir(kept):
        if re.fullmatch(r"[0-9a-f]{40}", path):
            os.unlink(os.path.join(kept, path))
    for path in os.listdir(merged):
        shutil.copy(os.path.join(merged, path), os.path.join(kept, path))
    sizes = [os.path.getsize(os.path.join(kept, path)) for path in os.listdir(kept)]
    print(f"{name}: {len(sizes)} inputs of {sum(sizes):,} bytes in {os.path.relpath(kept, PROJECT)}")


def lanes() -> dict[str, tuple[list[str], str]]:
    """Those that are tests: what they select, and what they are. All of tests/security, and each module alone."""
    names = sorted(os.listdir(os.path.join(PROJECT, "tests/security")))
    found = {}
    for path in (*(f"tests/security/{name}" for name in names), *ELSEWHERE):
        match = re.fullmatch(r"tests/\w+/test_(\w+)\.py", path)
        if match and match[1] not in NOT_ATTACKS:
            with open(os.path.join(PROJECT, path), encoding="utf-8") as stream:
                words = stream.readline().strip().strip('"')
            found[match[1]] = ([path], words)
    every = [path for paths, _ in found.values() for path in paths]
    return {"attacks": (every, "all of the following: real containers, hostile programs"), **found}


# --- Tests ------------------------------------------------------------------------------------------------------------


def _read_record(path: str, start: int) -> list[dict[str, str | int | float]]:
    try:
        with open(path, encoding="utf-8") as stream:
            stream.seek(start)
            return [json.loads(line) for line in stream]
    except FileNotFoundError:
        return []


def _one_pass(selection: Sequence[str], left: float) -> bool:
    """False: a test failed. One that is ended because the time is over has not."""
    environment = {
        "PYRUNC_ATTACK_ROUNDS": str(ATTACK_FACTOR),
        "PYRUNC_ATTACK_SEED": str(int.from_bytes(os.urandom(4), "little")),
        "PYRUNC_BUILD": os.path.join(PROJECT, "build/dev"),
        **os.environ,
        "PYRUNC_ATTACK_RECORD": RECORD,
    }
    print(f"PYRUNC_ATTACK_SEED={environment['PYRUNC_ATTACK_SEED']}", flush=True)
    command = [os.path.join(SCRIPTS, "pytest"), "-q", "--no-header", "-r", "fE", "-p", "no:cacheprovider"]
    tests = subprocess.Popen([*command, *selection], cwd=PROJECT, env=environment)
    try:
        return tests.wait(timeout=left) in (0, 5)
    except subprocess.TimeoutExpired:
        tests.send_signal(signal.SIGINT)
        tests.wait(timeout=END_SECONDS)
        return True


def attack(name: str, seconds: float) -> Outcome:
    """The tests of one file again and again."""
    began = time.monotonic()
    start = os.path.getsize(RECORD) if os.path.exists(RECORD) else 0
    good = True
    while (left := seconds - (time.monotonic() - began)) > 0:
        good &= _one_pass(lanes()[name][0], left)
    # others may be at work on the same record
    mine = tuple(lanes()[name][0])
    lines = [line for line in _read_record(RECORD, start) if str(line["test"]).startswith(mine)]
    findings = [f"{line['test']}: {line['finding']}" for line in lines if line["finding"]]
    if not good and not findings:
        findings = ["pytest failed"]
    done = sum(int(line["rounds"]) for line in lines)
    return Outcome(name, done, time.monotonic() - began, findings)


# --- The command ------------------------------------------------------------------------------------------------------


def descriptions() -> dict[str, str]:
    """Of everything that can be run."""
    return {**fuzzers(), **{name: what for name, (_, what) in lanes().items()}}


def main() -> int:
    """0, or 1 when there are findings."""
    known = descriptions()
    parser = argparse.ArgumentParser(
        prog="./dev fuzz", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all fuzzers when none is given")
    parser.add_argument("--seconds", type=float, default=60, help="for each of them (default: 60)")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reach something new")
    parser.add_argument("--page", action="store_true", help="write docs/ATTACKS.md")
    parser.add_argument("--figures", action="store_true", help="add the record of the last runs to it")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no such name: {' '.join(unknown)}; --list shows them")
    if options.list:
        width = max(map(len, known))
        print("\n".join(f"{name:{width}}  {what}" for name, what in known.items()))
        return 0
    if options.figures:
        print(f"{page.add_record(RECORD)} lines added")
    if options.figures or options.page:
        with open(page.PAGE, "w", encoding="utf-8") as stream:
            stream.write(page.text(fuzzers()))
        return 0
    return run_lanes(options.names or list(fuzzers()), options.seconds, kept=options.keep)


def run_lanes(names: Sequence[str], seconds: float, *, kept: bool) -> int:
    """One after the other, each for so long; a line for each at the end."""
    os.environ["PYRUNC_ATTACK_RECORD"] = RECORD
    # In a shell's background it would be ignored, by the tests that are ended as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes = []
    known = descriptions()
    if any(name in fuzzers() for name in names):
        build()
    for name in names:
        print(f"--- {name}: {known[name]}", flush=True)
        outcome = fuzz(name, seconds) if name in fuzzers() else attack(name, seconds)
        if name in fuzzers():
            rounds.record(
                outcome.rounds,
                outcome.seconds,
                finding=" ".join(outcome.findings),
                test=f"tests/security/test_fuzz.py::test_fuzzers[{name}]",
            )
        if kept and name in fuzzers() and not outcome.findings:
            keep(name)
        print(outcome, flush=True)
        outcomes.append(outcome)
    print("---")
    for outcome in outcomes:
        print(outcome)
        for finding in outcome.findings:
            print(f"    {finding}")
    return 1 if any(outcome.findings for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

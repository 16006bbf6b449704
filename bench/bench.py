#!/usr/bin/env python3
"""Compare pyrunc with runc and crun: ./dev bench. Needs root.

Every command of every runtime is timed on the same bundles, in alternation, and looked at: exit status and effect.
Prints tables; --json keeps every value; --publish writes RESULTS.md, chart.svg and the table of docs/performance.md. A
run can be taken in pieces: --only and --json, then --join them. Absolute figures say little about another machine,
ratios do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "../tests/support"))

import command
import report
import sections
import surroundings
from figures import Figures
from views import VIEWS, become_subreaper

if TYPE_CHECKING:
    from collections.abc import Sequence

CGROUP2_MAGIC = "cgroup2fs"
CAP_SYS_RESOURCE = 24


def views_here() -> list[str]:
    """A host with cgroup2 alone is measured as it is; one with v1 controllers in two views, v1 alone and v2 alone."""
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", "/sys/fs/cgroup"], capture_output=True, text=True, check=True
    )
    return ["host"] if done.stdout.strip() == CGROUP2_MAGIC else ["v1", "v2"]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="Compare pyrunc with runc and crun: time, memory, and what they do beside many others.",
        epilog="RUNC=PATH and CRUN=PATH in the environment name other binaries.",
    )
    names = list(sections.SECTIONS)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first impression in a minute")
    parser.add_argument(
        "--rounds", type=int, default=0, metavar="N", help="hot rounds (default: 40, quick: 8)"
    )
    parser.add_argument("--only", metavar="SECTION,...", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument(
        "--view", choices=sorted(VIEWS), help="one kind of cgroups (default: all that there are)"
    )
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME[=PATH]",
        help="one to measure, again for more (default: all three)",
    )
    parser.add_argument("--json", metavar="FILE", help="write every value there")
    parser.add_argument(
        "--join", action="append", default=[], metavar="FILE", help="take in what --json wrote"
    )
    parser.add_argument("--none", action="store_true", help="measure nothing: show what was joined")
    parser.add_argument("--svg", metavar="FILE", help="draw the comparison there")
    parser.add_argument("--results", metavar="FILE", help="write the tables there, as Markdown")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write bench/RESULTS.md, chart.svg and the table of docs/performance.md",
    )
    parser.add_argument("--anyway", action="store_true", help="also measure on a busy machine")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.only = options.only.split(",") if options.only else names
    if unknown := set(options.only) - set(names):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    options.runtime = options.runtime or ["pyrunc", "runc", "crun"]
    return options


def measure_here(options: argparse.Namespace) -> Figures:
    """Measure in the view this process is in."""
    become_subreaper()
    figures = Figures()
    scratch = tempfile.mkdtemp(prefix="pyrunc-bench-")
    runtimes: list[command.Runtime] = []
    try:
        runtimes = command.find(options.runtime, scratch)
        figures.machine = surroundings.facts()
        figures.versions = {one.name: one.version() for one in runtimes}
        scene = sections.Scene(options.inside, runtimes, scratch, figures, choosy=not options.anyway)
        plan = sections.Plan(quick=options.quick, rounds=options.rounds)
        for name in options.only:
            print(f"bench: {options.inside}: {name} ...", file=sys.stderr)
            watch = surroundings.Watch()
            sections.SECTIONS[name](scene, plan)
            figures.others.append(watch.others())
        figures.remarks = [f"{options.inside}: {text}" for text in command.differences(runtimes)]
    finally:
        for one in runtimes:
            one.clean_up()
        shutil.rmtree(scratch, ignore_errors=True)
    return figures


def locked_memory_help() -> list[str]:
    """Put before a command: crun raises RLIMIT_MEMLOCK for its device program, which not every root may, and which no
    kernel since 5.11 asks for. Where it cannot, it is told that it has; all runtimes run under that same filter.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    with open("/proc/self/status", encoding="ascii") as stream:
        effective = next(int(line.split()[1], 16) for line in stream if line.startswith("CapEff:"))
    if hard == resource.RLIM_INFINITY or effective >> CAP_SYS_RESOURCE & 1:
        return []
    when = f"1=={int(resource.RLIMIT_MEMLOCK)}"
    return [os.path.join(HERE, "../build/dev/fail_syscall"), "prlimit64", "0", "when", when, "--"]


def measure(options: argparse.Namespace, figures: Figures) -> None:
    """Measure in every view, each in a process of its own."""
    surroundings.check_quiet(anyway=options.anyway)
    for view in [options.view] if options.view else views_here():
        with tempfile.NamedTemporaryFile(prefix="pyrunc-bench-", suffix=".json") as file:
            argv = [sys.executable, os.path.abspath(__file__), "--inside", view, "--json", file.name]
            argv += ["--only", ",".join(options.only), "--rounds", str(options.rounds)]
            argv += [f"--{name}" for name in ("quick", "anyway") if getattr(options, name)]
            for name in options.runtime:
                argv += ["--runtime", name]
            helped = locked_memory_help() if view in ("v2", "host") else []
            child = subprocess.Popen([*VIEWS[view], *helped, *argv])
            try:
                status = child.wait()
            finally:
                # Its containers are its own to remove, and it does when it is told to end.
                child.terminate()
                child.wait()
            if status != 0:
                raise SystemExit(f"bench: the measurement in the view {view} failed")
            figures.read(file.name)
            if helped:
                figures.machine["RLIMIT_MEMLOCK"] = (
                    f"not to be raised here; in the view {view} a seccomp filter over all runtimes says it was"
                )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = parse(argv)
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    figures = Figures()
    try:
        for path in options.join:
            figures.read(path)
        if options.inside:
            figures = measure_here(options)
        elif not options.none:
            measure(options, figures)
    except (command.CommandError, ValueError) as error:
        raise SystemExit(f"bench: {error}") from error
    if options.json:
        with open(options.json, "w", encoding="utf-8") as stream:
            json.dump(figures.document(), stream)
    if options.inside:
        return 0
    figures.add_lives()
    print(report.text(figures))
    results, svg = options.results, options.svg
    if options.publish:
        results, svg = os.path.join(HERE, "RESULTS.md"), os.path.join(HERE, "chart.svg")
        report.update_page(figures, os.path.join(HERE, "../docs/performance.md"))
    if results:
        report.write(results, report.markdown(figures))
    if svg:
        import chart

        report.write(svg, chart.draw(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

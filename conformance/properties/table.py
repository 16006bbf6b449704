"""Run every row against several runtimes, print the table and write PROPERTIES.md: ./dev properties [--vm] [WHICH...].

With --vm, rows that this host cannot show are decided in the guests of ./dev vm; only then is the table written. WHICH
is pyrunc, runc or crun for these columns alone (then nothing is written), or NAME=PATH for one column more.
Ends with status 1 when a row of pyrunc fails that is not EXPECTED to, or is skipped for a reason that is not one of the
LACKS, or though the table of the repository has it as passed. A row that passes though it is EXPECTED not to is named.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from properties import guests

# What other hosts have, and this table may do without. A reason begins with one of these.
LACKS = (
    *("AppArmor", "SELinux", "apparmor", "selinux"),
    *("a CRIU that works with this kernel", "a disk with the scheduler bfq", "an RDMA device"),
    *("veth network interfaces", "resctrl"),
    *("a newer libseccomp", "the other byte order", "a host without systemd"),
    *("the controller net_cls", "the controller net_prio", "the kernel's blkio.leaf_weight"),
)
# Rows that pyrunc is known to fail, and why. One that passes nevertheless is to be taken out.
EXPECTED: dict[str, str] = {}

# Row: verdict and reason; a verdict of a guest's has GUEST behind it.
Verdicts = dict[str, tuple[str, str]]
GUEST = " (vm)"

DOCUMENT = os.path.join(os.path.dirname(HERE), "PROPERTIES.md")
PYRUNC = "pyrunc"
SIGNS = {"pass": "yes", "fail": "**no**", "skip": "skip"}
SIGNS |= {f"{verdict}{GUEST}": f"{sign}{GUEST}" for verdict, sign in SIGNS.items()}
HEAD = """# Every property and verb, row by row

Written by `./dev properties --vm`, which runs the tests of `conformance/properties` with one runtime after another. A
row is a property of config.json, a rule of the specification about it, or a command with an option; it is as good as
the worst of its tests. `(vm)`: in a guest of `./dev vm`, as this host cannot show it. `skip`: neither can; for pyrunc
the reason stands below the table.

Against any other binary: `./dev properties NAME=PATH`. pyrunc's column alone, as CI has it: `./dev properties pyrunc`.
One row: `RUNTIME=PATH .venv/bin/pytest conformance/properties -k NAME`.
"""


def view_for(path: str) -> str:
    """crun refuses a host that has v1 controllers and cgroup2 side by side."""
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        kinds = {line.partition(" - ")[2].split()[0] for line in stream}
    return "v1" if "crun" in os.path.basename(path) and {"cgroup", "cgroup2"} <= kinds else "host"


def version(path: str) -> str:
    """The first number that the runtime calls its version."""
    out = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    found = re.search(r"\d+\.\d+[\w.+~-]*", out)
    return found.group() if found else "?"


def verdicts(path: str, name: str) -> Verdicts:
    """Run all rows with one runtime."""
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "verdicts.json")
        log = os.path.join("build", f"properties-{name}.log")
        env = {**os.environ, "RUNTIME": path, "RUNTIME_VIEW": view_for(path), "PROPERTIES_OUT": out}
        # Another runtime may leave things behind: that is its row's failure, not the end.
        env.pop("PYRUNC_MUST_WORK", None)
        argv = [os.path.join(sysconfig.get_path("scripts"), "pytest"), "-q", "-p", "no:cacheprovider", HERE]
        with open(log, "wb") as stream:
            done = subprocess.run(argv, env=env, stdout=stream, stderr=stream, timeout=1800, check=False)
        if not os.path.exists(out):
            raise SystemExit(f"properties: pytest ended with {done.returncode} and no verdicts, see {log}")
        with open(out, encoding="utf-8") as result:
            return {row: (verdict, reason) for row, (verdict, reason) in json.load(result).items()}


def total(found: Verdicts) -> str:
    """How many rows of each verdict."""
    kinds = [one[0].removesuffix(GUEST) for one in found.values()]
    return " / ".join(str(kinds.count(kind)) for kind in ("pass", "fail", "skip"))


def render(found: dict[str, Verdicts], versions: dict[str, str]) -> str:
    """The document."""
    names = list(found)
    lines = [HEAD, "| row | " + " | ".join(f"{name} {versions[name]}" for name in names) + " |"]
    lines.append("|---|" + "---|" * len(names))
    for row in found[names[0]]:
        cells = [SIGNS[found[name].get(row, ("skip", ""))[0]] for name in names]
        lines.append(f"| `{row}` | " + " | ".join(cells) + " |")
    lines.append("| yes / no / skip | " + " | ".join(total(found[name]) for name in names) + " |")
    lines += ["", "## What pyrunc does not show here", ""]
    for row, (verdict, reason) in found[names[0]].items():
        if verdict == "skip":
            lines.append(f"* `{row}`: skip: the host lacks {reason}")
        elif verdict.startswith("fail"):
            lines.append(f"* `{row}`: no: {EXPECTED.get(row, reason)}")
    return "\n".join(lines) + "\n"


def passed_before(*, in_guests: bool) -> set[str]:
    """The rows that the table of the repository has as passed for its first column, here or in a guest too."""
    if not os.path.exists(DOCUMENT):
        return set()
    with open(DOCUMENT, encoding="utf-8") as stream:
        sign = rf"yes(?:{re.escape(GUEST)})?" if in_guests else "yes"
        return set(re.findall(rf"^\| `(.*)` \| {sign} \|", stream.read(), re.MULTILINE))


def ask_guests(found: Verdicts, path: str) -> None:
    """Put the guests' verdicts in place of what is skipped."""
    rows = [row for row, (verdict, _) in found.items() if verdict == "skip"]
    for row, (verdict, reason) in guests.verdicts(path, rows).items():
        found[row] = (f"{verdict}{GUEST}", reason)


def chosen(arguments: list[str]) -> dict[str, str]:
    """The columns: name to program."""
    known = {PYRUNC: os.path.join(sysconfig.get_path("scripts"), PYRUNC)}
    known.update({name: path for name in ("runc", "crun") if (path := shutil.which(name))})
    only = [argument for argument in arguments if argument in known]
    runtimes = {name: path for name, path in known.items() if not only or name in only}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if argument not in known and not (equals and os.access(path, os.X_OK)):
            raise SystemExit(f"properties: {', '.join(known)} or NAME=PATH is wanted, not '{argument}'")
        if equals:
            runtimes[name] = os.path.abspath(path)
    return runtimes


def surprises(found: Verdicts, before: set[str]) -> dict[str, str]:
    """Rows that are not as they should be, and why not."""
    bad = {}
    for row, (verdict, reason) in found.items():
        if verdict.startswith("fail") and row not in EXPECTED:
            bad[row] = reason
        if verdict == "skip" and (row in before or not reason.startswith(LACKS)):
            bad[row] = f"skipped: {reason}"
    return bad


def main(arguments: list[str]) -> int:
    """Run, print, write; the exit status."""
    in_guests = "--vm" in arguments
    runtimes = chosen([argument for argument in arguments if argument != "--vm"])
    before = passed_before(in_guests=in_guests)
    found: dict[str, Verdicts] = {}
    for name, path in runtimes.items():
        found[name] = verdicts(path, name)
        if in_guests:
            ask_guests(found[name], path)
        print(f"{name}: {total(found[name])} (yes / no / skip)", flush=True)
    text = render(found, {name: version(path) for name, path in runtimes.items()})
    print(text)
    if os.environ.get("CI") != "true" and in_guests and {PYRUNC, "runc", "crun"} <= set(runtimes):
        with open(DOCUMENT, "w", encoding="utf-8") as stream:
            stream.write(text)
    bad = surprises(found.get(PYRUNC, {}), before)
    for row, why in bad.items():
        print(f"properties: not as it should be: {row}: {why}", file=sys.stderr)
    for row in EXPECTED:
        if found.get(PYRUNC, {}).get(row, ("", ""))[0].startswith("pass"):
            print(f"properties: passes now, take it out of EXPECTED: {row}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

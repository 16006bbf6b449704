"""The fenced blocks of README and docs, and a place in which the commands of a page run.

A `console` block holds commands behind "$ " and what they print. In the expected output `...` stands for anything, on a
line of its own for any number of lines; times, durations, process ids and the numbers of explain's steps may differ. A
command must succeed, unless its output is an error of a runtime or the next command is `echo $?`. A `python` block is a
program. Comments before a block change what happens with it:

    <!-- not run: REASON -->    it is shown only
    <!-- output -->             a `text` block is what the program before it prints
    <!-- file: NAME -->         it is the content of a file, which exists from there on
    <!-- needs: PROGRAM VERSION -->    the page cannot be run without it
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LANGUAGES = ("console", "json", "python", "text", "toml")
_FENCE = re.compile(r"```(\w*)")
_COMMENT = re.compile(r"<!-- (not run|output|file|needs)(?:: (.+))? -->")
_CAN_FAIL = re.compile(r"^(pyrunc: |hint: |time=.* level=error)", re.MULTILINE)
_VARIABLE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? (ns|µs|ms|s)\b"), "DURATION"),
    (re.compile(r'"pid": \d+'), '"pid": PID'),
    # A step of explain: how many there are before it depends on the cgroups of the host.
    (re.compile(r"^\d+ (?=[a-z ]+ \[\$)", re.MULTILINE), "N "),
    (re.compile(r"^(\S+) \d+ (creating|created|running|paused|stopped)\b", re.MULTILINE), r"\1 PID \2"),
)
# A new /tmp and /run, so that a page may use the names that a reader would; the checkout and Python stay in sight.
_PLACE = """
set -e
mount --make-rprivate /
exec 8<"$CHECKOUT" 9<"$PLACE"
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$CHECKOUT" "$PLACE"
[ -e "$CHECKOUT/dev" ] || mount -c --bind /proc/self/fd/8 "$CHECKOUT"
mount -c --bind /proc/self/fd/9 "$PLACE"
exec 8<&- 9<&-
status=0
timeout 120 bash "$PLACE/script" <"$PLACE/input" || status=$?
for root in /run/*/; do
	for id in $(pyrunc --root "$root" list --quiet 2>/dev/null); do pyrunc --root "$root" delete --force "$id"; done
done
exit $status
"""


class Block:
    """One fenced block, with the comments before it."""

    def __init__(self, page: str, line: int, language: str, lines: list[str], marks: dict[str, str]) -> None:
        self.page = page
        self.line = line
        self.language = language
        self.lines = lines
        self.marks = marks

    @property
    def text(self) -> str:
        """The content."""
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def runs(self) -> bool:
        """Whether it is something to run, and not marked."""
        return self.language in ("console", "python") and "not run" not in self.marks

    def __repr__(self) -> str:
        return f"{self.page}:{self.line}"


class Step:
    """A command of a page and what it is to print; None: anything."""

    def __init__(self, where: str, command: str, expected: str | None) -> None:
        self.where = where
        self.command = command
        self.expected = expected


def pages() -> list[str]:
    """Return the names of all pages, relative to the project."""
    # ./dev docs writes commands.md.
    found = set(os.listdir(os.path.join(support.PROJECT, "docs"))) - {"commands.md"}
    names = sorted(name for name in found if name.endswith(".md"))
    return [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *(f"docs/{name}" for name in names),
    ]


def read(page: str) -> str:
    """Return the text of a page."""
    with open(os.path.join(support.PROJECT, page), encoding="utf-8") as stream:
        return stream.read()


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page. Raises AssertionError if a fence is not closed."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    current: Block | None = None
    for number, line in enumerate(read(page).splitlines(), start=1):
        if current is not None:
            if line == "```":
                found.append(current)
                current = None
            else:
                current.lines.append(line)
        elif fence := _FENCE.match(line):
            current = Block(page, number, fence[1], [], marks)
            marks = {}
        elif comment := _COMMENT.fullmatch(line):
            marks[comment[1]] = comment[2] or ""
        elif line:
            marks = {}
    assert current is None, current
    return found


def _commands(block: Block) -> Iterator[Step]:
    command = ""
    output: list[str] = []
    for line in block.lines:
        if line.startswith("$ "):
            if command:
                yield Step(repr(block), command, "".join(output))
            command, output = line[2:], []
        elif line.startswith("> ") and not output:
            command += f"\n{line[2:]}"
        else:
            assert command, f"{block}: output before the first command"
            output.append(f"{line}\n")
    yield Step(repr(block), command, "".join(output))


def steps(page: str) -> list[Step]:
    """Return what a page does, in order."""
    found: list[Step] = []
    python = shlex.quote(os.path.join(os.path.dirname(support.PYRUNC), "python"))
    for block in blocks(page):
        if "file" in block.marks:
            name = shlex.quote(block.marks["file"])
            found.append(Step(repr(block), f"cat >{name} <<'END OF FILE'\n{block.text}END OF FILE", ""))
        elif "output" in block.marks:
            found[-1].expected = block.text
        elif block.runs and block.language == "console":
            found += _commands(block)
        elif block.runs:
            found.append(Step(repr(block), f"{python} -I - <<'END OF FILE'\n{block.text}END OF FILE", None))
    return found


def _settled(text: str) -> str:
    text = "".join(f"{' '.join(line.split())}\n" for line in text.splitlines())
    for pattern, name in _VARIABLE:
        text = pattern.sub(name, text)
    return text


def matches(expected: str, seen: str) -> bool:
    """Whether a command printed what the page says."""
    pattern = re.escape(_settled(expected))
    pattern = re.sub(r"^\\\.\\\.\\\.\n", r"(?:.*\n)*", pattern.replace("\\\n", "\n"), flags=re.MULTILINE)
    return re.fullmatch(pattern.replace(r"\.\.\.", ".*"), _settled(seen)) is not None


def _script(wanted: Sequence[Step], place: str) -> str:
    lines = [f"cd {shlex.quote(support.PROJECT)}"]
    for number, step in enumerate(wanted):
        # A file each: what a container was given as standard output stays open as long as it runs.
        lines.append(f"{{ {step.command}\n}} >{place}/out.{number} 2>&1\necho $? >{place}/status.{number}")
        lines.append(f"(exit $(cat {place}/status.{number}))")
    return "\n".join(lines)


def _collect(known: set[int]) -> None:
    """Collect the orphans of a page, which are ours: what keeps an exit status ends when that has been done."""

    def none_left() -> bool:
        for pid in set(support.children()) - known:
            os.waitpid(pid, os.WNOHANG)
        return not set(support.children()) - known

    support.wait_until(none_left, "the end of the page's processes")


def run(page: str, place: str) -> list[str]:
    """Run a page in an empty directory and return what is wrong with it, a line or more for each step."""
    wanted = steps(page)
    with open(os.path.join(place, "script"), "w", encoding="utf-8") as stream:
        stream.write(_script(wanted, place))
    with open(os.path.join(place, "input"), "w", encoding="utf-8"):
        pass
    path = f"{os.path.dirname(support.PYRUNC)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {
        "PATH": path,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "CHECKOUT": support.PROJECT,
        "PLACE": place,
    }
    # Pages use the same names of containers, and cgroups are the host's: one page at a time, on this host.
    known = set(support.children())
    lock = os.open("/run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", _PLACE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        os.close(lock)
    _collect(known)
    found = [] if not done.stderr else [f"{page}: {done.stderr}"]
    for number, step in enumerate(wanted):
        follower = wanted[number + 1].command if number + 1 < len(wanted) else ""
        found += _judge(
            step, follower, os.path.join(place, f"out.{number}"), os.path.join(place, f"status.{number}")
        )
    return found


def _judge(step: Step, follower: str, output: str, status: str) -> Iterator[str]:
    what = f"{step.where}: {step.command}"
    if not os.path.exists(status):
        yield f"{what}\nwas not run, or did not end"
        return
    with open(output, encoding="utf-8") as stream:
        seen = stream.read()
    with open(status, encoding="utf-8") as stream:
        failed = int(stream.read()) != 0
    wrong = _CAN_FAIL.search(step.expected or "") is not None
    if failed != wrong and follower != "echo $?":
        yield f"{what}\n{'failed' if failed else 'did not fail'}:\n{seen}"
    elif step.expected is not None and not matches(step.expected, seen):
        yield f"{what}\nprinted:\n{seen}and not:\n{step.expected}"

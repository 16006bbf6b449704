"""PURE: what one program of the suite said, and whether it passed. https://testanything.org

A program counts as passed only when it proves that it has tested something: output that ends early, that counts wrongly
or that is not there is a failure.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

# They have no assertion: they print the plan 1..0, and an "error" diagnostic when something was wrong.
HOOK_PROGRAMS = frozenset(
    {"hooks", "poststart", "poststart_fail", "poststop", "poststop_fail", "prestart", "prestart_fail"}
)
# Their exit status is the assertion, "create refuses this": with 0 they must print nothing.
REFUSAL_PROGRAMS = frozenset({"process_capabilities_fail", "process_rlimits_fail"})
# What the suite writes to stderr when the runtime refused: proof that it was asked at all.
_REFUSALS = ("failed to create the container", "failed to start the container")

_ASSERTION = re.compile(r"(not )?ok\b\s*(\d+)?\s*(?:-\s*)?(.*)")
_PLAN = re.compile(r"1\.\.(\d+)\s*(#.*)?")
_DIRECTIVE = re.compile(r"#\s*(skip|todo)", re.IGNORECASE)
_BARE_STATUS = re.compile(r"exit status \d+|signal: .*")


@dataclass
class Verdict:
    """How one program did: `made` assertions, of which `held` were right; `failures` says in words what was wrong.

    `left`: what stayed on the host after its containers were deleted. That is no failure: the suite does not look.
    """

    made: int = 0
    held: int = 0
    failures: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether it tested something and nothing was wrong."""
        return self.made > 0 and not self.failures

    @property
    def says(self) -> list[str]:
        """Everything that expected.toml has to know."""
        return [*self.failures, *(f"left behind: {words}" for words in self.left)]


def _one_line(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())


def _assertion(line: str, verdict: Verdict, reason: str) -> None:
    match = _ASSERTION.match(line)
    assert match is not None
    wrong, words = bool(match[1]), match[3].strip()
    if _DIRECTIVE.search(words):
        return
    verdict.made += 1
    verdict.held += not wrong
    if wrong:
        # "exit status 1" alone is the runtime's refusal; why is on stderr.
        bare = _BARE_STATUS.fullmatch(words)
        verdict.failures.append(f"{words}: {reason}" if bare and reason else words)


def _section(lines: list[str], verdict: Verdict, reason: str) -> None:
    """One TAP stream: a program that tests several cases starts several."""
    found, plans, block = 0, list[int](), list[str]()
    inside = False
    for line in lines:
        if line.strip() == "---" and line.startswith(" "):
            inside, block = True, []
        elif inside and line.strip() == "...":
            inside = False
            verdict.failures += _error_of(block) if found == 0 else []
        elif inside:
            block.append(line)
        elif plan := _PLAN.fullmatch(line):
            plans.append(int(plan[1]))
        elif re.match(r"(not )?ok\b", line):
            found += 1
            _assertion(line, verdict, reason)
        elif line.startswith("Bail out!"):
            verdict.failures.append(line)
    if len(plans) != 1:
        verdict.failures.append("the output ends before its plan" if not plans else "more than one plan")
    elif plans[0] != found:
        verdict.failures.append(f"{plans[0]} assertions were planned, {found} made")


def _error_of(block: list[str]) -> list[str]:
    """The "error" of a diagnostic that belongs to no assertion."""
    try:
        document = json.loads("\n".join(block))
    except ValueError:
        return [f"a diagnostic that is no JSON: {_one_line(chr(10).join(block))}"]
    error = document.get("error") if isinstance(document, dict) else None
    return [_one_line(str(error))] if error else []


def _sections(text: str) -> list[list[str]]:
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("TAP version"):
            found.append([])
        elif found:
            found[-1].append(line)
        elif line.strip():
            found.append([line])
    return found


def _reason(stderr: str) -> str:
    """stderr in one line, without what says nothing."""
    lines = (line.strip() for line in stderr.splitlines())
    return " | ".join(line for line in lines if line and not _BARE_STATUS.fullmatch(line))


def judge(program: str, stdout: str, stderr: str, status: int) -> Verdict:
    """The verdict on one run. `status` is the exit status, negative for a signal."""
    verdict, reason = Verdict(), _reason(stderr)
    for lines in _sections(stdout):
        _section(lines, verdict, reason)
    if status != 0:
        word = f"exit status {status}" if status > 0 else f"signal {-status}"
        verdict.failures.append(f"{word}: {reason}" if reason else word)
    refused = any(text in stderr for text in _REFUSALS)
    if program in REFUSAL_PROGRAMS:
        _judge_refusal(verdict, stdout, status, refused=refused)
    elif program in HOOK_PROGRAMS:
        if verdict.made:
            verdict.failures.append("assertions in a program that is known to make none")
        if program == "prestart_fail" and not refused:
            verdict.failures.append("the runtime did not refuse anything")
        if not stdout.strip():
            verdict.failures.append("no output")
        verdict.made, verdict.held = 1, int(not verdict.failures)
    elif verdict.made == 0:
        verdict.failures.append("no assertion was made")
    return verdict


def _judge_refusal(verdict: Verdict, stdout: str, status: int, *, refused: bool) -> None:
    if status == 0 and stdout.strip():
        verdict.failures.append(
            "output of a program that is known to print nothing when the runtime refuses"
        )
    if status == 0 and not refused:
        verdict.failures.append("no container was refused")
    # What runtimetest says inside the container, which should not be there, is not what this program is about.
    verdict.made, verdict.held = 1, int(not verdict.failures)

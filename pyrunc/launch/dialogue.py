"""PURE: what init may say, when: a plan -> the messages it leads to, in their only order.

init runs where the container's processes are, and one that can trace it speaks in its place. So nothing is taken from a
message but what the plan leads to next: each SYNC, CONSOLE, SECCOMP and FORK once and in order, warnings of the ops
that have some, at most one error and nothing behind it, a descriptor where one is due and nowhere else.
"""

from __future__ import annotations

from pyrunc.errors import ContainerError, InternalError, PyruncError
from pyrunc.plan import numbers, wire
from pyrunc.spec.process import PID_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = {number: name for name, number in numbers.SYNC.items()}
_WITH_DESCRIPTOR = frozenset({"CONSOLE", "SECCOMP"})
_WARN = frozenset({"AFFINITY", "CAPSET"})
# One of AFFINITY, one of CAPSET and one for each ambient capability.
_MOST_WARNINGS = 66


class OutOfTurnError(ContainerError):
    """init has said what its plan cannot make it say."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"init does not follow its plan: {problem}",
            hint="a process of the container may have taken it over, or memory or disk are damaged",
        )


def turns(ops: Sequence[wire.Op]) -> list[tuple[int, str]]:
    """What the ops make init send, as (index of the op, name of the sync code)."""
    found = []
    for index, op in enumerate(ops):
        name = op.name
        if name == "SYNC":
            found.append((index, _NAMES[op.fields[0]]))  # type: ignore[index]
        elif name == "FORK":
            found.append((index, "FORKED"))
        elif name == "CONSOLE" or (name == "SECCOMP" and op.fields[2] == 1):
            found.append((index, name))
    return found


class Dialogue:
    """One init's messages, from the first to the last. `ended`: it has reported an error, or broken the order."""

    __slots__ = ("ended", "ops", "place", "turns", "warnings")

    def __init__(self, ops: Sequence[wire.Op]) -> None:
        self.ops = ops
        self.turns = turns(ops)
        self.place = 0
        self.warnings = 0
        self.ended = False

    @property
    def next(self) -> str:
        """The name of what comes next, "" if nothing does."""
        return self.turns[self.place][1] if self.place < len(self.turns) else ""

    def hear(self, data: bytes, descriptors: int) -> tuple[str, wire.Message]:
        """One message with its number of descriptors: (name of the sync code, message). Raise OutOfTurnError."""
        if self.ended:
            raise OutOfTurnError("a message behind its last one")
        try:
            return self._hear(data, descriptors)
        except OutOfTurnError:
            self.ended = True
            raise

    def _hear(self, data: bytes, descriptors: int) -> tuple[str, wire.Message]:
        try:
            message = wire.message(data)
        except InternalError as error:
            raise OutOfTurnError(str(error)) from error
        name = _NAMES.get(message.code, "")
        if descriptors != (1 if name in _WITH_DESCRIPTOR else 0):
            raise OutOfTurnError(f"{name or message.code} with {descriptors} file descriptors")
        if name == "ERROR":
            self.ended = True
            before = message.op == numbers.PLAN_NO_PATH and not self.place and not self.warnings
            if not before and not self._now(message.op):
                raise OutOfTurnError(f"an error of step {message.op}")
        elif name == "WARNING":
            self.warnings += 1
            if (
                self.warnings > _MOST_WARNINGS
                or not self._now(message.op)
                or self.ops[message.op].name not in _WARN
            ):
                raise OutOfTurnError(f"warning {self.warnings}, of step {message.op}")
        else:
            due = (
                self.turns[self.place] if self.place < len(self.turns) else (numbers.PLAN_NO_PATH, "nothing")
            )
            if due != (message.op, name):
                raise OutOfTurnError(f"{name or message.code} of step {message.op} where {due[1]} is due")
            if name == "FORKED" and not 0 < message.value <= PID_MAX:
                raise OutOfTurnError(f"process {message.value}")
            self.place += 1
        return name, message

    def _now(self, op: int) -> bool:
        """Whether init can be at this op: not before what it said last, not behind what it has not said yet."""
        first = self.turns[self.place - 1][0] if self.place else 0
        last = self.turns[self.place][0] if self.place < len(self.turns) else len(self.ops) - 1
        return first <= op <= last

    def words(self, message: wire.Message) -> PyruncError:
        """The error for an ERROR or a WARNING that was heard."""
        from pyrunc.launch import failures

        return failures.explain(self.ops, message)

    def unsaid(self, data: bytes) -> int:
        """What stands in the memory of LAST_WORDS, be it init's or not: an error is raised, else the op it came to."""
        op, message = wire.last_words(data)
        if message is not None and _NAMES.get(message.code) == "ERROR":
            raise self.suspect_filter(self.words(message))
        return op

    def suspect_filter(self, error: PyruncError) -> PyruncError:
        """The error with a hint at the container's filter, unless it has a better one."""
        if error.hint is None:
            from pyrunc.launch import failures

            error.hint = failures.FILTER_HINT
        return error

    def filtered(self, op: int) -> ContainerError:
        """The error for an init that the container's filter killed at this op."""
        from pyrunc.launch import failures

        step = f", at its step {self.ops[op].name} of {self.ops[op].path}" if op < len(self.ops) else ""
        words = f"init was killed by signal 31, SIGSYS{step}"
        return ContainerError(words, path="$.linux.seccomp", hint=failures.FILTER_HINT)

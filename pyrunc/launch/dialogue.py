"""PURE: the messages that init may send: a plan -> its messages, in their only order.

init runs beside the container's processes, and one that can trace it can send messages in its place. So only the
messages that the plan leads to next are accepted: each SYNC, CONSOLE, SECCOMP and FORK once and in order, warnings of
the ops that have some, at most one error and nothing after it, a descriptor only where one is expected.
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
    """init has sent a message that its plan does not lead to."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"init does not follow its plan: {problem}",
            hint="a process of the container may have taken it over, or memory or disk are damaged",
        )


def turns(ops: Sequence[wire.Op]) -> list[tuple[int, str]]:
    """Return the messages of the ops, as (index of the op, name of the sync code)."""
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
    """The messages of one init. `ended`: it has reported an error, or sent a message out of order."""

    __slots__ = ("ended", "ops", "place", "turns", "warnings")

    def __init__(self, ops: Sequence[wire.Op]) -> None:
        self.ops = ops
        self.turns = turns(ops)
        self.place = 0
        self.warnings = 0
        self.ended = False

    @property
    def next(self) -> str:
        """Return the name of the next message, "" if there is none."""
        return self.turns[self.place][1] if self.place < len(self.turns) else ""

    def hear(self, data: bytes, descriptors: int) -> tuple[str, wire.Message]:
        """Check a message with its number of descriptors. Return (sync code, message). Raise OutOfTurnError."""
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
        """Return whether init can be at this op: not before its last message, not after its next one."""
        first = self.turns[self.place - 1][0] if self.place else 0
        last = self.turns[self.place][0] if self.place < len(self.turns) else len(self.ops) - 1
        return first <= op <= last

    def words(self, message: wire.Message) -> PyruncError:
        """Return the error for an ERROR or a WARNING that was received."""
        from pyrunc.launch import failures

        return failures.explain(self.ops, message)

    def unsaid(self, data: bytes) -> int:
        """Read the memory of LAST_WORDS, which may be forged: raise its error, else return the op that init came to."""
        op, message = wire.last_words(data)
        if message is not None and _NAMES.get(message.code) == "ERROR":
            raise self.suspect_filter(self.words(message))
        return op

    def suspect_filter(self, error: PyruncError) -> PyruncError:
        """Return the error with a hint at the container's filter, unless it has another hint."""
        if error.hint is None:
            from pyrunc.launch import failures

            error.hint = failures.FILTER_HINT
        return error

    def filtered(self, op: int) -> ContainerError:
        """Return the error for an init that the container's filter killed at this op."""
        from pyrunc.launch import failures

        step = f", at its step {self.ops[op].name} of {self.ops[op].path}" if op < len(self.ops) else ""
        words = f"init was killed by signal 31, SIGSYS{step}"
        return ContainerError(words, path="$.linux.seccomp", hint=failures.FILTER_HINT)

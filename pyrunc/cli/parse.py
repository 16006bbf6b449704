"""The parser of the command line, by the tables in options.py.

The rules are those of Go's flag package, because callers of a runtime rely on them: `--x v`, `--x=v`, `-x v` and `-x=v`
mean the same for long and short names, a switch takes a value only after `=`, the last of repeated options counts
(lists collect), `--` ends the options. Global options come before the command. Commands with `stops` take everything
after their first argument as it is; the others accept options after their arguments, too.

A bad argv raises a UsageError with runc's message, which programs look for. The hints and the help come from help.py,
which is imported only then. argparse follows other rules, so it is not used.
"""

from __future__ import annotations

from pyrunc.cli.options import _HELP, COMMANDS, GLOBALS
from pyrunc.errors import UsageError, absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Value = bool | int | str | list[str] | list[int]
    # long name, short name or "", kind, help. Kinds: switch, text, path (made absolute), number, texts and numbers
    # (both repeatable). An option without help is accepted and not shown.
    Option = tuple[str, str, str, str]

# strconv.ParseBool
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


class Parsed:
    """Options by long name and the arguments. An option that was not given has its kind's empty value.

    `start_record` does not come from the command line: see runtime.start.
    """

    __slots__ = ("arguments", "given", "start_record")

    def __init__(self) -> None:
        self.given: dict[str, Value] = {}
        self.arguments: list[str] = []
        self.start_record = b""

    def switch(self, name: str) -> bool:
        """Return a switch, False if not given."""
        return self.given.get(name) is True

    def text(self, name: str) -> str:
        """Return a text or path, "" if not given."""
        value = self.given.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        """Return a number, 0 if not given."""
        value = self.given.get(name)
        return value if isinstance(value, int) else 0

    def texts(self, name: str) -> list[str]:
        """Return the values of a repeatable option."""
        value = self.given.get(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def numbers(self, name: str) -> list[int]:
        """Return the values of a repeatable option of numbers."""
        value = self.given.get(name)
        return [item for item in value if isinstance(item, int)] if isinstance(value, list) else []


def _number(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    # No "010", which is 8 for Go and 10 for Python, no "1_0", no digits of other scripts.
    if str(value) != text or not -(1 << 63) <= value < 1 << 63:
        raise UsageError(
            f'invalid value "{text}" for flag -{name}: parse error', hint="give a decimal number"
        )
    return value


def _store(given: dict[str, Value], option: Option, alias: str, text: str) -> None:
    name, _, kind, _ = option
    if kind == "text":
        given[name] = text
    elif kind == "path":
        given[name] = absolute(text) if text else ""
    elif kind == "number":
        given[name] = _number(alias, text)
    else:
        item = text if kind == "texts" else _number(alias, text)
        collected = given.setdefault(name, [])
        collected.append(item)  # type: ignore[union-attr, arg-type]


def _option(options: Sequence[Option], argv: Sequence[str], at: int, given: dict[str, Value]) -> int:
    """Take the option at argv[at] and return the index after it. Raise UsageError if it is invalid."""
    word = argv[at]
    name, equals, text = word[2 if word.startswith("--") else 1 :].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {word}")
    for option in options:
        if name == option[0] or name == option[1]:
            break
    else:
        raise UsageError(f"flag provided but not defined: -{name}")
    if option[2] == "switch":
        value = _BOOLS.get(text) if equals else True
        if value is None:
            raise UsageError(
                f'invalid boolean value "{text}" for -{name}: parse error', hint="give true or false"
            )
        given[option[0]] = value
        return at + 1
    if not equals:
        at += 1
        if at == len(argv):
            raise UsageError(f"flag needs an argument: -{name}")
        text = argv[at]
    _store(given, option, name, text)
    return at + 1


def _parse(options: Sequence[Option], argv: Sequence[str], at: int, parsed: Parsed, *, stops: bool) -> int:
    """Parse argv from `at` and return the index of the first word not taken. Raise UsageError if it is invalid."""
    end = len(argv)
    while at < end:
        word = argv[at]
        if word == "--":
            return at + 1
        if len(word) > 1 and word[0] == "-":
            at = _option(options, argv, at, parsed.given)
        elif stops:
            return at
        else:
            parsed.arguments.append(word)
            at += 1
    return at


def global_options(argv: Sequence[str], parsed: Parsed) -> int:
    """Parse the options before the command into `parsed`, which keeps what came before a mistake.

    Return the index of the command, len(argv) if there is none. Raise UsageError if an option is invalid.
    """
    return _parse(GLOBALS, argv, 0, parsed, stops=True)


def command_options(name: str, argv: Sequence[str]) -> Parsed:
    """Parse what follows the command `name`, a key of COMMANDS.

    With --help the number of arguments is not checked. Raise UsageError if an option or their number is invalid.
    """
    command = COMMANDS[name]
    parsed = Parsed()
    at = _parse((*command.options, _HELP), argv, 0, parsed, stops=command.stops)
    parsed.arguments += argv[at:]
    if parsed.switch("help"):
        return parsed
    count = len(parsed.arguments)
    if command.least == command.most != count:
        raise UsageError(f'"{name}" requires exactly {command.least} argument(s), got {count}')
    if count < command.least:
        raise UsageError(f'"{name}" requires a minimum of {command.least} argument(s), got {count}')
    if count > command.most >= 0:
        raise UsageError(f'"{name}" requires a maximum of {command.most} argument(s), got {count}')
    return parsed

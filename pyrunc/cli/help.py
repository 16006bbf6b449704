"""Help pages, and hints for a bad argv, generated from the tables in cli/options.py. Imported only when needed."""

from __future__ import annotations

from difflib import get_close_matches

from pyrunc import __version__
from pyrunc.cli import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ABOUT = """\
An OCI container runtime. It creates containers from bundles: directories with a config.json and a root filesystem,
as `pyrunc spec` and the OCI runtime specification describe them. The quickest way to one:

    pyrunc run -b BUNDLE <container-id>
"""
METAVARS = {"text": "VALUE", "path": "PATH", "number": "N", "texts": "VALUE", "numbers": "N"}
MORE = {
    "checkpoint": "Needs CRIU. Without --leave-running the container is gone afterwards, as after `pyrunc delete`.",
    "create": "The program does not run before `pyrunc start`. The id must not be in use below the same --root.",
    "exec": "Options come before the container id; everything after it is the command.",
    "explain": "Needs no privileges and changes nothing.",
    "features": "The document is described in the OCI runtime specification, features.md.",
    "kill": "The signal is a number or a name: 9, KILL and SIGKILL are the same. RTMIN+n is understood.",
    "list": "The containers are those below --root.",
    "mounts": "The file, - for stdin, holds an array of mounts as in config.json; remove looks at destinations only.",
    "restore": "Needs CRIU. The bundle has the root filesystem and the sources of bind mounts on this host.",
    "ps": "Options of ps(1) may follow the container id (default: -ef). The format json shows the process ids only.",
    "run": "The exit status is that of the program, 128 + N when signal N killed it.",
    "spec": "An existing config.json is not overwritten.",
}


def _rows(table: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in table)
    return "".join(f"   {left:{width}}  {right}\n" for left, right in table)


def _options(table: Sequence[options.Option]) -> str:
    rows = []
    for name, short, kind, text in table:
        if text:
            value = f" {METAVARS[kind]}" if kind in METAVARS else ""
            again = " (may be repeated)" if kind in ("texts", "numbers") else ""
            rows.append((f"--{name}{value}" + (f", -{short}{value}" if short else ""), text + again))
    return _rows(rows)


def page(command: str) -> str:
    """Return the help page of a command, or of the program for "". The sections (NAME, USAGE, …) are runc's."""
    if not command:
        commands = [(name, row.summary) for name, row in options.COMMANDS.items()]
        return (
            f"NAME:\n   pyrunc - OCI container runtime, version {__version__}\n\n{ABOUT}\n"
            "USAGE:\n   pyrunc [global options] command [command options] [arguments...]\n\n"
            f"COMMANDS:\n{_rows(commands)}\n"
            f"GLOBAL OPTIONS:\n{_options(options.GLOBALS)}"
        )
    row = options.COMMANDS[command]
    usage = " ".join(
        filter(None, ("pyrunc", command, "[command options]" if row.options else "", row.arguments))
    )
    more = f"DESCRIPTION:\n   {MORE[command]}\n\n" if command in MORE else ""
    # The switch that urfave/cli gives to every command.
    table = (*row.options, options.GLOBALS[-1])
    return f"NAME:\n   pyrunc {command} - {row.summary}\n\nUSAGE:\n   {usage}\n\n{more}OPTIONS:\n{_options(table)}"


def _names(table: Sequence[options.Option]) -> list[str]:
    return [name for name, _, _, text in table if text]


def hint(command: str, message: str, words: Sequence[str]) -> str | None:
    """Return a hint for an unknown command (`message` is its name) or for an error message of the option parser."""
    if message.startswith("flag provided but not defined: -"):
        return _hint_option(command, message.partition(": -")[2], words)
    if message.startswith("flag needs an argument: -"):
        name = message.partition(": -")[2]
        table = options.COMMANDS[command].options if command else options.GLOBALS
        return "".join(f"give it as --{row[0]} {METAVARS[row[2]]}" for row in table if name in row[:2])
    if message.startswith('"'):
        row = options.COMMANDS[command]
        return f"usage: pyrunc {command} {row.arguments}".rstrip()
    if not command:
        near = get_close_matches(message, [*options.COMMANDS], 1)
        return f"did you mean {near[0]}?" if near else "pyrunc --help lists the commands"
    return None


def _hint_option(command: str, name: str, words: Sequence[str]) -> str | None:
    if not command:
        for owner, row in options.COMMANDS.items():
            if name in _names(row.options) and owner in words:
                return f"--{name} is an option of {owner} and comes after it: pyrunc {owner} --{name} …"
        candidates = _names(options.GLOBALS)
    else:
        if name in _names(options.GLOBALS):
            return f"--{name} is a global option and comes before the command: pyrunc --{name} … {command} …"
        candidates = _names(options.COMMANDS[command].options)
    near = get_close_matches(name, candidates, 1)
    if near:
        return f"did you mean --{near[0]}?"
    return f"pyrunc {command} --help lists the options" if command else "pyrunc --help lists the options"

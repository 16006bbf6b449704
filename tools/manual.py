#!/usr/bin/env python3
"""Write the manual pages and the shell completions, from the option tables: tools/manual.py DIRECTORY.

With --names, print the names of the pages. meson.build runs both while it builds the wheel. docs/conf.py takes the same
as one page of the site. Only the package's own
modules without dependencies and the standard library are imported, so that the build needs nothing else.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # While the wheel is built, nothing is installed yet; in a test, the installation counts.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from pyrunc import __version__
from pyrunc.cli import completion, options
from pyrunc.cli import help as help_pages
from pyrunc.requests import DEFAULT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SECTION = 8
# The file of each shell's completion, by the name under which the shell looks for it.
COMPLETIONS = {"bash": "pyrunc.bash", "fish": "pyrunc.fish", "zsh": "_pyrunc"}
# What the user of the command may set. docs/environment.md explains them, and those of tests and of ./dev.
ENVIRONMENT = (
    ("PYRUNC_STRICT", "1: follow the letter of the specification where engines expect otherwise"),
    ("PYRUNC_SNAPSHOT", "0: start Python anew for each command"),
    ("XDG_RUNTIME_DIR", "the default root of ordinary users is the directory pyrunc in it"),
    ("NOTIFY_SOCKET", "socket that the container's program tells that it is ready, as sd_notify(3) does"),
    ("LISTEN_FDS, LISTEN_PID", "descriptors that are passed on to the program, as sd_listen_fds(3) says"),
    ("DBUS_SESSION_BUS_ADDRESS, DBUS_SYSTEM_BUS_ADDRESS", "the buses of systemd, for --systemd-cgroup"),
    ("SYSTEMD_BUS_TIMEOUT", "how many seconds an answer of systemd may take"),
    ("PATH", "where newuidmap and newgidmap are looked for, and what CRIU gets"),
)
FILES = (
    (DEFAULT_ROOT, "the state of root's containers"),
    ("$XDG_RUNTIME_DIR/pyrunc", "the state of an ordinary user's containers"),
    (
        f"{DEFAULT_ROOT}/@python-*",
        "the memory of a Python that has started; may be removed at any time",
    ),
    ("/etc/criu/pyrunc.conf, /etc/criu/runc.conf", "CRIU's configuration for checkpoint and restore"),
)
_STATUS = "0 on success, 1 on an error."
# The commands whose exit status is that of a program.
_STATUS_OF = {
    "exec": "That of the process, 128 + N when signal N killed it. 255 on an error of pyrunc's own, 1 if the command "
    "line is wrong.",
    "run": "That of the program, 128 + N when signal N killed it. With --detach, 0. 1 on an error of pyrunc's own.",
    "restore": "That of the program, 128 + N when signal N killed it. With --detach, 0. 1 on an error of pyrunc's own.",
}


def _text(text: str) -> str:
    """Escape a line for roff. Quoted commands become bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)
    return f"\\&{text}" if text[:1] in (".", "'") else text


def _title(name: str) -> str:
    return f'.TH "{name.upper()}" "{SECTION}" "" "pyrunc {__version__}" "System Administration"\n'


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n{term}\n{_text(text[0].upper() + text[1:])}.\n" for term, text in rows)


def _option(option: options.Option) -> tuple[str, str]:
    name, short, kind, text = option
    value = f" \\fI{help_pages.METAVARS[kind]}\\fR" if kind in help_pages.METAVARS else ""
    terms = [f"--{name}", *([f"-{short}"] if short else [])]
    again = " (may be repeated)" if kind in ("texts", "numbers") else ""
    return ", ".join(f"\\fB{_text(term)}\\fR{value}" for term in terms), text + again


def _options(table: Sequence[options.Option]) -> str:
    return _rows(_option(option) for option in table if option[3])


def _bold(rows: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((f"\\fB{_text(term)}\\fR", text) for term, text in rows)


def _synopsis(name: str) -> str:
    command = options.COMMANDS[name]
    chosen = "[\\fIoption\\fR...] " if command.options else ""
    lines = [
        f"\\fBpyrunc\\fR [\\fIglobal option\\fR...] \\fB{name}\\fR {chosen}{_text(arguments)}".rstrip()
        for arguments in command.arguments.split(" | ")
    ]
    return "\n.br\n".join(lines) + "\n"


def verb_page(name: str) -> str:
    """Return the page of one command."""
    command = options.COMMANDS[name]
    page = f"pyrunc-{name}"
    more = f"\n{_text(help_pages.MORE[name])}" if name in help_pages.MORE else ""
    return (
        f"{_title(page)}.SH NAME\n{_text(page)} \\- {_text(command.summary)}\n"
        f".SH SYNOPSIS\n{_synopsis(name)}"
        f".SH DESCRIPTION\n{_text(command.summary[0].upper() + command.summary[1:])}.{more}\n"
        f".SH OPTIONS\n{_options((*command.options, options.GLOBALS[-1]))}"
        f"Global options are described in\n.BR pyrunc ({SECTION}).\n"
        f".SH EXIT STATUS\n{_text(_STATUS_OF.get(name, _STATUS))}\n"
        f".SH SEE ALSO\n.BR pyrunc ({SECTION})\n"
    )


def main_page() -> str:
    """Return the page of the program."""
    commands = [(f"pyrunc-{name}({SECTION})", row.summary) for name, row in options.COMMANDS.items()]
    about = help_pages.ABOUT.partition("The quickest")[0].replace("\n", " ").strip()
    return (
        f"{_title('pyrunc')}.SH NAME\npyrunc \\- OCI container runtime\n"
        ".SH SYNOPSIS\n\\fBpyrunc\\fR [\\fIglobal option\\fR...] \\fIcommand\\fR [\\fIoption\\fR...] "
        "[\\fIargument\\fR...]\n"
        f".SH DESCRIPTION\n{_text(about)}\n"
        f".SH COMMANDS\n{_rows(_bold(commands))}"
        f".SH GLOBAL OPTIONS\nThey stand before the command.\n{_options(options.GLOBALS)}"
        f".SH EXIT STATUS\n{_text(_STATUS)}\n"
        "The commands run, exec and restore hand on the status of the process.\n"
        f".SH ENVIRONMENT\n{_rows(_bold(ENVIRONMENT))}"
        f".SH FILES\n{_rows(_bold(FILES))}"
        ".SH SEE ALSO\n.BR runc (8),\n.BR crun (1),\n.BR criu (8),\n.BR newuidmap (1)\n"
    )


def _row(option: options.Option) -> str:
    name, short, kind, text = option
    value = f" {help_pages.METAVARS[kind]}" if kind in help_pages.METAVARS else ""
    terms = ", ".join(f"`{term}{value}`" for term in (f"--{name}", *([f"-{short}"] if short else [])))
    again = " (may be repeated)" if kind in ("texts", "numbers") else ""
    return f"| {terms} | {(text + again).replace('|', '/')} |\n"


def _table(table: Sequence[options.Option]) -> str:
    rows = "".join(_row(option) for option in table if option[3])
    return f"\n| option | meaning |\n|---|---|\n{rows}" if rows else ""


def markdown() -> str:
    """Return all commands on one page, for the site of the documentation."""
    text = f"# Commands\n\nGlobal options stand before the command.\n{_table(options.GLOBALS)}"
    for name, command in options.COMMANDS.items():
        words = ["pyrunc", name, *(["[option...]"] if command.options else [])]
        forms = "".join(
            f"{' '.join([*words, form])}\n".replace(" \n", "\n") for form in command.arguments.split(" | ")
        )
        summary = command.summary[0].upper() + command.summary[1:]
        more = f" {help_pages.MORE[name]}" if name in help_pages.MORE else ""
        status = f" {_STATUS_OF[name]}" if name in _STATUS_OF else ""
        text += f"\n## {name}\n\n{summary}.{more}\n\n```text\n{forms}```\n{_table(command.options)}"
        text += f"\nExit status:{status or f' {_STATUS}'}\n"
    return text


def pages() -> dict[str, str]:
    """Return all pages by the names of their files."""
    found = {f"pyrunc.{SECTION}": main_page()}
    return found | {f"pyrunc-{name}.{SECTION}": verb_page(name) for name in options.COMMANDS}


def completions() -> dict[str, str]:
    """Return the completions by the names of their files."""
    return {name: completion.installed(shell) for shell, name in COMPLETIONS.items()}


def main(argv: Sequence[str]) -> int:
    """Write all files below argv[0], or print the names of the pages."""
    if argv == ["--names"]:
        sys.stdout.write("".join(f"{name}\n" for name in pages()))
        return 0
    for name, text in (pages() | completions()).items():
        with open(os.path.join(argv[0], name), "w", encoding="utf-8") as stream:
            stream.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

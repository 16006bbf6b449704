"""Signal names and numbers of `kill`."""

from __future__ import annotations

import signal

import pytest

from pyrunc.cli import signals
from pyrunc.errors import UsageError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("9", 9),
        ("09", 9),
        ("64", 64),
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigkill", 9),
        ("Term", 15),
        ("RTMIN", 34),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmin+30", 64),
        ("RTMAX", 64),
        ("RTMAX-30", 34),
    ],
)
def test_good(text: str, number: int) -> None:
    """A signal by number or name, in any case, with or without SIG."""
    assert signals.number(text) == number


@pytest.mark.parametrize("name", [item.name for item in signal.Signals if "RT" not in item.name])
def test_every_name_of_the_system(name: str) -> None:
    """The names are those of the machine's own table."""
    assert signals.number(name) == getattr(signal, name)
    assert signals.number(name.removeprefix("SIG").lower()) == getattr(signal, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "65",
        "-1",
        "-9",
        " 9",
        "9 ",
        "+9",
        "0x9",
        "\u0669",
        "99999999999999999999",
        "SIG",
        "SIGSIGKILL",
        "XX",
        "SIG_IGN",
        "_IGN",
        "RTMIN-1",
        "RTMIN+31",
        "RTMIN+",
        "RTMIN++1",
        "RTMAX+0",
        "RTMAX-31",
        "RT",
        "KILL+1",
    ],
)
def test_bad(text: str) -> None:
    """Everything else is named and refused."""
    with pytest.raises(UsageError) as caught:
        signals.number(text)
    assert caught.value.message == f'unknown signal "{text}"'

"""What stands in C for the verbs that need no Python, and in Python for all others: both give the same answers."""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING

import pytest
from pyrunc._shim import ffi, lib

from pyrunc.cli import signals
from pyrunc.container import directory
from pyrunc.errors import StateError, UsageError, strerror
from pyrunc.kernel import container as kernel_container
from pyrunc.seccomp import profile

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable


def _signal(text: str) -> int:
    try:
        return signals.number(text)
    except UsageError:
        return -1


@pytest.mark.parametrize("prefix", ["", "SIG", "sig", "SIGSIG", "-"])
def test_signals_are_the_same_for_both_doors(prefix: str) -> None:
    """The C table and cli/signals.py agree on good and on bad names."""
    names = [str(number) for number in range(-2, 70)] + [
        "007",
        "1_0",
        "\u0661",
        " 9",
        "9 ",
        "+9",
        "9" * 30,
        "",
        "X",
    ]
    names += [name.removeprefix("SIG") for name in dir(signal) if name.startswith("SIG")]
    names += ["kill", "Kill", "kIlL", "UNUSED", "EMT", "rtmin", "RTMIN+0", "RTMIN+1", "RTMIN+15", "RTMIN+30"]
    names += [
        "RTMIN+31",
        "RTMIN-1",
        "RTMAX",
        "RTMAX-1",
        "RTMAX-30",
        "RTMAX-31",
        "RTMAX+1",
        "RTMIN+",
        "RTMIN+001",
    ]
    names += ["RTMIN+1 ", "RTMIN1", "_DFL", "_IGN", "TERM\n", "BLOCK"]
    answers = {
        name: (lib.container_signal_number((prefix + name).encode()), _signal(prefix + name))
        for name in names
    }
    assert {name: pair for name, pair in answers.items() if pair[0] != pair[1]} == {}


def _errno_text(number: int) -> str | None:
    text = lib.container_errno_text(number)
    return ffi.string(text).decode() if text else None


def test_errno_texts_are_the_same_for_both_doors() -> None:
    """musl words some of them differently from glibc, which Python uses."""
    known = {number: _errno_text(number) for number in errno.errorcode}
    assert {number: text for number, text in known.items() if text not in (None, strerror(number))} == {}
    assert known[errno.EBUSY] == "device or resource busy"
    assert _errno_text(0) is None


def _words(call: Callable[[], object]) -> tuple[str, str | None] | None:
    try:
        call()
    except StateError as error:
        return error.message, error.hint
    return None


@pytest.mark.parametrize(
    ("container_id", "good"),
    [
        *((name, True) for name in ("a", "A-b_c+d.e", "...", ".a", "-", "0", "a" * 255)),
        *(
            (name, False)
            for name in ("", ".", "..", "a/b", "a b", "a\n", "\u00e9", "\udcff", "@seccomp", "a" * 256)
        ),
    ],
)
def test_ids_are_the_same_for_both_doors(container_id: str, good: bool, tmp_path: pathlib.Path) -> None:
    """What create (in Python) takes for a name the verbs in C take, too, and both refuse with the same words."""
    made = _words(lambda: directory.check_id(container_id))
    asked = _words(lambda: kernel_container.state(str(tmp_path), container_id))
    assert asked is not None, "there is no such container"
    if good:
        assert (made, asked[0]) == (None, "container does not exist")
    else:
        assert made == asked
        assert "invalid container ID format" in asked[0]


def test_steps_of_seccomp() -> None:
    """What fails in the shim is told by a number, which Python words without the shim."""
    for name in ("DESCRIPTION", "LIBRARY", "DEFAULT", "ARCH", "RULE", "EXPORT"):
        assert getattr(profile, f"STEP_{name}") == getattr(lib, f"SHIM_SECCOMP_{name}"), name

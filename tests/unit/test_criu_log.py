"""What is made of CRIU's log when it fails."""

from __future__ import annotations

import pytest

from pyrunc.criu import log as criu_log


def log(*words: str) -> list[str]:
    """Lines of a log with these errors in it."""
    lines = [
        "(00.000001) Version: 3.17.1 (gitid 0)",
        "(00.000002) Warn  (criu/kerndat.c:1103): no $XDG_RUNTIME_DIR",
    ]
    lines += [
        f"(00.10000{number})    {number}: Error (criu/x.c:{number}): {word}"
        for number, word in enumerate(words)
    ]
    return [*lines, "(00.200000) net: Unlock network"]


def test_the_first_error_is_the_cause() -> None:
    """The later ones say what became of it."""
    lines = log("Something nobody has heard of", "Dump files (pid: 12) failed with -1", "Dumping FAILED.")
    assert criu_log.explain(lines) == ("Something nobody has heard of", None)


def test_a_known_cause_goes_first() -> None:
    """Also when CRIU went on for a while before it met it."""
    words, hint = criu_log.explain(log("Odd", "vdso: Unexpected rt vDSO area bounds", "Dumping FAILED."))
    assert words == "vdso: Unexpected rt vDSO area bounds"
    assert hint is not None
    assert "newer CRIU" in hint


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("Connected TCP socket, consider using --tcp-established option.", "--tcp-established"),
        ("External socket is used. Consider using --ext-unix-sk option.", "--ext-unix-sk"),
        (
            "Some file locks are hold by dumping tasks! You can try --file-locks to dump them.",
            "--file-locks",
        ),
        ("The 12 task is not a session leader", "--shell-job"),
        ("Can't dump ghost file /x of 2097152 size, increase limit", "ghost-limit"),
        ("Can't lookup mount=24 for fd=0 path=/dev/null", "not by the configuration"),
        ("No mapping for 12:(null) mountpoint", "same bind mounts"),
        (
            "Locking network failed: iptables-restore returned -1. This may be connected to disabled",
            "iptables",
        ),
        ("Unable to find an external netns: extRootNetNS", "must be there"),
    ],
)
def test_known_causes_have_a_hint(words: str, hint: str) -> None:
    """The messages are CRIU's own."""
    found = criu_log.explain(log(words))
    assert found[0] == words
    assert hint in (found[1] or "")


def test_no_error_no_cause() -> None:
    """A log without one, or none at all."""
    assert criu_log.explain(log()) == ("", None)
    assert criu_log.explain([]) == ("", None)


def test_names_of_the_container_cannot_write_on_the_terminal() -> None:
    """A file's name may hold control characters, and be long."""
    (words,) = criu_log.errors(log("Can't open \x1b]0;owned\x07" + "x" * 1000))
    assert words.startswith("Can't open ?]0;owned?x")
    assert len(words) == 300


def test_what_criu_does_without_is_no_cause() -> None:
    """The first error is often none."""
    lines = [
        "(00.000630) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted",
        "(00.001000) Error (criu/protobuf.c:76): Unexpected EOF on core-1.img",
    ]
    assert criu_log.explain(lines) == ("Unexpected EOF on core-1.img", None)
    assert criu_log.explain(lines[:1]) == ("", None)

"""PURE: the parts of a wait status. waitpid(2)."""

from __future__ import annotations


def signal(status: int) -> int:
    """Return the signal that killed the process, 0 if it exited."""
    return status & 0x7F


def exit_code(status: int) -> int:
    """Return the exit code of the process, if it exited."""
    return status >> 8 & 0xFF


def shell(status: int) -> int:
    """Return the exit code, or 128 + the signal, as shells and runc do."""
    return 128 + signal(status) if signal(status) else exit_code(status)

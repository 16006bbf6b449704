"""PURE: what a wait status says. waitpid(2)."""

from __future__ import annotations


def signal(status: int) -> int:
    """The signal that killed the process, 0 if it exited."""
    return status & 0x7F


def exit_code(status: int) -> int:
    """What the process exited with, if it did."""
    return status >> 8 & 0xFF


def shell(status: int) -> int:
    """The exit code, or 128 + the signal, as shells count and as runc exits."""
    return 128 + signal(status) if signal(status) else exit_code(status)

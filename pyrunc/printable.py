"""PURE: escapes untrusted text for terminals and for readers of lines.

Names, messages and output come from images, hooks, containers and other programs: an escape sequence in them would
move the cursor or change the window's title, a line feed would begin a line that looks like our own. The rule is
Python's str.isprintable(), which also refuses C1 controls, line separators and what changes the direction of text.
"""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# os.fsdecode turns bytes that are not UTF-8 into these.
_FIRST_BYTE, _LAST_BYTE, _BYTE_OFFSET = "\udc80", "\udcff", 0xDC00


def _escape(char: str) -> str:
    code = ord(char)
    if _FIRST_BYTE <= char <= _LAST_BYTE:
        code -= _BYTE_OFFSET
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(text: str) -> str:
    """Return `text` on one line; what is not printable is escaped as in Python and C. A backslash stays as it is."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else _SHORT.get(char) or _escape(char) for char in text])


def lines(text: str) -> str:
    """Do the same for text of several lines: line feeds and tabs stay."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() or char in "\n\t" else _escape(char) for char in text])

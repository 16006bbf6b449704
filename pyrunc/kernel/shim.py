"""The cffi module: a check of its version, and its answers as errors.

All of kernel/ calls C through it. Every function raises KernelError.
"""

from __future__ import annotations

import os

from pyrunc import __version__
from pyrunc._shim import ffi, lib
from pyrunc.errors import InternalError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

if (_built := ffi.string(lib.shim_version()).decode()) != __version__:
    raise InternalError(f"the shim is of version {_built}, pyrunc of {__version__}")


def check(answer: int, syscall: str, arg: str | None = None) -> int:
    """Return the answer of a system call. Raise KernelError for -errno."""
    if answer < 0:
        raise KernelError(syscall, -answer, arg)
    return answer


def check_words(answer: int, words: object) -> int:
    """Return the answer of several calls. Raise KernelError, which names the one that failed."""
    if answer >= 0:
        return answer
    call = ffi.string(words.call).decode()  # type: ignore[attr-defined]
    text = os.fsdecode(ffi.string(words.text)).strip()  # type: ignore[attr-defined]
    raise KernelError(call, -answer, text or None)


def c_strings(texts: Sequence[str]) -> tuple[object, object]:
    """Return a char *[] and the objects that must exist as long as it does."""
    held = [ffi.new("char[]", os.fsencode(text)) for text in texts]
    return ffi.new("char *[]", [*held, ffi.NULL]), held

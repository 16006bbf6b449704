"""The verb `version`."""

from __future__ import annotations

import sys

from pyrunc import RUNC_LEVEL, SPEC_VERSION, __version__

TYPE_CHECKING = False


def version() -> str:
    """Return what --version prints.

    go-runc expects `runc version ` first. moby reads what follows `version` in the last line that has the word, and
    what follows `commit: `, both up to the end of the line. Hence runc's name; ours is the build metadata of the
    semantic version.
    """
    lines = [
        f"runc version {RUNC_LEVEL}+pyrunc.{__version__}",
        f"commit: v{__version__}",
        f"spec: {SPEC_VERSION}",
        f"python: {sys.version.split()[0]}",
    ]
    from pyrunc.kernel import seccomp as kernel_seccomp

    libseccomp = kernel_seccomp.version()
    if libseccomp:
        lines.append(f"libseccomp: {libseccomp}")
    return "\n".join(lines) + "\n"

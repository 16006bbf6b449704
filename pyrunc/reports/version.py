"""The verb `version`."""

from __future__ import annotations

import sys

from pyrunc import RUNC_LEVEL, SPEC_VERSION, __version__

TYPE_CHECKING = False


def version() -> str:
    """What --version prints.

    go-runc wants `runc version ` first, moby what stands behind the word `version` of the last line with it and a
    `commit: `, both read up to the line's end: hence runc's name, and ours as a semantic version's build metadata.
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

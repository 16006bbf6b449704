"""PURE: device nodes, links and default devices. config-linux.md "Devices", runtime-linux.md "Dev symbolic links"."""

from __future__ import annotations

S_IFIFO = 0o010000
S_IFCHR = 0o020000
S_IFBLK = 0o060000
DEFAULT_MODE = 0o666

# devices[].type -> file type; "u" is an unbuffered character device, mknod(1).
TYPES: dict[str, int] = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}

# config-linux.md "Default Devices": what a container MUST have besides console and ptmx: path, major, minor.
DEFAULTS: tuple[tuple[str, int, int], ...] = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
PTMX = ("pts/ptmx", "/dev/ptmx")

# (text, path): "MUST ... if the source exists". core is what runc and crun add.
LINKS: tuple[tuple[str, str], ...] = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
)


def mode(kind: str, file_mode: int | None) -> int:
    """st_mode of a node: engines put the file type into fileMode as well, so that only the permission bits count."""
    return TYPES[kind] | (DEFAULT_MODE if file_mode is None else file_mode & 0o7777)

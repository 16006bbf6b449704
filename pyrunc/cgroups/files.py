"""Reading and writing cgroup files, with errors that name the JSON path behind them.

May be imported by the cgroups package. Imports errors and resources only.
"""

from __future__ import annotations

import errno
import os

from pyrunc.errors import ConfigError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.cgroups.resources import Write

    Number = int | float
    Stat = Number | dict[str, Number]

CGROUPS_PATH = "$.linux.cgroupsPath"
UNLIMITED = (1 << 64) - 1


def read(path: str) -> str:
    """The whole file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def write(path: str, value: str) -> None:
    """One write(2) per line, because cgroup files take one value per call. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for line in value.split("\n"):
            os.write(fd, line.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)


def _explained(
    directory: str, item: Write, file: str, value: str, error: OSError
) -> KernelError | ConfigError:
    number = error.errno or 0
    path = f"{directory}/{file}"
    if number == errno.EBUSY and file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        used = read(path.replace(".limit_", ".usage_")).strip()
        peak = read(path.replace(".limit_", ".max_usage_")).strip()
        text = f"unable to set memory limit to {value} (current usage: {used}, peak usage: {peak})"
        return ConfigError(text, path=item.path)
    hint = f"the value was '{value}'"
    if file in ("cpuset.cpus", "cpuset.mems"):
        try:
            hint += f"; the parent cgroup has '{read(f'{os.path.dirname(directory)}/{file}').strip()}'"
        except OSError:
            pass
    return KernelError("write", number, path, path=item.path, hint=hint)


def _put(directory: str, item: Write) -> OSError | None:
    """Write one item; the error when it may be tried again, None when done. Raises KernelError, ConfigError."""
    for file, value in item.choices:
        try:
            write(f"{directory}/{file}", value)
        except OSError as error:
            # EACCES, EPERM: O_WRONLY on a name that is not there, in a directory where nobody can create one.
            if error.errno == errno.ENOENT or not os.access(f"{directory}/{file}", os.F_OK):
                continue
            if item.again and error.errno == errno.EINVAL:
                return error
            raise _explained(directory, item, file, value, error) from error
        else:
            return None
    if item.optional:
        return None
    names = "' or '".join([file for file, _ in item.choices])
    raise ConfigError(
        f"no file '{names}' in '{directory}'",
        path=item.path,
        hint=f"the kernel or the parent cgroup does not offer this part of the {item.controller} controller",
    )


def put_all(items: Sequence[tuple[str, Write]]) -> None:
    """Write (directory, item) pairs in order, then once more what the kernel refused for the sake of a later one."""
    for directory, item in items:
        if item.below:
            _check_below(directory, item)
    refused = [(directory, item) for directory, item in items if _put(directory, item)]
    for directory, item in refused:
        error = _put(directory, item)
        if error:
            raise _explained(directory, item, item.file, item.value, error) from error


def _check_below(directory: str, item: Write) -> None:
    try:
        used = int(read(f"{directory}/{item.below}"))
    except OSError:
        return  # not created yet: nothing is used
    if used >= int(item.value):
        raise ConfigError(f"rejecting memory limit {item.value} <= usage {used}", path=item.path)


def read_pids(directory: str) -> list[int]:
    """The processes of one cgroup; none when it is gone. Raises KernelError."""
    for name in ("cgroup.procs", "cgroup.threads"):
        try:
            return [int(line) for line in read(f"{directory}/{name}").split()]
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return []
            if error.errno != errno.EOPNOTSUPP:  # a threaded cgroup lists threads only
                raise KernelError("read", error.errno or 0, f"{directory}/{name}") from error
    return []


def children(directory: str) -> list[str]:
    """The child cgroups. Their number is in the link count, which saves listing the files of a leaf."""
    try:
        if os.stat(directory).st_nlink <= 2:
            return []
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def tree_pids(directory: str) -> list[int]:
    """The processes of a cgroup and all below it."""
    pids = read_pids(directory)
    for child in children(directory):
        pids += tree_pids(child)
    return pids


def _as_number(text: str) -> Number | None:
    if text == "max":
        return UNLIMITED
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def parse_stat(text: str) -> Stat | None:
    """A number for a file that holds one ("max" = 2^64-1), else "words in front" -> number; None for other texts.

    "8:0 Read 5" gives {"8:0 Read": 5}, "8:0 rbytes=5 wbytes=6" gives {"8:0 rbytes": 5, "8:0 wbytes": 6}.
    """
    lines = text.strip().split("\n")
    if len(lines) == 1 and " " not in lines[0]:
        return _as_number(lines[0])
    table: dict[str, Number] = {}
    for line in lines:
        words = line.split()
        if any("=" in word for word in words):
            for word in words[1:]:
                key, _, value = word.partition("=")
                number = _as_number(value)
                if number is not None:
                    table[f"{words[0]} {key}"] = number
        elif len(words) > 1:
            number = _as_number(words[-1])
            if number is not None:
                table[" ".join(words[:-1])] = number
    return table

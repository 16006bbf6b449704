"""Reading and writing cgroup files, with errors that name the JSON path behind them."""

from __future__ import annotations

import errno
import os
import time

from pyrunc.errors import ConfigError, KernelError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.cgroups.resources import Write


CGROUPS_PATH = "$.linux.cgroupsPath"
# New cgroups can appear as fast as they are found.
_WALK_SECONDS = 30


def read(path: str, directory: int | None = None) -> str:
    """Return the whole file, by a path relative to `directory` if that is given. Raise OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def write(path: str, value: str) -> None:
    """One write(2) per line, because cgroup files take one value per call. Raise OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # Without any byte nothing would be written; an empty line clears the file.
        for line in value.split("\n") if value else ("\n",):
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
            # On v2 an empty file means the value of the parent.
            inherited = read(f"{os.path.dirname(directory)}/{file}").strip()
            hint += f"; the parent cgroup has '{inherited}'" if inherited else ""
        except OSError:
            pass
    if number == errno.EINVAL and file == "memory.limit_in_bytes":
        both = read(f"{directory}/memory.memsw.limit_in_bytes").strip()
        hint += f"; memory and swap together are limited to {both}: set memory.swap as well"
    return KernelError("write", number, path, path=item.path, hint=hint)


def _put(directory: str, item: Write) -> OSError | None:
    """Write one item. Return the error if it may be tried again, else None. Raise KernelError, ConfigError."""
    for file, value in item.choices:
        try:
            write(f"{directory}/{file}", value)
        except OSError as error:
            # EACCES, EPERM: O_WRONLY on a name that does not exist, in a directory where files cannot be created.
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
    """Write (directory, item) pairs in order, then retry those that needed a later one to be written first."""
    refused = [(directory, item) for directory, item in items if _put(directory, item)]
    for directory, item in refused:
        error = _put(directory, item)
        if error:
            raise _explained(directory, item, item.file, item.value, error) from error


_RESET = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "rdma.max": "hca_handle=max hca_object=max",
}


def _undoing(file: str, written: str, old: str) -> str | None:
    """Return what to write to `file` to get from `written` back to the text `old`; None for nothing."""
    lines = old.strip().split("\n")
    if file == "memory.oom_control":
        return lines[0].removeprefix("oom_kill_disable ")
    if file == "cpu.max" or " " not in written:
        # cpu.weight reads 0 for an idle group, but cannot be set to 0.
        return None if (file, old.strip()) == ("cpu.weight", "0") else lines[0]
    found = []
    for key in [line.split(" ")[0] for line in written.split("\n")]:
        here = [line for line in lines if line.startswith(f"{key} ")]
        nothing = _RESET.get(file) or ("0" if ".throttle." in file else "default")
        found.append(here[0] if here else f"{key} {nothing}")
    return "\n".join(found)


def _saved(directory: str, item: Write) -> Write | None:
    for file, value in item.choices:
        try:
            old = read(f"{directory}/{file}")
        except OSError:
            continue
        text = _undoing(file, value, old)
        return None if text is None else item.with_choice(file, text)
    return None


def saved(items: Sequence[tuple[str, Write]]) -> list[tuple[str, Write]]:
    """Return (directory, item) pairs that restore the present values of `items`, in order."""
    found = []
    for directory, item in reversed(items):
        was = _saved(directory, item)
        if was is not None:
            found.append((directory, was))
    return found


def restore(items: Sequence[tuple[str, Write]], reason: BaseException) -> None:
    """Write what saved() found; failures become notes on `reason`."""
    for _ in range(2):  # a value may need a later one to be written first
        refused = []
        for directory, item in items:
            try:
                if _put(directory, item):
                    refused.append((directory, item))
            except (KernelError, ConfigError) as error:
                reason.add_note(f"while going back: {error}")
        items = refused
    for directory, item in items:
        reason.add_note(f"while going back: '{directory}/{item.file}' does not take {item.value!r}")


def check_all(items: Sequence[tuple[str, Write]]) -> None:
    """Raise ConfigError if (directory, item) pairs must not be written with the present usage."""
    for directory, item in items:
        if not item.below:
            continue
        try:
            used = int(read(f"{directory}/{item.below}"))
        except FileNotFoundError:
            continue  # not created yet: nothing is used
        except OSError as error:
            raise KernelError("read", error.errno or 0, f"{directory}/{item.below}") from error
        if used >= int(item.value):
            raise ConfigError(f"rejecting memory limit {item.value} <= usage {used}", path=item.path)


def _gone(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENODEV)


def _pids(directory: int | None, name: str) -> list[int]:
    for file in ("cgroup.procs", "cgroup.threads"):
        try:
            return [int(line) for line in read(f"{name}/{file}", directory).split()]
        except OSError as error:
            if _gone(error):
                return []
            if error.errno != errno.EOPNOTSUPP:  # a threaded cgroup lists threads only
                raise KernelError("read", error.errno or 0, f"{name}/{file}") from error
    return []


def read_pids(directory: str) -> list[int]:
    """Return the processes of one cgroup; none if it does not exist. Raise KernelError."""
    return _pids(None, directory)


def _names_below(directory: int) -> list[str]:
    """Return the names of the child cgroups. Their number is the link count, which saves listing a leaf."""
    if os.fstat(directory).st_nlink <= 2:
        return []
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


class _Walk:
    """The position of tree_pids(): a container can nest cgroups deeper than any path reaches."""

    __slots__ = ("at", "levels", "pids")

    def __init__(self) -> None:
        self.at = -1
        self.levels: list[list[str]] = []
        self.pids: list[int] = []

    def go(self, name: str) -> None:
        """Raise OSError."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        there = os.open(name, flags, dir_fd=self.at if self.at >= 0 else None)
        self.close()
        self.at = there

    def enter(self, name: str) -> None:
        """Do nothing if it does not exist. Raise KernelError."""
        try:
            self.go(name)
            self.levels.append([])
            self.pids += _pids(self.at, ".")
            self.levels[-1] = _names_below(self.at)
        except OSError as error:
            if not _gone(error):
                raise KernelError("read", error.errno or 0, name) from error

    def close(self) -> None:
        if self.at >= 0:
            os.close(self.at)
        self.at = -1


def tree_pids(directory: str) -> list[int]:
    """Return the processes of a cgroup and of all below it. Raise KernelError."""
    walk = _Walk()
    deadline = time.monotonic() + _WALK_SECONDS
    try:
        walk.enter(directory)
        while walk.levels:
            if time.monotonic() > deadline:
                raise KernelError("read", errno.ETIME, directory)
            if walk.levels[-1]:
                walk.enter(walk.levels[-1].pop())
                continue
            walk.levels.pop()
            if walk.levels:
                walk.go("..")
    except OSError as error:
        raise KernelError("open", error.errno or 0, directory) from error
    finally:
        walk.close()
    return walk.pids


def oom_kills(directories: Sequence[tuple[str, str]]) -> int:
    """Return how many processes the kernel has killed for lack of memory in one of these (controller, directory).

    From memory.events of v2 or memory.oom_control of v1; 0 if memory is not controlled.
    """
    for _, directory in directories:
        for name in ("memory.events", "memory.oom_control"):
            try:
                with open(f"{directory}/{name}", encoding="ascii") as file:
                    lines = file.read().splitlines()
            except OSError:
                continue
            for line in lines:
                if line.startswith("oom_kill "):
                    return int(line.removeprefix("oom_kill "))
    return 0


def absent(path: str) -> list[str]:
    """Return the directories on the way to `path` that do not exist, parents first."""
    missing: list[str] = []
    while not os.access(path, os.F_OK):
        missing.append(path)
        path = os.path.dirname(path)
    missing.reverse()
    return missing


def make(path: str, target: str, made: list[str]) -> None:
    """Make a directory on the way to `target` that did not exist a moment ago, and append it to `made`.

    Raise OSError, or StateError if it is the target and another process has made it: the two containers would share
    it.
    """
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if path == target:
            hint = f"'{path}' was made by another process; every container needs a cgroupsPath of its own"
            raise StateError("container's cgroup is used by others", path=CGROUPS_PATH, hint=hint) from None
    else:
        made.append(path)


def refuse_used(path: str) -> None:
    """Raise StateError if a process is in the cgroup or in one below it."""
    count = len(tree_pids(path))
    if count:
        raise StateError(
            f"container's cgroup is not empty: {count} process(es) found",
            path=CGROUPS_PATH,
            hint=f"'{path}' is in use by others; every container needs a cgroupsPath of its own",
        )

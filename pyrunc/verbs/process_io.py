"""The descriptors and the pid file of a new process."""

from __future__ import annotations

import os

from pyrunc.errors import KernelError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.requests import ProcessOptions


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def extra_fds(options: ProcessOptions) -> tuple[int, list[str]]:
    """How many descriptors from 3 on the program gets, and what goes into its environment for socket activation.

    LISTEN_FDS of our own environment comes first (sd_listen_fds(3)), then --preserve-fds. Raise StateError if one
    of them was not passed to us: a descriptor of ours may have its number.
    """
    listen, listen_pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "0")
    # No table of descriptors has more than nine digits; int() has a limit of its own.
    listening = int(listen[:9]) if _is_number(listen) and _is_number(listen_pid) else 0
    count = listening + options.preserve_fds
    for fd in range(3, 3 + count):
        try:
            # All of ours are close-on-exec, and none that came through an exec is.
            passed = os.get_inheritable(fd)
        except OSError:
            passed = False
        if not passed:
            raise StateError(
                f"cannot preserve file descriptor {fd}: it is not open",
                hint="check --preserve-fds and LISTEN_FDS",
            )
    return count, [f"LISTEN_FDS={listening}", "LISTEN_PID=1"] if listening else []


def check_pid_file(path: str, directory: int | None = None) -> None:
    """Whether write_pid_file() may replace what is at `path`: a file, or nothing. "" is no pid file. Raise StateError.

    Not a link either: that would be /dev/stdout, and a device /dev/null. `directory` is the one that it is in, if it is
    open. Raise KernelError if that cannot be found out.
    """
    if not path:
        return
    from stat import S_ISREG

    try:
        name = path if directory is None else os.path.basename(path)
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise KernelError("lstat", error.errno or 0, path, hint="the pid file cannot be written") from error
    if not S_ISREG(mode):
        raise StateError(
            f"the pid file '{path}' is no regular file", hint="it is left as it is; give another name"
        )


def _open_folder(path: str) -> int:
    return os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def write_pid_file(path: str, pid: int) -> Callable[[], None]:
    """Write the pid file atomically, without a newline (go-runc's Atoi). Raise KernelError, StateError.

    Return a function that removes it, but not another file of its name. The directory is looked up once: its owner may
    replace it by a link at any moment.
    """
    call, name = "open", os.path.basename(path)
    # Others may write there: an unpredictable name, which no earlier runtime has left either.
    temporary = f".pyrunc-{os.urandom(8).hex()}"
    folder = -1
    try:
        folder = _open_folder(path)
        check_pid_file(path, folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(temporary, flags, 0o644, dir_fd=folder)
        try:
            call = "write"
            os.write(fd, b"%d" % pid)
            call = "rename"
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            written = os.fstat(fd)
        except OSError:
            _try_unlink(temporary, folder)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(call, error.errno or 0, path, hint="the pid file cannot be written") from error
    finally:
        if folder >= 0:
            os.close(folder)
    return lambda: _drop_pid_file(path, written)


def _try_unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        pass  # it was removed by others; the original error has the reason


def _drop_pid_file(path: str, written: os.stat_result) -> None:
    """Remove the file that was written, if it is still there. Raise OSError."""
    folder = _open_folder(path)
    try:
        name = os.path.basename(path)
        try:
            if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), written):
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
    finally:
        os.close(folder)

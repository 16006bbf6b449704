"""What a caller asks of `runtime`: plain values, one class per kind of request, no behaviour.

May be imported by every module (also by users of the Python API); imports nothing. Every attribute has the default
of the command line, so `CreateOptions()` is `pyrunc create ID` without options.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_ROOT = "/run/pyrunc"


class Context:
    """What holds for every operation: the global options.

    `root` is absolute; `root_explicit` tells that the caller chose it. `cgroup_manager` is "cgroupfs", "systemd" or
    "disabled" and agrees with `systemd_cgroup`. `rootless` is None for "find out". `log` is the path of the log file,
    "" for stderr, already set up in `log.py`.
    """

    __slots__ = ("cgroup_manager", "debug", "log", "root", "root_explicit", "rootless", "systemd_cgroup")

    def __init__(
        self,
        root: str = DEFAULT_ROOT,
        *,
        root_explicit: bool = False,
        systemd_cgroup: bool = False,
        cgroup_manager: str = "cgroupfs",
        rootless: bool | None = None,
        debug: bool = False,
        log: str = "",
    ) -> None:
        self.root = root
        self.root_explicit = root_explicit
        self.systemd_cgroup = systemd_cgroup or cgroup_manager == "systemd"
        self.cgroup_manager = "systemd" if self.systemd_cgroup else cgroup_manager
        self.rootless = rootless
        self.debug = debug
        self.log = log


class ProcessOptions:
    """What create, run and exec share: where the process's terminal, pid and descriptors go.

    "" is none. `pid_file` is absolute; the sockets are as given, as a longer path may not fit a socket address.
    `preserve_fds` counts the descriptors from 3 (behind those of LISTEN_FDS) that the process inherits.
    """

    __slots__ = ("console_socket", "pid_file", "pidfd_socket", "preserve_fds")

    def __init__(
        self, *, console_socket: str = "", pidfd_socket: str = "", pid_file: str = "", preserve_fds: int = 0
    ) -> None:
        self.console_socket = console_socket
        self.pidfd_socket = pidfd_socket
        self.pid_file = pid_file
        self.preserve_fds = preserve_fds


class CreateOptions(ProcessOptions):
    """Options of create."""

    __slots__ = ("no_new_keyring", "no_pivot")

    def __init__(
        self,
        *,
        console_socket: str = "",
        pidfd_socket: str = "",
        pid_file: str = "",
        preserve_fds: int = 0,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
    ) -> None:
        super().__init__(
            console_socket=console_socket,
            pidfd_socket=pidfd_socket,
            pid_file=pid_file,
            preserve_fds=preserve_fds,
        )
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring


class RunOptions(CreateOptions):
    """Options of run: those of create, and what happens once the program runs.

    Not `detach`: wait for the program and return its status. `keep`: leave the stopped container behind.
    `no_subreaper`: do not adopt the container's orphans while waiting.
    """

    __slots__ = ("detach", "keep", "no_subreaper")

    def __init__(
        self,
        *,
        console_socket: str = "",
        pidfd_socket: str = "",
        pid_file: str = "",
        preserve_fds: int = 0,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        detach: bool = False,
        keep: bool = False,
        no_subreaper: bool = False,
    ) -> None:
        super().__init__(
            console_socket=console_socket,
            pidfd_socket=pidfd_socket,
            pid_file=pid_file,
            preserve_fds=preserve_fds,
            no_pivot=no_pivot,
            no_new_keyring=no_new_keyring,
        )
        self.detach = detach
        self.keep = keep
        self.no_subreaper = no_subreaper


class ExecOptions(ProcessOptions):
    """Options of exec.

    With `process` (path of a file with one OCI process object) the options from `args` to `process_label` are not
    looked at; `tty` neither: the file's `terminal` counts. Without, `execspec.build` makes the process object from
    the container's own one and these. `user` is "UID" or "UID:GID" in digits. `no_new_privs` is None when not given.
    `cgroup` holds (controller, path) pairs, the controller "" for v2 (or the only) hierarchy.
    """

    __slots__ = (
        "additional_gids",
        "apparmor",
        "args",
        "cap",
        "cgroup",
        "cwd",
        "detach",
        "env",
        "ignore_paused",
        "no_new_privs",
        "process",
        "process_label",
        "tty",
        "user",
    )

    def __init__(
        self,
        *,
        process: str = "",
        args: Sequence[str] = (),
        console_socket: str = "",
        pidfd_socket: str = "",
        pid_file: str = "",
        preserve_fds: int = 0,
        detach: bool = False,
        tty: bool = False,
        cwd: str = "",
        env: Sequence[str] = (),
        user: str = "",
        additional_gids: Sequence[int] = (),
        process_label: str = "",
        apparmor: str = "",
        no_new_privs: bool | None = None,
        cap: Sequence[str] = (),
        cgroup: Sequence[tuple[str, str]] = (),
        ignore_paused: bool = False,
    ) -> None:
        super().__init__(
            console_socket=console_socket,
            pidfd_socket=pidfd_socket,
            pid_file=pid_file,
            preserve_fds=preserve_fds,
        )
        self.process = process
        self.args = list(args)
        self.detach = detach
        self.tty = tty
        self.cwd = cwd
        self.env = list(env)
        self.user = user
        self.additional_gids = list(additional_gids)
        self.process_label = process_label
        self.apparmor = apparmor
        self.no_new_privs = no_new_privs
        self.cap = list(cap)
        self.cgroup = list(cgroup)
        self.ignore_paused = ignore_paused

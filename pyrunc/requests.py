"""What a caller asks of `runtime`: plain values, one class per kind of request, no behaviour.

Every attribute has the default of the command line, so `CreateOptions()` is `pyrunc create ID` without options.
Attributes are named as the options are, with "_" for "-": that is how cli/verbs.py fills them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import dataclass_transform
else:

    def dataclass_transform(**_):
        """For type checkers: the classes below are made as dataclasses are, whose module costs 13 ms to import."""
        return lambda cls: cls


DEFAULT_ROOT = "/run/pyrunc"


class Context:
    """What holds for every operation: the global options.

    `root` is absolute; `root_explicit` tells that the caller chose it. `cgroup_manager` is "cgroupfs", "systemd" or
    "disabled" and agrees with `systemd_cgroup`. `rootless` is None for "find out". `resctrl` is where that file system
    is mounted, "" for "find out".
    """

    __slots__ = (
        "cgroup_manager",
        "resctrl",
        "root",
        "root_explicit",
        "rootless",
        "systemd_cgroup",
    )

    def __init__(
        self,
        root: str = DEFAULT_ROOT,
        *,
        root_explicit: bool = False,
        systemd_cgroup: bool = False,
        cgroup_manager: str = "cgroupfs",
        rootless: bool | None = None,
        resctrl: str = "",
    ) -> None:
        self.root = root
        self.root_explicit = root_explicit
        self.systemd_cgroup = systemd_cgroup or cgroup_manager == "systemd"
        self.cgroup_manager = "systemd" if self.systemd_cgroup else cgroup_manager
        self.rootless = rootless
        self.resctrl = resctrl


@dataclass_transform(kw_only_default=True)
class _Request:
    """Keyword arguments become attributes; those that are not given keep the class's value."""

    def __init__(self, **given: object) -> None:
        for name, value in given.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no option '{name}'")
            setattr(self, name, value)


class ProcessOptions(_Request):
    """What create, run and exec share: where the process's terminal, pid and descriptors go.

    "" is none. `pid_file` is absolute; the sockets are as given. `preserve_fds` counts the descriptors from 3 (behind
    those of LISTEN_FDS) that the process inherits.
    """

    console_socket: str = ""
    pidfd_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0


class CreateOptions(ProcessOptions):
    """Options of create. `record_exit`: a small process stays and keeps the exit status for a later wait.

    `config` is the path of the configuration, "" for the bundle's config.json.
    """

    config: str = ""
    no_pivot: bool = False
    no_new_keyring: bool = False
    record_exit: bool = False


class RunOptions(CreateOptions):
    """Options of run: those of create, and what happens once the program runs.

    Not `detach`: wait for the program and return its status. `keep`: leave the stopped container behind.
    `no_subreaper`: do not adopt the container's orphans while waiting; only commands do, whose children are all theirs.
    """

    detach: bool = False
    keep: bool = False
    no_subreaper: bool = False


class ExecOptions(ProcessOptions):
    """Options of exec.

    With `process` (path of a file with one OCI process object) the options from `args` to `process_label` are not
    looked at; `tty` neither: the file's `terminal` counts. Without, `exec_process.build` makes the process object from
    the container's own one and these. `user` is "UID" or "UID:GID" in digits. `no_new_privs` is None when not given.
    `cgroup` holds (controller, path) pairs, the controller "" for v2 (or the only) hierarchy.
    """

    process: str = ""
    args: Sequence[str] = ()
    detach: bool = False
    tty: bool = False
    cwd: str = ""
    env: Sequence[str] = ()
    user: str = ""
    additional_gids: Sequence[int] = ()
    process_label: str = ""
    apparmor: str = ""
    no_new_privs: bool | None = None
    cap: Sequence[str] = ()
    cgroup: Sequence[tuple[str, str]] = ()
    ignore_paused: bool = False


class CriuOptions(_Request):
    """What checkpoint and restore share. Paths are absolute; "" is CRIU's or the runtime's own choice.

    `image_path` is the directory of the images, `work_path` that of CRIU's log (default: the images'). `empty_ns` are
    types of namespaces that are made without what is in them; network is always one, as engines set it up anew.
    """

    image_path: str = ""
    work_path: str = ""
    tcp_established: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    lazy_pages: bool = False
    manage_cgroups_mode: str = ""
    empty_ns: Sequence[str] = ()
    auto_dedup: bool = False
    network_lock: str = ""


class CheckpointOptions(CriuOptions):
    """Options of checkpoint.

    `parent_path` is relative to `image_path`. `status_fd`, -1 for none, gets a null byte when lazy pages are ready.
    `page_server` is "ADDRESS:PORT". `pre_dump` saves memory only and lets the container run on.
    """

    parent_path: str = ""
    leave_running: bool = False
    tcp_skip_in_flight: bool = False
    link_remap: bool = False
    status_fd: int = -1
    page_server: str = ""
    pre_dump: bool = False


class RestoreOptions(CriuOptions):
    """Options of restore. Not `detach`: wait for the program and return its status; the others are those of run."""

    console_socket: str = ""
    pid_file: str = ""
    detach: bool = False
    no_pivot: bool = False
    no_subreaper: bool = False
    tcp_close: bool = False
    lsm_profile: str = ""
    lsm_mount_context: str = ""

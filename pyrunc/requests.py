"""The requests to `runtime`: plain values, one class per kind of request, no behaviour.

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
        """Tell type checkers that the classes below work like dataclasses, whose module costs 13 ms to import."""
        return lambda cls: cls


DEFAULT_ROOT = "/run/pyrunc"


class Context:
    """The global options, which apply to every operation.

    `root` is absolute; `root_explicit` is true if the caller chose it. `cgroup_manager` is "cgroupfs", "systemd" or
    "disabled" and agrees with `systemd_cgroup`. `rootless` is None for automatic. `resctrl` is the mount point of that
    file system, "" for automatic.
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
    """Keyword arguments become attributes; the others keep the default of the class."""

    def __init__(self, **given: object) -> None:
        for name, value in given.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no option '{name}'")
            setattr(self, name, value)


class ProcessOptions(_Request):
    """The options that create, run and exec share: terminal, pid file and descriptors of the process.

    "" means none. `pid_file` is absolute; the sockets are as given. `preserve_fds` is how many descriptors from 3 on
    (after those of LISTEN_FDS) the process inherits.
    """

    console_socket: str = ""
    pidfd_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0


class CreateOptions(ProcessOptions):
    """The options of create.

    `record_exit`: a small process stays and records the exit status for a later wait. `config` is the path of the
    configuration, "" for the bundle's config.json.
    """

    config: str = ""
    no_pivot: bool = False
    no_new_keyring: bool = False
    record_exit: bool = False


class RunOptions(CreateOptions):
    """The options of run: those of create, and what happens once the program runs.

    Without `detach` run waits for the program and returns its status. `keep`: do not delete the container afterwards.
    `no_subreaper`: do not adopt the container's orphans while waiting. Only commands adopt them, as a process that
    uses the Python API may have other children.
    """

    detach: bool = False
    keep: bool = False
    no_subreaper: bool = False


class ExecOptions(ProcessOptions):
    """The options of exec.

    With `process` (path of a file with one OCI process object) the options from `args` to `process_label` are ignored,
    and so is `tty`: the file's `terminal` counts. Without it `exec_process.build` makes the process object from the
    container's own one and these options. `user` is "UID" or "UID:GID" in digits. `no_new_privs` is None if not given.
    `cgroup` holds (controller, path) pairs, the controller "" for the v2 (or the only) hierarchy.
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
    """The options that checkpoint and restore share. Paths are absolute; "" is the default of CRIU or the runtime.

    `image_path` is the directory of the images, `work_path` that of CRIU's log (default: the images'). `empty_ns` lists
    types of namespaces that are restored empty; network always is, as engines set it up anew.
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
    """The options of checkpoint.

    `parent_path` is relative to `image_path`. `status_fd`, -1 for none, gets a null byte when lazy pages are ready.
    `page_server` is "ADDRESS:PORT". `pre_dump` saves memory only and leaves the container running.
    """

    parent_path: str = ""
    leave_running: bool = False
    tcp_skip_in_flight: bool = False
    link_remap: bool = False
    status_fd: int = -1
    page_server: str = ""
    pre_dump: bool = False


class RestoreOptions(CriuOptions):
    """The options of restore. Without `detach` it waits for the program; the others are those of run."""

    console_socket: str = ""
    pid_file: str = ""
    detach: bool = False
    no_pivot: bool = False
    no_subreaper: bool = False
    tcp_close: bool = False
    lsm_profile: str = ""
    lsm_mount_context: str = ""

"""The tables of the command line. They are on every verb's path, so this module imports as little as possible."""

from __future__ import annotations

from pyrunc.requests import DEFAULT_ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    Value = bool | int | str | list[str] | list[int]
    # long name, short name or "", kind, help. Kinds: switch, text, path (made absolute), number, texts and numbers
    # (both repeatable). An option without help is accepted but not shown.
    Option = tuple[str, str, str, str]

_HELP: Option = ("help", "h", "switch", "show help")
_BUNDLE: Option = ("bundle", "b", "path", "the bundle's directory (default: the current directory)")
_CONFIG: Option = ("config", "f", "path", "the configuration (default: config.json in the bundle)")
_REGEX: Option = (
    "regex",
    "r",
    "switch",
    "the id is a regular expression: every container in whose id it is found",
)
_CONSOLE: Option = ("console-socket", "", "text", "AF_UNIX socket that gets the terminal's master end")
_PIDFD: Option = ("pidfd-socket", "", "text", "AF_UNIX socket that gets a pidfd of the process")
_PID_FILE: Option = ("pid-file", "", "path", "file to write the process id to")
_DETACH: Option = ("detach", "d", "switch", "do not wait for the process to end")
_FDS: Option = ("preserve-fds", "", "number", "pass N more descriptors (stdio + $LISTEN_FDS + N in all)")
_NO_PIVOT: Option = ("no-pivot", "", "switch", "do without pivot_root, for a rootfs on a ramdisk")
_KEYRING: Option = ("no-new-keyring", "", "switch", "keep the caller's session keyring")
_SUBREAPER: Option = ("no-subreaper", "", "switch", "do not adopt the container's orphans while waiting")
_FORMAT: Option = ("format", "f", "text", "table or json (default: table)")

GLOBALS: tuple[Option, ...] = (
    ("debug", "", "switch", "log at debug level; show the traceback of an internal error"),
    ("log", "", "text", "file to append the log to, or journald:ID, syslog:ID, file:PATH (default: stderr)"),
    ("log-format", "", "text", "text or json (default: text)"),
    ("log-level", "", "text", "error, warning or debug (default: error)"),
    ("systemd-log", "", "switch", "log to the journal as well"),
    ("root", "", "text", f"directory for the containers' state (default: {DEFAULT_ROOT})"),
    ("trace", "", "text", "file to write the timing of every phase to, as a Chrome trace"),
    ("systemd-cgroup", "", "switch", "let systemd make the cgroups; cgroupsPath is then slice:prefix:name"),
    ("cgroup-manager", "", "text", "cgroupfs, systemd or disabled (default: cgroupfs)"),
    ("rootless", "", "text", "tolerate read-only cgroups: true, false or auto (default: auto)"),
    ("version", "v", "switch", "show the version"),
    _HELP,
)


class Command:
    """One row of the table: summary, arguments and options of a command.

    `least` and `most` are the numbers of arguments, `most` is -1 for any number; `stops`: what follows the first
    argument is not searched for options.
    """

    __slots__ = ("arguments", "least", "most", "options", "stops", "summary")

    def __init__(
        self,
        summary: str,
        arguments: str,
        least: int,
        most: int,
        options: tuple[Option, ...] = (),
        *,
        stops: bool = False,
    ) -> None:
        self.summary = summary
        self.arguments = arguments
        self.least = least
        self.most = most
        self.options = options
        self.stops = stops


_TIMINGS: Option = ("timings", "", "switch", "show on stderr where the time went, as a chart")
_RECORD: Option = (
    "record-exit",
    "",
    "switch",
    "keep a small process that records the exit status for a later wait",
)
_CREATE = (_BUNDLE, _CONFIG, _CONSOLE, _PIDFD, _PID_FILE, _NO_PIVOT, _KEYRING, _FDS, _RECORD, _TIMINGS)
_CRIU: tuple[Option, ...] = (
    ("image-path", "", "path", "directory of the image files (default: ./checkpoint)"),
    ("work-path", "", "path", "directory of CRIU's log and work files (default: the image files')"),
    ("tcp-established", "", "switch", "allow open TCP connections"),
    ("ext-unix-sk", "", "switch", "allow unix sockets whose other end is outside the container"),
    ("shell-job", "", "switch", "allow a terminal that belongs to a process outside the container"),
    ("file-locks", "", "switch", "keep file locks"),
    ("lazy-pages", "", "switch", "move memory pages on demand"),
    ("manage-cgroups-mode", "", "text", "soft, full, strict or ignore (default: soft)"),
    ("empty-ns", "", "texts", "restore this namespace empty: network (always the case)"),
    ("auto-dedup", "", "switch", "drop duplicate memory pages"),
    ("network-lock", "", "text", "iptables, nftables or skip: how CRIU holds packets back"),
)

COMMANDS: dict[str, Command] = {
    "checkpoint": Command(
        "write a checkpoint of a running container",
        "<container-id>",
        1,
        1,
        (
            *_CRIU,
            ("parent-path", "", "text", "image of an earlier pre-dump, relative to the image path"),
            ("leave-running", "", "switch", "leave the container running"),
            ("tcp-skip-in-flight", "", "switch", "skip TCP connections that are being made"),
            ("link-remap", "", "switch", "allow deleted files that are open to be linked again"),
            ("status-fd", "", "number", "descriptor that gets a null byte when lazy pages are ready"),
            ("page-server", "", "text", "ADDRESS:PORT of the page server"),
            ("pre-dump", "", "switch", "save memory only and leave the container running"),
        ),
    ),
    "completion": Command("print a completion script for a shell", "bash|fish|zsh", 1, 1),
    "create": Command("create a container", "<container-id>", 1, 1, _CREATE),
    "delete": Command(
        "delete a container",
        "<container-id>",
        1,
        1,
        (
            (
                "force",
                "f",
                "switch",
                "kill it first if it is running; not an error if it does not exist",
            ),
            _REGEX,
        ),
    ),
    "events": Command(
        "show a container's resource use and out-of-memory events",
        "<container-id>",
        1,
        1,
        (
            ("interval", "", "text", "time between two reports, such as 500ms or 1m30s (default: 5s)"),
            ("stats", "", "switch", "show the resource use once"),
        ),
    ),
    "exec": Command(
        "run one more process in a container",
        "<container-id> <command> [argument...] | -p <process.json> <container-id>",
        1,
        -1,
        (
            _TIMINGS,
            ("process", "p", "path", "file with the process object, in place of command and options"),
            ("cwd", "", "text", "working directory in the container"),
            ("env", "e", "texts", "NAME=VALUE, added to the container's environment"),
            ("tty", "t", "switch", "give the process a terminal"),
            ("user", "u", "text", "UID or UID:GID, in digits"),
            ("additional-gids", "g", "numbers", "one more group id"),
            ("cap", "c", "texts", "one more capability"),
            ("no-new-privs", "", "switch", "set no_new_privs"),
            ("apparmor", "", "text", "AppArmor profile"),
            ("process-label", "", "text", "SELinux label"),
            ("cgroup", "", "texts", "sub-cgroup to run in: PATH, or CONTROLLER[,CONTROLLER]:PATH on v1"),
            (
                "ignore-paused",
                "",
                "switch",
                "wait for a paused container to be resumed, at most two minutes",
            ),
            _DETACH,
            _PID_FILE,
            _CONSOLE,
            _PIDFD,
            _FDS,
        ),
        stops=True,
    ),
    "explain": Command(
        "show step by step what create would do, without doing it",
        "",
        0,
        0,
        (_BUNDLE, _CONFIG, ("json", "", "switch", "one JSON document instead of text")),
    ),
    "features": Command("show what this runtime supports, as JSON", "", 0, 0),
    "help": Command("show the help of a command", "[command]", 0, 1),
    "info": Command("show the version of pyrunc and what this host offers", "", 0, 0),
    "kill": Command(
        "send a signal (default: SIGTERM) to a container's first process",
        "<container-id> [signal]",
        1,
        2,
        (("all", "a", "switch", "every process of the container; not an error if it has ended"), _REGEX),
        stops=True,
    ),
    "list": Command(
        "list the containers below the root",
        "",
        0,
        0,
        (_FORMAT, ("quiet", "q", "switch", "show ids only")),
    ),
    "mounts": Command("change the mounts of a running container", "add|remove <container-id> <file>", 3, 3),
    "pause": Command("pause all processes of a container", "<container-id>", 1, 1),
    "ps": Command(
        "show the processes of a container", "<container-id> [ps option...]", 1, -1, (_FORMAT,), stops=True
    ),
    "restore": Command(
        "restore a container from a checkpoint",
        "<container-id>",
        1,
        1,
        (
            _BUNDLE,
            *_CRIU,
            _CONSOLE,
            _PID_FILE,
            _DETACH,
            _NO_PIVOT,
            _SUBREAPER,
            ("tcp-close", "", "switch", "do not restore open TCP connections"),
            ("lsm-profile", "", "text", "TYPE:NAME of the LSM profile to restore with"),
            ("lsm-mount-context", "", "text", "LSM mount context to restore with"),
            # go-runc passes it; the image itself records where its parent is
            ("parent-path", "", "text", ""),
        ),
    ),
    "resume": Command("resume the processes of a paused container", "<container-id>", 1, 1),
    "run": Command(
        "create a container, start it and wait for it",
        "<container-id>",
        1,
        1,
        (
            *_CREATE,
            _DETACH,
            ("keep", "", "switch", "do not delete the container when it has ended"),
            _SUBREAPER,
        ),
    ),
    "spec": Command(
        "write a config.json to start from",
        "",
        0,
        0,
        (
            _BUNDLE,
            ("file", "f", "text", "name of the file in the bundle (default: config.json)"),
            ("rootless", "", "switch", "for a container without root privileges"),
        ),
    ),
    "start": Command("run the program of a created container", "<container-id>", 1, 1),
    "state": Command("show the state of a container, as JSON", "<container-id>", 1, 1),
    "update": Command(
        "change the resource limits of a container",
        "<container-id>",
        1,
        1,
        (
            ("resources", "r", "text", "file with a linux.resources object, - for stdin"),
            ("blkio-weight", "", "number", "block I/O weight, 10 to 1000"),
            ("cpu-period", "", "text", "CFS period in microseconds"),
            ("cpu-quota", "", "text", "CFS quota in microseconds"),
            ("cpu-burst", "", "text", "CFS burst in microseconds"),
            ("cpu-share", "", "text", "CPU shares"),
            ("cpu-rt-period", "", "text", "realtime period in microseconds"),
            ("cpu-rt-runtime", "", "text", "realtime runtime in microseconds"),
            ("cpu-idle", "", "text", "1 for SCHED_IDLE, 0 for the normal policy"),
            ("cpuset-cpus", "", "text", "CPUs to use"),
            ("cpuset-mems", "", "text", "memory nodes to use"),
            ("memory", "", "text", "memory limit in bytes"),
            ("memory-reservation", "", "text", "memory reservation in bytes"),
            ("memory-swap", "", "text", "memory and swap in bytes, -1 for no limit"),
            ("kernel-memory", "", "text", ""),
            ("kernel-memory-tcp", "", "text", ""),
            ("pids-limit", "", "number", "largest number of processes"),
            ("l3-cache-schema", "", "text", "Intel RDT L3 cache schema"),
            ("mem-bw-schema", "", "text", "Intel RDT memory bandwidth schema"),
        ),
    ),
    "version": Command("show the version", "", 0, 0),
    "wait": Command("wait for a container to end and show its exit status", "<container-id>", 1, 1),
}

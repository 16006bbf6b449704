"""Makes a snapshot of this Python for the `pyrunc` command, and continues in a process restored from one.

csrc/command/snapshot.h says what that is.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from pyrunc.errors import KernelError, PyruncError
from pyrunc.kernel import process as kernel_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.spec.shapes import Spec

# Everything that a verb may load of ours and is ours alone to pay for, and what only some configurations need. Not what
# only explains (argparse, jsonschema), not pyroute2: 20 MB; not trace, which tells when it was loaded.
MODULES = (
    *("pyrunc.cli.main", "pyrunc.cli.verbs", "pyrunc.runtime", "pyrunc.verbs.create", "pyrunc.verbs.exec"),
    *(
        "pyrunc.verbs.delete",
        "pyrunc.verbs.events",
        "pyrunc.verbs.start",
        "pyrunc.verbs.update",
        "pyrunc.verbs.wait",
        "pyrunc.cgroups.systemd.driver",
    ),
    *(
        "pyrunc.config.exec_process",
        "pyrunc.host.notify",
        "pyrunc.host.resctrl",
        "pyrunc.container.exit_status",
        "pyrunc.seccomp.compile",
    ),
    *(
        "pyrunc.cli.signals",
        "pyrunc.cgroups.stats",
        "pyrunc.config.resource_update",
        "pyrunc.launch.failures",
        "pyrunc.launch.id_maps",
    ),
    *("_sha256", "prctl", "pwd", "resource"),
)

# More often than Python needs to specialize its code.
PRACTICE = 16
# Snapshots of removed installations stay until the next boot.
LIMIT = 6


def _make_room(fd: int) -> None:
    """Remove the oldest if there are too many in the directory of `fd`; a removed one is made again if needed."""
    directory = os.path.dirname(os.readlink(f"/proc/self/fd/{fd}"))
    found = [f"{directory}/{name}" for name in os.listdir(directory) if name.startswith("@python-")]
    found.sort(key=lambda path: os.stat(path).st_mtime_ns)
    for path in found[:-LIMIT]:
        os.unlink(path)


def _watched(hot: object, file: str) -> list[str]:
    """Return the files of the modules, and the directories in which Python would look for others first.

    `file` is what the finder `hot` has its modules from. Frozen ones are in the program, and that is mapped, as are
    those in C; a compiled file says what its source says, or Python would not have taken it. What shares a directory
    stands together: snapshot_stamp() likes that.
    """
    files = {file}
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and (spec.origin == "frozen" or spec.loader is hot):
            continue
        path = getattr(module, "__file__", None)
        if path and not path.endswith(".so"):
            files.add(path)
    directories = {os.path.dirname(path) for path in files}
    return sorted(files.union(directories, sys.path), key=os.path.split)


def keep(
    fd: int, hot: object, file: str, take_environment: Callable[[dict[bytes, bytes]], None]
) -> tuple[list[str], list[str]]:
    """Write the snapshot to `fd` and end this process. `hot` is a finder of modules, all of them in `file`.

    Returns in the processes that come out of it: (argv without the program, what entry.py is told).
    """
    for name in MODULES:
        try:
            __import__(name)
        except ImportError:
            pass  # _sha256 has another name in other versions; prctl may be missing here
    try:
        _practise()
    except PyruncError:
        pass  # no container can be made on this host; Python is ready all the same
    try:
        _make_room(fd)
    except OSError:
        pass  # another process does the same
    # What is there now stays: a collection in a long `run` need not look at it, and so not copy its pages.
    gc.collect()
    gc.freeze()
    arrival = kernel_process.snapshot(fd, _watched(hot, file))
    if arrival is None:
        os._exit(0)
    sys.dont_write_bytecode = False
    argv, environment, told = arrival
    take_environment(environment)
    if told[:1] == ["--try"]:
        os._exit(not _try())
    return argv[1:], told


def _practise() -> None:
    """Plan and start a few times: Python specializes its code at run time and is twice as fast then."""
    from pyrunc.json_text import document as json_text
    from pyrunc.reports import spec as spec_template

    text = json_text.dumps(spec_template.document(rootless=False, unified=False)).encode()
    for _ in range(PRACTICE):
        _plan(text)
        _start()


def _plan(text: bytes) -> None:
    from pyrunc.cgroups import choose
    from pyrunc.cli import parse
    from pyrunc.config import load as config
    from pyrunc.config.rules import document as rules
    from pyrunc.config.schema import check
    from pyrunc.container.record import Record
    from pyrunc.host import gather
    from pyrunc.plan import planner, wire
    from pyrunc.plan.job import PlanOptions

    given = parse.Parsed()
    parse.global_options(["--root", "/", "--log", "", "--log-format", "json", "exec"], given)
    parse.command_options("exec", ["--process", "/", "--detach", "--pid-file", "/", "practice"])
    parse.command_options("create", ["--bundle", "/", "--pid-file", "/", "practice"])
    spec: Spec = config.parse(text, "practice")  # type: ignore[assignment]  # reports.spec writes it
    facts = gather.gather(rlimits=True)
    check.config(spec)
    rules.check(spec, facts)
    paths = choose.manager(spec, "practice", facts).paths
    record = Record(bundle="/", rootfs="/", container_id="practice", annotations=None)
    record.cgroups = paths
    record.render()
    job = PlanOptions(bundle="/", container_id="practice", rootfs="/", cgroup_paths=paths, init_pid=1)
    for made in (planner.create(spec, facts, job), planner.exec_process(spec["process"], spec, facts, job)):
        fds = {field: 3 for op in made.ops for field in op.fields if isinstance(field, wire.Fd)}
        wire.encode(made.ops, fds)


def _start() -> None:
    """Start an init with an empty plan, without new namespaces, and wait for its end."""
    from pyrunc.launch import conversation
    from pyrunc.launch import init as launch
    from pyrunc.plan import numbers, wire

    init = launch.start([wire.Op("SYNC", numbers.SYNC["READY"]), wire.Op("DONE")], known={})
    try:
        conversation.serve(init, {})
        init.go()
        init.dismiss()
    except BaseException:
        init.abort()
        raise


def _try() -> bool:
    """Do once what depends on the caches of libc and Python about their process. Return whether it worked."""
    size, count = 1 << 16, 64
    # One that is larger than the free heap, and one that gets its own mapping.
    pieces = [bytes(size) for _ in range(count)] + [bytes(size * count)]
    try:
        kernel_process.spawn([b"nothing"], [], path="/")
    except KernelError as error:
        started = error.errno != errno.EACCES
    else:
        started = True
    __import__("_bisect")  # by the dynamic linker
    return sum(map(len, pieces)) == 2 * size * count and not started and not os.environ

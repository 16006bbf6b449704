"""checkpoint: save a running container to image files with CRIU. criu(8).

A failure leaves the container as it was, and CRIU's log in the work directory. All functions raise PyruncError.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat

from pyrunc import log
from pyrunc.criu import externals, images, repair, rpc
from pyrunc.criu import process as criu_process
from pyrunc.criu import request as criu_request
from pyrunc.criu import server as criu_server
from pyrunc.errors import CriuError, KernelError, StateError, UsageError, strerror
from pyrunc.host import gather, proc
from pyrunc.plan.job import PlanOptions
from pyrunc.spec.namespaces import NAMESPACES, joins
from pyrunc.verbs import delete as verb_delete
from pyrunc.verbs import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyrunc.criu.rpc import Message
    from pyrunc.kernel.container import Container
    from pyrunc.requests import CheckpointOptions, Context
    from pyrunc.spec.shapes import Spec

LOG_FILE = "dump.log"
_READY_BY_NOTE = 31500
_FREEZES_V2 = 31400
_READY_SECONDS = 10
# How long killed processes may take to end.
_KILLED_SECONDS = 10


def _check_parent(options: CheckpointOptions) -> None:
    if not options.parent_path:
        return
    if os.path.isabs(options.parent_path):
        raise UsageError(
            "--parent-path must be relative",
            hint="it is taken from --image-path: ../parent for its neighbour",
        )
    images.check_parent(options.image_path, options.parent_path)


def _check_status_fd(options: CheckpointOptions) -> int:
    """Return the descriptor that is notified when lazy pages are ready, -1 for none. Raise UsageError."""
    fd = options.status_fd
    if fd < 0 or not options.lazy_pages:
        return -1
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as error:
        words = f"invalid --status-fd argument {fd}: {strerror(error.errno or 0)}"
        raise UsageError(words) from error
    if not flags & (os.O_WRONLY | os.O_RDWR):
        raise UsageError(f"invalid --status-fd argument {fd}: not writable")
    return fd


def _descriptors(pid: int, points: Mapping[int, str]) -> list[str]:
    """Return CRIU's names for 0, 1 and 2 of a process if they come from outside: "pipe:[17]", "file[1a:2b]".

    Others have their path, and "" is what is closed. `points` are the container's mounts by their ids.
    """
    found = []
    for fd in range(3):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            mount, inode = _mount_id(pid, fd), os.stat(f"/proc/{pid}/fd/{fd}").st_ino
        except FileNotFoundError:
            name, mount, inode = "", -1, 0
        if name.startswith("/") and mount not in points and not _is_terminal(name):
            name = f"{externals.FILE}{mount:x}:{inode:x}]"
        found.append(name)
    return found


def _is_terminal(name: str) -> bool:
    """Return whether it is a terminal, which CRIU handles by itself: --shell-job."""
    return name.startswith("/dev/pts/") or name in ("/dev/console", "/dev/tty")


def _mount_id(pid: int, fd: int) -> int:
    for line in proc.read_file(f"/proc/{pid}/fdinfo/{fd}").splitlines():
        if line.startswith("mnt_id:"):
            return int(line.partition(":")[2])
    return -1


def _inside(pid: int, path: str) -> str:
    """Return `path` of a container with its links resolved as far as possible.

    It is only a name for CRIU and never opened, so changes by the container meanwhile only change that name.
    """
    done: list[str] = []
    left = [name for name in reversed(path.split("/")) if name]
    for _ in range(40 + len(left)):
        if not left:
            break
        name = left.pop()
        if name in (".", ".."):
            del done[len(done) - (name == "..") :]
            continue
        try:
            target = os.readlink("/".join((f"/proc/{pid}/root", *done, name)))
        except OSError:
            done.append(name)
            continue
        if target.startswith("/"):
            done.clear()
        left += [part for part in reversed(target.split("/")) if part]
    return "/" + "/".join(done)


def _masked_files(found: Container, spec: Spec) -> list[str]:
    """Return the masked paths that are files; CRIU recognizes masked directories as tmpfs."""
    files = []
    for path in (spec.get("linux") or {}).get("maskedPaths") or ():
        real = _inside(found.pid, path)
        try:
            mode = os.lstat(f"/proc/{found.pid}/root{real}").st_mode
        except OSError:
            continue
        if not stat.S_ISDIR(mode):
            files.append(path)
    return files


def _external(
    ctx: Context, container_id: str, found: Container, spec: Spec, descriptors: Sequence[str]
) -> list[str]:
    """criu_opts.external: bind mounts, namespaces that the configuration only joins, files that came in as stdio."""
    document = lookup.state(ctx, container_id)
    options = PlanOptions(
        bundle=found.bundle,
        container_id=container_id,
        rootfs=str(document["rootfs"]),
        cgroup_paths=found.cgroups,
    )
    the_plan = images.file_systems(spec, gather.facts(ctx, spec), options)
    names = externals.dumped(
        the_plan.ops,
        [*images.mount_points(str(found.pid)).values()],
        _masked_files(found, spec),
        lambda path: _inside(found.pid, path),
    )
    for kind, (key, _since) in externals.NAMESPACES.items():
        if joins(spec, kind):
            name = NAMESPACES[kind][1]
            inode = os.stat(f"/proc/{found.pid}/ns/{name}").st_ino
            names.append(f"{name}[{inode}]:{key}")
    return names + [name for name in dict.fromkeys(descriptors) if name.startswith(externals.FILE)]


def _freezer(found: Container, version: int) -> str:
    """Return the cgroup whose freezer CRIU uses, as a paused container cannot be stopped by ptrace; "" for none."""
    paths = dict(found.cgroups)
    if "freezer" in paths:
        return paths["freezer"]
    return paths.get("", "") if version >= _FREEZES_V2 else ""


def checkpoint(ctx: Context, container_id: str, options: CheckpointOptions) -> None:
    """Save a running container and, unless it is left running, destroy it.

    Raise CriuError with CRIU's reason; the container then continues unchanged.
    """
    found = lookup.load(ctx, container_id)
    if found.status not in ("running", "paused"):
        raise StateError(f"Container cannot be checkpointed in {found.status} state")
    opts = criu_request.dump(options, LOG_FILE)
    _check_parent(options)
    status_fd = _check_status_fd(options)
    images.warn_of_rootless()
    with criu_process.Interrupts() as interrupts:
        version = criu_server.version(interrupts)
        if options.pre_dump:
            criu_server.require_feature("mem_track", "a pre-dump", interrupts)
        if options.lazy_pages:
            criu_server.require_feature("lazy_pages", "saving memory on demand", interrupts)
        if status_fd >= 0 and version < _READY_BY_NOTE:
            opts["status_fd"] = status_fd
        spec = lookup.configuration(ctx, container_id).spec
        _add_container(ctx, container_id, found, spec, opts, version)
        directories = images.Directories(options, dump=True)
        try:
            directories.put_into(opts)
            if not options.pre_dump:
                # A pre-dump saves memory only.
                descriptors = _descriptors(found.pid, images.mount_points(str(found.pid)))
                opts["external"] = list(_external(ctx, container_id, found, spec, descriptors))
                images.write_descriptors(directories.image, descriptors)
            _Dump(options, found, opts, directories, status_fd, interrupts).make()
        finally:
            directories.close()
        if not options.leave_running and not options.pre_dump:
            verb_delete.delete(ctx, container_id, force=True)


def _add_container(
    ctx: Context, container_id: str, found: Container, spec: Spec, opts: Message, version: int
) -> None:
    """The container, and how to stop it."""
    opts["pid"] = found.pid
    opts["root"] = str(lookup.state(ctx, container_id)["rootfs"])
    for kind, (_key, since) in externals.NAMESPACES.items():
        if joins(spec, kind):
            criu_server.require(version, since, f"a {kind} namespace that exists")
    if freezer := _freezer(found, version):
        opts["freeze_cgroup"] = freezer
    images.config_file(opts, spec)


class _Dump:
    """One dump or pre-dump, and what follows for the container."""

    __slots__ = (
        "before",
        "directories",
        "ends_it",
        "interrupts",
        "network_locked",
        "options",
        "opts",
        "status_fd",
    )

    def __init__(
        self,
        options: CheckpointOptions,
        found: Container,
        opts: Message,
        directories: images.Directories,
        status_fd: int,
        interrupts: criu_process.Interrupts,
    ) -> None:
        self.options = options
        self.opts = opts
        self.directories = directories
        self.status_fd = status_fd
        self.interrupts = interrupts
        self.ends_it = not options.leave_running and not options.pre_dump
        self.network_locked = False
        self.before = repair.Before(found)

    def make(self) -> None:
        """Raise CriuError; then, and when it is to be left running, the container is as it was."""
        inventory = self.directories.inventory()
        try:
            self._ask()
            if self.ends_it:
                self._check_saved(inventory)
        except BaseException as error:
            for note in self.before.restore(network_locked=self.network_locked):
                error.add_note(note)
            raise
        else:
            if not self.ends_it:
                for note in self.before.restore(network_locked=False):
                    log.warning(note)
        finally:
            self.before.close()

    def _ask(self) -> None:
        server = criu_server.Server(self.interrupts, new_session=True)
        server.process.written = self.directories.size
        try:
            kind = rpc.PRE_DUMP if self.options.pre_dump else rpc.DUMP
            # Lazy pages and a page server wait for a client.
            waits = self.options.lazy_pages or self.options.page_server
            stall = None if waits else criu_process.STALL_SECONDS
            answer = server.ask({"type": kind, "opts": self.opts}, self._heard, stall=stall)
            # From here on CRIU has put the network back, or the container is gone.
            self.network_locked = False
            if not rpc.number(answer, "success"):
                path = f"{self.directories.work_path}/{LOG_FILE}"
                raise criu_server.failure(answer, self.directories.log(LOG_FILE), path, server.output())
        finally:
            if (problem := server.close()) is not None:
                log.warning(problem)

    def _heard(self, script: str, _pid: int, _fd: int) -> None:
        if script == "network-lock":
            self.network_locked = True
        elif script == "status-ready" and self.status_fd >= 0:
            # The reader waits for the byte, and then for the end of file.
            fd, self.status_fd = self.status_fd, -1
            _say_ready(fd)

    def _check_saved(self, inventory: tuple[int, int]) -> None:
        """Make sure that the container has ended, as CRIU reports."""
        if self.directories.inventory() in ((0, 0), inventory):
            raise CriuError("criu failed: it reports success and has written no images")
        if not self.before.has_ended(_KILLED_SECONDS):
            raise CriuError("criu failed: it reports success and has not ended the container")


def _say_ready(fd: int) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    try:
        if not poller.poll(_READY_SECONDS * 1000):
            raise StateError(f"nobody reads from --status-fd {fd}")
        os.write(fd, b"\0")
    except OSError as error:
        raise KernelError("write", error.errno or 0, f"--status-fd {fd}") from error
    finally:
        os.close(fd)

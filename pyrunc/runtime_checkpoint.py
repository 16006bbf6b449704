"""checkpoint: a running container becomes image files, by CRIU. criu(8).

Imported by runtime for this verb only; runtime_restore is the way back. A failure leaves the container as it was, and
in the directories that were asked for CRIU's log. All functions raise PyruncError.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat

from pyrunc import bringup, criu, criu_request, criu_rpc, externals, host, log, plan, runtime
from pyrunc.errors import KernelError, StateError, UsageError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyrunc.criu_rpc import Message
    from pyrunc.requests import CheckpointOptions, Context, CriuOptions
    from pyrunc.spec_types import Spec
    from pyrunc.view import Container

LOG_FILE = "dump.log"
# What standard input, output and error were, beside the images: runc's file, so that its images and ours are one.
DESCRIPTORS = "descriptors.json"
_READY_BY_NOTE = 31500
_FREEZES_V2 = 31400


class Directories:
    """The images' and CRIU's work directory, held open: CRIU takes them by our descriptors."""

    __slots__ = ("image", "image_path", "work", "work_path")

    def __init__(self, options: CriuOptions, *, make: bool) -> None:
        self.image = _open_directory(options.image_path, make=make)
        self.image_path = options.image_path
        self.work_path = options.work_path or options.image_path
        self.work = -1
        try:
            self.work = _open_directory(self.work_path, make=True)
        except BaseException:
            os.close(self.image)
            raise

    def put_into(self, opts: Message) -> None:
        """The fields of criu_opts."""
        opts["images_dir_fd"] = self.image
        opts["work_dir_fd"] = self.work

    def move_to(self, root: str) -> None:
        """Hold them as they are below /proc/PID/root: CRIU mounts in its work directory, so that is to be its own."""
        for path, fd in ((self.image_path, self.image), (self.work_path, self.work)):
            there = _open_directory(root + os.path.realpath(path), make=False)
            os.dup2(there, fd, inheritable=False)
            os.close(there)

    def close(self) -> None:
        """Let go of them."""
        os.close(self.image)
        os.close(self.work)


def _open_directory(path: str, *, make: bool) -> int:
    call = "mkdir"
    try:
        if make:
            os.makedirs(path, 0o700, exist_ok=True)
        call = "open"
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(call, error.errno or 0, path) from error


def warn_of_rootless() -> None:
    """CRIU wants to be root of the host; it is not for us to say that it never can do without."""
    if os.geteuid() != 0 or host.in_user_namespace():
        log.warning("checkpoint and restore of rootless containers need a CRIU and a kernel that can do it")


def config_file(opts: Message, spec: Spec) -> None:
    """The annotation org.criu.config, or the usual file when there is one."""
    for path in criu_request.config_files(spec.get("annotations")):
        if os.path.exists(path):
            opts["config_file"] = path
            return


def mount_points(process: str) -> dict[int, str]:
    """Mount id -> mount point, of those that a process sees. proc(5), mountinfo."""
    lines = [line.split(" ") for line in host.read_file(f"/proc/{process}/mountinfo").splitlines()]
    return {int(line[0]): host.unescape(line[4]) for line in lines}


def _check_parent(options: CheckpointOptions) -> None:
    if not options.parent_path:
        return
    if os.path.isabs(options.parent_path):
        raise UsageError(
            "--parent-path must be relative",
            hint="it is taken from --image-path: ../parent for its neighbour",
        )
    path = os.path.normpath(os.path.join(options.image_path, options.parent_path))
    if not os.path.isdir(path):
        problem = "not a directory" if os.path.exists(path) else "no such file or directory"
        raise StateError(f"invalid --parent-path: stat '{path}': {problem}")


def _check_status_fd(options: CheckpointOptions) -> int:
    """The descriptor that hears when lazy pages are ready, -1 for none. Raises UsageError."""
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
    """What 0, 1 and 2 of a process are, as CRIU calls them where they come from outside: "pipe:[17]", "file[1a:2b]".

    Others have their path, and "" is what is closed. `points` are the container's mounts by their ids.
    """
    found = []
    for fd in range(3):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            mount, inode = _mount_id(pid, fd), os.stat(f"/proc/{pid}/fd/{fd}").st_ino
        except OSError:
            name, mount, inode = "", -1, 0
        if name.startswith("/") and mount not in points and not _is_terminal(name):
            name = f"{externals.FILE}{mount:x}:{inode:x}]"
        found.append(name)
    return found


def _is_terminal(name: str) -> bool:
    """CRIU has its own ways with them: --shell-job."""
    return name.startswith("/dev/pts/") or name in ("/dev/console", "/dev/tty")


def _mount_id(pid: int, fd: int) -> int:
    for line in host.read_file(f"/proc/{pid}/fdinfo/{fd}").splitlines():
        if line.startswith("mnt_id:"):
            return int(line.partition(":")[2])
    return -1


def _inside(pid: int, path: str) -> str:
    """`path` of a container with its links resolved, as far as they lead.

    A name for CRIU and nothing else: nobody opens it, so what the container changes meanwhile only changes that.
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
    """The masked paths that are files: of directories CRIU sees that they are tmpfs."""
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


def file_systems(ctx: Context, spec: Spec, options: plan.PlanOptions) -> plan.Plan:
    """The plan of the container's mounts, which tells what in it comes from outside.

    Raises StateError for what CRIU would restore as something else.
    """
    facts = bringup.facts(ctx, spec)
    options.no_new_keyring = True
    options.attached_late = False
    the_plan = plan.file_systems(spec, facts, options)
    if (path := externals.id_mapped(the_plan.ops)) is not None:
        raise StateError(
            "CRIU cannot save an id-mapped mount",
            path=path,
            hint="restored, it would be one without mapping",
        )
    return the_plan


def _external(
    ctx: Context, container_id: str, found: Container, spec: Spec, descriptors: Sequence[str]
) -> list[str]:
    """criu_opts.external: bind mounts, namespaces that the configuration only joins, files that came in as stdio."""
    document = runtime.state(ctx, container_id)
    options = plan.PlanOptions(
        bundle=found.bundle,
        container_id=container_id,
        rootfs=str(document["rootfs"]),
        cgroup_paths=found.cgroups,
    )
    the_plan = file_systems(ctx, spec, options)
    names = externals.dumped(
        the_plan.ops,
        [*mount_points(str(found.pid)).values()],
        _masked_files(found, spec),
        lambda path: _inside(found.pid, path),
    )
    for kind, (name, key, _since) in externals.NAMESPACES.items():
        if joins(spec, kind):
            inode = os.stat(f"/proc/{found.pid}/ns/{name}").st_ino
            names.append(f"{name}[{inode}]:{key}")
    return names + [name for name in dict.fromkeys(descriptors) if name.startswith(externals.FILE)]


def joins(spec: Spec, kind: str) -> bool:
    """Whether a namespace of this type is one that the configuration names by its path."""
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    return any(item["type"] == kind and item.get("path") for item in namespaces)


def _freezer(found: Container, version: int) -> str:
    """The cgroup whose freezer CRIU uses, as a container that is paused cannot be stopped by ptrace; "" for none."""
    paths = dict(found.cgroups)
    if "freezer" in paths:
        return paths["freezer"]
    return paths.get("", "") if version >= _FREEZES_V2 else ""


def _write_descriptors(image: int, descriptors: Sequence[str]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    call = "open"
    try:
        fd = os.open(DESCRIPTORS, flags, 0o600, dir_fd=image)
        try:
            call = "write"
            os.write(fd, json.dumps(descriptors).encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(call, error.errno or 0, DESCRIPTORS) from error


def checkpoint(ctx: Context, container_id: str, options: CheckpointOptions) -> None:
    """Save a running container and, unless it is to be left running, destroy it.

    Raises CriuError with CRIU's reason; the container then goes on as if nothing had been.
    """
    found = runtime.load(ctx, container_id)
    if found.status not in ("running", "paused"):
        raise StateError(f"Container cannot be checkpointed in {found.status} state")
    opts = criu_request.dump(options, LOG_FILE)
    _check_parent(options)
    status_fd = _check_status_fd(options)
    warn_of_rootless()
    version = criu.version()
    if options.pre_dump:
        criu.require_feature("mem_track", "a pre-dump")
    if options.lazy_pages:
        criu.require_feature("lazy_pages", "saving memory on demand")
    if status_fd >= 0 and version < _READY_BY_NOTE:
        opts["status_fd"] = status_fd
    spec = runtime.configuration(ctx, container_id).spec
    _add_container(ctx, container_id, found, spec, opts, version)
    directories = Directories(options, make=True)
    try:
        directories.put_into(opts)
        if not options.pre_dump:
            # A pre-dump looks at memory only.
            descriptors = _descriptors(found.pid, mount_points(str(found.pid)))
            opts["external"] = list(_external(ctx, container_id, found, spec, descriptors))
            _write_descriptors(directories.image, descriptors)
        kind = criu_rpc.PRE_DUMP if options.pre_dump else criu_rpc.DUMP
        _dump({"type": kind, "opts": opts}, status_fd, f"{directories.work_path}/{LOG_FILE}")
    finally:
        directories.close()
    if not options.leave_running and not options.pre_dump:
        runtime.delete(ctx, container_id, force=True)


def _add_container(
    ctx: Context, container_id: str, found: Container, spec: Spec, opts: Message, version: int
) -> None:
    """Which container, and how to hold it still."""
    opts["pid"] = found.pid
    opts["root"] = str(runtime.state(ctx, container_id)["rootfs"])
    for kind, (_name, _key, since) in externals.NAMESPACES.items():
        if joins(spec, kind):
            criu.require(version, since, f"a {kind} namespace that exists")
    if freezer := _freezer(found, version):
        opts["freeze_cgroup"] = freezer
    config_file(opts, spec)


def _dump(request: Message, status_fd: int, log_file: str) -> None:
    def heard(script: str, _pid: int, _fd: int) -> None:
        if script == "status-ready" and status_fd >= 0:
            # Whoever reads waits for the byte, and then for the end of file.
            os.write(status_fd, b"\0")
            os.close(status_fd)

    server = criu.Server()
    try:
        answer = server.ask(request, heard)
        if not criu_rpc.number(answer, "success"):
            raise criu.failure(answer, log_file, server.output())
    finally:
        server.close()

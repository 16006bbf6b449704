"""restore: a container is restored from the image files of a checkpoint. criu(8).

    pyrunc                                       criu
      state directory, cgroups (recorded before)
      mount points in the rootfs, by init
      criu swrk, in the container's cgroup        its mount namespace has the rootfs on the state directory
      request                                     ──▶ forks the container's init, a child of ours
      ◀── setup-namespaces: devices, limits, prestart and createRuntime hooks
      ◀── orphan-pts-master: the terminal, to the console socket or ourselves
      ◀── post-restore: pid file, state            ──▶ the processes run
      ◀── done

A step that is refused makes CRIU kill what it made; nothing stays behind. The hooks are those of runc: createContainer
and startContainer hooks ran when the container was created, and there is no start that poststart could follow. All
functions raise PyruncError.
"""

from __future__ import annotations

import json
import os

from pyrunc import log
from pyrunc.config import load as config
from pyrunc.container import directory as state_directory
from pyrunc.criu import externals, images, rpc
from pyrunc.criu import process as criu_process
from pyrunc.criu import request as criu_request
from pyrunc.criu import server as criu_server
from pyrunc.criu.images import config_file, file_systems, mount_points, warn_of_rootless
from pyrunc.errors import ContainerError, CriuError, KernelError, StateError
from pyrunc.host import console, gather, proc
from pyrunc.kernel import container as kernel_container
from pyrunc.launch import conversation
from pyrunc.launch import init as launch
from pyrunc.spec.namespaces import NAMESPACES
from pyrunc.verbs import delete as verb_delete
from pyrunc.verbs import new_container, process_io
from pyrunc.verbs.new_container import NewContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.cgroups.manager import Manager
    from pyrunc.config.load import Config
    from pyrunc.criu.rpc import Message
    from pyrunc.plan.job import Plan
    from pyrunc.requests import Context, RestoreOptions
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Spec

LOG_FILE = "restore.log"
_SETS_LSM = 31600
# CRIU's notifications that we act on, the last one last.
_NAMESPACES_MADE = "setup-namespaces"
_TERMINAL = "orphan-pts-master"
_LAST = "post-restore"


class _Processes:
    """Those of a restore under way: CRIU itself and, once there is one, the container's init."""

    __slots__ = ("cgroups", "pid", "pidfd", "server")

    def __init__(self) -> None:
        self.cgroups: Sequence[tuple[str, str]] = ()
        self.server: criu_server.Server | None = None
        self.pid = 0
        self.pidfd = -1

    def follow(self, pid: int) -> None:
        """Take the container's init by the pid that CRIU reports: our child, so the pid is valid until we reap it.

        Raise CriuError for any other process: what we follow we may end.
        """
        if self.pidfd < 0 and self.server is not None:
            self.pidfd = self.server.process.own_sibling(pid)
            self.pid = pid
        elif pid != self.pid:
            raise CriuError(
                f"criu failed: the container's init is process {self.pid}, and then is to be {pid}"
            )

    def hang_up(self, *, succeeded: bool = False) -> str | None:
        """Close the socket, so that CRIU ends, too. Return problems."""
        server, self.server = self.server, None
        return None if server is None else server.close(succeeded=succeeded)

    def abort(self) -> None:
        """Kill everything, and wait until it is gone. Raise CriuError if something does not end."""
        problem = self.hang_up()
        if self.pidfd >= 0:
            self.thaw()
            launch.end(self.pid, self.pidfd)
        self.close()
        if problem is not None:
            raise CriuError(problem)

    def thaw(self) -> None:
        """Thaw the container: CRIU restores a paused one frozen, and on v1 SIGKILL has no effect before the thaw."""
        if self.cgroups:
            kernel_container.cgroup_thaw(self.cgroups)

    def close(self) -> None:
        """Close the descriptors; the container continues by itself."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _inherited(descriptors: list[str]) -> list[Message]:
    """Of our standard streams, those that take the place of pipes and files that were outside."""
    return [{"key": name, "fd": fd} for fd, name in enumerate(descriptors[:3]) if images.is_outside(name)]


def _namespaces(spec: Spec, opts: Message, version: int) -> list[int]:
    """The namespaces that are named by a path; returns the descriptors that CRIU needs for them."""
    fds: list[int] = []
    inherited: list[rpc.Value] = []
    joined: list[rpc.Value] = []
    try:
        for index, item in enumerate((spec.get("linux") or {}).get("namespaces") or ()):
            kind, path = item["type"], item.get("path") or ""
            at = f"$.linux.namespaces[{index}].path"
            if not path:
                continue
            if kind == "cgroup":
                raise StateError("CRIU cannot restore into a cgroup namespace that exists", path=at)
            if kind not in externals.NAMESPACES:
                joined.append({"ns": NAMESPACES[kind][1], "ns_file": path})
                continue
            key, since = externals.NAMESPACES[kind]
            criu_server.require(version, since, f"a {kind} namespace that exists")
            try:
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                hint = "a namespace that the configuration names must exist when the container is restored"
                raise KernelError("open", error.errno or 0, path, path=at, hint=hint) from error
            inherited.append({"key": key, "fd": fds[-1]})
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    opts["inherit_fd"] = inherited
    opts["join_ns"] = joined
    return fds


def _make_mount_points(the_plan: Plan) -> None:
    """Mount as create does, in namespaces that end right after: what stays is that the mount points are there.

    A rootfs may be new, and CRIU makes none. As create's own init does it, no link of the image leads out of it.
    """
    init = launch.start(the_plan.ops, known={}, clone_flags=the_plan.clone_flags)
    try:
        conversation.map_ids(init, the_plan)
        conversation.serve(init, {}, until="ENV")
    finally:
        init.abort()


def _cgroup_roots(pid: int) -> list[rpc.Value]:
    """Where the container's cgroups are now, for those of the image: where CRIU is that restores it."""
    roots: list[rpc.Value] = []
    for controllers, path in proc.cgroups(pid):
        roots += [{"ctrl": name, "path": path} for name in controllers.split(",")]
    return roots


def _note_time_namespace(new: NewContainer, configuration: Config) -> None:
    """CRIU gives the container a time namespace; our copy of the configuration says so, for exec and the next dump."""
    namespaces = (new.spec.get("linux") or {}).get("namespaces") or []
    ours, theirs = (os.stat(f"/proc/{who}/ns/time").st_ino for who in ("self", new.record.pid))
    if ours == theirs or any(item["type"] == "time" for item in namespaces):
        return
    document = json.loads(configuration.text)
    document.setdefault("linux", {}).setdefault("namespaces", []).append({"type": "time"})
    new.directory.write(state_directory.CONFIG, json.dumps(document).encode("utf-8", "surrogateescape"))


def _loopback(spec: Spec, pid: int) -> None:
    """A new network namespace comes back empty; programs expect lo all the same."""
    for item in (spec.get("linux") or {}).get("namespaces") or ():
        if item["type"] == "network" and not item.get("path"):
            from pyrunc.host import network  # 150 ms, by pyroute2

            devices = network.Devices(pid)
            try:
                devices.loopback_up()
            finally:
                devices.close()


class _Restore:
    """One restore: what was asked for and what has been made of it."""

    __slots__ = (
        "configuration",
        "console_answer",
        "descriptors",
        "directories",
        "facts",
        "heard",
        "interrupts",
        "new",
        "options",
        "opts",
        "processes",
        "version",
    )

    def __init__(
        self,
        configuration: Config,
        facts: HostFacts,
        options: RestoreOptions,
        console_answer: Callable[[int], None],
        interrupts: criu_process.Interrupts,
    ) -> None:
        """Check everything that can be wrong before anything is made."""
        self.configuration = configuration
        self.facts = facts
        self.options = options
        self.console_answer = console_answer
        self.opts = criu_request.restore(options, LOG_FILE)
        self.interrupts = interrupts
        self.heard: set[str] = set()
        self.version = criu_server.version(interrupts)
        for option, value in (
            ("--lsm-profile", options.lsm_profile),
            ("--lsm-mount-context", options.lsm_mount_context),
        ):
            if value:
                criu_server.require(self.version, _SETS_LSM, option)
        self.directories = images.Directories(options, dump=False)
        try:
            self.descriptors = images.read_descriptors(self.directories.image, options.image_path)
        except BaseException:
            self.directories.close()
            raise
        self.processes = _Processes()
        self.new: NewContainer

    def bring_back(self, ctx: Context, container_id: str) -> _Processes:
        """Restore up to the point where the program runs; a failure leaves nothing behind."""
        try:
            self.new = NewContainer(ctx, container_id, self.configuration, self.facts)
            self.new.make_directory()
            self.new.abort = self.processes.abort
            self.new.stop = (self.interrupts.fd, self.interrupts.pending)
            try:
                self._bring_back()
            except BaseException as error:
                self.new.undo(error)
                raise
            self.new.close()
        finally:
            self.directories.close()
        return self.processes

    def _bring_back(self) -> None:
        new = self.new
        new.directory.write(state_directory.CONFIG, self.configuration.text)
        new.choose_cgroups()
        new.settle()
        while not new.make_cgroups():
            pass  # the plan comes later
        the_plan = file_systems(new.spec, new.facts, new.plan_inputs(no_pivot=self.options.no_pivot))
        _make_mount_points(the_plan)
        opts = self.opts
        opts["root"] = os.path.realpath(new.directory.path)
        opts["external"] = list(
            externals.restored(the_plan.ops, [*mount_points("self").values()], os.path.realpath)
        )
        config_file(opts, new.spec)
        fds = _namespaces(new.spec, opts, self.version)
        try:
            opts["inherit_fd"] += _inherited(self.descriptors)  # type: ignore[operator]  # _namespaces made the list
            self._ask(new.manager, opts, fds)
        finally:
            for fd in fds:
                os.close(fd)
        log.warn_all(new.manager.warnings)

    def _ask(self, manager: Manager, opts: Message, fds: list[int]) -> None:
        server = self._start(manager, fds)
        opts["cg_root"] = _cgroup_roots(server.process.pid)
        self.directories.move_to(f"/proc/{server.process.pid}/root")
        self.directories.put_into(opts)
        request: Message = {"type": rpc.RESTORE, "opts": opts}
        # Lazy pages may come from another host.
        stall = None if self.options.lazy_pages else criu_process.STALL_SECONDS
        answer = server.ask(request, self._heard, stall=stall)
        if not rpc.number(answer, "success"):
            path = f"{self.directories.work_path}/{LOG_FILE}"
            raise criu_server.failure(answer, self.directories.log(LOG_FILE), path, server.output())
        self.processes.follow(rpc.number(rpc.part(answer, "restore"), "pid"))
        if _LAST not in self.heard:
            raise CriuError(f"criu failed: it reports success without {_LAST}")
        if (problem := self.processes.hang_up(succeeded=True)) is not None:
            log.warning(problem)

    def _start(self, manager: Manager, fds: list[int]) -> criu_server.Server:
        """CRIU in the container's cgroup: what it forks is in there from its beginning."""
        terminal = bool((self.new.spec.get("process") or {}).get("terminal"))
        cgroup_fd = manager.open()
        try:
            server = criu_server.Server(
                self.interrupts,
                # With a terminal of its own the container has none of our descriptors.
                stdio=None if terminal else (0, 1, 2),
                keep=fds,
                cgroup_fd=cgroup_fd,
                # CRIU needs the root to be a mount point; this one is private and ends with CRIU.
                bound=(str(self.new.record.document["rootfs"]), self.new.directory.path),
            )
        finally:
            if cgroup_fd >= 0:
                os.close(cgroup_fd)
        self.processes.server, self.processes.cgroups = server, manager.paths
        server.process.thaw = self.processes.thaw
        if cgroup_fd < 0:
            manager.attach(server.process.pid)
        return server

    def _heard(self, script: str, pid: int, fd: int) -> None:
        if script not in (_NAMESPACES_MADE, _TERMINAL, _LAST):
            return
        # There is one terminal for each that was open outside.
        if _LAST in self.heard or (script in self.heard and script != _TERMINAL):
            raise CriuError(f"criu failed: {script} comes too late, or once more")
        self.heard.add(script)
        if script == _NAMESPACES_MADE:
            self.processes.follow(pid)
            _loopback(self.new.spec, pid)
            try:
                self.new.in_environment(pid)
            except ContainerError:
                self.interrupts.check()
                raise
        elif script == _TERMINAL:
            self._pass_terminal(fd)
        else:
            self.processes.follow(pid)
            self._publish(pid)

    def _pass_terminal(self, fd: int) -> None:
        if not (self.new.spec.get("process") or {}).get("terminal"):
            raise CriuError("criu failed: the image has a terminal, the configuration has none")
        if not console.is_master(fd):
            raise CriuError(f"criu failed: what comes with {_TERMINAL} is no terminal")
        self.console_answer(fd)

    def _publish(self, pid: int) -> None:
        record = self.new.record
        record.take_process(pid)
        _note_time_namespace(self.new, self.configuration)
        if self.options.pid_file:
            self.new.drop_pid_file = process_io.write_pid_file(self.options.pid_file, pid)
        self.new.publish()


def restore(ctx: Context, container_id: str, bundle: str, options: RestoreOptions) -> int:
    """Bring a saved container back; unless detached wait for it, delete it, and return its exit status (128 + signal).

    Raise CriuError with CRIU's reason. `bundle` is where its rootfs and the sources of its bind mounts are here.
    """
    state_directory.check_id(container_id)
    state_directory.check_root(ctx.root)
    configuration = config.load(bundle)
    terminal = bool((configuration.spec.get("process") or {}).get("terminal"))
    console.check(terminal=terminal, detached=options.detach, console_socket=options.console_socket)
    process_io.check_pid_file(options.pid_file)
    facts = gather.facts(ctx, configuration.spec)
    new_container.check(configuration.spec, facts)
    warn_of_rootless()
    attendance = None
    if not options.detach:
        attendance = console.Attendance()
        console.adopt_orphans(not options.no_subreaper)
    try:
        answer = conversation.console_answer(options.console_socket, attendance)
        with criu_process.Interrupts() as interrupts:
            one = _Restore(configuration, facts, options, answer, interrupts)
            processes = one.bring_back(ctx, container_id)
            made = one.new.record.pid, one.new.record.start_time
        try:
            if attendance is None:
                return 0
            status = attendance.wait(processes.pid, processes.pidfd)
        except BaseException:
            verb_delete.delete_own(ctx, container_id, made)
            raise
        finally:
            processes.close()
        verb_delete.delete_own(ctx, container_id, made)
        return status
    finally:
        if attendance is not None:
            attendance.close()

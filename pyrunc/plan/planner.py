"""PURE: configuration + host facts -> Plan, the ordered ops that init executes. No system call, no file, no env.

    create          limits that need the runtime's privileges, namespaces (namespaces.py), root file system (rootfs.py),
                    what the program will be (process.py), waiting for start, exec
    exec_process    join the container's namespaces, what the program will be (process.py), exec

Read `create` top to bottom: it is the order, and each op carries its reason in `why`, which `pyrunc explain` prints.
"""

from __future__ import annotations

from pyrunc.plan import namespaces as plan_namespaces
from pyrunc.plan import process as plan_process
from pyrunc.plan import rootfs as plan_rootfs
from pyrunc.plan.job import Job, Plan, PlanOptions, namespaces_of
from pyrunc.plan.numbers import PIVOT_CHROOT, SYNC
from pyrunc.plan.wire import Fd, Op
from pyrunc.spec.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Process, Spec


def create(spec: Spec, host: HostFacts, options: PlanOptions) -> Plan:
    """The plan of a new container up to its program.

    Without `process` it ends at START_WAIT: such a container cannot be started (runtime.md, Start).
    Raise ConfigError for what only shows once everything is put together.
    """
    job = Job(spec, host, options, namespaces_of(spec.get("linux") or {}))
    process = spec.get("process")
    plan_namespaces.maps(job)
    if process:
        plan_process.check_ids(job, process)
        plan_process.before_namespaces(job, process)
    plan_namespaces.enter(job, process)
    if job.spaces.makes("network"):
        job.plan.add(
            "LOOPBACK_UP", path=job.spaces.paths["network"], why="programs expect lo, as every engine does"
        )
    deferred = plan_rootfs.build(job)
    why = "runtime.md, steps 3 and 4: network devices, limits, prestart and createRuntime hooks"
    job.plan.add("SYNC", SYNC["ENV"], path="$", why=why)
    plan_process.hooks(
        job, "createContainer", "runtime.md, step 5: in the container's namespaces, before pivot_root"
    )
    plan_rootfs.enter(job, process, deferred)
    plan_namespaces.enter_pid_namespace(job)
    if process:
        plan_process.become(job, process)
    else:
        plan_process.without_program(job)
    why = "the container is created: all that can fail before the program has been done"
    job.plan.add("SYNC", SYNC["READY"], path="$", why=why)
    job.plan.add(
        "START_WAIT", Fd("fifo"), path="$", why="runtime.md, step 6: the program runs when start is invoked"
    )
    if process:
        _after_start(job, process)
    return job.plan


def _after_start(job: Job, process: Process) -> None:
    """Add what init does after start."""
    why = "runtime.md, step 7: part of start, inside the container, before the program"
    plan_process.hooks(job, "startContainer", why)
    plan_process.run(job, process)


def after_start(spec: Spec, host: HostFacts, options: PlanOptions) -> list[Op]:
    """Return the ops of create after START_WAIT, at which init may fail in start."""
    job = Job(spec, host, options, namespaces_of(spec.get("linux") or {}))
    if process := spec.get("process"):
        _after_start(job, process)
    return job.plan.ops


def file_systems(spec: Spec, host: HostFacts, options: PlanOptions) -> Plan:
    """The plan of create up to SYNC_ENV, when all is mounted below the rootfs, and nothing of its process.

    Its ops say what a container that is to be saved has mounted; run, it makes the mount points for one to restore.
    """
    job = Job(spec, host, options, namespaces_of(spec.get("linux") or {}))
    plan_namespaces.maps(job)
    plan_namespaces.enter(job, None)
    plan_rootfs.build(job)
    job.plan.add("SYNC", SYNC["ENV"], path="$", why="all is mounted")
    job.plan.add("DONE", path="$", why="there is no process to become")
    return job.plan


def exec_process(
    process: Process, spec: Spec, host: HostFacts, options: PlanOptions, path: str = "$.process"
) -> Plan:
    """Return the plan of one more process in the container whose init is `options.init_pid`.

    `path` is the place of the process object in its document ("$" in a file of its own).
    """
    spaces = namespaces_of(spec.get("linux") or {})
    # Whether they were made for it or joined: the container's namespaces are those of its init.
    spaces.new = 0
    spaces.joined = [
        (kind, f"/proc/{options.init_pid}/ns/{NAMESPACES[kind][1]}", at) for kind, at in spaces.paths.items()
    ]
    job = Job(spec, host, options, spaces)
    job.at = path
    plan_process.before_namespaces(job, process)
    plan_namespaces.enter(job, process)
    if "mount" not in spaces:
        # The magic link leads to the root of its init, whatever is at the rootfs's path by now.
        root = f"/proc/{options.init_pid}/root"
        job.plan.add("ROOTFS", root, 0, 1, path="$.root.path", why="there is no mount namespace to join")
        job.plan.add("PIVOT", PIVOT_CHROOT, path="$.root.path", why="the container's root is a chroot")
    if process.get("terminal"):
        plan_rootfs.terminal(job, process, bind=False)
    plan_process.become(job, process)
    why = "all that can fail before the program has been done"
    job.plan.add("SYNC", SYNC["READY"], path=path, why=why)
    plan_process.run(job, process)
    return job.plan

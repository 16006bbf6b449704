"""What tests/runtime/test_cgroups.py plays in each view of the host: `cgroup_scenes.py SCENE NAME`.

A process of its own because a view is a mount namespace. NAME begins every cgroup made here. Ends with 0, or a
traceback; a scene cleans up what it made also when it fails.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, ParamSpec

import pytest

from pyrunc.cgroups import choose, device_rules, files
from pyrunc.cgroups.manager import Manager
from pyrunc.errors import ConfigError, KernelError, PyruncError, StateError
from pyrunc.host import gather
from pyrunc.kernel import bpf
from pyrunc.kernel import container as kernel_container
from pyrunc.kernel import process as kernel_process

if TYPE_CHECKING:
    from collections.abc import Callable

Resources = dict[str, object]
Arguments = ParamSpec("Arguments")


class Process:
    """A child whose stdin and stdout are pipes to us."""

    def __init__(self, *argv: str) -> None:
        ours, theirs = os.pipe(), os.pipe()
        self.pid, pidfd = kernel_process.spawn(
            [os.fsencode(word) for word in argv],
            [b"PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            path=shutil.which(argv[0]) or argv[0],
            stdio=(ours[0], theirs[1], -1),
        )
        for fd in (ours[0], theirs[1], pidfd):
            os.close(fd)
        self.stdin, self.stdout = ours[1], theirs[0]
        self.status: int | None = None

    def nudge(self) -> None:
        """Let it read a line."""
        os.write(self.stdin, b"\n")

    def answers(self, seconds: float) -> str:
        """The line that it says within this time, or nothing."""
        ready, _, _ = select.select([self.stdout], [], [], seconds)
        return os.read(self.stdout, 1 << 16).decode().strip() if ready else ""

    def ask(self) -> str:
        """Let it go on, and return the line that it says next."""
        self.nudge()
        return self.answers(20)

    def wait(self) -> int:
        """Its exit code, or minus the signal."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self.stdin)
            os.close(self.stdout)
        return self.status

    def end(self) -> None:
        """Kill and reap it."""
        if self.status is None:
            os.kill(self.pid, 9)
            self.wait()


class Scene:
    """One scene under way: its managers and processes are ended with it."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        self.stack = stack
        self.facts = gather.gather()
        self.is_v2 = self.facts.cgroup_mode == "v2"

    def manager(
        self, path: str | None = None, resources: Resources | None = None, **more: object
    ) -> Manager:
        """A manager for cgroupsPath /NAME/c1, or another; `more` of the configuration."""
        linux: Resources = {
            "cgroupsPath": f"/{self.name}/c1" if path is None else path,
            "resources": resources or {},
        }
        manager = choose.manager({"linux": linux, **more}, f"{self.name}-id", self.facts)
        # Known before they are made, so they go whatever happens.
        record = choose.from_paths(manager.paths, manager.to_make)
        self.stack.callback(record.destroy)
        self.stack.callback(record.kill)
        return manager

    def made(self, path: str | None = None, resources: Resources | None = None) -> Manager:
        """A manager whose directories are there."""
        manager = self.manager(path, resources)
        manager.create()
        return manager

    def process(self, *argv: str) -> Process:
        """A process, `sleep` unless told otherwise."""
        process = Process(*(argv or ("sleep", "600")))
        self.stack.callback(process.end)
        return process

    @staticmethod
    def read(manager: Manager, controller: str, file: str) -> str:
        """A file of the manager's cgroup."""
        return files.read(f"{manager.directory(controller)}/{file}").strip()


def expect(
    kind: type[PyruncError],
    text: str,
    path: str | None,
    call: Callable[Arguments, None],
    *arguments: Arguments.args,
    **more: Arguments.kwargs,
) -> PyruncError:
    """The error that the call must raise."""
    with pytest.raises(kind) as caught:
        call(*arguments, **more)
    assert text in str(caught.value)
    assert caught.value.path == path
    return caught.value


def lifecycle(scene: Scene) -> None:
    """What to_make says is made, used, and gone again, parents included; a second destroy is content."""
    manager = scene.manager()
    wanted = manager.to_make
    assert wanted
    assert not any(os.path.exists(path) for path in wanted)
    manager.create()
    assert manager.made == wanted
    assert all(os.path.isdir(path) for path in wanted)
    assert not manager.warnings
    first, second = scene.process(), scene.process()
    manager.attach(first.pid)
    below = f"{manager.paths[-1][1]}/below" if scene.is_v2 else f"{manager.directory('devices')}/below"
    os.mkdir(below)
    files.write(f"{below}/cgroup.procs", str(second.pid))
    assert manager.pids() == [first.pid, second.pid]
    for line in files.read(f"/proc/{first.pid}/cgroup").split():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if manager.directory(name) and not (scene.is_v2 and name):
                assert path == f"/{scene.name}/c1", line
    again = choose.from_paths(manager.paths, manager.made)
    again.kill()
    assert first.wait() == -9
    if scene.is_v2:
        assert second.wait() == -9
    again.destroy()
    assert not [path for path in wanted if os.path.exists(path)]
    again.destroy()


def parents_stay(scene: Scene) -> None:
    """A parent that was there before, or that another container uses, is left."""
    one, two = scene.made(), scene.made(f"/{scene.name}/c2")
    assert len(one.made) == 2 * len(two.made)
    one.destroy()
    assert all(os.path.isdir(path) for _, path in two.paths)
    two.destroy()
    assert all(os.path.isdir(os.path.dirname(path)) for _, path in two.paths)


def unset_path(scene: Scene) -> None:
    """Without cgroupsPath: by the id, at the runtime's own cgroup."""
    manager = scene.manager("")
    assert all(path.endswith(f"/{scene.name}-id") for _, path in manager.paths)
    for controllers, path in manager.paths:
        own = scene.facts.own_cgroups[controllers.split(",")[0]]
        assert scene.is_v2 or f"{own}/{scene.name}-id".replace("//", "/") in path
    manager.create()
    manager.attach(scene.process().pid)
    assert len(manager.pids()) == 1


def in_use(scene: Scene) -> None:
    """A cgroup with processes, also further down, or a frozen one is refused, and it stays as it is."""
    owner = scene.made()
    below = f"{owner.directory('devices')}/below"
    os.mkdir(below)
    process = scene.process()
    files.write(f"{below}/cgroup.procs", str(process.pid))
    other = choose.manager({"linux": {"cgroupsPath": f"/{scene.name}/c1"}}, "x", scene.facts)
    text = "container's cgroup is not empty: 1 process(es) found"
    expect(StateError, text, "$.linux.cgroupsPath", other.create)
    assert other.made == []
    os.kill(process.pid, 0)
    process.end()
    os.rmdir(below)
    other = choose.manager({"linux": {"cgroupsPath": f"/{scene.name}/c1"}}, "x", scene.facts)
    other.create()
    assert other.made == []
    kernel_container.cgroup_freeze(owner.paths)
    other = choose.manager({"linux": {"cgroupsPath": f"/{scene.name}/c1"}}, "x", scene.facts)
    expect(StateError, "container's cgroup unexpectedly frozen", "$.linux.cgroupsPath", other.create)
    kernel_container.cgroup_thaw(owner.paths)


def frozen_parent(scene: Scene) -> None:
    """Below a frozen parent nothing could ever run: refused, and nothing is left."""
    parent = scene.made(f"/{scene.name}")
    # On a host with both, cgroup2 stops processes as well as the freezer of v1.
    for one in [item for item in parent.paths if item[0] in ("freezer", "")]:
        kernel_container.cgroup_freeze([one])
        child = scene.manager()
        expect(StateError, "container's cgroup unexpectedly frozen", "$.linux.cgroupsPath", child.create)
        assert not any(os.path.exists(path) for _, path in child.paths)
        kernel_container.cgroup_thaw([one])


def freezer(scene: Scene) -> None:
    """What is frozen gives no answer; a container that forks all the time stops, too, and can be killed then."""
    manager = scene.made()
    forker = scene.process("sh", "-c", "while :; do /bin/true; done")
    echo = scene.process(sys.executable, "-c", "while input() == '': print('here', flush=True)")
    manager.attach(forker.pid)
    manager.attach(echo.pid)
    assert echo.ask() == "here"
    states = [manager.frozen]
    kernel_container.cgroup_freeze(manager.paths)
    states.append(manager.frozen)
    echo.nudge()
    assert echo.answers(0.1) == ""
    kernel_container.cgroup_thaw(manager.paths)
    assert echo.answers(20) == "here"
    assert [*states, manager.frozen] == [False, True, False]
    kernel_container.cgroup_freeze(manager.paths)
    manager.kill()
    assert (forker.wait(), echo.wait()) == (-9, -9)


def limits_v1(scene: Scene) -> None:
    """Every controller of this host takes its values; memory and memory+swap move up and down together."""
    manager = scene.made()

    def memory() -> tuple[str, str]:
        return (
            scene.read(manager, "memory", "memory.limit_in_bytes"),
            scene.read(manager, "memory", "memory.memsw.limit_in_bytes"),
        )

    unlimited = memory()
    for limit, swap in ((64, 64), (256, 512), (32, 48), (48, 48)):
        manager.apply({"memory": {"limit": limit << 20, "swap": swap << 20}})
        assert memory() == (str(limit << 20), str(swap << 20))
    manager.apply({"memory": {"limit": -1}})
    assert memory() == unlimited
    manager.apply(
        {
            "memory": {
                "reservation": 32 << 20,
                "swappiness": 10,
                "disableOOMKiller": True,
                "useHierarchy": True,
            },
            "cpu": {
                "shares": 512,
                "quota": 50000,
                "period": 200000,
                "burst": 10000,
                "cpus": "0",
                "mems": "0",
            },
            "pids": {"limit": 0},
        }
    )
    for controller, file, value in (
        ("memory", "memory.soft_limit_in_bytes", str(32 << 20)),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "200000"),
        ("cpu", "cpu.cfs_burst_us", "10000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "0"),
    ):
        assert scene.read(manager, controller, file) == value, file
    assert "oom_kill_disable 1" in scene.read(manager, "memory", "memory.oom_control")
    manager.apply({"cpu": {"quota": 200000, "burst": 150000}, "pids": {"limit": -1}})
    assert scene.read(manager, "cpu", "cpu.cfs_burst_us") == "150000"
    assert scene.read(manager, "pids", "pids.max") == "max"
    manager.apply({"cpu": {"idle": 1, "shares": 100}})
    manager.apply({"cpu": {"idle": 1, "shares": 200}})
    assert scene.read(manager, "cpu", "cpu.idle") == "1"
    weight = (
        "blkio.weight"
        if os.path.exists(f"{manager.directory('blkio')}/blkio.weight")
        else "blkio.bfq.weight"
    )
    if os.path.exists(f"{manager.directory('blkio')}/{weight}"):
        manager.apply({"blockIO": {"weight": 300}})
        assert scene.read(manager, "blkio", weight).removeprefix("default ") == "300"


def refused_v1(scene: Scene) -> None:
    """What the kernel or the host refuses is named by its JSON path, and the file by its name."""
    manager = scene.made()

    def refused(kind: type[PyruncError], text: str, path: str, resources: Resources) -> PyruncError:
        return expect(kind, text, f"$.linux.resources.{path}", manager.apply, resources)

    error = refused(KernelError, "invalid argument", "cpu.cpus", {"cpu": {"cpus": "x"}})
    assert "cpuset.cpus'" in str(error)
    assert "the value was 'x'; the parent cgroup has '0" in str(error.hint)
    refused(
        ConfigError, "hugetlb", "hugepageLimits[0]", {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}
    )
    refused(ConfigError, "cannot use unified on cgroup v1", "unified['a.b']", {"unified": {"a.b": "1"}})
    refused(ConfigError, "blkio.leaf_weight", "blockIO.leafWeight", {"blockIO": {"leafWeight": 100}})
    program = "input(); held = b'x' * (64 << 20); print('held', flush=True); input()"
    process = scene.process(sys.executable, "-c", program)
    manager.attach(process.pid)
    assert process.ask() == "held"
    small: Resources = {"memory": {"limit": 1 << 20, "swap": 1 << 20}}
    refused(ConfigError, "unable to set memory limit to 1048576 (current usage: ", "memory.limit", small)


def limits_v2(scene: Scene) -> None:
    """Controllers are handed down the whole path; what the host has not got is named."""
    manager = scene.made(f"/{scene.name}/deep/er/c1")
    offered = files.read("/sys/fs/cgroup/cgroup.controllers").split()
    assert scene.read(manager, "", "cgroup.controllers").split() == offered
    root = "$.linux.resources"
    if "hugetlb" in offered:
        manager.apply({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]})
        assert scene.read(manager, "", "hugetlb.2MB.max") == str(4 << 20)
        assert scene.read(manager, "", "hugetlb.2MB.rsvd.max") == str(4 << 20)
        manager.apply({"unified": {"hugetlb.2MB.max": "max", "cgroup.max.depth": "7"}})
        assert scene.read(manager, "", "hugetlb.2MB.max") == "max"
        assert scene.read(manager, "", "cgroup.max.depth") == "7"
        wrong: Resources = {"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}
        expect(ConfigError, "hugetlb.3MB.max", f"{root}.hugepageLimits[0]", manager.apply, wrong)
    if "memory" not in offered:
        expect(
            ConfigError,
            "no file 'memory.max'",
            f"{root}.memory.limit",
            manager.apply,
            {"memory": {"limit": 5000}},
        )
    expect(
        ConfigError,
        "new.thing",
        f"{root}.unified['new.thing']",
        manager.apply,
        {"unified": {"new.thing": "1"}},
    )
    expect(
        KernelError, "cgroup.max.depth", f"{root}.unified['cgroup.max.depth']",
        manager.apply, {"unified": {"cgroup.max.depth": "deep"}},
    )  # fmt: skip


_OPENER = """
import os, sys
input()
found = []
for name in sys.argv[1:]:
    try:
        os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
        found.append("yes")
    except OSError as error:
        found.append(str(error.errno))
print(*found)
"""


def _opens(scene: Scene, manager: Manager, *names: str) -> list[str]:
    """For each device "yes" or the errno of open(2), as a process of the cgroup sees it."""
    process = scene.process(sys.executable, "-c", _OPENER, *names)
    manager.attach(process.pid)
    return process.ask().split()


def devices(scene: Scene) -> None:
    """Only what the rules and the defaults allow can be opened; applying again replaces, it does not add."""
    manager = scene.made()
    names = ("/dev/null", "/dev/kmsg", "/dev/zero")
    refused = str(errno.EPERM)
    assert _opens(scene, manager, *names) == ["yes", "yes", "yes"]
    deny_all: dict[str, object] = {"allow": False, "access": "rwm"}
    manager.apply({"devices": [deny_all]})
    assert _opens(scene, manager, *names) == ["yes", refused, "yes"]
    manager.apply(
        {"devices": [deny_all, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]}
    )
    assert _opens(scene, manager, *names) == ["yes", "yes", "yes"]
    manager.update({"devices": [deny_all]}, "$")
    assert _opens(scene, manager, *names) == ["yes", "yes", "yes"], "an update takes no device away"
    manager.apply({})
    assert _opens(scene, manager, *names) == ["yes", refused, "yes"], "no list means the defaults alone"
    manager.apply({"devices": [{"allow": True, "access": "rwm"}]})
    assert _opens(scene, manager, *names) == ["yes", "yes", "yes"]
    if scene.is_v2:
        fd = manager.open()
        scene.stack.callback(os.close, fd)
        assert bpf.device_count(fd) == 1
        error = expect(
            KernelError, "bpf 'BPF_CGROUP_DEVICE'", "$.d", bpf.device_attach, fd, bytes(16), "$.d"
        )
        assert isinstance(error, KernelError)
        assert error.errno == errno.EINVAL
        assert error.hint, "the verifier's words"
        assert bpf.device_count(fd) == 1, "a refused program takes no other away"


def devices_match_kernel(scene: Scene) -> None:
    """The kernel's own list after our writes is the one that was wanted (v1)."""
    manager = scene.made()
    rules = [{"allow": False}, {"allow": True, "type": "b", "major": 8, "access": "r"}]
    manager.apply({"devices": rules})
    lines = device_rules.v1_lines(device_rules.policy(rules))
    listed = scene.read(manager, "devices", "devices.list").split("\n")
    assert sorted(listed) == sorted(line for _, line, _ in lines[1:])
    os.mkdir(f"{manager.directory('devices')}/below")
    error = expect(
        KernelError, "devices.deny", "$.linux.resources.devices[0]", manager.apply, {"devices": rules}
    )
    assert "children" in str(error.hint)


def into_cgroup(scene: Scene) -> None:
    """clone3 puts a process straight into the v2 directory."""
    manager = scene.made()
    fd = manager.open()
    scene.stack.callback(os.close, fd)
    pid, pidfd = kernel_process.spawn(
        [b"sleep", b"600"], [b"PATH=/bin:/usr/bin"], path="/bin/sleep", cgroup_fd=fd
    )
    os.close(pidfd)
    assert manager.pids() == [pid]
    manager.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9


def ownership(scene: Scene) -> None:
    """The cgroup goes to the user of the process: the directory and the files that the kernel names."""
    manager = scene.manager(
        mounts=[{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["rw"]}],
        process={"user": {"uid": 4711}},
    )
    assert manager._owner is None, "without a cgroup namespace it stays root's"
    manager._owner = 4711
    manager.create()
    path = manager.paths[0][1]
    owners = {
        name: os.stat(f"{path}/{name}").st_uid
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.freeze")
    }
    assert owners == {"cgroup.procs": 4711, "cgroup.subtree_control": 4711, "cgroup.freeze": 0}
    assert (os.stat(path).st_uid, os.stat(os.path.dirname(path)).st_uid) == (4711, 0)


def threaded(scene: Scene) -> None:
    """Below a threaded parent: taken in as threaded, refused where a limit needs a domain."""
    parent = scene.made(f"/{scene.name}")
    top = parent.paths[0][1]
    os.mkdir(f"{top}/pool")
    files.write(f"{top}/pool/cgroup.type", "threaded")
    # hugetlb cannot be handed to threaded children, so the enabling of controllers has to be content with less.
    manager = scene.made(f"/{scene.name}/pool/c1")
    assert scene.read(manager, "", "cgroup.type") == "threaded"
    limited = scene.manager(f"/{scene.name}/pool/c2", {"memory": {"limit": 1 << 30}})
    expect(ConfigError, "cannot use the memory controller", "$.linux.resources.memory.limit", limited.create)
    assert not os.path.exists(limited.paths[0][1])


def cpuset_inherits(scene: Scene) -> None:
    """A parent that was made by hand has no CPUs: it is filled; the container's own choice is taken at once."""
    top = scene.facts.cgroup_mounts["cpuset"][0]
    parent = f"{top}/{scene.name}"
    os.mkdir(parent)
    scene.stack.callback(os.rmdir, parent)
    assert files.read(f"{parent}/cpuset.cpus").strip() == ""
    manager = scene.made(None, {"cpu": {"cpus": "0"}})
    assert files.read(f"{parent}/cpuset.mems") == files.read(f"{top}/cpuset.mems")
    assert scene.read(manager, "cpuset", "cpuset.cpus") == "0"
    manager.attach(scene.process().pid)
    manager.kill()
    manager.destroy()


def undone(scene: Scene) -> None:
    """A create that fails half-way leaves nothing."""
    manager = scene.manager(None, {"cpu": {"cpus": "99999"}})
    error = expect(KernelError, "cpuset.cpus", "$.linux.resources.cpu.cpus", manager.create)
    assert "99999" in str(error.hint)
    assert manager.made == []
    assert not [path for path in manager.to_make if os.path.exists(path)]


def race(scene: Scene) -> None:
    """Containers with a common parent come and go at once: no error, nothing left."""
    failures: list[str] = []

    def work(number: int) -> None:
        try:
            for turn in range(25):
                linux = {"cgroupsPath": f"/{scene.name}/a/b/c{number}-{turn}"}
                manager = choose.manager({"linux": linux}, "x", scene.facts)
                record = manager.to_make
                manager.create()
                choose.from_paths(manager.paths, record).destroy()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread reports it
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    # Who made a parent takes it away if nobody else is in it then: that leaves some, but nothing in them.
    for top in {point for point, _ in scene.facts.cgroup_mounts.values()} | {scene.facts.unified_mount}:
        for parent in ("/a/b", "/a", ""):
            path = f"{top}/{scene.name}{parent}"
            if os.path.isdir(path):
                os.rmdir(path)


def rootless(scene: Scene) -> None:
    """An ordinary user: no cgroup and no word of it, unless a path or a limit was asked for."""
    facts = scene.facts
    facts.rootless, facts.euid = True, 65534
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    spec: dict[str, object] = {"linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}}
    manager = choose.manager(spec, f"{scene.name}-id", facts)
    manager.create()
    assert (manager.paths, manager.made) == ([], [])
    assert manager.warnings
    manager.apply({"devices": [{"allow": False, "access": "rwm"}]})
    manager.attach(os.getpid())
    explicit = choose.manager({"linux": {"cgroupsPath": f"/{scene.name}/c1"}}, "x", facts)
    expect(KernelError, "mkdir '/sys/fs/cgroup/", "$.linux.cgroupsPath", explicit.create)
    limits: Resources = {"pids": {"limit": 5}}
    limited = choose.manager({"linux": {"resources": limits}}, f"{scene.name}-id", facts)
    path = "$.linux.resources.pids.limit"
    if scene.is_v2:
        expect(KernelError, "rootless needs no limits + no cgrouppath", path, limited.create)
    else:
        limited.create()
        expect(
            ConfigError,
            "cannot set pids limit: container could not join or create cgroup",
            path,
            limited.apply,
            limits,
        )


SCENES = {
    call.__name__: call
    for call in (
        lifecycle, parents_stay, unset_path, in_use, frozen_parent, freezer, limits_v1, refused_v1,
        limits_v2, devices, devices_match_kernel, into_cgroup, ownership, threaded, cpuset_inherits, undone, race,
        rootless,
    )
}  # fmt: skip


def main(scene: str, name: str) -> None:
    """Play one scene."""
    with ExitStack() as stack:
        SCENES[scene](Scene(name, stack))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

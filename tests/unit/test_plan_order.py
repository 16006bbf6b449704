"""The order rules of a plan, each with the reason why another order is a hole or a failure."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

import plan_specs as specs
from pyrunc.errors import ConfigError
from pyrunc.plan import numbers, wire
from pyrunc.plan.job import Plan
from pyrunc.spec import namespaces
from pyrunc.spec.host_facts import HostFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyrunc.spec.shapes import Spec

HOSTS = {
    "v1": specs.V1_HOST,
    "v2": specs.V2_HOST,
    "rootless": specs.ROOTLESS_HOST,
    "nested": specs.NESTED_HOST,
}
SPECS = {
    "docker": specs.docker_like,
    "podman": specs.podman_like,
    "userns": specs.userns,
    "rootless": specs.rootless,
    "joined": specs.joined,
    "without process": specs.without_process,
    "terminal": specs.terminal,
}
FILTERS = {"no filter": None, "filter": specs.Filter(), "listener": specs.Filter(notify=True)}


def all_plans() -> list[tuple[str, Spec, Plan]]:
    """Every configuration on every host, with and without a filter, as create and as exec."""
    made = []
    for (spec_name, build), (host_name, host), (name, compiled) in itertools.product(
        SPECS.items(), HOSTS.items(), FILTERS.items()
    ):
        spec = build()
        title = f"{spec_name} on {host_name} with {name}"
        made.append((title, spec, specs.create(spec, host, seccomp=compiled, cgroup_paths=specs.V1_PATHS)))
        if "process" in spec:
            entered = specs.enter(spec["process"], spec, host, seccomp=compiled, cgroup_paths=specs.V1_PATHS)
            made.append((f"exec: {title}", spec, entered))
    return made


ALL = all_plans()


def positions(made: Plan, name: str, *fields: wire.Field) -> list[int]:
    """Where ops of this name, whose first fields are these, stand."""
    return [
        place for place, op in enumerate(made.ops) if op.name == name and op.fields[: len(fields)] == fields
    ]


def before(made: Plan, first: str, second: str) -> bool:
    """Whether every op of the one name stands before every op of the other; true where one of them is missing."""
    a, b = positions(made, first), positions(made, second)
    return not a or not b or max(a) < min(b)


def sync(made: Plan, code: str) -> list[int]:
    """Where this SYNC stands."""
    return positions(made, "SYNC", numbers.SYNC[code])


ALWAYS = [
    # Raising limits, oom_score_adj: the host's privileges are gone with the user namespace.
    ("PROC_SELF", "USERNS_ROOT"),
    ("PROC_SELF", "DUMPABLE"),
    # Everything that the host's tree is needed for.
    ("ROOTFS", "MOUNT_NEW"),
    ("MOUNT_NEW", "DEVICE"),
    ("MOUNT_BIND", "DEVICE"),
    ("DEVICE", "PIVOT"),
    ("MOUNT_NEW", "PIVOT"),
    # What closes a door comes after what goes through it.
    ("PIVOT", "ROOT_PROPAGATION"),
    ("READONLY_PATH", "ROOT_PROPAGATION"),
    ("MASKED_PATH", "ROOT_PROPAGATION"),
    ("PIVOT", "MKDIR"),
    ("MKDIR", "CHDIR"),
    ("SYSCTL", "READONLY_PATH"),
    ("READONLY_PATH", "MASKED_PATH"),
    ("HOSTNAME", "SYSCTL"),
    ("CONSOLE", "STDIO_OWNER"),
    # No descriptor of the caller may be reachable by a name that the container chooses.
    ("CLOSE_FROM", "CHDIR"),
    ("CLOSE_FROM", "LOOKUP"),
    # capabilities(7)
    ("STDIO_OWNER", "USER"),
    ("CAPS_BOUNDING", "USER"),
    ("USER", "CAPSET"),
    ("CAPSET", "NO_NEW_PRIVS"),
    ("CAPSET", "LOOKUP"),
    ("KEYRING", "USER"),
    ("START_WAIT", "EXEC"),
    ("NO_NEW_PRIVS", "SECCOMP"),
    ("FORK", "CTTY"),
    ("CONSOLE", "CTTY"),
]


@pytest.mark.parametrize(("first", "second"), ALWAYS)
def test_always_before(first: str, second: str) -> None:
    """These hold in every plan."""
    seen = 0
    for title, _, made in ALL:
        assert before(made, first, second), f"{title}: {first} before {second}"
        seen += bool(positions(made, first) and positions(made, second))
    assert seen, "no plan has both: the rule is not tested"


def test_a_session_of_its_own() -> None:
    """setsid(2) is for the process that goes on: the session of one that ends loses its terminal.

    Where others may stop that one, its predecessor has left the caller's session and process group already.
    """
    seen = 0
    for title, _, made in ALL:
        sessions = sorted(positions(made, "SETSID") + positions(made, "CTTY"))
        for fork in positions(made, "FORK"):
            leaves = made.ops[fork].fields != (-1, -1)
            assert len(sessions) == 1 + leaves and sessions[-1] > fork, title
            assert not leaves or (made.ops[sessions[0]].name == "SETSID" and sessions[0] < fork), title
            seen += leaves
    assert seen


def test_every_plan_can_be_sent() -> None:
    """Fields fit their letters, and what init reads is what was written."""
    for title, _, made in ALL:
        fds = {field: 9 for op in made.ops for field in op.fields if isinstance(field, wire.Fd)}
        decoded = wire.decode(wire.encode(made.ops, fds), [op.path for op in made.ops])
        assert [op.name for op in decoded] == specs.names(made), title
        assert all(op.why for op in made.ops), title


def resolve(document: Mapping[str, object], path: str) -> bool:
    """Whether a JSON path leads to something, or to a property that is not set (its default then counts)."""
    here: object = document
    for key, index, quoted in re.findall(r"\.(\w+)|\[(\d+)\]|\['([^']+)'\]", path):
        if index:
            if not isinstance(here, list) or int(index) >= len(here):
                return False
            here = here[int(index)]
            continue
        if not isinstance(here, dict):
            return False
        if (key or quoted) not in here:
            return not quoted
        here = here[key or quoted]
    return True


def test_every_path_resolves() -> None:
    """The JSON path of an op leads into the configuration that it was made from."""
    for title, spec, made in ALL:
        for op in made.ops:
            assert re.fullmatch(r"\$(\.\w+|\[\d+\]|\['[^']+'\])*", op.path), f"{title}: {op}"
            assert resolve(spec, op.path), f"{title}: {op.name} {op.path}"
    assert not resolve({"mounts": []}, "$.mounts[0]")
    assert not resolve({"linux": {"sysctl": {}}}, "$.linux.sysctl['a.b']")


def test_paths_of_a_process_file() -> None:
    """exec --process: its paths start at the file's own root."""
    made = specs.enter(specs.process(oomScoreAdj=5), specs.docker_like(), path="$")
    assert "$.oomScoreAdj" in [op.path for op in made.ops]
    assert not [op.path for op in made.ops if op.path.startswith("$.process")]


def test_seccomp_without_no_new_privileges() -> None:
    """seccomp(2): it needs CAP_SYS_ADMIN then, so it comes before the capabilities go; but after all it may forbid."""
    made = specs.create(specs.docker_like(), seccomp=specs.Filter())
    order = specs.names(made)
    at = order.index("SECCOMP")
    assert order[at + 1] == "CAPS_BOUNDING"
    assert max(positions(made, "RLIMIT")) < at and max(positions(made, "MASKED_PATH")) < at
    assert "NO_NEW_PRIVS" not in order


def test_seccomp_with_no_new_privileges_is_the_last_step() -> None:
    """The filter then need not allow anything that init does but execve."""
    made = specs.create(specs.podman_like(), seccomp=specs.Filter())
    assert specs.names(made)[-2:] == ["SECCOMP", "EXEC"]
    assert before(made, "HOOK", "SECCOMP") and before(made, "START_WAIT", "SECCOMP")


def test_seccomp_listener_is_sent_while_create_listens() -> None:
    """A listener made after READY would have nobody to go to."""
    made = specs.create(specs.podman_like(), seccomp=specs.Filter(notify=True))
    order = specs.names(made)
    assert order.index("SECCOMP") + 1 == sync(made, "READY")[0]
    assert order.index("NO_NEW_PRIVS") < order.index("SECCOMP")
    assert specs.only(made, "SECCOMP").fields == (bytes(64), 8, 1, 0)


def test_one_filter_per_plan() -> None:
    """Never twice, never forgotten."""
    for title, spec, made in ALL:
        wanted = 0 if "no filter" in title or "process" not in spec else 1
        assert len(positions(made, "SECCOMP")) == wanted, title


def test_common_container_needs_no_fork() -> None:
    """Without user and time namespaces clone3 makes the others, but for those of the network and of cgroups."""
    made = specs.create(specs.docker_like(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS)
    assert (
        made.clone_flags
        == namespaces.CLONE_NEWNS
        | namespaces.CLONE_NEWUTS
        | namespaces.CLONE_NEWPID
        | namespaces.CLONE_NEWIPC
    )
    assert [fields[0] for fields in specs.every(made, "UNSHARE")] == [namespaces.CLONE_NEWNET]
    assert not {"FORK", "SETNS"} & set(specs.names(made))
    assert (made.needs_fork, made.uid_maps, made.setgroups) == (False, None, None)
    assert positions(made, "UNSHARE")[0] < sync(made, "CGROUP")[0] < min(positions(made, "MOUNT_NEW"))


def test_pod_member_needs_no_fork() -> None:
    """Joined network, ipc and uts namespaces do not keep clone3 from making the others."""
    made = specs.create(specs.podman_like(), specs.V2_HOST, cgroup_paths=specs.V2_PATHS)
    assert made.clone_flags == namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID
    assert not made.needs_fork
    assert [fields[1] for fields in specs.every(made, "SETNS")] == [
        namespaces.CLONE_NEWNET,
        namespaces.CLONE_NEWIPC,
        namespaces.CLONE_NEWUTS,
    ]
    assert "LOOPBACK_UP" not in specs.names(made)


def test_cgroup_namespace_after_the_cgroup() -> None:
    """cgroup_namespaces(7): its root is where the process is at that moment. On v2 clone3 has put it there."""
    v1 = specs.create(specs.podman_like(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS)
    unshare = positions(v1, "UNSHARE", namespaces.CLONE_NEWCGROUP)
    assert sync(v1, "CGROUP")[0] + 1 == unshare[0]
    assert unshare[0] < min(positions(v1, "MOUNT_NEW"))
    v2 = specs.create(specs.podman_like(), specs.V2_HOST, cgroup_paths=specs.V2_PATHS)
    assert positions(v2, "UNSHARE", namespaces.CLONE_NEWCGROUP) and not sync(v2, "CGROUP")


def test_no_cgroup_no_wait() -> None:
    """Without cgroup paths (rootless on v1) nobody answers for them."""
    made = specs.create(specs.userns(), specs.V1_HOST)
    assert not sync(made, "CGROUP")


def test_new_user_namespace() -> None:
    """user_namespaces(7): maps before ids, ids before everything that must belong to them, the fork at the end."""
    made = specs.create(specs.userns(), specs.V1_HOST, cgroup_paths=specs.V1_PATHS)
    assert made.clone_flags == 0 and made.needs_fork and sync(made, "CGROUP")
    assert made.uid_maps == [(0, 100000, 65536)] and made.gid_maps == [(0, 100000, 65536)]
    assert made.setgroups == "allow"
    rest = (
        namespaces.CLONE_NEWNS
        | namespaces.CLONE_NEWNET
        | namespaces.CLONE_NEWUTS
        | namespaces.CLONE_NEWPID
        | namespaces.CLONE_NEWIPC
    )
    order = [
        positions(made, "RLIMIT", 7)[0],
        positions(made, "PROC_SELF", "oom_score_adj")[0],
        positions(made, "UNSHARE", namespaces.CLONE_NEWUSER)[0],
        sync(made, "MAPS")[0],
        positions(made, "UNSHARE", namespaces.CLONE_NEWTIME)[0],
        positions(made, "PROC_SELF", "timens_offsets")[0],
        positions(made, "USERNS_ROOT", 0, 0, 1)[0],
        positions(made, "DUMPABLE", 0)[0],
        positions(made, "UNSHARE", rest)[0],
        sync(made, "CGROUP")[0],
        positions(made, "UNSHARE", namespaces.CLONE_NEWCGROUP)[0],
        positions(made, "FORK")[0],
        positions(made, "ROOTFS")[0],
    ]
    assert order == sorted(order)
    assert made.ops[order[5]].fields[1] == "monotonic -1 5\nboottime 60 0\n"


def test_limits_before_the_user_namespace() -> None:
    """Raising a hard limit needs the host's CAP_SYS_RESOURCE; the exact values come late and never raise it."""
    made = specs.create(specs.userns(), specs.V1_HOST)
    early, late = specs.every(made, "RLIMIT")
    assert early == (7, 1024, 8192) and late == (7, 1024, 8192)
    assert positions(made, "RLIMIT")[1] > positions(made, "PIVOT")[0]
    spec = specs.userns()
    spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 4096}]
    assert specs.every(specs.create(spec, specs.V1_HOST), "RLIMIT") == [(7, 10, 4096)]
    spec = specs.docker_like()
    spec["process"]["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": 5, "hard": 99999}]
    assert specs.every(specs.create(spec, specs.V1_HOST), "RLIMIT") == [(6, 5, 99999)]


def test_rootless_maps() -> None:
    """An ordinary user alone must give up setgroups; with newgidmap's ranges not."""
    made = specs.create(specs.rootless(), specs.ROOTLESS_HOST)
    assert made.setgroups == "deny"
    assert specs.only(made, "USERNS_ROOT").fields == (0, 0, 0)
    assert specs.only(made, "USER").fields == (0, 0, [], 0)
    ranges = specs.create(specs.userns(), specs.ROOTLESS_HOST)
    assert ranges.setgroups == "allow"
    assert specs.only(ranges, "USER").fields[3] == 1


def test_first_mapped_id_is_root() -> None:
    """Where 0 is not mapped, init becomes what is."""
    spec = specs.rootless()
    spec["process"]["user"] = {"uid": 1000, "gid": 7}
    spec["linux"]["uidMappings"] = [{"containerID": 1000, "hostID": 1000, "size": 1}]
    spec["linux"]["gidMappings"] = [{"containerID": 7, "hostID": 1000, "size": 1}]
    assert specs.only(specs.create(spec, specs.ROOTLESS_HOST), "USERNS_ROOT").fields == (1000, 7, 0)


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ({"uid": 70000, "gid": 0}, "$.process.user.uid"),
        ({"uid": 0, "gid": 65536}, "$.process.user.gid"),
        ({"uid": 0, "gid": 0, "additionalGids": [1, 65536]}, "$.process.user.additionalGids[1]"),
    ],
)
def test_unmapped_ids(user: dict[str, int], path: str) -> None:
    """An id that the new namespace does not have is an error with its place, not EINVAL."""
    spec = specs.userns()
    spec["process"] = specs.process(user=user)
    with pytest.raises(ConfigError, match="is not mapped in the container's user namespace") as caught:
        specs.create(spec)
    assert caught.value.path == path and caught.value.hint


def test_additional_groups_need_setgroups() -> None:
    """CVE-2014-8989: who maps alone has given setgroups up."""
    spec = specs.rootless()
    spec["process"]["user"] = {"uid": 0, "gid": 0, "additionalGids": [0]}
    with pytest.raises(
        ConfigError, match="cannot set any additional groups in a rootless container"
    ) as caught:
        specs.create(spec, specs.ROOTLESS_HOST)
    assert caught.value.path == "$.process.user.additionalGids"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (specs.V2_HOST, ["cgroup", "mount", "network", "time", "ipc", "uts", "pid", "user"]),
        (specs.ROOTLESS_HOST, ["user", "cgroup", "mount", "network", "time", "ipc", "uts", "pid"]),
    ],
)
def test_join_order(host: HostFacts, expected: Sequence[str]) -> None:
    """pid after all but what root's user namespace takes away; others need the user namespace's privileges first."""
    made = specs.create(specs.joined(), host)
    flags = [namespaces.NAMESPACES[kind][0] for kind in expected]
    assert [fields[1] for fields in specs.every(made, "SETNS")] == flags
    assert made.clone_flags == 0 and made.needs_fork
    assert not positions(made, "UNSHARE") and before(made, "SETNS", "FORK")


def test_others_are_joined_before_a_new_user_namespace() -> None:
    """They belong to the host's, which the new one has no privileges in."""
    spec = specs.userns()
    spec["linux"]["namespaces"][1] = {"type": "network", "path": "/run/netns/x"}
    made = specs.create(spec)
    assert positions(made, "SETNS")[0] < positions(made, "UNSHARE", namespaces.CLONE_NEWUSER)[0]


def test_not_dumpable_before_strangers() -> None:
    """CVE-2016-9962: processes of a namespace that is joined could trace init or open its descriptors."""
    for title, _, made in ALL:
        dumpable, joins = positions(made, "DUMPABLE", 0), positions(made, "SETNS")
        assert dumpable, title
        if joins and not positions(made, "UNSHARE", namespaces.CLONE_NEWUSER):
            assert dumpable[0] < joins[0], title
        assert dumpable[0] < positions(made, "KEYRING")[0], title


def test_not_dumpable_as_the_user() -> None:
    """With fs.suid_dumpable=1 setuid(2) makes init dumpable, and a user traces whoever has no more rights than he."""
    for title, spec, made in ALL:
        if "process" in spec:
            user = positions(made, "USER")[0]
            assert made.ops[user + 1].name == "DUMPABLE" and made.ops[user + 2].name == "CAPSET", title


def test_nothing_is_left_when_others_see_init() -> None:
    """Into a pid namespace of others init goes when it has the program's rights, and nothing else any more."""
    seen = 0
    for title, _, made in ALL:
        if not positions(made, "SETNS") or not positions(made, "FORK"):
            continue
        (fork,) = positions(made, "FORK")
        assert [type(field) for field in made.ops[fork].fields] == [wire.Fd, wire.Fd], title
        behind = {"SETSID", "CTTY", "RLIMIT", "SYNC", "START_WAIT", "HOOK", "SECCOMP", "EXEC"}
        assert set(specs.names(made)[fork + 1 :]) <= behind, title
        seen += 1
    assert seen >= 2


def test_hooks_and_mounts_are_not_where_others_are() -> None:
    """Their processes have all rights and the host's files: nothing is forked into a joined pid namespace by then."""
    spec = specs.docker_like()
    spec["linux"]["namespaces"][3] = {"type": "pid", "path": "/proc/7/ns/pid"}
    spec["hooks"] = {"createContainer": [{"path": "/bin/true"}]}
    made = specs.create(spec)
    joins = max(positions(made, "SETNS"))
    assert made.ops[joins].fields[1] == namespaces.CLONE_NEWPID
    for name in ("HOOK", "MOUNT_NEW", "PIVOT", "PIDNS"):
        assert max(positions(made, name)) < joins, name
    assert joins < positions(made, "USER")[0] < positions(made, "FORK")[0]
    ours, theirs = specs.only(made, "PIDNS").fields, made.ops[joins].fields
    assert ours[0] is theirs[0]


@pytest.mark.parametrize("inside", [False, True])
def test_hooks_and_a_user_namespace_of_others(inside: bool) -> None:
    """Where both are the same people's, what they may trace are the hooks: entered late, if it is not too late then."""
    spec = specs.docker_like()
    spec["linux"]["namespaces"][3] = {"type": "pid", "path": "/proc/7/ns/pid"}
    spec["linux"]["namespaces"].append({"type": "user", "path": "/proc/7/ns/user"})
    spec["hooks"] = {"createContainer": [{"path": "/bin/true"}]}
    made = specs.create(spec, pid_inside=inside)
    (joins,) = (
        place for place in positions(made, "SETNS") if made.ops[place].fields[1] == namespaces.CLONE_NEWPID
    )
    assert (max(positions(made, "HOOK")) < joins) == inside
    assert (joins < positions(made, "USERNS_ROOT")[0]) == (not inside)
    assert joins < positions(made, "USER")[0] < positions(made, "FORK")[0]


def test_working_directory_is_tried_twice() -> None:
    """As root, as runc does it; then as the user, which may be the only one that can."""
    made = specs.create(specs.docker_like())
    first, second = positions(made, "CHDIR")
    assert made.ops[first].fields == ("/work", numbers.CHDIR_TRY)
    assert made.ops[second].fields == ("/work", 0)
    assert first < positions(made, "USER")[0] < second < positions(made, "LOOKUP")[0]


def test_read_only_comes_last() -> None:
    """/dev and every tmpfs stay writable until devices and mount points are made, the root until all else is."""
    made = specs.create(specs.terminal(), specs.V2_HOST)
    remounts = positions(made, "REMOUNT")
    assert [made.ops[place].fields[0] for place in remounts] == ["/dev", "/"]
    assert positions(made, "CONSOLE")[0] < remounts[0]
    assert positions(made, "MKDIR")[0] < remounts[1]


def test_environment_ready_between_mounts_and_hooks() -> None:
    """runtime.md: createRuntime after the environment is made, createContainer after that, then pivot_root."""
    made = specs.create(specs.podman_like())
    ready, hook, pivot = sync(made, "ENV")[0], positions(made, "HOOK")[0], positions(made, "PIVOT")[0]
    assert max(positions(made, "SYMLINK")) < ready < hook < pivot
    assert made.ops[hook].fields == (
        "/usr/bin/ldconfig-hook",
        ["/usr/bin/ldconfig-hook"],
        ["A=1"],
        b'{"id":"c1"}',
        5000,
        0,
        numbers.HOOK_KINDS.index("createContainer"),
    )
    start = positions(made, "START_WAIT")[0]
    assert sync(made, "READY")[0] + 1 == start and positions(made, "HOOK")[1] == start + 1


def test_without_process() -> None:
    """It waits for a start that must be refused; there is nothing to become."""
    made = specs.create(specs.without_process())
    assert specs.names(made)[-4:] == ["SETSID", "CLOSE_FROM", "SYNC", "START_WAIT"]
    assert not {"EXEC", "LOOKUP", "USER", "SECCOMP"} & set(specs.names(made))


def test_exec_makes_nothing() -> None:
    """exec joins; the container's mounts, hooks and names are none of its business."""
    made = specs.enter(specs.process(), specs.userns(), cgroup_paths=specs.V1_PATHS)
    assert not {"ROOTFS", "MOUNT_NEW", "DEVICE", "HOOK", "HOSTNAME", "UNSHARE", "START_WAIT"} & set(
        specs.names(made)
    )
    assert made.clone_flags == 0 and made.uid_maps is None and sync(made, "CGROUP") and made.needs_fork
    files = [str(fields[0]) for fields in specs.every(made, "SETNS")]
    assert files[0] == "ns /proc/4242/ns/mnt" and files[-1] == "ns /proc/4242/ns/user"


def test_exec_without_mount_namespace_stays_in_the_root() -> None:
    """Such a container is a chroot: its init knows where."""
    spec = specs.docker_like()
    spec["linux"]["namespaces"] = specs.new_namespaces("uts")
    made = specs.enter(specs.process(), spec)
    assert specs.only(made, "ROOTFS").fields == ("/proc/4242/root", 0, 1)
    assert specs.only(made, "PIVOT").fields == (numbers.PIVOT_CHROOT,)
    assert not made.needs_fork


def test_exec_raises_limits_before_the_user_namespace() -> None:
    """The same rule as for create."""
    wanted = specs.process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 5000}])
    made = specs.enter(wanted, specs.userns())
    assert positions(made, "RLIMIT")[0] < positions(made, "SETNS")[0]

"""The planner's helpers: capabilities, id maps, devices, environment, kernel attributes, and the words of explain."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import time
from typing import TYPE_CHECKING

import pytest

import plan_specs as specs
import support
from pyrunc.errors import ConfigError
from pyrunc.plan import numbers, wire
from pyrunc.plan import process as plan_process
from pyrunc.reports import explain
from pyrunc.spec import capabilities, devices, id_mappings, sysctl
from pyrunc.spec.host_facts import HostFacts
from pyrunc.spec.process import RLIMITS

if TYPE_CHECKING:
    from pyrunc.spec.shapes import Spec

ALL = (1 << 41) - 1


def bits(*names: str) -> int:
    return capabilities.mask(names)[0]


def test_capability_numbers() -> None:
    """linux/capability.h, from the installed header where there is one."""
    assert len(capabilities.NAMES) == 41
    assert bits("CAP_CHOWN") == 1 and bits("CAP_SYS_ADMIN") == 1 << 21
    assert bits("CAP_CHECKPOINT_RESTORE") == 1 << 40
    header = "/usr/include/linux/capability.h"
    support.needs(os.path.exists(header), "linux/capability.h")
    with open(header, encoding="utf-8") as stream:
        lines = [line.split() for line in stream if line.startswith("#define CAP_")]
    numbers = {words[1]: int(words[2]) for words in lines if len(words) > 2 and words[2].isdigit()}
    numbers.pop("CAP_LAST_CAP", None)
    assert {name: capabilities.NAMES.index(name) for name in numbers} == numbers


def test_capability_names() -> None:
    """Both ways; what is no capability is told apart."""
    assert capabilities.mask(["CAP_KILL", "CAP_FLY", "cap_kill"]) == (1 << 5, ["CAP_FLY", "cap_kill"])
    assert capabilities.names(ALL) == list(capabilities.NAMES)
    assert capabilities.names(1 << 41) == []


def test_absent_capabilities_are_none() -> None:
    """As with runc: no set, no capability, not even in the bounding set."""
    process = specs.process()
    del process["capabilities"]
    spec = specs.docker_like()
    spec["process"] = process
    made = specs.create(spec)
    assert specs.only(made, "CAPS_BOUNDING").fields == (0,)
    assert specs.only(made, "CAPSET").fields == (0, 0, 0, 0)
    assert made.warnings == []


def test_inheritable_stays_empty() -> None:
    """CVE-2022-29162."""
    found = capabilities.resolve({"permitted": ["CAP_KILL"], "bounding": ["CAP_KILL"]}, ALL)
    assert (found.inheritable, found.ambient) == (0, 0)


def test_ungrantable_capabilities_are_warned_of() -> None:
    """config.md: MUST be logged, SHOULD NOT fail."""
    lists = ["CAP_KILL", "CAP_SYS_BOOT", "CAP_FLY"]
    found = capabilities.resolve(
        {"bounding": lists, "permitted": lists, "effective": lists}, bits("CAP_KILL")
    )
    assert found.bounding == found.permitted == found.effective == bits("CAP_KILL")
    assert found.warnings == [
        "ignoring unknown capabilities: CAP_FLY",
        "ignoring capabilities that cannot be granted here: CAP_SYS_BOOT",
    ]


def test_sets_the_kernel_would_refuse_are_cut() -> None:
    """capset(2): EPERM for the whole call otherwise."""
    found = capabilities.resolve(
        {
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "inheritable": ["CAP_KILL", "CAP_SYS_ADMIN"],
            "effective": ["CAP_KILL", "CAP_SYS_BOOT"],
            "ambient": ["CAP_KILL", "CAP_CHOWN"],
        },
        ALL,
    )
    assert found.inheritable == found.effective == found.ambient == bits("CAP_KILL")
    assert len(found.warnings) == 3


def test_user_namespace_grants_everything() -> None:
    """user_namespaces(7): the bounding set of the runtime does not count in it, the kernel's last capability does."""
    everything = list(capabilities.NAMES)
    wanted = specs.process(capabilities={"bounding": everything, "permitted": everything})
    poor = HostFacts(bounding_caps=1, last_cap=39)
    spec = specs.userns()
    spec["process"] = wanted
    made = specs.create(spec, poor)
    assert specs.only(made, "CAPS_BOUNDING").fields == ((1 << 40) - 1,)
    spec = specs.docker_like()
    spec["process"] = wanted
    made = specs.create(spec, poor)
    assert specs.only(made, "CAPS_BOUNDING").fields == (1,)
    assert made.warnings[0].startswith(
        "$.process.capabilities: ignoring capabilities that cannot be granted here"
    )


def test_unknown_capability() -> None:
    """A warning; with PYRUNC_STRICT an error."""
    spec = specs.docker_like()
    spec["process"] = specs.process(capabilities={"bounding": ["CAP_KILL", "CAP_TEST"]})
    made = specs.create(spec)
    assert "$.process.capabilities: ignoring unknown capabilities: CAP_TEST" in made.warnings
    with pytest.raises(ConfigError, match="unknown capability 'CAP_TEST'") as caught:
        specs.create(spec, HostFacts(strict=True))
    assert caught.value.path == "$.process.capabilities"


def test_mount_label_without_selinux() -> None:
    """Nothing could enforce it, and that is said."""
    spec = specs.docker_like()
    spec["linux"]["mountLabel"] = "a:b:c"
    spec["linux"]["maskedPaths"] = ["/proc/kcore"]
    made = specs.create(spec)
    assert made.warnings == ["$.linux.mountLabel: ignored, selinux is disabled or not supported"]
    assert specs.only(made, "MASKED_PATH").fields == ("/proc/kcore", "")


def test_id_maps() -> None:
    """Rows, membership, and who must be asked to write them."""
    maps = id_mappings.rows(
        [
            {"containerID": 1, "hostID": 100000, "size": 10},
            {"containerID": 20, "hostID": 5, "size": 0},
            {"containerID": 30, "hostID": 1000, "size": 1},
        ]
    )
    assert maps == [(1, 100000, 10), (30, 1000, 1)]
    assert [id_mappings.contains(maps, number) for number in (0, 1, 10, 11, 20, 30, 31)] == [
        *(False, True, True, False, False, True, False)
    ]
    assert (
        id_mappings.first(maps) == 1 and id_mappings.first([]) == 0 and id_mappings.first([(0, 5, 2)]) == 0
    )
    assert not id_mappings.needs_helper(maps, 0, 0)
    assert id_mappings.needs_helper(maps, 1000, 1000)
    assert not id_mappings.needs_helper([(0, 1000, 1)], 1000, 1000)
    assert id_mappings.needs_helper([(0, 1001, 1)], 1000, 1000)
    assert id_mappings.needs_helper([(0, 1000, 2)], 1000, 1000)


def test_matching_id_maps() -> None:
    """The kernel prints padded columns; the order of ranges means nothing."""
    text = "         1     100000         10\n        30       1000          1\n"
    assert id_mappings.matching([(30, 1000, 1), (1, 100000, 10)], text)
    assert not id_mappings.matching([(1, 100000, 10)], text)
    assert id_mappings.parse(text) == [(1, 100000, 10), (30, 1000, 1)]


def test_mappings_in_place() -> None:
    """crun's documentation has this example; a relative one may go over several of the container's rows."""
    own = [(0, 0, 1), (1, 2, 1000)]
    assert id_mappings.in_place("uids=@1-3-10;gids=0-100-10#10-11-10", own, own) == (
        [(1, 4, 10)],
        [(0, 100, 10), (10, 11, 10)],
    )
    assert id_mappings.in_place("uids=@5-0-3", own, own) == ([(5, 0, 1), (6, 2, 2)], [])
    assert id_mappings.text([(1, 4, 10), (2, 20, 3)]) == "1 4 10\n2 20 3"


@pytest.mark.parametrize(
    "text",
    ["", "uids", "uids=", "uids=1-2", "uids=1-2-3-4", "uids=1--3", "uids=-1-2-3", "uids=1-2-0", "gids=1-2-x",
     "uids=1-2-3#", "x=1-2-3", "uids=1-2-3;", "uids=@0-999-10", "uids=4294967295-0-1", "uids=0-0-99999999999",
     "uids=٣-1-1"],
)  # fmt: skip
def test_mappings_in_place_that_are_none(text: str) -> None:
    """In words that quote the part at fault."""
    with pytest.raises(ValueError, match="'"):
        id_mappings.in_place(text, [(0, 0, 1), (1, 2, 1000)], [])


@pytest.mark.parametrize(
    ("kind", "file_mode", "expected"),
    [
        ("c", None, 0o020666),
        ("u", 0o600, 0o020600),
        ("b", 0o60640, 0o060640),
        ("c", 8630, 0o020666),
        ("p", 0, 0o010000),
    ],
)
def test_device_modes(kind: str, file_mode: int | None, expected: int) -> None:
    """podman writes the file type into fileMode (8630 is 0o20666)."""
    assert devices.mode(kind, file_mode) == expected


def test_devices() -> None:
    """The configuration's first, then the defaults that it does not have itself."""
    spec = specs.docker_like()
    spec["linux"]["devices"] = [
        {"path": "/dev//null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7},
        {"path": "/opt/pipe", "type": "p"},
    ]
    made = specs.create(spec)
    found = specs.every(made, "DEVICE")
    assert found[0] == ("/dev/null", 0o020600, 1, 3, 7, 0, 0)
    assert found[1] == ("/opt/pipe", 0o010666, 0, 0, 0, 0, 0)
    assert [fields[0] for fields in found[2:]] == [
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
    ]
    assert {fields[6] for fields in found[2:]} == {numbers.DEVICE_FLAG_DEFAULT}
    for fields in specs.every(specs.create(spec, specs.NESTED_HOST), "DEVICE"):
        assert bool(int(str(fields[6])) & numbers.DEVICE_FLAG_BIND) == (fields[0] != "/opt/pipe")


def test_default_devices_are_the_hosts() -> None:
    """The numbers, against this machine's."""
    for path, major, minor in devices.DEFAULTS:
        status = os.stat(path)
        assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (major, minor), path


def environment(*env: str, extra: tuple[str, ...] = ()) -> tuple[list[str], int]:
    """(environment, uid for HOME) of the EXEC."""
    spec = specs.docker_like()
    spec["process"] = specs.process(env=list(env), user={"uid": 7, "gid": 0})
    fields = specs.only(specs.create(spec, extra_env=extra), "EXEC").fields
    assert isinstance(fields[1], list) and isinstance(fields[2], int)
    return [str(item) for item in fields[1]], fields[2]


def test_environment() -> None:
    """The last of a name wins, the caller's after the configuration's; an empty HOME is none."""
    assert environment("A=1", "B=2", "A=3=4", extra=("B=5",)) == (["A=3=4", "B=5"], 7)
    assert environment("HOME=/x") == (["HOME=/x"], numbers.PLAN_NO_PATH)
    assert environment("HOME=", "A=") == (["A="], 7)


def test_lookup_uses_the_containers_path() -> None:
    """config.md, args: as execvp would with process.env."""
    spec = specs.docker_like()
    spec["process"] = specs.process(env=["PATH=/a:/b"], args=["prog"])
    assert specs.only(specs.create(spec), "LOOKUP").fields == ("prog", "/a:/b")
    spec["process"] = specs.process(env=[], args=["prog"])
    assert specs.only(specs.create(spec), "LOOKUP").fields == ("prog", "")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("plain", "plain"),
    ],
)
def test_sysctl_names(name: str, path: str) -> None:
    """sysctl(8): the first separator decides."""
    assert sysctl.path(name) == path


def test_resource_numbers() -> None:
    """asm-generic/resource.h, by Python's own constants."""
    assert len(RLIMITS) == 16
    for name, number in RLIMITS.items():
        if hasattr(resource, name):
            assert getattr(resource, name) == number, name
    assert sorted(RLIMITS.values()) == list(range(16))


def test_bit_lists() -> None:
    """Whole longs of the machine."""
    assert plan_process.bit_list("0") == (1).to_bytes(8, wire.ORDER)
    assert plan_process.bit_list("0-3, 7") == (0x8F).to_bytes(8, wire.ORDER)
    assert plan_process.bit_list("64") == (1 << 64).to_bytes(16, wire.ORDER)
    with pytest.raises(ValueError, match="3-1"):
        plan_process.bit_list("3-1")
    with pytest.raises(ValueError, match="x"):
        plan_process.bit_list("x")


def test_scheduler_attributes() -> None:
    """struct sched_attr, version 1."""
    packed = plan_process.scheduler_attributes(
        {
            "policy": "SCHED_BATCH",
            "nice": -5,
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_KEEP_PARAMS"],
        }
    )
    assert struct.unpack("=IIQiIQQQQ", packed) == (56, 3, 0x11, -5, 0, 0, 0, 0, 0)
    packed = plan_process.scheduler_attributes(
        {"policy": "SCHED_DEADLINE", "runtime": 10, "deadline": 1 << 40, "period": 30}
    )
    assert struct.unpack("=IIQiIQQQQ", packed) == (56, 6, 0, 0, 0, 10, 1 << 40, 30, 0)


def test_scheduler_attributes_are_the_kernels() -> None:
    """sched_setattr(2) takes them, and sched_getscheduler(2) says the same."""
    libc = ctypes.CDLL(None, use_errno=True)
    support.needs(os.uname().machine == "x86_64", "x86_64")
    packed = plan_process.scheduler_attributes({"policy": "SCHED_BATCH", "nice": os.nice(0)})
    child = os.fork()
    if child == 0:
        failed = libc.syscall(314, 0, packed, 0) != 0
        os._exit(99 if failed else os.sched_getscheduler(0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == os.SCHED_BATCH


def test_kernel_attributes() -> None:
    """Scheduling, I/O priority, personality, memory policy; affinity of exec only."""
    wanted = specs.process(
        scheduler={"policy": "SCHED_OTHER"},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 7},
        execCPUAffinity={"initial": "0", "final": "1-2"},
    )
    spec = specs.docker_like()
    spec["process"] = wanted
    spec["linux"]["personality"] = {"domain": "LINUX32"}
    spec["linux"]["memoryPolicy"] = {
        "mode": "MPOL_INTERLEAVE",
        "nodes": "0",
        "flags": ["MPOL_F_STATIC_NODES"],
    }
    created, entered = specs.create(spec), specs.enter(wanted, spec)
    for made in (created, entered):
        assert specs.only(made, "PERSONALITY").fields == (8,)
        assert specs.only(made, "IOPRIO").fields == (2 << 13 | 7,)
        assert specs.only(made, "MEMPOLICY").fields == (3 | 1 << 15, (1).to_bytes(8, wire.ORDER))
    assert specs.only(entered, "AFFINITY").fields == ((6).to_bytes(8, wire.ORDER),)
    assert specs.only(created, "AFFINITY").fields == (b"",)
    wanted["execCPUAffinity"] = {"initial": "0"}
    assert "AFFINITY" not in specs.names(specs.enter(wanted, spec))
    del wanted["execCPUAffinity"]
    assert specs.only(specs.enter(wanted, spec), "AFFINITY").fields == (b"",)


def test_groups_of_the_caller_are_kept_on_request() -> None:
    """crun's annotation: no setgroups(2) at all, neither for a list nor to empty it; also at exec."""
    for spec in (specs.docker_like(), specs.userns()):
        spec["process"]["user"]["additionalGids"] = [5]
        assert specs.only(specs.create(spec), "USER").fields[2:] == ([5], 1)
        spec["annotations"] = {"run.oci.keep_original_groups": "1"}
        for made in (specs.create(spec), specs.enter(spec["process"], spec)):
            assert specs.only(made, "USER").fields[2:] == ([], 0)
            assert [fields[2] for fields in specs.every(made, "USERNS_ROOT")] in ([], [0])


@pytest.mark.parametrize(("umask", "expected"), [(None, 0o022), (0, 0), (0o077, 0o077)])
def test_umask(umask: int | None, expected: int) -> None:
    """0022 where none is given, as engines expect."""
    user = {"uid": 0, "gid": 0} if umask is None else {"uid": 0, "gid": 0, "umask": umask}
    spec = specs.docker_like()
    spec["process"] = specs.process(user=user)
    assert specs.only(specs.create(spec), "UMASK").fields == (expected,)


def test_terminal() -> None:
    """A size of nothing is none; exec's terminal is not the container's console."""
    spec = specs.terminal()
    assert specs.only(specs.create(spec), "CONSOLE").fields == (24, 80, 1, 1000, numbers.PLAN_NO_PATH)
    assert "SETSID" not in specs.names(specs.create(spec))
    assert specs.only(specs.enter(specs.process(terminal=True), spec), "CONSOLE").fields[:3] == (0, 0, 0)
    assert "CONSOLE" not in specs.names(specs.create(specs.docker_like()))


def test_labels_where_the_host_has_them() -> None:
    """Written before anything that may forbid it."""
    spec = specs.docker_like()
    spec["process"] = specs.process(apparmorProfile="strict", selinuxLabel="u:r:t:s0")
    made = specs.create(spec, HostFacts(apparmor=True, selinux=True))
    written = [fields for fields in specs.every(made, "PROC_SELF") if str(fields[0]).startswith("attr/")]
    assert written == [
        ("attr/keycreate", "u:r:t:s0"),
        ("attr/apparmor/exec", "exec strict"),
        ("attr/exec", "u:r:t:s0"),
    ]
    names = specs.names(made)
    assert names.index("PROC_SELF") < names.index("KEYRING")
    assert names.index("KEYRING") < names.index("PROC_SELF", names.index("KEYRING")) < names.index("CAPSET")
    assert not specs.every(specs.create(spec, HostFacts()), "PROC_SELF")


def test_preserved_descriptors() -> None:
    """3 and up belong to the program."""
    assert specs.only(specs.create(specs.docker_like(), preserve_fds=4), "CLOSE_FROM").fields == (7,)


def test_keyring() -> None:
    """--no-new-keyring."""
    assert specs.only(specs.create(specs.docker_like()), "KEYRING").fields == ("_ses.c1",)
    assert "KEYRING" not in specs.names(specs.create(specs.docker_like(), no_new_keyring=True))


def test_minimal_configuration() -> None:
    """Only what is REQUIRED; no linux, no mounts."""
    made = specs.create(
        {"ociVersion": "1.0.0", "root": {"path": "r"}, "process": {"args": ["/a"], "cwd": "/"}}
    )
    assert made.clone_flags == 0 and specs.only(made, "PIVOT").fields == (numbers.PIVOT_CHROOT,)
    assert specs.only(made, "USER").fields == (0, 0, [], 1)


def test_every_op_has_words() -> None:
    """explain knows each op of the wire, and a name for each of its fields."""
    assert set(explain.OPS) == set(numbers.OPS)
    for name, (_, letters) in numbers.OPS.items():
        assert len(explain.OPS[name][1]) == len(letters), name


def test_explain_document() -> None:
    """For programs: names, sizes instead of bytes, nothing that JSON does not have."""
    made = specs.create(specs.userns(), cgroup_paths=specs.V1_PATHS, seccomp=specs.Filter())
    document = json.loads(json.dumps(explain.document(made)))
    assert document["clone3"] == [] and document["setgroups"] == "allow"
    assert document["uidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert [step["step"] for step in document["steps"]] == list(range(len(made.ops)))
    by_op = {step["op"]: step for step in document["steps"]}
    assert by_op["SECCOMP"]["arguments"] == {
        "filter": "64 bytes",
        "filter flags": 0,
        "send the listener": False,
        "own calls": False,
    }
    assert by_op["SECCOMP"]["path"] == "$.linux.seccomp" and by_op["SECCOMP"]["why"]
    assert by_op["RLIMIT"]["arguments"] == {"resource": "RLIMIT_NOFILE", "soft": 1024, "hard": 8192}
    assert by_op["EXEC"]["arguments"]["uid for HOME"] == 1000
    assert by_op["FORK"]["does"] == "go on in a child"


def test_explain_text_quotes_what_would_confuse() -> None:
    """A newline in an argument stays on its line."""
    spec = specs.docker_like()
    spec["process"] = specs.process(args=["/bin/sh", "-c", 'echo "a"\nb'])
    assert r'args=[/bin/sh, -c, "echo \"a\"\nb"]' in explain.text(specs.create(spec))


def test_planning_is_quick() -> None:
    """A generous bound: some hundred microseconds are usual, the budget of all of create is a few milliseconds."""
    spec = specs.docker_like()
    best = min(_seconds(spec) for _ in range(20))
    assert best < 0.005


def _seconds(spec: Spec) -> float:
    start = time.perf_counter()
    specs.create(spec)
    return time.perf_counter() - start


def test_a_rootless_container_keeps_an_oom_score_it_cannot_lower() -> None:
    """proc(5): lowering needs CAP_SYS_RESOURCE; engines ask for it all the same."""
    spec = specs.docker_like()
    spec["process"]["oomScoreAdj"] = 10
    made = specs.create(spec, HostFacts(rootless=True, oom_score_adj=100))
    assert not [op for op in specs.every(made, "PROC_SELF") if op[0] == "oom_score_adj"]
    assert any("oomScoreAdj" in warning for warning in made.warnings)
    spec["process"]["oomScoreAdj"] = 200
    made = specs.create(spec, HostFacts(rootless=True, oom_score_adj=100))
    assert [op[1] for op in specs.every(made, "PROC_SELF") if op[0] == "oom_score_adj"] == ["200"]

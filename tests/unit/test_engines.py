"""What engines hand to a runtime: every call they were seen to make, and what they write into configurations.

tests/corpus/engines has both, shortened. What happens then is for tests/engines, where the engines themselves run.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import plan_specs as specs
import support
from pyrunc.cgroups import resources
from pyrunc.cli import parse
from pyrunc.config import load as config
from pyrunc.config.rules import document as rules
from pyrunc.config.rules import process as rules_process
from pyrunc.config.rules import resources as rules_resources
from pyrunc.seccomp import filters as seccomp_filters
from pyrunc.seccomp.profile import Filter

if TYPE_CHECKING:
    import pathlib

    from pyrunc.plan.job import Plan
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Spec

CORPUS = os.path.join(support.PROJECT, "tests/corpus/engines")
HOSTS = {"v1": (specs.V1_HOST, specs.V1_PATHS), "v2": (specs.V2_HOST, specs.V2_PATHS)}
# By verb: exit status and a part of the message, where neither the container nor the bundle is there.
UNKNOWN = {
    "checkpoint --help": (0, ""),
    "create": (1, "config.json"),
    "run": (1, "config.json"),
    "delete --force": (0, ""),
    "--version": (0, ""),
    "features": (0, ""),
}


def calls() -> list[str]:
    with open(os.path.join(CORPUS, "calls.txt"), encoding="ascii") as stream:
        return [line for line in stream.read().splitlines() if line and not line.startswith("#")]


def documents(*, suffix: str = "") -> list[str]:
    """The configurations, or the documents of another kind."""
    found = sorted(name for name in os.listdir(CORPUS) if name.endswith(f"{suffix}.json"))
    return found if suffix else [name for name in found if name.count(".") == 1]


def expected(argv: str) -> tuple[int, str]:
    """What UNKNOWN says for a call, else that there is no such container."""
    for words, answer in UNKNOWN.items():
        if f" {words} " in f" {argv} ":
            return answer
    return (255 if " exec " in f" {argv} " else 1), "does not exist"


@pytest.mark.parametrize("argv", calls())
def test_call_is_understood(argv: str, tmp_path: pathlib.Path) -> None:
    """A call fails for the container that is not there, and never for its words; the log has what stderr has."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/resources").write_text("{}")
    places = {"ROOT": "root", "BUNDLE": "bundle", "LOG": "log"}
    identity = f"{support.ID_PREFIX}unknown"
    words = argv.replace("ID", identity)
    for word, name in places.items():
        words = words.replace(word, str(tmp_path / name))
    status, message = expected(argv)
    # Engines give as little as this; who has no --root has the state of containers there.
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [support.PYRUNC, *words.split()],
        input="{}",
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == status and message in done.stderr, done
    # --debug tells of steps, which is asked for.
    assert bool(done.stderr) == bool(message) or "--debug" in argv, done
    if "LOG" in argv and message:
        assert message in (tmp_path / "log").read_text()
    assert not (tmp_path / "root").exists() or not os.listdir(tmp_path / "root")


def test_calls_are_all_different() -> None:
    """A form that is there twice was meant to be another one; the table of options knows every one."""
    assert len(set(calls())) == len(calls())
    for argv in calls():
        words, parsed = argv.split(), parse.Parsed()
        at = parse.global_options(words, parsed)
        if at < len(words):
            parse.command_options(words[at], words[at + 1 :])


def planned(spec: Spec, host: HostFacts, **given: object) -> Plan:
    """The plan, which serves each entry of the configuration's lists."""
    made = specs.create(spec, host, **given)
    served = {op.path.split("]")[0] for op in made.ops}
    linux = spec["linux"]
    for name, entries in (
        ("$.mounts", spec["mounts"]),
        ("$.linux.maskedPaths", linux.get("maskedPaths")),
        ("$.linux.readonlyPaths", linux.get("readonlyPaths")),
        ("$.linux.devices", linux.get("devices")),
        ("$.process.rlimits", spec["process"].get("rlimits")),
    ):
        for index in range(len(entries or [])):
            assert f"{name}[{index}" in served, f"{name}[{index}]"
    return made


def limited(wanted: dict[str, object], version: int) -> None:
    """Each limit is written; 0 is what engines say for "leave it alone"."""
    written = {write.path for write in resources.plan_writes(wanted, version, "$")}
    for section, names in (
        ("memory", ("limit", "swap")),
        ("cpu", ("shares", "quota", "cpus")),
        ("pids", ("limit",)),
    ):
        table = wanted.get(section) or {}
        assert isinstance(table, dict)
        for name in names:
            path = f"$.{section}.{name}"
            assert (path in written) == bool(table.get(name)), path


@pytest.mark.parametrize("version", HOSTS)
@pytest.mark.parametrize("name", documents())
def test_configuration_is_planned(name: str, version: str) -> None:
    """Accepted, and nothing in it is left out of the plan or of the writes to cgroups."""
    host, paths = HOSTS[version]
    spec = config.load(CORPUS, name).spec
    rules.check(spec)
    given: dict[str, object] = {"cgroup_paths": paths}
    if spec["linux"].get("seccomp"):
        compiled = seccomp_filters.of_spec(spec, "")
        assert isinstance(compiled, Filter) and len(compiled.bpf) % 8 == 0 and compiled.bpf
        given["seccomp"] = compiled
    made = planned(spec, host, **given)
    assert ("SECCOMP" in specs.names(made)) == bool(spec["linux"].get("seccomp"))
    limited(dict(spec["linux"]["resources"]), 1 if version == "v1" else 2)


@pytest.mark.parametrize("name", documents(suffix=".process"))
def test_process_is_planned(name: str) -> None:
    """What `exec --process` is given: accepted, and planned down to the program."""
    process = config.load_process(os.path.join(CORPUS, name))
    rules_process.check(process, path="$")
    made = specs.enter(process, specs.docker_like(), specs.V1_HOST, path="$", cgroup_paths=specs.V1_PATHS)
    assert specs.only(made, "EXEC").path == "$.args"


@pytest.mark.parametrize("name", documents(suffix=".resources"))
def test_resources_are_planned(name: str) -> None:
    """What `update --resources` is given: accepted, and every limit is written."""
    with open(os.path.join(CORPUS, name), "rb") as stream:
        wanted = config.load_resources(stream.read(), name)
    rules_resources.check(wanted, "$", partial=True)
    for version in (1, 2):
        limited(dict(wanted), version)

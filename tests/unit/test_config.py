"""The configuration's form: a corpus of good and bad documents, and the fast validator against jsonschema."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import subprocess
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest

import support
from pyrunc.config import load as config
from pyrunc.config.rules import document as rules
from pyrunc.config.rules import process as rules_process
from pyrunc.config.rules import resources as rules_resources
from pyrunc.config.schema import check, explain, generate, patterns
from pyrunc.errors import ConfigError, KernelError
from pyrunc.json_text import document as json_text
from pyrunc.spec import shapes as spec_types

if TYPE_CHECKING:
    from pathlib import Path

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

CORPUS = os.path.join(support.PROJECT, "tests/corpus")
KINDS = {"config": check.config, "process": check.process, "resources": check.resources}


def corpus(folder: str) -> list[str]:
    found = sorted(name for name in os.listdir(os.path.join(CORPUS, folder)) if name.endswith(".json"))
    assert found
    return found


def kind_of(name: str) -> str:
    middle = name.removesuffix(".json").rpartition(".")[2]
    return middle if middle in KINDS else "config"


def judge(folder: str, name: str) -> None:
    """Loads and checks a document of the corpus as the verb that reads its kind would. Raises ConfigError."""
    path = os.path.join(CORPUS, folder, name)
    kind = kind_of(name)
    if kind == "process":
        rules_process.check(config.load_process(path), path="$")
    elif kind == "resources":
        with open(path, "rb") as file:
            resources = config.load_resources(file.read(), name)
        rules_resources.check(resources, "$", partial=True)
    else:
        rules.check(config.load(os.path.dirname(path), name).spec)


@pytest.mark.parametrize("name", corpus("good"))
def test_good_documents_are_accepted(name: str) -> None:
    judge("good", name)


@pytest.mark.parametrize("name", corpus("bad"))
def test_bad_documents_are_refused_with_path_message_and_hint(name: str) -> None:
    """The file beside each says what is expected: path or -, message, and the hint where there is one."""
    with open(os.path.join(CORPUS, "bad", name.removesuffix(".json") + ".expect"), encoding="utf-8") as file:
        expected = file.read().splitlines()
    with pytest.raises(ConfigError) as caught:
        judge("bad", name)
    error = caught.value
    message = error.message.replace("invalid JSON in resources", f"invalid JSON in {name}")
    got = [error.path or "-", message] + ([error.hint] if error.hint else [])
    assert got == expected


def test_messages_that_others_know_are_in_the_corpus() -> None:
    """features that engines and users of runc look for, word for word (runc's validator and specconv)."""
    texts = ""
    for name in os.listdir(os.path.join(CORPUS, "bad")):
        if name.endswith(".expect"):
            with open(os.path.join(CORPUS, "bad", name), encoding="utf-8") as file:
                texts += file.read()
    for known in (
        "Cwd must be an absolute path",
        "args must not be empty",
        "config cannot be null",
        "process property must not be empty",
        "root must be specified",
        "invalid environment variable: missing '='",
        "name cannot be empty",
        "contains nul byte",
        'malformed spec file: duplicated ns "ipc"',
        'namespace "net" does not exist',
        "user namespace mappings specified, but user namespace isn't enabled in the config",
        "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
        "time namespace offsets specified, but time namespace isn't enabled in the config",
        "unable to restrict sys entries without a private MNT namespace",
        "unable to set hostname without a private UTS namespace",
        "unable to move network devices without a NET namespace",
        'sysctl "kernel.shmmax" is not allowed in the hosts ipc namespace',
        'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
        "setting ucounts without a user namespace not allowed: user.max_ipc_namespaces",
        'sysctl "vm.swappiness" is not in a separate kernel namespace',
        "id-mapped mounts are only supported for bind-mounts",
        "id-mapped mounts must have both uid and gid mappings specified",
        "mount field contains null byte",
        "scheduler policy is required",
        "invalid ioPriority.Priority: 8",
        'invalid ioPriority.Class: "IOPRIO_CLASS_NONE"',
        "memory policy mode requires 0 nodes but got 2",
        "memory policy mode requires at least one node but got 0",
        'invalid intelRdt.ClosID "a/b"',
        "string SCMP_ACT_ALOW is not a valid action for seccomp",
        "SCMP_ACT_NOTIFY cannot be used as default action",
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        "seccomp listenerPath is not set",
        "unable to set swap limit without memory limit",
        "memory+swap limit should be >= memory limit",
    ):
        assert known in texts, known


# --- The two validators are one ---------------------------------------------------------------------------------------


def stripped(document: Json) -> Json:
    """Null members removed, written differently from config.parse."""
    if isinstance(document, dict):
        return {key: stripped(value) for key, value in document.items() if value is not None}
    if isinstance(document, list):
        return [stripped(value) for value in document]
    return document


def parsed(folder: str) -> list[tuple[str, str, Json]]:
    """(kind, name, document) of the corpus, without the files that are no JSON."""
    found: list[tuple[str, str, Json]] = []
    for name in corpus(folder):
        with open(os.path.join(CORPUS, folder, name), "rb") as file:
            data = file.read()
        try:
            document: Json = json_text.loads(data)
        except ConfigError:
            continue
        found.append((kind_of(name), name, document))
    return found


VALIDATORS = {kind: explain.validator(kind) for kind in KINDS}


def test_both_validators_agree_on_the_corpus() -> None:
    for folder in ("good", "bad"):
        for kind, name, document in parsed(folder):
            bare = stripped(document)
            assert KINDS[kind](bare) == VALIDATORS[kind].is_valid(bare), name


def places(document: Json, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [at] if at else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*at, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, (*at, index))
    return found


_EDGES = (0, 7, 10, 100, 511, 1000, 65535, 999999999, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
ODD: list[Json] = [
    *(sign * edge + step for edge in _EDGES for sign in (1, -1) for step in (-1, 0, 1)),
    *(None, True, False, 1.0, 0.5, -1.5, 1e300),
    *("", " ", "x", "1", "0-3", "0-3,", "1.2.3", "1.2.3-x.1", "2MB", "MB:", "rw", "\n", "é"),
    [],
    [None],
    [[]],
    ["x", 1],
    [1],
    [""],
    {},
    {"x": "y"},
    {"x": 1},
    {"type": "pid"},
    {"path": "/"},
    {"major": 1, "minor": 2, "rate": 3},
]


def changed(document: Json, rng: random.Random, names: list[str]) -> Json:
    """A copy with one to three places replaced, removed, renamed or added."""
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        spots = places(document)
        if not spots:
            break
        *way, last = rng.choice(spots)
        holder: Json = document
        for step in way:
            holder = holder[step]  # type: ignore[index]  # places() leads through containers only
        act = rng.random()
        value = rng.choice(ODD)
        if isinstance(holder, list) and isinstance(last, int):
            if act < 0.2:
                del holder[last]
            elif act < 0.4:
                holder.insert(last, value)
            else:
                holder[last] = value
        elif isinstance(holder, dict) and isinstance(last, str):
            if act < 0.2:
                del holder[last]
            elif act < 0.3:
                holder[rng.choice(names)] = value
            elif act < 0.4 and isinstance(holder[last], str):
                holder[last] = str(holder[last]) + rng.choice(["x", "\n", " ", "0", "."])
            else:
                holder[last] = value
    return document


def test_both_validators_agree_on_changed_documents() -> None:
    """Documents one to three steps away from good ones, the same every time; both answers must occur often."""
    rng = random.Random(1)
    with open(explain.SCHEMA, encoding="utf-8") as file:
        names = re.findall(r'"(\w+)":', file.read())
    starts = [(kind, document) for kind, _, document in parsed("good")]
    rounds = int(os.environ.get("PYRUNC_CHANGED_DOCUMENTS", "600"))
    accepted = 0
    for _ in range(rounds):
        kind, document = rng.choice(starts)
        document = stripped(changed(document, rng, names))
        answer = KINDS[kind](document)
        assert answer == VALIDATORS[kind].is_valid(document), (kind, json.dumps(document))
        assert answer == (explain.explain(document, kind) is None)
        accepted += answer
    assert rounds / 10 < accepted < rounds * 9 / 10


def test_each_pattern_agrees_with_its_expression() -> None:
    """On every string of up to five letters of an alphabet that matters to it, and on odd ones."""
    alphabets = {
        "cpu_list": "0 ,-x",
        "semver": "01.-+a",
        "page_size": "01KMB",
        "mem_bw_schema": "MB:\n",
        "access": "rwmx",
    }
    assert {function.__name__ for function in patterns.PATTERNS.values()} == set(alphabets)
    for pattern, function in patterns.PATTERNS.items():
        expression = re.compile(re.sub(r"\$$", r"\\Z", pattern))
        level = [""]
        for _ in range(6):
            for text in level:
                assert function(text) == bool(expression.search(text)), (pattern, text)
            level = [text + char for text in level for char in alphabets[function.__name__]]
            level = level if len(level) < 10000 else random.Random(2).sample(level, 10000)
        for text in (
            "1.0.2-dev",
            "1.0.0-rc.1+b-5.01",
            "1.0.0-01",
            "1.0.0-é",
            "٣",
            "²",
            "1.0.0+é",
            "10GB",
            "00KB",
            "1.0.0-0a.0",
        ):
            assert function(text) == bool(expression.search(text)), (pattern, text)


def test_the_generated_validator_is_up_to_date() -> None:
    with open(generate.OUTPUT, encoding="utf-8") as file:
        assert file.read() == generate.generate(), "run python3 -m pyrunc.config.schema.generate"


def test_the_generator_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """A keyword left out of the fast path would let bad documents through."""
    with open(generate.SCHEMA, encoding="utf-8") as file:
        schema = json.load(file)
    schema["$defs"]["root"]["properties"]["path"]["maxLength"] = 5
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    with pytest.raises(AssertionError, match="maxLength"):
        generate.generate(str(tmp_path / "schema.json"))


def test_the_types_are_the_schemas() -> None:
    """spec_types has a class for each object of the schema, with the same names of the same kinds."""
    with open(generate.SCHEMA, encoding="utf-8") as file:
        definitions = json.load(file)["$defs"]
    plain = {"string": "str", "integer": "int", "boolean": "bool"}

    def compare(schema: dict[str, Json], annotation: str, where: str) -> None:
        reference = schema.get("$ref")
        if isinstance(reference, str):
            schema = definitions[reference.removeprefix("#/$defs/")]
        kind = schema["type"]
        if kind == "array":
            items = schema["items"]
            assert isinstance(items, dict)
            assert annotation.startswith("list["), where
            compare(items, annotation[5:-1], where + "[]")
        elif kind != "object":
            assert annotation == plain[str(kind)], where
        elif "properties" in schema:
            fields: dict[str, object] = vars(spec_types)[annotation].__annotations__
            properties = schema["properties"]
            assert isinstance(properties, dict)
            assert set(fields) == set(properties), where
            for key, below in properties.items():
                assert isinstance(below, dict)
                field = fields[key]
                name = str(getattr(field, "__forward_arg__", "") or getattr(field, "__name__", ""))
                compare(below, name, f"{where}.{key}")
        else:
            values = schema["additionalProperties"]
            assert isinstance(values, dict)
            assert annotation.startswith("dict[str, "), where
            compare(values, annotation[len("dict[str, ") : -1], where + ".*")

    compare({"$ref": "#/$defs/config"}, "Spec", "$")


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_a_configuration_keeps_its_bytes_and_its_absolute_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b' {"ociVersion": "1.0.0", "root": {"path": "r", "readonly": null}, "linux": {"devices": [{"type": "p", '
    text += b'"path": "/p", "uid": null}], "resources": null}}\n'
    (tmp_path / "config.json").write_bytes(text)
    monkeypatch.chdir(tmp_path)
    read = config.load(".")
    assert read.text == text
    assert read.bundle == str(tmp_path)
    assert read.spec == {
        "ociVersion": "1.0.0",
        "root": {"path": "r"},
        "linux": {"devices": [{"type": "p", "path": "/p"}]},
    }


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(str(tmp_path))
    assert caught.value.message == "JSON specification file config.json not found"
    assert caught.value.hint == f"'{tmp_path}' holds no such file"
    with pytest.raises(ConfigError, match=r"JSON specification file x\.json not found") as caught:
        config.load(str(tmp_path / "none"), "x.json")
    assert caught.value.hint == f"'{tmp_path}/none' is not a directory"


def test_a_configuration_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(KernelError, match="read .*config.json': is a directory"):
        config.load(str(tmp_path))


def test_a_configuration_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"config\.json is larger than 16 MB"):
        config.load(str(tmp_path))


def test_a_good_configuration_loads_nothing_that_explains() -> None:
    """The hot path: reading and checking takes our own modules and what the interpreter has anyway."""
    bundle = os.path.join(CORPUS, "good")
    code = (
        f"import sys; sys.path.insert(0, {support.PROJECT!r}); import os; before = set(sys.modules)\n"
        "from pyrunc.config import load as config; from pyrunc.config.rules import document as rules\n"
        f"rules.check(config.load({bundle!r}, 'everything.json').spec)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "__future__",
        "_json",
        "pyrunc",
        "pyrunc.config",
        "pyrunc.config.load",
        "pyrunc.config.rules",
        "pyrunc.config.rules.document",
        "pyrunc.config.rules.fail",
        "pyrunc.config.rules.linux",
        "pyrunc.config.rules.mounts",
        "pyrunc.config.rules.process",
        "pyrunc.config.rules.resources",
        "pyrunc.config.rules.seccomp",
        "pyrunc.config.schema",
        "pyrunc.config.schema.check",
        "pyrunc.errors",
        "pyrunc.json_text",
        "pyrunc.json_text.document",
        "pyrunc.json_text.path",
        "pyrunc.plan",
        "pyrunc.plan.numbers",
        "pyrunc.spec",
        "pyrunc.spec.id_mappings",
        "pyrunc.spec.mount_options",
        "pyrunc.spec.number_list",
        "pyrunc.spec.resctrl",
        "pyrunc.spec.sysctl",
    ]

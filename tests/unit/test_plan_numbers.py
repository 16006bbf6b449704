"""tools/plan_numbers.py: what Python gets from csrc/plan.h, and the headers that it refuses."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

import support
from pyrunc.plan import numbers
from pyrunc.reports import explain

if TYPE_CHECKING:
    from types import ModuleType

HEADER = """
#ifndef PYRUNC_PLAN_H
#define PYRUNC_PLAN_H
#define PLAN_MAX_SIZE (16u << 20) /* bytes */
#define PLAN_NO_PATH 0xffffffffu
#define INIT_NAME "pyrunc:[init]"
struct head {
	uint32_t magic;
	uint16_t format;
	uint16_t size;
	char version[8]; /* NUL padded */
};
struct whole {
	uint64_t first;
	struct head head;
};
#define PLAN_OPS(X) \\
	/* how, (why) and whence */ \\
	X(1, SETSID, setsid, "") \\
	X(7, MOUNT_NEW, mount_new, "sl")
enum plan_op {
#define X(number, name, function, payload) PLAN_OP_##name = number,
	PLAN_OPS(X)
#undef X
};
enum pivot_mode { PIVOT_ROOT = 0, PIVOT_MOVE = 1 };
enum hook_kind { HOOK_PRESTART = 0, HOOK_CREATE_RUNTIME = 1 };
#define SYNC_CODES(X) X(1, ERROR) X(2, FORKED)
#define PLAN_STEPS(X) X(0, NONE) X(1, OPEN_TREE)
#endif
"""


def generator() -> ModuleType:
    """The program as a module."""
    path = os.path.join(support.PROJECT, "tools/plan_numbers.py")
    spec = importlib.util.spec_from_file_location("plan_numbers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()


def run(header: str) -> dict[str, object]:
    """The names of the module that is written for a header."""
    found: dict[str, object] = {}
    exec(GENERATOR.module(header), found)
    return {name: value for name, value in found.items() if name.isupper()}


def test_each_kind_of_line() -> None:
    assert run(HEADER) == {
        "OPS": {"SETSID": (1, ""), "MOUNT_NEW": (7, "sl")},
        "SYNC": {"ERROR": 1, "FORKED": 2},
        "STEPS": ("none", "open_tree"),
        "HOOK_KINDS": ("prestart", "createRuntime"),
        "PLAN_MAX_SIZE": 16 << 20,
        "PLAN_NO_PATH": 0xFFFFFFFF,
        "INIT_NAME": b"pyrunc:[init]",
        "PIVOT_ROOT": 0,
        "PIVOT_MOVE": 1,
        "HEAD_VERSION": 8,
        "HEAD_SIZE": 16,
        "WHOLE_SIZE": 24,
    }


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("X(7, MOUNT_NEW", "X(1, MOUNT_NEW", "a number or a name of PLAN_OPS is used twice"),
        ("X(7, MOUNT_NEW, mount_new", "X(7, SETSID, setsid", "a number or a name of PLAN_OPS is used twice"),
        ('"sl"', '"sx"', "the payload of MOUNT_NEW has letters that mean nothing: sx"),
        ("mount_new,", "mount,", "the function of MOUNT_NEW is called op_mount_new, not op_mount"),
        ("X(1, OPEN_TREE)", "X(2, OPEN_TREE)", "PLAN_STEPS does not count from 0 without a gap"),
        ("HOOK_CREATE_RUNTIME = 1", "HOOK_CREATE_RUNTIME = 2", "enum hook_kind does not count from 0"),
        ("uint16_t size;", "", "struct head has a gap at its end"),
        ("uint16_t format;", "", "struct head has a gap at its end"),
        ("uint16_t size;", "uint32_t size;", "struct head has a gap before size"),
        ("uint16_t size;", "size_t size;", "struct head has a field of unknown type 'size_t'"),
        ("enum pivot_mode", "enum other", "there is no enum pivot_mode"),
        ("#define SYNC_CODES(X)", "#define OTHERS(X)", "there is no table SYNC_CODES"),
        ("0xffffffffu", "(uint32_t)-1", "PLAN_NO_PATH is neither a number nor a string"),
    ],
)
def test_refused_headers(line: str, instead: str, message: str) -> None:
    """A header that contradicts itself ends the build, with the reason."""
    assert HEADER.count(line) == 1
    with pytest.raises(GENERATOR.HeaderError, match=message.replace("(", r"\(")):
        GENERATOR.module(HEADER.replace(line, instead))


def test_the_installation_has_the_numbers_of_the_header() -> None:
    """As the compiler knows them: init was built from the same file."""
    with open(os.path.join(support.PROJECT, "csrc/plan.h"), encoding="utf-8") as stream:
        wanted = run(stream.read())
    assert {name: value for name, value in vars(numbers).items() if name.isupper()} == wanted


def test_each_op_has_words() -> None:
    """`explain` says of each op what it does, and names each of its fields."""
    assert explain.OPS.keys() == numbers.OPS.keys()
    for name, (_, letters) in numbers.OPS.items():
        assert len(explain.OPS[name][1]) == len(letters), name

"""The direction of calls in C, read from compiled objects: who may use whom, and what nobody uses."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from graphlib import CycleError, TopologicalSorter

import pytest

import support

CSRC = os.path.join(support.PROJECT, "csrc")
# Which other folders the files of a folder may call and include. What is private to a folder is not among that.
FOLDERS: dict[str, set[str]] = {
    "shared": set(),
    "container": {"shared"},
    "init": {"shared"},
    "recorder": set(),
    "shim": {"shared"},
    "command": {"container", "shared", "shim"},
    "testing": {"shared"},
}
PRIVATE = {"impl.h", "init.h", "command.h", "probe.h"}
# What both sides of the plan include.
CONTRACT = "plan.h"
FLAGS = ["-std=gnu11", "-O1", "-w", '-DPYRUNC_VERSION=""', f"-I{CSRC}"]
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def sources(folder: str) -> list[str]:
    """The files of a folder as "folder/name.c"."""
    return sorted(os.path.relpath(path, CSRC) for path in glob.glob(f"{CSRC}/{folder}/*.c"))


def text(name: str) -> str:
    """What a file below csrc says."""
    with open(os.path.join(CSRC, name), encoding="utf-8") as stream:
        return stream.read()


class Object:
    """What a compiled file defines for others, and what it wants of others."""

    def __init__(self, name: str, directory: str) -> None:
        path = os.path.join(directory, name.replace("/", "-") + ".o")
        subprocess.run(["cc", *FLAGS, "-c", os.path.join(CSRC, name), "-o", path], check=True)
        listing = subprocess.run(["nm", "-P", path], check=True, capture_output=True, text=True).stdout
        kinds = [line.split()[:2] for line in listing.splitlines()]
        self.wanted = {symbol for symbol, kind in kinds if kind == "U"}
        self.defined = {symbol for symbol, kind in kinds if kind != "U" and kind.isupper()}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    """Every file of the folders, compiled."""
    support.needs_program("cc")
    support.needs_program("nm")
    directory = str(tmp_path_factory.mktemp("objects"))
    names = [name for folder in FOLDERS for name in sources(folder)]
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        return dict(zip(names, workers.map(lambda name: Object(name, directory), names), strict=True))


@pytest.fixture(scope="module")
def calls(objects: dict[str, Object]) -> dict[str, set[str]]:
    """Which files a file calls, or takes a variable of. Each program has a main of its own, which nobody calls."""
    owners = {symbol: name for name, one in objects.items() for symbol in one.defined}
    return {
        name: {owners[symbol] for symbol in one.wanted if symbol in owners} - {name}
        for name, one in objects.items()
    }


def test_every_folder_has_its_place() -> None:
    """A new folder is put into the table; a file beside the folders has no place in it."""
    found = {os.path.basename(os.path.dirname(path)) for path in glob.glob(f"{CSRC}/*/*.c")}
    assert found - {"fuzz"} == set(FOLDERS)
    assert [os.path.basename(path) for path in glob.glob(f"{CSRC}/*.[ch]")] == [CONTRACT]
    TopologicalSorter(FOLDERS).prepare()


def test_meson_names_every_file() -> None:
    """What is not built is not there."""
    with open(os.path.join(support.PROJECT, "meson.build"), encoding="utf-8") as stream:
        named = set(re.findall(r"'csrc/([^']+\.c)'", stream.read()))
    assert named == {name for folder in FOLDERS for name in sources(folder)}


def test_calls_point_down(calls: dict[str, set[str]]) -> None:
    """From a folder only into those that the table lets it use."""
    found = [
        f"{name} calls {other}"
        for name, others in calls.items()
        for other in others
        if (mine := os.path.dirname(name)) != (its := os.path.dirname(other)) and its not in FOLDERS[mine]
    ]
    assert not found


def test_no_circle_of_calls(calls: dict[str, set[str]]) -> None:
    """Also inside a folder: of two files one is the lower one."""
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_includes() -> None:
    """The own folder's headers by name, others by folder and name, and no private ones of theirs."""
    found = []
    for path in sorted(glob.glob(f"{CSRC}/*/*.[ch]")):
        name = os.path.relpath(path, CSRC)
        folder = os.path.dirname(name)
        if folder == "fuzz":
            continue
        for header in INCLUDE.findall(text(name)):
            other, base = os.path.split(header)
            allowed = header == CONTRACT or (other in FOLDERS[folder] and base not in PRIVATE)
            if other == "" and header != CONTRACT:
                allowed = os.path.exists(os.path.join(CSRC, folder, header))
            if not allowed:
                found.append(f"{name} includes {header}")
    assert not found


def test_files_of_ops_have_only_ops(objects: dict[str, Object], calls: dict[str, set[str]]) -> None:
    """Of csrc/init/op_*.c nobody but the table of ops wants anything."""
    files = [name for name in objects if name.startswith("init/op_")]
    assert len(files) > 5
    assert not [
        f"{name}: {symbol}" for name in files for symbol in objects[name].defined if symbol[:3] != "op_"
    ]
    callers = {name for name, others in calls.items() if others & set(files)}
    assert callers == {"init/main.c"}


def test_nothing_is_left_over(objects: dict[str, Object]) -> None:
    """What a file defines for others is wanted by another, or is Python's to call."""
    wanted = {symbol for one in objects.values() for symbol in one.wanted} | {"main"}
    with open(os.path.join(support.PROJECT, "meson.build"), encoding="utf-8") as stream:
        headers = re.search(r"shim_headers = files\((.*?)\)", stream.read(), re.DOTALL)
    assert headers
    declared = {
        word
        for header in re.findall(r"'csrc/([^']+)'", headers.group(1))
        for word in re.findall(r"\b(\w+)\(", text(header))
    }
    found = [
        f"{name}: {symbol}"
        for name, one in objects.items()
        for symbol in sorted(one.defined - wanted - declared)
    ]
    assert not found

"""The installation and the source distribution: what is in them, and that they agree on their version."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import re
import stat
import tarfile
import tomllib
import zipfile

import pytest
from pyrunc._shim import ffi, lib

import manual
import support
from pyrunc import __version__

GIT = ["git", "-c", f"safe.directory={support.PROJECT}", "-C", support.PROJECT]


def test_one_version_everywhere() -> None:
    """The metadata, the package, the shim, the command and the static init were built of one version."""
    assert importlib.metadata.version("pyrunc") == __version__
    assert ffi.string(lib.shim_version()).decode() == __version__
    assert support.run(support.PYRUNC, "--version").ok().out.splitlines()[0].endswith(__version__)
    with open(os.path.join(support.PACKAGE, "init"), "rb") as stream:
        assert b"\0" + __version__.encode() + b"\0" in stream.read()


def test_programs_are_static() -> None:
    """init runs where no library is, the command must be up in half a millisecond: neither names a loader."""
    installed = (os.path.join(support.PACKAGE, name) for name in ("init", "recorder"))
    for path in (*installed, support.PYRUNC):
        with open(path, "rb") as stream:
            content = stream.read()
        assert content[:4] == b"\x7fELF"
        offset = int.from_bytes(content[32:40], "little")
        size, count = (int.from_bytes(content[at : at + 2], "little") for at in (54, 56))
        kinds = [int.from_bytes(content[offset + i * size :][:4], "little") for i in range(count)]
        assert 3 not in kinds, f"{path} has a PT_INTERP segment"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o755


def test_installed_files() -> None:
    """One directory, one command, the metadata, share; no cache of the source tree, no file of the tests."""
    files = [str(file) for file in importlib.metadata.files("pyrunc") or []]
    outside = [
        name for name in files if not name.startswith(("pyrunc/", f"pyrunc-{__version__}.dist-info/"))
    ]
    shared = {name.partition("/share/")[2].partition("/")[0] for name in outside if "/share/" in name}
    assert shared == {"bash-completion", "fish", "man", "zsh"}
    assert [os.path.basename(name) for name in outside if "/share/" not in name] == ["pyrunc"]
    kinds = {os.path.splitext(name)[1] for name in files if name.startswith("pyrunc/")}
    assert kinds <= {"", ".bin", ".py", ".pyc", ".so", ".json"}


def test_declared_python_and_libraries() -> None:
    """Exactly the four libraries, and the oldest Python that is promised."""
    with open(os.path.join(support.PROJECT, "pyproject.toml"), "rb") as stream:
        project = tomllib.load(stream)["project"]
    names = {re.split(r"[<>=!~ ]", item)[0] for item in project["dependencies"]}
    assert names == {"cffi", "jsonschema", "pyroute2", "python-prctl"}
    assert project["requires-python"] == ">=3.11"


@pytest.mark.slow
def test_sdist_builds_the_wheel(scratch: str) -> None:
    """The source distribution has all that a build needs: its wheel holds the tree's files, programs and modes."""
    support.needs_program("git")
    head = support.run(*GIT, "rev-parse", "--verify", "HEAD")
    support.needs(head.status == 0, "a git work tree")
    # A clone, as meson dist packs what is committed; its own build directory keeps ours out of it.
    tree = os.path.join(scratch, "tree")
    support.run(
        "git", "-c", f"safe.directory={support.PROJECT}/.git", "clone", "-q", support.PROJECT, tree
    ).ok()
    tracked = support.run("git", "-C", tree, "ls-files").ok().out.splitlines()
    dist = os.path.join(scratch, "dist")
    build = [support.PYTHON, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", dist]
    environment = {**os.environ, "PATH": f"{os.path.dirname(support.PYTHON)}:{os.environ['PATH']}"}
    support.run(*build, tree, timeout=300, env=environment).ok()
    names = sorted(os.listdir(dist))
    assert [re.sub(r"linux_\w+", "ARCH", name) for name in names] == [
        f"pyrunc-{__version__}-cp311-abi3-ARCH.whl",
        f"pyrunc-{__version__}.tar.gz",
    ]
    with tarfile.open(os.path.join(dist, names[1])) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked) <= packed
    with zipfile.ZipFile(os.path.join(dist, names[0])) as wheel:
        inside = {info.filename: info.external_attr >> 16 & 0o777 for info in wheel.infolist()}
    assert {name for name in inside if name.endswith(".py")} == {
        *(name for name in tracked if name.startswith("pyrunc/") and name.endswith(".py")),
        "pyrunc/plan/numbers.py",
    }
    programs = {"pyrunc/init", "pyrunc/recorder", f"pyrunc-{__version__}.data/scripts/pyrunc"}
    assert programs | {"pyrunc/_shim.abi3.so"} <= set(inside)
    assert all(inside[name] == 0o755 for name in programs)
    data = f"pyrunc-{__version__}.data/data/share/"
    assert {name.removeprefix(data) for name in inside if name.startswith(data)} == {
        "bash-completion/completions/pyrunc.bash",
        "fish/vendor_completions.d/pyrunc.fish",
        "zsh/site-functions/_pyrunc",
        *(f"man/man8/{name}" for name in manual.pages()),
    }
    _installs_everywhere(os.path.join(dist, names[0]), scratch)


def _installs_everywhere(wheel: str, scratch: str) -> None:
    """pip puts it into a virtual environment, a prefix and a user's directory, and the command finds its parts."""
    places = {name: os.path.join(scratch, name) for name in ("environment", "prefix", "user")}
    python = os.path.realpath(support.PYTHON)
    support.run(python, "-m", "venv", "--without-pip", places["environment"]).ok()
    pip = {**os.environ, "PYTHONPATH": os.path.dirname(support.PACKAGE), "PYTHONUSERBASE": places["user"]}
    where = {
        "environment": ["--python", os.path.join(places["environment"], "bin", "python"), "install"],
        "prefix": ["install", "--prefix", places["prefix"]],
        "user": ["install", "--user"],
    }
    for name, place in places.items():
        # pip itself comes from where pyrunc is installed already.
        options = ["--quiet", "--ignore-installed", "--break-system-packages", "--no-deps", "--no-index"]
        support.run(python, "-m", "pip", *where[name], *options, wheel, env=pip, timeout=120).ok()
        # Debian's scheme for a prefix has all of it below local/.
        commands = [os.path.join(place, part, "bin", "pyrunc") for part in ("", "local")]
        (command,) = filter(os.path.exists, commands)
        # Without cffi, which --no-deps leaves out, this is as far as it comes.
        assert f"version {__version__}" in support.run(command, "help", env={}).ok().out, name


def test_the_map_of_the_tree() -> None:
    """docs/architecture.md names every folder of the project, and nothing that is not there."""
    with open(os.path.join(support.PROJECT, "docs/architecture.md"), encoding="utf-8") as stream:
        text = stream.read()
    found = re.search(r"^## Map$.*?^```text$(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert found
    named: set[str] = set()
    base = ""
    for line in found.group(1).splitlines()[1:]:
        names = list(itertools.takewhile(lambda word: word.endswith("/"), line.split()))
        if not line.startswith(" "):
            base = ""
        named |= {base + name for name in names}
        base = base or names[0]
    tracked = support.run(*GIT, "ls-files").ok().out.splitlines()
    folders = {name[: at + 1] for name in tracked for at, letter in enumerate(name) if letter == "/"}
    data = ("tests/corpus/", "tests/goldens/", "tests/security/corpus/", "vm/guest/", ".")
    assert named == {name for name in folders if not name.startswith(data)}
    for path in re.findall(r"`((?:pyrunc|csrc|tests|conformance|docs)/[\w./]+)`", text):
        assert os.path.exists(os.path.join(support.PROJECT, path)), path


def test_files_that_are_named() -> None:
    """A path of the sources, wherever it stands, leads to a file."""
    named = re.compile(r"\b(?:pyrunc|csrc)/[a-z_]+/[a-z_/]+\.(?:py|json|c|h)\b")
    missing: set[str] = set()
    for name in support.run(*GIT, "ls-files").ok().out.splitlines():
        if not name.endswith((".py", ".c", ".h", ".md", ".toml", ".build", ".sh", "dev", ".ci/run")):
            continue
        with open(os.path.join(support.PROJECT, name), encoding="utf-8") as stream:
            text = stream.read()
        missing |= {
            f"{name}: {path}"
            for path in named.findall(text)
            if not os.path.exists(os.path.join(support.PROJECT, path))
        }
    assert missing == set()

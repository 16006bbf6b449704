"""Checks of existing namespaces to join against the rest of the configuration.

They ask the kernel, which config/rules/ does not. All functions raise PyruncError.
"""

from __future__ import annotations

import errno
import os

from pyrunc.config.rules import linux as rules_linux
from pyrunc.errors import ConfigError, KernelError
from pyrunc.host import proc
from pyrunc.spec import id_mappings
from pyrunc.spec.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.shapes import Spec

_NS_GET_USERNS = 0xB701
_NS_GET_PARENT = 0xB702


def check(spec: Spec) -> None:
    """Raise ConfigError if the namespaces to join are not what the configuration takes them for."""
    _check_mappings(spec)
    _check_sysctls(spec)


def _check_mappings(spec: Spec) -> None:
    """Mappings beside the path of a user namespace must be those it has, as far as /proc shows them.

    The maps of a namespace that only a bind mount keeps are not visible from outside.
    """
    linux = spec.get("linux") or {}
    for item in linux.get("namespaces") or ():
        path = item.get("path") or ""
        if item["type"] != "user" or not path.endswith("/ns/user"):
            continue
        process = path.removesuffix("/ns/user")
        for mappings, name in ((linux.get("uidMappings"), "uid"), (linux.get("gidMappings"), "gid")):
            there = proc.read_file(f"{process}/{name}_map")
            if mappings and there and not id_mappings.matching(id_mappings.rows(mappings), there):
                raise ConfigError(
                    "user namespaces enabled, but both namespace path and non-matching mapping specified",
                    path=f"$.linux.{name}Mappings",
                    hint=f"leave the mappings out, or write what {process}/{name}_map says",
                )


def _check_sysctls(spec: Spec) -> None:
    """A path may lead to the runtime's own namespace, whose values are the host's."""
    linux = spec.get("linux") or {}
    if not linux.get("sysctl"):
        return
    spaces = rules_linux.namespaces(linux, None)
    for kind, path in list(spaces.items()):
        try:
            if path and os.path.samefile(path, f"/proc/self/ns/{NAMESPACES[kind][1]}"):
                del spaces[kind]
        except OSError:
            pass  # said with its path when it is opened
    rules_linux.sysctls(linux, spaces)


def pid_inside_user(spec: Spec) -> bool:
    """Whether the pid namespace to join belongs to the user namespace to join, or to one in that. ioctl_nsfs(2).

    Only then privileges over the one are enough to enter the other. Raise KernelError.
    """
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    paths = {item["type"]: item["path"] for item in namespaces if item.get("path")}
    if "user" not in paths or "pid" not in paths:
        return False
    from fcntl import ioctl

    fd = -1
    try:
        wanted = os.stat(paths["user"])
        fd = os.open(paths["pid"], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        request = _NS_GET_USERNS
        while True:
            # Not among our own namespaces or below: above all that we can join.
            above = ioctl(fd, request)
            os.close(fd)
            fd, request = above, _NS_GET_PARENT
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError as error:
        # What is missing, or is no namespace, is said by who opens it for init.
        if error.errno in (errno.EPERM, errno.ENOTTY, errno.ENOENT, errno.ESRCH, errno.EACCES):
            return False
        raise KernelError("ioctl", error.errno or 0, paths["pid"]) from error
    finally:
        if fd >= 0:
            os.close(fd)

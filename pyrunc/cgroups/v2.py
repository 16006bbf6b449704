"""cgroup v2: a container's directory, the controllers that its parents must enable, and device programs."""

from __future__ import annotations

import errno
import os

from pyrunc.cgroups import files
from pyrunc.cgroups.v1 import below
from pyrunc.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cgroups.resources import Write
    from pyrunc.spec.host_facts import HostFacts

_DELEGATE_FILE = "/sys/kernel/cgroup/delegate"
# cgroup_namespaces(7), for kernels that do not list them
_DELEGATE_DEFAULT = "cgroup.procs cgroup.subtree_control cgroup.threads"
_DOMAIN_CONTROLLERS = ("memory", "io", "hugetlb", "rdma", "misc")  # the others can work in threaded mode


def directory(host: HostFacts, inner: str, *, absolute: bool) -> str:
    """Return the container's directory: from the mount point, or beside the runtime's own cgroup, as in runc.

    Beside, not below: a cgroup with processes cannot enable controllers for its children ("no internal processes").
    """
    mount = host.unified_mount or ""
    if absolute:
        return f"{mount}/{inner}"
    own = below((mount, "/"), host.own_cgroups.get("", "/"))
    return f"{os.path.dirname(own) if own != mount else mount}/{inner}"


def _enable(parent: str, controllers: list[str]) -> None:
    """Enable as many controllers as possible for the children of `parent`."""
    path = f"{parent}/cgroup.subtree_control"
    try:
        files.write(path, " ".join([f"+{name}" for name in controllers]))
    except OSError as error:
        if error.errno == errno.ENOENT and not os.access(path, os.F_OK):
            raise
        for name in controllers:
            try:
                files.write(path, f"+{name}")
            except OSError:
                pass  # if a property needs this controller, its error names the property


def make(target: str, missing: list[str], mount: str, made: list[str]) -> None:
    """Create the `missing` directories of `target`'s path with controllers enabled. Raise OSError.

    Those made are appended to `made`. All available controllers are enabled: engines read their statistics.
    """
    controllers = files.read(f"{mount}/cgroup.controllers").split()
    if controllers:
        parent = os.path.dirname(missing[0] if missing else target)
        present = files.read(f"{parent}/cgroup.subtree_control").split()
        if not set(controllers) <= set(present):
            at = mount
            for name in ["", *parent[len(mount) :].strip("/").split("/")]:
                at = f"{at}/{name}" if name else at
                _enable(at, controllers)
    for path in missing:
        files.make(path, target, made)
        if path != target and controllers:
            _enable(path, controllers)


def settle_type(target: str, missing: list[str], wanted: Callable[[], list[Write]]) -> None:
    """Let `target` take processes below a threaded parent. Raise ConfigError if it cannot. cgroups(7) "Thread mode"."""
    for path in missing or [target]:
        try:
            kind = files.read(f"{path}/cgroup.type").strip()
        except OSError:
            return
        if kind == "domain":
            return
        domain = [item for item in wanted() if item.controller in _DOMAIN_CONTROLLERS]
        if domain:
            raise ConfigError(
                f"cannot use the {domain[0].controller} controller in '{path}': it is in {kind} mode",
                path=domain[0].path,
                hint="its parent holds processes of its own; choose another cgroupsPath",
            )
        if kind == "domain invalid":
            files.write(f"{path}/cgroup.type", "threaded")


def delegate(target: str, uid: int) -> None:
    """Give the cgroup to the user the container's process runs as. config-linux.md "Cgroup ownership".

    Raise OSError; a file that this kernel lacks "MUST NOT" be an error.
    """
    os.chown(target, uid, -1)
    try:
        names = files.read(_DELEGATE_FILE)
    except OSError:
        names = _DELEGATE_DEFAULT
    for name in names.split():
        try:
            os.chown(f"{target}/{name}", uid, -1)
        except FileNotFoundError:
            pass


def attach_devices(target: str, program: bytes, path: str) -> None:
    """Attach `program`, which decides about every device access of the cgroup, and replace an earlier one.

    `path` is the JSON path of the rules. Raise KernelError.
    """
    from pyrunc.kernel import bpf

    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        bpf.device_attach(fd, program, path)
    finally:
        os.close(fd)

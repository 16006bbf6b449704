"""Detached mounts that the runtime makes for init: clones of the host's, new file systems, with mapped owners."""

from __future__ import annotations

import errno
import os

from pyrunc.errors import KernelError
from pyrunc.kernel import mounts as kernel_mounts
from pyrunc.spec import id_mappings
from pyrunc.spec.mount_options import MS_REC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.wire import Fd
    from pyrunc.spec.id_mappings import IdMap

_HINTS = {
    errno.EINVAL: "the file system, or one below it, does not allow id-mapped mounts on this kernel: ext4, xfs and"
    " btrfs do, tmpfs since Linux 6.3, FUSE since 6.12 if its server agrees; or the mapping is the file system's own",
    errno.EPERM: "it is an id-mapped mount already, or belongs to a user namespace that is not ours: id-mapped mounts"
    " are not supported for rootless containers",
}


class Trees:
    """Makes detached mounts. Equal mappings share one user namespace; `close` closes these."""

    __slots__ = ("_namespaces",)

    def __init__(self) -> None:
        self._namespaces: dict[tuple[object, ...], int] = {}

    def open(self, wanted: Fd, path: str) -> int:
        """Return the mount, or -1 for a plain clone that the kernel allows to init only. Raise KernelError.

        `path` is the JSON path of the mount.
        """
        tree = -1
        try:
            if wanted.kind == "filesystem":
                tree = kernel_mounts.filesystem(wanted.arg, wanted.source, wanted.parameters)
            else:
                tree = kernel_mounts.open_tree(
                    wanted.arg, recursive=wanted.recursive, nofollow=wanted.nofollow
                )
            if wanted.propagation:
                kernel_mounts.tree_propagation(
                    tree, wanted.propagation & ~MS_REC, recursive=bool(wanted.propagation & MS_REC)
                )
            if wanted.idmap is not None:
                self._map(tree, wanted, wanted.idmap)
        except KernelError as error:
            if tree >= 0:
                os.close(tree)
            elif error.errno == errno.EPERM and wanted.idmap is None:
                # Root of a user namespace that does not own our mount namespace: init clones it in one of its own.
                return -1
            if error.path is None:
                raise KernelError(
                    error.syscall, error.errno, error.arg, path=path, hint=_missing(wanted, error)
                ) from error
            raise
        return tree

    def close(self) -> None:
        """Close the namespaces; mounts that were mapped through them stay mapped."""
        for fd in self._namespaces.values():
            os.close(fd)
        self._namespaces.clear()

    def _map(self, tree: int, wanted: Fd, mapping: IdMap) -> None:
        namespace = self._namespaces.get(mapping.key, -1)
        if namespace < 0:
            namespace = self._namespaces[mapping.key] = _user_namespace(mapping)
        try:
            kernel_mounts.idmap_tree(tree, namespace, recursive=mapping.recursive)
        except KernelError as error:
            what = wanted.source or wanted.arg
            hint = _HINTS.get(error.errno)
            raise KernelError(
                "mount_setattr MOUNT_ATTR_IDMAP", error.errno, what, path=mapping.path, hint=hint
            ) from error


def _missing(wanted: Fd, error: KernelError) -> str | None:
    if wanted.kind == "tree" and error.errno == errno.ENOENT:
        return f"the source '{wanted.arg}' does not exist on the host"
    return None


def _user_namespace(mapping: IdMap) -> int:
    if mapping.namespace:
        try:
            return os.open(mapping.namespace, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            hint = "the namespace's file or process is gone"
            raise KernelError(
                "open", error.errno or 0, mapping.namespace, path=mapping.path, hint=hint
            ) from error
    try:
        return kernel_mounts.user_namespace(id_mappings.text(mapping.uids), id_mappings.text(mapping.gids))
    except KernelError as error:
        path, call = mapping.path, error.syscall
        if call in ("uid_map", "gid_map"):
            path = path.replace("uidMappings", "gidMappings") if call == "gid_map" else path
            hint = "rows must not overlap, there may be 340 of them, and their host ids must be mapped for the runtime"
            raise KernelError("write", error.errno, call, path=path, hint=hint) from error
        raise KernelError(call, error.errno, error.arg, path=path) from error

"""PURE: the options of a mount -> attributes, propagation, superblock parameters. config.md, "Linux mount options".

Flag values are those of linux/mount.h and mount(2); they are the same on every architecture.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrunc.spec.shapes import Mount

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_ATIME_FIELD = 0x70  # relatime is 0 in it
ATTR_NODIRATIME = 0x80
ATTR_NOSYMFOLLOW = 0x200000

MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

# linux.rootfsPropagation -> mount(2) flags; the r-forms are what runc and crun take too.
PROPAGATION: dict[str, int] = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# Mount attributes: (set, clear) of the top mount. An access time mode is a number in a field, so that setting or
# clearing one clears the whole field.
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "atime": (0, ATTR_ATIME_FIELD),
    "dev": (0, ATTR_NODEV),
    "diratime": (0, ATTR_NODIRATIME),
    "exec": (0, ATTR_NOEXEC),
    "noatime": (ATTR_NOATIME, ATTR_ATIME_FIELD),
    "nodev": (ATTR_NODEV, 0),
    "nodiratime": (ATTR_NODIRATIME, 0),
    "noexec": (ATTR_NOEXEC, 0),
    "norelatime": (0, ATTR_ATIME_FIELD),
    "nostrictatime": (0, ATTR_ATIME_FIELD),
    "nosuid": (ATTR_NOSUID, 0),
    "nosymfollow": (ATTR_NOSYMFOLLOW, 0),
    "relatime": (0, ATTR_ATIME_FIELD),
    "ro": (ATTR_RDONLY, 0),
    "rw": (0, ATTR_RDONLY),
    "strictatime": (ATTR_STRICTATIME, ATTR_ATIME_FIELD),
    "suid": (0, ATTR_NOSUID),
    "symfollow": (0, ATTR_NOSYMFOLLOW),
}
# Options with a recursive form (r...): mount_setattr(2) with AT_RECURSIVE.
_RECURSIVE: dict[str, tuple[int, int]] = {"r" + name: value for name, value in _ATTRIBUTES.items()}
# Superblock flags: (parameter for fsconfig(2), is it the setting one?). A superblock has nothing below it: the r-forms,
# which crun knows, say the same as the others.
_SUPERBLOCK: dict[str, tuple[str, bool]] = {
    "async": ("sync", False),
    "dirsync": ("dirsync", True),
    "lazytime": ("lazytime", True),
    "mand": ("mand", True),
    "nolazytime": ("lazytime", False),
    "nomand": ("mand", False),
    "rasync": ("sync", False),
    "rdirsync": ("dirsync", True),
    "rmand": ("mand", True),
    "rnomand": ("mand", False),
    "rsync": ("sync", True),
    "sync": ("sync", True),
}
# Accepted without effect. silent and loud concern mount(2)'s own log lines, which fsopen(2) does not write.
# (no)iversion: since Linux 6.0 every file system that has the counter (btrfs, ext4, xfs) always maintains it.
_NOTHING = frozenset({"defaults", "iversion", "loud", "noiversion", "silent"})
_SPECIAL = frozenset({"bind", "idmap", "rbind", "remount", "ridmap"})
# option -> attribute of MountOptions. All but the first are crun's, for bind mounts.
_SWITCHES = {
    "tmpcopyup": "copy_up",
    "copy-symlink": "copy_symlink",
    "dest-nofollow": "target_nofollow",
    "src-nofollow": "source_nofollow",
}
BIND_ONLY = ("copy-symlink", "dest-nofollow", "src-nofollow")

# Parameters that label a file system, mount(8); crun's annotation chooses among them for linux.mountLabel.
CONTEXTS = ("context", "defcontext", "fscontext", "rootcontext")
CONTEXT_ANNOTATION = "run.oci.mount_context_type"

OPTIONS: tuple[str, ...] = tuple(
    sorted({*_ATTRIBUTES, *_RECURSIVE, *_SUPERBLOCK, *_NOTHING, *_SPECIAL, *_SWITCHES, *PROPAGATION})
)


class MountOptions:
    """The parsed options of one mount.

    `attr_set`/`attr_clear` and `rec_set`/`rec_clear`: MOUNT_ATTR_* for the top mount and for the whole tree.
    `propagation`: MS_* flags, one step per option in its order. `superblock`: flag name -> wanted state.
    `bind`, `recursive`, `remount`; `idmap` is "", "idmap" or "ridmap", `mapping` what follows "=" in crun's form.
    `copy_up`, `copy_symlink`, `source_nofollow`, `target_nofollow`. `data`: other options, for the file system itself.
    """

    __slots__ = (
        "attr_clear",
        "attr_set",
        "bind",
        "copy_symlink",
        "copy_up",
        "data",
        "idmap",
        "mapping",
        "propagation",
        "rec_clear",
        "rec_set",
        "recursive",
        "remount",
        "source_nofollow",
        "superblock",
        "target_nofollow",
    )

    def __init__(self) -> None:
        self.attr_set = 0
        self.attr_clear = 0
        self.rec_set = 0
        self.rec_clear = 0
        self.propagation: list[int] = []
        self.superblock: dict[str, bool] = {}
        self.bind = False
        self.recursive = False
        self.remount = False
        self.copy_symlink = False
        self.copy_up = False
        self.source_nofollow = False
        self.target_nofollow = False
        self.idmap = ""
        self.mapping = ""
        self.data: list[str] = []

    def _special(self, name: str) -> None:
        if name == "remount":
            self.remount = True
        elif name in ("bind", "rbind"):
            self.bind = True
            self.recursive = self.recursive or name == "rbind"
        elif self.idmap != "ridmap":
            self.idmap = name

    def parameters(self, *, reconfigure: bool = False) -> list[str]:
        """Return superblock flags and file system data as fsconfig(2) parameters.

        A new superblock needs only the flags that are on; `reconfigure` also turns flags off.
        """
        off = {"sync": "async", "lazytime": "nolazytime", "mand": "nomand"}
        words = [name if on else off[name] for name, on in self.superblock.items() if on or reconfigure]
        return words + self.data

    def new_attributes(self) -> int:
        """Return MOUNT_ATTR_* for a new mount, for which recursive and not recursive are the same."""
        return (self.attr_set & ~self.rec_clear) | self.rec_set


def inside(path: str) -> str:
    """Absolute, without "..": config.md calls a relative destination one that is taken from "/"."""
    return os.path.normpath("/" + path.lstrip("/"))


def is_bind(mount: Mount) -> bool:
    """Return whether it is a bind mount. config.md: the options decide, and `type` is then a dummy.

    Type bind alone also means a bind mount, except with remount, which mounts nothing.
    """
    options = mount.get("options") or ()
    return (
        "bind" in options or "rbind" in options or (mount.get("type") == "bind" and "remount" not in options)
    )


def parse(options: Iterable[str]) -> MountOptions:
    """Parse the options of a mount; if two contradict each other the last wins, as in mount(8).

    rbind and ridmap do not contradict bind and idmap: they say more, wherever they stand.
    Unknown ones go to `data`: config.md, mounts: "SHOULD be passed" to the file system.
    """
    result = MountOptions()
    for name in options:
        if name in _ATTRIBUTES:
            wanted, unwanted = _ATTRIBUTES[name]
            result.attr_set = (result.attr_set & ~unwanted) | wanted
            result.attr_clear = (result.attr_clear & ~wanted) | unwanted
        elif name in PROPAGATION:
            result.propagation.append(PROPAGATION[name])
        elif name in _SPECIAL:
            result._special(name)
        elif name in _RECURSIVE:
            wanted, unwanted = _RECURSIVE[name]
            result.rec_set = (result.rec_set & ~unwanted) | wanted
            result.rec_clear = (result.rec_clear & ~wanted) | unwanted
        elif name in _SUPERBLOCK:
            flag, on = _SUPERBLOCK[name]
            result.superblock[flag] = on
        elif name in _SWITCHES:
            setattr(result, _SWITCHES[name], True)
        elif name.startswith(("idmap=", "ridmap=")):
            kind, _, result.mapping = name.partition("=")
            result._special(kind)
        elif name not in _NOTHING and name:
            result.data.append(name)
    return result

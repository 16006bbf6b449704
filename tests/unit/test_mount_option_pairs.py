"""Every pair of mount options, both ways round: none undoes the other by its place in the list."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from pyrunc.spec import mount_options

if TYPE_CHECKING:
    from collections.abc import Iterable

# What mount(8) calls contradicting: of the options of one group the last one counts.
CONTRADICTING = [
    *({name, other} for name, other in (("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"))),
    *({name, other} for name, other in (("noexec", "exec"), ("nodiratime", "diratime"))),
    {"nosymfollow", "symfollow"},
    {"atime", "noatime", "norelatime", "nostrictatime", "relatime", "strictatime"},
]
CONTRADICTING += [{"r" + name for name in group} for group in CONTRADICTING]
CONTRADICTING += [
    {"async", "rasync", "rsync", "sync"},
    {"lazytime", "nolazytime"},
    {"mand", "nomand", "rmand", "rnomand"},
    # Steps, one behind the other: a mount can be a slave and shared.
    set(mount_options.PROPAGATION),
]


def effects(names: Iterable[str]) -> set[tuple[str, object]]:
    """What parse() has found, apart: each bit and each parameter for itself."""
    found = mount_options.parse(names)
    bits = {
        (field, 1 << bit)
        for field in ("attr_set", "attr_clear", "rec_set", "rec_clear")
        for bit in range(32)
        if getattr(found, field) >> bit & 1
    }
    switches = (
        "bind",
        "recursive",
        "remount",
        "copy_up",
        "copy_symlink",
        "source_nofollow",
        "target_nofollow",
    )
    return (
        bits
        | {(field, True) for field in switches if getattr(found, field)}
        | {("superblock", item) for item in found.superblock.items()}
        | {("propagation", item) for item in found.propagation}
        | {("idmap", name) for name in ("idmap", "ridmap") if found.idmap in (name, "r" + name)}
    )


def test_no_option_undoes_another() -> None:
    """Every pair, both ways round: both have their effect, unless they contradict each other."""
    pairs = set(itertools.permutations(mount_options.OPTIONS, 2))
    for one_name, other in sorted(pairs):
        pair = effects([one_name, other])
        assert effects([other]) <= pair, (one_name, other)
        if not any({one_name, other} <= group for group in CONTRADICTING):
            assert pair == effects([other, one_name]) == effects([one_name]) | effects([other]), (
                one_name,
                other,
            )

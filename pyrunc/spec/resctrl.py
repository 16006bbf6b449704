"""PURE: names in the resctrl file system."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Spaces = dict[str, str]

# Entries of info/ if resctrl can divide the L3 cache: with code and data prioritization there are two resources.
CAT = frozenset(("L3", "L3CODE", "L3DATA"))
# Directories of resctrl that are not groups.
RESCTRL_OWN = ("info", "mon_data", "mon_groups")

"""An ordinary user with subordinate ids who exists in one area only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.area import Area

USER = "tester"
UID = 2077
SUBORDINATE = 700000


def add(area: Area, home: str) -> None:
    """The user, in copies of the files that hold accounts, which only the area sees."""
    lines = {
        "passwd": f"{USER}:x:{UID}:{UID}::{home}:/bin/sh",
        "group": f"{USER}:x:{UID}:",
        "subuid": f"{USER}:{SUBORDINATE}:65536",
        "subgid": f"{USER}:{SUBORDINATE}:65536",
    }
    for name, line in lines.items():
        with open(f"/etc/{name}", encoding="utf-8") as stream:
            text = stream.read()
        with open(area.path(name), "w", encoding="utf-8") as stream:
            stream.write(f"{text}{line}\n")
        area.run("mount", "--bind", area.path(name), f"/etc/{name}").ok()

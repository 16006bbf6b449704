"""Labels of either security module for containers under test: a profile of AppArmor's, types of SELinux's."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import support
from pyrunc.host import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import Bundle

FACTS = gather.gather()
PROFILE = f"pyrunc-test-{os.getpid()}"
STRICTER = f"{PROFILE}-stricter"
_PROFILES = f"""
profile {PROFILE} flags=(attach_disconnected, mediate_deleted) {{
  file, capability, network, mount, umount, signal, unix, ptrace,
  deny /tmp/secret rw,
}}
profile {STRICTER} flags=(attach_disconnected, mediate_deleted) {{
  file, capability, signal,
  deny /tmp/secret rw,
  deny /tmp/public rw,
}}
"""
# Types that Fedora's policy has for containers; those of the test machine are called the same.
LABEL = "system_u:system_r:container_t:s0:c1,c2"
MOUNT_LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def has_apparmor() -> bool:
    """Whether profiles can be loaded here."""
    return FACTS.apparmor and shutil.which("apparmor_parser") is not None


def has_selinux() -> bool:
    """Whether the policy that is loaded knows the labels."""
    return FACTS.selinux and _known(LABEL) and _known(MOUNT_LABEL)


def _known(label: str) -> bool:
    try:
        with open("/sys/fs/selinux/context", "w", encoding="ascii") as stream:
            stream.write(label)
    except OSError:
        return False
    return True


def enforcing() -> bool:
    """Whether SELinux does not only warn."""
    with open("/sys/fs/selinux/enforce", encoding="ascii") as stream:
        return stream.read() == "1"


@contextlib.contextmanager
def loaded_profiles(scratch: str) -> Iterator[None]:
    """PROFILE and STRICTER are loaded."""
    path = os.path.join(scratch, "profiles")
    with open(path, "w", encoding="ascii") as stream:
        stream.write(_PROFILES)
    support.run("apparmor_parser", "--replace", "--skip-cache", path, timeout=120).ok()
    yield
    support.run("apparmor_parser", "--remove", path, timeout=120).ok()


def label_files(what: Bundle) -> Bundle:
    """Itself, its files with the label that LABEL may use, and both labels in its configuration."""
    for directory, names, files in os.walk(what.rootfs):
        for path in [directory, *[os.path.join(directory, name) for name in names + files]]:
            os.setxattr(path, "security.selinux", MOUNT_LABEL.encode(), follow_symlinks=False)
    what.mapping("process")["selinuxLabel"] = LABEL
    what.mapping("linux")["mountLabel"] = MOUNT_LABEL
    return what

"""The guest's image: a Debian root disk, its kernel, and snapshots of it booted. Built once, kept by its recipe.

An image is a directory of the cache, named by a digest of all that it is made from: root.ext4, vmlinuz, initrd and for
each of the SNAPSHOTS its RAM (.state) and what the boot changed on the disk (.qcow2).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import hardware
from hardware import VmError
from machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = os.path.dirname(os.path.realpath(__file__))
# What each program that builds is part of.
TOOLS = {
    hardware.QEMU: "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
}
# Not the kernel for clouds: that has no rdma_rxe, without which no limit of rdma can be set.
KERNEL = "linux-image-amd64"
PACKAGES = (
    *(
        "systemd",
        "systemd-sysv",
        "dbus",
        "dbus-user-session",
        "libpam-systemd",
        "udev",
        "kmod",
        "initramfs-tools",
    ),
    *("procps", "psmisc", "iproute2", "nftables", "iptables", "strace", "util-linux-extra"),
    *("python3", "python3-venv", "libseccomp2", "uidmap", "busybox-static", "dbus-daemon"),
    *("apparmor", "selinux-policy-default", "policycoreutils", "selinux-utils", "semodule-utils"),
    *("runc", "crun", "criu", "podman", "containerd", "buildah", "containernetworking-plugins"),
    *("fuse-overlayfs", "slirp4netns"),
)
# Snapshots of the same disk, by the kernel parameters that they were booted with: cgroup v2 with either LSM, v1 as old
# hosts have it, and v1 with a cgroup2 beside it that has no controllers.
_V1 = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller"
SNAPSHOTS = {
    "apparmor": "security=apparmor",
    "selinux": "security=selinux",
    "v1": f"security=apparmor {_V1}=1",
    "hybrid": f"security=selinux {_V1}=0",
}
ROOT_BYTES = 8 << 30
# How long each part may take: about ten times what it takes on an idle machine with two processors.
ROOT_SECONDS = float(os.environ.get("PYRUNC_VM_ROOT_SECONDS", "900"))
BOOT_SECONDS = 300.0
# How many images are kept: that of another branch is soon wanted again.
KEPT = 2
_SUFFIXES = ("", "-updates", "-security")


def cache() -> str:
    """Where images are kept: PYRUNC_VM_CACHE, or below the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("PYRUNC_VM_CACHE") or os.path.join(base, "pyrunc-vm")


def release() -> str:
    """The code name of this host's Debian: the guest has the same, so that a virtual environment fits both."""
    found = platform.freedesktop_os_release()
    if found.get("ID") != "debian":
        raise VmError(f"the guest is made from a Debian host's own packages, this is '{found.get('ID')}'")
    return found["VERSION_CODENAME"]


def _recipe_files() -> Iterator[str]:
    for name in ("hardware.py", "image.py", "setup.sh", "selinux.sh", "container.cil"):
        yield os.path.join(HERE, name)
    for directory, directories, names in os.walk(os.path.join(HERE, "guest")):
        directories.sort()
        yield from (os.path.join(directory, name) for name in sorted(names))


def recipe() -> str:
    """The digest of all that the image is made from, but for the versions of Debian's packages."""
    total = hashlib.sha256(f"{release()} {hardware.version()}".encode())
    for path in _recipe_files():
        with open(path, "rb") as stream:
            content = stream.read()
        total.update(
            f"{os.path.relpath(path, HERE)} {os.stat(path).st_mode & 0o111} {len(content)}\n".encode()
        )
        total.update(content)
    return total.hexdigest()[:16]


# --- Building ---------------------------------------------------------------------------------------------------------


def _sources(suite: str) -> str:
    """Lines for the guest's sources.list: whatever this host's own apt uses."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    argv = ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    wanted = {suite + suffix for suffix in _SUFFIXES}
    lines = sorted({line for line in done.stdout.splitlines() if line.split()[2] in wanted})
    if not lines:
        raise VmError(f"apt knows no Debian source for '{suite}'; as root: apt-get update")
    return "\n".join(lines) + "\n"


def _contained(argv: Sequence[str], log: str, seconds: float, stdin: str = "") -> None:
    """Run a program that mounts and starts others, so that its end is the end of all of that."""
    wrapped = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    wrapped += ["--mount-proc", "--", *argv]
    with open(log, "ab") as stream:
        running = subprocess.Popen(
            wrapped, stdin=subprocess.PIPE, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            running.communicate(stdin.encode(), timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise VmError(f"{argv[0]} takes longer than {seconds:.0f} s{_tail(log)}") from error
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
    if running.returncode != 0:
        raise VmError(f"{argv[0]} ended with status {running.returncode}{_tail(log)}")


def _tail(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as stream:
        return "".join(f"\n  {line.rstrip()}" for line in list(stream)[-20:])


def _make_root(root: str, log: str) -> None:
    options = ["APT::Install-Recommends false", "Acquire::Retries 3"]
    left_out = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/boot/System.map-*")
    suite = release()
    argv = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
        "--include=" + ",".join((*PACKAGES, KERNEL)),
        *(f"--aptopt={option}" for option in options),
        "--dpkgopt=force-confold",
        *(f"--dpkgopt=path-exclude={path}" for path in left_out),
        # Early: the kernel's package makes the initrd from what is there.
        f"--essential-hook=cp -r --no-preserve=ownership '{HERE}/guest/.' \"$1\"",
        *(suite, root, "-"),
    ]
    _contained(argv, log, ROOT_SECONDS, _sources(suite))
    for script in ("setup.sh", "selinux.sh"):
        shutil.copy(os.path.join(HERE, script), os.path.join(root, "tmp"))
        shutil.copy(os.path.join(HERE, "container.cil"), os.path.join(root, "tmp"))
        # selinux.sh last: it labels the files.
        _contained(["chroot", root, "sh", "-eu", f"/tmp/{script}"], log, ROOT_SECONDS)


def _only(directory: str, prefix: str) -> str:
    names = [name for name in os.listdir(directory) if name.startswith(prefix)]
    if len(names) != 1:
        raise VmError(f"the kernel's package made {names} where one '{prefix}' was expected")
    return os.path.join(directory, names[0])


def _build(image: str) -> None:
    """Make the image in this empty directory."""
    root, log = os.path.join(image, "root"), os.path.join(image, "log")
    _make_root(root, log)
    for name in ("vmlinuz", "initrd"):
        shutil.move(_only(os.path.join(root, "boot"), name), os.path.join(image, name))
    hardware.make_ext4(root, os.path.join(image, "root.ext4"), ROOT_BYTES, root_owned=True)
    shutil.rmtree(root)
    for snapshot, parameters in SNAPSHOTS.items():
        place = os.path.join(image, "place")
        os.mkdir(place)
        with open(os.path.join(place, "share"), "wb") as stream:
            stream.truncate(hardware.SHARE_BYTES)
        try:
            with Machine(image, snapshot, place, BOOT_SECONDS) as machine:
                machine.boot(parameters)
                machine.save()
        except TimeoutError as error:
            raise _not_up(snapshot, error) from error
        shutil.rmtree(place)


def _not_up(snapshot: str, error: TimeoutError) -> VmError:
    words = VmError(f"the guest with {SNAPSHOTS[snapshot]} did not come up within {BOOT_SECONDS:.0f} s")
    for note in getattr(error, "__notes__", ()):
        words.add_note(note)
    return words


def _check_host() -> None:
    """Raise VmError where no image can be made or used."""
    if platform.machine() != "x86_64":
        raise VmError(f"the guest is an x86_64 machine, this is {platform.machine()}")
    missing = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    if missing:
        raise VmError(
            f"missing: {', '.join(missing)}; as root: apt-get install --no-install-recommends {' '.join(missing)}"
        )


def _drop_old(base: str) -> None:
    """Remove images that were not used for the longest time, unless somebody uses them at this moment."""
    directories = [entry.path for entry in os.scandir(base) if entry.is_dir()]
    directories.sort(key=lambda path: os.stat(path).st_mtime, reverse=True)
    for path in directories[KEPT:]:
        try:
            in_use = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        shutil.rmtree(path)
        os.close(in_use)


def get(*, force: bool = False) -> tuple[str, int]:
    """The image of this recipe, built when it is missing, and a descriptor that keeps it from being removed."""
    _check_host()
    base = cache()
    os.makedirs(base, exist_ok=True)
    lock = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    # Whoever builds has its own deadlines.
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        image = os.path.join(base, recipe())
        if force or not os.path.isdir(image):
            _build_into(image)
        os.utime(image)
        _drop_old(base)
        user = os.open(image, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(user, fcntl.LOCK_SH)
    finally:
        os.close(lock)
    return image, user


def _build_into(image: str) -> None:
    """Build beside and rename: a directory with the recipe's name is a whole image."""
    if os.geteuid() != 0:
        raise VmError("an image can only be built as root")
    began = time.monotonic()
    fresh = f"{image}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    os.mkdir(fresh)
    print(f"vm: building the guest's image, which takes minutes: {image}", file=sys.stderr, flush=True)
    try:
        _build(fresh)
        shutil.rmtree(image, ignore_errors=True)
        os.rename(fresh, image)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    print(f"vm: built in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

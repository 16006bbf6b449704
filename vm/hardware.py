"""What the guest is made of: the command line of QEMU. A change here needs a new image, because of the snapshots."""

from __future__ import annotations

import shlex
import subprocess

QEMU = "qemu-system-x86_64"
# Without cmpxchg16b: under QEMU 7.2 Linux 6.12 panics at once with it.
CPU = "max,cx16=off"
CPUS = 2
MEMORY_MB = 2048
# The disk that brings the caller's directory; the snapshot fixes its size.
SHARE_BYTES = 8 << 30


class VmError(Exception):
    """The machine could not do its part: what, and what to do."""


def tool(*argv: str, seconds: float = 60) -> None:
    """Run one of the programs that make disks; raises VmError with its words."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except FileNotFoundError as error:
        raise VmError(f"the program '{argv[0]}' is missing") from error
    except subprocess.TimeoutExpired as error:
        raise VmError(f"{argv[0]} takes longer than {seconds:.0f} s") from error
    if done.returncode != 0:
        raise VmError(f"{argv[0]} ended with status {done.returncode}: {done.stderr.strip()}")


def make_ext4(folder: str, image: str, size: int, *, root_owned: bool = False) -> None:
    """Write an ext4 disk with the folder's content, without mounting anything."""
    with open(image, "wb") as stream:
        stream.truncate(size)
    options = "assume_storage_prezeroed=1" + (",root_owner=0:0" if root_owned else "")
    tool(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", options),
        *("-d", folder, image),
        seconds=300,
    )


def root_drive(image: str, snapshot: str, *, making: bool) -> str:
    """The root disk as an argument of -drive; only what is written while a snapshot is made is kept."""
    disk = f"{image}/{snapshot}.qcow2"
    if making:
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "root.ext4", disk)
        return f"if=none,id=root,file={disk},format=qcow2,cache=unsafe"
    return f"if=none,id=root,file={disk},format=qcow2,snapshot=on"


def command_line(image: str, snapshot: str, place: str, *, making: bool, parameters: str) -> list[str]:
    """QEMU with the image's disk; its sockets, its console and the disk `share` are in `place`.

    Unless `making`, it waits for a job as the snapshot has it.
    """
    argv = [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU),
        *("-smp", str(CPUS), "-m", str(MEMORY_MB)),
        *("-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd"),
        *("-append", f"root=/dev/vda rw console=ttyS0 quiet panic=-1 {parameters}"),
        *("-serial", f"file:{place}/console", "-qmp", f"unix:{place}/qmp,server=on,wait=off"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,path={place}/agent,server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=vm.agent"),
        *("-drive", root_drive(image, snapshot, making=making), "-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"if=none,id=share,file={place}/share,format=raw,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=share,serial=share"),
    ]
    if not making:
        argv += ["-incoming", "exec:cat " + shlex.quote(f"{image}/{snapshot}.state")]
    return argv


def version() -> str:
    """QEMU's own word for its version: a snapshot belongs to the one that made it."""
    try:
        done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise VmError(f"{QEMU} is missing; as root: apt-get install qemu-system-x86 qemu-utils") from error
    if done.returncode != 0:
        raise VmError(f"{QEMU} --version ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.splitlines()[0]

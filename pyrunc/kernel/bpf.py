"""Device programs of cgroup v2. bpf(2)"""

from __future__ import annotations

from pyrunc._shim import ffi, lib
from pyrunc.errors import KernelError
from pyrunc.kernel.shim import check

TYPE_CHECKING = False


def device_attach(cgroup: int, program: bytes, path: str) -> None:
    """Attach struct bpf_insn[] to a cgroup v2 directory in place of what was there; `path` is the rules' JSON path."""
    log = ffi.new("char[]", 4096)
    answer = lib.bpf_device_attach(cgroup, ffi.from_buffer(program), len(program), log, 4096)
    if answer < 0:
        words = ffi.string(log).decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise KernelError("bpf", -answer, "BPF_CGROUP_DEVICE", path=path, hint=words or None)


def device_count(cgroup: int) -> int:
    """Return the number of device programs attached to a cgroup v2 directory itself. bpf(2) BPF_PROG_QUERY."""
    return check(lib.bpf_device_count(cgroup), "bpf", "BPF_PROG_QUERY")

"""PURE: capability names -> bit sets that the kernel accepts. capabilities(7), config.md "capabilities"."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrunc.spec.shapes import Capabilities

# In the order of their numbers, linux/capability.h.
NAMES: tuple[str, ...] = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
    "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
    "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
_BITS: dict[str, int] = {name: 1 << number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> tuple[int, list[str]]:
    """Return the bit set of `names`, and the names that are not capabilities."""
    bits = 0
    unknown = []
    for name in names:
        bit = _BITS.get(name)
        if bit is None:
            unknown.append(name)
        else:
            bits |= bit
    return bits, unknown


def names(bits: int) -> list[str]:
    """Return the names in a bit set, in the order of their numbers."""
    return [name for name, bit in _BITS.items() if bits & bit]


class Sets:
    """The five sets as bits for capset(2) and prctl(2); `warnings`: what was left out; `unknown`: unknown names."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted", "unknown", "warnings")

    def __init__(self) -> None:
        self.bounding = 0
        self.permitted = 0
        self.inheritable = 0
        self.effective = 0
        self.ambient = 0
        self.warnings: list[str] = []
        self.unknown: list[str] = []


def resolve(wanted: Capabilities, grantable: int) -> Sets:
    """Return the sets that a process can really get.

    config.md: a value that "cannot be mapped to a relevant kernel interface" or "cannot be granted" MUST be warned of
    and SHOULD NOT fail. What the kernel would refuse as a whole (effective outside permitted, inheritable outside
    bounding, ambient outside either) is cut to what it accepts, with a warning. An absent set is empty: inheritable
    stays empty unless configured (CVE-2022-29162).
    """
    result = Sets()
    bits: dict[str, int] = {}
    missing = 0
    lists = {
        "bounding": wanted.get("bounding"),
        "permitted": wanted.get("permitted"),
        "inheritable": wanted.get("inheritable"),
        "effective": wanted.get("effective"),
        "ambient": wanted.get("ambient"),
    }
    for kind, listed in lists.items():
        asked, strangers = mask(listed or ())
        result.unknown += [name for name in strangers if name not in result.unknown]
        missing |= asked & ~grantable
        bits[kind] = asked & grantable
    if result.unknown:
        result.warnings.append(f"ignoring unknown capabilities: {', '.join(result.unknown)}")
    if missing:
        result.warnings.append(
            f"ignoring capabilities that cannot be granted here: {', '.join(names(missing))}"
        )
    result.bounding = bits["bounding"]
    result.permitted = bits["permitted"]
    result.inheritable = _within(result, "inheritable", bits["inheritable"], result.bounding, "bounding")
    result.effective = _within(result, "effective", bits["effective"], result.permitted, "permitted")
    both = result.permitted & result.inheritable
    result.ambient = _within(result, "ambient", bits["ambient"], both, "permitted and inheritable")
    return result


def _within(result: Sets, kind: str, asked: int, limit: int, limit_name: str) -> int:
    if outside := asked & ~limit:
        left_out = ", ".join(names(outside))
        result.warnings.append(f"ignoring {kind} capabilities that are not {limit_name}: {left_out}")
    return asked & limit

"""PURE: the rules about `linux.resources` that hold on every host. config-linux.md, "Control groups".

What one version of control groups cannot express is refused by cgroups/resources.py, which relies on these.
"""

from __future__ import annotations

from pyrunc.config.rules.fail import fail, no_nul
from pyrunc.json_text.path import member, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.shapes import CPU, BlockIO, Memory, Resources

# Docker casts -1, its "not set", to an unsigned number.
_UNSET_SWAPPINESS = (1 << 64) - 1


def check(resources: Resources, path: str = "$.linux.resources", *, partial: bool = False) -> None:
    """Raise ConfigError for the first broken rule of resources.

    `partial`: fields that are not set keep their value (update), so an absent field means nothing.
    """
    for index, rule in enumerate(resources.get("devices") or ()):
        if not rule.get("access"):
            fail("device access cannot be empty", f"{path}.devices[{index}].access", "use rwm for all")
    if memory := resources.get("memory"):
        _memory(memory, f"{path}.memory", partial)
    if cpu := resources.get("cpu"):
        _cpu(cpu, f"{path}.cpu")
    if block := resources.get("blockIO"):
        _block_io(block, f"{path}.blockIO")
    for name, limits in (resources.get("rdma") or {}).items():
        if "hcaHandles" not in limits and "hcaObjects" not in limits:
            fail(f"{quote(name)} needs hcaHandles or hcaObjects", member(f"{path}.rdma", name))
    for key in resources.get("unified") or {}:
        _unified(key, member(f"{path}.unified", key))


def _unified(key: str, path: str) -> None:
    no_nul(key, path)
    if "/" in key:
        fail(f"unified resource {quote(key)} must be a file name (no slashes)", path)
    controller, dot, _ = key.partition(".")
    if not controller or not dot:
        fail(f"unified resource {quote(key)} must be in the form CONTROLLER.PARAMETER", path)


def _memory(memory: Memory, path: str, partial: bool) -> None:
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if swap > 0 and not (partial and "limit" not in memory):
        if limit <= 0:
            fail("unable to set swap limit without memory limit", f"{path}.swap", "set memory.limit as well")
        if swap < limit:
            fail(
                f"memory+swap limit should be >= memory limit, but {swap} is less than {limit}",
                f"{path}.swap",
                "swap is the sum of memory and swap; -1 is unlimited",
            )
    swappiness = memory.get("swappiness", 0)
    if swappiness > 100 and swappiness != _UNSET_SWAPPINESS:
        fail(f"{swappiness} is greater than 100, the largest allowed", f"{path}.swappiness")


def _cpu(cpu: CPU, path: str) -> None:
    quota, burst = cpu.get("quota", 0), cpu.get("burst", 0)
    if 0 < quota < burst:
        fail(f"burst {burst} is greater than quota {quota}", f"{path}.burst")


def _block_io(block: BlockIO, path: str) -> None:
    for key in ("weight", "leafWeight"):
        _weight(block.get(key, 0), f"{path}.{key}")  # type: ignore[arg-type]  # both are integers
    for index, device in enumerate(block.get("weightDevice") or ()):
        where = f"{path}.weightDevice[{index}]"
        if "weight" not in device and "leafWeight" not in device:
            # config-linux.md: "You MUST specify at least one of `weight` or `leafWeight` in a given entry".
            fail("at least one of weight and leafWeight is required", where)
        _weight(device.get("weight", 0), f"{where}.weight")
        _weight(device.get("leafWeight", 0), f"{where}.leafWeight")


def _weight(value: int, path: str) -> None:
    # 0 is how engines write "not set".
    if value and not 10 <= value <= 1000:
        fail(f"{value} is no weight: 10 to 1000, or 0 for unset", path)

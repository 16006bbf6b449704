"""PURE: the rules of the configuration that a schema cannot express: between fields, about paths, names and numbers.

check() is for create, run, restore and explain; exec needs the part about `process` only, update that about resources.
Each raises ConfigError at the first problem. Messages that other programs match on are exactly runc's. What only the
kernel can decide is left to it.
"""

from __future__ import annotations

from pyrunc.config.rules import linux as rules_linux
from pyrunc.config.rules import mounts as rules_mounts
from pyrunc.config.rules import process as rules_process
from pyrunc.config.rules.fail import absolute, fail, no_nul, no_nuls
from pyrunc.plan.numbers import HOOK_KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.host_facts import HostFacts
    from pyrunc.spec.shapes import Hook, Spec

# Linux allows 64 bytes in either name, uts_namespaces(7).
_UTS_NAME_MAX = 64


def check(spec: Spec, host: HostFacts | None = None) -> None:
    """Raise ConfigError for the first broken rule of a configuration whose form config.load has checked.

    Without `host` the rules that compare with it are left out.
    """
    _version(spec["ociVersion"])
    no_nul(spec["root"]["path"], "$.root.path")
    linux = spec.get("linux") or {}
    spaces = rules_linux.namespaces(linux, host)
    _names(spec, spaces)
    if "" in (spec.get("annotations") or {}):
        fail("an annotation must have a name", "$.annotations")
    if process := spec.get("process"):
        rules_process.check(process)
    for index, mount in enumerate(spec.get("mounts") or ()):
        rules_mounts.check(mount, f"$.mounts[{index}]", linux, spaces, host)
    rules_linux.check(spec, spaces, host)
    _hooks(spec)


def _version(version: str) -> None:
    # SemVer: nothing is known about another major version.
    if version[:2] != "1.":
        fail(
            f'version "{version}" is not supported',
            "$.ociVersion",
            "pyrunc implements version 1.3 of the runtime specification",
        )


def _names(spec: Spec, spaces: dict[str, str]) -> None:
    for key, value in (("hostname", spec.get("hostname")), ("domainname", spec.get("domainname"))):
        if not value:
            continue
        if "uts" not in spaces:
            fail(
                f"unable to set {key} without a private UTS namespace",
                f"$.{key}",
                'add {"type": "uts"} to linux.namespaces',
            )
        if len(value.encode()) > _UTS_NAME_MAX:
            fail(f"longer than {_UTS_NAME_MAX} bytes", f"$.{key}")
        no_nul(value, f"$.{key}")


def _hooks(spec: Spec) -> None:
    hooks = spec.get("hooks")
    if not hooks:
        return
    for kind in HOOK_KINDS:
        listed: list[Hook] = hooks.get(kind) or []  # type: ignore[assignment]  # the six hold the same
        for index, hook in enumerate(listed):
            path = f"$.hooks.{kind}[{index}]"
            absolute(hook["path"], f"{path}.path", "the path of a hook")
            no_nuls(hook.get("args") or [], f"{path}.args")
            no_nuls(hook.get("env") or [], f"{path}.env")

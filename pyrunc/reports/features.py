"""The verb `features`: what this runtime supports, from its own tables. features.md and features-linux.md.

"Supports" means: is not refused as unknown. The document does not depend on what the host can do (features.md).
"""

from __future__ import annotations

import importlib.util
import json

from pyrunc import RUNC_LEVEL, SPEC_VERSION, __version__
from pyrunc.cgroups.resources import TABLE as RESOURCES
from pyrunc.cgroups.systemd import unit
from pyrunc.criu import request as criu_request
from pyrunc.kernel import seccomp as kernel_seccomp
from pyrunc.plan import namespaces as plan_namespaces
from pyrunc.plan import numbers
from pyrunc.seccomp import compile as seccomp
from pyrunc.spec import capabilities, mount_options
from pyrunc.spec.namespaces import NAMESPACES
from pyrunc.spec.process import MEMORY_FLAGS, MEMORY_MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    Json = dict[str, object]

_OLDEST_SPEC = "1.0.0"


def _part(name: str) -> bool:
    """Return whether there is code for this kind of cgroups."""
    return importlib.util.find_spec(f"pyrunc.cgroups.{name}") is not None


def _unsafe_annotations() -> list[str]:
    """Return the prefixes of the annotations that change what the runtime does."""
    criu = criu_request.CONFIG_ANNOTATION
    return [unit.ANNOTATION, plan_namespaces.KEEP_GROUPS, mount_options.CONTEXT_ANNOTATION, criu]


def _seccomp() -> Json:
    known = seccomp.supported()
    if not known.enabled:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": sorted(known.actions),
        "operators": sorted(known.operators),
        "archs": sorted(known.archs),
        "knownFlags": sorted(known.known_flags),
        "supportedFlags": sorted(known.supported_flags),
    }


def _linux() -> Json:
    resources = {row[0] for row in RESOURCES}
    return {
        "namespaces": sorted(NAMESPACES),
        "capabilities": list(capabilities.NAMES),
        "cgroup": {
            "v1": _part("v1"),
            "v2": _part("v2"),
            "systemd": _part("systemd"),
            "systemdUser": _part("systemd"),
            "rdma": "rdma{}" in resources,
        },
        "seccomp": _seccomp(),
        "apparmor": {"enabled": True},
        "selinux": {"enabled": True},
        "intelRdt": dict.fromkeys(("enabled", "schemata", "monitoring"), True),
        "memoryPolicy": {
            "modes": sorted(MEMORY_MODES),
            "flags": sorted(MEMORY_FLAGS),
        },
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
    }


def document() -> Json:
    """Return the features document."""
    annotations = {
        "org.opencontainers.runc.version": f"{RUNC_LEVEL}+pyrunc.{__version__}",
        "org.opencontainers.runc.checkpoint.enabled": "true",
        "io.github.pyrunc.version": __version__,
    }
    libseccomp = kernel_seccomp.version()
    if libseccomp:
        annotations["io.github.seccomp.libseccomp.version"] = libseccomp
    return {
        "ociVersionMin": _OLDEST_SPEC,
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(numbers.HOOK_KINDS),
        "mountOptions": list(mount_options.OPTIONS),
        "linux": _linux(),
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": _unsafe_annotations(),
    }


def render() -> str:
    """Return the document with runc's indentation."""
    return json.dumps(document(), indent=4) + "\n"

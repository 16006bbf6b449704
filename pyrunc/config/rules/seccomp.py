"""PURE: the rules about `linux.seccomp` that a schema cannot express. config-linux.md, "Seccomp".

seccomp/profile.py relies on them; what the kernel or libseccomp lacks is refused there.
"""

from __future__ import annotations

from pyrunc.config.rules.fail import fail, no_nul, no_nuls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.shapes import Seccomp, SeccompRule

# The largest value: libseccomp refuses the kernel's MAX_ERRNO, 4095; a tracer gets 16 bits.
_LARGEST = {"SCMP_ACT_ERRNO": 4094, "SCMP_ACT_TRACE": 0xFFFF}
# init sends the listener when the filter is already active: a notification for a call that sending needs would wait for
# its own receiver. init uses the second one; agents know that the first one is not allowed.
_NOT_NOTIFIABLE = ("write", "sendmsg")


def check(seccomp: Seccomp, path: str = "$.linux.seccomp") -> None:
    """Raise ConfigError for the first broken rule."""
    default = seccomp["defaultAction"]
    if default == "SCMP_ACT_NOTIFY":
        fail("SCMP_ACT_NOTIFY cannot be used as default action", f"{path}.defaultAction")
    _errno_ret(default, seccomp.get("defaultErrnoRet"), f"{path}.defaultErrnoRet")
    notifies = False
    for index, rule in enumerate(seccomp.get("syscalls") or ()):
        _rule(rule, f"{path}.syscalls[{index}]")
        notifies = notifies or rule["action"] == "SCMP_ACT_NOTIFY"
    listener = seccomp.get("listenerPath")
    if notifies and not listener:
        fail("seccomp listenerPath is not set", f"{path}.listenerPath", "SCMP_ACT_NOTIFY needs a listener")
    if seccomp.get("listenerMetadata") and not listener:
        # config-linux.md, listenerMetadata: "This field MUST NOT be set if `listenerPath` is not set."
        fail("seccomp listenerMetadata is set without listenerPath", f"{path}.listenerMetadata")
    no_nul(listener or "", f"{path}.listenerPath")


def _rule(rule: SeccompRule, path: str) -> None:
    names = rule["names"]
    if "" in names:
        fail("empty string is not a valid syscall", f"{path}.names[{names.index('')}]")
    no_nuls(names, f"{path}.names")
    if rule["action"] == "SCMP_ACT_NOTIFY":
        for call in _NOT_NOTIFIABLE:
            if call in names:
                where = f"{path}.names[{names.index(call)}]"
                fail(f"SCMP_ACT_NOTIFY cannot be used for the {call} syscall", where)
    _errno_ret(rule["action"], rule.get("errnoRet"), f"{path}.errnoRet")


def _errno_ret(action: str, value: int | None, path: str) -> None:
    if value is None:
        return
    largest = _LARGEST.get(action)
    if largest is None:
        # config-linux.md, errnoRet: an action without one MUST make the runtime fail; runc and youki ignore it.
        fail(
            f"{action} has no errno to return", path, f"leave it out: only {' and '.join(_LARGEST)} have one"
        )
    if value > largest:
        fail(f"{value} is greater than {largest}, the largest errno", path)

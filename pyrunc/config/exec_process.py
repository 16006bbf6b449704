"""PURE: exec's options -> an OCI process object, and the checks that need no container."""

from __future__ import annotations

from pyrunc.errors import UsageError
from pyrunc.spec.id_mappings import ID_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrunc.requests import ExecOptions
    from pyrunc.spec.shapes import Capabilities, Process, User

# 4294967295 is -1, which means "leave unchanged" to setresuid(2).


def _id(text: str, what: str, user: str) -> int:
    # Nothing but digits: a lax number parser made crun run "name" as root (CVE-2026-30892).
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"bad {what} in --user '{user}'", hint="give --user UID or UID:GID, in digits")
    if len(text) > 10 or int(text) > ID_MAX:
        raise UsageError(f"bad {what} in --user '{user}': at most {ID_MAX} is possible")
    return int(text)


def user(text: str) -> tuple[int, int | None]:
    """`UID` or `UID:GID` as numbers. Raise UsageError for all that is not digits."""
    uid, colon, gid = text.partition(":")
    return _id(uid, "uid", text), _id(gid, "gid", text) if colon else None


def sub_cgroups(given: Iterable[str]) -> list[tuple[str, str]]:
    """Return --cgroup as (controller, path) pairs: one `PATH`, or any number of `CONTROLLER[,CONTROLLER]:PATH`.

    A path alone has the controller "". Raise UsageError.
    """
    listed = list(given)
    found: dict[str, str] = {}
    for item in listed:
        names, colon, path = item.partition(":")
        if not colon:
            if len(listed) > 1:
                raise UsageError(f"invalid --cgroup argument: {item} (missing <controller>: prefix)")
            return [("", item)]
        for name in names.split(","):
            if not name:
                raise UsageError(f"invalid --cgroup argument: {item} (empty <controller> prefix)")
            if name in found:
                raise UsageError(f"invalid --cgroup argument(s): controller {name} specified multiple times")
            found[name] = path
    return list(found.items())


def check(options: ExecOptions) -> None:
    """Raise UsageError if the options cannot become a process object."""
    if not options.args:
        raise UsageError(
            "args must not be empty", hint="give the command after the container id, or use --process"
        )
    if options.cwd and not options.cwd.startswith("/"):
        raise UsageError(f"Cwd must be an absolute path, not '{options.cwd}'")
    for item in options.env:
        name, equals, _ = item.partition("=")
        if not equals:
            raise UsageError(
                f"invalid environment variable: missing '=' in '{item}'", hint="give --env NAME=VALUE"
            )
        if not name:
            raise UsageError(f"invalid environment variable: name cannot be empty in '{item}'")
    if options.user:
        user(options.user)
    for gid in options.additional_gids:
        if not 0 <= gid <= ID_MAX:
            raise UsageError(f"additional-gids must be a positive number up to {ID_MAX}, not {gid}")


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def _add_capabilities(before: Capabilities, names: Sequence[str]) -> Capabilities:
    """Return the sets with `names` added.

    They are never added to the inheritable set, which outlives a change of user by execve (CVE-2022-29162). Ambient
    ones must be inheritable, so they are added only if the configuration has them there. capabilities(7).
    """
    more = [_capability(name) for name in names]
    after = before.copy()
    after["bounding"] = [*before.get("bounding", ()), *more]
    after["effective"] = [*before.get("effective", ()), *more]
    after["permitted"] = [*before.get("permitted", ()), *more]
    if before.get("inheritable"):
        after["ambient"] = [*before.get("ambient", ()), *more]
    return after


def build(process: Process, options: ExecOptions) -> Process:
    """Return a copy of the container's own process object, changed by the options.

    `terminal` is not copied: only --tty asks for one. Raise UsageError as `check` does.
    """
    check(options)
    built = process.copy()
    built["args"] = list(options.args)
    built["terminal"] = options.tty
    if options.cwd:
        built["cwd"] = options.cwd
    if options.env:
        built["env"] = [*process.get("env", ()), *options.env]
    if options.apparmor:
        built["apparmorProfile"] = options.apparmor
    if options.process_label:
        built["selinuxLabel"] = options.process_label
    if options.no_new_privs is not None:
        built["noNewPrivileges"] = options.no_new_privs
    if options.cap:
        built["capabilities"] = _add_capabilities(process.get("capabilities") or {}, options.cap)
    if options.user or options.additional_gids:
        nobody_said: User = {"uid": 0, "gid": 0}
        who = process.get("user", nobody_said).copy()
        if options.user:
            uid, gid = user(options.user)
            who["uid"] = uid
            if gid is not None:
                who["gid"] = gid
        if options.additional_gids:
            who["additionalGids"] = [*who.get("additionalGids", ()), *options.additional_gids]
        built["user"] = who
    return built

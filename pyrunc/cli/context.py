"""The global options as a Context: the root, the log, rootless or not."""

from __future__ import annotations

import os

from pyrunc.cli import parse
from pyrunc.errors import KernelError, UsageError, absolute
from pyrunc.requests import DEFAULT_ROOT, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    Value = bool | int | str | list[str] | list[int]
    # long name, short name or "", kind, help. Kinds: switch, text, path (made absolute), number, texts and numbers
    # (both repeatable). An option without help is accepted but not shown.
    Option = tuple[str, str, str, str]


def default_root() -> str:
    """Return the state directory if --root is not given: below $XDG_RUNTIME_DIR for everyone but the host's root.

    Root in a user namespace counts as an ordinary user, unless $USER is root: rootless engines run us that way, from
    several environments that must agree without an option. csrc/command/options.c decides the same for the verbs it
    answers.
    """
    environment = os.environ
    directory = environment.get("XDG_RUNTIME_DIR", "")
    if not directory:
        return DEFAULT_ROOT
    if os.geteuid() == 0:
        if environment.get("USER") == "root":
            return DEFAULT_ROOT
        from pyrunc.host import gather

        if not gather.in_user_namespace():
            return DEFAULT_ROOT
    return directory + "/pyrunc"


def make_default_root(root: str) -> None:
    """Make the default root if it is below $XDG_RUNTIME_DIR; any other is made by the first create.

    The sticky bit keeps the XDG base directory specification's clean-up away. Raise KernelError.
    """
    if root == DEFAULT_ROOT:
        return
    from pyrunc.container import directory as state_directory

    try:
        state_directory.make_root(root, 0o700)
        os.chmod(root, 0o1700)
    except (OSError, KernelError) as error:
        hint = "$XDG_RUNTIME_DIR must be a directory that you can write to"
        raise KernelError("mkdir", error.errno or 0, root, hint=hint) from error


def _rootless(text: str) -> bool | None:
    if text.lower() in ("", "auto"):
        return None
    if text not in parse._BOOLS:
        raise UsageError(
            f'invalid value "{text}" for flag -rootless: parse error', hint="give true, false or auto"
        )
    return parse._BOOLS[text]


def from_options(parsed: parse.Parsed) -> Context:
    """Return the global options as the runtime takes them. Raise UsageError if a value is invalid."""
    explicit = "root" in parsed.given
    root = absolute(parsed.text("root")) if explicit else default_root()
    # An empty value, "..", and "//" (which abspath keeps) all may end up there.
    if explicit and (root in ("/", "//") or not parsed.text("root")):
        raise UsageError(
            "the --root directory must not be /", hint=f"leave out --root to use {default_root()}"
        )
    manager = parsed.text("cgroup-manager") or "cgroupfs"
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise UsageError(
            f'invalid value "{manager}" for flag -cgroup-manager', hint="give cgroupfs, systemd or disabled"
        )
    return Context(
        root,
        root_explicit=explicit,
        systemd_cgroup=parsed.switch("systemd-cgroup"),
        cgroup_manager=manager,
        rootless=_rootless(parsed.text("rootless")),
    )

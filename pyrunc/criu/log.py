"""PURE: the cause of a failure from CRIU's log, in one line, with a hint for the known causes."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# "(00.040969)     12: Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds"
_ERROR = re.compile(r"Error \((?P<where>[^)]+)\): (?P<message>.+)")
_LONGEST = 300
# Not a failure: logged every time by a root without CAP_SYS_RESOURCE.
_HARMLESS = re.compile(r"rlimit: Can't setup RLIMIT_NOFILE for self")
# Patterns of CRIU's messages, and a hint for each. Some messages differ between versions of CRIU.
_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"vdso|vDSO",
        "this CRIU does not understand the vdso of this host's kernel, as `criu check` shows: use a newer CRIU",
    ),
    (
        r"ip6?tables-restore|[Ii]ptables",
        "CRIU locks the network with iptables: install it, or give --network-lock nftables or skip",
    ),
    (
        r"built without libnftables",
        "this CRIU cannot lock the network with nftables: give --network-lock iptables",
    ),
    (
        r"--tcp-established|Connected TCP socket|Can't dump (half|in-flight|established)",
        "--tcp-established saves open TCP connections, --tcp-skip-in-flight leaves out those that are being made",
    ),
    (r"--tcp-close", "give --tcp-close, or --tcp-established to restore the connections"),
    (
        r"Unix socket \d+ not found",
        "a socket came in from outside as standard input or output: CRIU cannot save those",
    ),
    (
        r"has bad mode|Illegal seek",
        "standard input, output or error was a file when it was saved: give restore a file of the same mode",
    ),
    (
        r"Abort restore of existing cgroups",
        "the mode strict wants cgroups that do not exist, and ours are made before: use soft",
    ),
    (
        r"Unable to open .*\.img: Permission denied",
        "in a user namespace CRIU reads the images' directory as root of the container: chmod 711 it",
    ),
    (
        r"[Ee]xternal (stream |dgram |unix )?socket|--ext-unix-sk|[Ee]xternal stream",
        "--ext-unix-sk allows unix sockets whose other end is outside the container",
    ),
    (
        r"file locks are hold|--file-locks",
        "--file-locks saves them, unless a process outside holds one, too",
    ),
    (
        r"--shell-job|session leader|dangling (tty|connection)|[Ff]ound (dangling|inherited) tty|slave peer",
        "--shell-job allows a terminal that belongs to a process outside the container",
    ),
    (
        r"Can't dump ghost file .* increase limit|--ghost-limit",
        "a deleted file that is still open: 'ghost-limit 1G' in /etc/criu/runc.conf allows a larger one",
    ),
    (r"--link-remap|can't remap|Can't create link remap", "--link-remap saves deleted files that are open"),
    (
        r"Can't lookup mount=.* path=|doesn't have a proper root mount|unreachable sharing",
        "a file or mount came in from outside, and not by the configuration",
    ),
    (
        r"No mapping for .* mountpoint|external mount",
        "the bundle needs the same bind mounts as the one the image was made of",
    ),
    (
        r"[Pp]id \d+ do(es)? not match expected|Can't (fork|clone) .*[Ff]ile exists",
        "a process id of the image is in use: the container has no pid namespace of its own",
    ),
    (
        r"external (netns|pidns|net namespace)|Can't open .*ns/(net|pid)",
        "the namespace that the configuration names by its path must be there",
    ),
    (
        r"[Nn]ested mount namespaces|more than one (pid|user|mount) namespace",
        "a process of the container has made namespaces of its own",
    ),
    (r"Can't open file .*: No such file|File .* has bad size", "the root file system is not as it was"),
    (r"CAP_|capabilit|[Oo]peration not permitted", "CRIU needs to be root of the host"),
    (
        r"dirty track|mem_track|pagemap",
        "this kernel does not track changed pages (CONFIG_MEM_SOFT_DIRTY): pre-dumps are not possible",
    ),
    (r"[Uu]serfault|uffd|lazy", "the userfaultfd of this kernel is too old for lazy pages"),
    (
        r"[Cc]pu .*(feature|mismatch|not compatible|incompatible)",
        "the image was made on another kind of CPU",
    ),
    (r"seccomp", "a process has a seccomp filter that the kernel does not let CRIU read"),
    (r"No space left", "the images need more space"),
)
_KNOWN = tuple((re.compile(pattern), hint) for pattern, hint in _CAUSES)


def _clean(message: str) -> str:
    """Escape the text: names of the container's files may contain anything."""
    text = "".join(letter if letter.isprintable() else "?" for letter in message.strip())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def errors(lines: Sequence[str]) -> list[str]:
    """Return the error messages of a log, without time, process and place in CRIU's source."""
    return [_clean(found["message"]) for found in map(_ERROR.search, lines) if found]


def explain(lines: Sequence[str]) -> tuple[str, str | None]:
    """Return (CRIU's message about the cause, a hint); "" if the log has no error, None if the cause is not known.

    The first error is the cause, the others are consequences. A hint may also come from a later, known one.
    """
    found = [message for message in errors(lines) if not _HARMLESS.search(message)]
    for message in found:
        for pattern, hint in _KNOWN:
            if pattern.search(message):
                return message, hint
    return (found[0] if found else ""), None

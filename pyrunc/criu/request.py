"""PURE: the options of checkpoint and restore -> CRIU's criu_opts."""

from __future__ import annotations

import os

from pyrunc.criu import rpc
from pyrunc.errors import ConfigError, UsageError
from pyrunc.json_text.path import member, quote
from pyrunc.spec.namespaces import CLONE_NEWNET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrunc.criu.rpc import Message
    from pyrunc.requests import CheckpointOptions, CriuOptions, RestoreOptions

CONFIG_ANNOTATION = "org.criu.config"
CONFIG_TOP = "/etc/"
# The first that exists is used. Its options take precedence over ours.
CONFIG_FILES = ("/etc/criu/pyrunc.conf", "/etc/criu/runc.conf")
# criu(8) --verbosity: 4 is debug; below that a log does not show the cause.
_LOG_LEVEL = 4


def _chosen(value: str, values: Mapping[str, int], option: str) -> int:
    if value not in values:
        hint = "give " + " or ".join(name for name in values if name)
        raise UsageError(f'invalid {option} value: "{value}"', hint=hint)
    return values[value]


def _empty_namespaces(options: CriuOptions) -> int:
    for kind in options.empty_ns:
        if kind != "network":
            raise UsageError(f'namespace "{kind}" is not supported', hint="--empty-ns takes network only")
    # Devices and addresses belong to the engine, which makes them anew, as for runc.
    return CLONE_NEWNET


def page_server(text: str) -> Message:
    """Return criu_page_server_info for ADDRESS:PORT ([ADDRESS] for IPv6). Raise UsageError if it is invalid."""
    address, colon, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    if bracketed:
        address = address[1:-1]
    if not colon or not address or not port or (":" in address and not bracketed):
        raise UsageError("Use --page-server ADDRESS:PORT to specify page server")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 1 << 16):
        raise UsageError(f'Invalid port number: "{port}"')
    return {"address": address, "port": int(port)}


def _common(options: CriuOptions, log_file: str) -> Message:
    found: Message = {
        "log_level": _LOG_LEVEL,
        "log_file": log_file,
        "notify_scripts": 1,
        "orphan_pts_master": 1,
        "empty_ns": _empty_namespaces(options),
        "manage_cgroups_mode": _chosen(options.manage_cgroups_mode, rpc.CGROUP_MODES, "manage-cgroups-mode"),
        "shell_job": options.shell_job,
        "ext_unix_sk": options.ext_unix_sk,
        "tcp_established": options.tcp_established,
        "file_locks": options.file_locks,
        "auto_dedup": options.auto_dedup,
        "lazy_pages": options.lazy_pages,
    }
    if options.network_lock:
        found["network_lock"] = _chosen(options.network_lock, rpc.NETWORK_LOCKS, "network-lock")
    return found


def dump(options: CheckpointOptions, log_file: str) -> Message:
    """Return criu_opts for the options of checkpoint. Raise UsageError if a value is invalid."""
    found = _common(options, log_file)
    found["leave_running"] = options.leave_running
    found["tcp_skip_in_flight"] = options.tcp_skip_in_flight
    found["link_remap"] = options.link_remap
    if options.page_server:
        found["ps"] = page_server(options.page_server)
    if options.parent_path:
        found["parent_img"] = options.parent_path
        found["track_mem"] = 1
    return found


def restore(options: RestoreOptions, log_file: str) -> Message:
    """Return criu_opts for the options of restore. Raise UsageError if a value is invalid."""
    found = _common(options, log_file)
    found["evasive_devices"] = 1
    found["rst_sibling"] = 1
    found["tcp_close"] = options.tcp_close
    if options.lsm_profile:
        found["lsm_profile"] = options.lsm_profile
    if options.lsm_mount_context:
        found["lsm_mount_context"] = options.lsm_mount_context
    return found


def config_files(annotations: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return CRIU's configuration file, the first that exists; none if the annotation is "".

    It can name programs, which run as we do, and users who set annotations may have files in an image or a volume:
    only what the host's administrator configures is accepted. Raise ConfigError.
    """
    if annotations is None or CONFIG_ANNOTATION not in annotations:
        return CONFIG_FILES
    path = annotations[CONFIG_ANNOTATION]
    if path and (not path.startswith(CONFIG_TOP) or os.path.normpath(path) != path or "\0" in path):
        raise refused_config(f"{quote(path)} is no path below {CONFIG_TOP}")
    return (path,) if path else ()


def refused_config(why: str) -> ConfigError:
    """Return the error for a configuration file of CRIU that is refused."""
    return ConfigError(
        f"cannot be CRIU's configuration file: {why}",
        path=member("$.annotations", CONFIG_ANNOTATION),
        hint=f"its options run programs; a file below {CONFIG_TOP} that only root can change is taken",
    )

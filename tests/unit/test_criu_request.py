"""The options of checkpoint and restore in CRIU's words, and what is refused."""

from __future__ import annotations

import pytest

from pyrunc.criu import request as criu_request
from pyrunc.errors import UsageError
from pyrunc.requests import CheckpointOptions, RestoreOptions

NEWNET = 0x40000000


def test_a_dump_without_options() -> None:
    """Network is always left to the engine, and CRIU chooses how to treat cgroups."""
    opts = criu_request.dump(CheckpointOptions(), "dump.log")
    assert opts["log_file"] == "dump.log"
    assert (opts["empty_ns"], opts["manage_cgroups_mode"], opts["orphan_pts_master"]) == (NEWNET, 6, 1)
    assert not {"ps", "parent_img", "track_mem", "network_lock"} & set(opts)
    assert not any(opts[name] for name in ("leave_running", "tcp_established", "ext_unix_sk", "shell_job"))


def test_all_options_of_a_dump() -> None:
    """Each arrives under CRIU's name."""
    opts = criu_request.dump(
        CheckpointOptions(
            leave_running=True,
            tcp_established=True,
            tcp_skip_in_flight=True,
            ext_unix_sk=True,
            shell_job=True,
            file_locks=True,
            link_remap=True,
            lazy_pages=True,
            auto_dedup=True,
            empty_ns=["network"],
            manage_cgroups_mode="strict",
            network_lock="nftables",
            page_server="192.0.2.1:9876",
            parent_path="../one",
        ),
        "dump.log",
    )
    switches = ("leave_running", "tcp_established", "tcp_skip_in_flight", "ext_unix_sk", "shell_job")
    for name in (*switches, "file_locks", "link_remap", "lazy_pages", "auto_dedup", "track_mem"):
        assert opts[name], name
    assert opts["ps"] == {"address": "192.0.2.1", "port": 9876}
    assert (opts["parent_img"], opts["network_lock"], opts["manage_cgroups_mode"]) == ("../one", 2, 5)


def test_all_options_of_a_restore() -> None:
    """The container's init is to be a child of whoever restores."""
    opts = criu_request.restore(
        RestoreOptions(
            tcp_close=True, lsm_profile="selinux:x", lsm_mount_context="y", manage_cgroups_mode="ignore"
        ),
        "restore.log",
    )
    assert (opts["rst_sibling"], opts["evasive_devices"], opts["tcp_close"]) == (1, 1, True)
    assert (opts["lsm_profile"], opts["lsm_mount_context"], opts["manage_cgroups_mode"]) == (
        "selinux:x",
        "y",
        0,
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("a:1", ("a", 1)), ("host.example:65535", ("host.example", 65535)), ("[fe80::1]:27", ("fe80::1", 27))],
)
def test_page_servers(text: str, wanted: tuple[str, int]) -> None:
    """ADDRESS:PORT, as Go splits them."""
    assert criu_request.page_server(text) == {"address": wanted[0], "port": wanted[1]}


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "fe80::1:27", "a:x", "a:0", "a:65536", "a:-1", "a:1_0"]
)
def test_no_page_servers(text: str) -> None:
    """What is none is said to be none."""
    with pytest.raises(UsageError, match="Use --page-server ADDRESS:PORT|Invalid port number"):
        criu_request.page_server(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CheckpointOptions(manage_cgroups_mode="loose"), 'invalid manage-cgroups-mode value: "loose"'),
        (CheckpointOptions(network_lock="none"), 'invalid network-lock value: "none"'),
        (CheckpointOptions(empty_ns=["network", "pid"]), 'namespace "pid" is not supported'),
    ],
)
def test_refusals(options: CheckpointOptions, message: str) -> None:
    """Values that CRIU would only complain about in a log."""
    with pytest.raises(UsageError) as caught:
        criu_request.dump(options, "dump.log")
    assert caught.value.message == message


def test_configuration_file() -> None:
    """By annotation; annotated as nothing there is none; else the usual ones."""
    assert criu_request.config_files({"org.criu.config": "/etc/x"}) == ("/etc/x",)
    assert criu_request.config_files({"org.criu.config": ""}) == ()
    assert (
        criu_request.config_files({"a": "b"}) == criu_request.config_files(None) == criu_request.CONFIG_FILES
    )

"""The bytes of CRIU's RPC: as a protobuf compiler makes them, and hostile ones."""

from __future__ import annotations

import pytest

from pyrunc.criu import rpc
from pyrunc.errors import InternalError, StateError


@pytest.mark.parametrize(
    ("name", "message", "wanted"),
    [
        ("criu_req", {"type": 10}, "080a"),
        ("criu_req", {"type": 6, "notify_success": True}, "08061801"),
        ("criu_req", {"type": 6, "notify_success": False}, "08061800"),
        ("criu_opts", {"images_dir_fd": 7, "pid": 300}, "080710ac02"),
        # Field numbers of two bytes, an empty text, a repeated one.
        ("criu_opts", {"external": ["mnt[/a]:b", ""]}, "aa02096d6e745b2f615d3a62aa0200"),
        ("criu_opts", {"external": []}, ""),
        ("criu_opts", {"inherit_fd": [{"key": "k", "fd": 1}]}, "da01050a016b1001"),
        # int32 is sign-extended to 64 bits.
        ("criu_opts", {"status_fd": -1}, "8803ffffffffffffffffff01"),
        ("criu_opts", {"empty_ns": 0x40000000}, "b0028080808004"),
        # A path that is no UTF-8 comes through as it is.
        ("criu_opts", {"root": "/\udcff"}, "6a022fff"),
    ],
)
def test_bytes(name: str, message: rpc.Message, wanted: str) -> None:
    """Known messages have known bytes."""
    assert rpc.encode(name, message).hex() == wanted


def test_there_and_back() -> None:
    """What is encoded is decoded, negative numbers and messages in messages as well."""
    message: rpc.Message = {
        "type": 1,
        "success": 1,
        "cr_errno": -22,
        "cr_errmsg": "no",
        "notify": {"script": "post-restore", "pid": 1 << 20},
        "version": {"major_number": 3, "minor_number": 17, "sublevel": 1},
    }
    assert rpc.decode("criu_resp", rpc.encode("criu_resp", message)) == message


def test_unknown_fields_are_passed_over() -> None:
    """A newer CRIU says more: varints, texts, fixed sizes."""
    more = "f87f05fa7f0161f97f0102030405060708fd7f01020304"
    assert rpc.decode("criu_resp", bytes.fromhex("0801" + more + "1001")) == {"type": 1, "success": 1}


@pytest.mark.parametrize(
    "data",
    [
        *("08", "0880", "0f", "0b01", "2a", "2affffffffff"),
        # A length beyond the end, and beyond any memory; a number of more bytes than it can have.
        *("4a7f6e6f", "4affffffffffffffffff016e6f", "08" + "ff" * 60000, "09ff"),
    ],
    ids=lambda data: data[:16],
)
def test_what_is_no_message(data: str) -> None:
    """Cut or malformed bytes are refused in words, not by a traceback."""
    with pytest.raises(StateError, match="no message of its protocol"):
        rpc.decode("criu_resp", bytes.fromhex(data))


def test_no_other_values() -> None:
    """A mistake of ours does not become a message."""
    with pytest.raises(InternalError):
        rpc.encode("criu_req", {"type": [[1]]})


def test_field_numbers_are_used_once() -> None:
    """The table names every field of a message by a number of its own, and messages that there are."""
    for fields in rpc.MESSAGES.values():
        numbers = [number for number, _ in fields.values()]
        assert len(set(numbers)) == len(numbers)
        assert {kind for _, kind in fields.values()} <= {"int", "text", *rpc.MESSAGES}

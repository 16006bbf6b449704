"""PURE: the messages of CRIU's RPC protocol, and their bytes. https://criu.org/RPC, CRIU's images/rpc.proto.

The bytes are those of protocol buffers, of which these messages need little: varints and texts, one field number each.
CRIU's own Python package is on no package index, and a protobuf compiler's output would be longer than this module.
"""

from __future__ import annotations

from pyrunc.errors import InternalError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Value = int | str | list["Value"] | dict[str, "Value"]
    Message = dict[str, Value]

# enum criu_req_type
DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 4, 6, 9, 10
TYPES = {
    DUMP: "DUMP",
    RESTORE: "RESTORE",
    PRE_DUMP: "PRE_DUMP",
    NOTIFY: "NOTIFY",
    FEATURE_CHECK: "FEATURE_CHECK",
    VERSION: "VERSION",
}
# enum criu_cg_mode, by the names of the options and of runc; "" is CRIU's default
CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}
# enum criu_network_lock_method
NETWORK_LOCKS = {"iptables": 1, "nftables": 2, "skip": 3}

# message -> field -> (number, kind). Kinds: int (also bool and enums), text, or the name of a message; a list of values
# makes a field repeated.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "criu_req": {
        "type": (1, "int"),
        "opts": (2, "criu_opts"),
        "notify_success": (3, "int"),
        "features": (5, "criu_features"),
    },
    "criu_resp": {
        "type": (1, "int"),
        "success": (2, "int"),
        "restore": (4, "criu_restore_resp"),
        "notify": (5, "criu_notify"),
        "cr_errno": (7, "int"),
        "features": (8, "criu_features"),
        "cr_errmsg": (9, "text"),
        "version": (10, "criu_version"),
    },
    "criu_opts": {
        "images_dir_fd": (1, "int"),
        "pid": (2, "int"),
        "leave_running": (3, "int"),
        "ext_unix_sk": (4, "int"),
        "tcp_established": (5, "int"),
        "evasive_devices": (6, "int"),
        "shell_job": (7, "int"),
        "file_locks": (8, "int"),
        "log_level": (9, "int"),
        "log_file": (10, "text"),
        "ps": (11, "criu_page_server_info"),
        "notify_scripts": (12, "int"),
        "root": (13, "text"),
        "parent_img": (14, "text"),
        "track_mem": (15, "int"),
        "auto_dedup": (16, "int"),
        "work_dir_fd": (17, "int"),
        "link_remap": (18, "int"),
        "cg_root": (25, "cgroup_root"),
        "rst_sibling": (26, "int"),
        "inherit_fd": (27, "inherit_fd"),
        "manage_cgroups_mode": (34, "int"),
        "external": (37, "text"),
        "empty_ns": (38, "int"),
        "join_ns": (39, "join_namespace"),
        "freeze_cgroup": (44, "text"),
        "tcp_skip_in_flight": (46, "int"),
        "lazy_pages": (48, "int"),
        "status_fd": (49, "int"),
        "orphan_pts_master": (50, "int"),
        "config_file": (51, "text"),
        "tcp_close": (52, "int"),
        "lsm_profile": (53, "text"),
        "lsm_mount_context": (63, "text"),
        "network_lock": (64, "int"),
    },
    "criu_features": {"mem_track": (1, "int"), "lazy_pages": (2, "int")},
    "criu_notify": {"script": (1, "text"), "pid": (2, "int")},
    "criu_page_server_info": {"address": (1, "text"), "port": (2, "int")},
    "criu_restore_resp": {"pid": (1, "int")},
    "criu_version": {"major_number": (1, "int"), "minor_number": (2, "int"), "sublevel": (4, "int")},
    "cgroup_root": {"ctrl": (1, "text"), "path": (2, "text")},
    "inherit_fd": {"key": (1, "text"), "fd": (2, "int")},
    "join_namespace": {"ns": (1, "text"), "ns_file": (2, "text")},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WORD = (1 << 64) - 1


def _varint(number: int) -> bytes:
    number &= _WORD  # a negative one is sign-extended
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _field(number: int, kind: str, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    if isinstance(value, str):
        content = value.encode("utf-8", "surrogateescape")
    elif isinstance(value, dict):
        content = encode(kind, value)
    else:
        raise InternalError(f"no CRIU message has {value!r} in a field")
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def encode(name: str, message: Message) -> bytes:
    """Return the bytes of a message by its name in MESSAGES."""
    parts = []
    for field, value in message.items():
        number, kind = MESSAGES[name][field]
        parts += [_field(number, kind, item) for item in (value if isinstance(value, list) else [value])]
    return b"".join(parts)


def _take(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _WORD, at
        shift += 7
    raise IndexError


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def decode(name: str, data: bytes) -> Message:
    """Return the fields of a message that MESSAGES has, the last value of each. Raise StateError if it is invalid."""
    fields = {number: (field, kind) for field, (number, kind) in MESSAGES[name].items()}
    found: Message = {}
    at = 0
    try:
        while at < len(data):
            key, at = _take(data, at)
            field, kind = fields.get(key >> 3, ("", ""))
            if key & 7 == _VARINT:
                number, at = _take(data, at)
                if kind == "int":
                    found[field] = _signed(number)
                continue
            size, at = _take(data, at) if key & 7 == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[key & 7], at)
            if size > len(data) - at:
                raise IndexError
            content = data[at : at + size]
            at += size
            if kind == "text":
                found[field] = content.decode("utf-8", "replace")
            elif kind in MESSAGES:
                found[field] = decode(kind, content)
    except (IndexError, KeyError) as error:
        raise StateError("criu failed: its answer is no message of its protocol") from error
    return found


def text(message: Message, field: str) -> str:
    """Return a text of a decoded message, "" if it is absent."""
    value = message.get(field)
    return value if isinstance(value, str) else ""


def number(message: Message, field: str) -> int:
    """Return a number of a decoded message, 0 if it is absent."""
    value = message.get(field)
    return value if isinstance(value, int) else 0


def part(message: Message, field: str) -> Message:
    """Return a message inside a decoded message, empty if it is absent."""
    value = message.get(field)
    return value if isinstance(value, dict) else {}

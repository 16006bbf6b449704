"""linux.netDevices: network devices of the runtime's namespace move into the container's. config-linux.md.

    Devices(fd of the container's namespace)  ->  .move(...)  ->  .close(), or .move_back() and .close() on failure

The only importer of pyroute2, and itself only imported where a configuration has the property. pyroute2 knows the
messages; the sockets are ours, as its own cannot be made in another namespace without a child that runs Python. Raise
ConfigError and KernelError.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import ExitStack
from functools import partial

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from pyrunc.errors import ConfigError, KernelError
from pyrunc.json_text.path import member, quote
from pyrunc.kernel import process as kernel_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Protocol

    from pyrunc.spec.shapes import NetDevice

    Attribute = tuple[str, object]

    class Message(Protocol):
        """The part of pyroute2's messages that is used here."""

        data: bytearray

        def __setitem__(self, key: str, value: object) -> None: ...

        def __getitem__(self, key: str) -> int: ...

        def get_attr(self, name: str) -> object:
            """The value of the first attribute of that name."""

        def encode(self) -> None:
            """Encode the fields."""

        def decode(self) -> None:
            """Decode the fields."""


# rtnetlink(7), netlink(7)
_NEWLINK, _GETLINK = 16, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_DUMP_INTERRUPTED = 0x10
_HAS_TLVS = 0x200  # NLM_F_ACK_TLVS
_CAP_ACK, _EXT_ACK, _STRICT_CHECK = 10, 11, 12
_SOL_NETLINK = 270
_HEADER = struct.Struct("=IHHII")
_ERROR_SIZE = (
    4 + _HEADER.size
)  # struct nlmsgerr: errno, and with CAP_ACK no more than the header of the request
_SECONDS = 10
_DUMP_TRIES = 10

_INET6 = int(socket.AF_INET6)
_IFF_UP = 1
_LOOPBACK = 1  # the first device of a network namespace
_PERMANENT = 0x80
_UNIVERSE = 0
_BY_KERNEL = 2  # RTPROT_KERNEL: the kernel makes these again by itself
_CLONED = 0x200
_LOCAL_TABLE = 255
# Flags of an address that are restored; the others are set by the kernel.
_ADDRESS_PARTS = (
    "IFA_ADDRESS",
    "IFA_LOCAL",
    "IFA_BROADCAST",
    "IFA_ANYCAST",
    "IFA_FLAGS",
    "IFA_RT_PRIORITY",
    "IFA_CACHEINFO",
)
_INDEX_TRIES = 64


class _RefusedError(Exception):
    """The kernel's error, with its extended message if there is one."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(words)
        self.errno = number
        self.words = words


class _Netlink:
    """A route netlink socket: one request at a time. Its namespace is the one it was made in."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sequence = 0
        sock.settimeout(_SECONDS)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            sock.setsockopt(_SOL_NETLINK, option, 1)

    def ask(self, message: Message, kind: int, flags: int = 0) -> list[bytes]:
        """Send a message of pyroute2's and return the bodies of what comes back. Raise _RefusedError, OSError."""
        message.encode()
        return self.ask_raw(bytes(message.data)[_HEADER.size :], kind, flags)

    def ask_raw(self, body: bytes, kind: int, flags: int = 0) -> list[bytes]:
        """Do the same with the bytes after the header."""
        answers: list[bytes] = []
        for _ in range(_DUMP_TRIES):
            self._sequence += 1
            length = _HEADER.size + len(body)
            header = _HEADER.pack(length, kind, _REQUEST | _ACK | flags, self._sequence, 0)
            self._socket.send(header + body)
            answers, whole = self._answers()
            if whole:
                break
        return answers

    def _answers(self) -> tuple[list[bytes], bool]:
        answers: list[bytes] = []
        whole = True
        while True:
            data = self._socket.recv(1 << 18)
            while data:
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & _DUMP_INTERRUPTED
                if kind in (_ERROR, _DONE):
                    number = -int(struct.unpack_from("=i", body)[0]) if body else 0
                    if number:
                        raise _RefusedError(number, _words(body[_ERROR_SIZE:]) if flags & _HAS_TLVS else "")
                    return answers, whole
                answers.append(body)

    # --- links ----

    def link(self, *, name: str = "", index: int = 0) -> Message | None:
        """Return a device, or None if there is none."""
        question = ifinfmsg()
        question["index"] = index
        if name:
            question["attrs"] = [("IFLA_IFNAME", name)]
        try:
            answers = self.ask(question, _GETLINK)
        except _RefusedError as refused:
            if refused.errno in (errno.ENODEV, errno.EINVAL):
                return None
            raise
        return _decoded(ifinfmsg, answers[0]) if answers else None

    def indexes(self) -> set[int]:
        """Return the index numbers of the devices in this namespace."""
        return {_decoded(ifinfmsg, body)["index"] for body in self.ask(ifinfmsg(), _GETLINK, _DUMP)}

    def change(self, index: int, attributes: list[Attribute], *, up: bool = False) -> None:
        """Set attributes of a device and bring it up."""
        message = ifinfmsg()
        message["index"] = index
        message["attrs"] = attributes
        if up:
            message["flags"] = message["change"] = _IFF_UP
        self.ask(message, _NEWLINK)

    # --- what is on a link ----

    def addresses(self, index: int) -> list[Message]:
        question = ifaddrmsg()
        question["index"] = index
        found = [_decoded(ifaddrmsg, body) for body in self.ask(question, _GETADDR, _DUMP)]
        # The kernel puts a new IPv6 address before the others, so adding them in reverse keeps the order.
        return [
            *(one for one in found if one["family"] != _INET6),
            *(one for one in reversed(found) if one["family"] == _INET6),
        ]

    def add_address(self, index: int, address: Message, label: str | None) -> None:
        message = ifaddrmsg()
        for key in ("family", "prefixlen", "flags", "scope"):
            message[key] = address[key]
        message["index"] = index
        attributes = [(name, address.get_attr(name)) for name in _ADDRESS_PARTS]
        if label:
            attributes.append(("IFA_LABEL", label))
        message["attrs"] = [pair for pair in attributes if pair[1] is not None]
        self.ask(message, _NEWADDR, _CREATE)

    def routes(self, index: int) -> list[bytes]:
        """Return the routes over a device that the kernel did not make itself, as the kernel writes them."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            question = rtmsg()
            question["family"] = family
            question["attrs"] = [("RTA_OIF", index)]
            for body in self.ask(question, _GETROUTE, _DUMP):
                route = _decoded(rtmsg, body)
                ours = route["proto"] != _BY_KERNEL and route["table"] != _LOCAL_TABLE
                if ours and not route["flags"] & _CLONED and route.get_attr("RTA_OIF") == index:
                    found.append(body)
        return found


def _words(tlvs: bytes) -> str:
    while len(tlvs) >= 4:
        length, kind = struct.unpack_from("=HH", tlvs)
        if kind & 0x3FFF == 1:  # NLMSGERR_ATTR_MSG
            return tlvs[4:length].rstrip(b"\0").decode("utf-8", "replace")
        tlvs = tlvs[max(4, (length + 3) & ~3) :]
    return ""


def _decoded(kind: type[Message], body: bytes) -> Message:
    # pyroute2 needs the header, but reads only its length.
    message: Message = kind(_HEADER.pack(_HEADER.size + len(body), 0, 0, 0, 0) + body)  # type: ignore[call-arg]
    message.decode()
    return message


def _relabelled(label: object, old: str, new: str) -> str | None:
    """An IPv4 address is labelled with its device's name, or that and `:` and more."""
    if not isinstance(label, str) or not (label == old or label.startswith(old + ":")):
        return label if isinstance(label, str) else None
    label = new + label[len(old) :]
    return label if len(label) < 16 else new


class _Moved:
    """A device as it was before the move, and where it is now: `inside` is its number in the container."""

    __slots__ = ("addresses", "index", "inside", "master", "name", "now", "routes", "up")

    def __init__(self, name: str, link: Message, outside: _Netlink) -> None:
        self.name = name
        self.index = link["index"]
        self.up = bool(link["flags"] & _IFF_UP)
        self.master = link.get_attr("IFLA_MASTER")
        self.addresses = outside.addresses(self.index)
        self.routes = outside.routes(self.index)
        self.inside = 0
        self.now = ""


class Devices:
    """The devices of a container being created. `netns` is its network namespace, which lives until close()."""

    __slots__ = ("_inside", "_moved", "_netns", "_open", "_outside", "_own")

    def __init__(self, pid: int) -> None:
        self._moved: list[_Moved] = []
        self._open = ExitStack()
        try:
            self._own = self._namespace("/proc/self/ns/net")
            self._netns = self._namespace(f"/proc/{pid}/ns/net")
            self._outside = self._socket(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM))
            self._inside = self._socket(socket.socket(fileno=kernel_process.netlink_in(self._netns)))
        except BaseException:
            self.close()
            raise

    def _namespace(self, path: str) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError("open", error.errno or 0, path) from error
        self._open.callback(os.close, fd)
        return fd

    def _socket(self, sock: socket.socket) -> _Netlink:
        return _Netlink(self._open.enter_context(sock))

    def close(self) -> None:
        """Close the namespace; without processes it ends now, and virtual devices with it."""
        self._open.close()

    def loopback_up(self) -> None:
        """Bring up lo, as in a container that is created. Raise KernelError."""
        self._inside.change(_LOOPBACK, [], up=True)

    def move(self, wanted: Mapping[str, NetDevice], path: str = "$.linux.netDevices") -> None:
        """Move, rename and set up these devices. Raise ConfigError, KernelError; move_back() undoes what was done."""
        if os.path.samestat(os.fstat(self._own), os.fstat(self._netns)):
            raise ConfigError(
                "unable to move network devices without a NET namespace",
                path=path,
                hint="the path of the network namespace leads to the runtime's own",
            )
        for name, device in wanted.items():
            self._move_one(name, device.get("name") or name, member(path, name))

    def _move_one(self, name: str, wanted: str, path: str) -> None:
        step = "RTM_GETLINK"
        try:
            link = self._outside.link(name=name)
            if link is None:
                raise ConfigError(
                    f"network device {quote(name)} does not exist",
                    path=path,
                    hint="it is looked for in the network namespace of the runtime",
                )
            if "%" not in wanted and self._inside.link(name=wanted):
                raise _taken(wanted, path)
            step = "RTM_GETADDR"
            device = _Moved(name, link, self._outside)
            step = "RTM_NEWLINK"
            self._enter(device, wanted)
            step = "RTM_GETLINK"
            there = self._inside.link(index=device.inside)
            if there is None:
                raise _RefusedError(errno.ENODEV, "")
            device.now = str(there.get_attr("IFLA_IFNAME"))
            if "%" not in wanted and device.now != wanted:
                raise _taken(wanted, path)
            step = "RTM_NEWADDR"
            self._address(device)
            step = "RTM_NEWLINK"
            self._inside.change(device.inside, [], up=True)
        except _RefusedError as refused:
            if refused.errno == errno.EEXIST and step == "RTM_NEWLINK":
                raise _taken(wanted, path) from refused
            raise KernelError(step, refused.errno, name, path=path, hint=refused.words or None) from refused
        except OSError as error:
            raise KernelError(step, error.errno or errno.ETIMEDOUT, name, path=path) from error

    def _enter(self, device: _Moved, wanted: str) -> None:
        """Move and rename in one request. We choose the device's number, as a template does not tell its new name."""
        taken = self._inside.indexes()
        number = device.index if device.index not in taken else max(taken) + 1
        for left in range(_INDEX_TRIES, -1, -1):
            # Before the request: one that fails halfway has moved the device already, under its old name.
            device.inside = number
            self._moved.append(device)
            try:
                self._outside.change(
                    device.index,
                    [("IFLA_NET_NS_FD", self._netns), ("IFLA_IFNAME", wanted), ("IFLA_NEW_IFINDEX", number)],
                )
            except _RefusedError as refused:
                if self._outside.link(index=device.index) is None:
                    raise
                self._moved.pop()
                if refused.errno != errno.EBUSY or not left or number not in self._inside.indexes():
                    raise
                number += 1
            else:
                return

    def _address(self, device: _Moved) -> None:
        """config-linux.md: "all permanent IP addresses [...] of any family with global scope"."""
        for address in device.addresses:
            flags = address.get_attr("IFA_FLAGS")
            flags = flags if isinstance(flags, int) else address["flags"]
            if flags & _PERMANENT and address["scope"] == _UNIVERSE:
                label = _relabelled(address.get_attr("IFA_LABEL"), device.name, device.now)
                self._inside.add_address(device.inside, address, label)

    def move_back(self) -> None:
        """Move every device back, with its addresses, routes and bridge. Raise KernelError.

        Only for a create that fails. A container's devices stay with its namespace. config-linux.md, Network Devices.
        """
        problems: list[KernelError] = []
        while self._moved:
            device = self._moved.pop()
            try:
                self._leave(device)
            except (_RefusedError, OSError) as error:
                problems.append(KernelError("RTM_NEWLINK", error.errno or errno.ETIMEDOUT, device.name))
        if problems:
            raise problems[0]

    def _leave(self, device: _Moved) -> None:
        self._inside.change(
            device.inside,
            [
                ("IFLA_NET_NS_FD", self._own),
                ("IFLA_IFNAME", device.name),
                ("IFLA_NEW_IFINDEX", device.index),
            ],
        )
        refused: _RefusedError | None = None
        for redo in self._redo(device):
            try:
                redo()
            except _RefusedError as problem:
                refused = refused or problem
        if refused:
            raise refused

    def _redo(self, device: _Moved) -> Iterator[Callable[[], object]]:
        """Return what the kernel drops when a device moves, in the order in which it must be restored."""
        outside, index = self._outside, device.index
        if device.master is not None:
            yield partial(outside.change, index, [("IFLA_MASTER", device.master)])
        for address in device.addresses:
            label = address.get_attr("IFA_LABEL")
            yield partial(outside.add_address, index, address, label if isinstance(label, str) else None)
        if device.up:
            yield partial(outside.change, index, [], up=True)
        for route in device.routes:
            yield partial(outside.ask_raw, route, _NEWROUTE, _CREATE)


def _taken(name: str, path: str) -> ConfigError:
    return ConfigError(
        f"network device name {quote(name)} is already used in the container",
        path=path,
        hint='give another "name", or one that ends in %d',
    )

"""Descriptors for other programs' sockets: terminals, pidfds, seccomp listeners."""

from __future__ import annotations

import array
import errno
import json
import os
import pty
import socket
import threading
from typing import TYPE_CHECKING

import pytest

import pyrunc
from pyrunc.errors import KernelError
from pyrunc.host import console
from pyrunc.launch import conversation

if TYPE_CHECKING:
    from pathlib import Path

    from pyrunc.spec.shapes import Seccomp, Spec


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_PATH)
    listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    listener.listen()
    listener.settimeout(10)
    return listener


def receive(listener: socket.socket) -> tuple[bytes, list[int]]:
    """All bytes and all descriptors of one connection, which must end."""
    connection, _ = listener.accept()
    content, fds = b"", array.array("i")
    with connection:
        connection.settimeout(10)
        while True:
            chunk, control, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(16))
            for _, _, rights in control:
                assert not content, "descriptors come with the first message"
                fds.frombytes(rights)
            if not chunk:
                return content, list(fds)
            content += chunk


def send(profile: Seccomp, fd: int, document: bytes, pid: int) -> None:
    spec: Spec = {"ociVersion": pyrunc.SPEC_VERSION, "linux": {"seccomp": profile}}
    conversation.send_seccomp_listener(spec, fd, document, pid)


@pytest.mark.parametrize("folder", ["x", "long" * 40])
def test_send_listener(tmp_path: Path, folder: str) -> None:
    """The agent gets one document and the descriptor, then the end; also where the path is longer than an address."""
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "agent"
    reader, writer = os.pipe()
    wanted: Seccomp = {"listenerPath": str(path), "listenerMetadata": "meta"}
    with listen(path) as listener:
        send(wanted, writer, b'{"id":"x"}', 42)
        content, fds = receive(listener)
    assert json.loads(content) == {
        "ociVersion": pyrunc.SPEC_VERSION,
        "fds": ["seccompFd"],
        "pid": 42,
        "metadata": "meta",
        "state": {"id": "x"},
    }
    os.close(writer)
    (received,) = fds
    os.write(received, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(received)
    os.close(reader)


def test_send_listener_large(tmp_path: Path) -> None:
    """A state larger than the socket's buffer arrives whole."""
    big = b'{"annotations":{"x":"' + b"y" * 2_000_000 + b'"}}'
    received: list[tuple[bytes, list[int]]] = []
    with listen(tmp_path / "agent") as listener:
        thread = threading.Thread(target=lambda: received.append(receive(listener)))
        thread.start()
        send({"listenerPath": str(tmp_path / "agent")}, 0, big, 1)
        thread.join(10)
    ((content, fds),) = received
    assert json.loads(content)["state"] == json.loads(big)
    for fd in fds:
        os.close(fd)
    assert len(fds) == 1


def test_send_listener_failure(tmp_path: Path) -> None:
    """No agent is an error with the place of its path."""
    with pytest.raises(KernelError) as caught:
        send({"listenerPath": str(tmp_path / "agent")}, 0, b"{}", 1)
    assert (caught.value.syscall, caught.value.errno) == ("connect", errno.ENOENT)
    assert caught.value.path == "$.linux.seccomp.listenerPath"


def test_no_console_socket(tmp_path: Path) -> None:
    """Where an option names the socket, the option is what the error talks about: there is no place for it."""
    (tmp_path / "plain").touch()
    for name, number in (("none", errno.ENOENT), ("plain", errno.ECONNREFUSED)):
        with pytest.raises(KernelError) as caught:
            console.send_fd(str(tmp_path / name), 0, b"/dev/ptmx", "--console-socket")
        assert (caught.value.syscall, caught.value.errno, caught.value.path) == ("connect", number, None)
        assert caught.value.hint == "--console-socket wants a listening socket"


def test_a_master_is_one() -> None:
    master, slave = pty.openpty()
    assert console.is_master(master)
    assert not console.is_master(slave)
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/", "/proc/self/status"])
def test_anything_else_is_no_master(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    assert not console.is_master(fd)
    os.close(fd)

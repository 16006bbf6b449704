"""Callers that hand down what nobody should inherit: put before a container's command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containers import Container

LEAKED = range(3, 21)
# leak FILE FD,FD,... COMMAND...: files, host directories and sockets as these descriptors, the same once more from 100.
LEAK = """
import _socket, fcntl, os, sys
sources = [os.open(sys.argv[1], os.O_RDWR), os.open("/", os.O_RDONLY), _socket.socket()]
copies = [fcntl.fcntl(source, fcntl.F_DUPFD, 100) for source in sources]
os.closerange(3, 100)
for number, fd in enumerate(int(word) for word in sys.argv[2].split(",") if word):
    os.dup2(copies[number % 3], fd)
os.execvp(sys.argv[3], sys.argv[3:])
"""
# A caller that left its process in a state nobody should inherit.
UNTIDY = """
import ctypes, os, signal, sys
for number in set(range(1, 65)) - {9, 19, 32, 33}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
ctypes.CDLL(None).prctl(1, signal.SIGUSR1, 0, 0, 0)
with open("/proc/self/oom_score_adj", "w") as stream:
    stream.write("123")
os.umask(0o077)
os.environ["SECRET"] = "of the caller"
os.execvp(sys.argv[1], sys.argv[1:])
"""


def leaking(one: Container, fds: Sequence[int]) -> Container:
    """Itself, its commands run by a caller that leaks these descriptors."""
    secret = os.path.join(os.path.dirname(one.error_file), "secret")
    with open(secret, "w", encoding="ascii") as stream:
        stream.write("secret")
    words = ",".join(str(fd) for fd in fds)
    one.command = [support.PYTHON, "-I", "-S", "-c", LEAK, secret, words, *one.command]
    return one

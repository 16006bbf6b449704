"""The guest's side: wait for one job on the virtio port, run it, send back what it writes and how it ends.

The job is a line of JSON, made by job.py of the host. What goes back are frames: a kind byte, a big-endian length of 4
bytes, the data. Kinds: r ready (with systemd's state), o and e output, t tar of the results, x exit status.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import selectors
import struct
import subprocess
import time
import traceback
from typing import TypedDict

PORT = "/dev/virtio-ports/vm.agent"
RESULTS = "/out"
RNDRESEEDCRNG = 0x5207
BLKFLSBUF = 0x1261


class Job(TypedDict):
    """What the host wants: a bash command line, as a user, in a directory, with these variables.

    `share`: where the disk that the host has brought is mounted; `out`: send what is in RESULTS afterwards.
    """

    command: str
    user: str
    cwd: str
    env: dict[str, str]
    share: str
    out: bool
    time: float
    seed: str


def send(port: int, kind: bytes, data: bytes = b"") -> None:
    """One frame."""
    data = struct.pack(">cI", kind, len(data)) + data
    while data:
        data = data[os.write(port, data) :]


def receive(port: int) -> Job:
    """Wait for the job."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(port, 65536)
        if not chunk:
            # The host is not connected yet; there is no event to wait for.
            time.sleep(0.02)
        line += chunk
    job: Job = json.loads(line)
    return job


def mount_share(path: str) -> None:
    """Mount the host's disk."""
    device = "/dev/disk/by-id/virtio-share"
    fd = os.open(device, os.O_RDONLY)
    # Its content is newer than the snapshot that this guest came from.
    fcntl.ioctl(fd, BLKFLSBUF)
    os.close(fd)
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "ext4", device, path], check=True)


def command_line(job: Job, env: dict[str, str]) -> list[str]:
    """The command; for an ordinary user through the user's own manager, so that it sits in a delegated cgroup."""
    argv = ["/bin/bash", "-c", job["command"]]
    if not job["user"]:
        return argv
    entry = pwd.getpwnam(job["user"])
    runtime = f"/run/user/{entry.pw_uid}"
    env.update(
        HOME=entry.pw_dir,
        USER=entry.pw_name,
        LOGNAME=entry.pw_name,
        XDG_RUNTIME_DIR=runtime,
        DBUS_SESSION_BUS_ADDRESS=f"unix:path={runtime}/bus",
    )
    return [
        *("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups", "--"),
        *("systemd-run", "--user", "--quiet", "--pipe", "--wait", "--collect", "--same-dir"),
        *("--property=Delegate=yes", *(f"--setenv={name}" for name in env), "--", *argv),
    ]


def forward(port: int, process: subprocess.Popen[bytes]) -> int:
    """Send on what it writes until it ends; its status."""
    with selectors.DefaultSelector() as selector:
        for stream, kind in ((process.stdout, b"o"), (process.stderr, b"e")):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, kind)
        while selector.get_map():
            events = selector.select(0.2)
            if not events and process.poll() is not None:
                # A background child still holds a pipe: not waited for.
                break
            for key, _ in events:
                data = os.read(key.fd, 65536)
                if data:
                    send(port, key.data, data)
                else:
                    selector.unregister(key.fileobj)
    return process.wait()


def prepare(job: Job) -> None:
    """What a guest restored from a snapshot lacks: the time, random numbers of its own, the host's disk."""
    time.clock_settime(time.CLOCK_REALTIME, job["time"])
    with open("/dev/urandom", "wb") as stream:
        stream.write(bytes.fromhex(job["seed"]))
        stream.flush()
        fcntl.ioctl(stream, RNDRESEEDCRNG)
    mount_share(job["share"])
    os.makedirs(RESULTS, exist_ok=True)
    os.chmod(RESULTS, 0o1777)


def run(job: Job, port: int) -> int:
    """The whole job; its exit status as a shell has it."""
    prepare(job)
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    } | job["env"]
    process = subprocess.Popen(
        command_line(job, env),
        cwd=job["cwd"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    status = forward(port, process)
    if job["out"]:
        tar = subprocess.Popen(["tar", "-C", RESULTS, "-c", "."], stdout=subprocess.PIPE)
        if tar.stdout is not None:
            while data := tar.stdout.read(1 << 20):
                send(port, b"t", data)
        tar.wait()
    return 128 - status if status < 0 else status


def main() -> None:
    """One job; then the host ends the machine."""
    port = os.open(PORT, os.O_RDWR)
    state = subprocess.run(
        ["systemctl", "is-system-running", "--wait"], stdout=subprocess.PIPE, check=False
    ).stdout
    # The last units are still settling, and a snapshot is taken next.
    time.sleep(1)
    send(port, b"r", state)
    job = receive(port)
    try:
        status = run(job, port)
    except Exception:  # noqa: BLE001 - whatever it is, the host must hear of it
        send(port, b"e", b"vm-agent: " + traceback.format_exc().encode())
        status = 125
    send(port, b"x", str(status).encode())
    # For a host that has gone.
    time.sleep(60)
    subprocess.run(["systemctl", "poweroff", "--force"], check=False)


if __name__ == "__main__":
    main()

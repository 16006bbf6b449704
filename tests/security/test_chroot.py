"""Callers whose root is not the root of their mount namespace: builders, CI and installers live in chroots.

A container made there must not get the host's `/` as the root of its mount namespace: chroot(2) with a step up,
setns(2) on the own namespace, `exec` and `mounts add` all lead to that one.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

import faults
import support

if TYPE_CHECKING:
    import pathlib

    from containers import Bundle, BundleFactory, ContainerFactory

pytestmark = pytest.mark.root

# In a mount namespace of its own; $0 is a directory for the chroot, "$@" the command. `plain` is no mount point.
_BEGIN = "set -e; mount --make-rprivate /; mkdir -p $0; "
_PLAIN = (
    "mount -t tmpfs none $0; mkdir $0/root; touch $0/root/.of-the-chroot; cd /; for name in *; do"
    ' if [ -L "$name" ]; then cp -P "$name" $0/root; elif [ -d "$name" ]; then'
    ' mkdir "$0/root/$name"; mount --rbind "$name" "$0/root/$name"; fi; done; '
)
SCRIPTS = {
    "none": _BEGIN + 'exec "$@"',
    "mounted": _BEGIN + 'mount --rbind / $0; exec chroot $0 "$@"',
    "unshare": _BEGIN + 'mount --rbind / $0; exec unshare -R $0 "$@"',
    "plain": _BEGIN + _PLAIN + 'exec chroot $0/root "$@"',
    # What "/" leads to for those who enter the namespace later, for us it is still what is below.
    "over": _BEGIN + 'mount --bind / /; exec "$@"',
}
KINDS = pytest.mark.parametrize("kind", SCRIPTS)
PIVOTS = pytest.mark.parametrize("options", [[], ["--no-pivot"]], ids=["pivot", "no-pivot"])
EPERM = "1"


def command(kind: str, scratch: str, script: str = "") -> list[str]:
    """pyrunc as called from such a root."""
    place = os.path.join(scratch, "chroot")
    return ["unshare", "--mount", "sh", "-c", script or SCRIPTS[kind], place, support.PYRUNC]


@pytest.fixture
def breakout(tmp_path: pathlib.Path, bundle: BundleFactory) -> Bundle:
    """A bundle with the program; what it looks for is a file of the host."""
    made = bundle("probe")
    shutil.copy(faults.program("breakout", tmp_path), os.path.join(made.rootfs, "bin/breakout"))
    return made.args("/bin/breakout", os.path.join(made.path, "config.json"))


def with_capabilities(what: Bundle, *names: str) -> Bundle:
    for kind in ("bounding", "effective", "permitted"):
        what.list_of("process", "capabilities", kind).extend(names)
    return what


def ways(result: support.Result) -> dict[str, str]:
    return dict(result.ok().facts().pairs)


@KINDS
@PIVOTS
def test_default_capabilities(
    container: ContainerFactory, breakout: Bundle, scratch: str, kind: str, options: list[str]
) -> None:
    """chroot(2) is all that the default ones allow."""
    one = container(breakout, command=command(kind, scratch))
    assert ways(one.run(*options)) == {"chroot": "inside", "setns": EPERM, "umount": EPERM}


@KINDS
def test_with_cap_sys_admin(container: ContainerFactory, breakout: Bundle, scratch: str, kind: str) -> None:
    """Nothing of the host's tree is left below the root, either."""
    with_capabilities(breakout, "CAP_SYS_ADMIN")
    found = ways(container(breakout, command=command(kind, scratch)).run())
    assert (found["chroot"], found["setns"]) == ("inside", "inside")
    assert found["umount"] != "outside"


@KINDS
def test_setns_without_pivot(container: ContainerFactory, breakout: Bundle, scratch: str, kind: str) -> None:
    """--no-pivot leaves the host's tree below the root: what CAP_SYS_ADMIN can unmount is known to lead there."""
    with_capabilities(breakout, "CAP_SYS_ADMIN")
    found = ways(container(breakout, command=command(kind, scratch)).run("--no-pivot"))
    assert (found["chroot"], found["setns"]) == ("inside", "inside")


@KINDS
@PIVOTS
def test_exec_and_mounts(
    container: ContainerFactory, breakout: Bundle, scratch: str, kind: str, options: list[str]
) -> None:
    """Both join the container's mount namespace; from inside and from outside of the chroot."""
    marker = str(breakout.at("process", "args", 1))
    one = container(breakout.probe("pause"), command=command(kind, scratch)).up(*options)
    outside = container(breakout, name=one.id)
    mount = json.dumps([{"destination": "/added/by/us", "type": "tmpfs", "source": "tmpfs"}])
    for caller in (one, outside):
        inside = sorted(os.listdir(breakout.rootfs))
        assert sorted(caller.exec("/bin/ls", "-A", "/").ok().out.split()) == inside
        assert ways(caller.exec("/bin/breakout", marker))["chroot"] == "inside"
    for caller in (one, outside):
        caller.pyrunc("mounts", "add", one.id, "-", stdin=mount).ok()
        assert stat.S_ISDIR(os.stat(os.path.join(breakout.rootfs, "added/by/us")).st_mode)
        assert " /added/by/us " in one.exec("/bin/cat", "/proc/self/mountinfo").ok().out
        caller.pyrunc("mounts", "remove", one.id, "-", stdin=mount).ok()
    assert not os.path.lexists("/added")


def test_hooks_run_in_the_callers_root(
    container: ContainerFactory, bundle: BundleFactory, scratch: str
) -> None:
    """config.md: the path of a createContainer hook is the runtime's; a startContainer hook's is the container's."""
    target = bundle("probe").probe("ids")
    log = os.path.join(scratch, "hooks")
    words = f"test -e /.of-the-chroot && pwd > {log}"
    target.mapping("hooks")["createContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", words]}]
    target.mapping("hooks")["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "test -e /bin/probe"]}
    ]
    container(target, command=command("plain", scratch)).run().ok()
    with open(log, encoding="utf-8") as stream:
        assert stream.read() == "/\n"


@pytest.mark.parametrize("kind", ["none", "mounted", "plain", "over"])
@pytest.mark.parametrize("propagation", ["", "shared", "rshared"])
@PIVOTS
def test_no_mount_gets_out(
    container: ContainerFactory,
    bundle: BundleFactory,
    scratch: str,
    kind: str,
    propagation: str,
    options: list[str],
) -> None:
    """All mounts of the caller are shared; afterwards it has those that it had before."""
    # The runtime in the chroot; compared in the namespace, which has all of it.
    prepare, _, call = SCRIPTS[kind].rpartition("exec ")
    look = "cut -d' ' -f1-6 /proc/self/mountinfo"
    proc = "mkdir $0.tmp; mount -t tmpfs none $0.tmp; mkdir $0.tmp/proc; mount -t proc proc $0.tmp/proc"
    prepare += f"{proc}; mount --make-rshared /; {look} >$0.before"
    script = f"{prepare}; {call}; {look} | cmp - $0.before"
    target = bundle("probe").probe("mount", "tmpfs", "/tmp")
    with_capabilities(target, "CAP_SYS_ADMIN")
    if propagation:
        target.mapping("linux")["rootfsPropagation"] = propagation
    result = container(target, command=command(kind, scratch, script)).run(*options)
    assert result.ok().out == "mount 0\n"


@pytest.mark.parametrize("propagation", ["", "shared"])
@PIVOTS
def test_bundle_in_the_mount_of_the_chroot(
    container: ContainerFactory, breakout: Bundle, scratch: str, propagation: str, options: list[str]
) -> None:
    """As in `chroot /srv/debian`: the root of the mount that holds the rootfs is above the chroot."""
    with_capabilities(breakout, "CAP_SYS_ADMIN")
    if propagation:
        breakout.mapping("linux")["rootfsPropagation"] = propagation
    script = f'{_BEGIN}{_PLAIN}cp -a {breakout.path} $0/root/own; exec chroot $0/root "$@"'
    one = container(breakout, command=command("plain", scratch, script))
    found = ways(one.run("--bundle", "/own", *options))
    assert (found["chroot"], found["setns"]) == ("inside", "inside")


@PIVOTS
def test_below_what_was_mounted_over(
    container: ContainerFactory, bundle: BundleFactory, scratch: str, options: list[str]
) -> None:
    """A chroot of before "/" was mounted over: nothing reaches the mounts between; refused, and nothing changes."""
    look = "cut -d' ' -f1-6 /proc/self/mountinfo"
    script = f"{_BEGIN}{_PLAIN}mount --make-rshared /; mount --bind / /; {look} >$0.before; "
    script += f'chroot $0/root "$@" || status=$?; {look} | cmp - $0.before; exit $status'
    result = container(bundle("probe").probe("ids"), command=command("plain", scratch, script)).run(*options)
    result.fails("$.root.path: the container's root would not be the root of its mount namespace")


def test_without_the_capability(container: ContainerFactory, bundle: BundleFactory, scratch: str) -> None:
    """Whether its root is the namespace's cannot be known then: refused, with what is missing."""
    support.needs_program("setpriv")
    prefix = ["setpriv", "--bounding-set=-sys_chroot", "--inh-caps=-all"]
    one = container(bundle("probe").probe("ids"), command=[*prefix, support.PYRUNC])
    one.run().fails("$.root.path: setns '/proc/self/ns/mnt': operation not permitted", "CAP_SYS_CHROOT")
    assert not os.path.lexists(os.path.join(one.root, one.id))


_SPAWN = """
import os, sys
from pyrunc.kernel import process as kernel
source, target, program, marker = sys.argv[1:]
argv = [b"breakout", os.fsencode(marker)]
pid, _ = kernel.spawn(argv, [], path=program, bound=(source, target))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_programs_that_pivot(breakout: Bundle, scratch: str) -> None:
    """restore starts CRIU with the rootfs bound to a directory: its root is that of its namespace, as it pivots."""
    place = os.path.join(scratch, "bound")
    os.mkdir(place)
    program = os.path.join(breakout.rootfs, "bin/breakout")
    prefix = command("plain", scratch)[:-1]
    # Here the marker is what only the chroot has: all ways lead to where it is.
    words = [support.PYTHON, "-c", _SPAWN, os.path.dirname(program), place, program, "/.of-the-chroot"]
    found = dict(support.run(*prefix, *words).ok().facts().pairs)
    assert (found["chroot"], found["setns"]) == ("outside", "outside")
    assert os.listdir(place) == []

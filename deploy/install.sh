#!/bin/sh
# Install pyrunc on the node whose root is mounted at $1, tell its engine, and stay: what installer.yaml runs.
#   install.sh HOST          all of it
#   install.sh config HOST   only the engine's configuration; says "changed" when the engine must be restarted
set -eu
here=$(dirname "$0")

# containerd 1.x reads one file; a second handler of that name in it would be an error.
configure() {
	host=$1
	if [ -d "$host/etc/crio" ]; then
		mkdir -p "$host/etc/crio/crio.conf.d"
		target=$host/etc/crio/crio.conf.d/10-pyrunc.conf
		cmp -s "$here/crio.conf" "$target" && return 0
		cp "$here/crio.conf" "$target"
		echo changed
		return 0
	fi
	target=$host/etc/containerd/config.toml
	[ -f "$target" ] || { mkdir -p "$host/etc/containerd" && echo 'version = 2' >"$target"; }
	grep -q '^version = 2$' "$target" || { echo "install.sh: $target is not of version 2" >&2; return 1; }
	! grep -q 'runtimes\.pyrunc\]' "$target" || return 0
	# The node's own driver, as its runc has it.
	driver=false
	! grep -q 'SystemdCgroup *= *true' "$target" || driver=true
	{
		cat "$target"
		echo
		sed "s/SystemdCgroup = false/SystemdCgroup = $driver/" "$here/containerd.toml"
	} >"$target.pyrunc"
	# At once or not at all: a half-written file would keep containerd from starting.
	mv "$target.pyrunc" "$target"
	echo changed
}

install() {
	host=$1
	chroot "$host" python3 -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' ||
		{ echo 'install.sh: the node needs python3 of at least 3.11 with its venv module' >&2; return 1; }
	rm -rf "$host/opt/pyrunc/wheels"
	mkdir -p "$host/opt/pyrunc"
	cp -r /wheels "$host/opt/pyrunc/wheels"
	chroot "$host" python3 -m venv /opt/pyrunc
	chroot "$host" /opt/pyrunc/bin/pip install --quiet --no-index --find-links /opt/pyrunc/wheels --upgrade pyrunc
	mkdir -p "$host/usr/local/sbin"
	ln -sfn /opt/pyrunc/bin/pyrunc "$host/usr/local/sbin/pyrunc"
	chroot "$host" /usr/local/sbin/pyrunc --version
}

if [ "${1-}" = config ]; then
	configure "$2"
	exit
fi
install "$1"
if [ "$(configure "$1")" = changed ]; then
	# Running containers outlive their engine's restart.
	unit=containerd
	[ ! -d "$1/etc/crio" ] || unit=crio
	chroot "$1" systemctl restart "$unit"
fi
echo installed
exec sleep infinity

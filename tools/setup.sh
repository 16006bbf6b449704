# shellcheck shell=bash
# The set-up behind ./dev: Debian packages, the virtual environment and the installation in it. dev sources this file in
# the project's directory and calls `need base`, `need test` or `need_engines`; what is up to date costs no time.

VENV=$PWD/.venv
# Only what the wheel needs to build and run.
BASE_PACKAGES=(gcc libc6-dev python3-dev python3-venv libseccomp-dev libcap-dev musl-tools busybox-static uidmap)
# Only what the tests need on top.
# Fuzzers are libFuzzer's, which only clang has: 14 MB to load where LLVM is there, 60 MB where it is not, and they
# compile in seconds. So the short share in the tests is the long one's own, not another driver's.
FUZZ_PACKAGES=(clang libclang-rt-dev binutils)
# groff and mandoc look at the manual pages, zsh and fish at their completions.
TEST_PACKAGES=(git iproute2 procps util-linux dbus-daemon strace criu groff-base mandoc zsh fish "${FUZZ_PACKAGES[@]}")
# What tests and bench compare with; not every distribution has them.
COMPARE_PACKAGES=(runc crun)
# What ./dev vm makes and runs its guest with.
# shellcheck disable=SC2034 # dev takes it
VM_PACKAGES=(qemu-system-x86 qemu-utils mmdebstrap e2fsprogs)
# What the tests of tests/engines start.
ENGINE_PACKAGES=(containerd containernetworking-plugins podman buildah docker.io netavark slirp4netns uidmap iptables nftables criu)
BUILD_DIR=build/dev

say() {
	printf '%s\n' "dev: $*" >&2
}

die() {
	say "$@"
	exit 1
}

missing_packages() {
	local name
	for name in "$@"; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) in
		installed) ;;
		*) printf '%s ' "$name" ;;
		esac
	done
}

need_packages() {
	if ! command -v dpkg-query >/dev/null; then
		say "not a Debian system: these packages' counterparts must be there: $*"
		return
	fi
	local missing
	missing=$(missing_packages "$@")
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || die "Debian packages are missing; as root: apt-get install ${missing% }"
	say "installing ${missing% }"
	export DEBIAN_FRONTEND=noninteractive
	# Old lists are good enough most of the time, and much faster than new ones.
	# shellcheck disable=SC2086
	apt-get install -y -q --no-install-recommends $missing >build/apt.log 2>&1 ||
		{ apt-get update -q >build/apt.log 2>&1 &&
			apt-get install -y -q --no-install-recommends $missing >>build/apt.log 2>&1; } ||
		{ tail -n 20 build/apt.log >&2; die "apt-get failed"; }
}

find_python() {
	# Debian's own first: ordinary users can run it too, which a python in root's home they cannot.
	local candidate
	for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
		if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			command -v "$candidate"
			return
		fi
	done
	die "no Python of at least 3.11 with the venv module was found"
}

# The requirements in pyproject.toml: "build" for an installation, "test" and "engines" for tests.
requirements() {
	"$VENV/bin/python" - "$1" <<-'TEXT'
		import sys, tomllib
		with open("pyproject.toml", "rb") as stream:
		    document = tomllib.load(stream)
		project = document["project"]
		wanted = document["build-system"]["requires"] + ["meson>=1.3", "ninja"] + project["dependencies"]
		print("\n".join(project["optional-dependencies"].get(sys.argv[1], wanted)))
	TEXT
}

digest() {
	sha256sum "$@" | sha256sum | cut -c 1-64
}

pip() {
	"$VENV/bin/python" -m pip --quiet --disable-pip-version-check "$@"
}

# Install the requirements of one kind, unless the stamp says that it was done for these very files.
need_requirements() {
	local kind=$1 stamp=$VENV/.stamp-$1 now
	now=$(digest pyproject.toml "$VENV/pyvenv.cfg")
	[ "$(cat "$stamp" 2>/dev/null)" != "$now" ] || return 0
	say "installing Python packages ($kind)"
	requirements "$kind" >"build/requirements-$kind.txt"
	pip install --no-warn-script-location -r "build/requirements-$kind.txt" 2>build/pip.log ||
		{ cat build/pip.log >&2; die "pip failed"; }
	echo "$now" >"$stamp"
}

need_venv() {
	if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
		say "making a virtual environment"
		rm -rf "$VENV"
		"$(find_python)" -m venv "$VENV"
	fi
}

sources() {
	find pyrunc csrc tools meson.build meson.options pyproject.toml LICENSE README.md -type f -not -name '*.pyc' -print0 |
		LC_ALL=C sort -z
}

# The build writes it for the installation; this one is for whoever reads the source tree: mypy, ruff, an editor.
write_numbers() {
	"$VENV/bin/python" tools/plan_numbers.py csrc/plan.h pyrunc/plan/numbers.py
}

install_pyrunc() {
	local stamp=$VENV/.stamp-tree now
	now=$(sources | xargs -0 sha256sum | cat - "$VENV/.stamp-build" | sha256sum)
	[ "$(cat "$stamp" 2>/dev/null)" != "$now" ] || return 0
	say "building and installing pyrunc"
	rm -f "$stamp"
	# An existing build directory keeps its options, so a rebuild compiles only what changed.
	PATH=$VENV/bin:$PATH pip install --no-build-isolation --no-deps --force-reinstall \
		--config-settings=build-dir=$BUILD_DIR --config-settings=setup-args=-Dtests=true . 2>build/install.log >&2 ||
		{ cat build/install.log >&2; die "the build failed"; }
	echo "$now" >"$stamp"
}

# need base: enough to run pyrunc; need test: the tools of the tests as well; need lint: those without an installation.
need() {
	mkdir -p build
	exec 9>build/.lock
	flock 9
	local stamp=build/.stamp-packages-$1 now
	now=$(digest tools/setup.sh /etc/os-release)
	if [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then
		need_packages "${BASE_PACKAGES[@]}"
		if [ "$1" != base ]; then
			need_packages "${TEST_PACKAGES[@]}"
			(need_packages "${COMPARE_PACKAGES[@]}") || say "going on without ${COMPARE_PACKAGES[*]}"
		fi
		echo "$now" >"$stamp"
	fi
	need_venv
	need_requirements build
	[ "$1" = base ] || need_requirements test
	write_numbers
	[ "$1" = lint ] || install_pyrunc
	exec 9>&-
}

# Debian's engines start as services when they are installed: here only the tests start them.
need_engines() {
	need_requirements engines
	local missing policy=/usr/sbin/policy-rc.d
	missing=$(missing_packages "${ENGINE_PACKAGES[@]}")
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || die "Debian packages are missing; as root: apt-get install ${missing% }"
	if [ -e $policy ]; then
		need_packages "${ENGINE_PACKAGES[@]}"
		return
	fi
	(
		# shellcheck disable=SC2064 # the local variable is gone by then
		trap "rm -f $policy" EXIT
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
		need_packages "${ENGINE_PACKAGES[@]}"
	)
}

build_sanitized() {
	local PATH=$VENV/bin:$PATH
	[ -d build/sanitize ] || meson setup build/sanitize -Dtests=true -Db_sanitize=address,undefined \
		-Dbuildtype=debug >build/sanitize.log || { cat build/sanitize.log >&2; return 1; }
	meson compile -C build/sanitize >build/sanitize.log || { cat build/sanitize.log >&2; return 1; }
}

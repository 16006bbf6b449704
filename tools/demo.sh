#!/bin/bash
# Run a first container and show each command as it could be typed: ./dev demo calls this with pyrunc in PATH.
set -euo pipefail

typed() {
	local word line=''
	for word in "$@"; do
		[[ $word =~ ^[a-zA-Z0-9_./:=@%+-]+$ ]] || word=${word@Q}
		line+=" $word"
	done
	printf '\n$%s\n' "$line"
}

show() {
	typed "$@"
	"$@"
}

# kill returns when the signal is sent; the program ends a moment later.
wait_stopped() {
	local deadline=$((SECONDS + 10))
	until pyrunc state "$1" | grep -q '"status": "stopped"'; do
		if [ $SECONDS -ge $deadline ]; then
			echo "demo: container '$1' does not stop" >&2
			exit 1
		fi
	done
}

scratch=$(mktemp -d /tmp/demo.XXX)
trap 'pyrunc delete --force demo >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
echo "A bundle is a directory with config.json and a root file system. This one holds busybox."
# shellcheck disable=SC2016
show bundles/make busybox "$scratch/hello" -- sh -c 'echo "hello from $(hostname), I am process $$ and user $(id -u)"'
printf '\n%s\n' "Run it: create, start, wait, delete in one command."
show pyrunc run --bundle "$scratch/hello" demo
printf '\n%s\n' "The same in single steps, as an engine does it, with a program that stays."
bundles/make busybox "$scratch/sleep" -- sleep 600
typed pyrunc create --bundle "$scratch/sleep" demo
# A detached program keeps the output that it was given. A pipe to our caller would stay open: take a file.
pyrunc create --bundle "$scratch/sleep" demo </dev/null >"$scratch/output" 2>&1 || { cat "$scratch/output"; exit 1; }
show pyrunc state demo
show pyrunc start demo
show pyrunc list
show pyrunc exec demo ps
show pyrunc kill demo KILL
wait_stopped demo
show pyrunc delete demo
printf '\n%s\n' "Nothing is left. More: .venv/bin/pyrunc --help, and README.md."

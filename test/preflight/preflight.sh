#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Checks that this machine has what a target of the Makefile needs, and prints one
# line for each thing that is missing. It runs at the root of the repository.
#
#     sh test/preflight/preflight.sh TARGET [cc]
#
# Every target needs Linux and Go; "cc" adds a C compiler. Git is needed only where
# Go fetches modules from their repositories instead of a module proxy. The check is
# shell, because an old Go cannot run Go code of this module. It uses builtins only.

target=$1
missing=0

needs() {
	echo "make $target needs $1" >&2
	missing=1
}

has() { command -v "$1" >/dev/null 2>&1; }

# The version in go.mod, without its patch release: 1.26.
while read -r word version _; do
	[ "$word" = go ] && break
done <go.mod
minor=${version#*.}
minor=${minor%%.*}
wanted="Go ${version%%.*}.$minor or later"

check_go() {
	if ! has go; then
		needs "$wanted: https://go.dev/dl/"
		return
	fi
	# Go 1.21 and later may replace itself by a newer one (GOTOOLCHAIN=auto). Where it
	# may not or cannot, this is the version that is installed.
	found=$(go env GOVERSION 2>/dev/null || GOTOOLCHAIN=local go env GOVERSION 2>/dev/null)
	case $found in
	devel*) return ;;
	go1.[0-9]*)
		found_minor=${found#go1.}
		found_minor=${found_minor%%[!0-9]*}
		[ "$found_minor" -lt "$minor" ] || return
		;;
	*) found="another version" ;;
	esac
	needs "$wanted, this is $found: https://go.dev/dl/"
}

if has uname && [ "$(uname -s)" != Linux ]; then
	needs "Linux, this is $(uname -s): run it in a container or a virtual machine"
fi
check_go
if has go; then
	case $(go env GOPROXY 2>/dev/null) in
	direct*) has git || needs "git, because GOPROXY=direct: apt-get install git" ;;
	esac
fi
if [ "${2:-}" = cc ]; then
	compiler=${CC:-$(has go && go env CC 2>/dev/null)}
	compiler=${compiler%% *}
	has "${compiler:-gcc}" || needs "a C compiler (${compiler:-gcc}), for Go's race detector: apt-get install gcc libc6-dev"
fi
exit "$missing"

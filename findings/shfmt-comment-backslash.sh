#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# shfmt turns two commands into one if the comment between them ends in a backslash.
#
# Version:  mvdan.cc/sh/v3 v3.14.1 (shfmt and the parser, syntax.NewParser)
# Input:    echo one # two \
#           echo three
# Expected: A comment ends at the end of its line. A backslash in a comment is text (POSIX
#           Shell Command Language, token recognition). sh and bash run two commands and print
#               one
#               three
#           A formatter must keep that.
# Seen:     The parser takes the backslash for a line continuation in the language variants
#           bash and posix alike. shfmt writes
#               echo one \
#               	echo three # two \
#           sh and bash print this for the formatted script:
#               one echo three
# Relates:  The same parser reads a manifest's `sh -c` script here. Flags after a flag that was
#           commented out in a continued command looked as if they were set.
# Thread:   None found for this. https://github.com/mvdan/sh/pull/1358 is about where such
#           comments are printed, not about which words the command has.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

{ go mod init example.com/finding && go get mvdan.cc/sh/v3/cmd/shfmt@v3.14.1 &&
	go build -o shfmt mvdan.cc/sh/v3/cmd/shfmt; } >install.log 2>&1 || { cat install.log >&2; exit 2; }

printf 'echo one # two \\\necho three\n' >before.sh

status=0
for language in posix bash; do
	shell=bash
	[ "$language" = bash ] || shell=sh
	./shfmt -ln "$language" before.sh >after.sh
	echo "== $language, formatted:"
	cat after.sh
	before=$("$shell" before.sh)
	after=$("$shell" after.sh)
	echo "== $shell, before: $(echo "$before" | paste -sd'|')"
	echo "== $shell, after:  $(echo "$after" | paste -sd'|')"
	[ "$before" = $'one\nthree' ] && [ "$after" = "one echo three" ] || status=1
done
[ "$status" = 0 ] || echo "The behavior changed."
exit "$status"

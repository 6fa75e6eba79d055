#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# shfmt splits a word at a carriage return, and the number of arguments changes.
#
# Version:  mvdan.cc/sh/v3 v3.14.1 (shfmt and the parser, syntax.NewParser)
# Input:    printf '<%s>' a<CR>b      (the carriage return is within the line, not at its end)
# Expected: In sh and bash only space, tab and newline end a word. The carriage return is a
#           part of it, so printf gets one argument: <a^Mb>. The parser gives one word.
# Seen:     The parser takes the carriage return for a blank. shfmt writes
#               printf '<%s>' a b
#           and sh and bash then print <a><b>: two arguments.
# Relates:  The same parser reads a manifest's `sh -c` script here. A flag value with a
#           carriage return in it is one word for the shell that runs it.
# Thread:   None found. Other parsers had the same: https://github.com/colis-anr/morbig/issues/91
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

{ go mod init example.com/finding && go get mvdan.cc/sh/v3/cmd/shfmt@v3.14.1 &&
	go build -o shfmt mvdan.cc/sh/v3/cmd/shfmt; } >install.log 2>&1 || { cat install.log >&2; exit 2; }

printf "printf '<%%s>' a\rb\n" >before.sh

status=0
for language in posix bash; do
	shell=bash
	[ "$language" = bash ] || shell=sh
	./shfmt -ln "$language" before.sh >after.sh
	before=$("$shell" before.sh | cat -v)
	after=$("$shell" after.sh | cat -v)
	echo "== $language, formatted: $(cat -v after.sh)"
	echo "== $shell, before: $before"
	echo "== $shell, after:  $after"
	[ "$before" = '<a^Mb>' ] && [ "$after" = '<a><b>' ] || status=1
done
[ "$status" = 0 ] || echo "The behavior changed."
exit "$status"

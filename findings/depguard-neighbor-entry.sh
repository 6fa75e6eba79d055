#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# depguard refuses an allowed import because of another allowed entry that sorts next to it.
#
# Version:  github.com/OpenPeeDeeP/depguard/v2 v2.2.1 (golangci-lint v2.15.0 contains it)
# Input:    A package that imports fmt, go/ast and go/token, and a list in strict mode that
#           allows $gostd and one more module.
# Expected: $gostd allows the standard library. A further entry under `allow` can only allow
#           more. All three imports pass with either second entry.
# Seen:     With github.com/google/go-cmp as the second entry all pass. With
#           go.yaml.in/yaml/v3 in its place:
#               a.go:6:2: import 'go/ast' is not allowed from list 'main'
#               a.go:7:2: import 'go/token' is not allowed from list 'main'
#           $gostd expands to the top folders of GOROOT, for example "go". For each import only
#           the one entry that sorts directly before it is compared as a prefix. Between "go"
#           and "go/ast" sorts "go.yaml.in/...", because "." sorts before "/".
# Relates:  .golangci.yaml of this project has an entry `go/` for this reason.
# Thread:   None found. https://github.com/OpenPeeDeeP/depguard/pull/67 explains why the search
#           is binary.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

mkdir tool code
{ (cd tool && go mod init example.com/tool && go get github.com/OpenPeeDeeP/depguard/v2/cmd/depguard@v2.2.1 &&
	go build -o ../depguard github.com/OpenPeeDeeP/depguard/v2/cmd/depguard) &&
	(cd code && go mod init example.com/code); } >install.log 2>&1 || { cat install.log >&2; exit 2; }

cd code
cat >a.go <<'GO'
package a

import (
	_ "fmt"

	_ "go/ast"
	_ "go/token"
)
GO

# check ENTRY prints what depguard says with ENTRY allowed besides $gostd.
check() {
	cat >.depguard.yaml <<YAML
main:
  listMode: Strict
  files: ["\$all"]
  allow: ["\$gostd", "$1"]
YAML
	../depguard ./... 2>&1 | sed 's|^.*/a\.go|  a.go|' || true
}

for entry in github.com/google/go-cmp go.yaml.in/yaml/v3; do
	echo "== allow: \$gostd and $entry"
	check "$entry" | tee "result.$(basename "$entry")"
done
if [ -s result.go-cmp ] || [ "$(grep -c 'is not allowed' result.v3)" != 2 ]; then
	echo "The behavior changed."
	exit 1
fi

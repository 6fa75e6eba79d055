#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# helm-unittest: isNotEmpty passes for a path that is not in the document.
#
# Version:  github.com/helm-unittest/helm-unittest v1.1.2
# Input:    A chart whose only manifest has data.key, and assertions on data.keys (misspelled).
# Expected: The documentation says that isNotEmpty asserts that the value of the path is not
#           null or empty. A path that is missing has no value, so isNotEmpty fails.
#           isEmpty, its opposite, does fail, and says "unknown path".
# Seen:     isNotEmpty passes for a missing path, isEmpty fails, exists fails:
#               isNotEmpty on data.key    pass
#               isNotEmpty on data.keys   pass
#               isEmpty on data.keys      fail
#               exists on data.keys       fail
# Relates:  The chart tests of this project use exists or equal where a field must be there.
# Thread:   https://github.com/helm-unittest/helm-unittest/pull/820 (a table of the behavior);
#           projects that met it: https://github.com/dash0hq/dash0-operator/pull/996
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# helm-unittest has a replace in its go.mod, so `go install` refuses it.
{ go mod init example.com/finding &&
	go mod edit -replace github.com/vmware-labs/yaml-jsonpath=github.com/helm-unittest/yaml-jsonpath@v0.4.0 &&
	go get github.com/helm-unittest/helm-unittest/cmd/helm-unittest@v1.1.2 &&
	go build -o helm-unittest github.com/helm-unittest/helm-unittest/cmd/helm-unittest; } >install.log 2>&1 ||
	{ cat install.log >&2; exit 2; }

mkdir -p chart/templates chart/tests
printf 'apiVersion: v2\nname: chart\nversion: 0.1.0\n' >chart/Chart.yaml
cat >chart/templates/a.yaml <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {key: value}
YAML

# check ASSERTION PATH WANT prints the result of one assertion and compares it with WANT.
status=0
check() {
	cat >chart/tests/a_test.yaml <<YAML
suite: finding
templates: [templates/a.yaml]
tests:
  - it: checks a path
    asserts:
      - $1: {path: $2}
YAML
	result=pass
	./helm-unittest chart >result.log 2>&1 || result=fail
	printf '%-25s %s\n' "$1 on $2" "$result"
	[ "$result" = "$3" ] || status=1
}
check isNotEmpty data.key pass
check isNotEmpty data.keys pass
check isEmpty data.keys fail
check exists data.keys fail
[ "$status" = 0 ] || echo "The behavior changed."
exit "$status"

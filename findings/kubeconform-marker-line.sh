#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kubeconform drops a YAML document that begins on the line of its `---` marker.
#
# Version:  github.com/yannh/kubeconform v0.8.0 (compared with go.yaml.in/yaml/v3 v3.0.5)
# Input:    Three valid Kubernetes objects in one stream. Each is written as a flow mapping,
#           once on the line after the marker, once on the same line, `--- {...}`.
# Expected: YAML allows both, so three resources are found in both, or there is an error.
# Seen:         next line: YAML has 3 documents, kubeconform found: a b c
#               same line: YAML has 3 documents, kubeconform found: a c
#           kubeconform cuts the text where a line starts with `---` and drops the rest of that
#           line, here the object b. The rest of the text begins with a marker that is not
#           taken for a cut, so c is found again. There is no message.
# Relates:  The tests of the chart check rendered manifests with kubeconform and compare the
#           number of objects, too.
# Thread:   None found. https://github.com/kubernetes/kubernetes/pull/103457 is the decision of
#           Kubernetes to answer content after the marker with an error.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

{ go mod init example.com/finding &&
	go get github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0 go.yaml.in/yaml/v3@v3.0.5 &&
	go build -o kubeconform github.com/yannh/kubeconform/cmd/kubeconform; } >install.log 2>&1 ||
	{ cat install.log >&2; exit 2; }
mkdir count
cat >count/main.go <<'GO'
// count prints the number of YAML documents on the standard input.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

func main() {
	d := yaml.NewDecoder(os.Stdin)
	for n := 0; ; n++ {
		var document any
		if err := d.Decode(&document); errors.Is(err, io.EOF) {
			fmt.Println(n)
			return
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
}
GO
go build -o yaml-count ./count

cat >schema.json <<'JSON'
{"type": "object", "required": ["kind", "data"]}
JSON
cat >next.yaml <<'YAML'
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {}}
YAML
cat >same.yaml <<'YAML'
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {}}
--- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {}}
--- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {}}
YAML

status=0
# check NAME WANT prints the names of the objects that kubeconform finds in NAME.yaml.
check() {
	documents=$(./yaml-count <"$1.yaml")
	found=$(./kubeconform -schema-location schema.json -verbose "$1.yaml" |
		sed -n 's/.* ConfigMap \(.*\) is valid$/\1/p' | sort | paste -sd' ')
	echo "$1 line: YAML has $documents documents, kubeconform found: $found"
	[ "$documents: $found" = "3: $2" ] || status=1
}
check next "a b c"
check same "a c"
[ "$status" = 0 ] || echo "The behavior changed."
exit "$status"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# sigs.k8s.io/yaml, strict: of the keys 1 and "1" a random one wins, and there is no error.
#
# Version:  sigs.k8s.io/yaml v1.6.0 (compared with go.yaml.in/yaml/v3 v3.0.5)
# Input:    labels: {1: number, "1": text}
#           Valid YAML: the keys are an integer and a string, so they are different.
# Expected: JSON has string keys only, so both become "1". UnmarshalStrict says that it refuses
#           duplicate keys: an error, or at least the same answer each time.
# Seen:     No error. 200 calls in one process, same input (the counts differ in each run):
#               sigs.k8s.io/yaml UnmarshalStrict: number 27 times, text 173 times, 0 errors
#               go.yaml.in/yaml/v3 into map[string]string: 200 errors
#           The check for duplicates is done before keys become strings. Then the map is walked
#           in the random order of Go maps, and the last key is kept.
# Relates:  The kubelet reads static Pod manifests with the same conversion (ToJSON of
#           k8s.io/apimachinery/pkg/util/yaml). A label that depends on the run looks like drift.
# Thread:   None found for the order. https://github.com/kubernetes-sigs/yaml/issues/15 has another
#           case of two keys for one field in strict mode (letter case).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

{ go mod init example.com/finding && go get sigs.k8s.io/yaml@v1.6.0 go.yaml.in/yaml/v3@v3.0.5; } >install.log 2>&1 ||
	{ cat install.log >&2; exit 2; }
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"

	v3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

const doc = "labels: {1: number, \"1\": text}\n"

type object struct {
	Labels map[string]string `json:"labels" yaml:"labels"`
}

func main() {
	seen := map[string]int{}
	strictErrors, v3Errors := 0, 0
	for range 200 {
		var o object
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			strictErrors++
		}
		seen[o.Labels["1"]]++
		if err := v3.Unmarshal([]byte(doc), &object{}); err != nil {
			v3Errors++
		}
	}
	fmt.Printf("sigs.k8s.io/yaml UnmarshalStrict: number %d times, text %d times, %d errors\n",
		seen["number"], seen["text"], strictErrors)
	fmt.Printf("go.yaml.in/yaml/v3 into map[string]string: %d errors\n", v3Errors)
	if strictErrors != 0 || seen["number"] == 0 || seen["text"] == 0 || v3Errors != 200 {
		fmt.Println("The behavior changed.")
		os.Exit(1)
	}
}
GO
go build -o finding . >install.log 2>&1 || { cat install.log >&2; exit 2; }
./finding

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Helm: `--set ratio=2` gives a number, `--set ratio=1.5` gives a string.
#
# Version:  helm.sh/helm/v4 v4.3.1 (pkg/strvals parses --set, pkg/chart/common/util checks the
#           values against values.schema.json)
# Input:    A values schema with ratio of type number, and a few values for --set.
# Expected: --set finds the type of a value (there is --set-string for plain strings), so a value
#           that is a number in values.yaml is one in --set too.
# Seen:     Only integers without a leading zero become numbers. All else that YAML reads as a
#           number stays a string, and the schema refuses it:
#               ratio=2    int64    accepted
#               ratio=-1   int64    accepted
#               ratio=1.5  string   refused: at '/ratio': got string, want number
#               ratio=1e3  string   refused: at '/ratio': got string, want number
#           The same values in a file become float64 and are accepted.
# Relates:  The chart of this project has a values schema. A duration of 0 is a string in a file
#           and an integer with --set, so the schema allows both for nodeagent.settle.
# Thread:   https://github.com/helm/helm/issues/8205 (closed as stale, without an answer)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/strvals"
)

const schema = `{"type": "object", "properties": {"ratio": {"type": "number"}}}`

// answer returns the Go type of the value and what the schema says about it.
func answer(values map[string]any, err error) string {
	if err != nil {
		return err.Error()
	}
	result := "accepted"
	if err := util.ValidateAgainstSingleSchema(values, []byte(schema)); err != nil {
		result = "refused: " + strings.TrimPrefix(strings.TrimSpace(err.Error()), "- ")
	}
	return fmt.Sprintf("%-8T %s", values["ratio"], result)
}

func main() {
	const refused = "string   refused: at '/ratio': got string, want number"
	changed := false
	for _, test := range []struct{ value, want string }{
		{"2", "int64    accepted"}, {"-1", "int64    accepted"}, {"1.5", refused}, {"1e3", refused},
	} {
		set := answer(strvals.Parse("ratio=" + test.value))
		fmt.Printf("--set ratio=%-4s %s\n", test.value, set)
		file := answer(common.ReadValues([]byte("ratio: " + test.value + "\n")))
		fmt.Printf("file  ratio: %-3s %s\n", test.value, file)
		changed = changed || set != test.want || file != "float64  accepted"
	}
	if changed {
		fmt.Println("The behavior changed.")
		os.Exit(1)
	}
}
GO
{ go mod init example.com/finding &&
	go get helm.sh/helm/v4/pkg/strvals@v4.3.1 helm.sh/helm/v4/pkg/chart/common/util@v4.3.1 &&
	go build -o finding .; } >install.log 2>&1 || { cat install.log >&2; exit 2; }
./finding

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# helm-docs drops the beginning of a description, or all of it, if its first line has a flag.
#
# Version:  github.com/norwoodj/helm-docs v1.14.2
# Input:    Two values whose comments differ only in a word: `# -- Run the program with --static in the cluster`, and the
#           same with `static`.
# Expected: Both descriptions are in the table of the README.
# Seen:     The first value has no description, and there is no warning: the expression that finds a comment of the old
#           form, `# name -- description`, is greedy, so the text before the last ` --` of the line is taken as the name
#           of another value.
#               | a | string | `"x"` |  |
#               | b | string | `"x"` | Run the program with static in the cluster |
# Relates:  Comments in this project's values.yaml have no flag in their first line; `make verify` refuses an empty
#           description.
# Thread:   None found.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

{ GOBIN="$dir/bin" go install github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2; } >install.log 2>&1 ||
	{ cat install.log >&2; exit 2; }

mkdir chart
cat >chart/Chart.yaml <<'YAML'
apiVersion: v2
name: example
version: 1.0.0
YAML
cat >chart/values.yaml <<'YAML'
# -- Run the program with --static in the cluster
a: x
# -- Run the program with static in the cluster
b: x
YAML
bin/helm-docs --chart-search-root chart --log-level warning
grep -E '^\| [ab] \|' chart/README.md | tee rows
if ! grep -qF '| a | string | `"x"` |  |' rows || ! grep -qF '| Run the program with static in the cluster |' rows; then
	echo "The behavior changed."
	exit 1
fi

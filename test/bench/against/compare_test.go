// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
)

func TestCompare(t *testing.T) {
	const files, noNeed = "files beside those that matter", "no agent: a program that is only scraped"
	measured := func(what, contender string, value float64) results.Row {
		return results.Measured(what, contender, "memory, idle", "MiB", value)
	}
	rows := func(rows ...results.Row) results.Document { return results.Document{Rows: rows} }
	oldRow := func(what string, values ...float64) results.Row { return rowOf("0ld", what, values...) }
	newRow := func(what string, ratios []float64, values ...float64) results.Row {
		return rowOf(thisTree, what, values...).Against(ratios)
	}
	inDemo := func(tree, contender string, value float64) results.Row {
		return results.Measured(coldDemo+": "+contender, tree, wallTime, "s", value)
	}
	demo := func(contender string, value float64) results.Row {
		return results.Measured(coldDemo, contender, wallTime, "s", value)
	}
	tests := map[string]struct {
		benchmark     string
		before, after []results.Document
		want          []results.Row
		fails         bool
	}{
		"median of ratios": {
			before: []results.Document{rows(measured(files, "1", 20)), rows(measured(files, "1", 10)), rows(measured(files, "1", 10))},
			after:  []results.Document{rows(measured(files, "1", 10)), rows(measured(files, "1", 6)), rows(measured(files, "1", 9))},
			want: []results.Row{
				oldRow(files+": 1", 20, 10, 10), newRow(files+": 1", []float64{0.5, 0.6, 0.9}, 10, 6, 9),
			},
		},
		"with budgets": {
			benchmark: "demo",
			before:    []results.Document{rows(demo(builtAPIServer, 100), demo(fetchedAPIServer, 100))},
			after:     []results.Document{rows(demo(builtAPIServer, 50), demo(fetchedAPIServer, 30))},
			want: []results.Row{
				inDemo("0ld", builtAPIServer, 100), inDemo(thisTree, builtAPIServer, 50).Against([]float64{0.5}).RatioAtMost(0.6),
				inDemo("0ld", fetchedAPIServer, 100),
				inDemo(thisTree, fetchedAPIServer, 30).Against([]float64{0.3}).RatioAtMost(0.2),
			},
		},
		"a figure with a budget is missing": {
			benchmark: "demo",
			before:    []results.Document{rows(demo(builtAPIServer, 100), demo("other", 100))},
			after:     []results.Document{rows(demo(builtAPIServer, 50), demo(fetchedAPIServer, 30))},
			fails:     true,
		},
		"without a budget": {
			before: []results.Document{rows(measured("other", "x", 2))},
			after:  []results.Document{rows(measured("other", "x", 3))},
			want:   []results.Row{oldRow("other: x", 2), newRow("other: x", []float64{1.5}, 3)},
		},
		"nothing before, so no ratio": {
			before: []results.Document{rows(measured("other", "x", 0))},
			after:  []results.Document{rows(measured("other", "x", 3))},
			want:   []results.Row{oldRow("other: x", 0), rowOf(thisTree, "other: x", 3)},
		},
		"only one tree has it": {
			before: []results.Document{rows(measured("other", "x", 2))},
			after:  []results.Document{rows(measured("other", "y", 3))},
		},
		"not in each round": {
			before: []results.Document{rows(measured("other", "x", 2)), rows()},
			after:  []results.Document{rows(measured("other", "x", 3)), rows(measured("other", "x", 3))},
		},
		"not built from the tree": {
			before: []results.Document{rows(measured(files, noNeed, 2))},
			after:  []results.Document{rows(measured(files, noNeed, 3))},
		},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := compare(c.benchmark, "0ld", c.before, c.after)
			if (err != nil) != c.fails {
				t.Errorf("error: %v", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func rowOf(contender, what string, values ...float64) results.Row {
	return results.Measured(what, contender, "memory, idle", "MiB", values...)
}

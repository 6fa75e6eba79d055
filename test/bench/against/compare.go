// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
)

// figure identifies a row of a benchmark in all rounds and trees.
type figure struct{ what, contender, metric string }

func figureOf(r results.Row) figure { return figure{r.What, r.Contender, r.Metric} }

// budgets are the highest allowed ratios of this tree to commit 46b028d, by benchmark. A comparison with another commit
// prints them, too.
func budgets(benchmark string) map[figure]float64 {
	return map[string]map[figure]float64{
		"demo": {{coldDemo, builtAPIServer, wallTime}: 0.6, {coldDemo, fetchedAPIServer, wallTime}: 0.2},
		"agent": {
			{"new certificate → log line", "all of them", "p50"}:    0.2,
			{"files beside those that matter", "1", "memory, idle"}: 0.75,
			{"files beside those that matter", "1", "CPU, idle"}:    0.6,
		},
	}[benchmark]
}

// notOurs are contenders of the benchmarks that are not built from the tree.
func notOurs() map[string]bool {
	return map[string]bool{
		"no agent: a program that is only scraped": true,

		"no webhook": true, "policy alone": true, "net/http no-op": true, "controller-runtime no-op": true,
		"Gatekeeper, same checks": true,
	}
}

// compare returns two rows for each figure that both trees measured in each round: the old tree's, and this tree's with
// its ratios, round by round. The order is that of this tree's first document. A budget without such a figure is an
// error.
func compare(benchmark, oldName string, before, after []results.Document) ([]results.Row, error) {
	oldValues, newValues := values(before), values(after)
	limits := budgets(benchmark)
	var rows []results.Row
	for _, r := range after[0].Rows {
		f := figureOf(r)
		if notOurs()[f.contender] || len(oldValues[f]) != len(before) || len(newValues[f]) != len(after) {
			continue
		}
		var ratios []float64
		for i, value := range newValues[f] {
			if oldValues[f][i] != 0 {
				ratios = append(ratios, value/oldValues[f][i])
			}
		}
		what := f.what + ": " + f.contender
		row := results.Measured(what, thisTree, f.metric, r.Unit, newValues[f]...).Against(ratios)
		if limit, ok := limits[f]; ok {
			row = row.RatioAtMost(limit)
			delete(limits, f)
		}
		rows = append(rows, results.Measured(what, oldName, f.metric, r.Unit, oldValues[f]...), row)
	}
	for f := range limits {
		return nil, fmt.Errorf("there is a budget for %s, %s, %s, but not both trees measured it", f.what, f.contender,
			f.metric)
	}
	return rows, nil
}

// ownBudgets returns the rows with a budget of this tree's last document, such as ratios to other webhooks.
func ownBudgets(after []results.Document) []results.Row {
	return slices.DeleteFunc(slices.Clone(after[len(after)-1].Rows), func(r results.Row) bool { return r.Within == nil })
}

// values are the medians of each figure, one of each document.
func values(documents []results.Document) map[figure][]float64 {
	all := map[figure][]float64{}
	for _, d := range documents {
		for _, r := range d.Rows {
			all[figureOf(r)] = append(all[figureOf(r)], r.Value)
		}
	}
	return all
}

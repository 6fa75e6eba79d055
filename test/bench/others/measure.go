// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

const (
	// atATime is the number of clients under load.
	atATime = 8
	// warmUp is the number of writes before those that count.
	warmUp = 10

	// reference is the contender that the others are compared with; noise is the same again, which shows how far
	// figures differ without a cause; guarded is with the whole guard.
	reference, noise, guarded = "no guard", "no guard, again", "the guard"

	// The budgets of writes that the guard does not check.
	mostP50, mostP99, leastThroughput = 1.02, 1.05, 1 / 1.02
)

// cell is one kind of write, with one contender in force.
type cell struct {
	what, contender string
	send            send
	// One value for each round: milliseconds, writes a second, microseconds.
	p50, p99, throughput, cpu, admission []float64
}

// measure measures cells by turns: single writes in a new random order each time, and then load on one after the other.
func (b *bench) measure(ctx context.Context, cells []*cell) error {
	took := make([][]time.Duration, len(cells))
	for i := range warmUp + b.requests {
		for _, n := range b.random.Perm(len(cells)) {
			one, err := cells[n].send(ctx, 0)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", cells[n].what, cells[n].contender, err)
			}
			if i >= warmUp {
				took[n] = append(took[n], one)
			}
		}
	}
	for n, c := range cells {
		c.p50 = append(c.p50, milliseconds(rotation.Quantile(took[n], 0.5)))
		c.p99 = append(c.p99, milliseconds(rotation.Quantile(took[n], 0.99)))
	}
	for _, n := range b.random.Perm(len(cells)) {
		if err := b.loadWith(ctx, cells[n]); err != nil {
			return fmt.Errorf("%s, %s: %w", cells[n].what, cells[n].contender, err)
		}
	}
	return b.etcd.Compact(ctx)
}

// loadWith lets the clients write for a while.
func (b *bench) loadWith(ctx context.Context, c *cell) error {
	inAdmission, err := b.inAdmission(ctx)
	if err != nil {
		return err
	}
	before, err := rotation.CPUOf(b.apiServer)
	if err != nil {
		return err
	}
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var clients sync.WaitGroup
	begin := time.Now()
	for client := range atATime {
		clients.Go(func() {
			for time.Since(begin) < b.load && failed.Load() == nil {
				if _, err := c.send(ctx, client); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	clients.Wait()
	took := time.Since(begin)
	if err := failed.Load(); err != nil {
		return *err
	}
	after, err := rotation.CPUOf(b.apiServer)
	if err != nil {
		return err
	}
	inAdmissionAfter, err := b.inAdmission(ctx)
	if err != nil {
		return err
	}
	c.throughput = append(c.throughput, float64(count.Load())/took.Seconds())
	c.admission = append(c.admission, (inAdmissionAfter-inAdmission)*1e6/float64(count.Load()))
	c.cpu = append(c.cpu, float64((after-before).Nanoseconds())/1e3/float64(count.Load()))
	return nil
}

// inAdmission is how long the API server has spent in the two plugins that know webhooks and policies, in seconds. It
// is the most direct of all figures: the rest of a write does not add to its noise.
func (b *bench) inAdmission(ctx context.Context) (float64, error) {
	sums, err := b.metrics(ctx, "apiserver_admission_controller_admission_duration_seconds_sum",
		`name="ValidatingAdmissionWebhook"`, `name="ValidatingAdmissionPolicy"`)
	if err != nil {
		return 0, err
	}
	return sums[0] + sums[1], nil
}

// metrics are the sums of the API server's series of this name that have one of the labels, by label.
func (b *bench) metrics(ctx context.Context, name string, labels ...string) ([]float64, error) {
	text, err := b.client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	sums := make([]float64, len(labels))
	for line := range strings.Lines(string(text)) {
		rest, found := strings.CutPrefix(line, name+"{")
		if !found {
			continue
		}
		series, text, _ := strings.Cut(rest, "} ")
		for i, label := range labels {
			if !strings.Contains(series, label) {
				continue
			}
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				return nil, fmt.Errorf("read the API server's metrics: %w", err)
			}
			sums[i] += value
		}
	}
	return sums, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// report adds the rows of cells: those of one kind of write after the other, as they come. Budgets apply to the whole
// guard if budgets is true.
func (b *bench) report(cells []*cell, budgets bool) {
	references := map[string]*cell{}
	for _, c := range cells {
		if c.contender == reference {
			references[c.what] = c
		}
	}
	for _, c := range cells {
		to := references[c.what]
		row := func(metric, unit string, values, reference []float64) results.Row {
			measured := results.Measured(c.what, c.contender, metric, unit, values...)
			if c == to {
				return measured
			}
			var ratios []float64
			for i := range values {
				ratios = append(ratios, values[i]/reference[i])
			}
			return measured.Against(ratios)
		}
		p50, p99 := row("p50", "ms", c.p50, to.p50), row("p99", "ms", c.p99, to.p99)
		throughput := row("throughput", "writes/s", c.throughput, to.throughput)
		if budgets && c.contender == guarded {
			p50, p99 = p50.RatioAtMost(mostP50), p99.RatioAtMost(mostP99)
			throughput = throughput.RatioAtLeast(leastThroughput)
		}
		b.document.Rows = append(b.document.Rows, p50, p99, throughput,
			row("API server's CPU a write", "µs", c.cpu, to.cpu),
			// Without ratios: without a guard there is next to nothing.
			results.Measured(c.what, c.contender, "webhooks and policies a write", "µs", c.admission...))
	}
}

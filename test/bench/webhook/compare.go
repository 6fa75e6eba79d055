// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// atATime is the number of concurrent requests under load.
const atATime = 8

// comparison sends one kind of request to several contenders.
type comparison struct {
	what     string
	among    []contender
	requests int // to each contender in a round
	// Budgets for our contenders, relative to the reference: the time, the CPU time and the throughput; 0: no budget.
	p50, p99, cpu, throughput float64
	// send sends the i-th request and returns the time that it took.
	send func(ctx context.Context, to contender, i int) (time.Duration, error)
	// server is the process of the API server in between; 0 without one.
	server int
	// afterRound cleans up.
	afterRound func(context.Context) error
}

// rounds are the values of a metric, one per round, by contender.
type rounds map[string][]float64

func (r rounds) add(to contender, value float64) { r[to.name] = append(r[to.name], value) }

// row compares the rounds with those of the reference.
func (r rounds) row(what string, of contender, metric, unit string) results.Row {
	var ratios []float64
	for i, other := range r[reference] {
		ratios = append(ratios, r[of.name][i]/other)
	}
	return results.Measured(what, of.name, metric, unit, r[of.name]...).Against(ratios)
}

// compare sends requests to all contenders in turn, in rounds.
func (b *bench) compare(ctx context.Context, k comparison) error {
	fmt.Fprintf(os.Stderr, "  %s\n", k.what)
	half, most, cpu := rounds{}, rounds{}, rounds{}
	for range b.rounds {
		took := make([][]time.Duration, len(k.among))
		before, err := computed(k.among)
		if err != nil {
			return err
		}
		for range k.requests {
			b.turn++
			// In random order: a contender that always came after the same other one would pay for the work that
			// this one does after its answer.
			for _, n := range b.random.Perm(len(k.among)) {
				one, err := k.send(ctx, k.among[n], b.turn)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", k.what, k.among[n].name, err)
				}
				took[n] = append(took[n], one)
			}
		}
		after, err := computed(k.among)
		if err != nil {
			return err
		}
		for n, c := range k.among {
			half.add(c, milliseconds(rotation.Quantile(took[n], 0.5)))
			most.add(c, milliseconds(rotation.Quantile(took[n], 0.99)))
			cpu.add(c, microseconds(after[n]-before[n])/float64(k.requests))
		}
		if err := k.afterRound(ctx); err != nil {
			return err
		}
	}
	for _, c := range k.among {
		p50, p99 := half.row(k.what, c, "p50", "ms"), most.row(k.what, c, "p99", "ms")
		if c.ours && k.p50 > 0 {
			p50 = p50.RatioAtMost(k.p50)
		}
		if c.ours && k.p99 > 0 {
			p99 = p99.RatioAtMost(k.p99)
		}
		b.add(p50, p99)
		b.addCPU(k, c, cpu)
	}
	return nil
}

// addCPU adds the CPU time of a webhook. Contenders without a process have none.
func (b *bench) addCPU(k comparison, c contender, cpu rounds) {
	if c.pid == 0 {
		return
	}
	row := cpu.row(k.what, c, "CPU a request", "µs")
	if c.ours && k.cpu > 0 {
		row = row.RatioAtMost(k.cpu)
	}
	b.add(row)
}

// throughput lets clients send requests to each contender, one contender after the other, and counts
// the answers.
func (b *bench) throughput(ctx context.Context, k comparison) error {
	k.what += fmt.Sprintf(", %d at a time", atATime)
	fmt.Fprintf(os.Stderr, "  %s\n", k.what)
	rate, lost, cpu, serverCPU := rounds{}, rounds{}, rounds{}, rounds{}
	lostAny := false
	for range b.rounds {
		for _, n := range b.random.Perm(len(k.among)) {
			to := k.among[n]
			both := []contender{to, {pid: k.server}}
			before, err := computed(both)
			if err != nil {
				return err
			}
			count, unanswered, err := b.load8(ctx, k, to)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", k.what, to.name, err)
			}
			after, err := computed(both)
			if err != nil {
				return err
			}
			rate.add(to, count/b.load.Seconds())
			lost.add(to, 100*unanswered/(count+unanswered))
			lostAny = lostAny || unanswered > 0
			cpu.add(to, microseconds(after[0]-before[0])/count)
			serverCPU.add(to, microseconds(after[1]-before[1])/count)
			if err := k.afterRound(ctx); err != nil {
				return err
			}
		}
	}
	for _, c := range k.among {
		row := rate.row(k.what, c, "throughput", "requests/s")
		if c.ours && k.throughput > 0 {
			row = row.RatioAtLeast(k.throughput)
		}
		b.add(row)
		if lostAny {
			b.add(results.Measured(k.what, c.name, "not answered", "%", lost[c.name]...))
		}
		b.addCPU(k, c, cpu)
		if k.server != 0 {
			b.add(serverCPU.row(k.what, c, "API server's CPU a request", "µs"))
		}
	}
	return nil
}

// load8 counts the answers to clients that send requests to one contender for a while, and the
// requests without an answer: an overloaded machine is no reason to stop measuring. A wrong answer is.
func (b *bench) load8(ctx context.Context, k comparison, to contender) (answered, unanswered float64, err error) {
	var count, lost atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	first, deadline := b.turn, time.Now().Add(b.load)
	for offset := range atATime {
		group.Go(func() {
			for i := first + offset; time.Now().Before(deadline) && failed.Load() == nil; i += atATime {
				_, err := k.send(ctx, to, i)
				switch {
				case err == nil:
					count.Add(1)
				case errors.Is(err, errUnanswered):
					lost.Add(1)
				case !apierrors.IsConflict(err): // with another client
					failed.Store(&err)
				}
			}
		})
	}
	group.Wait()
	b.turn += int(count.Load())
	if err := failed.Load(); err != nil {
		return 0, 0, *err
	}
	if count.Load() == 0 {
		return 0, 0, fmt.Errorf("no answer within %s", b.load)
	}
	return float64(count.Load()), float64(lost.Load()), nil
}

// computed is the CPU time that the contenders' processes have used.
func computed(all []contender) ([]time.Duration, error) {
	times := make([]time.Duration, len(all))
	for i, c := range all {
		if c.pid == 0 {
			continue
		}
		var err error
		if times[i], err = rotation.CPUOf(c.pid); err != nil {
			return nil, err
		}
	}
	return times, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

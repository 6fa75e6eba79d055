// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// fault is something that goes wrong.
type fault struct {
	name string
	// expect is what must come of it, in a sentence. do asserts it.
	expect string
	// alone: it is about what the rows share, or takes all of the machine.
	alone bool
	do    func(*scene)
}

// What is expected of several rows.
const (
	throughOutage = "right; what was told meanwhile is told in Events afterwards, each once, and the audit sees what happened meanwhile"
	withoutStore  = "fails closed through that API server; right as soon as all is there again; what was told meanwhile is told in Events, each once"
	byTheTick     = "said once; edges are told by the tick, and by events again without a restart"
)

// Where a row says "right", all of the stream's questions were answered, and
// rightly; "fails closed" means that there may be no answer meanwhile. A wrong
// answer fails every row. So does an edge that is told twice or never, what
// does not go back to what it was (goroutines, descriptors), and memory beyond
// the chart's limits: see scene.
func faults() []fault {
	return []fault{
		{"kill -9 of the webhook, ten times", "fails closed while it is away; right as soon as it runs again", true, killWebhook},
		{"kill -9 of the agent, at any moment of a change", "what is wrong when it starts again is told, once; what was mended meanwhile is not told of", false, killAgent},
		{"API server refuses connections", throughOutage, false, badAPI((*proxy).refuse, true)},
		{"API server silent: packets get lost", throughOutage, false, badAPI((*proxy).freeze, true)},
		{"API server slow: each answer 2 s late", throughOutage + "; nothing is complained of", false, badAPI((*proxy).delay, false)},
		{"API server answers 429 with Retry-After", throughOutage, false, badAPI(answering(tooMany), true)},
		{"API server answers 500", throughOutage, false, badAPI(answering(broken), true)},
		{"API server answers garbage", throughOutage, false, badAPI(answering(garbage), true)},
		{"API server cuts answers off", throughOutage + "; what was stored without an answer is not stored twice", false, badAPI((*proxy).cut, true)},
		{"API server killed and started anew", withoutStore, true, killAPIServer},
		{"etcd refuses connections", withoutStore, true, loseEtcd((*tcpProxy).refuse)},
		{"etcd silent", withoutStore, true, loseEtcd((*tcpProxy).freeze)},
		{"disk full at logging", "right; edges and refusals are metrics and Events all the same", false, diskFull},
		{"log read by nobody: the pipe is full", "fails closed at the most; right again as soon as somebody reads", false, logStuck},
		{"clock jumps, both ways, years", "verdicts go by the clock there is, also remembered ones; each edge once; alive all the time; as before when the clock is", true, clockJumps},
		{"no inotify instances, later given back", byTheTick, false, withoutInotify("/proc/sys/user/max_inotify_instances", "The kernel gives no inotify instance")},
		{"no inotify watches, later given back", byTheTick, false, withoutInotify("/proc/sys/user/max_inotify_watches", "The kernel gives no more watches")},
		{"descriptors of the webhook used up", "who is connected gets right answers, others wait; right for all without a restart", false, webhookDescriptors},
		{"descriptors of the agent used up", "could not verify, no violation; cleared once there are some again", false, agentDescriptors},
		{"serving certificate garbage", "right with the last good one; said once", true, servingGarbage},
		{"serving certificate expired", "not ready, fails closed; right without a restart once it is replaced", true, servingExpired},
		{"configuration garbage, of eight kinds", "right by the last good one; each kind said once; as before when it is mended", false, badConfiguration},
		{"two leaders of the audit", "each tells each edge once; one steps down, and shows no findings any more; admission right in both", false, twoLeaders},
		{"10,000 requests at once", "no wrong answer; 500 are taken at a time, who waits too long is seen off; the chart's memory is enough; right for all after that", true, manyRequests},
		{"slow-loris: 700 clients that send a byte a second", "they are seen off while they still send; right for all others after that", false, slowClients},
	}
}

// row is a row of the table at the end.
type row struct{ name, expect, figures, result string }

// TestFaults is the table.
func TestFaults(t *testing.T) {
	all := faults()
	rows := make([]row, len(all))
	t.Cleanup(func() { tell(rows) }) // after all rows, also those beside each other
	for i, f := range all {
		t.Run(f.name, func(t *testing.T) {
			if !f.alone {
				t.Parallel()
			}
			began := time.Now()
			t.Log("expected: " + f.expect)
			s := newScene(t, i)
			rows[i] = row{name: f.name, expect: f.expect, result: "failed"}
			t.Cleanup(func() {
				rows[i].figures = strings.Join(append(s.figures, time.Since(began).Round(time.Second).String()), "; ")
				switch {
				case t.Skipped():
					rows[i].result = "left out"
				case !t.Failed():
					rows[i].result = "as expected"
				}
			})
			f.do(s)
			s.settle()
		})
	}
}

func tell(rows []row) {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nFAULT\tRESULT\tEXPECTED")
	for _, r := range rows {
		if r.name == "" {
			continue // not chosen by -run
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.name, r.result, r.expect)
		if r.figures != "" {
			fmt.Fprintf(table, "  %s\n", r.figures)
		}
	}
	_ = table.Flush()
}

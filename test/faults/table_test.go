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

// fault is a row of the table.
type fault struct {
	name string
	// expect says in a sentence what must happen. do asserts it.
	expect string
	// alone: the row affects what all rows share, or needs the whole machine.
	alone bool
	do    func(*scene)
}

// Expectations that several rows share.
const (
	duringOutage = "right; what was logged during the outage becomes Events afterwards, each once, " +
		"and the audit reports what happened"
	serverOutage = "fails closed through that API server; right as soon as it is back; " +
		"what was logged meanwhile becomes Events, each once"
	byPolling        = "logged once; the agent polls, and uses inotify events again without a restart"
	connectionHidden = "what fails in an outage is reported after it, once, and is not resolved in the next one; " +
		"nothing else is reported"
	idleClosed = "idle connections are closed; every write through the API server is answered; " +
		"new clients and probes are, within three tries"
)

// In this table, "right" means that all of the stream's questions were answered correctly; "fails
// closed" means that some may get no answer during the fault. Every row also fails after a wrong
// answer, a change that is logged twice or never, goroutines or descriptors that do not return to
// their number before, and memory above the chart's limits: see scene.
func faults() []fault {
	return []fault{
		{
			"kill -9 of the webhook, ten times",
			"fails closed while it is down; right as soon as it runs again",
			true, killWebhook,
		},
		{
			"kill -9 of the agent, at a random moment of a change",
			"what is wrong when it starts again is logged, once; what was repaired meanwhile is not",
			false, killAgent,
		},
		{"API server refuses connections", duringOutage, false, badAPI((*proxy).refuse, true)},
		{"API server silent: packets are dropped", duringOutage, false, badAPI((*proxy).freeze, true)},
		{
			"API server slow: each response 2 s late",
			duringOutage + "; no warning",
			false, badAPI((*proxy).delay, false),
		},
		{"API server answers 429 with Retry-After", duringOutage, false, badAPI(answering(tooMany), true)},
		{"API server answers 500", duringOutage, false, badAPI(answering(broken), true)},
		{"API server answers garbage", duringOutage, false, badAPI(answering(garbage), true)},
		{
			"API server cuts responses off",
			duringOutage + "; what was stored without a response is not stored twice",
			false, badAPI((*proxy).cut, true),
		},
		{"API server killed and restarted", serverOutage, true, killAPIServer},
		{"etcd refuses connections", serverOutage, true, loseEtcd((*tcpProxy).refuse)},
		{"etcd silent", serverOutage, true, loseEtcd((*tcpProxy).freeze)},
		{"disk full while logging", "right; changes and refusals are still in metrics and Events", false, diskFull},
		{
			"log not read: the pipe is full",
			"at worst fails closed; right again as soon as the log is read",
			false, logStuck,
		},
		{
			"clock jumps by years, forward and back",
			"verdicts follow the new clock, also for objects that were checked before; each change logged once; " +
				"always alive; as before when the clock is reset",
			true, clockJumps,
		},
		{"no inotify instances, later restored", byPolling, false,
			withoutInotify("/proc/sys/user/max_inotify_instances", "Cannot create an inotify instance")},
		{"no inotify watches, later restored", byPolling, false, withoutInotify("/proc/sys/user/max_inotify_watches",
			"Cannot watch more directories")},
		{
			"file descriptors of the webhook exhausted",
			"connected clients get right answers, others wait; right for all afterwards without a restart",
			false, webhookDescriptors,
		},
		{
			"file descriptors of the agent exhausted",
			"could not verify, no violation; resolved once there are descriptors again",
			false, agentDescriptors,
		},
		{"serving certificate invalid", "right with the last valid one; logged once each", true, servingGarbage},
		{"serving certificate expired", "not ready, fails closed; right without a restart once it is replaced", true, servingExpired},
		{
			"configuration invalid in eight ways",
			"right with the last valid one; each logged once; as before when it is repaired",
			false, badConfiguration,
		},
		{
			"two leaders of the audit",
			"each logs each change once; one steps down and has no findings any more",
			false, twoLeaders,
		},
		{
			"another leader of the audit, while a finding is active",
			"the first one reports the finding as new, the second one as present at start; what begins later is new",
			false, nextLeader,
		},
		{
			"10,000 requests at once",
			"no wrong answer; at most 500 connections at a time; clients that wait too long are closed; " +
				"memory within the chart's limit; right for all after that",
			true, manyRequests,
		},
		{"500 and 2,000 idle connections, from one address", idleClosed, true, idleClients(oneAddress, false)},
		{"500 and 2,000 idle connections, from many addresses", idleClosed, true, idleClients(manyAddresses, false)},
		{"500 and 2,000 idle connections, from one address, with client certificates", idleClosed, true,
			idleClients(oneAddress, true)},
		{"500 and 2,000 idle connections, from many addresses, with client certificates", idleClosed, true,
			idleClients(manyAddresses, true)},
		{
			"slow-loris: 700 clients that send a byte a second",
			"they are closed while they still send; right for all others after that",
			false, slowClients,
		},
	}
}

// connectionFaults are those of the check of the connection to the kubelet. A connection that fails is reported after 9
// minutes, so each takes a quarter of an hour, and only make e2e-hop runs them.
func connectionFaults() []fault {
	return []fault{
		{"API server refuses connections", connectionHidden, false,
			badConnection(throughProxy((*proxy).refuse, false))},
		{"API server silent", connectionHidden, false,
			badConnection(throughProxy((*proxy).freeze, false))},
		{
			"API server slow",
			"a failure and its repair are reported as usual, each once",
			false, badConnection(throughProxy((*proxy).delay, true)),
		},
		{"API server answers 429 with Retry-After", connectionHidden, false,
			badConnection(throughProxy(answering(tooMany), false))},
		{"API server answers 503", connectionHidden, false,
			badConnection(throughProxy(answering(unavailable), false))},
		{"the agent's token is not accepted", connectionHidden, false, badConnection(invalidToken)},
		{"the agent's Pod deleted and recreated", connectionHidden, false, badConnection(podDeleted)},
	}
}

// row is a row of the table of results.
type row struct{ name, expect, figures, result string }

// TestFaults runs the table.
func TestFaults(t *testing.T) { runFaults(t, faults(), 0) }

// TestConnectionFaults runs the table of the check of the connection.
func TestConnectionFaults(t *testing.T) { runFaults(t, connectionFaults(), len(faults())) }

// runFaults runs a table. The scene of each fault has a number of its own, from first on.
func runFaults(t *testing.T, all []fault, first int) {
	t.Helper()
	rows := make([]row, len(all))
	t.Cleanup(func() { printRows(rows) }) // after all rows, parallel ones included
	for i, f := range all {
		t.Run(f.name, func(t *testing.T) {
			if !f.alone {
				t.Parallel()
			}
			began := time.Now()
			t.Log("expected: " + f.expect)
			s := newScene(t, first+i)
			rows[i] = row{name: f.name, expect: f.expect, result: "failed"}
			t.Cleanup(func() {
				rows[i].figures = strings.Join(append(s.figures, time.Since(began).Round(time.Second).String()), "; ")
				switch {
				case t.Skipped():
					rows[i].result = "skipped"
				case !t.Failed():
					rows[i].result = "as expected"
				}
			})
			f.do(s)
			s.checkRest()
		})
	}
}

func printRows(rows []row) {
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

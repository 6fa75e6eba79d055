// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
)

// outcome returns the outcome of a Node whose requirement of TLS has a reason; empty: it passes.
func outcome(node string, reason finding.Reason) Outcome {
	o := Outcome{Node: node, UID: "uid of " + node}
	if reason == "" {
		return o
	}
	for i, requirement := range check.NodeKubeletRequirements() {
		r := finding.Result{
			Requirement: requirement, Subject: o.subject(), Reason: reason, Outcome: reason.Outcome(), Message: "why",
			Remedy: "how",
		}
		if i > 0 && reason.Outcome() == finding.Fail {
			r.Outcome = finding.Unknown // it needs TLS
		}
		if i == 0 || reason.Outcome() != finding.Warn {
			o.Results = append(o.Results, r)
		}
	}
	return o
}

func excused(o Outcome) Outcome {
	o.excused = true
	return o
}

// many returns outcomes of n Nodes.
func many(n int, prefix string, reason finding.Reason) (all []Outcome) {
	for i := range n {
		all = append(all, outcome(fmt.Sprintf("%s-%04d", prefix, i), reason))
	}
	return all
}

// ofTLS formats the results about TLS.
func ofTLS(results []finding.Result) (lines []string) {
	for _, r := range results {
		if r.Requirement.Aspect() == finding.TLS {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s: %s %s", r.Subject, r.Outcome, r.Reason)))
		}
	}
	return lines
}

func TestSummary(t *testing.T) {
	cases := map[string]struct {
		outcomes []Outcome
		want     []string
	}{
		"no Nodes":  {nil, []string{"Node: notApplicable"}},
		"all pass":  {many(5000, "n", ""), []string{"Node: pass"}},
		"one fails": {append(many(5, "n", ""), outcome("bad", finding.KubeletNotTLS)), []string{"Node bad: fail KubeletNotTLS", "Node: pass"}},
		"one warns": {append(many(5, "n", ""), outcome("bad", finding.ReadOnlyPortOpen)), []string{"Node bad: warn ReadOnlyPortOpen", "Node: pass"}},
		"unreachable": {
			append(many(5, "n", ""), many(3, "u", finding.KubeletUnreachable)...),
			[]string{"Node: unknown KubeletUnreachable", "Node: pass"},
		},
		"unreachable, and not ready": {
			append(many(5, "n", ""), excused(outcome("u", finding.KubeletUnreachable))),
			[]string{"Node: unknown NotChecked", "Node: pass"},
		},
		"not ready, but it fails": {
			append(many(5, "n", ""), excused(outcome("bad", finding.KubeletNotTLS))),
			[]string{"Node bad: fail KubeletNotTLS", "Node: pass"},
		},
		"a refused address": {
			[]Outcome{outcome("a", finding.NodeAddressUnusable)}, []string{"Node: unknown NodeAddressUnusable"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			results := newSummary().results(c.outcomes, pkitest.Now())
			if d := cmp.Diff(c.want, ofTLS(results)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestSummaryIsSmall: the number of results is bounded whatever the Nodes do.
func TestSummaryIsSmall(t *testing.T) {
	reasons := []finding.Reason{
		"", finding.KubeletNotTLS, finding.KubeletUnreachable, finding.ReadOnlyPortOpen, finding.NodeAddressUnusable,
		finding.KubeletHasNoCertificate, finding.KubeletIdentityUnexpected, finding.KubeletRefusesHandshake,
	}
	s, now := newSummary(), pkitest.Now()
	for round := range 20 {
		var outcomes []Outcome
		for i := range 5000 {
			outcomes = append(outcomes, outcome(fmt.Sprintf("n-%d", i+round*100), reasons[(i+round)%len(reasons)]))
		}
		results := s.results(outcomes, now)
		if limit := len(s.classes) * (2*maxNamed + len(reasons) + 2); len(results) > limit {
			t.Fatalf("round %d: %d results, more than %d", round, len(results), limit)
		}
		for _, r := range results {
			if len(r.Message) > 500 {
				t.Fatalf("the message has %d bytes: %q", len(r.Message), r.Message)
			}
		}
		now = now.Add(Every)
	}
	for class, named := range s.named {
		if len(named) > maxNamed {
			t.Errorf("%t: %d Nodes are named", class, len(named))
		}
	}
}

// warns returns the outcome of a Node whose identity is a warning.
func warns(node string) Outcome {
	o := Outcome{Node: node}
	o.Results = []finding.Result{{
		Requirement: finding.NodeKubelet.Requires(finding.Identity), Subject: o.subject(), Outcome: finding.Warn,
		Reason: finding.KubeletIdentityUnexpected, Message: "why", Remedy: "how",
	}}
	return o
}

// TestWarningsLeaveRoomForFailures: with thousands of Nodes that warn, as kubeadm leaves them, each Node that fails
// later has a finding of its own, which is resolved when it is repaired.
func TestWarningsLeaveRoomForFailures(t *testing.T) {
	s, tracked, now := newSummary(), tracker.New(3*time.Second), pkitest.Now()
	all := make([]Outcome, 3000)
	for i := range all {
		all[i] = warns(fmt.Sprintf("n-%04d", i))
	}
	late := []int{2000, 2001, 50} // the last one is among those that are named for their warning
	steps := []struct {
		change func()
		want   []string
	}{
		{func() {}, nil},
		{func() { all[late[0]] = outcome(all[late[0]].Node, finding.KubeletNotTLS) }, []string{"Finding active Node n-2000"}},
		{func() { all[late[1]] = outcome(all[late[1]].Node, finding.KubeletNotTLS) }, []string{"Finding active Node n-2001"}},
		{func() { all[late[2]] = outcome(all[late[2]].Node, finding.KubeletNotTLS) }, []string{"Finding active Node n-0050"}},
		{func() { all[late[0]] = warns(all[late[0]].Node) }, []string{"Finding resolved Node n-2000"}},
		{func() { all[late[2]] = warns(all[late[2]].Node) }, []string{"Finding resolved Node n-0050"}},
		{
			func() { all = slices.DeleteFunc(all, func(o Outcome) bool { return o.Node == "n-2001" }) },
			[]string{"Finding resolved Node n-2001"},
		},
	}
	for i, step := range steps {
		step.change()
		var got []string
		for range 10 {
			changes := tracked.Observe(tracker.Observation{
				At: now, Contents: [32]byte{byte(i)}, Sources: []tracker.Source{{Results: s.results(all, now)}},
				Scope: control.Cluster,
			})
			for _, n := range changes.Notices {
				if n.Finding.Reason == finding.KubeletNotTLS && n.Type != report.FindingStillActive {
					got = append(got, fmt.Sprint(n.Type, " ", n.Finding.Subject))
				}
			}
			now = now.Add(30 * time.Second)
		}
		if d := cmp.Diff(step.want, got); d != "" {
			t.Errorf("step %d (-want +got):\n%s", i, d)
		}
	}
	if n := len(s.named[canFail]); n > len(late) {
		t.Errorf("%d Nodes are named for failures", n)
	}
}

// TestClasses: no requirement has both warnings and failures, so a warning never takes the place of a failure.
func TestClasses(t *testing.T) {
	want := map[finding.Requirement]class{
		"node-kubelet/tls": canFail, "node-kubelet/serving-trusted": canFail, "node-kubelet/client-requested": canFail,
		"node-kubelet/identity": warnsOnly, "node-kubelet/read-only-port": warnsOnly,
	}
	if d := cmp.Diff(want, classes()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestSummaryEdges: with a tracker, each finding about a Node becomes active once and is resolved when the Node passes
// or is deleted, and never before.
func TestSummaryEdges(t *testing.T) {
	const bad = "bad"
	fails, passes := outcome(bad, finding.KubeletNotTLS), outcome(bad, "")
	unreachable := outcome(bad, finding.KubeletUnreachable)
	others, lost := many(5, "n", ""), many(3, "u", finding.KubeletUnreachable)
	with := func(all ...[]Outcome) []Outcome { return slices.Concat(append(all, others)...) }
	is := func(o ...Outcome) []Outcome { return o }
	overflow := func(reason finding.Reason, n int) []Outcome {
		return slices.Concat(many(maxNamed, "a", finding.KubeletNotTLS), many(n, "b", reason), others)
	}
	cases := map[string]struct {
		steps [][]Outcome // one each 5 minutes
		want  []string
	}{
		"repaired": {
			[][]Outcome{with(is(fails)), with(is(fails)), with(is(passes)), with(is(passes))},
			[]string{"0 Finding active Node bad", "2 Finding resolved Node bad"},
		},
		"repaired while others are unreachable": {
			[][]Outcome{with(is(fails), lost), with(is(fails), lost), with(is(passes), lost), with(is(passes), lost)},
			[]string{"0 Finding active Node bad", "2 Finding resolved Node bad"},
		},
		"deleted while others are unreachable": {
			[][]Outcome{with(is(fails), lost), with(lost), with(lost), with(lost), with(lost), with(lost)},
			[]string{"0 Finding active Node bad", "1 Finding resolved Node bad"},
		},
		"unreachable, then repaired": {
			[][]Outcome{with(is(fails)), with(is(unreachable)), with(is(unreachable)), with(is(passes))},
			[]string{"0 Finding active Node bad", "3 Finding resolved Node bad"},
		},
		"unreachable for long, then fails as before": {
			[][]Outcome{
				with(is(fails)), with(is(unreachable)), with(is(unreachable)), with(is(unreachable)), with(is(unreachable)),
				with(is(fails)),
			},
			[]string{"0 Finding active Node bad"},
		},
		"fails, passes for long, fails again": {
			[][]Outcome{
				with(is(fails)), with(is(passes)), with(is(passes)), with(is(passes)), with(is(passes)), with(is(passes)),
				with(is(fails)),
			},
			[]string{"0 Finding active Node bad", "1 Finding resolved Node bad", "6 Finding active Node bad"},
		},
		"more than can be named": {
			[][]Outcome{overflow(finding.KubeletNotTLS, 50), overflow(finding.KubeletNotTLS, 1), overflow("", 50)},
			[]string{"0 Finding active Node", "2 Finding resolved Node"},
		},
		"more than can be named, then unreachable": {
			[][]Outcome{
				overflow(finding.KubeletNotTLS, 50), overflow(finding.KubeletUnreachable, 50),
				overflow(finding.KubeletNotTLS, 50), overflow(finding.KubeletUnreachable, 50), overflow("", 50),
			},
			[]string{"0 Finding active Node", "4 Finding resolved Node"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, tracked, now := newSummary(), tracker.New(3*time.Second), pkitest.Now()
			var got []string
			for step, outcomes := range c.steps {
				results := s.results(outcomes, now)
				for range 10 {
					changes := tracked.Observe(tracker.Observation{
						At: now, Sources: []tracker.Source{{Results: results}}, Scope: control.Cluster,
					})
					for _, n := range changes.Notices {
						of := n.Finding.Subject
						if n.Finding.Reason != finding.KubeletNotTLS || n.Type == report.FindingStillActive {
							continue
						}
						if of.Name == bad || of.Name == "" {
							got = append(got, fmt.Sprint(step, " ", n.Type, " ", of))
						}
					}
					now = now.Add(30 * time.Second)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestAll: each Node has a result for each requirement.
func TestAll(t *testing.T) {
	for _, reason := range []finding.Reason{"", finding.KubeletNotTLS, finding.ReadOnlyPortOpen} {
		var answered []finding.Requirement
		for _, r := range outcome("a", reason).All() {
			answered = append(answered, r.Requirement)
			if r.Subject.Name != "a" {
				t.Errorf("the subject is %s", r.Subject)
			}
		}
		if d := cmp.Diff(check.NodeKubeletRequirements(), answered); d != "" {
			t.Errorf("%s (-want +got):\n%s", reason, d)
		}
	}
	if worst := outcome("a", finding.KubeletNotTLS).Worst(); worst != finding.Fail {
		t.Errorf("the worst outcome is %s", worst)
	}
	if worst := outcome("a", "").Worst(); worst != finding.Pass {
		t.Errorf("the worst outcome of a pass is %s", worst)
	}
}

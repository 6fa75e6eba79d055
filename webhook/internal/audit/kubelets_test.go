// SPDX-License-Identifier: Apache-2.0

package audit

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
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// kubeletResults returns a result with an outcome and reason for each requirement of a Node's kubelet.
func kubeletResults(node string, outcome finding.Outcome, reason finding.Reason) []finding.Result {
	var results []finding.Result
	for _, requirement := range check.NodeKubeletRequirements() {
		r := finding.Result{
			Requirement: requirement, Subject: finding.Subject{Kind: finding.KindNode, Name: node}, Outcome: outcome,
			Reason: reason,
		}
		if reason != "" {
			r.Message, r.Remedy = "why", "how"
		}
		results = append(results, r)
	}
	return results
}

// TestKubeletsUnknown: a kubelet that was not observed is never a pass, and does not change the verdict while another
// one was observed. One that fails does.
func TestKubeletsUnknown(t *testing.T) {
	type want struct {
		status  control.Status
		outcome finding.Outcome
		met     bool
	}
	good := kubeletResults("worker-1", finding.Pass, "")
	with := func(outcome finding.Outcome, reason finding.Reason) []finding.Result {
		return append(kubeletResults("worker-2", outcome, reason), good...)
	}
	cases := map[string]struct {
		kubelets []finding.Result
		want     want
	}{
		"not checked":     {nil, want{control.Compliant, finding.Unknown, true}},
		"all pass":        {good, want{control.Compliant, finding.Pass, true}},
		"one unreachable": {with(finding.Unknown, finding.KubeletUnreachable), want{control.Compliant, finding.Unknown, true}},
		"not asked yet": {
			kubeletResults("", finding.Unknown, finding.NotObserved), want{control.CouldNotVerify, finding.Unknown, false},
		},
		"Nodes not listed": {
			kubeletResults("", finding.Unknown, finding.Unreadable), want{control.CouldNotVerify, finding.Unknown, false},
		},
		"all unreachable": {
			kubeletResults("", finding.Unknown, finding.KubeletUnreachable),
			want{control.CouldNotVerify, finding.Unknown, false},
		},
		"all not ready": {
			kubeletResults("", finding.Unknown, finding.NotChecked), want{control.Compliant, finding.Unknown, true},
		},
		"no Nodes":    {kubeletResults("", finding.NotApplicable, ""), want{control.Compliant, finding.NotApplicable, true}},
		"one warns":   {with(finding.Warn, finding.KubeletIdentityUnexpected), want{control.Compliant, finding.Warn, true}},
		"one fails":   {with(finding.Fail, finding.KubeletNotTLS), want{control.NotCompliant, finding.Fail, false}},
		"one deleted": {with(finding.NotApplicable, ""), want{control.Compliant, finding.Pass, true}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			subject, states := observable(t)
			seen := observe(subject, states, effective(), c.kubelets, nil, pkitest.Now())
			verdict := control.ByID(control.UseHTTPS).Judge(control.Cluster, seen.results())
			for _, a := range verdict.Answers {
				if a.Family() != finding.NodeKubelet {
					continue
				}
				if got := (want{verdict.Status, a.Outcome, a.Met}); got != c.want {
					t.Errorf("%s: got %+v, want %+v", a.Requirement, got, c.want)
				}
			}
		})
	}
}

// TestKubeletsOfAHostedCluster: if the control plane is hosted elsewhere, the control is not applicable, and says so.
// The kubelets of the workers are here: their findings are reported.
func TestKubeletsOfAHostedCluster(t *testing.T) {
	subject, states := subject(), healthy(t)
	set(t, states[infrastructure], "External", "status", "controlPlaneTopology")
	for _, o := range []follow.Object{servingCert, kubeletClient, configMap, service} {
		states[o] = follow.State{Known: true}
	}
	kubelets := slices.Concat(
		kubeletResults("worker-1", finding.Pass, ""), kubeletResults("worker-2", finding.Fail, finding.KubeletNotTLS),
	)
	seen := observe(subject, states, effective(), kubelets, nil, pkitest.Now())
	got := found(seen, func(finding.Result) string { return "" })
	if d := cmp.Diff([]string{fmt.Sprintf("%d KubeletNotTLS Node worker-2", fromKubelets)}, got); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	verdict := control.ByID(control.UseHTTPS).Judge(control.Cluster, seen.results())
	if verdict.Status != control.NotApplicable {
		t.Errorf("the verdict is %s", verdict.Status)
	}
	for _, a := range verdict.Answers {
		isWhy := strings.Contains(a.Results[0].Message, "controlPlaneTopology is External")
		if a.Requirement == verdict.Control.Platform && !isWhy {
			t.Errorf("the report does not say why: %q", a.Results[0].Message)
		}
	}
}

// TestKubeletEdges: a finding about a Node becomes active after the kubelets were asked several times, and is resolved
// when the Node passes or is deleted, but not while it is unknown.
func TestKubeletEdges(t *testing.T) {
	pass := kubeletResults("worker-1", finding.Pass, "")
	fail := kubeletResults("worker-1", finding.Fail, finding.KubeletNotTLS)
	unreachable := append(
		kubeletResults("worker-1", finding.Unknown, finding.KubeletUnreachable),
		kubeletResults("worker-2", finding.Pass, "")...,
	)
	for name, c := range map[string]struct {
		steps [][]finding.Result // one each 2 minutes
		want  []report.NoticeType
	}{
		"for a moment":   {[][]finding.Result{pass, fail, pass, pass}, nil},
		"lasts, repairs": {[][]finding.Result{pass, fail, fail, fail, pass}, []report.NoticeType{report.FindingActive, report.FindingResolved}},
		"deleted": {
			[][]finding.Result{pass, fail, fail, fail, kubeletResults("worker-1", finding.NotApplicable, "")},
			[]report.NoticeType{report.FindingActive, report.FindingResolved},
		},
		"unreachable": {
			[][]finding.Result{pass, fail, fail, fail, unreachable},
			[]report.NoticeType{report.FindingActive},
		},
		"not asked recently": {
			[][]finding.Result{pass, fail, fail, fail, kubeletResults("", finding.Unknown, finding.NotObserved)},
			[]report.NoticeType{report.FindingActive},
		},
	} {
		t.Run(name, func(t *testing.T) {
			subject, states := observable(t)
			tracked := tracker.New(storedPatience)
			var got []report.NoticeType
			at := pkitest.Now()
			for _, kubelets := range c.steps {
				for range 4 { // the audit checks more often than the kubelets are asked
					seen := observe(subject, states, effective(), kubelets, nil, at)
					for _, n := range tracked.Observe(seen.Observation).Notices {
						if n.Finding.Reason == finding.KubeletNotTLS {
							got = append(got, n.Type)
						}
					}
					at = at.Add(30 * time.Second)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestNoKubeletObserved: if Nodes cannot be listed, or no kubelet answers, from the start or later, there is a finding,
// and the verdict is "could not verify".
func TestNoKubeletObserved(t *testing.T) {
	pass := kubeletResults("", finding.Pass, "")
	for name, c := range map[string]struct {
		steps [][]finding.Result // one each 2 minutes
		want  []string
	}{
		"Nodes cannot be listed": {
			slices.Repeat([][]finding.Result{kubeletResults("", finding.Unknown, finding.Unreadable)}, 4),
			[]string{"Finding active Unreadable at start: true", "Could not verify at start: true"},
		},
		"no kubelet answers": {
			slices.Repeat([][]finding.Result{kubeletResults("", finding.Unknown, finding.KubeletUnreachable)}, 4),
			[]string{"Finding active KubeletUnreachable at start: true", "Could not verify at start: true"},
		},
		"later": {
			append([][]finding.Result{pass}, slices.Repeat(
				[][]finding.Result{kubeletResults("", finding.Unknown, finding.KubeletUnreachable)}, 4)...),
			[]string{
				"Compliant at start: true", "Finding active KubeletUnreachable at start: false",
				"Could not verify at start: false",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			subject, states := observable(t)
			tracked, at := tracker.New(storedPatience), pkitest.Now()
			var got []string
			for _, kubelets := range c.steps {
				for range 4 {
					seen := observe(subject, states, effective(), kubelets, nil, at)
					for _, n := range tracked.Observe(seen.Observation).Notices {
						if n.Control.ID == control.UseHTTPS || n.Finding.Requirement != "" {
							what := strings.TrimSpace(fmt.Sprint(n.Type, " ", n.Finding.Reason))
							got = append(got, fmt.Sprint(what, " at start: ", n.AtStart))
						}
					}
					at = at.Add(30 * time.Second)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("notices (-want +got):\n%s", d)
			}
		})
	}
}

// namedNodes knows the UID of each Node but one.
type namedNodes struct{}

func (namedNodes) Results() []finding.Result { return nil }

func (namedNodes) UID(node string) string {
	if node == "unknown" {
		return ""
	}
	return "uid of " + node
}

// TestKubeletObject: a notice about a Node is about that Node, one about several, or about a Node whose UID is not
// known, is about the audit.
func TestKubeletObject(t *testing.T) {
	self := report.Object{Kind: "Lease", Name: "audit"}
	a := Auditor{Kubelets: namedNodes{}, Self: self}
	for node, want := range map[string]report.Object{
		"worker-1": {APIVersion: "v1", Kind: "Node", Name: "worker-1", UID: "uid of worker-1"},
		"":         self,
		"unknown":  self,
	} {
		notice := report.Notice{Finding: kubeletResults(node, finding.Fail, finding.KubeletNotTLS)[0]}
		if got := a.objectOf(notice, &observation{}); got != want {
			t.Errorf("%q: got %+v, want %+v", node, got, want)
		}
	}
}

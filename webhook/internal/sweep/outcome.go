// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"slices"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Outcome is the outcome of one Node. It is small: there may be thousands.
type Outcome struct {
	Node, UID string
	// Results other than passes.
	Results []finding.Result
	// excused: the Node's kubelet may be unreachable. seen is how often in a row the results had the same reasons.
	excused bool
	seen    int
	// failing has the requirements that failed, and were not seen to be met since.
	failing []finding.Requirement
	// shown are the results to report, see [Outcome.follow].
	shown []finding.Result
}

// outcomeOf checks the answer of a Node's kubelet.
func outcomeOf(node Node, results []finding.Result) Outcome {
	outcome := Outcome{Node: node.Name, UID: node.UID, excused: node.Excuse != "", seen: 1}
	for _, r := range results {
		if r.Outcome != finding.Pass {
			outcome.Results = append(outcome.Results, r)
		}
	}
	return outcome
}

// follow returns the outcome as the one that follows the last outcome of the same Node, which is nil for a new Node.
//
// A kubelet that restarts may fail once, so a requirement is reported to fail if it failed at least twice in a row; an
// unknown result in between does not count. Until then it is reported as before, or as not observed if it is new. This
// includes the requirements that are unknown because of the failed one.
func (o Outcome) follow(last *Outcome) Outcome {
	var before []finding.Requirement
	if last != nil {
		before = last.failing
		if slices.Equal(last.reasons(), o.reasons()) {
			o.seen = last.seen + 1
		}
	}
	once := map[finding.Reason]bool{} // the reasons of failures that were seen once
	o.failing = nil
	for _, r := range o.Results {
		again := slices.Contains(before, r.Requirement)
		if r.Outcome == finding.Fail || r.Outcome == finding.Unknown && again {
			o.failing = append(o.failing, r.Requirement)
		}
		if r.Outcome == finding.Fail && !again {
			once[r.Reason] = true
		}
	}
	o.shown = nil
	for _, r := range o.Results {
		isOnce := r.Outcome == finding.Fail && !slices.Contains(before, r.Requirement)
		switch {
		case !isOnce && (r.Outcome != finding.Unknown || !once[r.Reason]):
			o.shown = append(o.shown, r)
		case last == nil:
			o.shown = append(o.shown, notConfirmed(r))
		default:
			if earlier := last.reported().of(r.Requirement); earlier != nil {
				o.shown = append(o.shown, *earlier)
			}
		}
	}
	return o
}

// notConfirmed returns the result of a requirement that failed once.
func notConfirmed(r finding.Result) finding.Result {
	return finding.Result{
		Requirement: r.Requirement, Subject: r.Subject, Reason: finding.NotObserved,
		Message: "the kubelet was asked once only, and is asked again before a failure is reported",
		Remedy:  "wait a few minutes; if this persists, read the audit's log",
	}
}

// reported returns the outcome with the results to report.
func (o Outcome) reported() Outcome {
	o.Results = o.shown
	return o
}

// unconfirmed reports whether a requirement failed, and that is not reported yet.
func (o Outcome) unconfirmed() bool {
	return slices.ContainsFunc(o.Results, func(r finding.Result) bool {
		shown := o.reported().of(r.Requirement)
		return r.Outcome == finding.Fail && (shown == nil || shown.Outcome != finding.Fail)
	})
}

// urgency orders Nodes that must be asked again: first those whose failure is not reported yet.
func (o Outcome) urgency() int {
	switch worst := o.Worst(); {
	case o.unconfirmed():
		return 0
	case worst == finding.Fail:
		return 1
	case worst == finding.Unknown:
		return 2
	}
	return 3
}

func (o Outcome) subject() finding.Subject {
	return finding.Subject{Kind: finding.KindNode, Name: o.Node}
}

// All returns a result for each requirement, passes included.
func (o Outcome) All() []finding.Result {
	var all []finding.Result
	for _, requirement := range check.NodeKubeletRequirements() {
		if r := o.of(requirement); r != nil {
			all = append(all, *r)
			continue
		}
		all = append(all, finding.Result{Requirement: requirement, Subject: o.subject(), Outcome: finding.Pass})
	}
	return all
}

// of returns the result of a requirement, nil for a pass.
func (o Outcome) of(requirement finding.Requirement) *finding.Result {
	for i := range o.Results {
		if o.Results[i].Requirement == requirement {
			return &o.Results[i]
		}
	}
	return nil
}

// Worst returns the worst outcome of the Node's requirements: fail, unknown (not counting what was not checked), warn,
// pass.
func (o Outcome) Worst() finding.Outcome {
	findings := finding.Findings(o.Results) // worst first
	if len(findings) == 0 {
		return finding.Pass
	}
	return findings[0].Outcome
}

// reasons are the reasons of the findings, each once.
func (o Outcome) reasons() []finding.Reason {
	var reasons []finding.Reason
	for _, f := range finding.Findings(o.Results) {
		if !slices.Contains(reasons, f.Reason) {
			reasons = append(reasons, f.Reason)
		}
	}
	return reasons
}

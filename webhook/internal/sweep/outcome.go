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

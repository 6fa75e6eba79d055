// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Action is the configured response to a change that breaks the rule for an object.
type Action struct {
	// At names the object.
	At finding.Subject
	// Refuses: the change is refused. Otherwise Name is the configured action: Warn or Audit.
	Refuses bool
	Name    string
}

// Check reports whether the guard must refuse such changes. Warn and Audit are choices of the
// administrator, not faults: the result is not applicable and names the action.
func (a Action) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(finding.Guard, actionChecks(), a, now), time.Time{}
}

func actionChecks() []check[Action] {
	return []check[Action]{{
		finding.Action, nil, nil, func(a Action) finding.Subject { return a.At },
		func(a Action, _ time.Time) []finding.Result {
			if a.Refuses {
				return nil
			}
			return notApplicable("the action is " + a.Name + ": changes that break the rule are not refused")
		},
	}}
}

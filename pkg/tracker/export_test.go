// SPDX-License-Identifier: Apache-2.0

package tracker

import "github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"

// States returns the states of all findings that the tracker knows.
func (t *Tracker) States() map[finding.ID]string {
	states := map[finding.ID]string{}
	for id, f := range t.findings {
		states[id] = [...]string{pending: "pending", active: "active", hidden: "hidden", resolving: "resolving"}[f.state]
	}
	return states
}

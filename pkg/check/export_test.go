// SPDX-License-Identifier: Apache-2.0

package check

import "github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"

// Listed is a check of the catalogue, for tests over all of them.
type Listed struct {
	Requirement finding.Requirement
	Needs       []finding.Requirement
	Reasons     []finding.Reason
}

// Catalogue returns all checks, those of each family in the order in which they run.
func Catalogue() []Listed {
	var all []Listed
	for _, known := range catalogue() {
		all = append(all, Listed{known.requirement, known.needs, known.reasons})
	}
	return all
}

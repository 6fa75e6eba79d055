// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// secretIdentity: the certificate has the subject that is configured for the Secret, by the rule of the files on a node
// (fileIdentity). A platform issues its kubelet client certificates with one subject, for which its kubelets have a
// permission.
func secretIdentity(s secretFacts, _ time.Time) []finding.Result {
	if s.want.Identity == (layout.Identity{}) {
		return notApplicable("no identity is configured for the certificate (identity)")
	}
	return identifies(s.pair, []layout.Identity{s.want.Identity}, "which is not the configured identity")
}

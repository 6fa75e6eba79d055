// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// secretExists: CIS OpenShift 1.2.4 (1.2.2 from v1.9) looks the Secret up.
// Without it the server that serves with it has no certificate at its next
// start.
func secretExists(s protectedSecret, _ time.Time) []finding.Finding {
	if s.exists() {
		return nil
	}
	return one(finding.SecretMissing, s.want.at(""),
		"there is no such Secret",
		"see that whoever renews it creates it again")
}

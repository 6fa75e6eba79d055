// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// kubeletReadOnlyPort: nothing listens on the kubelet's read-only port, which
// serves without TLS and asks nobody who they are (readOnlyPort in Kubernetes
// pkg/kubelet/apis/config, 0 by default; CIS OpenShift 4.2).
func kubeletReadOnlyPort(k Kubelet, _ time.Time) []finding.Finding {
	if !k.answer.ReadOnlyOpen {
		return nil
	}
	return one(finding.ReadOnlyPortOpen, k.answer.ReadOnlyAt,
		"the port takes connections: it is that of the kubelet's read-only server, which knows neither TLS nor authentication",
		"set readOnlyPort to 0 in the kubelet's configuration")
}

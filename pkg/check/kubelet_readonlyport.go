// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// kubeletReadOnlyPort: nothing listens on the kubelet's read-only port, which has no
// TLS and no authentication (readOnlyPort in Kubernetes
// pkg/kubelet/apis/config, 0 by default; CIS OpenShift 4.2).
func kubeletReadOnlyPort(k Kubelet, now time.Time) []finding.Result {
	switch {
	case k.known.ReadOnlyPort != 0 && (k.answer == nil || !k.answer.ReadOnlyOpen):
		return single(finding.ReadOnlyPortOpen, finding.File(k.known.ReadOnlyPortAt),
			fmt.Sprintf("the kubelet is configured with the read-only port %d (no TLS, no authentication)",
				k.known.ReadOnlyPort),
			"set readOnlyPort to 0 in the kubelet's configuration")
	case k.answer == nil:
		return kubeletTLS(k, now)
	case !k.answer.ReadOnlyOpen && !k.answer.Answered():
		return kubeletTLS(k, now) // if no port responds, a closed port proves nothing
	case !k.answer.ReadOnlyOpen:
		if k.answer.ReadOnlyErr != nil {
			return single(finding.KubeletUnreachable, k.answer.ReadOnlyAt,
				"cannot check whether the kubelet's read-only port is open: "+oneLine(k.answer.ReadOnlyErr),
				"check that the agent's Pod can reach the node's ports")
		}
		return nil
	}
	return single(finding.ReadOnlyPortOpen, k.answer.ReadOnlyAt,
		"the kubelet's read-only port is open (no TLS, no authentication)",
		"set readOnlyPort to 0 in the kubelet's configuration")
}

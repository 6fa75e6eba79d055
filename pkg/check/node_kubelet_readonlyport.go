// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// nodeKubeletReadOnlyPort: nothing listens on the kubelet's read-only port, as in kubeletReadOnlyPort. A firewall that
// blocks it hides the port from the control plane, but not from the Node's Pods.
func nodeKubeletReadOnlyPort(k NodeKubelet, now time.Time) []finding.Result {
	switch {
	case k.Answer == nil, !k.Answer.ReadOnlyOpen && !k.Answer.Answered():
		return nodeKubeletTLS(k, now) // if no port responds, a closed port proves nothing
	case k.Answer.ReadOnlyOpen:
		return single(finding.ReadOnlyPortOpen, k.at(),
			"the kubelet's read-only port is open (no TLS, no authentication)",
			"set readOnlyPort to 0 in the kubelet's configuration")
	case k.ReadOnlyFiltered:
		return single(finding.NotChecked, k.at(),
			"a firewall between the audit and the Node blocks the kubelet's read-only port",
			"check readOnlyPort in the kubelet's configuration")
	case k.Answer.ReadOnlyErr != nil:
		return single(finding.KubeletUnreachable, k.at(),
			"cannot check whether the kubelet's read-only port is open: "+oneLine(k.Answer.ReadOnlyErr),
			"check that the audit's Pods can reach the Node's ports")
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// nodeKubeletTLS: the kubelet serves over TLS, for the same reasons as kubeletTLS. A kubelet that does not respond may
// be on a Node that is being replaced, or a firewall is in between, so the result is unknown then.
func nodeKubeletTLS(k NodeKubelet, now time.Time) []finding.Result {
	if k.Answer == nil {
		return single(finding.NodeAddressUnusable, k.at(), "the kubelet was not asked: "+k.NotAsked,
			"check who wrote the Node's status.addresses; the kubelet and the cloud controller manager do")
	}
	results := kubeletTLS(Kubelet{answer: k.Answer, configured: true}, now)
	for i := range results {
		switch results[i].Reason {
		case finding.KubeletUnreachable:
			results[i].Remedy = "check that the kubelet runs, and that the audit's Pods can reach it " +
				"(NetworkPolicies, firewalls: the kubelet's port, 10250 by default)"
			if k.Excuse != "" {
				results[i].Message += "; " + k.Excuse
			}
		case finding.KubeletHasNoCertificate:
			results[i].Message += k.because()
		default:
		}
	}
	return results
}

// because returns the cause of a missing or outdated certificate, as the end of a message.
func (k NodeKubelet) because() string {
	if k.Request == "" {
		return ""
	}
	return "; " + k.Request
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// kubeletReachable: the kubelet answers. That it does not may have a hundred
// reasons, from a restart to a firewall between it and us, so that nothing is
// known then.
func kubeletReachable(k Kubelet, _ time.Time) []finding.Finding {
	if k.answer.NotTLS || k.answer.Err == nil {
		return nil
	}
	return one(finding.KubeletUnreachable, k.answer.At,
		"no TLS handshake with the kubelet came about: "+oneLine(k.answer.Err),
		"see whether the kubelet runs, and whether the agent's Pod may reach it")
}

// kubeletSpeaksTLS: the kubelet serves over TLS, which is what the control is
// about in the end.
func kubeletSpeaksTLS(k Kubelet, _ time.Time) []finding.Finding {
	if !k.answer.NotTLS {
		return nil
	}
	return one(finding.KubeletNotTLS, k.answer.At,
		"what answers there does not speak TLS",
		"find out what listens on the kubelet's port; a kubelet always serves it over TLS")
}

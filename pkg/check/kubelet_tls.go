// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// kubeletSpeaksTLS: the kubelet serves over TLS, which is what the control is
// about in the end. That it does not answer may have a hundred reasons, from a
// restart to a firewall between it and us, so that nothing is known then.
func kubeletSpeaksTLS(k Kubelet, _ time.Time) []finding.Finding {
	switch {
	case k.answer.NotTLS:
		return one(finding.KubeletNotTLS, k.answer.At,
			"what answers there does not speak TLS",
			"find out what listens on the kubelet's port; a kubelet always serves it over TLS")
	case k.answer.Err != nil:
		return one(finding.KubeletUnreachable, k.answer.At,
			"no TLS handshake with the kubelet came about: "+oneLine(k.answer.Err),
			"see whether the kubelet runs, and whether the agent's Pod may reach it")
	}
	return nil
}

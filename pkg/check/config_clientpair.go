// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configClientPair: CIS OpenShift 1.2.4 (1.2.2 from v1.9) asks that
// kubelet-client-certificate and kubelet-client-key are set. Without them
// kube-apiserver shows kubelets no certificate at all.
func configClientPair(c Configuration, _ time.Time) []finding.Finding {
	var findings []finding.Finding
	for _, argument := range []struct {
		reason finding.Reason
		name   string
	}{
		{finding.ClientCertificateNotConfigured, kubeapiserver.KubeletClientCertificate},
		{finding.ClientKeyNotConfigured, kubeapiserver.KubeletClientKey},
	} {
		if value, _ := c.Config.Value(argument.name); value == "" {
			findings = append(findings, finding.Finding{
				Reason: argument.reason, Location: c.argument(argument.name),
				Message: argument.name + " is not set",
				Remedy:  "set it, or remove the override that unsets it (on OpenShift: spec.unsupportedConfigOverrides of kubeapiserver/cluster)",
			})
		}
	}
	return findings
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configClientCertificate and configClientKey: the benchmark requires that kubelet-client-certificate and
// kubelet-client-key are set. Without them kube-apiserver sends no certificate to kubelets.
func configClientCertificate(c Configuration, _ time.Time) []finding.Result {
	return configSet(c, kubeapiserver.KubeletClientCertificate, finding.ClientCertificateNotConfigured)
}

func configClientKey(c Configuration, _ time.Time) []finding.Result {
	return configSet(c, kubeapiserver.KubeletClientKey, finding.ClientKeyNotConfigured)
}

func configSet(c Configuration, argument string, reason finding.Reason) []finding.Result {
	if results := c.undecided(argument); results != nil {
		return results
	}
	if value, _ := c.Config.Value(argument); value != "" {
		return nil
	}
	return single(reason, c.argument(argument), argument+" is not set",
		"set "+argument+", or remove the override that unsets it "+
			"(on OpenShift: spec.unsupportedConfigOverrides of kubeapiserver/cluster)")
}

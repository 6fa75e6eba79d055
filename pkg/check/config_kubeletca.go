// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configKubeletCA: kubelet-certificate-authority is set (CIS OpenShift 1.2.6,
// 1.2.4 from v1.9). Without it kube-apiserver takes any certificate from who
// says that it is a kubelet. kubeadm leaves it out, and this warning then
// stands rightly.
func configKubeletCA(c Configuration, _ time.Time) []finding.Finding {
	if value, _ := c.Config.Value(kubeapiserver.KubeletCertificateAuthority); value != "" {
		return nil
	}
	return one(finding.KubeletCANotConfigured, c.argument(kubeapiserver.KubeletCertificateAuthority),
		"kubelet-certificate-authority is not set, so the kubelets' own certificates are not verified",
		"set it to the CA bundle that signs the kubelets' serving certificates")
}

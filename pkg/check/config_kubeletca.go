// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configKubeletCA: kubelet-certificate-authority is set (another control). Without it kube-apiserver accepts any
// certificate from a server that claims to be a kubelet. kubeadm does not set it, and this warning is correct there.
func configKubeletCA(c Configuration, _ time.Time) []finding.Result {
	if results := c.undecided(kubeapiserver.KubeletCertificateAuthority); results != nil {
		return results
	}
	if value, _ := c.Config.Value(kubeapiserver.KubeletCertificateAuthority); value != "" {
		return nil
	}
	return single(finding.KubeletCANotConfigured, c.argument(kubeapiserver.KubeletCertificateAuthority),
		"kubelet-certificate-authority is not set, so the kube-apiserver does not verify kubelets' serving certificates",
		"set it to the CA bundle of the kubelets' serving certificates")
}

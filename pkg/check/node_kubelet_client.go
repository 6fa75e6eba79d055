// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// nodeKubeletRequestsClient: the kubelet requests a client certificate. One without
// authentication.x509.clientCAFile does not (Kubernetes cmd/kubelet/app/server.go, InitializeTLS), so the
// kube-apiserver's certificate has no effect there. This needs a complete handshake.
//
// The names of the CAs in the request are not judged: they may be those of an older client CA bundle (ADR 0065). So
// a pass does not show that the kubelet accepts the kube-apiserver's certificate. The agent checks that.
func nodeKubeletRequestsClient(k NodeKubelet, _ time.Time) []finding.Result {
	if k.Answer.RequestsClientCertificate {
		return nil
	}
	return single(finding.ClientCertificateNotAccepted, k.at(),
		"the kubelet does not request client certificates, so the kube-apiserver's certificate has no effect",
		"set authentication.x509.clientCAFile in the kubelet's configuration")
}

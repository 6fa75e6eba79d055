// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// matching: the key is the certificate's. A pair that does not match loads in
// no TLS program (crypto/tls.X509KeyPair), and the API server only warns of it
// (Kubernetes pkg/registry/core/secret/strategy.go). Neither service-ca nor
// any other controller of OpenShift would ever repair it.
func matching(p KeyPair, _ time.Time) []finding.Finding {
	if p.Loads() {
		return nil
	}
	return one(finding.KeyMismatch, p.key.At,
		"the private key ("+pki.Describe(p.public)+") is not that of the certificate ("+pki.Describe(p.chain.Leaf.PublicKey)+")",
		"replace certificate and key together, with a pair that was issued together")
}

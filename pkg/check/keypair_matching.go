// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// matching: the key matches the certificate. TLS programs do not load a pair that does not match
// (crypto/tls.X509KeyPair). The API server only warns about it (Kubernetes pkg/registry/core/secret/strategy.go), and
// neither service-ca nor any other controller of OpenShift repairs it. Programs use the first certificate of a file
// (RFC 5246 7.4.2), so a CA in front of the leaf is a mismatch, too.
func matching(p KeyPair, _ time.Time) []finding.Result {
	if p.Loads() {
		return nil
	}
	if n := p.chain.NumberOf(p.public); n > 1 {
		return single(finding.KeyMismatch, p.key.At,
			fmt.Sprintf("the private key (%s) matches certificate %d in the file, "+
				"not the first one (issued to %s), which programs use",
				pki.Describe(p.public), n, quoteName(p.chain.Leaf.Subject.CommonName)),
			fmt.Sprintf("put certificate %d first, and its CAs after it", n))
	}
	return single(finding.KeyMismatch, p.key.At,
		"the private key ("+pki.Describe(p.public)+") does not match the certificate ("+pki.KeyOf(p.chain.Leaf)+")",
		"replace both with a certificate and key that were issued together")
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// usage: an extended key usage extension, where there is one, has the role.
// RFC 5280 4.2.1.12: without the extension a certificate serves every purpose,
// and anyExtendedKeyUsage stands for all of them.
func usage(p KeyPair, _ time.Time) []finding.Finding {
	leaf := p.chain.Leaf
	if serves(leaf, p.want.Usage) {
		return nil
	}
	return one(finding.WrongKeyUsage, p.certificate.At,
		"the certificate's extended key usage lacks "+usageName(p.want.Usage),
		"issue it with extended key usage "+usageName(p.want.Usage))
}

// serves reports whether a certificate is for a use.
func serves(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, use) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// usageName is the name in RFC 5280 of the two usages that matter here.
func usageName(usage x509.ExtKeyUsage) string {
	if usage == x509.ExtKeyUsageServerAuth {
		return "serverAuth"
	}
	return "clientAuth"
}

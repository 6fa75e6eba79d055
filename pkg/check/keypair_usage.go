// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// usage: the extended key usage extension, if there is one, includes the required usage.
// RFC 5280 4.2.1.12: a certificate without the extension is for every purpose, and so is
// one with anyExtendedKeyUsage.
func usage(p KeyPair, _ time.Time) []finding.Result {
	leaf := p.chain.Leaf
	if allowsUsage(leaf, p.want.Usage) {
		return nil
	}
	return single(finding.WrongKeyUsage, p.certificate.At,
		"the certificate's extended key usage lacks "+usageName(p.want.Usage),
		"issue a certificate with extended key usage "+usageName(p.want.Usage))
}

// allowsUsage reports whether a certificate may be used for a purpose.
func allowsUsage(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, use) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// usageName returns the name in RFC 5280 of the two usages that are checked.
func usageName(usage x509.ExtKeyUsage) string {
	if usage == x509.ExtKeyUsageServerAuth {
		return "serverAuth"
	}
	return "clientAuth"
}

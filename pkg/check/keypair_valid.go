// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// valid: the certificate holds now, and for a while yet.
//
// RFC 5280 4.1.2.5: it holds from notBefore through notAfter, both included.
// "A while" is a fraction of its own lifetime, see [DefaultExpiringFraction].
func valid(p KeyPair, now time.Time) []finding.Finding {
	leaf := p.chain.Leaf
	switch {
	case now.Before(leaf.NotBefore):
		return one(finding.CertificateNotYetValid, p.certificate.At,
			"the certificate is not valid before "+at(leaf.NotBefore),
			"check the clocks of this machine and of the issuer, or issue it anew")
	case now.After(leaf.NotAfter):
		return one(finding.CertificateExpired, p.certificate.At,
			"the certificate expired at "+at(leaf.NotAfter),
			"renew the certificate and its key together")
	case now.After(expiringFrom(leaf, p.want.ExpiringFraction)):
		return one(finding.CertificateExpiringSoon, p.certificate.At,
			fmt.Sprintf("the certificate expires at %s, less than %.0f %% of its lifetime is left", at(leaf.NotAfter), 100*p.want.ExpiringFraction),
			"find out why it was not renewed in time")
	}
	return nil
}

// NextChange is the next moment after now from which [KeyPair.Findings] may
// differ although nothing was written: the certificate becomes valid, begins
// to expire soon, expires, or a CA does within its life. ok is false where
// there is none.
func (p KeyPair) NextChange(now time.Time) (next time.Time, ok bool) {
	leaf := p.chain.Leaf
	if leaf == nil {
		return time.Time{}, false
	}
	// The last two are included in the time before them.
	const after = time.Nanosecond
	moments := []time.Time{
		leaf.NotBefore,
		expiringFrom(leaf, p.want.ExpiringFraction).Add(after),
		leaf.NotAfter.Add(after),
	}
	for _, ca := range slices.Concat(p.want.Roots, p.chain.Rest) {
		for _, moment := range []time.Time{ca.NotBefore, ca.NotAfter.Add(after)} {
			if moment.After(leaf.NotBefore) && moment.Before(leaf.NotAfter) {
				moments = append(moments, moment)
			}
		}
	}
	for _, moment := range moments {
		if moment.After(now) && (!ok || moment.Before(next)) {
			next, ok = moment, true
		}
	}
	return next, ok
}

// expiringFrom is the last moment at which enough of the lifetime is left.
func expiringFrom(leaf *x509.Certificate, fraction float64) time.Time {
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotAfter.Add(-time.Duration(fraction * float64(lifetime)))
}

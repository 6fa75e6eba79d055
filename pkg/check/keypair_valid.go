// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// valid: the certificate is valid now, and does not expire soon.
//
// RFC 5280 4.1.2.5: it is valid from notBefore through notAfter, both included.
// "Soon" is a fraction of its own lifetime, see [DefaultExpiringFraction].
func valid(p KeyPair, now time.Time) []finding.Result {
	leaf := p.chain.Leaf
	switch {
	case neverValid(leaf):
		return single(finding.CertificateExpired, p.certificate.At,
			"the certificate is never valid: it expires at "+timestamp(leaf.NotAfter)+
				", before it becomes valid at "+timestamp(leaf.NotBefore),
			p.want.remedy("issue a new certificate and key together"))
	case now.Before(leaf.NotBefore):
		return single(finding.CertificateNotYetValid, p.certificate.At,
			"the certificate is not valid before "+timestamp(leaf.NotBefore),
			"check the clocks of this machine and of the issuer, or issue a new certificate")
	case now.After(leaf.NotAfter):
		return single(finding.CertificateExpired, p.certificate.At,
			"the certificate expired at "+timestamp(leaf.NotAfter),
			p.want.remedy("renew the certificate and its key together"))
	case now.After(expiringFrom(leaf, p.want.ExpiringFraction)):
		return single(finding.CertificateExpiringSoon, p.certificate.At,
			fmt.Sprintf("the certificate expires at %s; less than %.0f%% of its lifetime is left",
				timestamp(leaf.NotAfter), 100*p.want.ExpiringFraction),
			p.want.remedy("find out why it was not renewed in time"))
	}
	return nil
}

// nextChange returns the next time after now at which the results may change although
// nothing was written: the certificate becomes valid, starts to expire soon or expires, or
// a CA does during the certificate's lifetime. It is zero if the results will not change.
func (p KeyPair) nextChange(now time.Time) (next time.Time) {
	leaf := p.chain.Leaf
	if leaf == nil {
		return time.Time{}
	}
	// The last two times still belong to the period before them.
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
		if moment.After(now) {
			next = earliest(next, moment)
		}
	}
	return next
}

// neverValid reports whether the certificate ends before it begins.
func neverValid(leaf *x509.Certificate) bool { return leaf.NotAfter.Before(leaf.NotBefore) }

// expiringFrom returns the last time at which enough of the lifetime is left. It does not calculate with a
// [time.Duration] of the lifetime, which has at most 292 years: certificates without an expiry date end in the year
// 9999 (RFC 5280 4.1.2.5).
func expiringFrom(leaf *x509.Certificate, fraction float64) time.Time {
	lifetime := float64(leaf.NotAfter.Unix() - leaf.NotBefore.Unix()) // X.509 has whole seconds
	seconds, part := math.Modf(fraction * lifetime)
	return time.Unix(leaf.NotAfter.Unix()-int64(seconds), 0).Add(-time.Duration(math.Round(part * float64(time.Second))))
}

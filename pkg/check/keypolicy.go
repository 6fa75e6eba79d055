// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// KeyPolicy restricts the keys of certificates further than the check itself does. The zero value allows every key.
//
// It is for organizations with rules of their own, such as BSI TR-02102-2 (RSA of 3000 bits or more). It is about the
// certificate's own key, not about those of its CAs.
type KeyPolicy struct {
	// MinimumRSABits is the minimum size of an RSA key; 0 for no minimum of its own.
	MinimumRSABits int
	// AllowedAlgorithms are some of [KeyAlgorithms]; empty for all.
	AllowedAlgorithms []string
	// Fails: a key that is not allowed is a violation ([finding.KeyNotAllowed]). Otherwise it is a warning
	// ([finding.WeakKey]).
	Fails bool
}

// The bounds of MinimumRSABits, other than 0.
const minPolicyBits, maxPolicyBits = minRSABits, pki.MaxRSABits

// KeyAlgorithms returns the algorithms of keys that a [KeyPolicy] can allow.
func KeyAlgorithms() []string {
	return []string{
		"RSA", "ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87",
	}
}

// CheckMinimumRSABits returns an error if the number is not valid for a policy.
func CheckMinimumRSABits(bits int) error {
	if bits != 0 && (bits < minPolicyBits || bits > maxPolicyBits) {
		return fmt.Errorf("must be 0, or from %d to %d", minPolicyBits, maxPolicyBits)
	}
	return nil
}

// CheckAllowedAlgorithms returns an error if one of the algorithms is not known, or is listed twice.
func CheckAllowedAlgorithms(algorithms []string) error {
	for i, algorithm := range algorithms {
		switch {
		case !slices.Contains(KeyAlgorithms(), algorithm):
			return fmt.Errorf("%q: must be one of %s", algorithm, strings.Join(KeyAlgorithms(), ", "))
		case slices.Contains(algorithms[:i], algorithm):
			return fmt.Errorf("%q is listed twice", algorithm)
		}
	}
	return nil
}

// check returns a finding if the policy does not allow the certificate's key.
func (k KeyPolicy) check(at finding.Subject, leaf *x509.Certificate) []finding.Result {
	name, bits := pki.KeyOf(leaf), 0
	algorithm := name
	if key, isRSA := leaf.PublicKey.(*rsa.PublicKey); isRSA {
		algorithm, bits = "RSA", key.N.BitLen()
	}
	var why, remedy string
	switch {
	case len(k.AllowedAlgorithms) > 0 && !slices.Contains(k.AllowedAlgorithms, algorithm):
		why = "its algorithm is not one of " + strings.Join(k.AllowedAlgorithms, ", ")
		remedy = "issue a certificate with a key of one of these algorithms, or change the key policy"
	case bits > 0 && bits < k.MinimumRSABits:
		why = fmt.Sprintf("an RSA key must have at least %d bits", k.MinimumRSABits)
		remedy = fmt.Sprintf("issue a certificate with an RSA key of %d bits or more, or change the key policy",
			k.MinimumRSABits)
	default:
		return nil
	}
	reason := finding.WeakKey
	if k.Fails {
		reason = finding.KeyNotAllowed
	}
	return single(reason, at, "the configured key policy does not allow the certificate's key ("+name+"): "+why, remedy)
}

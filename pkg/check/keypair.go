// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto"
	"crypto/x509"
	"errors"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// DefaultExpiringFraction is the part of its lifetime below which a
// certificate counts as expiring soon. Fractions, never days: healthy
// certificates here live 2 hours, 30 days or 2 years, and the kubelet client
// certificate is renewed when half of its life, at the latest a fifth, is left
// (library-go pkg/operator/certrotation/target.go).
const DefaultExpiringFraction = 0.15

// Source is one of the two halves of a pair, as it was found.
type Source struct {
	At finding.Location
	// Data is the PEM text; without a byte where there is nothing.
	Data []byte
	// Hidden: the data could not be read, for which there is a finding
	// already, so nothing is said of the contents.
	Hidden bool
}

// Expectation is what a pair is measured against. The zero value of each field
// but Usage asks for nothing.
type Expectation struct {
	// Usage that an extended key usage extension must have.
	Usage x509.ExtKeyUsage
	// Roots that the certificate must lead to; nil where the CA is not known.
	Roots []*x509.Certificate
	// ExpiringFraction, from 0 to 1, of the lifetime.
	ExpiringFraction float64
}

// KeyPair holds the facts about a certificate and its private key.
// [NewKeyPair] makes one.
type KeyPair struct {
	certificate, key Source
	want             Expectation

	// chain and public are the parsed halves; where they are not there, the
	// error says why.
	chain     pki.Chain
	chainErr  error
	public    crypto.PublicKey
	publicErr error
}

// NewKeyPair parses both halves, once for all checks. Data that cannot be
// parsed is a fact like any other.
func NewKeyPair(certificate, key Source, want Expectation) KeyPair {
	pair := KeyPair{certificate: certificate, key: key, want: want}
	pair.chain, pair.chainErr = pki.ParseChain(certificate.Data)
	pair.public, pair.publicErr = pki.PublicKeyOf(key.Data)
	return pair
}

// Leaf is the certificate itself, nil where none could be read.
func (p KeyPair) Leaf() *x509.Certificate { return p.chain.Leaf }

// Loads reports whether a TLS program can load the pair: both halves are there
// and belong together.
func (p KeyPair) Loads() bool {
	return p.parsed() && pki.SameKey(p.chain.Leaf.PublicKey, p.public)
}

// Findings runs the checks on the pair.
func (p KeyPair) Findings(now time.Time) []finding.Finding {
	return runAll(keyPairChecks(), p, now)
}

// LookedFor are the reasons for which [KeyPair.Findings] could look.
func (p KeyPair) LookedFor() []finding.Reason { return lookedFor(keyPairChecks(), p) }

func keyPairChecks() []check[KeyPair] {
	return []check[KeyPair]{
		{[]finding.Reason{finding.CertificateMissing}, KeyPair.seesCertificate, certificatePresent},
		{[]finding.Reason{finding.KeyMissing}, KeyPair.seesKey, keyPresent},
		{[]finding.Reason{finding.CertificateUnparsable}, KeyPair.hasCertificate, certificateParsable},
		{[]finding.Reason{finding.KeyUnparsable}, KeyPair.hasKey, keyParsable},
		{[]finding.Reason{finding.ChainUnparsable, finding.ChainDoubtful}, KeyPair.hasLeaf, chainParsable},
		{[]finding.Reason{finding.KeyMismatch}, KeyPair.parsed, matching},
		{[]finding.Reason{finding.CertificateExpired, finding.CertificateNotYetValid, finding.CertificateExpiringSoon}, KeyPair.hasLeaf, valid},
		{[]finding.Reason{finding.WrongKeyUsage}, KeyPair.hasLeaf, usage},
		{[]finding.Reason{finding.WeakKey, finding.WeakSignature}, KeyPair.hasLeaf, strong},
		{[]finding.Reason{finding.UntrustedIssuer}, KeyPair.hasRoots, trusted},
	}
}

func (p KeyPair) seesCertificate() bool { return !p.certificate.Hidden }
func (p KeyPair) seesKey() bool         { return !p.key.Hidden }
func (p KeyPair) hasCertificate() bool {
	return p.seesCertificate() && !errors.Is(p.chainErr, pki.ErrEmpty)
}
func (p KeyPair) hasKey() bool  { return p.seesKey() && !errors.Is(p.publicErr, pki.ErrEmpty) }
func (p KeyPair) hasLeaf() bool { return p.chain.Leaf != nil }
func (p KeyPair) parsed() bool  { return p.chainErr == nil && p.publicErr == nil }

// hasRoots: who issued the certificate can be told. A weak signature is a finding
// of its own, and x509 would not look further.
func (p KeyPair) hasRoots() bool {
	return p.hasLeaf() && p.want.Roots != nil && !signedWeakly(p.chain.Leaf)
}

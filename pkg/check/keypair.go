// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto"
	"crypto/x509"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// DefaultExpiringFraction is the fraction of its lifetime below which a
// certificate is reported as expiring soon. It is a fraction and not a number of
// days because lifetimes are 2 hours, 30 days or 2 years. The kubelet client
// certificate is renewed when half of its lifetime is left, and at the latest
// when a fifth is left (library-go pkg/operator/certrotation/target.go).
const DefaultExpiringFraction = 0.15

// Source is one half of a pair, the certificate or the key, as it was read.
type Source struct {
	At finding.Subject
	// Data is the PEM text. It is empty if the file or value does not exist.
	Data []byte
	// Problem says why the data are not known: their location is not known, or they cannot
	// be read. It is nil if Data is what was read.
	Problem *finding.Result
}

// Expectation is what a pair must satisfy. The zero value of each field but Usage
// requires nothing.
type Expectation struct {
	// Usage that an extended key usage extension must include.
	Usage x509.ExtKeyUsage
	// Roots are the CAs, one of which must have signed the certificate. They are nil if not known.
	Roots []*x509.Certificate
	// RootsUnusable says what else is in their CA bundle; see [pki.Bundle]. It is nil if every CA can be used.
	RootsUnusable error
	// RootsProblem says why they are not known. It is nil if no CA is configured.
	RootsProblem *finding.Result
	// ExpiringFraction, from 0 to 1, of the lifetime.
	ExpiringFraction float64
	// KeyPolicy restricts the certificate's key.
	KeyPolicy KeyPolicy
	// GoVersion is the Go release that the API server was built with, as its /version has it: "go1.27.4". It says
	// whether Kubernetes can use ML-DSA keys. It is empty if not known.
	GoVersion string
	// Writer is the program that writes and renews the pair, for remedies; empty if it is not known.
	Writer string
}

// remedy completes a remedy with the program that writes the pair, if it is known.
func (w Expectation) remedy(what string) string {
	if w.Writer == "" {
		return what
	}
	return what + "; both files are written by " + w.Writer
}

// KeyPair has the facts about a certificate and its private key. Create it with
// [NewKeyPair].
type KeyPair struct {
	certificate, key Source
	want             Expectation

	// chain and public are the parsed halves. If one is missing, its error says why.
	chain     pki.Chain
	chainErr  error
	public    crypto.PublicKey
	publicErr error
}

// NewKeyPair parses both halves once for all checks. Data that cannot be parsed are no
// error here: the checks report them.
func NewKeyPair(certificate, key Source, want Expectation) KeyPair {
	for _, source := range []*Source{&certificate, &key} {
		if source.Problem != nil {
			source.Data = nil
		}
	}
	pair := KeyPair{certificate: certificate, key: key, want: want}
	pair.chain, pair.chainErr = pki.ParseChain(certificate.Data)
	pair.public, pair.publicErr = pki.PublicKeyOf(key.Data)
	return pair
}

// Leaf returns the certificate itself, or nil if none could be parsed.
func (p KeyPair) Leaf() *x509.Certificate { return p.chain.Leaf }

// Loads reports whether a TLS program can load the pair: both halves are valid and match.
func (p KeyPair) Loads() bool {
	return p.parsed() && pki.SameKey(p.chain.Leaf.PublicKey, p.public)
}

// Check answers the requirements of a pair, as part of a family.
func (p KeyPair) Check(family finding.Family, now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(family, keyPairChecks(), p, now), p.nextChange(now)
}

func keyPairChecks() []check[KeyPair] {
	certificate, key := []finding.Aspect{finding.Certificate}, []finding.Aspect{finding.Certificate, finding.Key}
	atCertificate, atKey := KeyPair.certificateAt, KeyPair.keyAt
	return []check[KeyPair]{
		{
			finding.Certificate, nil, append(sourceReasons(), finding.CertificateMissing, finding.CertificateUnparsable),
			atCertificate, certificateParses,
		},
		{finding.Key, nil, append(sourceReasons(), finding.KeyMissing, finding.KeyUnparsable), atKey, keyParses},
		{
			finding.Chain, certificate, []finding.Reason{finding.ChainUnparsable, finding.ChainDoubtful},
			atCertificate, chainParses,
		},
		{finding.Pair, key, []finding.Reason{finding.KeyMismatch}, atKey, matching},
		{
			finding.Validity, certificate,
			[]finding.Reason{finding.CertificateExpired, finding.CertificateNotYetValid, finding.CertificateExpiringSoon},
			atCertificate, valid,
		},
		{finding.Usage, certificate, []finding.Reason{finding.WrongKeyUsage}, atCertificate, usage},
		{
			finding.Strength, certificate,
			[]finding.Reason{finding.WeakKey, finding.WeakSignature, finding.AlgorithmUnsupported, finding.KeyNotAllowed},
			atCertificate, strong,
		},
		// This check and the next one do not need a parsed certificate: a file with a key and
		// no certificate is the worst case of this one, and the next one reports unreadable
		// CAs even if there is no certificate.
		{finding.CertificateOnly, nil, []finding.Reason{finding.KeyInCertificateFile}, atCertificate, certificateOnly},
		{
			finding.Issuer, nil,
			[]finding.Reason{
				finding.UntrustedIssuer, finding.CAUnusable, finding.ClientCAUnavailable, finding.StaleMount,
				finding.NotMounted, finding.NotChecked,
			},
			atCertificate, trusted,
		},
	}
}

// sourceReasons returns the reasons of a half that could not be read.
func sourceReasons() []finding.Reason {
	return []finding.Reason{
		finding.Unreadable, finding.StaleMount, finding.NotMounted, finding.NotRegularFile, finding.FileTooLarge,
	}
}

func (p KeyPair) certificateAt() finding.Subject { return p.certificate.At }
func (p KeyPair) keyAt() finding.Subject         { return p.key.At }

func (p KeyPair) parsed() bool { return p.chain.Leaf != nil && p.chainErr == nil && p.publicErr == nil }

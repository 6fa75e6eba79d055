// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// minRSABits: NIST SP 800-131A rev. 2, table 2 (112 bits of security). FIPS mode on the
	// platform requires it, too.
	minRSABits = 2048
	// minECDSABits: TLS 1.3 has no smaller curve (RFC 8446 4.2.3).
	minECDSABits = 256
)

// strong: the key is large enough, and the signature does not use a broken hash. Go's
// verifier, which all servers of the platform use, refuses MD5 and SHA-1 (crypto/x509,
// Certificate.CheckSignatureFrom), so clients and servers refuse such a certificate.
func strong(p KeyPair, _ time.Time) []finding.Result {
	leaf := p.chain.Leaf
	var results []finding.Result
	if signedWeakly(leaf) {
		results = append(results, single(finding.WeakSignature, p.certificate.At,
			"the certificate is signed with "+leaf.SignatureAlgorithm.String()+", which Kubernetes components refuse",
			"issue a certificate with a SHA-256 or stronger signature")...)
	}
	if weakKey(leaf) {
		results = append(results, single(finding.WeakKey, p.certificate.At,
			"the certificate's key is weak: "+pki.KeyOf(leaf),
			"issue a certificate with a key of RSA 2048 or larger, ECDSA P-256 or larger, or Ed25519")...)
	}
	return results
}

func weakKey(certificate *x509.Certificate) bool {
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() < minRSABits
	case *ecdsa.PublicKey:
		return key.Params().BitSize < minECDSABits
	}
	return false
}

func signedWeakly(certificate *x509.Certificate) bool {
	switch certificate.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

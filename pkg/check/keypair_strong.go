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
	// minRSABits is that of NIST SP 800-131A rev. 2, table 2 (112 bits of
	// security), which FIPS mode on the platform demands too.
	minRSABits = 2048
	// minECDSABits: TLS 1.3 has no smaller curve (RFC 8446 4.2.3).
	minECDSABits = 256
)

// strong: the key is of an acceptable size, the signature not made with a
// broken hash. Go's verifier, which all of the platform's servers use, refuses
// MD5 and SHA-1 (crypto/x509, Certificate.CheckSignatureFrom), so such a
// certificate is as good as none.
func strong(p KeyPair, _ time.Time) []finding.Finding {
	leaf := p.chain.Leaf
	var findings []finding.Finding
	if weakKey(leaf) {
		findings = append(findings, finding.Finding{
			Reason: finding.WeakKey, Location: p.certificate.At,
			Message: "the certificate's key is only " + pki.Describe(leaf.PublicKey),
			Remedy:  "issue it with RSA of 2048 bits or more, ECDSA P-256 or Ed25519",
		})
	}
	if signedWeakly(leaf) {
		findings = append(findings, finding.Finding{
			Reason: finding.WeakSignature, Location: p.certificate.At,
			Message: "the certificate is signed with " + leaf.SignatureAlgorithm.String() + ", which TLS peers here refuse",
			Remedy:  "issue it with SHA-256 or better",
		})
	}
	return findings
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

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
	policy := p.want.KeyPolicy.check(p.certificate.At, leaf)
	results = append(results, policy...)
	if weakKey(leaf) && (policy == nil || p.want.KeyPolicy.Fails) { // one warning
		results = append(results, single(finding.WeakKey, p.certificate.At,
			"the certificate's key is weak: "+pki.KeyOf(leaf),
			"issue a certificate with a key of RSA 2048 or larger, ECDSA P-256 or larger, or Ed25519")...)
	}
	for _, certificate := range append([]*x509.Certificate{leaf}, p.chain.Rest...) {
		if algorithm := pki.MLDSAOf(certificate); algorithm != "" {
			results = append(results, mldsaSupported(p.certificate.At, "the certificate", algorithm, p.want.GoVersion)...)
			break
		}
	}
	return results
}

// mldsaSupported: the API server can use a certificate with an ML-DSA key or signature. It can if it was built with
// Go 1.27 or later (crypto/x509, crypto/tls); which Kubernetes version it is says nothing about that. A certificate
// that it cannot use ends every handshake.
func mldsaSupported(at finding.Subject, certificate, algorithm, goVersion string) []finding.Result {
	const remedy = "issue a certificate with an ECDSA or RSA key from a CA with such a key, " +
		"or upgrade the cluster to a release that is built with Go 1.27"
	supports, known := pki.GoSupportsMLDSA(goVersion)
	switch {
	case supports:
		return nil
	case known:
		return single(finding.AlgorithmUnsupported, at,
			certificate+" uses "+algorithm+", which the API server cannot use: it was built with a Go release before 1.27",
			remedy)
	}
	return []finding.Result{Unknown(single(finding.AlgorithmUnsupported, at,
		certificate+" uses "+algorithm+", and it is not known whether the API server can use that: "+
			"only programs built with Go 1.27 or later can, and its Go release is not known", remedy)[0])}
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

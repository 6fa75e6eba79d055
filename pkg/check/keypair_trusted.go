// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// trusted: the certificate is signed by one of the known CAs (RFC 5280 6.1), if necessary over the certificates after
// it: after a rotation of the service CA the file has a bridge certificate (service-ca-operator
// pkg/controller/servingcert/controller/serving_cert_issuer.go).
//
// If a CA in the chain is limited to some usages, the leaf's must be among them (x509.VerifyOptions.KeyUsages; the
// kubelet and every TLS client verify that).
//
// Other checks verify the leaf's own dates, usage and signature algorithm, so they do not fail this check.
func trusted(p KeyPair, now time.Time) []finding.Result {
	leaf := p.chain.Leaf
	switch {
	case p.want.RootsProblem != nil:
		return []finding.Result{Unknown(*p.want.RootsProblem)}
	case leaf == nil:
		return []finding.Result{Unknown(certificateParses(p, now)[0])}
	case neverValid(leaf): // there is no time at which x509 verifies it
		return []finding.Result{Unknown(valid(p, now)[0])}
	case signedWeakly(leaf): // x509 does not verify such a certificate
		return []finding.Result{Unknown(strong(p, now)[0])}
	case pki.MLDSAOf(leaf) != "" && !pki.SupportsMLDSA():
		return single(finding.CAUnusable, p.certificate.At,
			"it is not known whether the certificate is signed by a trusted CA: this program cannot verify "+pki.MLDSAOf(leaf),
			"use a build of this program with Go 1.27 or later, and without FIPS module v1.0.0")
	case p.want.Roots == nil:
		return single(finding.NotChecked, p.certificate.At,
			"no CA bundle is configured for the certificate, so its issuer is not verified",
			"configure the CA bundle that must verify it")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range p.want.Roots {
		roots.AddCert(root)
	}
	for _, certificate := range p.chain.Rest {
		intermediates.AddCert(certificate)
	}
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	use := p.want.Usage
	if !allowsUsage(leaf, use) {
		use = x509.ExtKeyUsageAny
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{use},
	})
	_, unknownIssuer := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case err == nil && p.want.RootsUnusable != nil:
		return []finding.Result{{
			Subject: p.certificate.At, Outcome: finding.Pass,
			Message: Assuming("Kubernetes can use the CA bundle, which this program cannot use completely: " +
				oneLine(p.want.RootsUnusable)),
		}}
	case err == nil:
		return nil
	case unknownIssuer && p.want.RootsUnusable != nil:
		return maySignUnusable(p.certificate.At, "the certificate", "the CA bundle", p.want.RootsUnusable)
	}
	message := "the certificate, issued by " + quoteName(leaf.Issuer.CommonName) + ", is not signed by a trusted CA"
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		message += ": a CA in its chain has expired or is not yet valid" // without the time of the check
	} else if leaf.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
		message += ": its signature algorithm is " + pki.SignatureOf(leaf) + ", which Go programs cannot verify"
	} else if !unknownIssuer {
		message += ": " + oneLine(err)
	}
	return single(finding.UntrustedIssuer, p.certificate.At, message,
		"issue the certificate from the cluster's own CA, or update the CA bundle")
}

// maySignUnusable is the result for a certificate that no CA of a bundle signed, as far as they can be used: it
// may be signed by one that cannot.
func maySignUnusable(at finding.Subject, certificate, bundle string, unusable error) []finding.Result {
	return single(finding.CAUnusable, at,
		"it is not known whether "+certificate+" is signed by a trusted CA: no CA that can be used signed it, and "+
			bundle+" has others: "+oneLine(unusable),
		"replace or remove what cannot be used in the CA bundle; if Kubernetes can use it, upgrade this program")
}

// maxNameInMessage is the limit for names from a certificate in a message, in bytes. X.520
// allows 64 characters; rotated signers of OpenShift have 77.
const maxNameInMessage = 100

// quoteName quotes a name from a certificate, or a value from a configuration, for a message.
// Either may contain anything, even a key.
func quoteName(name string) string {
	if strings.Contains(name, "-----BEGIN") {
		return "(a PEM text)"
	}
	if len(name) > maxNameInMessage {
		name = name[:maxNameInMessage] + "…"
	}
	return strconv.Quote(name)
}

// oneLine returns an error's text without line breaks.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

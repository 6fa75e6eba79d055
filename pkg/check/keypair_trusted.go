// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// trusted: the certificate leads to one of the known CAs (RFC 5280 6.1), over
// the certificates behind it where needed: after a rotation of the service CA
// a bridge certificate stands there (service-ca-operator
// pkg/controller/servingcert/controller/serving_cert_issuer.go).
//
// Each CA on the way must be for the leaf's use, too, if it is limited to some
// (x509.VerifyOptions.KeyUsages; the kubelet and every TLS client verify so).
//
// The leaf's own dates and usage are checked elsewhere, and its signature
// algorithm too, so they are kept from failing here a second time.
func trusted(p KeyPair, now time.Time) []finding.Finding {
	leaf := p.chain.Leaf
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
	if !serves(leaf, use) {
		use = x509.ExtKeyUsageAny
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{use},
	})
	if err == nil {
		return nil
	}
	message := "the certificate, issued by " + quoteName(leaf.Issuer.CommonName) + ", does not lead to a CA that is trusted for it"
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		message += ": a CA on the way has expired, or is not valid yet" // without the moment of the look
	} else if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		message += ": " + oneLine(err)
	}
	return one(finding.UntrustedIssuer, p.certificate.At, message, "issue it by the cluster's own CA, or bring the CA bundle up to date")
}

// maxNameInMessage bounds what a certificate can write into a message. X.520
// allows 64 characters, rotated signers of OpenShift have 77.
const maxNameInMessage = 100

// quoteName writes a name out of a certificate, or a value out of a
// configuration: either may hold anything, even a key.
func quoteName(name string) string {
	if strings.Contains(name, "-----BEGIN") {
		return "(a PEM text)"
	}
	if len(name) > maxNameInMessage {
		name = name[:maxNameInMessage] + "…"
	}
	return strconv.Quote(name)
}

// oneLine is an error's text without line breaks.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

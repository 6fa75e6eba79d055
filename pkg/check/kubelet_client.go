// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"crypto/tls"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// kubeletAcceptsClient: the running kubelet accepts the kube-apiserver's client certificate.
//
// A kubelet without authentication.x509.clientCAFile does not request one (Kubernetes cmd/kubelet/app/server.go,
// InitializeTLS), so its configuration and the handshake show that. Apart from this, only the kube-apiserver's
// connection shows whether the kubelet accepts the certificate.
//
// If the connection is not checked, the names of the CAs in the kubelet's request (RFC 8446 4.2.4) are the only
// evidence, and it is weak: a kubelet authenticates with the current client CA bundle, but sends the names of the one
// that it loaded at its start (before Kubernetes 1.36) or up to a minute ago. So a missing name is unknown, not a
// failure. Names are compared byte by byte, as crypto/x509 finds issuers.
func kubeletAcceptsClient(k Kubelet, now time.Time) []finding.Result {
	if k.known.NoClientCAAt != "" {
		return single(finding.ClientCertificateNotAccepted, finding.File(k.known.NoClientCAAt),
			"the kubelet has no client CA configured, so it does not accept the kube-apiserver's client certificate",
			"set authentication.x509.clientCAFile in the kubelet's configuration")
	}
	overTLS := kubeletTLS(k, now)
	switch {
	case len(overTLS) == 0 && !k.answer.RequestsClientCertificate:
		return single(finding.ClientCertificateNotAccepted, k.answer.At,
			"the kubelet does not request client certificates, so the kube-apiserver's certificate has no effect",
			"set authentication.x509.clientCAFile in the kubelet's configuration")
	case k.connection.refused():
		return k.clientRefused()
	case len(overTLS) > 0:
		return []finding.Result{Unknown(overTLS[0])}
	case k.cannotVerifyClient() != "":
		return single(finding.ClientCertificateNotAccepted, k.answer.At,
			"the kubelet cannot verify the kube-apiserver's client certificate: it does not offer "+k.cannotVerifyClient()+
				", as a kubelet that is built with a Go release before 1.27",
			"issue the client certificate with an ECDSA or RSA key, or upgrade the kubelet")
	case !k.connectionConfigured:
		return k.acceptsByName()
	case !k.connection.authenticated():
		return []finding.Result{Unknown(kubeletConnection(k, now)[0])}
	}
	if accepted, issuer := k.acceptsIssuer(); !accepted {
		return []finding.Result{{
			Subject: k.answer.At, Outcome: finding.Pass,
			Message: Assuming("the CAs that the kubelet names, which do not include " + quoteName(issuer) +
				", are those of an older client CA bundle: the connection works"),
		}}
	}
	return nil
}

// cannotVerifyClient returns the ML-DSA algorithm of the client certificate's key if the kubelet does not offer it. A
// kubelet that names no algorithms is not known to refuse it.
func (k Kubelet) cannotVerifyClient() string {
	leaf := k.client.Leaf()
	if leaf == nil || len(k.answer.SignatureSchemes) == 0 {
		return ""
	}
	algorithm := pki.KeyOf(leaf)
	scheme, isMLDSA := mldsaSchemes()[algorithm]
	if !isMLDSA || slices.Contains(k.answer.SignatureSchemes, scheme) {
		return ""
	}
	return algorithm
}

// mldsaSchemes has the signature schemes of ML-DSA in TLS by the names of package pki (IANA registry TLS
// SignatureScheme; crypto/tls has them from Go 1.27).
func mldsaSchemes() map[string]tls.SignatureScheme {
	return map[string]tls.SignatureScheme{"ML-DSA-44": 0x0904, "ML-DSA-65": 0x0905, "ML-DSA-87": 0x0906}
}

// acceptsByName answers without a connection.
func (k Kubelet) acceptsByName() []finding.Result {
	if k.client.Leaf() == nil {
		return []finding.Result{Unknown(certificateParses(k.client, time.Time{})[0])}
	}
	accepted, issuer := k.acceptsIssuer()
	if !accepted {
		return single(finding.ClientAcceptanceUnknown, k.answer.At,
			"the CAs that the kubelet names do not include "+quoteName(issuer)+", the issuer of the kube-apiserver's client "+
				"certificate; a kubelet may name those of an older client CA bundle, and the connection was not checked",
			"check the connection (--pod; chart: nodeagent.connection), or compare the kubelet's client CA bundle "+
				"with the certificate")
	}
	return []finding.Result{{
		Subject: k.answer.At, Outcome: finding.Pass,
		Message: Assuming("the CAs that the kubelet names are those of its current client CA bundle"),
	}}
}

// acceptsIssuer reports whether the CAs that the kubelet names include an issuer of the client certificate's chain, or
// the kubelet names none, so that it accepts any (RFC 8446 4.2.4, RFC 5246 7.4.4). It is true if the certificate could
// not be read.
func (k Kubelet) acceptsIssuer() (accepted bool, issuer string) {
	leaf := k.client.Leaf()
	if leaf == nil || len(k.answer.AcceptedCAs) == 0 {
		return true, ""
	}
	issuers := [][]byte{leaf.RawIssuer}
	for _, certificate := range k.client.chain.Rest {
		issuers = append(issuers, certificate.RawIssuer)
	}
	return slices.ContainsFunc(k.answer.AcceptedCAs, func(accepted []byte) bool {
		return slices.ContainsFunc(issuers, func(issuer []byte) bool { return bytes.Equal(issuer, accepted) })
	}), leaf.Issuer.CommonName
}

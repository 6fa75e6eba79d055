// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// kubeletAcceptsClient: the kubelet, as it runs, knows the CA that issued the
// kube-apiserver's client certificate. It says so itself: a server that checks
// clients sends the names of its CAs (RFC 8446 4.2.4), and one without
// authentication.x509.clientCAFile does not ask clients for a certificate
// (Kubernetes cmd/kubelet/app/server.go, InitializeTLS). The certificate's own
// CA bundle on the node may be newer than what the kubelet has loaded.
//
// Names are compared byte by byte, as crypto/x509 looks issuers up. Our
// private key is not used.
func kubeletAcceptsClient(k Kubelet, _ time.Time) []finding.Finding {
	leaf := k.client.Leaf()
	if !k.answer.AsksClients {
		return one(finding.ClientCertificateNotAccepted, k.answer.At,
			"the kubelet asks its clients for no certificate, so the kube-apiserver's does not count",
			"set authentication.x509.clientCAFile in the kubelet's configuration")
	}
	if len(k.answer.AcceptedCAs) == 0 {
		return nil
	}
	issuers := [][]byte{leaf.RawIssuer}
	for _, certificate := range k.client.chain.Rest {
		issuers = append(issuers, certificate.RawIssuer)
	}
	for _, accepted := range k.answer.AcceptedCAs {
		if slices.ContainsFunc(issuers, func(issuer []byte) bool { return bytes.Equal(issuer, accepted) }) {
			return nil
		}
	}
	return one(finding.ClientCertificateNotAccepted, k.answer.At,
		"the kubelet does not accept certificates of "+quoteName(leaf.Issuer.CommonName)+", which issued the kube-apiserver's",
		"bring the kubelet's client CA bundle up to date (on OpenShift the machine-config-operator does), or renew the client certificate")
}

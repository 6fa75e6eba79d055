// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// kubeletAcceptsClient: the running kubelet trusts the CA that issued the kube-apiserver's client certificate. The
// handshake shows it: a server that verifies clients sends the names of its CAs (RFC 8446 4.2.4), and a kubelet without
// authentication.x509.clientCAFile does not request a client certificate (Kubernetes cmd/kubelet/app/server.go,
// InitializeTLS). The CA bundle on the node may be newer than the one that the kubelet has loaded.
//
// A configuration without client CAs is a failure, whatever the handshake shows.
//
// Names are compared byte by byte, as crypto/x509 finds issuers. The private key is not used.
func kubeletAcceptsClient(k Kubelet, now time.Time) []finding.Result {
	if k.known.NoClientCAAt != "" {
		return single(finding.ClientCertificateNotAccepted, finding.File(k.known.NoClientCAAt),
			"the kubelet has no client CA configured, so it does not accept the kube-apiserver's client certificate",
			"set authentication.x509.clientCAFile in the kubelet's configuration")
	}
	if tls := kubeletTLS(k, now); len(tls) > 0 {
		return []finding.Result{Unknown(tls[0])}
	}
	leaf := k.client.Leaf()
	if leaf == nil {
		return []finding.Result{Unknown(certificateParses(k.client, time.Time{})[0])}
	}
	if !k.answer.RequestsClientCertificate {
		return single(finding.ClientCertificateNotAccepted, k.answer.At,
			"the kubelet does not request client certificates, so the kube-apiserver's certificate has no effect",
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
	return single(finding.ClientCertificateNotAccepted, k.answer.At,
		"the kubelet does not accept client certificates issued by "+quoteName(leaf.Issuer.CommonName)+
			", the issuer of the kube-apiserver's certificate",
		"update the kubelet's client CA bundle (on OpenShift the machine-config-operator does), "+
			"or renew the client certificate")
}

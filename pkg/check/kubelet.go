// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// KubeletAnswer is the response of a kubelet to a TLS handshake.
type KubeletAnswer struct {
	// At names the kubelet by the address and port of the connection.
	At finding.Subject
	// Host is the address or name of the connection. The certificate must be valid for it.
	Host string
	// Err says why the handshake failed. NotTLS: the server does not speak TLS.
	Err    error
	NotTLS bool
	// Alert is the TLS alert that ended the handshake. It is nil if the kubelet sent none.
	Alert *tls.AlertError
	// Certificates of the kubelet, its own first. There is at least one if Err is nil.
	Certificates []*x509.Certificate
	// RequestsClientCertificate: it requested a client certificate. AcceptedCAs are the names (DER) of the
	// CAs whose client certificates it accepts. If empty, it accepts any
	// (RFC 8446 4.2.4, RFC 5246 7.4.4).
	RequestsClientCertificate bool
	AcceptedCAs               [][]byte
	// SignatureSchemes are the signature algorithms of client certificates that it can verify (RFC 8446 4.2.3). They are
	// empty if not known.
	SignatureSchemes []tls.SignatureScheme
	// ReadOnlyAt is the address of its read-only port. ReadOnlyOpen: the port accepts
	// connections.
	ReadOnlyAt   finding.Subject
	ReadOnlyOpen bool
	// ReadOnlyErr says why it is not known whether that port is open.
	ReadOnlyErr error
	// AssumedPort is the port of the connection if none was configured, otherwise 0.
	AssumedPort int
}

// Same reports whether another answer says the same. Then the results are the same, at the same time and with the same
// settings.
func (a KubeletAnswer) Same(b KubeletAnswer) bool {
	rest := func(k KubeletAnswer) string {
		k.Certificates, k.AcceptedCAs, k.SignatureSchemes, k.Alert = nil, nil, nil, nil
		return fmt.Sprintf("%+v", k)
	}
	sameAlert := a.Alert == b.Alert || a.Alert != nil && b.Alert != nil && *a.Alert == *b.Alert
	return rest(a) == rest(b) && sameAlert && slices.Equal(a.SignatureSchemes, b.SignatureSchemes) &&
		slices.EqualFunc(a.AcceptedCAs, b.AcceptedCAs, bytes.Equal) &&
		slices.EqualFunc(a.Certificates, b.Certificates, (*x509.Certificate).Equal)
}

// KubeletSettings are the settings that a kubelet's response is compared with. The zero value
// is for a kubelet whose configuration is not known.
type KubeletSettings struct {
	// Port is the configured port, 0 if it is not known.
	Port int
	// ReadOnlyPort is the configured read-only port, 0 if not configured or not known.
	// ReadOnlyPortAt is the file that configures it.
	ReadOnlyPort   int
	ReadOnlyPortAt string
	// NoClientCAAt is the configuration file that sets no client CA. It is empty if there is a
	// client CA, or if that is not known.
	NoClientCAAt string
	// GoVersion of the API server, as in [Expectation].
	GoVersion string
	// NodeName is the name of its Node. It is empty if not known.
	NodeName string
	// AddressTypes are the kube-apiserver's kubelet-preferred-address-types. They are empty
	// for the default.
	AddressTypes []string
	// WhyAddressTypesUnknown says why they are not known. It is empty if they are.
	WhyAddressTypesUnknown string
}

// Answered reports whether any server responded, a kubelet or not.
func (a KubeletAnswer) Answered() bool {
	return a.NotTLS || a.Alert != nil || a.Err == nil && len(a.Certificates) > 0
}

// Kubelet has a kubelet's response and what it is compared with: the facts of the checks on the kubelet. Create it with
// [NewKubelet].
type Kubelet struct {
	answer     *KubeletAnswer
	configured bool
	client     KeyPair
	ca         File
	known      KubeletSettings
	roots      *x509.CertPool // nil if ca contains no certificate
	cas        []*x509.Certificate
	unusable   error // what else is in ca; see [pki.Bundle]

	connection           *ConnectionAnswer
	connectionConfigured bool
}

// NewKubelet combines a kubelet's response with files of its node: client is the kube-apiserver's client pair, ca the
// kube-apiserver's CA bundle for kubelets. If ca has no path, the bundle is not configured, and the kubelet's
// certificate is not verified: the kube-apiserver does not verify it either. answer is nil if the kubelet has not
// responded yet, or if configured is false: nothing is configured to connect to it.
func NewKubelet(answer *KubeletAnswer, configured bool, client KeyPair, ca File, known KubeletSettings) Kubelet {
	kubelet := Kubelet{answer: answer, configured: configured, client: client, ca: ca, known: known}
	// kube-apiserver loads the file with the same function (Kubernetes client-go
	// transport/transport.go, rootCertPool): it skips what does not parse, and a file without
	// any certificate is an error.
	if ca.read() && x509.NewCertPool().AppendCertsFromPEM(ca.Data) {
		bundle, _ := pki.ParsePool(ca.Data) // it has a certificate
		kubelet.roots, kubelet.cas, kubelet.unusable = bundle.Pool(), bundle.CAs, bundle.Unusable
	}
	return kubelet
}

// Check answers the requirements of the kubelet. connection are the results that rest on the kube-apiserver's
// connection: they may be wrong for some minutes after the client certificate changed.
func (k Kubelet) Check(now time.Time) (results, connection []finding.Result, next time.Time) {
	for _, r := range runChecks(finding.Kubelet, kubeletChecks(), k, now) {
		if k.restsOnConnection(r.Requirement.Aspect()) {
			connection = append(connection, r)
		} else {
			results = append(results, r)
		}
	}
	return results, connection, k.nextChange(now)
}

// restsOnConnection reports whether the result for an aspect rests on the kube-apiserver's connection. That a kubelet
// accepts no client certificate at all is known without it.
func (k Kubelet) restsOnConnection(aspect finding.Aspect) bool {
	acceptsNone := k.known.NoClientCAAt != "" ||
		k.answer != nil && k.answer.Answered() && len(k.answer.Certificates) > 0 && !k.answer.RequestsClientCertificate
	return aspect == finding.Connection || aspect == finding.ClientAccepted && k.connectionConfigured && !acceptsNone
}

// nextChange returns the next time after now at which the results may change although the
// response is the same: a certificate that the kubelet sent, or a CA, becomes valid or
// expires. It is zero if the results will not change.
func (k Kubelet) nextChange(now time.Time) (next time.Time) {
	if k.ca.Path == "" || k.answer == nil {
		return time.Time{}
	}
	for _, certificate := range slices.Concat(k.answer.Certificates, k.cas) {
		for _, moment := range []time.Time{certificate.NotBefore, certificate.NotAfter.Add(time.Nanosecond)} {
			if moment.After(now) {
				next = earliest(next, moment)
			}
		}
	}
	return next
}

func kubeletChecks() []check[Kubelet] {
	overTLS := []finding.Aspect{finding.TLS}
	return []check[Kubelet]{
		{
			finding.TLS, nil,
			[]finding.Reason{
				finding.KubeletNotTLS, finding.KubeletHasNoCertificate, finding.KubeletRefusesHandshake, finding.KubeletUnreachable,
				finding.NotChecked, finding.NotObserved,
			},
			Kubelet.at, kubeletTLS,
		},
		{
			finding.ServingTrusted, overTLS,
			[]finding.Reason{
				finding.KubeletCertificateUntrusted, finding.AlgorithmUnsupported, finding.CAUnusable,
				finding.Unreadable, finding.StaleMount, finding.NotMounted, finding.NotChecked,
			},
			Kubelet.at, kubeletTrusted,
		},
		{
			finding.ClientAccepted, nil,
			[]finding.Reason{finding.ClientCertificateNotAccepted, finding.ClientAcceptanceUnknown},
			Kubelet.at, kubeletAcceptsClient,
		},
		{
			finding.Connection, nil,
			[]finding.Reason{
				finding.ClientCertificateNotAccepted, finding.ClientNotAuthorized, finding.KubeletCertificateUntrusted,
				finding.ClientCertificateUnusable, finding.KubeletNotTLS, finding.KubeletUnreachable,
				finding.ConnectionUnknown, finding.NotChecked, finding.NotObserved,
			},
			Kubelet.at, kubeletConnection,
		},
		{
			finding.ReadOnlyPort, nil, []finding.Reason{finding.ReadOnlyPortOpen, finding.KubeletUnreachable},
			Kubelet.readOnlyAt, kubeletReadOnlyPort,
		},
	}
}

func (k Kubelet) at() finding.Subject {
	if k.answer == nil {
		return finding.Subject{Kind: finding.KindKubelet}
	}
	return k.answer.At
}

func (k Kubelet) readOnlyAt() finding.Subject {
	if k.answer == nil {
		return k.at()
	}
	return k.answer.ReadOnlyAt
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// KubeletAnswer is what a kubelet showed in a TLS handshake.
type KubeletAnswer struct {
	// At says which kubelet was asked, for people: "kubelet 192.0.2.7:10250".
	At finding.Location
	// Host is the address or name it was asked at, which its certificate must
	// hold.
	Host string
	// Err says why no handshake came about. NotTLS: because what answers does
	// not speak TLS.
	Err    error
	NotTLS bool
	// Certificates of the kubelet, its own first. Without an error there is
	// at least one.
	Certificates []*x509.Certificate
	// AsksClients: it asked for a client certificate. AcceptedCAs are the
	// names of the CAs (DER) whose certificates it takes; none means any
	// (RFC 8446 4.2.4, RFC 5246 7.4.4).
	AsksClients bool
	AcceptedCAs [][]byte
	// ReadOnlyAt is where its read-only port would be, ReadOnlyOpen that it
	// takes connections.
	ReadOnlyAt   finding.Location
	ReadOnlyOpen bool
}

// Kubelet is an answer and what it is measured by: the facts of the checks on
// the kubelet. [NewKubelet] makes them.
type Kubelet struct {
	answer KubeletAnswer
	client KeyPair
	ca     File
	roots  *x509.CertPool // nil where ca holds no certificate
	cas    []*x509.Certificate
}

// NewKubelet measures an answer by the files of its node: client is the pair
// that the kube-apiserver shows, ca the bundle by which it knows kubelets; with
// an empty path it is not configured, and the kubelet's certificate is not
// looked at, as the kube-apiserver does not either.
func NewKubelet(answer KubeletAnswer, client KeyPair, ca File) Kubelet {
	kubelet := Kubelet{answer: answer, client: client, ca: ca}
	// The very function by which kube-apiserver loads the file (Kubernetes
	// client-go transport/transport.go, rootCertPool): what does not parse is
	// passed over, no certificate at all is an error.
	if roots := x509.NewCertPool(); ca.readable() && roots.AppendCertsFromPEM(ca.Data) {
		kubelet.roots = roots
		kubelet.cas, _ = pki.ParseBundle(ca.Data) // only for the moments at which one expires
	}
	return kubelet
}

// Findings runs the checks on the kubelet.
func (k Kubelet) Findings(now time.Time) []finding.Finding {
	return runAll(kubeletChecks(), k, now)
}

// LookedFor are the reasons for which [Kubelet.Findings] could look.
func (k Kubelet) LookedFor() []finding.Reason { return lookedFor(kubeletChecks(), k) }

// NextChange is the next moment after now from which [Kubelet.Findings] may
// differ although the answer is the same: a certificate that the kubelet sent,
// or a CA, becomes valid or expires. ok is false where there is none.
func (k Kubelet) NextChange(now time.Time) (next time.Time, ok bool) {
	if !k.ca.named() {
		return time.Time{}, false
	}
	var moments []time.Time
	for _, certificate := range slices.Concat(k.answer.Certificates, k.cas) {
		moments = append(moments, certificate.NotBefore, certificate.NotAfter.Add(time.Nanosecond))
	}
	moments = slices.DeleteFunc(moments, func(moment time.Time) bool { return !moment.After(now) })
	if len(moments) == 0 {
		return time.Time{}, false
	}
	return slices.MinFunc(moments, time.Time.Compare), true
}

func kubeletChecks() []check[Kubelet] {
	return []check[Kubelet]{
		{[]finding.Reason{finding.KubeletUnreachable}, nil, kubeletReachable},
		{[]finding.Reason{finding.KubeletNotTLS}, Kubelet.spoke, kubeletSpeaksTLS},
		{[]finding.Reason{finding.Unreadable, finding.StaleMount}, Kubelet.measured, kubeletCAReadable},
		{[]finding.Reason{finding.KubeletCertificateUntrusted}, Kubelet.measurable, kubeletTrusted},
		{[]finding.Reason{finding.ClientCertificateNotAccepted}, Kubelet.metClient, kubeletAcceptsClient},
		// Where nothing answers at all, that this port does not says nothing.
		{[]finding.Reason{finding.ReadOnlyPortOpen}, func(k Kubelet) bool { return k.spoke() || k.answer.ReadOnlyOpen }, kubeletReadOnlyPort},
	}
}

// answered: the handshake came about. spoke: something answered, whatever it is.
// measured: its certificate is to be held against a bundle, measurable: and that
// can be read, or is not there. metClient: there is a client's certificate to
// hold against the answer.
func (k Kubelet) answered() bool   { return k.answer.Err == nil && len(k.answer.Certificates) > 0 }
func (k Kubelet) spoke() bool      { return k.answer.NotTLS || k.answered() }
func (k Kubelet) measured() bool   { return k.answered() && k.ca.named() }
func (k Kubelet) measurable() bool { return k.measured() && (k.ca.Err == nil || k.ca.missing()) }
func (k Kubelet) metClient() bool  { return k.answered() && k.client.hasLeaf() }

// missing: there is no such file, as opposed to one that cannot be looked at.
func (f File) missing() bool { return errors.Is(f.Err, fs.ErrNotExist) }

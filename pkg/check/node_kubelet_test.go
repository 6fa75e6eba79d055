// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const nodeKubeletAspects = "tls serving-trusted client-requested identity read-only-port"

// nodeServing is the request for the serving certificate of the kubelet of Node worker-1.
func nodeServing() pkitest.Request {
	return pkitest.Request{
		CommonName: "system:node:worker-1", Organization: "system:nodes", DNSNames: []string{"worker-1"},
		IPs: []net.IP{net.ParseIP("192.0.2.7")}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// nodeKubelet returns the facts of a Node that passes, changed by a function.
func nodeKubelet(ca *pkitest.CA, own pkitest.Pair, change func(k *check.NodeKubelet)) check.NodeKubelet {
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	k := check.NodeKubelet{
		Node: "worker-1",
		Answer: &check.KubeletAnswer{
			Host: "192.0.2.7", Certificates: []*x509.Certificate{own.Leaf}, RequestsClientCertificate: true,
		},
		CA: check.KubeletCA{At: "ConfigMap openshift-kube-apiserver/kubelet-serving-ca", Roots: roots},
	}
	change(&k)
	return k
}

func nodeKubeletFixtures() map[string]fixture {
	ca, foreign := pkitest.NewCA("csr-signer"), pkitest.NewCA("foreign")
	now := pkitest.Now()
	own := ca.Issue(nodeServing())
	mldsa := []*x509.Certificate{parsed(own.SignedWith("2.16.840.1.101.3.4.3.18"))}
	seen := func(change func(k *check.NodeKubelet)) func(finding.Family) []finding.Result {
		results, _ := nodeKubelet(ca, own, change).Check(now)
		return always(results)
	}
	shows := func(issuer *pkitest.CA, change func(r *pkitest.Request)) func(finding.Family) []finding.Result {
		return seen(func(k *check.NodeKubelet) {
			request := nodeServing()
			change(&request)
			k.Answer.Certificates = []*x509.Certificate{issuer.Issue(request).Leaf}
		})
	}
	alerted := func(alert tls.AlertError, request string) func(finding.Family) []finding.Result {
		return seen(func(k *check.NodeKubelet) {
			k.Answer.Certificates, k.Answer.Alert, k.Answer.Err, k.Request = nil, &alert, errors.New("remote error"), request
		})
	}
	unreachable := func(excuse string) func(finding.Family) []finding.Result {
		return seen(func(k *check.NodeKubelet) {
			k.Answer.Certificates, k.Answer.Err, k.Excuse = nil, errors.New("connect: connection refused"), excuse
		})
	}
	const (
		at         = " @ Node worker-1"
		afterTLS   = "serving-trusted client-requested identity"
		distrusted = "serving-trusted fail KubeletCertificateUntrusted" + at
		unexpected = "identity warn KubeletIdentityUnexpected" + at
		open       = "read-only-port warn ReadOnlyPortOpen" + at
		pending    = "its CertificateSigningRequest \"csr-abcde\" is pending"
	)
	none := unknown(nodeKubeletAspects, "KubeletUnreachable"+at)
	noServing := append(unknown(afterTLS, "KubeletHasNoCertificate"+at), "tls fail KubeletHasNoCertificate"+at)
	notTLS := append(unknown(afterTLS, "KubeletNotTLS"+at), "tls fail KubeletNotTLS"+at)
	none2 := func(r *pkitest.Request) { r.IPs, r.DNSNames = nil, nil }
	return map[string]fixture{
		"good": {results: seen(func(*check.NodeKubelet) {})},
		"good, by its name": {results: seen(func(k *check.NodeKubelet) {
			k.Answer.Host = "worker-1"
		})},
		"good, not ready": {results: seen(func(k *check.NodeKubelet) { k.Excuse = "the Node is not ready" })},
		"address not usable": {
			results: seen(func(k *check.NodeKubelet) { k.Answer, k.NotAsked = nil, "the Node has no address" }),
			want:    unknown(nodeKubeletAspects, "NodeAddressUnusable"+at), mentions: "the Node has no address",
		},
		"no TLS": {
			results: seen(func(k *check.NodeKubelet) {
				k.Answer.Certificates, k.Answer.NotTLS, k.Answer.Err = nil, true, errors.New("no TLS record")
			}),
			want: notTLS,
		},
		"no certificate":                     {results: alerted(80, ""), want: noServing},
		"no certificate, and a request":      {results: alerted(80, pending), want: noServing, mentions: "csr-abcde"},
		"no TLS version in common":           {results: alerted(70, ""), want: unknown("tls "+afterTLS, "KubeletRefusesHandshake"+at)},
		"unreachable":                        {results: unreachable(""), want: none, mentions: "connection refused"},
		"unreachable, and the Node is drain": {results: unreachable("the Node is being drained"), want: none, mentions: "drained"},
		"only the read-only port answers": {
			results: seen(func(k *check.NodeKubelet) {
				k.Answer.Certificates, k.Answer.Err, k.Answer.ReadOnlyOpen = nil, errors.New("connection refused"), true
			}),
			want: append(unknown("tls "+afterTLS, "KubeletUnreachable"+at), open),
		},
		"certificate of a foreign CA": {
			results: shows(foreign, func(*pkitest.Request) {}), want: []string{distrusted}, mentions: "kubelet-serving-ca",
		},
		"CA bundle with a CA that cannot be used": {
			results: seen(func(k *check.NodeKubelet) { k.CA.Unusable = errors.New("certificate 2") }),
		},
		"issued by no CA of a bundle that can be used": {
			results: seen(func(k *check.NodeKubelet) {
				k.Answer.Certificates = []*x509.Certificate{foreign.Issue(nodeServing()).Leaf}
				k.CA.Unusable = errors.New("certificate 2 of the bundle")
			}),
			want: []string{"serving-trusted unknown CAUnusable" + at}, mentions: "certificate 2 of the bundle",
		},
		"signed with ML-DSA, API server of Go 1.26": {
			results: seen(func(k *check.NodeKubelet) { k.Answer.Certificates, k.GoVersion = mldsa, "go1.26.8" }),
			want:    []string{"serving-trusted fail AlgorithmUnsupported" + at}, mentions: "ML-DSA-65",
		},
		"signed with ML-DSA, Go release of the API server not known": {
			results: seen(func(k *check.NodeKubelet) { k.Answer.Certificates = mldsa }),
			want:    []string{"serving-trusted unknown AlgorithmUnsupported" + at},
		},
		"certificate of a foreign CA, and a request": {
			results: seen(func(k *check.NodeKubelet) {
				k.Answer.Certificates, k.Request = []*x509.Certificate{foreign.Issue(nodeServing()).Leaf}, pending
			}),
			want: []string{distrusted}, mentions: "csr-abcde",
		},
		"certificate expired": {
			results: shows(ca, func(r *pkitest.Request) { *r = r.Valid(now.Add(-2*time.Hour), now.Add(-time.Hour)) }),
			want:    []string{distrusted}, mentions: now.Add(-2 * time.Hour).Format(time.RFC3339),
		},
		"certificate for another address": {
			results: shows(ca, func(r *pkitest.Request) { r.IPs = []net.IP{net.ParseIP("192.0.2.8")} }),
			want:    []string{distrusted}, mentions: `"192.0.2.7"`,
		},
		"certificate for no address": {results: shows(ca, none2), want: []string{distrusted}, mentions: "any name or address"},
		"certificate for many names": {
			results: shows(ca, func(r *pkitest.Request) {
				r.IPs, r.DNSNames = nil, slices.Repeat([]string{strings.Repeat("x", 60)}, 1000)
			}),
			want: []string{distrusted}, mentions: "other names",
		},
		"certificate for a client": {
			results: shows(ca, func(r *pkitest.Request) { r.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			want:    []string{distrusted}, mentions: "serverAuth",
		},
		"certificate of another Node": {
			results: shows(ca, func(r *pkitest.Request) { r.CommonName = "system:node:worker-2" }),
			want:    []string{unexpected}, mentions: `"system:node:worker-1"`,
		},
		"certificate of the API server": {
			results: seen(func(k *check.NodeKubelet) {
				request := pkitest.ServingCert()
				request.CommonName = "kube-apiserver"
				k.Answer.Certificates = []*x509.Certificate{foreign.Issue(request).Leaf}
			}),
			want: []string{distrusted, unexpected},
		},
		"certificate of kubeadm": {
			results: seen(func(k *check.NodeKubelet) {
				k.CA = check.KubeletCA{NotConfigured: true}
				request := nodeServing()
				request.CommonName, request.Organization = "worker-1@1700000000", ""
				k.Answer.Certificates = []*x509.Certificate{foreign.Issue(request).Leaf}
			}),
			want: []string{unexpected, "serving-trusted notApplicable " + at},
		},
		"certificate with a long name": {
			results: shows(ca, func(r *pkitest.Request) { r.CommonName = strings.Repeat("y", 5000) }),
			want:    []string{unexpected},
		},
		"certificate of no group": {
			results: shows(ca, func(r *pkitest.Request) { r.Organization = "nobody" }), want: []string{unexpected},
		},
		"CA not known": {
			results: seen(func(k *check.NodeKubelet) { k.CA = check.KubeletCA{WhyUnknown: because(finding.Unreadable)} }),
			want:    []string{"serving-trusted unknown Unreadable @ /why"},
		},
		"no CA known": {
			results: seen(func(k *check.NodeKubelet) { k.CA = check.KubeletCA{} }),
			want:    []string{"serving-trusted unknown NotChecked" + at},
		},
		"no CA configured, and unreachable": {
			results: seen(func(k *check.NodeKubelet) {
				k.CA = check.KubeletCA{NotConfigured: true}
				k.Answer.Certificates, k.Answer.Err = nil, errors.New("connection refused")
			}),
			want: append(unknown("tls client-requested identity read-only-port", "KubeletUnreachable"+at), "serving-trusted notApplicable "+at),
		},
		"no request for a client certificate": {
			results: seen(func(k *check.NodeKubelet) { k.Answer.RequestsClientCertificate = false }),
			want:    []string{"client-requested fail ClientCertificateNotAccepted" + at},
		},
		"request that names a foreign CA": { // the names may be outdated
			results: seen(func(k *check.NodeKubelet) { k.Answer.AcceptedCAs = [][]byte{foreign.Certificate.RawSubject} }),
		},
		"read-only port open": {
			results: seen(func(k *check.NodeKubelet) { k.Answer.ReadOnlyOpen = true }), want: []string{open},
		},
		"read-only port filtered": {
			results: seen(func(k *check.NodeKubelet) { k.ReadOnlyFiltered, k.Answer.ReadOnlyErr = true, errors.New("no answer") }),
			want:    []string{"read-only-port unknown NotChecked" + at},
		},
		"read-only port not known": {
			results: seen(func(k *check.NodeKubelet) { k.Answer.ReadOnlyErr = errors.New("no route to host") }),
			want:    []string{"read-only-port unknown KubeletUnreachable" + at}, mentions: "no route to host",
		},
	}
}

// TestAnyNodeKubelet: for any facts each requirement has a complete result, and no message is long.
func TestAnyNodeKubelet(t *testing.T) {
	ca := pkitest.NewCA("signer")
	own := ca.Issue(nodeServing())
	internal := tls.AlertError(80)
	for i := range 1 << 7 {
		answer := &check.KubeletAnswer{NotTLS: i&1 != 0, ReadOnlyOpen: i&2 != 0}
		if i&4 != 0 {
			answer.Err = errors.New("no answer")
		}
		if i&8 != 0 {
			answer.Certificates = []*x509.Certificate{own.Leaf}
		}
		if i&16 != 0 {
			answer.Alert = &internal
		}
		if i&32 != 0 {
			answer.ReadOnlyErr = errors.New("no answer")
		}
		for _, facts := range []check.NodeKubelet{
			{Node: "worker-1", Answer: answer, ReadOnlyFiltered: i&64 != 0},
			{Node: "worker-1", Answer: answer, CA: check.KubeletCA{NotConfigured: true}, Excuse: "excuse", Request: "request"},
			{Node: "worker-1", NotAsked: "why"},
			nodeKubelet(ca, own, func(*check.NodeKubelet) {}),
		} {
			results, _ := facts.Check(pkitest.Now())
			assertComplete(t, results, finding.NodeKubelet, nodeKubeletAspects)
			for _, r := range results {
				if len(r.Message) > 600 {
					t.Fatalf("the message has %d bytes: %q", len(r.Message), r.Message)
				}
			}
		}
	}
}

// TestNoByteOfThePeer: no message quotes a text of the certificate, whatever is wrong with it. Any server may be at the
// address of a Node.
func TestNoByteOfThePeer(t *testing.T) {
	const marker = "MARKER"
	signer, foreign, now := pkitest.NewCA("signer"), pkitest.NewCA(marker), pkitest.Now()
	request := pkitest.Request{
		CommonName: marker, Organization: marker, DNSNames: []string{marker, "worker-1." + marker},
		IPs: []net.IP{net.ParseIP("192.0.2.99")}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	forClients := request
	forClients.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	onlyGroup := request
	onlyGroup.CommonName = "system:node:worker-1"
	for name, pair := range map[string]pkitest.Pair{
		"signed": signer.Issue(request), "foreign": foreign.Issue(request), "for clients": signer.Issue(forClients),
		"expired": signer.Issue(request.Valid(now.Add(-2*time.Hour), now.Add(-time.Hour))), "group": signer.Issue(onlyGroup),
	} {
		results, _ := nodeKubelet(signer, pair, func(*check.NodeKubelet) {}).Check(now)
		if finding.Findings(results) == nil {
			t.Errorf("%s: no findings", name)
		}
		for _, r := range results {
			text := r.Message + r.Remedy + r.Subject.String()
			if strings.Contains(strings.ToUpper(text), marker) || strings.Contains(text, "192.0.2.99") {
				t.Errorf("%s: %q", name, r.Message)
			}
		}
	}
}

// TestNodeKubeletRequirements: the list has what the check answers, in its order.
func TestNodeKubeletRequirements(t *testing.T) {
	ca := pkitest.NewCA("signer")
	results, _ := nodeKubelet(ca, ca.Issue(nodeServing()), func(*check.NodeKubelet) {}).Check(pkitest.Now())
	var answered []finding.Requirement
	for _, r := range results {
		answered = append(answered, r.Requirement)
	}
	if d := cmp.Diff(check.NodeKubeletRequirements(), answered); d != "" {
		t.Errorf("(-list +answered):\n%s", d)
	}
}

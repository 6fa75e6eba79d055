// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// ownAddress is an address of this machine that the audit does not refuse.
func ownAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if address := prefix.Addr(); err == nil && address.Is4() && address.IsGlobalUnicast() {
			return address.String()
		}
	}
	t.Fatalf("the machine has no IPv4 address but loopback: %v", addresses)
	return ""
}

// standIn is a TLS server in the place of openshift-apiserver. It serves the pair that was loaded last.
type standIn struct {
	loaded atomic.Pointer[tls.Certificate]
}

func (s *standIn) load(t *testing.T, p pkitest.Pair) {
	t.Helper()
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.loaded.Store(&pair)
}

// start starts the server, and makes it the only endpoint of the Service.
func (s *standIn) start(t *testing.T) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(ownAddress(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.loaded.Load(), nil },
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = connection.Close() }()
				server := tls.Server(connection, config)
				if server.HandshakeContext(t.Context()) == nil {
					_, _ = server.Read(make([]byte, 1)) // until the client closes
				}
			}()
		}
	}()
	at := netip.MustParseAddrPort(listener.Addr().String())
	if _, err := as(t, "").DiscoveryV1().EndpointSlices(namespace).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "api-stand-in", Labels: map[string]string{discoveryv1.LabelServiceName: "api"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{at.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "apiserver-0"},
		}},
		Ports: []discoveryv1.EndpointPort{{Port: new(int32(at.Port()))}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestServedCertificate: the Secret is renewed, and its server does not load the new certificate. The audit reports
// this after its patience, and that it is resolved when the server loads it.
func TestServedCertificate(t *testing.T) {
	first, second, third := issue(pkitest.ServingCert()), issue(pkitest.ServingCert()), issue(pkitest.ServingCert())
	now := time.Now()
	expired := shared.ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-1, 0, 0), now.Add(-time.Hour)))
	store(t, serving(first))
	var server standIn
	server.load(t, first)
	server.start(t)
	start := restartAudit(t, "--served-certificates", "--served-patience=2s")
	// A subtest that fails does not end this test, so what it changed is restored.
	t.Run("serves the stored one", func(t *testing.T) {
		await(t, "an endpoint that serves it", func() bool {
			return slices.ContainsFunc(metrics(t, shared.auditMetrics), func(line string) bool {
				return strings.HasPrefix(line, `kubelet_https_guard_served_endpoints{certificate="stored"} 1`)
			})
		})
	})
	t.Run("renewed, and not loaded", func(t *testing.T) {
		store(t, serving(second))
		awaitAuditEvent(t, start, "Secret", name, "Warning", "ServedCertificateStale", "Pod apiserver-0 (")
		server.load(t, second)
		awaitAuditEvent(t, start, "Secret", name, "Normal", "ServedCertificateStale", "Resolved: ")
	})
	t.Run("an expired one", func(t *testing.T) {
		server.load(t, expired)
		store(t, serving(third)) // so that the endpoint is asked at once
		awaitAuditEvent(t, start, "Secret", name, "Warning", "ServedCertificateInvalid", "expired at")
		awaitAuditEvent(t, start, "Lease", "kubelet-https-guard-audit", "Warning", "NotCompliant", "ServedCertificateInvalid")
		server.load(t, third)
		awaitAuditEvent(t, start, "Secret", name, "Normal", "ServedCertificateInvalid", "Resolved: ")
	})
	t.Run("once", func(t *testing.T) {
		code, d := runAudit(t, "--kubeconfig", shared.rig.Kubeconfig, "--installed", installedMap, "--served-certificates")
		var got string
		for _, r := range d.Results {
			if r.Requirement == "serving-cert/served" {
				got = r.Outcome
			}
		}
		if got != "pass" {
			t.Errorf("exit code %d, the outcome is %q", code, got)
		}
	})
	if err := as(t, "").DiscoveryV1().EndpointSlices(namespace).Delete(t.Context(), "api-stand-in",
		metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	restartAudit(t)
}

// SPDX-License-Identifier: Apache-2.0

package kubelettls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/handshake"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

// TestHandshake: the answer has the kubelet's certificate and the CAs that it accepts, and the control function decides
// on both of its ports.
func TestHandshake(t *testing.T) {
	pair, clients := pkitest.NewCA("signer").Issue(pkitest.ServingCert()), x509.NewCertPool()
	clients.AddCert(pkitest.NewCA("a").Certificate)
	own, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequestClientCert, ClientCAs: clients,
		MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = connection.Read(make([]byte, 1)) // until the client closes
			_ = connection.Close()
		}
	}()
	to := Target{Address: listener.Addr().String(), ReadOnly: listener.Addr().String(), Host: "127.0.0.1"}
	answer := check.KubeletAnswer{Host: "kept"}
	Dialer{}.Handshake(t.Context(), to, &answer)
	type seen struct {
		Host      string
		Err       error
		Leaf, CAs int
		Requests  bool
	}
	got := seen{
		answer.Host, answer.Err, len(answer.Certificates), len(answer.AcceptedCAs), answer.RequestsClientCertificate,
	}
	if d := cmp.Diff(seen{Host: "kept", Leaf: 1, CAs: 1, Requests: true}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	refuses := Dialer{Control: func(string, string, syscall.RawConn) error { return &handshake.RefusedError{Why: "no"} }}
	refuses.Handshake(t.Context(), to, &answer)
	if refused, ok := errors.AsType[*handshake.RefusedError](answer.Err); !ok || refused.Why != "no" {
		t.Errorf("the error is %v", answer.Err)
	}
	if open, err := refuses.ReadOnlyOpen(t.Context(), to); open || err == nil || err.Error() != "no" {
		t.Errorf("the read-only port: %t, %v", open, err)
	}
}

// TestReadOnlyOpen: only a refused connection shows that the port is closed.
func TestReadOnlyOpen(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	listening := listener.Addr().String()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	cases := map[string]struct {
		ctx      context.Context
		address  string
		open     bool
		wantsErr bool
		filtered bool
	}{
		"open":                  {t.Context(), listening, true, false, false},
		"refused":               {t.Context(), "127.0.0.1:1", false, false, false},
		"no such address":       {t.Context(), "127.0.0.1:no-such-port", false, true, false},
		"no answer in the time": {ended, "127.0.0.1:1", false, true, false},
		"no way there":          {t.Context(), "255.255.255.255:10255", false, true, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			open, err := Dialer{}.ReadOnlyOpen(c.ctx, Target{ReadOnly: c.address})
			if open != c.open || (err != nil) != c.wantsErr {
				t.Errorf("open: %t, error: %v, want %t and an error: %t", open, err, c.open, c.wantsErr)
			}
			if IsFiltered(err) != c.filtered {
				t.Errorf("filtered: %t, error: %v", IsFiltered(err), err)
			}
			if err != nil && strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("the error %q has addresses, which the finding names already or which change", err)
			}
		})
	}
}

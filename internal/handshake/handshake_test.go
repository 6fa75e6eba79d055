// SPDX-License-Identifier: Apache-2.0

package handshake

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/listen"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// patience is longer than any step takes on a busy machine.
const patience = 20 * time.Second

// serve calls a function for each connection, and returns the address.
func serve(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	return listen.Serve(t, answer).String()
}

// server is a TLS server that requests client certificates of CAs with these names.
func server(t *testing.T, certificates [][]byte, pair pkitest.Pair, clientCAs ...string) string {
	t.Helper()
	own, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	own.Certificate = append(own.Certificate, certificates...)
	clients := x509.NewCertPool()
	for _, name := range clientCAs {
		clients.AddCert(pkitest.NewCA(name).Certificate)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequestClientCert, ClientCAs: clients,
		MinVersion: tls.VersionTLS12,
	}
	return serve(t, func(c net.Conn) {
		server := tls.Server(c, config)
		if server.HandshakeContext(t.Context()) == nil {
			_, _ = server.Read(make([]byte, 1)) // until the client closes
		}
	})
}

// manyNames returns names of CAs that have this many bytes together.
func manyNames(bytes int) (names []string) {
	for range bytes / 1000 {
		names = append(names, strings.Repeat("x", 980))
	}
	return names
}

// TestBadInput: time and memory are bounded whatever the peer sends, and no error quotes it.
func TestBadInput(t *testing.T) {
	page := messages.Record(t, "errors of the handshake")
	const secret = "MARKER-OF-THE-PEER"
	ca := pkitest.NewCA("signer")
	pair := ca.Issue(pkitest.ServingCert())
	var chain [][]byte
	for range 99 {
		chain = append(chain, ca.Issue(pkitest.ServingCert()).Leaf.Raw)
	}
	random := rand.New(rand.NewPCG(1, 2)) // a fixed seed: each run is the same
	garbage := make([]byte, 1<<20)
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	alerting := func(code byte) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 16<<10))
			_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, code}) // RFC 8446 5.1, 6
		}
	}
	// A handshake record that announces a long message and goes on forever.
	endless := func(c net.Conn) {
		_, _ = c.Read(make([]byte, 16<<10))
		record := append([]byte{22, 3, 3, 0x3f, 0xff}, make([]byte, 0x3fff)...)
		record[5], record[6], record[7], record[8] = 11, 0, 0xff, 0xff // a certificate message of 64 KiB
		for {
			if _, err := c.Write(record); err != nil {
				return
			}
		}
	}
	type seen struct {
		Error  string
		NotTLS bool
		Alert  bool
		CAs    int
		Leaf   bool
	}
	cases := map[string]struct {
		address string
		want    seen
	}{
		"a server":               {server(t, nil, pair, "a", "b"), seen{CAs: 2, Leaf: true}},
		"any client certificate": {server(t, nil, pair), seen{Leaf: true}},
		"10 KiB of CA names":     {server(t, nil, pair, manyNames(10<<10)...), seen{CAs: 10, Leaf: true}},
		"64 KiB of CA names": {
			server(t, nil, pair, manyNames(60<<10)...),
			seen{Error: "the server sent more than 48 KiB before the handshake was complete", CAs: 0},
		},
		"a chain of 10": {server(t, chain[:9], pair), seen{Leaf: true}},
		"a chain of 11": {server(t, chain[:10], pair), seen{Error: "the server sent 11 certificates, more than 10"}},
		"a chain of 100": {
			server(t, chain, pair), seen{Error: "the server sent more than 48 KiB before the handshake was complete"},
		},
		"never finishes": {serve(t, func(c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
		}), seen{Error: "no answer within 3s"}},
		"a byte a second": {serve(t, func(c net.Conn) {
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for _, b := range []byte{22, 3, 3, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} {
				<-tick.C
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		}), seen{Error: "no answer within 3s"}},
		"an endless message": {
			serve(t, endless), seen{Error: "the server sent more than 48 KiB before the handshake was complete"},
		},
		"garbage": {serve(t, func(c net.Conn) {
			_, _ = c.Write(garbage)
			_, _ = io.Copy(io.Discard, c)
		}), seen{Error: "tls: first record does not look like a TLS handshake", NotTLS: true}},
		"text": {serve(t, func(c net.Conn) {
			_, _ = io.WriteString(c, strings.Repeat(secret, 100))
			_, _ = io.Copy(io.Discard, c)
		}), seen{Error: "tls: first record does not look like a TLS handshake", NotTLS: true}},
		"a redirect": {serve(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 301 Moved Permanently\r\nLocation: https://192.0.2.1/"+secret+"\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}), seen{Error: "tls: first record does not look like a TLS handshake", NotTLS: true}},
		"an alert":              {serve(t, alerting(80)), seen{Error: "remote error: tls: internal error", Alert: true}},
		"an alert with no name": {serve(t, alerting(222)), seen{Error: "remote error: tls: alert(222)", Alert: true}},
		"another version": {serve(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 16<<10))
			hello := []byte{22, 3, 3, 0, 42, 2, 0, 0, 38, 0x77, 0x77}
			_, _ = c.Write(append(hello, make([]byte, 36)...))
		}), seen{Error: "the server does not follow the TLS protocol"}},
		"an unparsable certificate": {serve(t, func(c net.Conn) {
			certificate := tls.Certificate{Certificate: [][]byte{[]byte(secret)}, PrivateKey: parsedKey(t, pair)}
			config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
			_ = tls.Server(c, config).HandshakeContext(t.Context())
		}), seen{Error: "the server's certificate cannot be parsed"}},
		"nothing listens":    {"127.0.0.1:1", seen{Error: "connect: connection refused"}},
		"no such name":       {"no-such-name.invalid:10250", seen{Error: "the host name"}},
		"an IPv6 address":    {serveIPv6(t, pair), seen{Leaf: true}},
		"not a valid target": {"no port", seen{Error: "address no port: missing port in address"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			answer := Dialer{}.Handshake(t.Context(), c.address, "name.svc")
			if took := time.Since(began); took > Timeout+patience {
				t.Errorf("it took %s", took)
			}
			runtime.ReadMemStats(&after)
			// The servers are in this process, and allocate as well.
			if mib := float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20); mib > 8 {
				t.Errorf("it allocated %.1f MiB", mib)
			}
			got := seen{
				NotTLS: answer.NotTLS, Alert: answer.Alert != nil,
				CAs: len(answer.AcceptedCAs), Leaf: len(answer.Certificates) > 0,
			}
			if answer.Err != nil {
				got.Error = answer.Err.Error()
				if name != "no such name" {
					page.Error(name, answer.Err)
				}
			}
			if name == "no such name" { // a resolver may be unavailable
				got.Error = strings.TrimSuffix(strings.TrimSuffix(got.Error, " does not exist"), " cannot be resolved")
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			for _, quoted := range []string{secret, "127.0.0.1", "192.0.2.1", "xxx", "MOVED"} {
				if strings.Contains(got.Error, quoted) {
					t.Errorf("the error %q quotes %q", got.Error, quoted)
				}
			}
		})
	}
}

// parsedKey returns the private key of a pair.
func parsedKey(t *testing.T, pair pkitest.Pair) any {
	t.Helper()
	parsed, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.PrivateKey
}

// serveIPv6 is a TLS server at the IPv6 loopback address.
func serveIPv6(t *testing.T, pair pkitest.Pair) string {
	t.Helper()
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	_ = server.Listener.Close()
	server.Listener = listener
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return listener.Addr().String()
}

// TestControl: the control function sees each address after resolution, and its refusal is the error.
func TestControl(t *testing.T) {
	why := "the address is refused"
	var asked []string
	dialer := Dialer{Control: func(network, address string, _ syscall.RawConn) error {
		asked = append(asked, network+" "+address)
		return &RefusedError{Why: why}
	}}
	to := serve(t, func(net.Conn) { t.Error("there was a connection") })
	answer := dialer.Handshake(t.Context(), to, "name.svc")
	if refused, ok := errors.AsType[*RefusedError](answer.Err); !ok || refused.Why != why {
		t.Errorf("the error is %v", answer.Err)
	}
	if want := []string{"tcp4 " + to}; !slices.Equal(asked, want) {
		t.Errorf("asked about %q, want %q", asked, want)
	}
}

// TestErrorsQuoteNothing: errors of the TLS stack that may have something that the peer sent become fixed texts.
func TestErrorsQuoteNothing(t *testing.T) {
	for text, want := range map[string]string{
		"tls: unexpected message": "tls: unexpected message",
		"tls: failed to parse certificate from server: x509: cannot parse dnsName \"a\"": errUnparsable.Error(),
		"tls: server selected unsupported protocol version 301":                          errProtocol.Error(),
		`x509: cannot parse URI "ftp:a"`:                                                 errProtocol.Error(),
		"tls: " + strings.Repeat("a", maxErrorText):                                      errProtocol.Error(),
	} {
		if got := StableError(fmt.Errorf("%s", text), Timeout).Error(); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

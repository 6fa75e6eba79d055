// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

// patience is more than anything here takes on a busy machine.
const patience = 20 * time.Second

func TestNew(t *testing.T) {
	type addresses struct{ host, address, readOnly string }
	cases := map[string]struct {
		want addresses // empty: an error
	}{
		"192.0.2.7":         {addresses{"192.0.2.7", "192.0.2.7:10250", "192.0.2.7:10255"}},
		"192.0.2.7:443":     {addresses{"192.0.2.7", "192.0.2.7:443", "192.0.2.7:10255"}},
		"2001:db8::7":       {addresses{"2001:db8::7", "[2001:db8::7]:10250", "[2001:db8::7]:10255"}},
		"[2001:db8::7]":     {addresses{"2001:db8::7", "[2001:db8::7]:10250", "[2001:db8::7]:10255"}},
		"[2001:db8::7]:443": {addresses{"2001:db8::7", "[2001:db8::7]:443", "[2001:db8::7]:10255"}},
		"master-0.example":  {addresses{"master-0.example", "master-0.example:10250", "master-0.example:10255"}},
		"":                  {},
		":10250":            {},
		"192.0.2.7:0":       {},
		"192.0.2.7:65536":   {},
		"192.0.2.7:port":    {},
		"https://192.0.2.7": {},
		"a b":               {},
		"[]":                {},
	}
	for address, c := range cases {
		t.Run(address, func(t *testing.T) {
			var got addresses
			p, err := New(address)
			if err == nil {
				got = addresses{p.host, p.address, p.readOnly}
			}
			if (err != nil) != (c.want == addresses{}) || got != c.want {
				t.Errorf("New(%q): got %v and %v, want %v", address, got, err, c.want)
			}
		})
	}
}

// kubelet is a server as kubelets are: it asks clients for a certificate, and
// tells whether one came, and how many requests.
type kubelet struct {
	*httptest.Server
	clients, requests int
	closed            chan struct{} // a value for each connection that has ended
}

func newKubelet(t *testing.T, pair pkitest.Pair, clients *x509.CertPool, change func(*tls.Config)) *kubelet {
	t.Helper()
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	k := &kubelet{closed: make(chan struct{}, 100)}
	k.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { k.requests++ }))
	k.Config.ErrorLog = log.New(io.Discard, "", 0)
	k.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			k.closed <- struct{}{}
		}
	}
	k.TLS = &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(state tls.ConnectionState) error {
			k.clients += len(state.PeerCertificates)
			return nil
		},
	}
	if change != nil {
		change(k.TLS)
	}
	k.StartTLS()
	t.Cleanup(k.Close)
	return k
}

func at(t *testing.T, address string) *Prober {
	t.Helper()
	p, err := New(address)
	if err != nil {
		t.Fatal(err)
	}
	p.readOnly = "127.0.0.1:1" // nothing listens there
	return p
}

// listen answers each connection as told.
func listen(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the test
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
			go answer(connection)
		}
	}()
	return listener.Addr().String()
}

// TestLook: every kind of server that may answer.
func TestLook(t *testing.T) {
	servingCA, clientCA, otherCA := pkitest.NewCA("csr-signer"), pkitest.NewCA("signer"), pkitest.NewCA("other")
	pair := servingCA.Issue(pkitest.ServingCert())
	pool := x509.NewCertPool()
	pool.AddCert(clientCA.Certificate)
	pool.AddCert(otherCA.Certificate)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()

	type seen struct {
		Error        string
		NotTLS       bool
		Leaf         bool
		Asks         bool
		CAs          int
		ReadOnlyOpen bool
	}
	tls12 := func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }
	cases := map[string]struct {
		address  func(t *testing.T) string
		readOnly bool
		want     seen
	}{
		"kubelet":                     {address: func(t *testing.T) string { return newKubelet(t, pair, pool, nil).address() }, want: seen{Leaf: true, Asks: true, CAs: 2}},
		"kubelet, TLS 1.2":            {address: func(t *testing.T) string { return newKubelet(t, pair, pool, tls12).address() }, want: seen{Leaf: true, Asks: true, CAs: 2}},
		"kubelet, read-only port too": {address: func(t *testing.T) string { return newKubelet(t, pair, pool, nil).address() }, readOnly: true, want: seen{Leaf: true, Asks: true, CAs: 2, ReadOnlyOpen: true}},
		"takes any client":            {address: func(t *testing.T) string { return newKubelet(t, pair, nil, nil).address() }, want: seen{Leaf: true, Asks: true}},
		"asks no client": {address: func(t *testing.T) string {
			return newKubelet(t, pair, pool, func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }).address()
		}, want: seen{Leaf: true}},
		"demands a certificate, TLS 1.2": {address: func(t *testing.T) string {
			return newKubelet(t, pair, pool, func(c *tls.Config) { tls12(c); c.ClientAuth = tls.RequireAndVerifyClientCert }).address()
		}, want: seen{Error: "remote error: tls: handshake failure", Asks: true, CAs: 2}},
		"plain HTTP": {address: func(*testing.T) string { return plain.Listener.Addr().String() }, want: seen{Error: "tls: first record does not look like a TLS handshake", NotTLS: true}},
		"another protocol": {address: func(t *testing.T) string {
			return listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") })
		}, want: seen{Error: "tls: first record does not look like a TLS handshake", NotTLS: true}},
		"closes at once": {address: func(t *testing.T) string {
			return listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 5)); _ = c.Close() })
		}, want: seen{Error: "read: connection reset by peer"}},
		"says nothing": {address: func(t *testing.T) string { return listen(t, func(net.Conn) {}) }, want: seen{Error: "no answer within 3s"}},
		"nobody there": {address: func(*testing.T) string { return "127.0.0.1:1" }, want: seen{Error: "connect: connection refused"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := at(t, c.address(t))
			if c.readOnly {
				p.readOnly = listen(t, func(net.Conn) {})
			}
			begin := time.Now()
			answer := p.Look(t.Context())
			if took := time.Since(begin); took > timeout+patience {
				t.Errorf("it took %s", took)
			}
			got := seen{NotTLS: answer.NotTLS, Leaf: len(answer.Certificates) == 1 && answer.Certificates[0].Equal(pair.Leaf), Asks: answer.AsksClients, CAs: len(answer.AcceptedCAs), ReadOnlyOpen: answer.ReadOnlyOpen}
			if answer.Err != nil {
				got.Error = answer.Err.Error()
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Look (-want +got):\n%s", d)
			}
			if strings.Contains(got.Error, "127.0.0.1") {
				t.Errorf("the error %q has addresses, which stand beside it or differ each time", got.Error)
			}
		})
	}
}

func (k *kubelet) address() string { return k.Listener.Addr().String() }

// TestLookKeepsQuiet: the kubelet gets neither a certificate nor a request of
// ours, and has nothing to complain about.
func TestLookKeepsQuiet(t *testing.T) {
	ca := pkitest.NewCA("csr-signer")
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			complaints := make(complaints, 10)
			k := newKubelet(t, ca.Issue(pkitest.ServingCert()), pool, func(c *tls.Config) { c.MaxVersion = version })
			k.Config.ErrorLog = log.New(complaints, "", 0)
			for range 5 {
				if answer := at(t, k.address()).Look(t.Context()); answer.Err != nil {
					t.Fatal(answer.Err)
				}
				select {
				case <-k.closed:
				case <-time.After(patience):
					t.Fatal("the connection is not closed")
				}
			}
			if k.clients != 0 || k.requests != 0 || len(complaints) != 0 {
				t.Errorf("the kubelet saw %d client certificates and %d requests, and complained %d times: %q", k.clients, k.requests, len(complaints), drain(complaints))
			}
		})
	}
}

type complaints chan string

func (c complaints) Write(line []byte) (int, error) {
	c <- string(line)
	return len(line), nil
}

func drain(c complaints) (all []string) {
	for len(c) > 0 {
		all = append(all, <-c)
	}
	return all
}

// TestRun: one answer for what was asked, however often, and none unasked.
func TestRun(t *testing.T) {
	ca := pkitest.NewCA("csr-signer")
	k := newKubelet(t, ca.Issue(pkitest.ServingCert()), nil, nil)
	p := at(t, k.address())
	if p.Answer() != nil {
		t.Error("an answer before anything was asked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	began := time.Now()
	for range 3 {
		p.Ask()
	}
	await := func(what string) *check.KubeletAnswer {
		t.Helper()
		select {
		case <-p.Answered():
		case <-time.After(patience):
			t.Fatalf("no answer: %s", what)
		}
		return p.Answer()
	}
	if answer := await("asked"); answer.Err != nil || string(answer.At) != "kubelet "+k.address() {
		t.Errorf("first answer: %+v", answer)
	}
	k.Close()
	p.Ask()
	answer := await("asked again")
	for answer.Err == nil { // the one that was asked for while the first was under way
		p.Ask()
		answer = await("asked once more")
	}
	if took := time.Since(began); took < gap {
		t.Errorf("the next look came after %s", took)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Error("Run does not end with its context")
	}
}

// TestReadOnlyPort: that it is open stays known while nothing answers at all.
func TestReadOnlyPort(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New("127.0.0.1:1") // where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	p.readOnly = listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for _, what := range []string{"while it is open", "when it is closed, too"} {
		p.Ask()
		<-p.Answered()
		if answer := p.Answer(); !answer.ReadOnlyOpen || answer.Err == nil {
			t.Errorf("%s: open: %t, error: %v", what, answer.ReadOnlyOpen, answer.Err)
		}
		_ = listener.Close() // the second time it is closed already
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubelettls"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// patience is longer than any step takes on a busy machine.
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
				got = addresses{p.to.Host, p.to.Address, p.to.ReadOnly}
			}
			if (err != nil) != (c.want == addresses{}) || got != c.want {
				t.Errorf("New(%q): got %v and %v, want %v", address, got, err, c.want)
			}
		})
	}
}

// kubelet is a server like a kubelet: it asks clients for a certificate, and counts
// client certificates and requests.
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
	p.to.ReadOnly = "127.0.0.1:1" // nothing listens on it
	return p
}

// listen calls a function for each connection.
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

// TestProbe probes every kind of server that may answer.
func TestProbe(t *testing.T) {
	page := messages.Record(t, "errors of the probe")
	servingCA, clientCA, otherCA := pkitest.NewCA("csr-signer"), pkitest.NewCA("signer"), pkitest.NewCA("other")
	pair := servingCA.Issue(pkitest.ServingCert())
	pool := x509.NewCertPool()
	pool.AddCert(clientCA.Certificate)
	pool.AddCert(otherCA.Certificate)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()

	type seen struct {
		Error        string
		Alert        string
		NotTLS       bool
		Leaf         bool
		Asks         bool
		CAs          int
		ReadOnlyOpen bool
	}
	tls12 := func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }
	// What the kubelet does until its first certificate is signed (Kubernetes
	// pkg/kubelet/kubelet.go).
	noCertificate := without(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, errors.New("no serving certificate available for the kubelet")
	})
	nothing := without(nil)
	noConfiguration := func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("none") }
	}
	broken := func(changes ...func(*tls.Config)) func(*testing.T) string {
		return func(t *testing.T) string {
			return newKubelet(t, pair, pool, func(c *tls.Config) {
				for _, change := range changes {
					change(c)
				}
			}).address()
		}
	}
	refused := func(alert string) seen {
		return seen{Error: "remote error: tls: " + alert, Alert: "tls: " + alert}
	}
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
			return newKubelet(t, pair, pool,
				func(c *tls.Config) { tls12(c); c.ClientAuth = tls.RequireAndVerifyClientCert }).address()
		}, want: seen{Leaf: true, Asks: true, CAs: 2}},
		"demands a certificate, TLS 1.3": {address: func(t *testing.T) string {
			return newKubelet(t, pair, pool, func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }).address()
		}, want: seen{Leaf: true, Asks: true, CAs: 2}},
		"no certificate yet":                 {address: broken(noCertificate), want: refused("internal error")},
		"no certificate yet, TLS 1.2":        {address: broken(noCertificate, tls12), want: refused("internal error")},
		"no configuration":                   {address: broken(noConfiguration), want: refused("internal error")},
		"no certificate configured":          {address: broken(nothing), want: refused("unrecognized name")},
		"no certificate configured, TLS 1.2": {address: broken(nothing, tls12), want: refused("unrecognized name")},
		"an older TLS": {address: broken(func(c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}), want: refused("protocol version not supported")},
		"no cipher suite in common": {address: broken(tls12, func(c *tls.Config) {
			c.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256} // needs an RSA key
		}), want: refused("handshake failure")},
		"no application protocol in common": {address: func(t *testing.T) string {
			return listen(t, alerts(120))
		}, want: refused("no application protocol")},
		"an alert that has no name": {address: func(t *testing.T) string { return listen(t, alerts(222)) }, want: refused("alert(222)")},
		"plain HTTP":                {address: func(*testing.T) string { return plain.Listener.Addr().String() }, want: seen{Error: "tls: first record does not look like a TLS handshake", NotTLS: true}},
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
				p.to.ReadOnly = listen(t, func(net.Conn) {})
			}
			begin := time.Now()
			answer := p.Probe(t.Context())
			if took := time.Since(begin); took > kubelettls.Timeout+patience {
				t.Errorf("it took %s", took)
			}
			got := seen{
				NotTLS:       answer.NotTLS,
				Leaf:         len(answer.Certificates) == 1 && answer.Certificates[0].Equal(pair.Leaf),
				Asks:         answer.RequestsClientCertificate,
				CAs:          len(answer.AcceptedCAs),
				ReadOnlyOpen: answer.ReadOnlyOpen,
			}
			page.Error(name, answer.Err)
			if answer.Err != nil {
				got.Error = answer.Err.Error()
			}
			if answer.Alert != nil {
				got.Alert = answer.Alert.Error()
			}
			if answered := got.NotTLS || got.Leaf || got.Alert != ""; answer.Answered() != answered {
				t.Errorf("Answered() = %t", answer.Answered())
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Probe (-want +got):\n%s", d)
			}
			if strings.Contains(got.Error, "127.0.0.1") {
				t.Errorf("the error %q has addresses, which the finding names already or which change", got.Error)
			}
		})
	}
}

// without is a configuration with no certificate except the one that get returns. (If it
// had none at all, httptest would add its own.)
func without(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.Config) {
	return func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			bare := c.Clone()
			bare.Certificates, bare.GetCertificate = nil, get
			return bare, nil
		}
	}
}

// alerts answers a ClientHello with an alert.
func alerts(code byte) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 16<<10))
		_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, code}) // RFC 8446 5.1, 6
	}
}

func (k *kubelet) address() string { return k.Listener.Addr().String() }

// TestProbeSendsNothing: the probe sends the kubelet neither a certificate nor a request,
// and the kubelet logs no error.
func TestProbeSendsNothing(t *testing.T) {
	ca := pkitest.NewCA("csr-signer")
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			complaints := make(complaints, 10)
			k := newKubelet(t, ca.Issue(pkitest.ServingCert()), pool, func(c *tls.Config) { c.MaxVersion = version })
			k.Config.ErrorLog = log.New(complaints, "", 0)
			for range 5 {
				if answer := at(t, k.address()).Probe(t.Context()); answer.Err != nil {
					t.Fatal(answer.Err)
				}
				select {
				case <-k.closed:
				case <-time.After(patience):
					t.Fatal("the connection is not closed")
				}
			}
			if k.clients != 0 || k.requests != 0 || len(complaints) != 0 {
				t.Errorf("the kubelet saw %d client certificates and %d requests, and logged %d errors: %q", k.clients, k.requests,
					len(complaints), drain(complaints))
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

// TestRun: requests that come together get one answer, and there is no answer without a
// request.
func TestRun(t *testing.T) {
	ca := pkitest.NewCA("csr-signer")
	k := newKubelet(t, ca.Issue(pkitest.ServingCert()), nil, nil)
	p := at(t, k.address())
	if p.Answer() != nil {
		t.Error("an answer before the first request")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	began := time.Now()
	for range 3 {
		p.Ask()
	}
	if answer := await(t, p, "asked"); answer.Err != nil || answer.At.String() != "Kubelet "+k.address() {
		t.Errorf("first answer: %+v", answer)
	}
	k.Close()
	p.Ask()
	answer := await(t, p, "asked again")
	for answer.Err == nil { // wait for the one that was requested while the first one ran
		p.Ask()
		answer = await(t, p, "asked once more")
	}
	if took := time.Since(began); took < minInterval {
		t.Errorf("the next probe came after %s", took)
	}
	cancel()
	awaitEnd(t, ended)
}

// await returns the next answer of a prober that runs.
func await(t *testing.T, p *Prober, what string) *check.KubeletAnswer {
	t.Helper()
	select {
	case <-p.Answered():
	case <-time.After(patience):
		t.Fatalf("no answer: %s", what)
	}
	return p.Answer()
}

// awaitEnd waits for Run to return after its context ended.
func awaitEnd(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Error("Run does not return after its context ended")
	}
}

// TestReadOnlyPort: an open port counts as open while nothing answers.
func TestReadOnlyPort(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New("127.0.0.1:1") // nothing listens there
	if err != nil {
		t.Fatal(err)
	}
	p.to.ReadOnly = listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for _, what := range []string{"while it is open", "when it is closed, too"} {
		p.Ask()
		if answer := await(t, p, what); !answer.ReadOnlyOpen || answer.Err == nil {
			t.Errorf("%s: open: %t, error: %v", what, answer.ReadOnlyOpen, answer.Err)
		}
		_ = listener.Close() // the second time it is closed already
	}
	stop()
	awaitEnd(t, ended)
}

// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// network is a listener whose connections can be lost. At first it works.
type network struct {
	address string

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
	whole    chan struct{} // closed while packets are delivered
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{open: map[net.Conn]bool{}, whole: make(chan struct{})}
	close(n.whole)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.listener, n.address = listener, listener.Addr().String()
	return n
}

// Accept implements [net.Listener]. It waits while connections are refused.
func (n *network) Accept() (net.Conn, error) {
	for {
		n.mu.Lock()
		listener := n.listener
		n.mu.Unlock()
		if listener == nil {
			return nil, net.ErrClosed
		}
		connection, err := listener.Accept()
		n.mu.Lock()
		replaced := n.listener != listener
		if err == nil {
			n.open[connection] = true
		}
		n.mu.Unlock()
		if err == nil {
			return &lossy{connection, n}, nil
		}
		if !replaced {
			<-time.After(10 * time.Millisecond) // closed and not reopened yet
		}
	}
}

// Addr implements [net.Listener].
func (n *network) Addr() net.Addr {
	address, _ := net.ResolveTCPAddr("tcp", n.address)
	return address
}

// Close implements [net.Listener].
func (n *network) Close() error {
	n.refuse()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener = nil
	return nil
}

// refuse closes all connections and refuses new ones.
func (n *network) refuse() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener != nil {
		_ = n.listener.Close()
	}
	for connection := range n.open {
		_ = connection.Close()
	}
	clear(n.open)
}

// freeze drops all packets without an error.
func (n *network) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.whole = make(chan struct{})
}

// repair makes it work again.
func (n *network) repair(t *testing.T) {
	t.Helper()
	n.unfreeze()
	n.mu.Lock()
	defer n.mu.Unlock()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", n.address)
	if err != nil {
		return // already listening
	}
	n.listener = listener
}

// unfreeze delivers packets again.
func (n *network) unfreeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.whole:
	default:
		close(n.whole)
	}
}

func (n *network) arriving() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.whole
}

// lossy is a connection of a network.
type lossy struct {
	net.Conn
	n *network
}

func (l *lossy) Read(data []byte) (int, error) {
	count, err := l.Conn.Read(data)
	<-l.n.arriving()
	return count, err
}

func (l *lossy) Write(data []byte) (int, error) {
	<-l.n.arriving()
	return l.Conn.Write(data)
}

func (l *lossy) Close() error {
	l.n.mu.Lock()
	delete(l.n.open, l.Conn)
	l.n.mu.Unlock()
	return l.Conn.Close()
}

// tcpProxy forwards TCP connections.
type tcpProxy struct{ *network }

func newTCPProxy(t *testing.T, to string) *tcpProxy {
	t.Helper()
	p := &tcpProxy{newNetwork(t)}
	ctx := t.Context()
	go func() {
		for {
			from, err := p.Accept()
			if err != nil {
				return
			}
			go func() {
				defer from.Close()
				onward, err := new(net.Dialer).DialContext(ctx, "tcp", to)
				if err != nil {
					return
				}
				defer onward.Close()
				done := make(chan struct{}, 2)
				go func() { _, _ = io.Copy(onward, from); done <- struct{}{} }()
				go func() { _, _ = io.Copy(from, onward); done <- struct{}{} }()
				<-done
			}()
		}
	}()
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// proxy is an HTTP proxy between the programs and the API server that can misbehave.
type proxy struct {
	*network
	ca *pkitest.CA
	// pass forwards requests.
	pass *httputil.ReverseProxy

	mu      sync.Mutex
	answers http.Handler
	over    chan struct{} // closed when the handler is replaced
}

func newProxy(t *testing.T, s suite) *proxy {
	t.Helper()
	upstream, err := url.Parse(s.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.config.CAData)
	now := time.Now()
	p := &proxy{network: newNetwork(t), ca: pkitest.NewCAAround("proxy", now), over: make(chan struct{})}
	p.pass = p.onward(upstream,
		&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true})
	p.answers = p.pass
	pair := p.ca.Issue(
		pkitest.Request{
			CommonName: "proxy",
			IPs:        []net.IP{net.IPv4(127, 0, 0, 1)},
		}.Valid(now.Add(-time.Hour), now.AddDate(1, 0, 0)),
	)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: p, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = server.ServeTLS(p.network, "", "") }()
	t.Cleanup(func() {
		p.unfreeze()
		p.set(http.NotFoundHandler())
		_ = server.Close()
	})
	return p
}

func (p *proxy) onward(upstream *url.URL, transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream) }, Transport: transport,
		FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
	}
}

// ServeHTTP implements [http.Handler].
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	answers, over := p.answers, p.over
	p.mu.Unlock()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-over:
			cancel()
		case <-ctx.Done():
		}
	}()
	answers.ServeHTTP(w, r.WithContext(ctx))
}

// set replaces the handler. Requests in progress, such as watches, end.
func (p *proxy) set(answers http.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = answers
	close(p.over)
	p.over = make(chan struct{})
}

// repair makes it forward requests again.
func (p *proxy) repair(t *testing.T) {
	t.Helper()
	p.set(p.pass)
	p.network.repair(t)
}

// delay delays each response.
func (p *proxy) delay() {
	p.set(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(2 * time.Second):
			p.pass.ServeHTTP(w, r)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // no response at all
		}
	}))
}

// cut cuts off each response after its first byte. The API server has processed the request.
func (p *proxy) cut() {
	short := *p.pass
	short.ModifyResponse = func(r *http.Response) error {
		r.Body = &cutOff{r.Body, io.MultiReader(io.LimitReader(r.Body, 1), iotest.ErrReader(errors.New("cut off")))}
		return nil
	}
	p.set(&short)
}

type cutOff struct {
	io.Closer
	io.Reader
}

// answering makes a proxy give the same response to all requests.
func answering(answer http.HandlerFunc) func(*proxy) {
	return func(p *proxy) { p.set(answer) }
}

func tooMany(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = io.WriteString(
		w,
		`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too many requests, please try again later","reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}`,
	)
}

func broken(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(w,
		`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcdserver: leader changed","code":500}`)
}

// garbage is a response as a captive portal or a broken load balancer gives it.
func garbage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") == "" {
		_, _ = io.WriteString(w, "<html>\x00\xff{")
		return
	}
	_, _ = io.WriteString(w, `{"type":"MODIFIED","object":{"kind":"Secret","apiVersion":"v1","metadata":{"name":"`+"\n")
}

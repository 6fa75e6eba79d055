// SPDX-License-Identifier: Apache-2.0

package tlsserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// patience is longer than any step takes on a busy machine.
const patience = time.Minute

func serving(ca *pkitest.CA, notAfter time.Time) pkitest.Pair {
	return ca.Issue(
		pkitest.Request{
			CommonName: "webhook",
			IPs:        []net.IP{net.IPv4(127, 0, 0, 1)},
		}.Valid(notAfter.AddDate(-1, 0, 0), notAfter),
	)
}

func write(t *testing.T, directory string, p pkitest.Pair) {
	t.Helper()
	for name, data := range map[string][]byte{"tls.crt": p.Certificate, "tls.key": p.Key} {
		if err := os.WriteFile(filepath.Join(directory, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// testServer is a running server.
type testServer struct {
	*Server
	address string
	roots   *x509.CertPool
	stop    context.CancelFunc
	ended   chan error
	log     *bytes.Buffer
	// profile is the current profile, which tests may change.
	profile *atomic.Pointer[tlsprofile.Profile]
	// cleanup is Cleanup of the test.
	cleanup func(func())
}

func start(t *testing.T, ca *pkitest.CA, delay time.Duration, handler http.HandlerFunc) testServer {
	t.Helper()
	return startWith(t, ca, Options{ShutdownDelay: delay, Handler: handler})
}

// startWith starts a server, and sets the options that every test needs. changes are applied
// before it runs.
func startWith(t *testing.T, ca *pkitest.CA, options Options, changes ...func(*Server)) testServer {
	t.Helper()
	options.Directory = t.TempDir()
	write(t, options.Directory, serving(ca, time.Now().AddDate(0, 0, 30)))
	r := testServer{cleanup: t.Cleanup, roots: x509.NewCertPool(), ended: make(chan error, 1), log: new(bytes.Buffer),
		profile: new(atomic.Pointer[tlsprofile.Profile])}
	r.roots.AddCert(ca.Certificate)
	r.profile.Store(new(tlsprofile.Profile))
	options.Profile = func() tlsprofile.Profile { return *r.profile.Load() }
	options.Now, options.Log = time.Now, slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.Server, err = New(options); err != nil {
		t.Fatal(err)
	}
	r.reloadEvery = time.Hour // the tests call reload, which is not safe for concurrent use
	// No client is disconnected because the machine is slow.
	r.bodyTime, r.requestTime = patience, patience
	for _, change := range changes {
		change(r.Server)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- r.Run(ctx, listener)
	}()
	t.Cleanup(func() {
		_ = listener.Close() // ends Run without the shutdown delay
		<-done
	})
	await(t, r.Server, true)
	return r
}

// await waits until the server is ready, or not ready.
func await(t *testing.T, s *Server, ready bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for err := s.Ready(t.Context()); (err == nil) != ready; err = s.Ready(t.Context()) {
		if time.Now().After(deadline) {
			t.Fatalf("ready: %v", err)
		}
		<-time.After(time.Millisecond)
	}
}

// client returns a new client, whose connections are closed after the test.
func (r testServer) client() *http.Client {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	r.cleanup(client.CloseIdleConnections)
	return client
}

// post sends a body and returns the status code.
func (r testServer) post(ctx context.Context, client *http.Client, body io.Reader) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+r.address, body)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func echo(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }

// load sends requests over many connections, old and new ones, until stop is called. Both
// functions return how many requests were answered, and the first error.
func (r testServer) load(ctx context.Context) (now, stop func() (answered int64, fault error)) {
	const clients = 8
	var answered atomic.Int64
	var first atomic.Pointer[error]
	var all sync.WaitGroup
	ending := make(chan struct{})
	for i := range clients {
		all.Go(func() {
			client := r.client()
			for {
				select {
				case <-ending:
					return
				default:
				}
				code, err := r.post(ctx, client, strings.NewReader("request"))
				if err == nil && code != http.StatusOK {
					err = fmt.Errorf("code %d", code)
				}
				if err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
				answered.Add(1)
				if i%2 == 0 { // a new connection each time
					client.CloseIdleConnections()
				}
			}
		})
	}
	now = func() (int64, error) {
		if fault := first.Load(); fault != nil {
			return answered.Load(), *fault
		}
		return answered.Load(), nil
	}
	return now, func() (int64, error) {
		close(ending)
		all.Wait()
		return now()
	}
}

// TestReloadUnderLoad: new certificates are loaded, invalid ones are not, and no request
// fails meanwhile.
func TestReloadUnderLoad(t *testing.T) {
	ca := pkitest.NewCAAround("ca", time.Now())
	r := start(t, ca, 0, echo)
	_, finish := r.load(t.Context())
	presented := func() *x509.Certificate {
		t.Helper()
		connection, err := (&tls.Dialer{Config: &tls.Config{RootCAs: r.roots}}).DialContext(t.Context(), "tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		return connection.(*tls.Conn).ConnectionState().PeerCertificates[0]
	}
	for i := range 20 {
		pair := serving(ca, time.Now().AddDate(0, 0, 31+i))
		write(t, r.Directory, pair)
		r.reload()
		if !presented().Equal(pair.Leaf) {
			t.Fatalf("rotation %d is not presented", i)
		}
		if err := os.WriteFile(filepath.Join(r.Directory, "tls.key"), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.reload()
		r.reload()
		if !presented().Equal(pair.Leaf) {
			t.Fatalf("after an invalid key the last valid certificate %d is not presented", i)
		}
	}
	if answered, fault := finish(); fault != nil || answered == 0 {
		t.Errorf("%d requests were answered, then: %v", answered, fault)
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if logged := strings.Count(r.log.String(), "level=ERROR "); logged != 20 {
		t.Errorf("%d errors were logged, want one for each of the 20 invalid keys:\n%s", logged, r.log)
	}
	if strings.Contains(r.log.String(), "PRIVATE KEY") {
		t.Error("the log contains a private key")
	}
}

// TestShutdownUnderLoad: as soon as the shutdown begins, the server is not ready, and it
// keeps answering.
func TestShutdownUnderLoad(t *testing.T) {
	r := start(t, pkitest.NewCAAround("ca", time.Now()), patience, echo)
	now, finish := r.load(t.Context())
	r.stop()
	await(t, r.Server, false)
	before, fault := now()
	deadline := time.After(patience / 2)
	for answered := before; fault == nil && answered < before+20; answered, fault = now() {
		select {
		case err := <-r.ended:
			t.Fatalf("ended immediately: %v", err)
		case <-deadline:
			t.Fatalf("only %d requests were answered after the shutdown began", answered-before)
		case <-time.After(time.Millisecond):
		}
	}
	if answered, fault := finish(); fault != nil {
		t.Errorf("%d requests were answered, then: %v", answered, fault)
	}
}

// TestShutdown: the server ends after its shutdown delay.
func TestShutdown(t *testing.T) {
	const delay = 300 * time.Millisecond
	r := start(t, pkitest.NewCAAround("ca", time.Now()), delay, echo)
	began := time.Now()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("ended after %s", took)
	}
}

// TestConnectionsCloseAtShutdown: a client that is connected when the shutdown begins is
// answered, and its connection is closed.
func TestConnectionsCloseAtShutdown(t *testing.T) {
	r := start(t, pkitest.NewCAAround("ca", time.Now()), time.Minute, echo)
	client := r.client()
	closes := func() bool {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.address,
			strings.NewReader("request"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("code %d, %v", response.StatusCode, err)
		}
		return response.Close
	}
	if closes() {
		t.Error("the connection is closed before the shutdown")
	}
	r.stop()
	await(t, r.Server, false)
	if !closes() {
		t.Error("the connection is kept during the shutdown")
	}
}

// TestRequestInProgress: a request that began before the shutdown is answered.
func TestRequestInProgress(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	r := start(t, pkitest.NewCAAround("ca", time.Now()), 0, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-answer
		w.WriteHeader(http.StatusOK)
	})
	code := make(chan string, 1)
	go func() {
		got, err := r.post(t.Context(), r.client(), strings.NewReader("request"))
		code <- fmt.Sprint(got, err)
	}()
	<-arrived
	r.stop()
	await(t, r.Server, false)
	close(answer)
	if got := <-code; got != "200 <nil>" {
		t.Errorf("the request in progress: %s", got)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// TestBadClients: clients that misbehave do not prevent others from being answered, and are
// not logged.
func TestBadClients(t *testing.T) {
	r := start(t, pkitest.NewCAAround("ca", time.Now()), 0, echo)
	dial := func() net.Conn {
		t.Helper()
		connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		return connection
	}
	secure := func() net.Conn { return tls.Client(dial(), &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1"}) }
	send := func(connection net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(connection, text); err != nil {
			t.Fatal(err)
		}
	}
	// Of each kind, more than there are decisions at one time.
	for range maxDecisions + 1 {
		dial().Close()       // like a TCP probe
		defer dial().Close() // like a client that sends nothing
		send(dial(), "GET / HTTP/1.1\r\n\r\n")
		bare := secure()
		if err := bare.(*tls.Conn).HandshakeContext(t.Context()); err != nil { // like the platform's availability check
			t.Fatal(err)
		}
		bare.Close()
		slowHeader, slowBody := secure(), secure()
		defer slowHeader.Close()
		defer slowBody.Close()
		send(slowHeader, "POST / HTTP/1.1\r\nHost: x\r\n")
		send(slowBody, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nslow")
	}
	if code, err := r.post(t.Context(), r.client(), strings.NewReader("request")); code != http.StatusOK || err != nil {
		t.Errorf("while they are connected: %d, %v", code, err)
	}
	if code, err := r.post(t.Context(), r.client(), io.LimitReader(endless{},
		maxBody+1)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large: %d, %v", code, err)
	}
	if code, err := r.post(t.Context(), r.client(), io.LimitReader(endless{}, maxBody)); code != http.StatusOK ||
		err != nil {
		t.Errorf("the largest body: %d, %v", code, err)
	}
	if r.log.Len() > 0 {
		t.Errorf("the log:\n%s", r.log)
	}
}

// TestClientsThatDoNotRead: an answer that its client does not read delays no other client.
func TestClientsThatDoNotRead(t *testing.T) {
	// The answer is larger than the kernel's buffers.
	r := start(t, pkitest.NewCAAround("ca", time.Now()), 0, func(w http.ResponseWriter, r *http.Request) {
		size := 1
		if r.URL.Path == "/large" {
			size = 16 << 20
		}
		_, _ = w.Write(make([]byte, size))
	})
	for range 2 * maxDecisions {
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}}
		connection, err := dialer.DialContext(t.Context(), "tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if _, err := io.WriteString(connection, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := connection.Read(make([]byte, 1)); err != nil { // it was decided on
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), r.requestTime/2)
	defer cancel()
	if code, err := r.post(ctx, r.client(), strings.NewReader("request")); code != http.StatusOK || err != nil {
		t.Errorf("while they are connected: %d, %v", code, err)
	}
}

// TestAllConnectionsTaken: clients that hold all connections do not prevent others from being
// answered, whether they sent nothing, were answered or were refused.
func TestAllConnectionsTaken(t *testing.T) {
	for name, clients := range map[string]struct {
		address  func(int) string
		text     string
		clientCA bool
	}{
		"silent":                         {address: func(int) string { return "127.0.0.1" }},
		"answered, of one address":       {address: func(int) string { return "127.0.0.1" }, text: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"},
		"answered, of many addresses":    {address: func(i int) string { return fmt.Sprintf("127.0.1.%d", 1+i%250) }, text: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"},
		"refused: no client certificate": {address: func(int) string { return "127.0.0.1" }, text: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", clientCA: true},
	} {
		t.Run(name, func(t *testing.T) {
			ca := pkitest.NewCAAround("ca", time.Now())
			options := Options{Handler: http.HandlerFunc(echo)}
			if clients.clientCA {
				options.ClientCA = filepath.Join(t.TempDir(), "ca.crt")
				if err := os.WriteFile(options.ClientCA, ca.PEM(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r := startWith(t, ca, options)
			newClient := func() *http.Client {
				client := r.client()
				if clients.clientCA {
					now := time.Now()
					pair := ca.Issue(pkitest.Request{CommonName: "kube-apiserver"}.Valid(now.Add(-time.Hour), now.Add(time.Hour)))
					certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
					if err != nil {
						t.Fatal(err)
					}
					client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{certificate}
				}
				return client
			}
			answered := func(who string, client *http.Client) {
				t.Helper()
				if code, err := r.post(t.Context(), client, strings.NewReader("request")); code != http.StatusOK || err != nil {
					t.Errorf("%s: %d, %v", who, code, err)
				}
			}
			first := newClient()
			answered("the first client", first)
			for i := range maxConnections + 50 {
				dialer := tls.Dialer{
					NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clients.address(i))}},
					Config:    &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12},
				}
				connection, err := dialer.DialContext(t.Context(), "tcp", r.address)
				if err != nil {
					t.Fatal(err)
				}
				defer connection.Close()
				if clients.text != "" {
					if _, err := io.WriteString(connection, clients.text); err != nil {
						t.Fatal(err)
					}
					if _, err := connection.Read(make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
				}
				if i%100 == 0 {
					answered("a client that keeps sending requests", first)
				}
			}
			answered("a client that keeps sending requests", first)
			answered("a new client", newClient())
			await(t, r.Server, true)
		})
	}
}

// TestManyLargeBodies: requests that exceed the bound of all bodies wait, and all are
// answered.
func TestManyLargeBodies(t *testing.T) {
	r := start(t, pkitest.NewCAAround("ca", time.Now()), 0, echo)
	body := bytes.Repeat([]byte("x"), 3<<20)
	var all sync.WaitGroup
	for range 4 * maxBodies / len(body) {
		all.Go(func() {
			if code, err := r.post(t.Context(), r.client(), bytes.NewReader(body)); code != http.StatusOK || err != nil {
				t.Errorf("%d, %v", code, err)
			}
		})
	}
	all.Wait()
}

// TestSlowClients: a client that sends its header or body too slowly is disconnected.
func TestSlowClients(t *testing.T) {
	for name, request := range map[string]string{
		"header": "POST / HTTP/1.1\r\nHost: x\r\n",
		"body":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nslow",
	} {
		t.Run(name, func(t *testing.T) {
			r := startWith(t, pkitest.NewCAAround("ca", time.Now()), Options{Handler: http.HandlerFunc(echo)},
				func(s *Server) { s.bodyTime = 100 * time.Millisecond })
			connection, err := (&tls.Dialer{Config: &tls.Config{RootCAs: r.roots}}).DialContext(t.Context(), "tcp", r.address)
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			if _, err := io.WriteString(connection, request); err != nil {
				t.Fatal(err)
			}
			if err := connection.SetReadDeadline(time.Now().Add(patience / 2)); err != nil { // less than a request may take
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, bufio.NewReader(connection)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("still connected")
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// expiry matches a time of the real clock.
var expiry = regexp.MustCompile(`\d{4}-\S+Z`)

func TestReady(t *testing.T) {
	page := messages.Record(t, "why the webhook is not ready")
	ca := pkitest.NewCAAround("ca", time.Now())
	directory := t.TempDir()
	write(t, directory, serving(ca, time.Now().Add(-time.Hour)))
	s, err := New(
		Options{Directory: directory, Handler: http.NotFoundHandler(), Now: time.Now, Log: slog.New(slog.DiscardHandler)},
	)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	notReady := func(when string) {
		t.Helper()
		err := s.Ready(t.Context())
		if err == nil {
			t.Fatalf("%s: ready", when)
		}
		page.Text(when, expiry.ReplaceAllString(err.Error(), "<time>"))
		if other, same := reasons[err.Error()]; same {
			t.Errorf("%s: the reason is the same as %s: %v", when, other, err)
		}
		reasons[err.Error()] = when
	}
	notReady("before the server listens")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.reloadEvery = time.Hour // see startWith
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, listener) }()
	for s.address.Load() == nil {
		<-time.After(time.Millisecond)
	}
	notReady("with an expired certificate")
	write(t, directory, serving(ca, time.Now().AddDate(0, 0, 30)))
	s.reload()
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	notReady("after the shutdown")
}

// TestReadyByAnswer: a server that has just answered a client is ready, even if it would not answer
// a new connection now. It is not for long.
func TestReadyByAnswer(t *testing.T) {
	ca := pkitest.NewCAAround("ca", time.Now())
	now := time.Now()
	var passed atomic.Int64
	r := startWith(t, ca, Options{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})},
		func(s *Server) { s.Now = func() time.Time { return now.Add(time.Duration(passed.Load())) } })
	if r.answered.Load() != nil {
		t.Fatal("the server has answered a request already")
	}
	if _, err := r.post(t.Context(), r.client(), strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	unreachable := net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}) // nothing listens there
	r.Server.address.Store(&unreachable)
	for _, c := range []struct {
		after time.Duration
		ready bool
	}{{0, true}, {recentAnswer - 1, true}, {recentAnswer, false}} {
		passed.Store(int64(c.after))
		if err := r.Ready(t.Context()); (err == nil) != c.ready {
			t.Errorf("%s after an answer: %v", c.after, err)
		}
	}
}

// TestNew: without a matching certificate and key New fails.
func TestNew(t *testing.T) {
	directory := t.TempDir()
	if _, err := New(Options{Directory: directory, Handler: nil, Now: time.Now,
		Log: slog.New(slog.DiscardHandler)}); err == nil ||
		!strings.HasPrefix(err.Error(), "--cert-dir "+directory+": tls.crt: ") {
		t.Errorf("without files: %v", err)
	}
	ca := pkitest.NewCAAround("ca", time.Now())
	pair := serving(ca, time.Now())
	pair.Key = serving(ca, time.Now()).Key
	write(t, directory, pair)
	if _, err := New(Options{Directory: directory, Handler: nil, Now: time.Now,
		Log: slog.New(slog.DiscardHandler)}); err == nil ||
		!strings.HasPrefix(err.Error(), "--cert-dir "+directory+": ") {
		t.Errorf("with a key that does not match: %v", err)
	}
}

// TestCheckFiles: invalid files are reported before a server is made.
func TestCheckFiles(t *testing.T) {
	empty, good := t.TempDir(), t.TempDir()
	ca := pkitest.NewCAAround("ca", time.Now())
	clients := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(clients, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := serving(ca, time.Now())
	write(t, good, pair)
	_, notCA := pki.ParseBundle(pair.Key)
	for name, c := range map[string]struct{ directory, clientCA, want string }{
		"neither":        {},
		"both":           {directory: good, clientCA: clients},
		"no certificate": {directory: empty, clientCA: clients, want: "--cert-dir " + empty + ": tls.crt: no such file"},
		"no client CA":   {directory: good, clientCA: empty + "/x", want: "--client-ca " + empty + "/x: no such file"},
		"a private key": {directory: good, clientCA: filepath.Join(good, "tls.key"),
			want: "--client-ca " + filepath.Join(good, "tls.key") + ": " + notCA.Error()},
		"client CA alone": {clientCA: clients},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := CheckFiles(c.directory, c.clientCA); err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
		})
	}
}

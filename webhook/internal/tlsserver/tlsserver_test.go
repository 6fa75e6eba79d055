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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

// patience is more than anything here takes on a busy machine.
const patience = time.Minute

func serving(ca *pkitest.CA, notAfter time.Time) pkitest.Pair {
	return ca.Issue(pkitest.Request{CommonName: "webhook", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}.Valid(notAfter.AddDate(-1, 0, 0), notAfter))
}

func write(t *testing.T, directory string, p pkitest.Pair) {
	t.Helper()
	for name, data := range map[string][]byte{"tls.crt": p.Certificate, "tls.key": p.Key} {
		if err := os.WriteFile(filepath.Join(directory, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// running is a server that runs.
type running struct {
	*Server
	address string
	roots   *x509.CertPool
	stop    context.CancelFunc
	ended   chan error
	log     *bytes.Buffer
	// profile may be changed; at first there is none.
	profile *atomic.Pointer[Profile]
	// cleanup is that of the test.
	cleanup func(func())
}

func start(t *testing.T, ca *pkitest.CA, linger time.Duration, handler http.HandlerFunc) running {
	t.Helper()
	return startWith(t, ca, Options{Linger: linger, Handler: handler})
}

// startWith starts a server that lacks nothing but what its process has. changes
// are made before it runs.
func startWith(t *testing.T, ca *pkitest.CA, options Options, changes ...func(*Server)) running {
	t.Helper()
	options.Directory = t.TempDir()
	write(t, options.Directory, serving(ca, time.Now().AddDate(0, 0, 30)))
	r := running{cleanup: t.Cleanup, roots: x509.NewCertPool(), ended: make(chan error, 1), log: new(bytes.Buffer), profile: new(atomic.Pointer[Profile])}
	r.roots.AddCert(ca.Certificate)
	r.profile.Store(new(Profile))
	options.Profile = func() Profile { return *r.profile.Load() }
	options.Now, options.Log = time.Now, slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.Server, err = New(options); err != nil {
		t.Fatal(err)
	}
	r.reloadEvery = time.Hour // the tests call reload, which is for one goroutine
	// Nobody is seen off since this machine is slow.
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
		_ = listener.Close() // so that it does not linger for whom nobody waits
		<-done
	})
	await(t, r.Server, true)
	return r
}

// await waits until the server is ready, or is not any more.
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

// client is one of its own, whose connections end with the test.
func (r running) client() *http.Client {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	r.cleanup(client.CloseIdleConnections)
	return client
}

// post sends a body and returns the answer's code.
func (r running) post(ctx context.Context, client *http.Client, body io.Reader) (int, error) {
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

// load sends requests over many connections, old and new ones, until it is
// told to stop, and returns how many were answered and what went wrong first. Both
// may be asked for before.
func (r running) load(ctx context.Context) (now, stop func() (answered int64, fault error)) {
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

// TestReloadUnderLoad: new certificates are taken, bad ones are not, and no
// request fails meanwhile.
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
			t.Fatalf("after garbage the last good pair %d is not presented", i)
		}
	}
	if answered, fault := finish(); fault != nil || answered == 0 {
		t.Errorf("%d requests were answered, then: %v", answered, fault)
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if told := strings.Count(r.log.String(), "Serving certificate not reloaded"); told != 20 {
		t.Errorf("each of 20 bad pairs is to be told of once, %d were:\n%s", told, r.log)
	}
	if strings.Contains(r.log.String(), "PRIVATE KEY") {
		t.Error("the log holds a key")
	}
}

// TestEndUnderLoad: the server is not ready as soon as it is asked to end, and
// goes on answering.
func TestEndUnderLoad(t *testing.T) {
	r := start(t, pkitest.NewCAAround("ca", time.Now()), patience, echo)
	now, finish := r.load(t.Context())
	r.stop()
	await(t, r.Server, false)
	before, fault := now()
	deadline := time.After(patience / 2)
	for answered := before; fault == nil && answered < before+20; answered, fault = now() {
		select {
		case err := <-r.ended:
			t.Fatalf("ended at once: %v", err)
		case <-deadline:
			t.Fatalf("only %d requests were answered after that", answered-before)
		case <-time.After(time.Millisecond):
		}
	}
	if answered, fault := finish(); fault != nil {
		t.Errorf("%d requests were answered, then: %v", answered, fault)
	}
}

// TestEnd: it ends, and lingers for as long as it was told.
func TestEnd(t *testing.T) {
	const linger = 300 * time.Millisecond
	r := start(t, pkitest.NewCAAround("ca", time.Now()), linger, echo)
	began := time.Now()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < linger {
		t.Errorf("ended after %s", took)
	}
}

// TestParting: who is connected when the server is asked to end is answered, and
// asked to go elsewhere.
func TestParting(t *testing.T) {
	r := start(t, pkitest.NewCAAround("ca", time.Now()), time.Minute, echo)
	client := r.client()
	leaves := func() bool {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.address, strings.NewReader("request"))
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
	if leaves() {
		t.Error("a connection is not kept")
	}
	r.stop()
	await(t, r.Server, false)
	if !leaves() {
		t.Error("a connection is kept until the end")
	}
}

// TestRequestUnderWay: what was begun is answered.
func TestRequestUnderWay(t *testing.T) {
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
		t.Errorf("the request under way: %s", got)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// TestBadClients: nobody who connects in a strange way keeps others from being
// answered, or is told of in the log.
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
	// More than there are decisions at a time, of each kind.
	for range maxDecisions + 1 {
		dial().Close()       // as a TCP probe
		defer dial().Close() // as who waits for something
		send(dial(), "GET / HTTP/1.1\r\n\r\n")
		bare := secure()
		if err := bare.(*tls.Conn).HandshakeContext(t.Context()); err != nil { // as the platform does
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
		t.Errorf("beside them: %d, %v", code, err)
	}
	if code, err := r.post(t.Context(), r.client(), io.LimitReader(endless{}, maxBody+1)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large: %d, %v", code, err)
	}
	if code, err := r.post(t.Context(), r.client(), io.LimitReader(endless{}, maxBody)); code != http.StatusOK || err != nil {
		t.Errorf("the largest body: %d, %v", code, err)
	}
	if r.log.Len() > 0 {
		t.Errorf("the log:\n%s", r.log)
	}
}

// TestClientsThatDoNotRead: an answer that nobody takes holds up nobody else.
func TestClientsThatDoNotRead(t *testing.T) {
	// More than buffers of the kernel take.
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
		t.Errorf("beside them: %d, %v", code, err)
	}
}

// TestManyLargeBodies: what does not fit at one time waits, and all are
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

// TestSlow: who takes too long with his header, or with his body, is seen off.
func TestSlow(t *testing.T) {
	for name, request := range map[string]string{
		"header": "POST / HTTP/1.1\r\nHost: x\r\n",
		"body":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nslow",
	} {
		t.Run(name, func(t *testing.T) {
			r := startWith(t, pkitest.NewCAAround("ca", time.Now()), Options{Handler: http.HandlerFunc(echo)}, func(s *Server) { s.bodyTime = 100 * time.Millisecond })
			connection, err := (&tls.Dialer{Config: &tls.Config{RootCAs: r.roots}}).DialContext(t.Context(), "tcp", r.address)
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			if _, err := io.WriteString(connection, request); err != nil {
				t.Fatal(err)
			}
			if err := connection.SetReadDeadline(time.Now().Add(patience / 2)); err != nil { // less than a whole request may take
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

func TestReady(t *testing.T) {
	ca := pkitest.NewCAAround("ca", time.Now())
	directory := t.TempDir()
	write(t, directory, serving(ca, time.Now().Add(-time.Hour)))
	s, err := New(Options{Directory: directory, Handler: http.NotFoundHandler(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	reason := func(want string) {
		t.Helper()
		if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Ready: %v, want %q", err, want)
		}
	}
	reason("not listening yet")
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
	reason("the serving certificate expired at ")
	write(t, directory, serving(ca, time.Now().AddDate(0, 0, 30)))
	s.reload()
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	reason("about to end")
}

// TestNew: without a pair there is no server.
func TestNew(t *testing.T) {
	directory := t.TempDir()
	if _, err := New(Options{Directory: directory, Handler: nil, Now: time.Now, Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without files: %v", err)
	}
	ca := pkitest.NewCAAround("ca", time.Now())
	pair := serving(ca, time.Now())
	pair.Key = serving(ca, time.Now()).Key
	write(t, directory, pair)
	if _, err := New(Options{Directory: directory, Handler: nil, Now: time.Now, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "load the serving certificate: ") {
		t.Errorf("with the key of another pair: %v", err)
	}
}

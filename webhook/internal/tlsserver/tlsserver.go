// SPDX-License-Identifier: Apache-2.0

// Package tlsserver serves admission over TLS to API servers, which must never get
// no answer: it takes new certificates while it runs, sees off clients that are
// slow, and at its end goes on answering until nobody asks any more.
package tlsserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/semaphore"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// handshakeTime bounds a TLS handshake and a request's header, requestTime
	// all of a request and its answer: API servers wait for 3 s.
	handshakeTime, requestTime = 5 * time.Second, 10 * time.Second
	// idleTime is how long a connection waits for the next request.
	idleTime = 3 * time.Minute
	// maxHeader and maxBody bound a request's header and body, in bytes: two
	// objects of the 3 MiB that an API server takes, and some more (as in
	// controller-runtime pkg/webhook/admission/http.go).
	maxHeader = 64 << 10
	maxBody   = 7 << 20
	// bodyTime bounds reading a body.
	bodyTime = 2 * time.Second
	// maxBodies bounds the bodies of all requests, in bytes, maxDecisions the
	// requests that are decided on at one time: so the memory that they take is
	// bounded. The others wait.
	maxBodies    = 16 << 20
	maxDecisions = 4
	// maxConnections bounds those; an API server has a few.
	maxConnections = 500
	// reloadEvery is how often the certificate's files are read.
	reloadEvery = 5 * time.Second
	// maxFile bounds each of them.
	maxFile = 1 << 20
	// drainTime is how long requests under way may take at the end.
	drainTime = 10 * time.Second
)

// Options are what a server needs.
type Options struct {
	// Directory holds the pair tls.crt and tls.key, which must be there.
	Directory string
	// Handler answers.
	Handler http.Handler
	// Linger is how long it goes on taking requests after it was asked to end.
	Linger time.Duration
	// Profile of now, for each connection anew; nil for the zero value.
	Profile func() Profile
	// ClientCA is a file with the CAs of those who may ask; empty: anybody may.
	// ClientNames are their common names; none: any.
	ClientCA    string
	ClientNames []string
	Now         func() time.Time
	Log         *slog.Logger
}

// Server serves. [New] makes one.
type Server struct {
	Options
	handler http.Handler
	// reloadEvery, bodyTime and requestTime are the constants, but for tests.
	reloadEvery, bodyTime, requestTime time.Duration

	pair    atomic.Pointer[tls.Certificate]
	clients atomic.Pointer[x509.CertPool] // nil: anybody
	// files are those that were read last, fault what was wrong with them.
	files [3][]byte
	fault string

	address atomic.Pointer[net.Addr]
	ending  atomic.Bool
}

// New returns a server. The error is about the files.
func New(options Options) (*Server, error) {
	s := &Server{Options: options, reloadEvery: reloadEvery, bodyTime: bodyTime, requestTime: requestTime}
	if s.Profile == nil {
		s.Profile = func() Profile { return Profile{} }
	}
	s.handler = s.parting(s.known(s.bounded(options.Handler)))
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("load the serving certificate: %w", err)
	}
	return s, nil
}

// Run serves until the context ends, and then as long as it takes to see
// everybody off. The error is the listener's, or says that requests were cut
// off.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: handshakeTime, ReadTimeout: s.requestTime, WriteTimeout: s.requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
		// API servers ask webhooks over HTTP/1.1 (k8s.io/apiserver
		// pkg/util/webhook/client.go). With HTTP/2 whoever connects could have
		// hundreds of bodies in one connection's buffers.
		Protocols: http1Only(),
		TLSConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.config(), nil },
			GetCertificate:     func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pair.Load(), nil },
		},
		// Who connects and says nothing, as the platform does to see whether a
		// webhook is there, is no trouble.
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	address := listener.Addr()
	s.address.Store(&address)
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(netutil.LimitListener(listener, maxConnections), "", "") }()
	ticker := time.NewTicker(s.reloadEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("serve admission: %w", err)
		case <-ticker.C:
			s.reload()
		case <-ctx.Done():
			return s.end(context.WithoutCancel(ctx), server, ended)
		}
	}
}

// config is that of a new connection.
func (s *Server) config() *tls.Config {
	profile := s.Profile()
	config := &tls.Config{
		MinVersion: max(profile.MinVersion, tls.VersionTLS12), CipherSuites: profile.CipherSuites,
		Certificates: []tls.Certificate{*s.pair.Load()}, NextProtos: []string{"http/1.1"},
	}
	if clients := s.clients.Load(); clients != nil {
		// Who has none connects all the same, and is told what is missing: an API
		// server shows the answer of a webhook to people, and no TLS alert.
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, clients
	}
	return config
}

// end stops being ready, goes on answering while that gets around, and then
// lets what is under way come to its end.
func (s *Server) end(ctx context.Context, server *http.Server, ended <-chan error) error {
	s.ending.Store(true)
	s.Log.Info("Ending, still answering", "for", s.Linger.String())
	select {
	case err := <-ended:
		return fmt.Errorf("serve admission: %w", err)
	case <-time.After(s.Linger):
	}
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests were still under way after %s: %w", drainTime, err), server.Close())
	}
	return nil
}

// Serving is the pair that is served with now. It must not be changed.
func (s *Server) Serving() *tls.Certificate { return s.pair.Load() }

// Ready says why no request should be sent here, if so: it connects like an
// API server does.
func (s *Server) Ready(ctx context.Context) error {
	address := s.address.Load()
	switch {
	case address == nil:
		return errors.New("not listening yet")
	case s.ending.Load():
		return errors.New("about to end")
	}
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: handshakeTime}, // for the handshake, too
		// Whether something answers is asked here, not who.
		Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
	}
	connection, err := dialer.DialContext(ctx, "tcp", (*address).String())
	if err != nil {
		return fmt.Errorf("no TLS on %s: %w", *address, err)
	}
	defer connection.Close()
	if leaf := s.pair.Load().Leaf; leaf != nil && s.Now().After(leaf.NotAfter) {
		return fmt.Errorf("the serving certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// reload takes a new pair. One that is of no use, or half written, changes
// nothing.
func (s *Server) reload() {
	before := s.pair.Load()
	switch err := s.load(); {
	case err == nil && s.pair.Load() != before:
		s.fault = ""
		s.Log.Info("Serving certificate reloaded", "notAfter", s.pair.Load().Leaf.NotAfter.UTC().Format(time.RFC3339))
	case err == nil:
		s.fault = ""
	case s.fault != err.Error():
		s.fault = err.Error()
		s.Log.Error("Serving certificate not reloaded, the last good one is kept", "err", err)
	}
}

func (s *Server) load() error {
	var files [3][]byte
	for i, path := range []string{filepath.Join(s.Directory, "tls.crt"), filepath.Join(s.Directory, "tls.key"), s.ClientCA} {
		if path == "" {
			continue
		}
		var err error
		if files[i], err = readBounded(path); err != nil {
			return err
		}
	}
	if s.pair.Load() != nil && slices.EqualFunc(files[:], s.files[:], bytes.Equal) {
		return nil
	}
	pair, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return fmt.Errorf("%s: %w", s.Directory, err)
	}
	if s.ClientCA != "" {
		cas, err := pki.ParseBundle(files[2])
		if err != nil {
			return fmt.Errorf("%s %w", s.ClientCA, err)
		}
		clients := x509.NewCertPool()
		for _, ca := range cas {
			clients.AddCert(ca)
		}
		s.clients.Store(clients)
	}
	s.files = files
	s.pair.Store(&pair)
	return nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// parting asks clients to leave while the server lingers: whoever kept a
// connection until the end could send a request at the moment at which it is
// closed, and API servers do not repeat theirs.
func (s *Server) parting(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.ending.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// known lets those pass who may ask, before anything is read of what they say.
func (s *Server) known(handler http.Handler) http.Handler {
	if s.ClientCA == "" {
		return handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "who asks this webhook must show a client certificate: give the kube-apiserver one (kubeConfigFile of its AdmissionConfiguration), or take --client-ca away", http.StatusUnauthorized)
			return
		}
		name := r.TLS.VerifiedChains[0][0].Subject.CommonName
		if len(s.ClientNames) > 0 && !slices.Contains(s.ClientNames, name) {
			http.Error(w, fmt.Sprintf("%q is not among those who may ask this webhook: see --client-names", name), http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

func http1Only() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return protocols
}

// bounded reads a request's body, in the time and the size that there are, waits
// for its turn, and has the answer sent after it: nobody who is slow keeps
// others from theirs.
func (s *Server) bounded(handler http.Handler) http.Handler {
	turns, bodies := semaphore.NewWeighted(maxDecisions), semaphore.NewWeighted(maxBodies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer := s.decided(handler, w, r, turns, bodies); answer != nil {
			answer.send(w)
		}
	})
}

// decided is the handler's answer; nil where there is none to be sent any more.
func (s *Server) decided(handler http.Handler, w http.ResponseWriter, r *http.Request, turns, bodies *semaphore.Weighted) *answer {
	size := r.ContentLength
	if size < 0 || size > maxBody {
		size = maxBody
	}
	if bodies.Acquire(r.Context(), size) != nil {
		return nil
	}
	defer bodies.Release(size)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.bodyTime)) // a server's connections have deadlines
	// At once as large as it is said to be, which counts as taken. A Buffer wants
	// some room at its end to see that there is no more.
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), maxBody)+bytes.MinRead))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit))
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "the body could not be read")
	}
	// From here on only a client that goes away is of interest.
	_ = control.SetReadDeadline(time.Now().Add(s.requestTime))
	if turns.Acquire(r.Context(), 1) != nil {
		return nil
	}
	defer turns.Release(1)
	r.Body = io.NopCloser(body)
	result := &answer{header: http.Header{}, status: http.StatusOK}
	handler.ServeHTTP(result, r)
	return result
}

// answer is a handler's answer, kept until it may be sent. It implements
// [http.ResponseWriter].
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func refuse(status int, text string) *answer {
	a := &answer{header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, status: status}
	a.body.WriteString(text + "\n")
	return a
}

// Header implements [http.ResponseWriter].
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements [http.ResponseWriter].
func (a *answer) Write(data []byte) (int, error) { return a.body.Write(data) }

func (a *answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // who asked has gone, or has not
}

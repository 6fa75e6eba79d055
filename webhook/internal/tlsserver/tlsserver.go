// SPDX-License-Identifier: Apache-2.0

// Package tlsserver serves admission requests of API servers over TLS, so that each is
// answered: it reloads certificates without a restart, disconnects slow clients, and shuts
// down gracefully, after clients have moved on.
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

	"golang.org/x/sync/semaphore"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/connlimit"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/servingpair"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// handshakeTime bounds a TLS handshake and reading a request's header, requestTime a
	// whole request with its answer. API servers wait for 3 s.
	handshakeTime, requestTime = 5 * time.Second, 10 * time.Second
	// idleTime is how long a connection stays open without a request. It must be longer than
	// the 90 s after which API servers close idle connections (IdleConnTimeout of Go's
	// default transport, which k8s.io/apimachinery pkg/util/net uses): if the server closes
	// a connection just when a POST is sent, the POST fails and is not retried.
	idleTime = 3 * time.Minute
	// maxHeader and maxBody bound a request's header and body, in bytes. A body can have two
	// objects of 3 MiB, the limit of API servers, and some more (as in controller-runtime
	// pkg/webhook/admission/http.go).
	maxHeader = 64 << 10
	maxBody   = 7 << 20
	// bodyTime bounds reading a body.
	bodyTime = 2 * time.Second
	// maxBodies bounds the bodies of all requests at one time, in bytes, and maxDecisions
	// the decisions at one time, which bounds the memory. Other requests wait.
	maxBodies    = 16 << 20
	maxDecisions = 4
	// maxConnections bounds the connections; an API server has a few. At the bound, idle
	// connections are closed for new ones (package connlimit).
	maxConnections = 500
	// recentAnswer is how long a sent response shows that the server can answer.
	recentAnswer = 3 * time.Second
	// reloadEvery is the time between two reads of the certificate files.
	reloadEvery = 5 * time.Second
	// drainTime is how long requests in progress may take when the server shuts down.
	drainTime = 10 * time.Second
)

// Options configure a server.
type Options struct {
	// Directory has the files tls.crt and tls.key, which must exist.
	Directory string
	// Handler answers the requests.
	Handler http.Handler
	// ShutdownDelay is how long the server accepts requests after its context has ended.
	ShutdownDelay time.Duration
	// Profile returns the current profile, for each new connection; nil for the zero value.
	Profile func() tlsprofile.Profile
	// ClientCA is a file with the CAs of the accepted client certificates; empty: clients
	// need none. ClientNames are the accepted common names; empty: any.
	ClientCA    string
	ClientNames []string
	Now         func() time.Time
	Log         *slog.Logger
}

// Server serves admission requests. [New] makes one.
type Server struct {
	Options
	handler http.Handler
	// reloadEvery, bodyTime and requestTime are the constants, except in tests.
	reloadEvery, bodyTime, requestTime time.Duration

	pair    *servingpair.Reader
	clients atomic.Pointer[x509.CertPool] // nil: clients need no certificate
	// clientCA is the content of the file that was loaded last. lastError is the error of the
	// last reload; empty if it succeeded.
	clientCA  []byte
	lastError string

	address      atomic.Pointer[net.Addr]
	shuttingDown atomic.Bool
	// answered is when a response was last sent; nil: never.
	answered atomic.Pointer[time.Time]
}

// The flags that name the files of [Options], for errors.
const certDirFlag, clientCAFlag = "--cert-dir", "--client-ca"

// New returns a server. The error is a usage error about the files.
func New(options Options) (*Server, error) {
	s := &Server{
		Options: options, reloadEvery: reloadEvery, bodyTime: bodyTime, requestTime: requestTime,
		pair: pairIn(options.Directory),
	}
	if s.Profile == nil {
		s.Profile = func() tlsprofile.Profile { return tlsprofile.Profile{} }
	}
	s.handler = s.recordAnswers(s.closeAtShutdown(s.requireClientCert(s.limitRequests(options.Handler))))
	if _, err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// pairIn returns a reader of the certificate and key in the directory of --cert-dir.
func pairIn(directory string) *servingpair.Reader {
	return &servingpair.Reader{Flag: certDirFlag, Directory: directory, Files: os.DirFS(directory)}
}

// Run serves until the context ends, and then shuts down gracefully. The error is the
// listener's, or says that requests in progress were aborted.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: handshakeTime, ReadTimeout: s.requestTime, WriteTimeout: s.requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
		// API servers call webhooks over HTTP/1.1 (k8s.io/apiserver
		// pkg/util/webhook/client.go). With HTTP/2, any client could fill the buffers of
		// one connection with hundreds of bodies.
		Protocols: http1Only(),
		TLSConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.tlsConfig(), nil },
			GetCertificate:     func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pair.Pair(), nil },
		},
		// A client that connects and sends nothing is not an error: the platform does that
		// to check whether a webhook is available.
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	address := listener.Addr()
	s.address.Store(&address)
	ended := make(chan error, 1)
	limit := connlimit.Limit{Most: maxConnections, Now: time.Now, After: time.After}
	bounded := limit.Bound(server, listener)
	go func() { ended <- server.ServeTLS(bounded, "", "") }()
	ticker := time.NewTicker(s.reloadEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("serve admission requests: %w", err)
		case <-ticker.C:
			s.reload()
		case <-ctx.Done():
			return s.shutdown(context.WithoutCancel(ctx), server, ended)
		}
	}
}

// tlsConfig returns the TLS configuration of a new connection.
func (s *Server) tlsConfig() *tls.Config {
	config := s.Profile().Config()
	config.Certificates, config.NextProtos = []tls.Certificate{*s.pair.Pair()}, []string{"http/1.1"}
	if clients := s.clients.Load(); clients != nil {
		// A client without a certificate can connect and gets an answer that says what is
		// missing: API servers show a webhook's answer to users, but not a TLS alert.
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, clients
	}
	return config
}

// shutdown makes the server not ready, keeps answering until clients have noticed that, and
// then waits for the requests in progress.
func (s *Server) shutdown(ctx context.Context, server *http.Server, ended <-chan error) error {
	s.shuttingDown.Store(true)
	s.Log.Info("Shutting down, still answering requests", "for", s.ShutdownDelay.String())
	select {
	case err := <-ended:
		return fmt.Errorf("serve admission requests: %w", err)
	case <-time.After(s.ShutdownDelay):
	}
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests were still in progress after %s: %w", drainTime, err), server.Close())
	}
	return nil
}

// Serving returns the current serving certificate with its key. Callers must not change it.
func (s *Server) Serving() *tls.Certificate { return s.pair.Pair() }

// Ready connects like an API server, unless the server has just answered a client: in a flood
// of connections, one more would only wait behind them. The error says why the server should
// get no requests.
func (s *Server) Ready(ctx context.Context) error {
	address := s.address.Load()
	switch {
	case address == nil:
		return errors.New("not listening yet")
	case s.shuttingDown.Load():
		return errors.New("shutting down")
	}
	if leaf := s.pair.Pair().Leaf; leaf != nil && s.Now().After(leaf.NotAfter) {
		return fmt.Errorf("the serving certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if last := s.answered.Load(); last != nil && s.Now().Sub(*last) < recentAnswer {
		return nil
	}
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: handshakeTime}, // for the handshake, too
		// This only checks that the server answers, not its identity.
		Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
	}
	connection, err := dialer.DialContext(ctx, "tcp", (*address).String())
	if err != nil {
		return fmt.Errorf("TLS handshake with %s failed: %w", *address, err)
	}
	_ = connection.Close()
	return nil
}

// reload loads the files again. Files that are invalid, or only half written, change
// nothing.
func (s *Server) reload() {
	switch changed, err := s.load(); {
	case err == nil && changed:
		s.lastError = ""
		s.Log.Info("Serving certificate reloaded", "notAfter", s.pair.Pair().Leaf.NotAfter.UTC().Format(time.RFC3339))
	case err == nil:
		s.lastError = ""
	case s.lastError != err.Error():
		s.lastError = err.Error()
		s.Log.Error("Serving certificate not reloaded, keeping the last valid one", "err", err)
	}
}

// CheckFiles returns a usage error if [New] would reject these [Options.Directory] and
// [Options.ClientCA]. It does not check an empty one.
func CheckFiles(directory, clientCA string) error {
	if directory != "" {
		if _, err := pairIn(directory).Read(); err != nil {
			return err
		}
	}
	content, err := readClientCA(clientCA)
	if err != nil {
		return err
	}
	_, err = parseClientCA(clientCA, content)
	return err
}

// load loads the files if they have changed. Its error names the flag and the file, and then
// nothing has changed.
func (s *Server) load() (changed bool, err error) {
	content, err := readClientCA(s.ClientCA)
	if err != nil {
		return false, err
	}
	clients := s.clients.Load()
	if clients == nil || !bytes.Equal(content, s.clientCA) {
		if clients, err = parseClientCA(s.ClientCA, content); err != nil {
			return false, err
		}
	}
	if changed, err = s.pair.Read(); err != nil {
		return false, err
	}
	changed = changed || clients != s.clients.Load()
	s.clients.Store(clients)
	s.clientCA = content
	return changed, nil
}

// readClientCA returns nil if no file is named.
func readClientCA(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	content, err := servingpair.ReadFile(os.DirFS(filepath.Dir(path)), filepath.Base(path))
	if err != nil {
		return nil, command.FileError(clientCAFlag, path, err)
	}
	return content, nil
}

// parseClientCA returns nil if no file is named: clients need no certificate.
func parseClientCA(path string, content []byte) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // see above
	}
	cas, err := pki.ParseBundle(content)
	if err != nil {
		return nil, command.FileError(clientCAFlag, path, err)
	}
	return cas.Pool(), nil
}

// recordAnswers records when a response was last sent.
func (s *Server) recordAnswers(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		now := s.Now()
		s.answered.Store(&now)
	})
}

// closeAtShutdown makes each answer during the shutdown close its connection. Otherwise a
// client could send a request just when the server closes the connection, and API servers
// do not retry it.
func (s *Server) closeAtShutdown(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.shuttingDown.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// requireClientCert refuses clients without an accepted certificate, before it reads their
// request.
func (s *Server) requireClientCert(handler http.Handler) http.Handler {
	if s.ClientCA == "" {
		return handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "no client certificate was presented, but this webhook requires one. Fix: configure one for "+
				"the kube-apiserver (kubeConfigFile of its AdmissionConfiguration), or remove --client-ca", http.StatusUnauthorized)
			return
		}
		name := r.TLS.VerifiedChains[0][0].Subject.CommonName
		if len(s.ClientNames) > 0 && !slices.Contains(s.ClientNames, name) {
			http.Error(w, fmt.Sprintf("the client certificate's common name %q is not accepted. Fix: add it to --client-names, "+
				"or configure another certificate for the kube-apiserver", name), http.StatusForbidden)
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

// limitRequests reads a request's body within the bounds of time and size, and lets only
// [maxDecisions] requests be decided on at one time. It sends an answer after its decision
// has ended, so that a slow client does not delay others.
func (s *Server) limitRequests(handler http.Handler) http.Handler {
	decisions, bodies := semaphore.NewWeighted(maxDecisions), semaphore.NewWeighted(maxBodies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer := s.bufferedAnswer(handler, w, r, decisions, bodies); answer != nil {
			answer.send(w)
		}
	})
}

// bufferedAnswer returns the handler's answer; nil if the client has gone.
func (s *Server) bufferedAnswer(
	handler http.Handler, w http.ResponseWriter, r *http.Request, decisions, bodies *semaphore.Weighted,
) *answer {
	size := r.ContentLength
	if size < 0 || size > maxBody {
		size = maxBody
	}
	if bodies.Acquire(r.Context(), size) != nil {
		return nil
	}
	defer bodies.Release(size)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.bodyTime)) // never fails on a server's connection
	// The buffer gets the announced size at once, which was acquired above. It needs some
	// more room to detect the end.
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), maxBody)+bytes.MinRead))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge,
			fmt.Sprintf("the request body is larger than %d bytes", tooLarge.Limit))
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "cannot read the request body")
	}
	// From here on the deadline only serves to detect that the client has gone.
	_ = control.SetReadDeadline(time.Now().Add(s.requestTime))
	if decisions.Acquire(r.Context(), 1) != nil {
		return nil
	}
	defer decisions.Release(1)
	r.Body = io.NopCloser(body)
	result := &answer{header: http.Header{}, status: http.StatusOK}
	handler.ServeHTTP(result, r)
	return result
}

// answer buffers a handler's answer. It implements [http.ResponseWriter].
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
	_, _ = w.Write(a.body.Bytes()) // fails only if the client has gone
}

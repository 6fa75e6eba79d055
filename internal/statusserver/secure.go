// SPDX-License-Identifier: Apache-2.0

package statusserver

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/servingpair"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// pairEvery is the time between two reads of the certificate files, clusterEvery that
	// between two reads of the cluster's client CA and TLS security profile.
	pairEvery, clusterEvery = 5 * time.Second, 30 * time.Second
	// reviewsPerSecond and reviewBurst limit the requests to the API server: each scrape
	// needs at most two a minute, but anybody can send tokens.
	reviewsPerSecond, reviewBurst = 5, 10
)

// The flags of metrics over HTTPS.
const certDirFlag, addressFlag, usersFlag = "metrics-cert-dir", "metrics-tls-bind-address", "metrics-allowed-users"

// SecureOptions are the flags of metrics over HTTPS.
type SecureOptions struct{ certDir, address, users string }

// SecureFlags returns the names of the flags.
func SecureFlags() []string { return []string{certDirFlag, addressFlag, usersFlag} }

// Flags defines the flags. plain is the flag of the address for plain HTTP.
func (o *SecureOptions) Flags(flags *flag.FlagSet, plain string) {
	flags.StringVar(&o.certDir, certDirFlag, "",
		"`directory` with a certificate tls.crt and its key tls.key: serve /metrics over HTTPS, and no longer on --"+plain+
			". Clients need a client certificate that is signed by the cluster's client CA, or a bearer token, and "+
			"permission to get the nonResourceURL /metrics. The files may be added later (default: plain HTTP without "+
			"authentication)")
	flags.StringVar(&o.address, addressFlag, ":8443", "`address` for /metrics over HTTPS, with --"+certDirFlag)
	flags.StringVar(&o.users, usersFlag, "",
		"comma-separated `users` who may read /metrics over HTTPS without a check of their permission, so also while the "+
			"API server is not available (default: none)")
}

// Enabled reports whether metrics are served over HTTPS.
func (o *SecureOptions) Enabled() bool { return o.certDir != "" }

// Validate returns a usage error if the options are not valid.
func (o *SecureOptions) Validate() error {
	if o.users != "" && !o.Enabled() {
		return command.Usagef("--%s requires --%s", usersFlag, certDirFlag)
	}
	if err := command.CheckBindAddress("--"+addressFlag, o.address); err != nil || !o.Enabled() {
		return err
	}
	return command.CheckDirectory("--"+certDirFlag, o.certDir, os.Stat)
}

// CheckAPIServer returns a usage error if metrics are served over HTTPS, but err is
// [kubeclient.ErrNoAPIServer].
func (o *SecureOptions) CheckAPIServer(err error) error {
	if o.Enabled() && errors.Is(err, kubeclient.ErrNoAPIServer) {
		return command.Usagef("--%s needs an API server, which checks the clients: set --kubeconfig", certDirFlag)
	}
	return nil
}

// Secure serves metrics over HTTPS. [SecureOptions.Listen] makes one.
type Secure struct {
	listener   net.Listener
	metrics    prometheus.Gatherer
	pair       *servingpair.Reader
	access     *access
	cluster    cluster
	minVersion uint16
	log        *slog.Logger
	// profile are the current TLS settings.
	profile atomic.Pointer[tlsprofile.Profile]
	// pairEvery and clusterEvery are the constants, except in tests.
	pairEvery, clusterEvery time.Duration
}

// cluster is what a cluster configures for its servers. [kubeclient.Client] implements it.
type cluster interface {
	ClientCA(ctx context.Context) ([]byte, error)
	APIServerConfig(ctx context.Context) (*unstructured.Unstructured, error)
}

// Listen returns a server that listens, but does not serve yet; nil if metrics are not served over
// HTTPS. minVersion is the lowest TLS version; the cluster can require a later one.
func (o *SecureOptions) Listen(
	ctx context.Context, client *rest.Config, metrics prometheus.Gatherer, minVersion uint16, log *slog.Logger,
) (*Secure, error) {
	if !o.Enabled() {
		return nil, nil //nolint:nilnil // see above
	}
	client = rest.CopyConfig(client)
	client.QPS, client.Burst = reviewsPerSecond, reviewBurst
	api, err := kubeclient.NewClient(client)
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.address)
	if err != nil {
		return nil, command.ListenError("--"+addressFlag, o.address, err)
	}
	var users []string
	if o.users != "" {
		users = strings.Split(o.users, ",")
	}
	log.Info("Serving metrics over HTTPS", "address", listener.Addr().String())
	return &Secure{
		listener: listener, metrics: metrics, minVersion: minVersion, log: log,
		pair:   &servingpair.Reader{Flag: "--" + certDirFlag, Directory: o.certDir, Files: os.DirFS(o.certDir)},
		access: newAccess(api, users, time.Now, log), cluster: api,
		pairEvery: pairEvery, clusterEvery: clusterEvery,
	}, nil
}

// errNoPair is the error of handshakes before there is a certificate.
var errNoPair = errors.New("no certificate yet")

// Run serves until the context ends. Without a valid certificate, TLS handshakes fail until the
// files have one: probes and everything else do not depend on it. It returns the listener's error.
func (s *Secure) Run(ctx context.Context) error {
	s.profile.Store(&tlsprofile.Profile{MinVersion: s.minVersion})
	mux := http.NewServeMux()
	mux.Handle(metricsPattern, metricsHandler(s.metrics))
	server, listener := bounded(s.access.protect(mux), s.listener)
	// package connlimit needs HTTP/1.1.
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.TLSConfig = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.tlsConfig() },
	}
	// Failed handshakes are errors of clients.
	server.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { repeat(ctx, s.pairEvery, s.newPairReader()); return nil })
	group.Go(func() error { repeat(ctx, s.clusterEvery, s.newClusterReader()); return nil })
	group.Go(func() error {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics over HTTPS: %w", err)
		}
		return nil
	})
	return group.Wait()
}

// tlsConfig returns the TLS configuration of a new connection.
func (s *Secure) tlsConfig() (*tls.Config, error) {
	pair := s.pair.Pair()
	if pair == nil {
		return nil, errNoPair
	}
	config := s.profile.Load().Config()
	config.Certificates, config.NextProtos = []tls.Certificate{*pair}, []string{"http/1.1"}
	// The certificate is verified with each request. A client whose certificate is not valid
	// gets an answer that says why, and may have a token.
	config.ClientAuth, config.ClientCAs = tls.RequestClientCert, s.access.clientCA.Load()
	return config, nil
}

// repeat calls a function at once and then again and again until the context ends.
func repeat(ctx context.Context, every time.Duration, do func(context.Context)) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lastError is the error of the last time, to log each error once.
type lastError string

// isNew reports whether there is an error, and none or another one the last time.
func (l *lastError) isNew(err error) bool {
	before, text := *l, lastError("")
	if err != nil {
		text = lastError(err.Error())
	}
	*l = text
	return text != "" && text != before
}

// newPairReader returns a function that loads the certificate if it has changed, and logs each
// error once.
func (s *Secure) newPairReader() func(context.Context) {
	var last lastError
	return func(ctx context.Context) {
		changed, err := s.pair.Read()
		isNew := last.isNew(err)
		switch {
		case changed:
			s.log.InfoContext(ctx, "Certificate for metrics loaded",
				"notAfter", s.pair.Pair().Leaf.NotAfter.UTC().Format(time.RFC3339))
		case isNew && s.pair.Pair() == nil:
			s.log.WarnContext(ctx, "Metrics are not served until there is a certificate", "err", err)
		case isNew:
			s.log.ErrorContext(ctx, "Certificate for metrics not reloaded, keeping the last valid one", "err", err)
		}
	}
}

// newClusterReader returns a function that reads the client CA and the TLS security profile of
// the cluster. If it cannot read one, it keeps the last one. It logs each error once.
func (s *Secure) newClusterReader() func(context.Context) {
	var clientCA, profile lastError
	return func(ctx context.Context) {
		if err := s.readClientCA(ctx); clientCA.isNew(err) && ctx.Err() == nil {
			s.log.WarnContext(ctx, "Client CA for metrics not read", "err", err)
		}
		if err := s.readProfile(ctx); profile.isNew(err) && ctx.Err() == nil {
			s.log.WarnContext(ctx, "TLS security profile not applied to metrics", "err", err)
		}
	}
}

func (s *Secure) readClientCA(ctx context.Context) error {
	content, err := s.cluster.ClientCA(ctx)
	if err != nil {
		return err
	}
	cas, err := pki.ParseBundle(content)
	if err != nil {
		return fmt.Errorf("ConfigMap kube-system/extension-apiserver-authentication: client-ca-file: %w", err)
	}
	s.access.clientCA.Store(cas.Pool())
	return nil
}

func (s *Secure) readProfile(ctx context.Context) error {
	object, err := s.cluster.APIServerConfig(ctx)
	if err != nil {
		return err
	}
	profile, err := tlsprofile.Of(object)
	profile.MinVersion = max(profile.MinVersion, s.minVersion)
	s.profile.Store(&profile)
	return err
}

// Plain returns the metrics that are served over plain HTTP: none if they are served over HTTPS.
func (o *SecureOptions) Plain(metrics prometheus.Gatherer) prometheus.Gatherer {
	if o.Enabled() {
		return nil
	}
	return metrics
}

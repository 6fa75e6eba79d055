// SPDX-License-Identifier: Apache-2.0

// Package statusserver serves health over HTTP, and metrics over HTTP or, to clients that are
// permitted to read them, over HTTPS.
package statusserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/connlimit"
)

const (
	// requestTime bounds reading a request and writing its response. idleTime bounds the
	// wait for the next request of a connection.
	requestTime = 10 * time.Second
	idleTime    = 2 * time.Minute
	// maxHeader bounds a request's header, in bytes. Bodies are not read.
	maxHeader = 8 << 10
	// maxConnections bounds the connections and their memory. At the limit, idle connections
	// are closed for new ones (package connlimit), so probes still get a response.
	maxConnections = 100
	// maxScrapes bounds concurrent requests for metrics.
	maxScrapes = 4
)

// Serve serves health (/readyz, /healthz) and metrics (/metrics) over plain HTTP until the
// context ends; no metrics if they are nil. ready and healthy return an error if the program is
// not. Serve returns the listener's error.
func Serve(
	ctx context.Context, listener net.Listener, metrics prometheus.Gatherer, ready, healthy func(context.Context) error,
) error {
	mux := http.NewServeMux()
	if metrics != nil {
		mux.Handle(metricsPattern, metricsHandler(metrics))
	}
	mux.Handle("GET /readyz", answer(ready))
	mux.Handle("GET /healthz", answer(healthy))
	server, listener := bounded(mux, listener)
	// A running scrape does not delay the end of the program.
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	return nil
}

const (
	metricsPath    = "/metrics"
	metricsPattern = "GET " + metricsPath
)

func metricsHandler(metrics prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError,
		// A compressor needs more memory than all metrics.
		DisableCompression: true,
	})
}

// bounded returns a server with limits of time and size, and its listener with a limit of
// connections.
func bounded(handler http.Handler, listener net.Listener) (*http.Server, net.Listener) {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
	}
	limit := connlimit.Limit{Most: maxConnections, Now: time.Now, After: time.After}
	return server, limit.Bound(server, listener)
}

// answer responds with "ok", or with 503 and the error.
func answer(check func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		text := "ok"
		if err := check(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			text = err.Error()
		}
		// The client may be gone.
		_, _ = fmt.Fprintln(w, text)
	})
}

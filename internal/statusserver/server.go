// SPDX-License-Identifier: Apache-2.0

// Package statusserver serves metrics and health over HTTP.
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

// Serve serves metrics (/metrics) and health (/readyz, /healthz) over plain HTTP until the
// context ends. ready and healthy return an error if the program is not. Serve returns the
// listener's error.
func Serve(
	ctx context.Context, listener net.Listener, metrics prometheus.Gatherer, ready, healthy func(context.Context) error,
) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError,
		// A compressor needs more memory than all metrics.
		DisableCompression: true,
	}))
	mux.Handle("GET /readyz", answer(ready))
	mux.Handle("GET /healthz", answer(healthy))
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
	}
	// A running scrape does not delay the end of the program.
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	limit := connlimit.Limit{Most: maxConnections, Now: time.Now, After: time.After}
	if err := server.Serve(limit.Bound(server, listener)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	return nil
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

// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

const (
	// requestTime bounds reading a request and writing its answer, idleTime
	// how long a connection waits for the next one.
	requestTime = 10 * time.Second
	idleTime    = 2 * time.Minute
	// maxHeader bounds a request's header, in bytes; bodies are not read.
	maxHeader = 8 << 10
	// maxConnections bounds those, and so the memory that they take.
	maxConnections = 100
	// maxScrapes bounds the requests for metrics at one time.
	maxScrapes = 4
)

// Serve serves metrics (/metrics) and health (/readyz, /healthz) over plain HTTP
// until the context ends. ready and healthy say why not. The error is the
// listener's.
func Serve(ctx context.Context, listener net.Listener, metrics prometheus.Gatherer, ready, healthy func(context.Context) error) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError,
		// A compressor takes more memory than all the metrics.
		DisableCompression: true,
	}))
	mux.Handle("GET /readyz", answer(ready))
	mux.Handle("GET /healthz", answer(healthy))
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
	}
	// Nobody waits for a scrape that is under way when the program ends.
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(netutil.LimitListener(listener, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	return nil
}

// answer says "ok", or 503 and why not.
func answer(check func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		text := "ok"
		if err := check(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			text = err.Error()
		}
		// Whoever asked may be gone.
		_, _ = fmt.Fprintln(w, text)
	})
}

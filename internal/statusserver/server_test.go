// SPDX-License-Identifier: Apache-2.0

package statusserver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestServe: metrics and health over HTTP, until the context ends.
func TestServe(t *testing.T) {
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "example", Help: "Of the test."})
	registry.MustRegister(gauge)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- statusserver.Serve(ctx, listener, registry, func(context.Context) error { return errors.New("not yet") },
			func(context.Context) error { return nil })
	}()
	cases := map[string]struct {
		method, path string
		code         int
		holds        string
	}{
		"metrics":        {"GET", "/metrics", 200, "example 0"},
		"healthy":        {"GET", "/healthz", 200, "ok\n"},
		"not ready":      {"GET", "/readyz", 503, "not yet\n"},
		"something else": {"GET", "/debug/pprof/", 404, ""},
		"a write":        {"POST", "/metrics", 405, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+listener.Addr().String()+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != c.code || !strings.Contains(string(body), c.holds) {
				t.Errorf("got %d and %q with error %v, want %d and %q", response.StatusCode, body, err, c.code, c.holds)
			}
		})
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v after its context ended", err)
	}
	if err := statusserver.Serve(t.Context(), listener, registry, nil, nil); err == nil {
		t.Error("Serve: no error of a closed listener")
	}
}

// TestServeFull: connections that nobody uses keep no probe from its answer.
func TestServeFull(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	fine := func(context.Context) error { return nil }
	go func() { ended <- statusserver.Serve(ctx, listener, prometheus.NewRegistry(), fine, fine) }()
	for i := range 300 { // more than twice as many as there may be
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if i%2 == 0 {
			continue
		}
		if _, err := io.WriteString(connection, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := connection.Read(make([]byte, 1)); err != nil {
			t.Fatalf("number %d: %v", i, err)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(
		ctx,
		http.MethodGet,
		"http://"+listener.Addr().String()+"/readyz",
		http.NoBody,
	)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

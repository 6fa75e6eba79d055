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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
)

// TestMain fails if a test leaves a goroutine running. After net/http has disconnected a client, it keeps the
// connection for half a second (server.go, rstAvoidanceDelay), which is longer than goleak waits.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// patience is longer than an answer takes on a busy machine.
const patience = time.Minute

// awaitEnd waits for Serve to return after its context ended.
func awaitEnd(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Serve: %v after its context ended", err)
		}
	case <-time.After(patience):
		t.Error("Serve does not return after its context ended")
	}
}

// TestServe: metrics and health over HTTP, until the context ends.
func TestServe(t *testing.T) {
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "example", Help: "Of the test."})
	registry.MustRegister(gauge)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	ended := make(chan error, 1)
	go func() {
		ended <- statusserver.Serve(ctx, listener, registry, func(context.Context) error { return errors.New("not yet") },
			func(context.Context) error { return nil })
	}()
	cases := map[string]struct {
		method, path string
		code         int
		contains     string
	}{
		"metrics":        {"GET", "/metrics", 200, "example 0"},
		"healthy":        {"GET", "/healthz", 200, "ok\n"},
		"not ready":      {"GET", "/readyz", 503, "not yet\n"},
		"something else": {"GET", "/debug/pprof/", 404, ""},
		"a write":        {"POST", "/metrics", 405, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(ctx, c.method, "http://"+listener.Addr().String()+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != c.code || !strings.Contains(string(body), c.contains) {
				t.Errorf("got %d and %q with error %v, want %d and %q", response.StatusCode, body, err, c.code, c.contains)
			}
		})
	}
	cancel()
	awaitEnd(t, ended)
	if err := statusserver.Serve(t.Context(), listener, registry, nil, nil); err == nil {
		t.Error("Serve: no error of a closed listener")
	}
}

// TestServeFull: a probe gets an answer even if there are more idle connections than allowed.
func TestServeFull(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	ended := make(chan error, 1)
	fine := func(context.Context) error { return nil }
	go func() { ended <- statusserver.Serve(ctx, listener, prometheus.NewRegistry(), fine, fine) }()
	for i := range 300 { // more than twice as many as there may be
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listener.Addr().String()+"/readyz",
		http.NoBody)
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
	awaitEnd(t, ended)
}

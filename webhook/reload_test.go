// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// TestReload: a new configuration is applied. An invalid one is logged once, and the last valid
// one is kept.
func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := func(names ...string) string {
		text := "apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets:\n"
		for _, name := range names {
			text += "- {namespace: ns, name: " + name + ", usage: serverAuth}\n"
		}
		return text
	}
	write(config("a"))
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	loaded, err := loadConfig(source{path: path})
	if err != nil {
		t.Fatal(err)
	}
	r := newReloader(source{path: path}, loaded, registry, slog.New(slog.NewTextHandler(&log, nil)))
	good := func() float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return families[0].Metric[0].Gauge.GetValue()
	}
	expect := func(when string, names string, isGood float64, lines ...string) {
		t.Helper()
		var got []string
		for _, p := range r.Subject(0).Secrets {
			got = append(got, p.Name)
			if _, ok := r.Protected(p.Namespace, p.Name); !ok {
				t.Errorf("%s: admission does not protect %s", when, p.Name)
			}
		}
		if strings.Join(got, " ") != names || good() != isGood {
			t.Errorf("%s: %v are protected, want %s; the metric is %v, want %v", when, got, names, good(), isGood)
		}
		if logged := strings.Count(log.String(), "\n"); logged != len(lines) {
			t.Errorf("%s: want %d lines:\n%s", when, len(lines), &log)
		}
		for _, line := range lines {
			if !strings.Contains(log.String(), line) {
				t.Errorf("%s: no %q in\n%s", when, line, &log)
			}
		}
		log.Reset()
	}
	expect("at first", "a", 1, "name=a")
	r.reload()
	expect("unchanged", "a", 1)

	write(config("a", "b"))
	r.reload()
	expect("one more Secret", "a b", 1, "path="+path, "name=a", "name=b")

	write("garbage")
	r.reload()
	r.reload()
	expect("an invalid file", "a b", 0, "level=ERROR ")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.reload()
	expect("the file is missing", "a b", 0, path)

	write(config("a"))
	r.reload()
	expect("valid again", "a", 1, "Configuration reloaded", "name=a")
	if action := r.OverridesAction(); action != "" && action != admit.Deny {
		t.Errorf("overrides: %s", action)
	}
}

// TestGoVersionOfSecrets: admission and audit check by the API server's Go release, and the configuration keeps none.
func TestGoVersionOfSecrets(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"goVersion":"go1.26.8"}`))
	}))
	t.Cleanup(server.Close)
	loaded, err := loadConfig(source{})
	if err != nil {
		t.Fatal(err)
	}
	r := newReloader(source{}, loaded, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	versions := func(want string) {
		t.Helper()
		for _, s := range r.Subject(0).Secrets {
			atAdmission, _ := r.Protected(s.Namespace, s.Name)
			for _, got := range []string{s.GoVersion, atAdmission.GoVersion} {
				if got != want {
					t.Errorf("Secret %s: Go release %q, want %q", s.Name, got, want)
				}
			}
		}
	}
	versions("")
	if r.release, err = kubeclient.NewGoRelease(&rest.Config{Host: server.URL}); err != nil {
		t.Fatal(err)
	}
	r.release.Read(t.Context())
	versions("go1.26.8")
	server.Close()
	r.release.Read(t.Context())
	versions("")
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// TestReload: a new configuration counts, and so does a new CA bundle; of what
// cannot be used is told once, and the last good one is kept.
func TestReload(t *testing.T) {
	directory := t.TempDir()
	path, bundle := filepath.Join(directory, "config.yaml"), filepath.Join(directory, "ca.crt")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := func(names ...string) string {
		text := "apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets:\n"
		for _, name := range names {
			text += "- {namespace: ns, name: " + name + ", usage: serverAuth, caBundleFile: " + bundle + "}\n"
		}
		return text
	}
	first, second := pkitest.NewCA("first"), pkitest.NewCA("second")
	write(bundle, string(first.PEM()))
	write(path, config("a"))
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	r, err := newReloader(path, "", registry, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	good := func() float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return families[0].Metric[0].Gauge.GetValue()
	}
	expect := func(when string, names string, ca *pkitest.CA, isGood float64, lines ...string) {
		t.Helper()
		var got []string
		for _, p := range r.Protected() {
			got = append(got, p.Name)
			if len(p.Roots) != 1 || !p.Roots[0].Equal(ca.Certificate) {
				t.Errorf("%s: another CA counts", when)
			}
		}
		if strings.Join(got, " ") != names || good() != isGood {
			t.Errorf("%s: %v are protected, want %s; the metric is %v, want %v", when, got, names, good(), isGood)
		}
		if told := strings.Count(log.String(), "\n"); told != len(lines) {
			t.Errorf("%s: want %d lines:\n%s", when, len(lines), &log)
		}
		for _, line := range lines {
			if !strings.Contains(log.String(), line) {
				t.Errorf("%s: no %q in\n%s", when, line, &log)
			}
		}
		log.Reset()
	}
	expect("at first", "a", first, 1, "Protecting")
	r.reload()
	expect("unchanged", "a", first, 1)

	write(path, config("a", "b"))
	r.reload()
	expect("one more", "a b", first, 1, "Configuration reloaded", "name=a", "name=b")

	write(path, "garbage")
	r.reload()
	r.reload()
	expect("garbage", "a b", first, 0, "the last good one is kept")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.reload()
	expect("gone", "a b", first, 0, "no such file or directory")

	write(path, config("a"))
	write(bundle, string(second.PEM()))
	r.reload()
	expect("another CA", "a", second, 1, "Configuration reloaded", "name=a")
	write(bundle, "")
	r.reload()
	expect("no CA", "a", second, 0, "caBundleFile "+bundle+" is empty")

	write(bundle, string(second.PEM()))
	r.reload()
	expect("as before", "a", second, 1)
	if action := r.OverridesAction(); action != "" && action != admit.Deny {
		t.Errorf("overrides: %s", action)
	}
}

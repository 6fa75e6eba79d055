// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// countedWatch is a watch that counts its stops.
type countedWatch struct {
	watch.Interface
	stopped *atomic.Int32
}

func (w countedWatch) Stop() {
	w.stopped.Add(1)
	w.Interface.Stop()
}

// TestBundles: CA bundles are watched while the configuration names them, and no longer.
func TestBundles(t *testing.T) {
	// Not in the bubble: Go's FIPS module collects entropy from the clock.
	first, second := pkitest.NewCA("first"), pkitest.NewCA("second")
	synctest.Test(t, func(t *testing.T) {
		scheme := runtime.NewScheme()
		if err := corev1.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
		client := fake.NewSimpleDynamicClient(scheme, &corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ca"},
			Data: map[string]string{
				"one": string(first.PEM()), "two": string(second.PEM()),
				"partly": string(first.PEM()) + string(pkitest.Algorithms()["Ed448"].Certificate("1.3.101.113")),
			},
		})
		var stopped atomic.Int32
		client.PrependWatchReactor("configmaps", func(clienttesting.Action) (bool, watch.Interface, error) {
			return true, countedWatch{watch.NewFake(), &stopped}, nil
		})
		var log strings.Builder
		b := newBundles(t.Context(), client, slog.New(slog.NewTextHandler(&log, nil)))
		one := admit.CABundle{Namespace: "ns", Name: "ca", Key: "one"}
		two := admit.CABundle{Namespace: "ns", Name: "ca", Key: "two"}
		has := func(ref admit.CABundle, ca *pkitest.CA) {
			t.Helper()
			b.roots(ref)
			b.await(t.Context())
			if roots := b.roots(ref).CAs; len(roots) != 1 || !roots[0].Equal(ca.Certificate) {
				t.Errorf("bundle %s: %d CAs, or another CA than %s", ref.Key, len(roots), ca.Certificate.Subject)
			}
		}
		stops := func(when string, want int32) {
			t.Helper()
			synctest.Wait()
			if got := stopped.Load(); got != want {
				t.Errorf("%s: %d watches were stopped, want %d", when, got, want)
			}
		}
		has(one, first)
		has(two, second)
		b.keep([]admit.ProtectedSecret{{}, {Bundle: &one}, {Bundle: &two}})
		stops("both are kept", 0)
		b.keep([]admit.ProtectedSecret{{Bundle: &one}})
		stops("one is no longer kept", 1)
		has(one, first)
		has(two, second) // watched again
		b.keep(nil)
		stops("nothing is kept", 3)
		partly := admit.CABundle{Namespace: "ns", Name: "ca", Key: "partly"}
		has(partly, first)
		if b.roots(partly).Unusable == nil || strings.Count(log.String(), "only in part") != 1 ||
			!strings.Contains(log.String(), "Ed448") {
			t.Errorf("a CA that cannot be used is not reported once: %s", &log)
		}
	})
	(*bundles)(nil).keep(nil) // bundles is nil without an API server
}

// TestBundlesOfOldRequests: a request that began before a reload can start to watch a bundle
// that the new configuration does not name. The next reload stops that.
func TestBundlesOfOldRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		write := func(bundle string) {
			t.Helper()
			text := "apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets:\n" +
				"- {namespace: ns, name: s, usage: serverAuth, caBundleConfigMap: {namespace: ns, name: " + bundle +
				", key: ca.crt}}\n"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("old")
		log := slog.New(slog.DiscardHandler)
		loaded, err := loadConfig(source{path: path})
		if err != nil {
			t.Fatal(err)
		}
		r := newReloader(source{path: path}, loaded, prometheus.NewRegistry(), log)
		scheme := runtime.NewScheme()
		if err := corev1.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
		r.bundles = newBundles(t.Context(), fake.NewSimpleDynamicClient(scheme), log)
		watches := func(when string, want ...string) {
			t.Helper()
			var got []string
			for ref := range r.bundles.watched {
				got = append(got, ref.Name)
			}
			slices.Sort(got)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", when, d)
			}
		}
		r.Protected()
		before := r.current.Load()
		write("new")
		r.reload()
		r.Protected()
		watches("after the reload", "new")
		before.protectedWith(r.bundles)
		watches("after a request that began before the reload", "new", "old")
		r.reload()
		watches("after the next reload", "new")
	})
}

// TestBundleProblems: the first failure to read a bundle is logged, and the recovery. The same
// failure with another error text is not logged again.
func TestBundleProblems(t *testing.T) {
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	b, ref := &bundle{}, admit.CABundle{Namespace: "ns", Name: "ca", Key: "ca.crt"}
	b.logProblem(logger, ref, "it cannot be read", "read tcp 10.0.0.1:41000: connection reset")
	b.logProblem(logger, ref, "it cannot be read", "read tcp 10.0.0.1:41001: connection reset")
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "read tcp 10.0.0.1:41000") {
		t.Errorf("%d lines, want 1:\n%s", n, &log)
	}
	b.logProblem(logger, ref, "")
	b.logProblem(logger, ref, "it cannot be read", "forbidden")
	if n := strings.Count(log.String(), "\n"); n != 3 || strings.Count(log.String(), "level=INFO ") != 1 {
		t.Errorf("after the recovery %d lines, want 3:\n%s", n, &log)
	}
}

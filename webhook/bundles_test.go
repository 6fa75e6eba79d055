// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

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

// TestBundles: CA bundles are watched while the configuration names them, and no longer. Those of all namespaces are
// watched at once.
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
		}, &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: map[string]string{"hosted": "true"}},
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
		b.follow([]admit.ProtectedSecret{{}, {Bundle: &one}, {Bundle: &two}})
		has(one, first)
		has(two, second)
		b.follow([]admit.ProtectedSecret{{Bundle: &two}, {Bundle: &one}})
		stops("both are followed", 0)
		b.follow([]admit.ProtectedSecret{{Bundle: &one}})
		stops("one is no longer followed", 1)
		has(one, first)
		if roots := b.roots(two).CAs; roots != nil {
			t.Errorf("a bundle that is not followed: %d CAs", len(roots))
		}
		b.follow(nil)
		stops("nothing is followed", 2)
		each := admit.CABundle{Name: "ca", Key: "one"}
		b.follow([]admit.ProtectedSecret{
			{Bundle: &each, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"hosted": "other"}}},
			{Bundle: &each, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"hosted": "true"}}},
		})
		has(one, first)
		if roots := b.roots(admit.CABundle{Namespace: "other", Name: "ca", Key: "one"}).CAs; roots != nil {
			t.Errorf("the bundle of another namespace: %d CAs", len(roots))
		}
		partly := admit.CABundle{Namespace: "ns", Name: "ca", Key: "partly"}
		b.follow([]admit.ProtectedSecret{{Bundle: &partly}})
		has(partly, first)
		if b.roots(partly).Unusable == nil || strings.Count(log.String(), "only in part") != 1 ||
			!strings.Contains(log.String(), "Ed448") {
			t.Errorf("a CA that cannot be used is not reported once: %s", &log)
		}
	})
	(*bundles)(nil).follow(nil) // bundles is nil without an API server
}

// TestBundleProblems: the first failure to read a bundle is logged, and the recovery. The same
// failure with another error text is not logged again.
func TestBundleProblems(t *testing.T) {
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	b, ref := &parsedBundle{}, admit.CABundle{Namespace: "ns", Name: "ca", Key: "ca.crt"}
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

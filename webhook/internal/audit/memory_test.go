// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// TestMemory: what an observation remembers changes no result, whatever happens to the objects, to the expectations and
// to the clock.
func TestMemory(t *testing.T) {
	states := healthy(t)
	watched := subject()
	host(t, &watched, states, "hcp-1", "hcp-2", "hcp-3")
	now := pkitest.Now()
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	replace := func(o follow.Object, typed any) {
		items := maps.Clone(states[o].All)
		items["hcp-2"] = live(t, typed)
		states[o] = follow.State{Known: true, All: items}
	}
	bundle := func(pem []byte) *corev1.ConfigMap {
		return &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(pem)}}
	}
	steps := []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"a certificate is renewed", func() { replace(hostedSecrets, hostedSecret(ca.Issue(hostedClient()), "hcp-2")) }},
		{"its CA bundle, too", func() { replace(hostedCAs, bundle(ca.PEM())) }},
		{"the bundle is invalid", func() { replace(hostedCAs, bundle([]byte("garbage"))) }},
		{"the bundle is valid again", func() { replace(hostedCAs, bundle(ca.PEM())) }},
		{"a Secret is deleted", func() {
			items := maps.Clone(states[hostedSecrets].All)
			delete(items, "hcp-1")
			states[hostedSecrets] = follow.State{Known: true, All: items}
		}},
		{"the Service has another UID", func() {
			live := states[service].Live.DeepCopy()
			live.Object["metadata"].(map[string]any)["uid"] = "uid-9"
			states[service] = follow.State{Known: true, Live: live}
		}},
		{"other names are expected", func() { watched.Secrets[0].DNSNames = []string{"elsewhere"} }},
		{"the Go release changes", func() { watched.Secrets[1].GoVersion = "go1.26.8" }},
		{"a bundle that is not read", func() { states[hostedCAs] = follow.State{Err: follow.ErrTooMany} }},
	}
	var remembered memory
	for _, step := range steps {
		step.do()
		// Within the lifetime, soon before its end, after it, and back.
		for _, after := range []time.Duration{0, time.Hour, 29 * 24 * time.Hour, 31 * 24 * time.Hour, -24 * time.Hour} {
			for range 2 {
				at := now.Add(after)
				want := observe(watched, states, effective(), nil, nil, at)
				got := remembered.observe(watched, states, effective(), nil, nil, at)
				remembered = got.remembered
				if d := cmp.Diff(want.Observation, got.Observation); d != "" {
					t.Errorf("%s, after %s (-observed alone +remembering):\n%s", step.name, after, d)
				}
			}
		}
	}
	if len(remembered.secrets) > 2*len(states) {
		t.Errorf("it remembers %d Secrets", len(remembered.secrets))
	}
}

// BenchmarkObserve: one observation of Secrets in selected namespaces of which none, one or each has changed since the
// last one.
func BenchmarkObserve(b *testing.B) {
	for _, count := range []int{100, 1000} {
		states, subject := map[follow.Object]follow.State{}, subject()
		var names []string
		for i := range count {
			names = append(names, fmt.Sprintf("hcp-%04d", i))
		}
		host(b, &subject, states, names...)
		for what, before := range map[string]func(memory) memory{
			"no change": func(m memory) memory { return m },
			"all new":   func(memory) memory { return memory{} },
		} {
			b.Run(fmt.Sprintf("%d/%s", count, what), func(b *testing.B) {
				var remembered memory
				var results []finding.Result
				for b.Loop() {
					seen := before(remembered).observe(subject, states, nil, nil, nil, pkitest.Now())
					remembered, results = seen.remembered, seen.results()
				}
				b.ReportMetric(float64(len(results)), "results")
			})
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/prove"
)

// TestRefusers: the decoy's policy is found, and not that of another Secret whose name has the
// same end.
func TestRefusers(t *testing.T) {
	of := func(prefix, namespace, name string) *unstructured.Unstructured {
		made, _, err := policy.New(prefix, nil,
			admit.ProtectedSecret{SecretExpectation: check.SecretExpectation{Namespace: namespace, Name: name}})
		if err != nil {
			t.Fatal(err)
		}
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(made)
		if err != nil {
			t.Fatal(err)
		}
		object["kind"] = "ValidatingAdmissionPolicy"
		return &unstructured.Unstructured{Object: object}
	}
	decoy := &admit.ProtectedSecret{SecretExpectation: check.SecretExpectation{Namespace: "guard", Name: "decoy"}}
	other, own := of("x", "foo", "a.guard.decoy"), of("x", "guard", "decoy")
	cases := map[string]struct {
		config config
		want   prove.Guard
	}{
		"no decoy": {config{guard: []*unstructured.Unstructured{own}}, prove.Guard{}},
		"own policy first": {config{decoy: decoy, guard: []*unstructured.Unstructured{own, other}},
			prove.Guard{Namespace: "guard", Name: "decoy", Policy: "x.guard.decoy"}},
		"static policies": {
			config{decoy: decoy, staticProof: "x-proof", staticWords: "w", guard: []*unstructured.Unstructured{own}},
			prove.Guard{Namespace: "guard", Name: "decoy", Policy: "x.guard.decoy", Static: "x-proof", StaticWords: "w"},
		},
		"own policy last": {config{decoy: decoy, guard: []*unstructured.Unstructured{other, own}},
			prove.Guard{Namespace: "guard", Name: "decoy", Policy: "x.guard.decoy"}},
		"other policy only": {config{decoy: decoy, guard: []*unstructured.Unstructured{other}},
			prove.Guard{Namespace: "guard", Name: "decoy"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, c.config.refusers()); d != "" {
				t.Errorf("what must refuse (-want +got):\n%s", d)
			}
		})
	}
}

// TestProveExit: 0 if all refuse; 1 if one does not, even if others are unknown; 2 if one is unknown.
func TestProveExit(t *testing.T) {
	because := finding.Result{Reason: finding.Unreadable}
	refused, passed, unknown, off := check.Attempt{
		Refused: true,
	}, check.Attempt{
		Answer: "it passed",
	}, check.Attempt{
		WhyUnknown: &because,
	}, check.Attempt{
		WhyNotApplicable: "off",
	}
	cases := map[string]struct {
		effects []check.Effect
		want    command.Exit
	}{
		"all refuse": {[]check.Effect{{Policy: refused, Webhook: refused},
			{Policy: refused, Webhook: refused}}, command.ExitOK},
		"one part is not installed": {[]check.Effect{{Policy: off, Webhook: refused}}, command.ExitOK},
		"one does not refuse": {[]check.Effect{{Policy: refused, Webhook: refused},
			{Policy: refused, Webhook: passed}}, command.ExitNotCompliant},
		"one is unknown": {[]check.Effect{{Policy: refused, Webhook: refused},
			{Policy: unknown, Webhook: unknown}}, command.ExitCouldNotVerify},
		"one does not, one is unknown": {[]check.Effect{{Policy: unknown, Webhook: unknown},
			{Policy: passed, Webhook: refused}}, command.ExitNotCompliant},
		"no API server": {nil, command.ExitCouldNotVerify},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := exitOf(c.effects, prove.Proven(c.effects)); got != c.want {
				t.Errorf("exit code %d, want %d", got, c.want)
			}
		})
	}
}

// TestRunBoth: both functions end with the context, or when the first returns. A panic of the
// second reaches the caller after the first has ended.
func TestRunBoth(t *testing.T) {
	var ended []string
	waits := func(name string) func(context.Context) {
		return func(ctx context.Context) { <-ctx.Done(); ended = append(ended, name) }
	}
	panics := func(context.Context) { panic("of the second") }
	returns := func(context.Context) {}
	cases := map[string]struct {
		first, second func(context.Context)
		want          []string
		panicked      any
	}{
		"the first returns":  {returns, waits("second"), []string{"second"}, nil},
		"the second panics":  {waits("first"), panics, []string{"first"}, "of the second"},
		"the second returns": {waits("first"), returns, []string{"first"}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ended = nil
			var panicked any
			func() {
				defer func() { panicked = recover() }()
				runBoth(t.Context(), c.first, c.second)
			}()
			if d := cmp.Diff(c.want, ended); d != "" || panicked != c.panicked {
				t.Errorf("panic: %v, want %v; ended (-want +got):\n%s", panicked, c.panicked, d)
			}
		})
	}
}

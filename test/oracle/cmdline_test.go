// SPDX-License-Identifier: Apache-2.0

// Package oracle_test compares how the guard and the code of Kubernetes interpret the same
// host files. It is a separate module, so that k8s.io/kubernetes does not get into the
// product's go.sum.
package oracle_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/cmdline"
)

// kubelet expands a command and its environment like the kubelet
// (pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables, and
// pkg/kubelet/container/helpers.go, ExpandContainerCommandAndArgs, limited to what
// these functions do).
func kubelet(elements []string, env []corev1.EnvVar) []string {
	known := map[string]string{}
	mapping := expansion.MappingFuncFor(known)
	for _, variable := range env {
		known[variable.Name] = expansion.Expand(variable.Value, mapping)
	}
	var words []string
	for _, element := range elements {
		words = append(words, expansion.Expand(element, mapping))
	}
	return words
}

// guard expands it with the code of the guard.
func guard(t *testing.T, elements []string, env []corev1.EnvVar) []string {
	t.Helper()
	var words []string
	for _, w := range cmdline.Read(&corev1.Container{Command: []string{"kube-apiserver"}, Args: elements, Env: env}) {
		if w.Undecided != "" {
			t.Errorf("%q with %v is undecided: %s", elements, env, w.Undecided)
		}
		words = append(words, w.Text)
	}
	return words
}

func TestExpansion(t *testing.T) {
	variables := []corev1.EnvVar{
		{Name: "A", Value: "a"}, {Name: "B", Value: "$(A) $(C) $$(A)"}, {Name: "C", Value: "$(B)"}, {Name: "EMPTY"},
		{Name: "A", Value: "$(A)$(A)"}, {Name: "odd name", Value: "odd"}, {Name: "$", Value: "dollar"}, {Name: "(", Value: "bracket"},
	}
	for _, text := range []string{
		"", "$", "$$", "$$$", "$(A)", "$$(A)", "$$$(A)", "$(A", "$(", "$()", "$(A)(B)", "$((A))", "$($(A))", "$(EMPTY)x",
		"$(NONE)$(A)", "$(odd name)",
		"x$", "x$x", "$A", "${A}", "$(A$(B))", "$($)", "$(()", "$)", "$\xff", "$\xff(A)", "$ä(A)", "$(\xff)", "\xff$(A)",
		"$$\xff", "$�", "a\x00$(A)", "$(B)$(C)", "$\n(A)",
	} {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			compare(t, []string{text}, variables)
		})
	}
}

// TestExpansionOfRandomTexts: random texts of the relevant characters expand alike.
func TestExpansionOfRandomTexts(t *testing.T) {
	const texts = 200_000
	random := rand.New(rand.NewPCG(16, 2))
	pieces := []string{
		"$", "$", "(", ")", "A", "B", "CD", "$(A)", "$(B)", "$(CD)", "$$", " ", "=", "-", "\xff", "ä", "\xc3", "�",
		"\n", "{", "}",
	}
	text := func() string {
		var all strings.Builder
		for range random.IntN(12) {
			all.WriteString(pieces[random.IntN(len(pieces))])
		}
		return all.String()
	}
	names := []string{"A", "B", "CD", "", "$", "A$", "(A", " "}
	for range texts / 10 {
		var env []corev1.EnvVar
		for range random.IntN(6) {
			env = append(env, corev1.EnvVar{Name: names[random.IntN(len(names))], Value: text()})
		}
		var elements []string
		for range 10 {
			elements = append(elements, text())
		}
		if compare(t, elements, env); t.Failed() {
			return
		}
	}
}

func compare(t *testing.T, elements []string, env []corev1.EnvVar) {
	t.Helper()
	if d := cmp.Diff(kubelet(elements, env), guard(t, elements, env)); d != "" {
		t.Errorf("%q with %v (-kubelet +guard):\n%s", elements, slices.Collect(maps.Values(named(env))), d)
	}
}

func named(env []corev1.EnvVar) map[string]string {
	all := map[string]string{}
	for _, variable := range env {
		all[variable.Name] = variable.Name + "=" + variable.Value
	}
	return all
}

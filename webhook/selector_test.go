// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// TestSelectors: what the fields of single entries mean, and that an entry with a selector leaves out the namespaces
// that others name.
func TestSelectors(t *testing.T) {
	file, err := parseConfig([]byte(`apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
expiringFraction: 0.2
decoy: {namespace: guard, name: s}
protectedSecrets:
- {name: s, usage: clientAuth, expiringFraction: 0, namespaceSelector: {matchExpressions: [{key: a, operator: Exists}]},
  caBundleConfigMap: {name: ca, key: k}}
- {namespace: ns, name: s, usage: clientAuth, caBundleConfigMap: {name: ca, key: k}}
- {namespace: b, name: s, usage: clientAuth, caBundleConfigMap: {namespace: c, name: ca, key: k}}
- {namespace: ns, name: other, usage: clientAuth}
- {name: other, usage: clientAuth, namespaceSelector: {matchLabels: {a: b}},
  caBundleConfigMap: {namespace: c, name: ca, key: k}}
`))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := file.validated()
	if err != nil {
		t.Fatal(err)
	}
	type entry struct {
		Fraction float64
		Bundle   *admit.CABundle
		Except   []string
	}
	bundle := func(namespace string) *admit.CABundle {
		return &admit.CABundle{Namespace: namespace, Name: "ca", Key: "k"}
	}
	want := []entry{
		{0, bundle(""), []string{"b", "guard", "ns"}},
		{0.2, bundle("ns"), nil}, {0.2, bundle("c"), nil}, {0.2, nil, nil},
		{0.2, bundle("c"), []string{"ns"}},
	}
	var got []entry
	for _, p := range loaded.protected {
		got = append(got, entry{p.ExpiringFraction, p.Bundle, p.Except})
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
}

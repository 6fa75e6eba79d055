// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"
)

// FuzzConfig: no configuration makes the parser panic. A valid one protects at least one
// Secret, and is the same after it was written and parsed again.
func FuzzConfig(f *testing.F) {
	file, err := defaultConfig("")
	if err != nil {
		f.Fatal(err)
	}
	standard, err := yaml.Marshal(file)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(standard), "", "{}", "null", "[]", "a: b", "a: &a [*a]", "\x00",
		"apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets: []\n",
		"apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nexpiringFraction: " +
			".nan\nprotectedSecrets: [{namespace: a, name: b}]\n",
		"apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets: [{namespace: a, name: " +
			"b, action: Warn, dnsNames: [c], managedBy: service-ca, service: d}]\n---\n",
		"apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets: [{name: b, usage: " +
			"clientAuth, namespaceSelector: {matchExpressions: [{key: a, operator: Exists}], matchLabels: {c: d}}, identity: " +
			"{commonName: e}, expiringFraction: 0.08, renewedByServiceAccounts: [f]}]\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseConfig(data)
		if err != nil {
			return
		}
		loaded, err := file.validated()
		if err != nil {
			return
		}
		if len(loaded.protected) == 0 {
			t.Error("a configuration that protects nothing is valid")
		}
		for _, p := range loaded.protected {
			if (p.Namespace == "") == (p.Selector == nil) || p.Name == "" {
				t.Errorf("a Secret without a name, or not with either a namespace or a selector, is protected: %+v", p)
			}
		}
		written, err := yaml.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(written)
		if err != nil {
			t.Fatalf("written and parsed again: %v\n%s", err, written)
		}
		if d := cmp.Diff(file, again, cmpopts.EquateEmpty()); d != "" { // an empty list is not written
			t.Errorf("written and parsed again (-first +second):\n%s", d)
		}
	})
}

// FuzzGuard: no manifests make the parser panic. Each parsed object has a name, no namespace,
// and a kind that registers the guard, so that the audit reads no other objects.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		"", "---\n---\n", "# nothing\n", "null", "[]", "a: &a [*a]",
		"apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: " +
			"a}\nwebhooks: []\n",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: a}\n---\napiVersion: " +
			"v1\nkind: Secret\nmetadata: {name: a}\n",
		"apiVersion: admissionregistration.k8s.io/v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret}]\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		guard, err := parseGuard(data)
		if err != nil && guard != nil {
			t.Errorf("%d objects and error %v", len(guard), err)
		}
		for _, o := range guard {
			if o.GetName() == "" || o.GetNamespace() != "" || !slices.Contains(guardGroups, o.GroupVersionKind().Group) {
				t.Errorf("parsed: %v %q of namespace %q", o.GroupVersionKind(), o.GetName(), o.GetNamespace())
			}
		}
	})
}

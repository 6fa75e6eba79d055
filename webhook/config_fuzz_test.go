// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"
)

// FuzzConfig: no configuration makes the reader panic; one that is taken
// protects something, and is the same when it is written and read again.
func FuzzConfig(f *testing.F) {
	standard, err := yaml.Marshal(defaultConfig())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(standard), "", "{}", "null", "[]", "a: b", "a: &a [*a]", "\x00",
		"apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets: []\n",
		"apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nexpiringFraction: .nan\nprotectedSecrets: [{namespace: a, name: b}]\n",
		"apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\nprotectedSecrets: [{namespace: a, name: b, action: Warn, dnsNames: [c], managedBy: service-ca, service: d}]\n---\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseConfig(data)
		if err != nil {
			return
		}
		for i := range file.ProtectedSecrets {
			file.ProtectedSecrets[i].CABundleFile = "" // not to read what it names
		}
		loaded, err := file.validated()
		if err != nil {
			return
		}
		if len(loaded.protected) == 0 {
			t.Error("a configuration that protects nothing is taken")
		}
		for _, p := range loaded.protected {
			if p.Namespace == "" || p.Name == "" {
				t.Errorf("a Secret without a name is protected: %+v", p)
			}
		}
		written, err := yaml.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(written)
		if err != nil {
			t.Fatalf("written and read again: %v\n%s", err, written)
		}
		if d := cmp.Diff(file, again, cmpopts.EquateEmpty()); d != "" { // an empty list is not written
			t.Errorf("written and read again (-first +second):\n%s", d)
		}
	})
}

// FuzzGuard: no manifests make the reader panic, and what is taken is named and
// of no namespace, so that the audit looks at nothing else.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		"", "---\n---\n", "# nothing\n", "null", "[]", "a: &a [*a]",
		"apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: a}\nwebhooks: []\n",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
		"apiVersion: admissionregistration.k8s.io/v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret}]\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		guard, err := parseGuard(data)
		if err != nil && guard != nil {
			t.Errorf("%d objects beside error %v", len(guard), err)
		}
		for _, o := range guard {
			if o.GetName() == "" || o.GetNamespace() != "" || !slices.Contains(guardGroups, o.GroupVersionKind().Group) {
				t.Errorf("taken: %v %q of namespace %q", o.GroupVersionKind(), o.GetName(), o.GetNamespace())
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
)

// TestPKI: the keys of the certificates are compared with the PKI object, in the versions that a real API server
// serves.
func TestPKI(t *testing.T) {
	soundCluster(t)
	client, err := dynamic.NewForConfig(shared.config)
	if err != nil {
		t.Fatal(err)
	}
	definitions := client.Resource(
		schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	objects := func(version string) dynamic.ResourceInterface {
		return client.Resource(schema.GroupVersionResource{Group: "config.openshift.io", Version: version, Resource: "pkis"})
	}
	ctx := context.WithoutCancel(t.Context()) // also for the clean-up
	// serves changes which versions of the object the API server serves, and waits until it does.
	serves := func(v1alpha1, v1 bool) {
		t.Helper()
		definition, err := definitions.Get(ctx, "pkis.config.openshift.io", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		versions, _, err := unstructured.NestedSlice(definition.Object, "spec", "versions")
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"v1alpha1", "v1"} {
			version, _ := versions[0].(map[string]any)
			version = maps.Clone(version)
			version["name"], version["storage"], version["served"] = name, i == 0, []bool{v1alpha1, v1}[i]
			versions = append(versions[:i], version)
		}
		if err := unstructured.SetNestedSlice(definition.Object, versions, "spec", "versions"); err != nil {
			t.Fatal(err)
		}
		if _, err := definitions.Update(ctx, definition, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		await(t, "the versions", func() bool {
			_, errBefore := objects("v1alpha1").List(ctx, metav1.ListOptions{})
			_, errLater := objects("v1").List(ctx, metav1.ListOptions{})
			return (errBefore == nil) == v1alpha1 && (errLater == nil) == v1
		})
	}
	configure := func(mode, custom string) {
		t.Helper()
		text := `{"apiVersion": "config.openshift.io/v1alpha1", "kind": "PKI", "metadata": {"name": "cluster"},
			"spec": {"certificateManagement": {"mode": "` + mode + `"` + custom + `}}}`
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		force := metav1.ApplyOptions{FieldManager: "administrator", Force: true}
		if _, err := objects("v1alpha1").Apply(t.Context(), "cluster", object, force); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		serves(true, false)
		if err := objects("v1alpha1").Delete(ctx, "cluster", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	const (
		p256 = `{"key": {"algorithm": "ECDSA", "ecdsa": {"curve": "P256"}}}`
		rsa  = `{"key": {"algorithm": "RSA", "rsa": {"keySize": 4096}}}`
	)
	// The rig's certificates have ECDSA P-256 keys.
	for _, step := range []struct {
		what            string
		change          func()
		serving, client string // outcome and reason
	}{
		{"as configured", func() { configure("Custom", `, "custom": {"defaults": `+p256+`}`) }, "pass", "pass"},
		{
			"another key for servers",
			func() { configure("Custom", `, "custom": {"defaults": `+p256+`, "servingCertificates": `+rsa+`}`) },
			"warn KeyNotAsConfigured", "pass",
		},
		{
			"a field of later releases",
			func() { configure("Custom", `, "custom": {"defaults": `+p256+`, "overrides": []}`) },
			"unknown PKIConfigUnknown", "unknown PKIConfigUnknown",
		},
		{"no key", func() { configure("Default", "") }, "notApplicable", "notApplicable"},
		{"another version, too", func() { serves(true, true) }, "unknown PKIConfigUnknown", "unknown PKIConfigUnknown"},
		{"only another version", func() { serves(false, true) }, "unknown PKIConfigUnknown", "unknown PKIConfigUnknown"},
	} {
		step.change()
		code, d := runAudit(t, "--kubeconfig", shared.rig.Kubeconfig, "--installed", installedMap)
		got := map[string]string{}
		for _, r := range d.Results {
			if family, aspect, _ := strings.Cut(r.Requirement, "/"); aspect == "configured-key" {
				got[family] = strings.TrimSpace(r.Outcome + " " + r.Reason)
			}
		}
		want := map[string]string{"serving-cert": step.serving, "kubelet-client": step.client}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
		if code != 0 || d.verdictOf(control.UseHTTPS) != "Compliant" {
			t.Errorf("%s: exit code %d, %s", step.what, code, d.verdictOf(control.UseHTTPS))
		}
	}
}

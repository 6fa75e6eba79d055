// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// unmanaged are chart values for a kubelet-client that no known component manages, as on a hosted
// control plane.
const unmanaged = `
protectedSecrets:
  - namespace: openshift-kube-apiserver
    name: kubelet-client
    usage: clientAuth
    owners:
      - {apiVersion: hypershift.openshift.io, kind: HostedControlPlane}
      - {apiVersion: v1, kind: ConfigMap, name: mine}
  - namespace: openshift-apiserver
    name: serving-cert
    usage: serverAuth
    managedBy: service-ca
    service: api
`

// TestOwners: owners that are not configured, and immutability, are refused without a manager, too.
// Configured owners are allowed.
func TestOwners(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte(unmanaged), 0o600); err != nil {
		t.Fatal(err)
	}
	reinstall := func(values string) {
		t.Helper()
		// The context of the test has ended when this runs.
		if err := shared.rig.Reinstall(context.WithoutCancel(t.Context()), values); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { reinstall("") })
	reinstall(values)

	client := issue(pkitest.KubeletClient())
	add := func(apiVersion, kind, name string) attempt {
		return kubeletClient(client, func(s *corev1.Secret) {
			s.OwnerReferences = append(s.OwnerReferences,
				metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: "u"})
		})
	}
	cases := map[string]struct {
		do     attempt
		reason string // empty if it is allowed
	}{
		"immutable": {kubeletClient(client,
			func(s *corev1.Secret) { s.Immutable = new(true) }), "immutable: … (RotationDetached)"},
		"a foreign owner": {add("v1", "ConfigMap", "absent"), "metadata.ownerReferences … (RotationDetached)"},
		"a Service":       {add("v1", "Service", "api"), "metadata.ownerReferences … (RotationDetached)"},
		"the kind of another group": {add("hypershift.openshift.io.example.com/v1", "HostedControlPlane",
			"a"), "metadata.ownerReferences … (RotationDetached)"},
		"another kind of the group": {add("hypershift.openshift.io/v1", "NodePool", "a"),
			"metadata.ownerReferences … (RotationDetached)"},
		"an owner that is configured":         {add("hypershift.openshift.io/v1beta1", "HostedControlPlane", "a"), ""},
		"an owner that is configured by name": {add("v1", "ConfigMap", "mine"), ""},
		"an annotation": {func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets("openshift-kube-apiserver").Patch(ctx, "kubelet-client", types.MergePatchType,
				[]byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{})
			return err
		}, ""},
		"a delete": {func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Secrets("openshift-kube-apiserver").Delete(ctx, "kubelet-client", metav1.DeleteOptions{})
		}, "allow-delete-until"},
	}
	for title, parts := range map[string][]rig.Part{"webhook alone": {rig.Registration}, "policy alone": {rig.Policy}} {
		register(t, parts...)
		for name, c := range cases {
			t.Run(title+"/"+name, func(t *testing.T) {
				store(t, openshift.KubeletClient(client.Certificate, client.Key))
				err := c.do(t.Context(), as(t, ""))
				if c.reason == "" {
					if err != nil {
						t.Errorf("refused: %v", err)
					}
					return
				}
				mustBeRefused(t, err, c.reason)
			})
		}
	}
}

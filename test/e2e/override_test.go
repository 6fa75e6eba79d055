// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// kubeAPIServers acts as somebody, or as the administrator.
func kubeAPIServers(t *testing.T, user string) dynamic.ResourceInterface {
	t.Helper()
	config := rest.CopyConfig(shared.config)
	config.Impersonate.UserName = user
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource(schema.GroupVersionResource{Group: "operator.openshift.io", Version: "v1", Resource: "kubeapiservers"})
}

// TestOverrides: what people lay over the kube-apiserver's configuration.
func TestOverrides(t *testing.T) {
	objects := kubeAPIServers(t, "")
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "operator.openshift.io/v1", "kind": "KubeAPIServer", "metadata": map[string]any{"name": "cluster"},
		"spec": map[string]any{"managementState": "Managed"},
	}}
	if _, err := objects.Create(t.Context(), object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	patch := func(body string, subresources ...string) error {
		_, err := objects.Patch(t.Context(), "cluster", types.MergePatchType, []byte(body), metav1.PatchOptions{}, subresources...)
		return err
	}
	overrides := func(text string) error {
		body, err := json.Marshal(map[string]any{"spec": map[string]any{"unsupportedConfigOverrides": json.RawMessage(text)}})
		if err != nil {
			return err
		}
		return patch(string(body))
	}
	refused := map[string]string{
		"https off":           `{"apiServerArguments":{"kubelet-https":["false"]}}`,
		"no kubelet CA":       `{"apiServerArguments":{"kubelet-certificate-authority":[]}}`,
		"another key":         `{"apiServerArguments":{"kubelet-client-key":["/tmp/key"]}}`,
		"another certificate": `{"apiServerArguments":{"kubelet-client-certificate":"/tmp/crt"}}`,
		"the read-only port":  `{"apiServerArguments":{"kubelet-read-only-port":[10255]}}`,
		"all taken away":      `{"apiServerArguments":null}`,
		"taken away and given where nobody looks": `{"apiServerArguments":{"kubelet-client-key":[]},"kubeletClientInfo":{"keyFile":"/etc/kubernetes/static-pod-certs/secrets/kubelet-client/tls.key"}}`,
		"of old releases":                         `{"kubeletClientInfo":{"keyFile":""}}`,
	}
	for title, text := range refused {
		t.Run("refused: "+title, func(t *testing.T) {
			// A merge patch cannot write null.
			_, err := objects.Patch(t.Context(), "cluster", types.JSONPatchType, []byte(`[{"op":"add","path":"/spec/unsupportedConfigOverrides","value":`+text+`}]`), metav1.PatchOptions{})
			for _, word := range []string{`admission webhook "kubeapiservers.kubelet-https-guard.io" denied the request: KubeAPIServer cluster`, "OverrideWeakensKubeletTLS (spec.unsupportedConfigOverrides", "CIS OpenShift 1.2.4 (1.2.2 from v1.9)"} {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("the answer has no %q: %v", word, err)
				}
			}
		})
	}
	awaitEvent(t, "default", func(e eventsv1.Event) bool {
		return e.Reason == "OverrideWeakensKubeletTLS" && e.Regarding.Kind == "KubeAPIServer" && e.Regarding.Name == "cluster" && e.Regarding.UID != "" && e.Type == "Warning"
	})
	passing := map[string]string{
		"other arguments": `{"apiServerArguments":{"event-ttl":["3h"]}}`,
		"the platform's":  `{"apiServerArguments":{"kubelet-https":["true"]}}`,
		"none any more":   `null`,
	}
	for title, text := range passing {
		t.Run("passes: "+title, func(t *testing.T) {
			if err := overrides(text); err != nil {
				t.Error(err)
			}
		})
	}

	// Its operator writes all day, and is not asked about that.
	if err := patch(`{"spec":{"unsupportedConfigOverrides":null}}`); err != nil {
		t.Fatal(err)
	}
	if err := shared.rig.Webhook.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.rig.RestartWebhook(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("start the webhook again: %v", err)
		}
	})
	if err := patch(`{"status":{"observedGeneration":7}}`, "status"); err != nil {
		t.Errorf("with the webhook away, the status: %v", err)
	}
	if _, err := objects.Patch(t.Context(), "cluster", types.JSONPatchType, []byte(`[{"op":"add","path":"/spec/unsupportedConfigOverrides","value":null}]`), metav1.PatchOptions{}); err != nil {
		t.Errorf("with the webhook away, null for none: %v", err)
	}
	if err := patch(`{"spec":{"observedConfig":{"a":"` + time.Now().String() + `"}}}`); err != nil {
		t.Errorf("with the webhook away, the observed configuration: %v", err)
	}
	if err := overrides(`{"apiServerArguments":{"event-ttl":["4h"]}}`); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("with the webhook away, overrides do not fail closed: %v", err)
	}
}

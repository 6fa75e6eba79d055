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

// kubeAPIServers is a client that impersonates a user, or an administrator's if user is empty.
func kubeAPIServers(t *testing.T, user string) dynamic.ResourceInterface {
	t.Helper()
	config := rest.CopyConfig(shared.config)
	config.Impersonate.UserName = user
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource(
		schema.GroupVersionResource{Group: "operator.openshift.io", Version: "v1", Resource: "kubeapiservers"},
	)
}

// TestOverrides: overrides of the kube-apiserver's configuration by people.
func TestOverrides(t *testing.T) {
	objects := kubeAPIServers(t, "")
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "operator.openshift.io/v1", "kind": "KubeAPIServer", "metadata": map[string]any{"name": "cluster"},
		"spec": map[string]any{"managementState": "Managed"},
	}}
	if _, err := objects.Create(t.Context(), object, metav1.CreateOptions{}); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	patch := func(body string, subresources ...string) error {
		_, err := objects.Patch(
			t.Context(),
			"cluster",
			types.MergePatchType,
			[]byte(body),
			metav1.PatchOptions{},
			subresources...)
		return err
	}
	overrides := func(text string) error {
		body, err := json.Marshal(map[string]any{"spec": map[string]any{"unsupportedConfigOverrides": json.RawMessage(text)}})
		if err != nil {
			return err
		}
		return patch(string(body))
	}
	const weakens, disables = "spec.unsupportedConfigOverrides … (OverrideWeakensKubeletTLS)",
		"spec.unsupportedConfigOverrides. … (AdmissionDisabled) … "
	refused := map[string]struct{ text, reason string }{
		"https off":                              {`{"apiServerArguments":{"kubelet-https":["false"]}}`, weakens},
		"no kubelet CA":                          {`{"apiServerArguments":{"kubelet-certificate-authority":[]}}`, weakens},
		"another key":                            {`{"apiServerArguments":{"kubelet-client-key":["/tmp/key"]}}`, weakens},
		"another certificate":                    {`{"apiServerArguments":{"kubelet-client-certificate":"/tmp/crt"}}`, weakens},
		"the read-only port":                     {`{"apiServerArguments":{"kubelet-read-only-port":[10255]}}`, weakens},
		"all removed":                            {`{"apiServerArguments":null}`, weakens},
		"removed and set where it has no effect": {`{"apiServerArguments":{"kubelet-client-key":[]},"kubeletClientInfo":{"keyFile":"/etc/kubernetes/static-pod-certs/secrets/kubelet-client/tls.key"}}`, weakens},
		"as in old releases":                     {`{"kubeletClientInfo":{"keyFile":""}}`, weakens},

		"no webhooks, in a list":           {`{"apiServerArguments":{"disable-admission-plugins":["ValidatingAdmissionWebhook"]}}`, disables + "apiServerArguments disable-admission-plugins"},
		"no policies, in a list":           {`{"apiServerArguments":{"disable-admission-plugins":["PodSecurity","ValidatingAdmissionPolicy"]}}`, disables + "apiServerArguments disable-admission-plugins"},
		"neither, in one text":             {`{"apiServerArguments":{"disable-admission-plugins":"ValidatingAdmissionPolicy,ValidatingAdmissionWebhook"}}`, disables + "apiServerArguments disable-admission-plugins"},
		"no webhooks, by the field":        {`{"admission":{"disabledPlugins":["ValidatingAdmissionWebhook"]}}`, disables + "admission.disabledPlugins"},
		"a configuration for the webhooks": {`{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"configuration":{"kind":"WebhookAdmissionConfiguration"}}}}}`, disables + "admission.pluginConfig"},
		"a configuration for the policies": {`{"admission":{"pluginConfig":{"ValidatingAdmissionPolicy":{"location":"/tmp/p.yaml"}}}}`, disables + "admission.pluginConfig"},
		"a file for all plugins":           {`{"apiServerArguments":{"admission-control-config-file":["/tmp/admission.yaml"]}}`, disables + "apiServerArguments admission-control-config-file"},
		"the API off":                      {`{"apiServerArguments":{"runtime-config":["admissionregistration.k8s.io/v1=false"]}}`, disables + "apiServerArguments runtime-config"},
		"every API off":                    {`{"apiServerArguments":{"runtime-config":["api/all=false"]}}`, disables + "apiServerArguments runtime-config"},
		"one kind off":                     {`{"apiServerArguments":{"runtime-config":["admissionregistration.k8s.io/v1/validatingadmissionpolicies=false"]}}`, disables + "apiServerArguments runtime-config"},
		"a feature gate off":               {`{"apiServerArguments":{"feature-gates":["ValidatingAdmissionPolicy=false"]}}`, disables + "apiServerArguments feature-gates"},
		"the argument in another spelling": {`{"apiServerArguments":{"disable_admission_plugins":["ValidatingAdmissionWebhook"]}}`, disables + "apiServerArguments disable-admission-plugins"},
	}
	for title, c := range refused {
		t.Run("refused: "+title, func(t *testing.T) {
			// A merge patch cannot write null.
			_, err := objects.Patch(t.Context(), "cluster", types.JSONPatchType,
				[]byte(`[{"op":"add","path":"/spec/unsupportedConfigOverrides","value":`+c.text+`}]`), metav1.PatchOptions{})
			words := []string{
				`admission webhook "kubeapiservers.kubelet-https-guard.io" denied the request: … KubeAPIServer cluster`,
				c.reason,
				"CIS OpenShift 1.2.4 (1.2.2 from v1.8)",
			}
			if c.reason != weakens {
				words[2] = "guard-in-force"
			}
			mustContain(t, err, words...)
		})
	}
	awaitEvent(t, "default", func(e eventsv1.Event) bool {
		return e.Reason == "OverrideWeakensKubeletTLS" && e.Regarding.Kind == "KubeAPIServer" &&
			e.Regarding.Name == "cluster" &&
			e.Regarding.UID != "" &&
			e.Type == "Warning"
	})
	awaitEvent(t, "default", func(e eventsv1.Event) bool {
		return e.Reason == "AdmissionDisabled" && e.Action == "Deny" && e.Regarding.Kind == "KubeAPIServer" &&
			e.Regarding.Name == "cluster" &&
			e.Type == "Warning"
	})
	passing := map[string]string{
		"other arguments":    `{"apiServerArguments":{"event-ttl":["3h"]}}`,
		"the platform's":     `{"apiServerArguments":{"kubelet-https":["true"]}}`,
		"other plugins":      `{"apiServerArguments":{"disable-admission-plugins":["PodSecurity"],"enable-admission-plugins":["ValidatingAdmissionWebhook"]},"admission":{"disabledPlugins":["PodNodeSelector"],"pluginConfig":{"PodSecurity":{"configuration":{}}}}}`,
		"other APIs":         `{"apiServerArguments":{"runtime-config":["admissionregistration.k8s.io/v1alpha1=false","batch/v1=false"],"feature-gates":["SomethingElse=false"]}}`,
		"admission as it is": `{"admission":null}`,
		"removed":            `null`,
	}
	for title, text := range passing {
		t.Run("passes: "+title, func(t *testing.T) {
			if err := overrides(text); err != nil {
				t.Error(err)
			}
		})
	}

	// The operator writes often. These writes are not sent to the webhook.
	if err := patch(`{"spec":{"unsupportedConfigOverrides":null}}`); err != nil {
		t.Fatal(err)
	}
	if err := shared.rig.Webhook.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.rig.RestartWebhook(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("restart the webhook: %v", err)
		}
	})
	if err := patch(`{"status":{"observedGeneration":7}}`, "status"); err != nil {
		t.Errorf("the status cannot be written while the webhook is down: %v", err)
	}
	if _, err := objects.Patch(t.Context(), "cluster", types.JSONPatchType,
		[]byte(`[{"op":"add","path":"/spec/unsupportedConfigOverrides","value":null}]`), metav1.PatchOptions{}); err != nil {
		t.Errorf("null cannot be written for missing overrides while the webhook is down: %v", err)
	}
	if err := patch(`{"spec":{"observedConfig":{"a":"` + time.Now().String() + `"}}}`); err != nil {
		t.Errorf("the observed configuration cannot be written while the webhook is down: %v", err)
	}
	if err := overrides(`{"apiServerArguments":{"event-ttl":["4h"]}}`); err == nil ||
		!strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("overrides do not fail closed while the webhook is down: %v", err)
	}
}

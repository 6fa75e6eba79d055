// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// elsewhere lists the rendered kinds that the OpenAPI document of Kubernetes does
// not contain, and the projects that define them.
var elsewhere = map[string]string{
	"security.openshift.io/v1/SecurityContextConstraints": "OpenShift",
	"cert-manager.io/v1/Certificate":                      "cert-manager",
	"cert-manager.io/v1/Issuer":                           "cert-manager",
	"monitoring.coreos.com/v1/PodMonitor":                 "Prometheus operator",
	"monitoring.coreos.com/v1/PrometheusRule":             "Prometheus operator",
}

// TestConforms: every rendering conforms to the Kubernetes API, without unknown
// fields.
func TestConforms(t *testing.T) {
	schemas := writeSchemas(t)
	skipped := map[string]string{}
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			needs(t, "KUBECONFORM")
			rendered := r.render(t)
			objects, err := chart.Objects(rendered)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(conformance{Objects: len(objects)}, conform(t, schemas, rendered)); diff != "" {
				t.Errorf("conformance (-want +got):\n%s", diff)
			}
			for _, o := range objects {
				kind := fmt.Sprintf("%s/%s", o.GetAPIVersion(), o.GetKind())
				if whose, ok := elsewhere[kind]; ok {
					skipped[kind] = whose
				}
			}
		})
	}
	if diff := cmp.Diff(elsewhere, skipped); diff != "" {
		t.Errorf("kinds that are not checked (-listed +rendered):\n%s", diff)
	}
}

// sound is a manifest that conforms.
const sound = `apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: agent
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy:
    rollingUpdate: {maxUnavailable: 1, maxSurge: 10%}
  template:
    metadata: {labels: {app: agent}}
    spec:
      containers:
        - name: agent
          resources: {requests: {cpu: 1, memory: 64Mi}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: guard
webhooks:
  - name: secrets.example.org
    clientConfig: {service: {name: guard, namespace: guard}, caBundle: Z3VhcmQ=}
    sideEffects: None
    admissionReviewVersions: [v1]
`

// TestConformsBites: the check finds each error.
func TestConformsBites(t *testing.T) {
	schemas := writeSchemas(t)
	cases := map[string]struct {
		from, to string // replacement in sound
		want     []string
	}{
		"sound": {},
		"a misspelt field": {
			from: "containers:", to: "priorityClasName: high\n      containers:",
			want: []string{"DaemonSet agent: at '/spec/template/spec': additional properties 'priorityClasName' not allowed"},
		},
		"a field in the wrong place": {
			from: "    sideEffects: None", to: "    sideEffects: None\n    matchLabels: {}",
			want: []string{"ValidatingWebhookConfiguration guard: at '/webhooks/0': additional properties 'matchLabels' not allowed"},
		},
		"a field twice": {
			from: "  name: agent\nspec:", to: "  name: agent\n  name: agent\nspec:",
			want: []string{"DaemonSet agent: error unmarshalling resource: error converting YAML to JSON: yaml: unmarshal errors:\n  line 5: key \"name\" already set in map"},
		},
		"a number instead of a string": {
			from: "name: guard, namespace", to: "name: 1, namespace",
			want: []string{"ValidatingWebhookConfiguration guard: at '/webhooks/0/clientConfig/service/name': got number, want string"},
		},
		"null instead of a list": {
			from: "[v1]", to: "",
			want: []string{"ValidatingWebhookConfiguration guard: at '/webhooks/0/admissionReviewVersions': got null, want array"},
		},
		"neither a number nor a string": {
			from: "maxSurge: 10%", to: "maxSurge: true",
			want: []string{"DaemonSet agent: at '/spec/updateStrategy/rollingUpdate/maxSurge': got boolean, want integer or string"},
		},
		"an invalid quantity": {
			from: "memory: 64Mi", to: "memory: 64 MiB",
			want: []string{`DaemonSet agent: at '/spec/template/spec/containers/0/resources/requests/memory': '64 MiB' does not match pattern '` + quantity + "'"},
		},
		"invalid base64": {
			from: "Z3VhcmQ=", to: "guard",
			want: []string{"ValidatingWebhookConfiguration guard: at '/webhooks/0/clientConfig/caBundle': 'guard' does not match pattern '" + base64 + "'"},
		},
		"a missing required field": {
			from: "    sideEffects: None\n", to: "",
			want: []string{"ValidatingWebhookConfiguration guard: at '/webhooks/0': missing property 'sideEffects'"},
		},
		"an unknown kind": {
			from: "kind: DaemonSet", to: "kind: DemonSet",
			want: []string{"DemonSet agent: could not find schema for DemonSet"},
		},
		"an unknown version": {
			from: "apps/v1", to: "apps/v1beta2",
			want: []string{"DaemonSet agent: could not find schema for DaemonSet"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			needs(t, "KUBECONFORM")
			if !strings.Contains(sound, tc.from) {
				t.Fatalf("sound does not contain %q", tc.from)
			}
			got := conform(t, schemas, []byte(strings.Replace(sound, tc.from, tc.to, 1)))
			if diff := cmp.Diff(conformance{Objects: 2, Wrong: tc.want}, got); diff != "" {
				t.Errorf("conformance (-want +got):\n%s", diff)
			}
		})
	}
}

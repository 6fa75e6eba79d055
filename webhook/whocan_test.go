// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestActions: each way to disable the guard has its permissions, and what is not installed has no action.
func TestActions(t *testing.T) {
	file, err := parseConfig([]byte(`apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
  - {namespace: a, name: one, usage: serverAuth, renewedBy: ["system:serviceaccount:ci:robot", cm]}
  - {name: many, usage: clientAuth, namespaceSelector: {matchLabels: {x: "y"}}, renewedByServiceAccounts: [operator]}
decoy: {namespace: guard, name: decoy}
`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := file.validated()
	if err != nil {
		t.Fatal(err)
	}
	without := descriptions(c)
	if c.guard, err = parseGuard([]byte(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: guard}
webhooks: [{name: a.b.c, clientConfig: {service: {namespace: guard, name: hook, port: 443}}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: p}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: p}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: guard-answers}
`)); err != nil {
		t.Fatal(err)
	}
	common := []string{
		"act as cm, which renews a protected Secret",
		"act as system:serviceaccount:*:operator, which renews a protected Secret",
		"act as system:serviceaccount:ci:robot, which renews a protected Secret",
		"delete Secret a/one past admission while it cannot be decoded",
		"delete Secret */many past admission while it cannot be decoded",
		"remove the label that selects a namespace of Secret many",
		"stop the webhook or the audit", "change the configuration of the guard",
		"act as the guard, in a Pod or with a token of its namespace",
	}
	const redirect = "redirect the requests to the webhook, by its Service, endpoints or Pods"
	if diff := cmp.Diff(append([]string{"give themselves any permission", redirect}, common...), without); diff != "" {
		t.Errorf("without the guard (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(append([]string{
		"change or delete the webhook configuration", "change or delete a policy or its binding",
		"change or delete the ClusterRole or ClusterRoleBinding that activates the webhook", "give themselves any permission",
		"read the key of the webhook, or of its signer, and answer in its place", redirect,
	}, common...), descriptions(c)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var all []string
	for _, a := range actions(c) {
		for _, p := range a.anyOf {
			all = append(all, p.String())
		}
	}
	for _, want := range []string{
		"patch validatingwebhookconfigurations.admissionregistration.k8s.io guard",
		"deletecollection validatingwebhookconfigurations.admissionregistration.k8s.io",
		"update validatingadmissionpolicies.admissionregistration.k8s.io p",
		"delete validatingadmissionpolicybindings.admissionregistration.k8s.io p",
		"update clusterroles.rbac.authorization.k8s.io guard-answers",
		"get secrets guard/hook-self-managed", "list secrets guard/*", "get secrets openshift-service-ca/signing-key",
		"impersonate users cm", "impersonate:user-info users.authentication.k8s.io cm",
		"impersonate serviceaccounts ci/robot", "impersonate:serviceaccount serviceaccounts.authentication.k8s.io ci/robot",
		"create serviceaccounts/token ci/robot", "create pods ci/*", "patch cronjobs.batch ci/*",
		"create serviceaccounts/token */operator",
		"patch pods ci/*", "get secrets ci/*", "create nodes/proxy", "update certificatesigningrequests.certificates.k8s.io/approval",
		"patch namespaces/status */*", "update namespaces/finalize */*", "patch services guard/*",
		"update endpointslices.discovery.k8s.io guard/*", "patch leases.coordination.k8s.io guard/*", "delete namespaces guard", "update configmaps guard/*",
		"create serviceaccounts/token guard/*", "create pods guard/*", "patch deployments.apps/scale guard/*",
		"unsafe-delete-ignore-read-errors secrets a/one", "unsafe-delete-ignore-read-errors secrets */many",
		"patch namespaces */*", "update deployments.apps/scale guard/*",
	} {
		if !slices.Contains(all, want) {
			t.Errorf("no action needs %q", want)
		}
	}
}

func descriptions(c config) []string {
	var all []string
	for _, a := range actions(c) {
		all = append(all, a.description)
	}
	return all
}

// TestWhoCanDisableUnknown: objects that cannot be read are said, with what to do, and are no empty list.
func TestWhoCanDisableUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		reason metav1.StatusReason
		code   int32
		want   string
	}{
		"forbidden":   {metav1.StatusReasonForbidden, http.StatusForbidden, "chart value audit.whoCanDisable.enabled"},
		"unavailable": {metav1.StatusReasonInternalError, http.StatusInternalServerError, "run the command again"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(int(test.code))
				_ = json.NewEncoder(w).Encode(metav1.Status{
					TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
					Reason: test.reason, Code: test.code, Message: "said by the API server",
				})
			}))
			defer server.Close()
			who, err := whoCanDisable(t.Context(), &rest.Config{Host: server.URL}, config{})
			if err != nil {
				t.Fatal(err)
			}
			if len(who.Actions) > 0 || !strings.Contains(who.Unknown, "list ClusterRoles: said by the API server. Fix: ") ||
				!strings.Contains(who.Unknown, test.want) {
				t.Errorf("got %+v", who)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// unnamed is the name of a new Secret in a request. renaming gives the Secret the name of the protected one, as any
// mutating webhook could. The name of the request, which rules compare, stays.
const (
	unnamed  = "to-be-renamed"
	renaming = `apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: renaming}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - {operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [secrets], resourceNames: [` + unnamed + `]}
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: '[JSONPatch{op: "replace", path: "/metadata/name", value: "` + name + `"}]'
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: renaming}
spec: {policyName: renaming}
`
)

// TestRenamedByMutation: each part of the guard refuses an invalid Secret that gets its name from a mutation.
func TestRenamedByMutation(t *testing.T) {
	if r := shared.rig.KubectlInput(t.Context(), renaming, "apply", "-f", "-"); r.Code != 0 {
		t.Fatal(r.Output)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if r := shared.rig.KubectlInput(ctx, renaming, "delete", "-f", "-"); r.Code != 0 {
			t.Error(r.Output)
		}
		register(t, rig.Policy, rig.Registration)
	})
	secret := serving(issue(pkitest.ServingCert()))
	secret.Name, secret.Data["tls.key"] = unnamed, nil
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for marker, parts := range map[string][]rig.Part{
		"[kubelet-https-guard/policy]":  {rig.Policy},
		"[kubelet-https-guard/webhook]": {rig.Registration},
	} {
		t.Run(marker, func(t *testing.T) {
			register(t, parts...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for {
				created, err := as(t, "").CoreV1().Secrets(namespace).Create(ctx, secret, dryRun)
				if err != nil && strings.Contains(err.Error(), marker) {
					return
				}
				if err != nil || created.Name != unnamed {
					t.Fatalf("the renamed Secret was not refused: %v, %v", created, err)
				}
				select {
				case <-ctx.Done():
					t.Fatal("the policy that renames is not in force")
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
}

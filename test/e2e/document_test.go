// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// installedMap is the chart's ConfigMap.
const installedMap = guardNamespace + "/kubelet-https-guard-config"

// fullDocument is what the tests read of the JSON about controls.
type fullDocument struct {
	Verdict  string
	Findings []struct{ Reason, Location string }
	Controls []struct {
		ID, Verdict  string
		Requirements []struct {
			ID, Outcome string
			Reasons     []string
		}
	}
	Results []struct{ Requirement, Outcome, Reason string }
}

// runAudit runs webhook audit --once.
func runAudit(t *testing.T, flags ...string) (code int, d fullDocument) {
	t.Helper()
	r := shared.rig.AuditOnce(t.Context(), append([]string{"-o", "json"}, flags...)...)
	if err := json.Unmarshal([]byte(r.Output), &d); err != nil {
		t.Fatalf("exit code %d, %v\n%s", r.Code, err, r.Output)
	}
	return r.Code, d
}

// verdictOf is the verdict on a control.
func (d fullDocument) verdictOf(id string) string {
	for _, c := range d.Controls {
		if c.ID == id {
			return c.Verdict
		}
	}
	return ""
}

// TestDocument: on a sound cluster, the document of webhook audit --once has each requirement of each
// control with its outcome. Only those are open that the run was not asked for.
func TestDocument(t *testing.T) {
	soundCluster(t)
	code, d := runAudit(t, "--kubeconfig", shared.rig.Kubeconfig, "--installed", installedMap)
	if code != 0 || d.Verdict != "Compliant" || len(d.Findings) > 0 {
		t.Errorf("exit code %d, verdict %s, findings %v", code, d.Verdict, d.Findings)
	}
	// Requirements that are not "pass", and why.
	exceptions := map[string]string{
		"guard/policy-refuses":     "unknown NotChecked", // webhook prove checks it
		"guard/webhook-asked":      "unknown NotChecked",
		"kubelet-client/service":   "notApplicable", // no Service requests it
		"kubelet-client/dns-names": "notApplicable",
		"serving-cert/served":      "unknown NotChecked", // without --served-certificates
		// No identity is configured, and there is no PKI object.
		"serving-cert/identity": "notApplicable", "kubelet-client/identity": "notApplicable",
		"serving-cert/configured-key": "notApplicable", "kubelet-client/configured-key": "notApplicable",
	}
	want, got := map[string]string{}, map[string]string{}
	for _, c := range control.Table() {
		if c.ID == control.ProtectedSecrets {
			continue // no additional Secret is protected
		}
		for _, required := range c.Requirements {
			if required.In(control.Cluster) {
				want[c.ID+" "+string(required.Requirement)] = "pass"
				if required.Requirement.Family() == finding.NodeKubelet {
					want[c.ID+" "+string(required.Requirement)] = "unknown NotChecked" // without --kubelets
				}
				if outcome, has := exceptions[string(required.Requirement)]; has {
					want[c.ID+" "+string(required.Requirement)] = outcome
				}
			}
		}
	}
	for _, c := range d.Controls {
		if c.Verdict != "Compliant" {
			t.Errorf("%s is %s", c.ID, c.Verdict)
		}
		for _, r := range c.Requirements {
			got[c.ID+" "+r.ID] = strings.TrimSpace(r.Outcome + " " + strings.Join(r.Reasons, " "))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requirements (-want +got):\n%s", diff)
	}
	// A result answers each of them.
	answered := map[string]bool{}
	for _, r := range d.Results {
		answered[r.Requirement] = true
	}
	for key := range want {
		if _, requirement, _ := strings.Cut(key, " "); !answered[requirement] {
			t.Errorf("no result answers %s", requirement)
		}
	}
}

// TestElsewhere: if the control plane is outside of this cluster, its control is not applicable. If
// that cannot be read, the control could not be verified.
func TestElsewhere(t *testing.T) {
	soundCluster(t)
	t.Run("hosted", func(t *testing.T) {
		topology := func(topology string) {
			t.Helper()
			if err := shared.rig.SetTopology(context.WithoutCancel(t.Context()), topology); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { topology("HighlyAvailable") })
		topology("External")
		code, d := runAudit(t, "--kubeconfig", shared.rig.Kubeconfig, "--installed", installedMap)
		if code != 4 || d.Verdict != "NotApplicable" || d.verdictOf(control.UseHTTPS) != "NotApplicable" ||
			d.verdictOf(control.GuardInForce) != "Compliant" {
			t.Errorf("exit code %d, verdict %s, %+v", code, d.Verdict, d.Controls)
		}
		topology("SingleReplica")
		if code, d := runAudit(t, "--kubeconfig", shared.rig.Kubeconfig, "--installed", installedMap); code != 0 {
			t.Errorf("on a single node: exit code %d, verdict %s", code, d.Verdict)
		}
	})
	t.Run("another Kubernetes", func(t *testing.T) {
		// With another prefix in etcd it has no namespaces and no kinds.
		address, stop, err := shared.rig.JoinAPIServer(context.WithoutCancel(t.Context()), "--etcd-prefix=/elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Errorf("stop the other API server: %v", err)
			}
		})
		code, d := runAudit(t, "--kubeconfig", kubeconfig(t,
			func(text string) string { return strings.ReplaceAll(text, shared.rig.Server(t.Context()), address) }))
		if code != 4 || d.Verdict != "NotApplicable" || len(d.Findings) > 0 {
			t.Errorf("exit code %d, verdict %s, findings %v", code, d.Verdict, d.Findings)
		}
	})
}

// kubeconfig is the administrator's kubeconfig with a change.
func kubeconfig(t *testing.T, change func(string) string) string {
	t.Helper()
	text, err := os.ReadFile(shared.rig.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestForbidden: without permission to read one kind of objects, no control that depends on them is
// compliant. (For each requirement, see TestMutationOfObservation of the audit.)
func TestForbidden(t *testing.T) {
	soundCluster(t)
	const open, closed = "CouldNotVerify", "Compliant"
	const definitions = "customresourcedefinitions"
	kinds := map[string]rbacv1.PolicyRule{
		"secrets":         {APIGroups: []string{""}, Resources: []string{"secrets"}},
		"services":        {APIGroups: []string{""}, Resources: []string{"services"}},
		"configmaps":      {APIGroups: []string{""}, Resources: []string{"configmaps"}},
		"namespaces":      {APIGroups: []string{""}, Resources: []string{"namespaces"}},
		"infrastructures": {APIGroups: []string{"config.openshift.io"}, Resources: []string{"infrastructures"}},
		"kubeapiservers":  {APIGroups: []string{"operator.openshift.io"}, Resources: []string{"kubeapiservers"}},
		"pkis":            {APIGroups: []string{"config.openshift.io"}, Resources: []string{"pkis"}},
		definitions:       {APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{definitions}},
		webhooks:          {APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{webhooks}},
		policies:          {APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{policies}},
		bindings:          {APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{bindings}},
	}
	cases := map[string]struct {
		code         int
		https, guard string
		first        string // finding
	}{
		"":                {0, closed, closed, ""},
		"namespaces":      {0, closed, closed, ""}, // Infrastructure has the information
		"secrets":         {2, open, closed, "Unreadable Secret openshift-apiserver/serving-cert"},
		"services":        {2, open, closed, "Unreadable Service openshift-apiserver/api"},
		"configmaps":      {2, open, open, "Unreadable ConfigMap kubelet-https-guard/openshift-service-ca.crt"},
		"infrastructures": {2, open, closed, "Unreadable Infrastructure cluster"},
		"kubeapiservers":  {2, open, open, "Unreadable KubeAPIServer cluster"},
		"pkis":            {0, closed, closed, "Unreadable PKI cluster"}, // it may be unknown which keys are configured
		definitions:       {0, closed, closed, "Unreadable CustomResourceDefinition pkis.config.openshift.io"},
		webhooks:          {2, closed, open, "Unreadable ValidatingWebhookConfiguration kubelet-https-guard"},
		policies:          {2, closed, open, "Unreadable ValidatingAdmissionPolicy " + decoyPolicy},
		bindings:          {2, closed, open, "Unreadable ValidatingAdmissionPolicyBinding " + decoyPolicy},
	}
	files := []string{
		"--config",
		shared.rig.Path("webhook", "config.yaml"),
		"--guard-manifest",
		shared.rig.Path("webhook", "guard.yaml"),
	}
	roles := as(t, "").RbacV1()
	for without, c := range cases {
		t.Run("without "+without, func(t *testing.T) {
			t.Parallel() // mostly waits
			name := "rig:reads-all-but-" + without
			role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
			for _, kind := range slices.Sorted(maps.Keys(kinds)) {
				if rule := kinds[kind]; kind != without {
					rule.Verbs = []string{"get", "list", "watch"}
					role.Rules = append(role.Rules, rule)
				}
			}
			if _, err := roles.ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := roles.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
				Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}},
			}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			access := kubeconfig(t, func(text string) string {
				return strings.Replace(text, "  user:\n", fmt.Sprintf("  user:\n    as: %q\n", name), 1)
			})
			code, d := runAudit(t, append([]string{"--kubeconfig", access}, files...)...)
			first := ""
			if len(d.Findings) > 0 {
				first = d.Findings[0].Reason + " " + d.Findings[0].Location
			}
			if diff := cmp.Diff([]any{c.code, c.https, c.guard, c.first},
				[]any{code, d.verdictOf(control.UseHTTPS), d.verdictOf(control.GuardInForce), first}); diff != "" {
				t.Errorf("exit code, verdicts and first finding (-want +got):\n%s\n%v", diff, d.Findings)
			}
		})
	}
}

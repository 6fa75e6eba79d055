// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// TestPoliciesAreThoseOfTheProgram: the chart and webhook policy produce the same
// objects for the same protected Secrets.
func TestPoliciesAreThoseOfTheProgram(t *testing.T) {
	needs(t, "HELM")
	program := buildWebhook(t)
	for name, file := range fixtures(t, "valid") {
		t.Run(name, func(t *testing.T) {
			rendered, err := chart.Render(t.Context(), "--values", file)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := chart.Objects(rendered)
			if err != nil {
				t.Fatal(err)
			}
			var policies []*unstructured.Unstructured
			config := ""
			for _, o := range objects {
				switch {
				case o.GetKind() == "ConfigMap" && strings.HasSuffix(o.GetName(), "-config"):
					config, _, _ = unstructured.NestedString(o.Object, "data", "config.yaml")
				case strings.HasPrefix(o.GetKind(), "ValidatingAdmissionPolicy"):
					policies = append(policies, o)
				}
			}
			if len(policies) == 0 || config == "" {
				t.Fatalf("rendered %d policies and the configuration %q", len(policies), config)
			}
			printed := policiesOf(t, program, config, policies[0].GetLabels())
			if diff := cmp.Diff(byName(printed), byName(policies)); diff != "" {
				t.Errorf("policies (-webhook policy +chart):\n%s", diff)
			}
		})
	}
}

// TestDefaultPolicies: without a configuration, and so without a decoy, the program
// prints the same policies as the chart without the audit.
func TestDefaultPolicies(t *testing.T) {
	needs(t, "HELM")
	rendered, err := chart.Render(t.Context(), "--set", "audit.enabled=false", "--show-only", "templates/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policies, err := chart.Objects(rendered)
	if err != nil {
		t.Fatal(err)
	}
	printed := policiesOf(t, buildWebhook(t), "", policies[0].GetLabels())
	if diff := cmp.Diff(byName(printed), byName(policies)); diff != "" {
		t.Errorf("policies (-webhook policy +chart):\n%s", diff)
	}
}

// TestSelfProtectionIsThatOfTheProgram: chart and webhook policy --self-protection produce the same objects, and the
// audit knows and can read them.
func TestSelfProtectionIsThatOfTheProgram(t *testing.T) {
	needs(t, "HELM")
	program := buildWebhook(t)
	for users, flags := range map[string][]string{
		"": {"--set", "policy.selfProtection.enabled=true"},
		"system:serviceaccount:gitops:argo,a&b": {"--set", "policy.selfProtection.enabled=true",
			"--set", "policy.selfProtection.allowedUsers={system:serviceaccount:gitops:argo,a&b}"},
	} {
		rendered, err := chart.Render(t.Context(), flags...)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := chart.Objects(rendered)
		if err != nil {
			t.Fatal(err)
		}
		const name = chart.Release + "-self-protection"
		var made []*unstructured.Unstructured
		known := 0
		for _, o := range objects {
			if o.GetName() == name {
				made = append(made, o)
			}
			text, _ := yaml.Marshal(o.Object) // it was parsed from YAML
			if o.GetKind() == "ConfigMap" || o.GetKind() == "ClusterRole" {
				known += min(1, strings.Count(string(text), name))
			}
		}
		if len(made) != 2 || known != 2 {
			t.Fatalf("the chart has %d objects, and ConfigMap and ClusterRole of the audit name them %d times", len(made), known)
		}
		var labels []string
		for label, value := range made[0].GetLabels() {
			labels = append(labels, label+"="+value)
		}
		printed, err := exec.CommandContext(t.Context(), program, "policy", "--self-protection",
			"--name-prefix", chart.Release, "--namespace", chart.Release,
			"--labels", strings.Join(labels, ","), "--allowed-users", users).Output()
		if err != nil {
			t.Fatal(err)
		}
		want, err := chart.Objects(printed)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(byName(want), byName(made)); d != "" {
			t.Errorf("allowed users %q (-webhook policy +chart):\n%s", users, d)
		}
	}
}

// TestProtectedNames: the static policies protect exactly the objects that the chart installs to make API servers
// refuse.
func TestProtectedNames(t *testing.T) {
	needs(t, "HELM")
	rendered, err := chart.Render(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := chart.Objects(rendered)
	if err != nil {
		t.Fatal(err)
	}
	want, config := map[string][]string{}, filepath.Join(t.TempDir(), "config.yaml")
	for _, o := range objects {
		resource := strings.ToLower(o.GetKind()) + "s"
		switch o.GetKind() {
		case "ConfigMap":
			if text, found, _ := unstructured.NestedString(o.Object, "data", "config.yaml"); found {
				if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			continue
		case "ValidatingAdmissionPolicy":
			resource = "validatingadmissionpolicies"
		case "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicyBinding":
		case "ClusterRole", "ClusterRoleBinding":
			if !strings.HasSuffix(o.GetName(), "-answers") { // permissions of the guard, which do not make it refuse
				continue
			}
		default:
			continue
		}
		want[resource] = append(want[resource], o.GetName())
	}
	// The policy in the API that protects the guard is not installed by default.
	for _, resource := range []string{"validatingadmissionpolicies", "validatingadmissionpolicybindings"} {
		want[resource] = append(want[resource], chart.Release+"-self-protection")
		slices.Sort(want[resource])
	}
	printed, err := exec.CommandContext(t.Context(), buildWebhook(t), "policy", "--static", "--name-prefix", chart.Release,
		"--config", config).Output()
	if err != nil {
		t.Fatal(err)
	}
	static, err := chart.Objects(printed)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range static {
		if o.GetKind() != "ValidatingAdmissionPolicy" || o.GetName() != chart.Release+"-self-protection.static.k8s.io" {
			continue
		}
		conditions, _, _ := unstructured.NestedSlice(o.Object, "spec", "matchConditions")
		condition, _ := conditions[0].(map[string]any)
		text, _ := condition["expression"].(string)
		_, text, _ = strings.Cut(text, " in ")
		text, _, _ = strings.Cut(text, "[?")
		var got map[string][]string
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, names := range got {
			slices.Sort(names)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("protected objects (-chart +webhook policy --static):\n%s", d)
		}
		return
	}
	t.Error("no policy protects the guard")
}

func buildWebhook(t *testing.T) string {
	t.Helper()
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "webhook")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./webhook")
	build.Dir = repository
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the webhook: %v\n%s", err, output)
	}
	return program
}

// policiesOf returns the policies that the program prints for a configuration.
func policiesOf(t *testing.T, program, config string, labels map[string]string) []*unstructured.Unstructured {
	t.Helper()
	var pairs []string
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, label+"="+labels[label])
	}
	args := []string{"policy", "--name-prefix", chart.Release, "--labels", strings.Join(pairs, ",")}
	if config != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	printed, err := exec.CommandContext(t.Context(), program, args...).Output()
	if err != nil {
		t.Fatalf("webhook policy: %v", err)
	}
	objects, err := chart.Objects(printed)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// byName returns objects as YAML, by kind and name, so that their order does not
// matter.
func byName(objects []*unstructured.Unstructured) map[string]string {
	all := map[string]string{}
	for _, o := range objects {
		text, _ := yaml.Marshal(o.Object) // it was parsed from YAML
		all[o.GetKind()+" "+o.GetName()] = string(text)
	}
	return all
}

// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
)

func protected(change func(*admit.ProtectedSecret)) admit.ProtectedSecret {
	secret := admit.ProtectedSecret{SecretExpectation: check.SecretExpectation{Namespace: "a", Name: "b"}}
	change(&secret)
	return secret
}

func build(
	t *testing.T,
	secret admit.ProtectedSecret,
) (*registrationv1.ValidatingAdmissionPolicy, *registrationv1.ValidatingAdmissionPolicyBinding) {
	t.Helper()
	made, binding, err := policy.New("guard", map[string]string{"app.kubernetes.io/name": "n"}, secret)
	if err != nil {
		t.Fatal(err)
	}
	return made, binding
}

// TestVariables: each part of a protected Secret is in its place, and nothing else in the
// policy depends on it. test/e2e tests the CEL on an API server.
func TestVariables(t *testing.T) {
	control := `{"action":"Deny","control":"` + admit.ControlOf(finding.AddedSecret.Requires(finding.Exists)) + `",`
	unset := control + `"managedBy":"","name":"b","namespace":"a","service":"","type":"kubernetes.io/tls"}`
	deny := []registrationv1.ValidationAction{registrationv1.Deny, registrationv1.Audit}
	cases := map[string]struct {
		change       func(*admit.ProtectedSecret)
		want, owners string
		actions      []registrationv1.ValidationAction
	}{
		"nothing set": {func(*admit.ProtectedSecret) {}, unset, "[]", deny},
		"managed by service-ca": {func(p *admit.ProtectedSecret) { p.ManagedBy, p.Service = check.ManagedByServiceCA, "c" },
			control + `"managedBy":"service-ca","name":"b","namespace":"a","service":"c","type":"kubernetes.io/tls"}`, "[]",
			deny},
		"managed by cert-rotation": {func(p *admit.ProtectedSecret) { p.ManagedBy = check.ManagedByCertRotation },
			control + `"managedBy":"cert-rotation","name":"b","namespace":"a","service":"","type":"kubernetes.io/tls"}`, "[]",
			deny},
		"a type that would end a string": {func(p *admit.ProtectedSecret) { p.Type = `"} || true` },
			control + `"managedBy":"","name":"b","namespace":"a","service":"","type":"\"} || true"}`, "[]", deny},
		"owners": {func(p *admit.ProtectedSecret) {
			p.Owners = []check.AllowedOwner{
				{APIVersion: "v1", Kind: "ConfigMap", Name: "c"},
				{APIVersion: "example.com", Kind: "Thing"},
			}
		}, unset, `[{"apiVersion":"v1","kind":"ConfigMap","name":"c"},{"apiVersion":"example.com","kind":"Thing","name":""}]`, deny},
		"Deny":  {func(p *admit.ProtectedSecret) { p.Action = admit.Deny }, unset, "[]", deny},
		"Warn":  {func(p *admit.ProtectedSecret) { p.Action = admit.Warn }, strings.Replace(unset, "Deny", "Warn", 1), "[]", []registrationv1.ValidationAction{registrationv1.Warn, registrationv1.Audit}},
		"Audit": {func(p *admit.ProtectedSecret) { p.Action = admit.Audit }, strings.Replace(unset, "Deny", "Audit", 1), "[]", []registrationv1.ValidationAction{registrationv1.Audit}},
	}
	plain, _ := build(t, protected(func(*admit.ProtectedSecret) {}))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			made, binding := build(t, protected(c.change))
			got := made.Spec.Variables[:2]
			if d := cmp.Diff([]registrationv1.Variable{{Name: "want", Expression: c.want},
				{Name: "owners", Expression: c.owners}}, got); d != "" {
				t.Errorf("variables (-want +got):\n%s", d)
			}
			if !json.Valid([]byte(got[0].Expression)) || !json.Valid([]byte(got[1].Expression)) {
				t.Errorf("not valid JSON: %v", got)
			}
			if d := cmp.Diff(c.actions, binding.Spec.ValidationActions); d != "" {
				t.Errorf("actions (-want +got):\n%s", d)
			}
			made.Spec.Variables = append(plain.Spec.Variables[:2:2], made.Spec.Variables[2:]...)
			if d := cmp.Diff(plain, made); d != "" {
				t.Errorf("something else depends on it (-without +with):\n%s", d)
			}
		})
	}
}

// TestNames: policy and binding are named after the Secret and belong together,
// and the policy is about that Secret.
func TestNames(t *testing.T) {
	made, binding := build(t, protected(func(*admit.ProtectedSecret) {}))
	labels := map[string]string{"app.kubernetes.io/component": "policy", "app.kubernetes.io/name": "n"}
	type names struct {
		Policy, Binding, Bound, Condition string
		Namespaces, PolicyLabels, Labels  map[string]string
	}
	want := names{
		Policy: "guard.a.b", Binding: "guard.a.b", Bound: "guard.a.b",
		Condition:  `(object == null ? oldObject : object).metadata.?name.orValue("") == "b"`,
		Namespaces: map[string]string{"kubernetes.io/metadata.name": "a"}, PolicyLabels: labels, Labels: labels,
	}
	got := names{
		made.Name, binding.Name, binding.Spec.PolicyName, made.Spec.MatchConditions[0].Expression,
		made.Spec.MatchConstraints.NamespaceSelector.MatchLabels, made.Labels, binding.Labels,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
}

// TestRules: the rules select every request about the Secret, and no update of another one.
func TestRules(t *testing.T) {
	type requests struct {
		Operations []registrationv1.OperationType
		Names      []string
	}
	updates := requests{[]registrationv1.OperationType{registrationv1.Update}, []string{"b"}}
	// The delete of a collection has no name, and a mutating webhook can rename a new Secret.
	others := requests{Operations: []registrationv1.OperationType{registrationv1.Create, registrationv1.Delete}}
	for name, c := range map[string]struct {
		change func(*admit.ProtectedSecret)
		want   []requests
	}{
		"a Secret":               {func(*admit.ProtectedSecret) {}, []requests{updates, others}},
		"in selected namespaces": {func(p *admit.ProtectedSecret) { p.Namespace, p.Selector = "", &metav1.LabelSelector{} }, []requests{updates, others}},
		"the decoy":              {func(p *admit.ProtectedSecret) { p.Decoy = true }, []requests{updates}},
	} {
		t.Run(name, func(t *testing.T) {
			made, _ := build(t, protected(c.change))
			var got []requests
			for _, r := range made.Spec.MatchConstraints.ResourceRules {
				got = append(got, requests{r.Operations, r.ResourceNames})
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("rules (-want +got):\n%s", d)
			}
		})
	}
}

// TestSelector: a policy of an entry with a selector is for the namespaces that it selects, except those that other
// entries name, and for nothing else differs from the policy for one Secret.
func TestSelector(t *testing.T) {
	selector := &metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "hosted", Operator: "Exists"}},
	}
	made, binding := build(t, protected(func(p *admit.ProtectedSecret) {
		p.Namespace, p.Selector, p.Except = "", selector, []string{"a", "c"}
	}))
	one, ofOne := build(t, protected(func(*admit.ProtectedSecret) {}))
	one.Name, ofOne.Name, ofOne.Spec.PolicyName = "guard-selected-namespaces.b", "guard-selected-namespaces.b",
		"guard-selected-namespaces.b"
	one.Spec.MatchConstraints.NamespaceSelector = selector
	one.Spec.MatchConditions = append(one.Spec.MatchConditions, registrationv1.MatchCondition{
		Name: "not-of-another-entry", Expression: `!(request.namespace in ["a","c"])`,
	})
	one.Spec.Variables[0].Expression = strings.Replace(one.Spec.Variables[0].Expression, `"namespace":"a"`, `"namespace":""`, 1)
	for i := range one.Spec.Validations {
		message := &one.Spec.Validations[i].Message
		*message = strings.Replace(*message, "Secret a/b", "Secret <namespace>/b", 1)
	}
	if d := cmp.Diff(one, made); d != "" {
		t.Errorf("policy (-want +got):\n%s", d)
	}
	if d := cmp.Diff(ofOne, binding); d != "" {
		t.Errorf("binding (-want +got):\n%s", d)
	}
}

// TestIsOf: a policy belongs to the Secret in its variables, not to the one in its name.
func TestIsOf(t *testing.T) {
	fields := func(namespace, name, prefix string) map[string]any {
		made, _, err := policy.New(prefix, nil, protected(func(p *admit.ProtectedSecret) {
			p.Namespace, p.Name = namespace, name
		}))
		if err != nil {
			t.Fatal(err)
		}
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(made)
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
	variables := func(all ...any) map[string]any {
		return map[string]any{"metadata": map[string]any{"name": "x.guard.decoy"}, "spec": map[string]any{"variables": all}}
	}
	cases := map[string]struct {
		object map[string]any
		want   bool
	}{
		"the same":       {fields("guard", "decoy", "x"), true},
		"another prefix": {fields("guard", "decoy", "y.z"), true},
		"another Secret, the same end of the name": {fields("a", "guard.decoy", "x"), false},
		"another namespace":                        {fields("a.guard", "decoy", "x"), false},
		"another name":                             {fields("guard", "decoy2", "x"), false},
		"the same name, no variables":              {variables(), false},
		"no variables":                             {map[string]any{}, false},
		"malformed variables":                      {map[string]any{"spec": map[string]any{"variables": "want"}}, false},
		"a malformed variable":                     {variables("want"), false},
		"not JSON":                                 {variables(map[string]any{"name": "want", "expression": "1 +"}), false},
		"another variable":                         {variables(map[string]any{"name": "other", "expression": `{"namespace":"guard","name":"decoy"}`}), false},
	}
	decoy := protected(func(p *admit.ProtectedSecret) { p.Namespace, p.Name = "guard", "decoy" })
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := policy.IsOf(c.object, decoy); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
		})
	}
}

// TestRefusals: message and messageExpression have the marker, and messages have one line,
// as the API server requires.
func TestRefusals(t *testing.T) {
	page := messages.Record(t, "refusals by the policies")
	made, _ := build(t, protected(func(*admit.ProtectedSecret) {}))
	problem := regexp.MustCompile(`(?s)"text": (".+?")}`)
	for _, variable := range made.Spec.Variables {
		for _, found := range problem.FindAllStringSubmatch(variable.Expression, -1) {
			page.Text("variables.problems", "CEL: "+strings.Join(strings.Fields(found[1]), " "))
		}
	}
	for i, v := range made.Spec.Validations {
		title := fmt.Sprintf("validation %d", i+1)
		page.Text(title, v.Message)
		page.Text(title, "CEL: "+strings.Join(strings.Fields(v.MessageExpression), " "))
		if !strings.Contains(v.Message, policy.Marker) || !strings.Contains(v.MessageExpression, policy.Marker) {
			t.Errorf("validation %d: no marker in %q or %q", i, v.Message, v.MessageExpression)
		}
		if strings.Contains(v.Message, "\n") {
			t.Errorf("validation %d: %q has several lines", i, v.Message)
		}
		if v.Reason == nil || *v.Reason != "Forbidden" {
			t.Errorf("validation %d: the reason is %v", i, v.Reason)
		}
	}
	// Which of these texts is in a refusal is up to the API server (see the bypasses of test/e2e).
	for _, manager := range []string{check.ManagedByServiceCA, check.ManagedByCertRotation, ""} {
		text := made.Spec.Validations[1].MessageExpression
		if !strings.Contains(text, strconv.Quote(admit.Renewal(manager))) {
			t.Errorf("the refusal of a delete does not say how to renew a Secret managed by %q: %s", manager, text)
		}
	}
	if strings.Contains(policy.Marker, admit.Marker) || strings.Contains(admit.Marker, policy.Marker) {
		t.Error("the markers of policy and webhook contain each other")
	}
}

// TestProposedTime: the shell evaluates the expression in the refusal of a delete to a time
// half an hour ahead, in UTC, in each time zone.
func TestProposedTime(t *testing.T) {
	made, _ := build(t, protected(func(*admit.ProtectedSecret) {}))
	for _, text := range []string{made.Spec.Validations[1].Message, made.Spec.Validations[1].MessageExpression} {
		_, rest, _ := strings.Cut(text, admit.AllowDeleteUntil+"=")
		proposed, _, found := strings.Cut(rest, ")")
		if !found {
			t.Fatalf("no time in %q", text)
		}
		proposed += ")"
		for _, zone := range []string{"UTC", "Asia/Kolkata", "XXX+11"} {
			command := exec.CommandContext(t.Context(), "sh", "-c", "echo "+proposed)
			command.Env = append(command.Environ(), "TZ="+zone)
			said, err := command.Output()
			if err != nil {
				t.Fatal(err)
			}
			until, err := time.Parse(time.RFC3339, strings.TrimSpace(string(said)))
			if err != nil {
				t.Fatal(err)
			}
			if ahead := time.Until(until); ahead < 25*time.Minute || ahead > 35*time.Minute {
				t.Errorf("TZ=%s sh -c 'echo %s' says %s, which is %s ahead", zone, proposed, said, ahead)
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
)

// TestStatic: all names have the suffix that API servers require, each binding is of a policy in the same directory,
// and nothing else of a Secret's policy differs from the one in the API. test/e2e tests the effect on an API server.
func TestStatic(t *testing.T) {
	labels := map[string]string{"app.kubernetes.io/name": "n"}
	secret := protected(func(*admit.ProtectedSecret) {})
	decoy := protected(func(p *admit.ProtectedSecret) { p.Namespace, p.Name, p.Decoy = "guard", "decoy", true })
	guard := policy.Guard{Prefix: "guard", Namespace: "ns", Policies: []string{"guard.a.b"}}
	objects, err := policy.Static(guard, labels, []admit.ProtectedSecret{secret, decoy})
	if err != nil {
		t.Fatal(err)
	}
	var names, bound []string
	for _, object := range objects {
		switch o := object.(type) {
		case *registrationv1.ValidatingAdmissionPolicy:
			names = append(names, o.Name)
			if o.Spec.ParamKind != nil {
				t.Errorf("%s has a paramKind, which API servers do not accept in a directory", o.Name)
			}
		case *registrationv1.ValidatingAdmissionPolicyBinding:
			bound = append(bound, o.Spec.PolicyName)
			if !slices.Equal(o.Spec.ValidationActions, []registrationv1.ValidationAction{"Deny", "Audit"}) {
				t.Errorf("%s: %v", o.Name, o.Spec.ValidationActions)
			}
		}
		if !strings.HasSuffix(object.GetName(), policy.StaticSuffix) {
			t.Errorf("the name %s has no suffix %s", object.GetName(), policy.StaticSuffix)
		}
	}
	want := []string{"guard.a.b.static.k8s.io", "guard-self-protection.static.k8s.io", "guard-proof.static.k8s.io"}
	if d := cmp.Diff([][]string{want, want}, [][]string{names, bound}); d != "" {
		t.Errorf("policies, and policies of the bindings (-want +got):\n%s", d)
	}
	inAPI, _, err := policy.New("guard", labels, secret)
	if err != nil {
		t.Fatal(err)
	}
	inAPI.Name += policy.StaticSuffix
	if d := cmp.Diff(objects[0], policy.Object(inAPI)); d != "" {
		t.Errorf("the policy of a Secret (-static +in the API):\n%s", d)
	}
}

// TestSelfProtection: policies in the API never see writes of policies and bindings, so these are protected by static
// policies only. The refusals have the marker and name the way out.
func TestSelfProtection(t *testing.T) {
	page := messages.Record(t, "refusals by the policy that protects the guard")
	guard := policy.Guard{Prefix: "guard", Namespace: "ns", Policies: []string{"guard.a.b"}}
	own := []string{"guard-self-protection", "guard.a.b"}
	always := map[string][]string{
		"validatingwebhookconfigurations": {"guard"}, "clusterroles": {"guard-answers"},
		"clusterrolebindings": {"guard-answers"},
	}
	static := map[string][]string{"validatingadmissionpolicies": own, "validatingadmissionpolicybindings": own}
	maps.Copy(static, always)
	for title, c := range map[string]struct {
		static bool
		want   map[string][]string
	}{"in the API": {false, always}, "static": {true, static}} {
		t.Run(title, func(t *testing.T) {
			if d := cmp.Diff(c.want, guard.Names(c.static)); d != "" {
				t.Errorf("names (-want +got):\n%s", d)
			}
			made, binding := policy.SelfProtection(guard, nil, c.static)
			var resources []string
			for _, rule := range made.Spec.MatchConstraints.ResourceRules {
				resources = append(resources, rule.Resources...)
			}
			for _, resource := range resources {
				if c.want[resource] == nil {
					t.Errorf("the policy is about %s, of which it protects no object", resource)
				}
			}
			if len(resources) != len(c.want) || binding.Spec.PolicyName != "guard-self-protection" {
				t.Errorf("resources %v, binding of %s", resources, binding.Spec.PolicyName)
			}
			for _, v := range made.Spec.Validations {
				page.Text(title, v.Message)
				page.Text(title, "CEL: "+v.MessageExpression)
				if !strings.Contains(v.Message, policy.Marker) || !strings.Contains(v.MessageExpression, policy.Marker) {
					t.Errorf("no marker in %q or %q", v.Message, v.MessageExpression)
				}
			}
		})
	}
}

// TestStaticProof: the words of the refusal that proves are those of one guard and its Secrets. Labels, which have the
// version of the release, do not count.
func TestStaticProof(t *testing.T) {
	secret := protected(func(*admit.ProtectedSecret) {})
	decoy := protected(func(p *admit.ProtectedSecret) { p.Namespace, p.Name, p.Decoy = "guard", "decoy", true })
	guard := policy.Guard{Prefix: "guard", Namespace: "ns", Policies: []string{"guard.a.b"}}
	proof := func(guard policy.Guard, secrets ...admit.ProtectedSecret) (name, words string) {
		t.Helper()
		name, words, err := policy.StaticProof(guard, secrets)
		if err != nil {
			t.Fatal(err)
		}
		return name, words
	}
	name, words := proof(guard, secret, decoy)
	for _, labels := range []map[string]string{nil, {"app.kubernetes.io/version": "2"}} {
		objects, err := policy.Static(guard, labels, []admit.ProtectedSecret{secret, decoy})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, object := range objects {
			if p, ok := object.(*registrationv1.ValidatingAdmissionPolicy); ok && p.Name == name {
				found = strings.Contains(p.Spec.Validations[0].Message, words)
			}
		}
		if !found {
			t.Errorf("labels %v: no policy %s refuses with %q", labels, name, words)
		}
	}
	changed := secret
	changed.Type = "Opaque"
	prefix, namespace, policies := guard, guard, guard
	prefix.Prefix, namespace.Namespace, policies.Policies = "other", "other", nil
	for title, other := range map[string]func() (string, string){
		"another type of the Secret": func() (string, string) { return proof(guard, changed, decoy) },
		"no Secret":                  func() (string, string) { return proof(guard, decoy) },
		"another prefix":             func() (string, string) { return proof(prefix, secret, decoy) },
		"another namespace":          func() (string, string) { return proof(namespace, secret, decoy) },
		"other policies":             func() (string, string) { return proof(policies, secret, decoy) },
	} {
		if _, got := other(); got == words {
			t.Errorf("%s: the same words", title)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package policy builds a ValidatingAdmissionPolicy and its binding for each protected
// Secret. With them the API server itself enforces the part of the webhook's rule that CEL
// can express. The package stores nothing.
//
// The CEL is the same for every Secret. The differences are in the variables want and
// owners, as JSON, in the namespaces that are selected, and in the match conditions, which
// cannot use variables.
package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// Marker is in every refusal by a policy and in no other refusal, for programs that must
// know what refused.
const Marker = "[kubelet-https-guard/policy]"

// The kinds of the objects.
const policyKind, bindingKind = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"

// wantVariable says what the Secret should be, as JSON.
const wantVariable = "want"

// selectedNamespaces is in the place of the namespace in the name of a policy, and of the dot before it: so it is the
// name of no policy for one Secret, whose name may have dots.
const selectedNamespaces = "-selected-namespaces"

// Name is the name of the policy for a protected Secret, and of its binding.
func Name(prefix string, secret admit.ProtectedSecret) string {
	if secret.Namespace == "" {
		return prefix + selectedNamespaces + "." + secret.Name
	}
	return prefix + "." + secret.Namespace + "." + secret.Name
}

// IsOf reports whether a policy is the one that [New] builds for the Secret. The policy is
// as decoded from JSON.
func IsOf(policy map[string]any, secret admit.ProtectedSecret) bool {
	variables, _, _ := unstructured.NestedSlice(policy, "spec", "variables") // in a malformed policy: none
	for _, item := range variables {
		variable, _ := item.(map[string]any)
		expression, _ := variable["expression"].(string)
		var want struct{ Namespace, Name string }
		if variable["name"] == wantVariable && json.Unmarshal([]byte(expression), &want) == nil {
			return want.Namespace == secret.Namespace && want.Name == secret.Name
		}
	}
	return false
}

// New builds the policy and the binding for a protected Secret. Namespace and name of the
// Secret must be valid, because they are in the policy's texts.
func New(
	prefix string,
	labels map[string]string,
	secret admit.ProtectedSecret,
) (*registrationv1.ValidatingAdmissionPolicy, *registrationv1.ValidatingAdmissionPolicyBinding, error) {
	variables, err := variables(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("write Secret %s/%s as JSON: %w", secret.Namespace, secret.Name, err)
	}
	forbidden := metav1.StatusReasonForbidden
	policy := &registrationv1.ValidatingAdmissionPolicy{
		TypeMeta:   typeMeta(policyKind),
		ObjectMeta: meta(prefix, labels, secret),
		Spec: registrationv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: new(registrationv1.Fail),
			MatchConstraints: &registrationv1.MatchResources{
				MatchPolicy:       new(registrationv1.Equivalent),
				NamespaceSelector: namespaces(secret),
				ResourceRules:     rules(secret),
			},
			MatchConditions: conditions(secret),
			Variables:       variables,
			Validations: []registrationv1.Validation{
				{
					Expression: mayStore, Reason: &forbidden,
					Message: refuseStore(secret), MessageExpression: refuseStoreExpression(),
				},
				{
					Expression: mayDelete, Reason: &forbidden,
					Message: refuseDelete(secret), MessageExpression: refuseDeleteExpression(),
				},
			},
		},
	}
	binding := &registrationv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   typeMeta(bindingKind),
		ObjectMeta: meta(prefix, labels, secret),
		Spec: registrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: Name(prefix, secret), ValidationActions: actions(secret.Action),
		},
	}
	return policy, binding, nil
}

// namespaces returns the selector of the namespaces in which the Secret is protected.
func namespaces(secret admit.ProtectedSecret) *metav1.LabelSelector {
	if secret.Selector != nil {
		return secret.Selector
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: secret.Namespace}}
}

// rules returns the requests that the policy is about. By the name in a rule, API servers skip an update of another
// Secret without evaluating any CEL. A rule with this name would miss two other requests: the delete of a collection
// has no name, and a mutating webhook can rename a new object, while the name of the request stays.
func rules(secret admit.ProtectedSecret) []registrationv1.NamedRuleWithOperations {
	secrets := []string{"secrets"}
	update := rule(registrationv1.NamespacedScope, "", secrets, registrationv1.Update)
	update.ResourceNames = []string{secret.Name}
	if secret.Decoy { // install and uninstall create and delete it
		return []registrationv1.NamedRuleWithOperations{update}
	}
	return []registrationv1.NamedRuleWithOperations{
		update,
		rule(registrationv1.NamespacedScope, "", secrets, registrationv1.Create, registrationv1.Delete),
	}
}

// conditions returns the match conditions of the policy.
func conditions(secret admit.ProtectedSecret) []registrationv1.MatchCondition {
	all := []registrationv1.MatchCondition{{
		// Not request.name: it is empty in the delete of a collection.
		Name:       "protected",
		Expression: fmt.Sprintf(`(object == null ? oldObject : object).metadata.?name.orValue("") == %q`, secret.Name),
	}}
	if len(secret.Except) > 0 {
		except, _ := json.Marshal(secret.Except) // cannot fail for strings
		all = append(all, registrationv1.MatchCondition{
			Name: "not-of-another-entry", Expression: fmt.Sprintf("!(request.namespace in %s)", except),
		})
	}
	return all
}

func meta(prefix string, labels map[string]string, secret admit.ProtectedSecret) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: Name(prefix, secret), Labels: withComponent(labels)}
}

func withComponent(labels map[string]string) map[string]string {
	all := map[string]string{"app.kubernetes.io/component": "policy"}
	maps.Copy(all, labels)
	return all
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: registrationv1.SchemeGroupVersion.String(), Kind: kind}
}

// actions always has Audit, so that the audit log has each refusal.
func actions(action admit.Action) []registrationv1.ValidationAction {
	switch action {
	case admit.Audit:
		return []registrationv1.ValidationAction{registrationv1.Audit}
	case admit.Warn:
		return []registrationv1.ValidationAction{registrationv1.Warn, registrationv1.Audit}
	case admit.Deny, "":
	}
	return []registrationv1.ValidationAction{registrationv1.Deny, registrationv1.Audit}
}

// variables of the policy: first the two that differ between Secrets, then the constant ones.
func variables(secret admit.ProtectedSecret) ([]registrationv1.Variable, error) {
	want, err := json.Marshal(map[string]string{
		"action":    string(cmp.Or(secret.Action, admit.Deny)),
		"namespace": secret.Namespace, "name": secret.Name, "type": cmp.Or(secret.Type, string(corev1.SecretTypeTLS)),
		"managedBy": secret.ManagedBy, "service": secret.Service, "control": controlOf(secret),
	})
	if err != nil {
		return nil, err
	}
	allowed := []map[string]string{} // an empty list, not null
	for _, o := range secret.Owners {
		allowed = append(allowed, map[string]string{"apiVersion": o.APIVersion, "kind": o.Kind, "name": o.Name})
	}
	owners, err := json.Marshal(allowed)
	if err != nil {
		return nil, err
	}
	return append([]registrationv1.Variable{
		{Name: wantVariable, Expression: string(want)}, {Name: "owners", Expression: string(owners)},
	}, constantVariables()...), nil
}

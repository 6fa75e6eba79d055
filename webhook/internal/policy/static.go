// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// StaticSuffix is at the end of each name in a directory of static policies (staticManifestsDir), and of no name that
// the API accepts (k8s.io/apiserver pkg/admission/plugin/manifest/validation.go).
const StaticSuffix = ".static.k8s.io"

// ProofAnnotation on the decoy is refused by the static policies only. The audit sends it as a dry run, to see whether
// they are in force: API servers evaluate them first, so their refusal of anything else would hide that of the
// policies in the API.
const ProofAnnotation = "kubelet-https-guard.io/prove-static-policies"

// staticProof is at the end of the name of the policy for that, before [StaticSuffix].
const staticProof = "-proof"

// Object is a policy or a binding.
type Object interface{ metav1.Object }

// Static returns the policies and bindings for a directory of static policies: one for each protected Secret, one that
// protects the guard's own objects, and, with a decoy, one that proves that the directory is in force. guard names the
// guard's objects, and its prefix is that of all names.
//
// The decoy's own policy is not among them: its refusal would hide that of the policy in the API. The refusal of the
// policy that proves has the digest of all others.
func Static(guard Guard, labels map[string]string, secrets []admit.ProtectedSecret) ([]Object, error) {
	all, digest, err := static(guard, labels, secrets)
	if err != nil {
		return nil, err
	}
	for _, secret := range secrets {
		if secret.Decoy {
			policy, binding := proof(guard.Prefix, labels, secret, digest)
			all = append(all, asStatic(policy, binding)...)
		}
	}
	return all, nil
}

// StaticProof returns the name of the static policy that proves, and the words of its refusal that only the policies of
// this guard and these Secrets have. Another version of the program has the same words if its policies are the same.
func StaticProof(guard Guard, secrets []admit.ProtectedSecret) (name, words string, err error) {
	_, digest, err := static(guard, nil, secrets)
	return guard.Prefix + staticProof + StaticSuffix, withDigest(digest), err
}

// withDigest are words of the refusal of the policy that proves.
func withDigest(digest string) string { return "static policies with digest " + digest }

// asStatic gives a policy and its binding a name that API servers accept in a directory.
func asStatic(
	policy *registrationv1.ValidatingAdmissionPolicy, binding *registrationv1.ValidatingAdmissionPolicyBinding,
) []Object {
	policy.Name += StaticSuffix
	binding.Name, binding.Spec.PolicyName = policy.Name, policy.Name
	return []Object{policy, binding}
}

// static returns all static policies but the one that proves, and a digest of what they do: labels do not count.
func static(
	guard Guard, labels map[string]string, secrets []admit.ProtectedSecret,
) (all []Object, digest string, err error) {
	hash := sha256.New()
	encoder := json.NewEncoder(hash)
	add := func(
		policy *registrationv1.ValidatingAdmissionPolicy, binding *registrationv1.ValidatingAdmissionPolicyBinding,
	) {
		all = append(all, asStatic(policy, binding)...)
		_ = encoder.Encode([]any{policy.Name, policy.Spec, binding.Spec}) // a hash accepts everything
	}
	for _, secret := range secrets {
		if secret.Decoy {
			continue
		}
		policy, binding, err := New(guard.Prefix, labels, secret)
		if err != nil {
			return nil, "", err
		}
		add(policy, binding)
	}
	add(SelfProtection(guard, labels, true))
	return all, hex.EncodeToString(hash.Sum(nil)[:8]), nil
}

// proof refuses [ProofAnnotation] on the decoy, and nothing else.
func proof(prefix string, labels map[string]string, decoy admit.ProtectedSecret, digest string) (
	*registrationv1.ValidatingAdmissionPolicy, *registrationv1.ValidatingAdmissionPolicyBinding,
) {
	return policyAndBinding(prefix+staticProof, labels, registrationv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: new(registrationv1.Fail),
		MatchConstraints: &registrationv1.MatchResources{
			MatchPolicy: new(registrationv1.Equivalent),
			NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{corev1.LabelMetadataName: decoy.Namespace},
			},
			ResourceRules: []registrationv1.NamedRuleWithOperations{
				rule(registrationv1.NamespacedScope, "", []string{"secrets"}, registrationv1.Update),
			},
		},
		MatchConditions: []registrationv1.MatchCondition{{
			Name: "decoy", Expression: fmt.Sprintf(`object.metadata.?name.orValue("") == %q`, decoy.Name),
		}},
		Validations: []registrationv1.Validation{{
			Expression: fmt.Sprintf(`!(%q in object.metadata.?annotations.orValue({}))`, ProofAnnotation),
			Reason:     new(metav1.StatusReasonForbidden),
			Message: admit.Refusal(admit.Refusing, string(registrationv1.Update),
				"Secret "+decoy.Namespace+"/"+decoy.Name, "it has the annotation "+ProofAnnotation, guardControl(), Marker) +
				"none is needed: the audit sends this dry run, and this refusal proves that " + withDigest(digest) +
				" are in force",
		}},
	})
}

// policyAndBinding returns a policy of this name, and a binding of the same name that refuses.
func policyAndBinding(name string, labels map[string]string, spec registrationv1.ValidatingAdmissionPolicySpec) (
	*registrationv1.ValidatingAdmissionPolicy, *registrationv1.ValidatingAdmissionPolicyBinding,
) {
	meta := func() metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Labels: withComponent(labels)} }
	return &registrationv1.ValidatingAdmissionPolicy{TypeMeta: typeMeta(policyKind), ObjectMeta: meta(), Spec: spec},
		&registrationv1.ValidatingAdmissionPolicyBinding{
			TypeMeta: typeMeta(bindingKind), ObjectMeta: meta(),
			Spec: registrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: actions(admit.Deny)},
		}
}

func rule(
	scope registrationv1.ScopeType, group string, resources []string, operations ...registrationv1.OperationType,
) registrationv1.NamedRuleWithOperations {
	return registrationv1.NamedRuleWithOperations{RuleWithOperations: registrationv1.RuleWithOperations{
		Operations: operations,
		Rule: registrationv1.Rule{
			APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources, Scope: &scope,
		},
	}}
}

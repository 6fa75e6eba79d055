// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// selfProtection is at the end of the name of the policy that protects the guard's objects. There is no dot before it,
// so it is the name of no policy for a Secret.
const selfProtection = "-self-protection"

// Guard names the objects that make API servers refuse, as the chart names them.
type Guard struct {
	// Prefix is the chart's full name: of the ValidatingWebhookConfiguration, and at the beginning of the other names.
	Prefix string
	// Namespace is that of the guard's ServiceAccounts.
	Namespace string
	// Policies are the names of the policies in the API, and of their bindings.
	Policies []string
	// AllowedUsers may change the objects nevertheless. Only the policy in the API has this exception: an administrator
	// can impersonate them.
	AllowedUsers []string
}

// NewGuard names the objects that the chart installs with this full name for the Secrets, the decoy included.
func NewGuard(prefix, namespace string, secrets []admit.ProtectedSecret) Guard {
	guard := Guard{Prefix: prefix, Namespace: namespace}
	for _, secret := range secrets {
		guard.Policies = append(guard.Policies, Name(prefix, secret))
	}
	return guard
}

// gate is the name of the ClusterRole and the ClusterRoleBinding that activate the webhook.
func (g Guard) gate() string { return g.Prefix + "-answers" }

// account is the name of the webhook's ServiceAccount.
func (g Guard) account() string { return g.Prefix + "-webhook" }

// Names returns the names of the protected objects by resource. The policies in the API never see writes of policies
// and bindings (k8s.io/apiserver pkg/admission/plugin/policy/generic/plugin.go), so these are static only.
func (g Guard) Names(static bool) map[string][]string {
	names := map[string][]string{
		"validatingwebhookconfigurations": {g.Prefix},
		"clusterroles":                    {g.gate()},
		"clusterrolebindings":             {g.gate()},
	}
	if static {
		own := append([]string{g.Prefix + selfProtection}, g.Policies...)
		names["validatingadmissionpolicies"], names["validatingadmissionpolicybindings"] = own, own
	}
	return names
}

// The rule: nobody may delete one of the objects, and an update may change nothing, with two exceptions that the guard
// needs to work. All expressions are null-safe.
const (
	// unchanged compares all fields but metadata and status. The status is that of the API server's own controller. Of
	// the metadata, the fields that users can set are compared: labels say which release an object belongs to,
	// annotations make a controller inject the CA bundle, and an owner that does not exist makes the garbage collector
	// delete the object. The rest is the API server's: managedFields, resourceVersion and generation change with each
	// write.
	//
	// CEL iterates over all fields, so a field of a later version of Kubernetes is compared as well.
	unchanged = `["labels", "annotations", "ownerReferences", "finalizers"].all(f,
  object.metadata[?f] == oldObject.metadata[?f])
&& object.all(f, f in ["metadata", "status"] || f in variables.excepted || object[?f] == oldObject[?f])
&& oldObject.all(f, f in ["metadata", "status"] || f in variables.excepted || object[?f] == oldObject[?f])`

	// excepted are fields that have a rule of their own.
	excepted = `object.?webhooks.hasValue() ? ["webhooks"] : variables.activates ? ["subjects"] : []`

	// onlyBundles: of the webhooks, nothing changes but the CA bundle. CA injectors and the webhook with a self-managed
	// certificate renew it. The order of validating webhooks has no effect.
	onlyBundles = `!object.?webhooks.hasValue()
|| object.webhooks.size() == oldObject.?webhooks.orValue([]).size()
  && object.webhooks.all(w, oldObject.webhooks.exists(o, o.name == w.name
    && w.all(f, f == "clientConfig" || w[?f] == o[?f]) && o.all(f, f == "clientConfig" || w[?f] == o[?f])
    && w.clientConfig.all(f, f == "caBundle" || w.clientConfig[?f] == o.clientConfig[?f])
    && o.clientConfig.all(f, f == "caBundle" || w.clientConfig[?f] == o.clientConfig[?f])))`

	// mayChange is also true of an update that changes nothing: a tool may apply what is there.
	mayChange = `request.operation == "DELETE" || variables.unchanged && variables.onlyBundles`

	mayNotDelete = `request.operation != "DELETE"`
)

// activates: the webhook's ServiceAccount adds itself to the gate's subjects. A user who impersonates it
// cannot remove it.
func (g Guard) activates() string {
	return fmt.Sprintf(`request.operation == "UPDATE" && variables.resource == "clusterrolebindings"
&& request.userInfo.?username.orValue("") == "system:serviceaccount:%s:%s"
&& object.?subjects.orValue([]).exists(s, s.kind == %q && s.?namespace.orValue("") == %q && s.name == %q)`,
		g.Namespace, g.account(), rbacv1.ServiceAccountKind, g.Namespace, g.account())
}

// SelfProtection builds the policy that refuses to delete or change the guard's own objects, and its binding. As a
// static policy it protects all of them, in the API all but the policies and bindings. The caller adds [StaticSuffix].
//
// The objects are matched by name. By label, a user could remove the label first.
func SelfProtection(guard Guard, labels map[string]string, static bool) (
	*registrationv1.ValidatingAdmissionPolicy, *registrationv1.ValidatingAdmissionPolicyBinding,
) {
	forbidden := metav1.StatusReasonForbidden
	registrations := []string{"validatingwebhookconfigurations"}
	remedy := fmt.Sprintf("to change the guard on purpose, delete ValidatingAdmissionPolicyBinding %s first",
		guard.Prefix+selfProtection)
	if static {
		registrations = append(registrations, "validatingadmissionpolicies", "validatingadmissionpolicybindings")
		remedy = "to change the guard on purpose, first move kubelet-https-guard.yaml out of the directory of static " +
			"policies on each control-plane node"
	}
	changes := []registrationv1.OperationType{registrationv1.Update, registrationv1.Delete}
	refuse := func(operation, object, problem string) string {
		return admit.Refusal(admit.Refusing, operation, object, problem, guardControl(), Marker) + remedy
	}
	const (
		deleted = "without it, the guard refuses less"
		changed = "it is protected from all changes but those of a webhook's CA bundle"
		kind    = `" + request.kind.kind + "`
		object  = kind + ` " + variables.name + "`
	)
	return policyAndBinding(guard.Prefix+selfProtection, labels, registrationv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: new(registrationv1.Fail),
		MatchConstraints: &registrationv1.MatchResources{
			MatchPolicy: new(registrationv1.Equivalent),
			ResourceRules: []registrationv1.NamedRuleWithOperations{
				rule(registrationv1.ClusterScope, registrationv1.GroupName, registrations, changes...),
				rule(registrationv1.ClusterScope, rbacv1.GroupName, []string{"clusterroles", "clusterrolebindings"}, changes...),
			},
		},
		MatchConditions: guard.conditions(static),
		Variables: []registrationv1.Variable{
			{Name: "name", Expression: `oldObject.metadata.?name.orValue("")`},
			{Name: "resource", Expression: `request.resource.resource`},
			{Name: "activates", Expression: guard.activates()},
			{Name: "excepted", Expression: excepted},
			{Name: "unchanged", Expression: unchanged},
			{Name: "onlyBundles", Expression: onlyBundles},
		},
		Validations: []registrationv1.Validation{
			{
				Expression: mayChange, Reason: &forbidden,
				Message:           refuse(string(registrationv1.Update), "an object of the guard", changed),
				MessageExpression: `"` + refuse(string(registrationv1.Update), object, changed) + `"`,
			},
			{
				Expression: mayNotDelete, Reason: &forbidden,
				Message:           refuse(string(registrationv1.Delete), "an object of the guard", deleted),
				MessageExpression: `"` + refuse(string(registrationv1.Delete), object, deleted) + `"`,
			},
		},
	})
}

// conditions returns the match conditions of the policy.
func (g Guard) conditions(static bool) []registrationv1.MatchCondition {
	names, _ := json.Marshal(g.Names(static)) // cannot fail for strings
	all := []registrationv1.MatchCondition{{
		// Not request.name: it is empty in the delete of a collection.
		Name:       "guard-object",
		Expression: `oldObject.metadata.?name.orValue("") in ` + string(names) + `[?request.resource.resource].orValue([])`,
	}}
	if !static && len(g.AllowedUsers) > 0 {
		users, _ := json.Marshal(g.AllowedUsers)
		all = append(all, registrationv1.MatchCondition{
			Name: "not-an-allowed-user", Expression: `!(request.userInfo.?username.orValue("") in ` + string(users) + `)`,
		})
	}
	return all
}

// guardControl names the control that requires the guard's objects.
func guardControl() string { return admit.ControlOf(finding.Guard.Requires(finding.Installed)) }

// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The ServiceAccounts of both programs.
const webhookAccount, agentAccount = release + "-webhook", release + "-nodeagent"

// absent are rights that whoever has taken a program over would like to have.
// Each is `VERB RESOURCE[/SUBRESOURCE][.GROUP] [NAMESPACE]/[NAME]`.
var absent = map[string][]string{
	webhookAccount: {
		// Secrets: it reads those it protects, and its own.
		"get secrets {protected namespace}/other", "list secrets {protected namespace}/", "watch secrets {protected namespace}/", "list secrets /",
		"create secrets {protected namespace}/", "update secrets {protected}", "patch secrets {protected}", "delete secrets {protected}",
		"get secrets kube-system/any", "list secrets " + release + "/", "get secrets " + release + "/other", "delete secrets " + release + "/" + release + "-webhook-self-managed",
		// Itself: it turns itself on, and that is all.
		"create validatingwebhookconfigurations.admissionregistration.k8s.io /", "delete validatingwebhookconfigurations.admissionregistration.k8s.io /" + release,
		"update validatingwebhookconfigurations.admissionregistration.k8s.io /other", "create mutatingwebhookconfigurations.admissionregistration.k8s.io /",
		"update validatingadmissionpolicies.admissionregistration.k8s.io /{policy}", "delete validatingadmissionpolicybindings.admissionregistration.k8s.io /{policy}",
		"update deployments.apps " + release + "/" + webhookAccount, "update configmaps " + release + "/" + webhookAccount,
		// Ways to more.
		"create clusterrolebindings.rbac.authorization.k8s.io /", "update clusterrolebindings.rbac.authorization.k8s.io /cluster-admin",
		"bind clusterroles.rbac.authorization.k8s.io /cluster-admin", "escalate clusterroles.rbac.authorization.k8s.io /" + release + "-answers",
		"update clusterroles.rbac.authorization.k8s.io /" + release + "-answers", "create rolebindings.rbac.authorization.k8s.io " + release + "/",
		"impersonate users /system:admin", "impersonate groups /system:masters", "create serviceaccounts/token " + release + "/" + webhookAccount,
		"create pods " + release + "/", "create pods/exec " + release + "/", "create daemonsets.apps " + release + "/", "get pods/log " + release + "/",
		"approve signers.certificates.k8s.io /kubernetes.io/kube-apiserver-client", "create certificatesigningrequests.certificates.k8s.io /",
		"get nodes/proxy /", "update nodes /", "create tokenreviews.authentication.k8s.io /", "update kubeapiservers.operator.openshift.io /cluster",
	},
	agentAccount: {
		"get secrets {protected}", "list secrets /", "get secrets " + release + "/" + release + "-webhook-self-managed", "get configmaps kube-system/kubeadm-config",
		"list nodes /", "update nodes /{node}", "patch nodes/status /{node}", "get nodes/proxy /{node}", "get nodes/metrics /{node}", "delete nodes /{node}",
		"get events.events.k8s.io default/", "update events.events.k8s.io default/any", "delete events.events.k8s.io default/any", "create events.events.k8s.io kube-system/",
		"create pods default/", "create pods/exec " + release + "/", "create serviceaccounts/token " + release + "/" + agentAccount,
		"impersonate users /system:admin", "create clusterrolebindings.rbac.authorization.k8s.io /", "answer admissions.kubelet-https-guard.io /",
		"create tokenreviews.authentication.k8s.io /", "create subjectaccessreviews.authorization.k8s.io /",
	},
}

// rights: the API server grants what the chart's roles say, for no other names
// than theirs, and none of those above.
func rights(t *testing.T) {
	for _, account := range []string{webhookAccount, agentAccount} {
		t.Run(account, func(t *testing.T) {
			var wrong []string
			granted := grantedTo(t, account)
			for _, right := range granted {
				if !may(t, account, right) {
					wrong = append(wrong, "not granted: "+describe(right))
				}
				if right.Name == "" {
					continue
				}
				right.Name = "another"
				if may(t, account, right) && !slices.Contains(granted, right) && !slices.Contains(granted, nameless(right)) {
					wrong = append(wrong, "granted for any name: "+describe(right))
				}
			}
			if len(granted) == 0 {
				t.Error("no role is bound to it")
			}
			replacer := strings.NewReplacer("{protected}", shared.secret.namespace+"/"+shared.secret.name, "{protected namespace}", shared.secret.namespace,
				"{node}", shared.node, "{policy}", release+"."+shared.secret.namespace+"."+shared.secret.name)
			for _, text := range absent[account] {
				if right := parseRight(t, replacer.Replace(text)); may(t, account, right) {
					wrong = append(wrong, "granted: "+describe(right))
				}
			}
			if diff := cmp.Diff([]string(nil), wrong); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			t.Logf("%d rights granted, each looked up; %d others are not", len(granted), len(absent[account]))
		})
	}
}

func nameless(right authorizationv1.ResourceAttributes) authorizationv1.ResourceAttributes {
	right.Name = ""
	return right
}

// grantedTo are all rights of the release's roles that are bound to the account,
// one by one.
func grantedTo(t *testing.T, account string) []authorizationv1.ResourceAttributes {
	t.Helper()
	rbac, all := shared.client.RbacV1(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + release}
	rules := map[string][]rbacv1.PolicyRule{}
	clusterRoles, err := rbac.ClusterRoles().List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range clusterRoles.Items {
		rules[role.Name] = role.Rules
	}
	roles, err := rbac.Roles("").List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range roles.Items {
		rules[role.Namespace+"/"+role.Name] = role.Rules
	}
	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: release, Name: account}
	var granted []authorizationv1.ResourceAttributes
	clusterBindings, err := rbac.ClusterRoleBindings().List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for _, binding := range clusterBindings.Items {
		if slices.Contains(binding.Subjects, subject) {
			granted = append(granted, eachOf(rules[binding.RoleRef.Name], "")...)
		}
	}
	bindings, err := rbac.RoleBindings("").List(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for _, binding := range bindings.Items {
		if slices.Contains(binding.Subjects, subject) {
			granted = append(granted, eachOf(rules[binding.Namespace+"/"+binding.RoleRef.Name], binding.Namespace)...)
		}
	}
	return granted
}

func eachOf(rules []rbacv1.PolicyRule, namespace string) (all []authorizationv1.ResourceAttributes) {
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					for _, verb := range rule.Verbs {
						resource, subresource, _ := strings.Cut(resource, "/")
						all = append(all, authorizationv1.ResourceAttributes{
							Verb: verb, Group: group, Resource: resource, Subresource: subresource, Namespace: namespace, Name: name,
						})
					}
				}
			}
		}
	}
	return all
}

// may asks the API server.
func may(t *testing.T, account string, right authorizationv1.ResourceAttributes) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + release + ":" + account,
		Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + release, "system:authenticated"},
		ResourceAttributes: &right,
	}}
	answer, err := shared.client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status.EvaluationError != "" {
		t.Fatalf("%s: %s", describe(right), answer.Status.EvaluationError)
	}
	return answer.Status.Allowed
}

func describe(right authorizationv1.ResourceAttributes) string {
	resource := right.Resource
	if right.Subresource != "" {
		resource += "/" + right.Subresource
	}
	if right.Group != "" {
		resource += "." + right.Group
	}
	return fmt.Sprintf("%s %s %s/%s", right.Verb, resource, right.Namespace, right.Name)
}

// parseRight reads what describe writes.
func parseRight(t *testing.T, text string) (right authorizationv1.ResourceAttributes) {
	t.Helper()
	words := strings.Fields(text)
	if len(words) != 3 {
		t.Fatalf("%q is no right", text)
	}
	right.Verb = words[0]
	var ok bool
	right.Resource, right.Group, _ = strings.Cut(words[1], ".")
	right.Resource, right.Subresource, _ = strings.Cut(right.Resource, "/")
	if right.Namespace, right.Name, ok = strings.Cut(words[2], "/"); !ok {
		t.Fatalf("%q is no right", text)
	}
	return right
}

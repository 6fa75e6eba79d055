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

// The ServiceAccounts.
const webhookAccount, auditAccount, agentAccount = release + "-webhook", release + "-audit", release + "-nodeagent"

// absent are permissions that an attacker who controls a program would like to have. Each is `VERB
// RESOURCE[/SUBRESOURCE][.GROUP] [NAMESPACE]/[NAME]`.
var absent = map[string][]string{
	webhookAccount: {
		// Secrets: it reads its own, and none of those it protects.
		"get secrets {protected}", "list secrets {protected}", "watch secrets {protected}", "get secrets {protected " +
			"namespace}/other", "list secrets {protected namespace}/", "watch secrets {protected namespace}/", "list secrets /",
		"create secrets {protected namespace}/", "update secrets {protected}", "patch secrets {protected}",
		"delete secrets {protected}",
		"get secrets kube-system/any", "list secrets " + release + "/", "get secrets " + release + "/other",
		"delete secrets " + release + "/" + release + "-webhook-self-managed",
		"get secrets " + release + "/" + decoy, "patch secrets " + release + "/" + decoy,
		// The guard: it activates itself, and changes nothing else.
		"create validatingwebhookconfigurations.admissionregistration.k8s.io /",
		"delete validatingwebhookconfigurations.admissionregistration.k8s.io /" + release,
		"update validatingwebhookconfigurations.admissionregistration.k8s.io /other",
		"create mutatingwebhookconfigurations.admissionregistration.k8s.io /",
		"update validatingadmissionpolicies.admissionregistration.k8s.io /{policy}",
		"delete validatingadmissionpolicybindings.admissionregistration.k8s.io /{policy}",
		"update deployments.apps " + release + "/" + webhookAccount, "update configmaps " + release + "/" + release +
			"-config",
		// Escalation.
		"create clusterrolebindings.rbac.authorization.k8s.io /", "update clusterrolebindings.rbac.authorization.k8s.io " +
			"/cluster-admin",
		"bind clusterroles.rbac.authorization.k8s.io /cluster-admin", "escalate clusterroles.rbac.authorization.k8s.io /" +
			release + "-answers",
		"update clusterroles.rbac.authorization.k8s.io /" + release + "-answers",
		"create rolebindings.rbac.authorization.k8s.io " + release + "/",
		"impersonate users /system:admin", "impersonate groups /system:masters", "create serviceaccounts/token " +
			release + "/" + webhookAccount,
		"create pods " + release + "/", "create pods/exec " + release + "/", "create daemonsets.apps " + release + "/",
		"get pods/log " + release + "/",
		"approve signers.certificates.k8s.io /kubernetes.io/kube-apiserver-client",
		"create certificatesigningrequests.certificates.k8s.io /",
		"get nodes/proxy /", "update nodes /", "create tokenreviews.authentication.k8s.io /",
		"update kubeapiservers.operator.openshift.io /cluster",
	},
	auditAccount: {
		// Secrets: it reads the protected ones.
		"get secrets {protected namespace}/other", "list secrets {protected namespace}/", "watch secrets {protected " +
			"namespace}/", "list secrets /",
		"create secrets {protected namespace}/", "update secrets {protected}", "patch secrets {protected}",
		"delete secrets {protected}",
		"get secrets kube-system/any", "list secrets " + release + "/", "get secrets " + release + "/" + release +
			"-webhook-self-managed",
		// The decoy: it can try a patch, and nothing else.
		"get secrets " + release + "/" + decoy, "update secrets " + release + "/" + decoy, "delete secrets " + release +
			"/" + decoy, "create secrets " + release + "/", "patch secrets " + release + "/other",
		// The guard: it compares it, and changes nothing of it.
		"update validatingwebhookconfigurations.admissionregistration.k8s.io /" + release,
		"delete validatingwebhookconfigurations.admissionregistration.k8s.io /" + release,
		"update validatingadmissionpolicies.admissionregistration.k8s.io /{policy}",
		"delete validatingadmissionpolicybindings.admissionregistration.k8s.io /{policy}",
		"update clusterrolebindings.rbac.authorization.k8s.io /" + release + "-answers",
		"bind clusterroles.rbac.authorization.k8s.io /" + release + "-answers",
		"answer admissions.kubelet-https-guard.io /", "update deployments.apps " + release + "/" + auditAccount,
		"update configmaps " + release + "/" + release + "-config",
		// EndpointSlices: it lists those of the protected Secrets' namespaces, and changes none.
		"list endpointslices.discovery.k8s.io kube-system/", "list endpointslices.discovery.k8s.io /",
		"list endpointslices.discovery.k8s.io default/", "watch endpointslices.discovery.k8s.io {protected namespace}/",
		"create endpointslices.discovery.k8s.io {protected namespace}/",
		"update endpointslices.discovery.k8s.io {protected namespace}/any",
		// Escalation.
		"create clusterrolebindings.rbac.authorization.k8s.io /", "create rolebindings.rbac.authorization.k8s.io " +
			release + "/",
		"impersonate users /system:admin", "create serviceaccounts/token " + release + "/" + auditAccount, "create pods " +
			release + "/",
		"create pods/exec " + release + "/", "get nodes/proxy /", "update kubeapiservers.operator.openshift.io /cluster",
		"delete leases.coordination.k8s.io " + release + "/" + auditAccount,
	},
	agentAccount: {
		"get secrets {protected}", "list secrets /", "get secrets " + release + "/" + release + "-webhook-self-managed",
		"patch secrets " + release + "/" + decoy, "get configmaps kube-system/kubeadm-config",
		"list nodes /", "update nodes /{node}", "patch nodes/status /{node}", "get nodes/proxy /{node}",
		"create nodes/proxy /{node}", "get pods/exec " + release + "/", "create pods/attach " + release + "/",
		"create pods/portforward " + release + "/", "get pods/proxy " + release + "/", "get pods " + release + "/",
		"get pods/log default/", "get pods/log kube-system/",
		"list endpointslices.discovery.k8s.io default/",
		"get nodes/metrics /{node}", "delete nodes /{node}",
		"get events.events.k8s.io default/", "update events.events.k8s.io default/any", "delete events.events.k8s.io " +
			"default/any", "create events.events.k8s.io kube-system/",
		"create pods default/", "create pods/exec " + release + "/", "create serviceaccounts/token " + release + "/" +
			agentAccount,
		"impersonate users /system:admin", "create clusterrolebindings.rbac.authorization.k8s.io /",
		"answer admissions.kubelet-https-guard.io /",
		"create tokenreviews.authentication.k8s.io /", "create subjectaccessreviews.authorization.k8s.io /",
	},
}

// permissions: the API server grants the permissions of the chart's roles, only for the names in them, and
// none of those above.
func permissions(t *testing.T) {
	for _, account := range []string{webhookAccount, auditAccount, agentAccount} {
		t.Run(account, func(t *testing.T) {
			var wrong []string
			granted := grantedTo(t, account)
			for _, permission := range granted {
				if !isGranted(t, account, permission) {
					wrong = append(wrong, "not granted: "+describe(permission))
				}
				if permission.Name == "" {
					continue
				}
				permission.Name = "another"
				if isGranted(t, account, permission) && !slices.Contains(granted, permission) &&
					!slices.Contains(granted, nameless(permission)) {
					wrong = append(wrong, "granted for any name: "+describe(permission))
				}
			}
			if len(granted) == 0 {
				t.Error("no role is bound to the account")
			}
			replacer := strings.NewReplacer("{protected}", shared.secret.namespace+"/"+shared.secret.name,
				"{protected namespace}", shared.secret.namespace, "{node}", shared.node, "{policy}",
				release+"."+shared.secret.namespace+"."+shared.secret.name)
			for _, text := range absent[account] {
				permission := parsePermission(t, replacer.Replace(text))
				if strings.HasSuffix(permission.Resource, "reviews") && slices.Contains(granted, permission) {
					continue // on OpenShift, where metrics are served over HTTPS
				}
				if isGranted(t, account, permission) {
					wrong = append(wrong, "granted: "+describe(permission))
				}
			}
			if diff := cmp.Diff([]string(nil), wrong); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			t.Logf("%d permissions granted, each checked; %d others not granted", len(granted), len(absent[account]))
		})
	}
}

func nameless(permission authorizationv1.ResourceAttributes) authorizationv1.ResourceAttributes {
	permission.Name = ""
	return permission
}

// grantedTo are all permissions of the release's roles that are bound to the account, one by one.
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

// isGranted asks the API server for one permission.
func isGranted(t *testing.T, account string, permission authorizationv1.ResourceAttributes) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + release + ":" + account,
		Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + release, "system:authenticated"},
		ResourceAttributes: &permission,
	}}
	answer, err := shared.client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review,
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status.EvaluationError != "" {
		t.Fatalf("%s: %s", describe(permission), answer.Status.EvaluationError)
	}
	return answer.Status.Allowed
}

func describe(permission authorizationv1.ResourceAttributes) string {
	resource := permission.Resource
	if permission.Subresource != "" {
		resource += "/" + permission.Subresource
	}
	if permission.Group != "" {
		resource += "." + permission.Group
	}
	return fmt.Sprintf("%s %s %s/%s", permission.Verb, resource, permission.Namespace, permission.Name)
}

// parsePermission parses the output of describe.
func parsePermission(t *testing.T, text string) (permission authorizationv1.ResourceAttributes) {
	t.Helper()
	words := strings.Fields(text)
	if len(words) != 3 {
		t.Fatalf("invalid permission %q", text)
	}
	permission.Verb = words[0]
	var ok bool
	permission.Resource, permission.Group, _ = strings.Cut(words[1], ".")
	permission.Resource, permission.Subresource, _ = strings.Cut(permission.Resource, "/")
	if permission.Namespace, permission.Name, ok = strings.Cut(words[2], "/"); !ok {
		t.Fatalf("invalid permission %q", text)
	}
	return permission
}

// SPDX-License-Identifier: Apache-2.0

package whocan_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/whocan"
)

func rule(verb, group, resource string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names,
	}
}

// TestRules: a rule gives a permission exactly as the API server's authorizer says; test/e2e asks a real one.
func TestRules(t *testing.T) {
	token := whocan.Permission{Verb: "create", Resource: "serviceaccounts/token", Namespace: "a", Name: "renewer"}
	read := whocan.Permission{Verb: "get", Resource: "secrets", Namespace: "a", Name: "key"}
	list := whocan.Permission{Verb: "list", Resource: "secrets", Namespace: "a"}
	hook := whocan.Permission{
		Verb: "patch", Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations", Name: "guard",
	}
	tests := map[string]struct {
		rule rbacv1.PolicyRule
		asks whocan.Permission
		want bool
	}{
		"the same":                            {rule("get", "", "secrets"), read, true},
		"another verb":                        {rule("list", "", "secrets"), read, false},
		"every verb":                          {rule("*", "", "secrets"), read, true},
		"every resource":                      {rule("get", "", "*"), read, true},
		"another resource":                    {rule("get", "", "configmaps"), read, false},
		"every group":                         {rule("patch", "*", hook.Resource), hook, true},
		"another group":                       {rule("patch", "", hook.Resource), hook, false},
		"everything":                          {rule("*", "*", "*"), hook, true},
		"its name":                            {rule("get", "", "secrets", "other", "key"), read, true},
		"another name":                        {rule("get", "", "secrets", "other"), read, false},
		"a star is no name":                   {rule("get", "", "secrets", "*"), read, false},
		"a rule with names, all asked":        {rule("list", "", "secrets", "key"), list, false},
		"a rule with an empty name":           {rule("list", "", "secrets", ""), list, false},
		"a subresource":                       {rule("create", "", "serviceaccounts/token"), token, true},
		"a subresource of all":                {rule("create", "", "*/token"), token, true},
		"another subresource of all":          {rule("create", "", "*/status"), token, false},
		"the resource is not its subresource": {rule("create", "", "serviceaccounts"), token, false},
		"the subresource is not its resource": {rule("get", "", "secrets/status"), read, false},
		"all resources are also subresources": {rule("create", "", "*"), token, true},
		"all subresources of one are no rule": {rule("create", "", "serviceaccounts/*"), token, false},
		"paths are no resources": {
			rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}, read, false,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			objects := whocan.RBAC{
				ClusterRoles:        []rbacv1.ClusterRole{{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{test.rule}}},
				ClusterRoleBindings: []rbacv1.ClusterRoleBinding{clusterBinding("b", "r", user("eve"))},
			}
			if got := has(objects, test.asks, "User eve"); got != test.want {
				t.Errorf("%s: got %v, want %v", test.asks, got, test.want)
			}
		})
	}
}

func user(name string) rbacv1.Subject  { return rbacv1.Subject{Kind: rbacv1.UserKind, Name: name} }
func group(name string) rbacv1.Subject { return rbacv1.Subject{Kind: rbacv1.GroupKind, Name: name} }
func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

func clusterBinding(name, role string, subjects ...rbacv1.Subject) rbacv1.ClusterRoleBinding {
	return rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role}, Subjects: subjects,
	}
}

func binding(namespace, name, kind, role string, subjects ...rbacv1.Subject) rbacv1.RoleBinding {
	return rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, RoleRef: rbacv1.RoleRef{Kind: kind, Name: role},
		Subjects: subjects,
	}
}

// lines returns a line for each entry.
func lines(entries []whocan.Entry) []string {
	var all []string
	for _, e := range entries {
		line := e.Subject.Kind + " " + strings.TrimPrefix(e.Subject.Namespace+"/"+e.Subject.Name, "/")
		if e.Everyone {
			line += " everyone"
		}
		if e.Platform {
			line += " platform"
		}
		for _, g := range e.Grants {
			line += "; " + g.Binding + " to " + g.Role
		}
		all = append(all, line)
	}
	return all
}

func has(objects whocan.RBAC, p whocan.Permission, subject string) bool {
	entries, _ := objects.Who([]whocan.Permission{p})
	for _, line := range lines(entries) {
		if strings.HasPrefix(line, subject+";") {
			return true
		}
	}
	return false
}

// TestWho: bindings of each kind, in and out of the namespace, to roles that exist or not.
func TestWho(t *testing.T) {
	objects := whocan.RBAC{
		ClusterRoles: []rbacv1.ClusterRole{
			{ObjectMeta: metav1.ObjectMeta{Name: "admin"}, Rules: []rbacv1.PolicyRule{rule("*", "*", "*")}},
			// What kube-controller-manager has stored counts, not the selector.
			{ObjectMeta: metav1.ObjectMeta{Name: "aggregated"}, AggregationRule: &rbacv1.AggregationRule{},
				Rules: []rbacv1.PolicyRule{rule("get", "", "secrets")}},
		},
		Roles: []rbacv1.Role{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "reader"}, Rules: []rbacv1.PolicyRule{rule("get", "", "secrets")}},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "b", Name: "admin"}, Rules: []rbacv1.PolicyRule{rule("*", "*", "*")}},
		},
		ClusterRoleBindings: []rbacv1.ClusterRoleBinding{
			clusterBinding("admins", "admin", user("zoe"), group("system:authenticated"), user("system:admin"),
				account("openshift-service-ca", "service-ca"), user("system:serviceaccount:ci:robot")),
			clusterBinding("admins-2", "admin", user("zoe"), user("zoe")),
			clusterBinding("dangling", "missing", user("nobody")),
			clusterBinding("a-role-is-no-cluster-role", "reader", user("nobody")),
			clusterBinding("aggregated", "aggregated", group("readers")),
		},
		RoleBindings: []rbacv1.RoleBinding{
			binding("a", "readers", "Role", "reader", account("", "local"), account("ci", "robot"), user("adam")),
			binding("a", "limited", "ClusterRole", "admin", user("bea"), group("system:serviceaccounts:openshift-x")),
			binding("a", "dangling", "Role", "admin", user("nobody")),
			binding("b", "elsewhere", "ClusterRole", "admin", user("other")),
			binding("b", "elsewhere-2", "Role", "admin", user("other")),
		},
	}
	masters := "Group system:masters platform; the API server to everything"
	admins := []string{
		"Group system:authenticated everyone; ClusterRoleBinding admins to ClusterRole admin", masters,
		"ServiceAccount ci/robot; ClusterRoleBinding admins to ClusterRole admin",
		"User zoe; ClusterRoleBinding admins to ClusterRole admin; ClusterRoleBinding admins-2 to ClusterRole admin",
		"ServiceAccount openshift-service-ca/service-ca platform; ClusterRoleBinding admins to ClusterRole admin",
		"User system:admin platform; ClusterRoleBinding admins to ClusterRole admin",
	}
	tests := map[string]struct {
		anyOf []whocan.Permission
		want  []string
	}{
		"nothing": {nil, []string{masters}},
		"in no namespace, a RoleBinding gives nothing": {[]whocan.Permission{{Verb: "delete", Resource: "nodes"}}, admins},
		"in all namespaces, neither":                   {[]whocan.Permission{{Verb: "delete", Resource: "secrets"}}, admins},
		"in a namespace": {[]whocan.Permission{{Verb: "get", Resource: "secrets", Namespace: "a", Name: "key"}}, []string{
			admins[0], masters,
			"Group readers; ClusterRoleBinding aggregated to ClusterRole aggregated",
			"ServiceAccount a/local; RoleBinding a/readers to Role a/reader",
			admins[2] + "; RoleBinding a/readers to Role a/reader",
			"User adam; RoleBinding a/readers to Role a/reader",
			"User bea; RoleBinding a/limited to ClusterRole admin",
			admins[3],
			"Group system:serviceaccounts:openshift-x platform; RoleBinding a/limited to ClusterRole admin",
			admins[4], admins[5],
		}},
		"one of two, in any namespace": {
			[]whocan.Permission{
				{Verb: "x", Resource: "y"}, {Verb: "patch", Resource: "namespaces", Namespace: whocan.AnyNamespace},
			},
			[]string{
				admins[0], masters, admins[2],
				"User bea; RoleBinding a/limited to ClusterRole admin",
				"User other; RoleBinding b/elsewhere to ClusterRole admin; RoleBinding b/elsewhere-2 to Role b/admin",
				admins[3],
				"Group system:serviceaccounts:openshift-x platform; RoleBinding a/limited to ClusterRole admin",
				admins[4], admins[5],
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entries, omitted := objects.Who(test.anyOf)
			if diff := cmp.Diff(test.want, lines(entries)); diff != "" || omitted != 0 {
				t.Errorf("%d omitted (-want +got):\n%s", omitted, diff)
			}
		})
	}
}

// TestWhoIsBounded: subjects beyond the bound are counted, those of the platform first.
func TestWhoIsBounded(t *testing.T) {
	objects := whocan.RBAC{ClusterRoles: []rbacv1.ClusterRole{
		{ObjectMeta: metav1.ObjectMeta{Name: "admin"}, Rules: []rbacv1.PolicyRule{rule("*", "*", "*")}},
	}}
	for i := range 600 {
		objects.ClusterRoleBindings = append(objects.ClusterRoleBindings,
			clusterBinding(fmt.Sprint("users-", i), "admin", user(fmt.Sprint("system:", i)), group("system:authenticated")))
	}
	objects.ClusterRoleBindings = append(objects.ClusterRoleBindings, clusterBinding("last", "admin", user("zoe")))
	entries, omitted := objects.Who([]whocan.Permission{{Verb: "get", Resource: "nodes"}})
	if len(entries) != 500 || omitted != 103 {
		t.Errorf("%d entries, %d omitted", len(entries), omitted)
	}
	if first := entries[0]; first.Subject.Name != "system:authenticated" || len(first.Grants) != 5 {
		t.Errorf("the first entry is %v", first)
	}
	if entries[2].Subject.Name != "zoe" {
		t.Errorf("the third entry is %v", entries[2])
	}
}

// TestRead: all objects or an error.
func TestRead(t *testing.T) {
	errBoom := errors.New("boom")
	for _, resource := range []string{"clusterroles", "roles", "clusterrolebindings", "rolebindings"} {
		client := fake.NewClientset()
		client.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errBoom
		})
		if _, err := whocan.Read(t.Context(), client.RbacV1()); !errors.Is(err, errBoom) {
			t.Errorf("%s cannot be read: %v", resource, err)
		}
	}
	client := fake.NewClientset()
	pages := 0
	client.PrependReactor("list", "rolebindings", func(clienttesting.Action) (bool, runtime.Object, error) {
		pages++
		return true, &rbacv1.RoleBindingList{
			ListMeta: metav1.ListMeta{Continue: "more"}, Items: make([]rbacv1.RoleBinding, 500),
		}, nil
	})
	if _, err := whocan.Read(t.Context(), client.RbacV1()); !errors.Is(err, whocan.ErrTooMany) || pages != 101 {
		t.Errorf("too many objects: %v after %d pages", err, pages)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// whoSubject is a subject in whoCanDisable.
type whoSubject struct{ Kind, Namespace, Name string }

// whoDocument is what the test reads of the JSON.
type whoDocument struct {
	Verdict       string
	WhoCanDisable *struct {
		Unknown string
		Actions []struct {
			Description string
			Permissions []string
			Subjects    []whoSubject
		}
	}
}

// TestWhoCanDisable: for each action, the API server allows one of the permissions to each subject that the audit
// lists, and none of them to any other subject of the cluster's bindings.
func TestWhoCanDisable(t *testing.T) {
	const ns = "openshift-apiserver"
	api := as(t, "").RbacV1()
	everyone := map[whoSubject]bool{{Kind: "User", Name: "who-nobody"}: true, {Kind: "User", Name: "who-dangling"}: true}
	subject := func(kind, namespace, name string) rbacv1.Subject {
		s := rbacv1.Subject{Kind: kind, Namespace: namespace, Name: name}
		if kind != rbacv1.ServiceAccountKind {
			s.APIGroup = rbacv1.GroupName
		}
		return s
	}
	bind := func(name, kind, role string, inNamespace bool, subjects ...rbacv1.Subject) {
		t.Helper()
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}
		object := metav1.ObjectMeta{Name: "who-" + name}
		var err error
		if inNamespace {
			b := &rbacv1.RoleBinding{ObjectMeta: object, RoleRef: ref, Subjects: subjects}
			_, err = api.RoleBindings(ns).Create(t.Context(), b, metav1.CreateOptions{})
			t.Cleanup(func() {
				_ = api.RoleBindings(ns).Delete(context.WithoutCancel(t.Context()), object.Name, metav1.DeleteOptions{})
			})
		} else {
			b := &rbacv1.ClusterRoleBinding{ObjectMeta: object, RoleRef: ref, Subjects: subjects}
			_, err = api.ClusterRoleBindings().Create(t.Context(), b, metav1.CreateOptions{})
			t.Cleanup(func() {
				_ = api.ClusterRoleBindings().Delete(context.WithoutCancel(t.Context()), object.Name, metav1.DeleteOptions{})
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rules := map[string]rbacv1.PolicyRule{
		"everything":    {Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
		"paths":         {Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
		"tokens":        {Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"*/token"}},
		"no-tokens":     {Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts/*"}},
		"accounts":      {Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts"}},
		"constrained":   {Verbs: []string{"impersonate:serviceaccount"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
		"registration":  {Verbs: []string{"patch"}, APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"*"}},
		"other-group":   {Verbs: []string{"*"}, APIGroups: []string{"other.example"}, Resources: []string{"*"}},
		"named":         {Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"serving-cert"}},
		"named-other":   {Verbs: []string{"*"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"other", "*"}},
		"unsafe":        {Verbs: []string{"unsafe-delete-ignore-read-errors"}, APIGroups: []string{""}, Resources: []string{"secrets"}},
		"delete-only":   {Verbs: []string{"delete"}, APIGroups: []string{""}, Resources: []string{"secrets"}},
		"escalate":      {Verbs: []string{"escalate"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}},
		"bind-a-little": {Verbs: []string{"bind"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, ResourceNames: []string{"view"}},
		"pods":          {Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"pods"}},
	}
	for name, rule := range rules {
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "who-" + name}, Rules: []rbacv1.PolicyRule{rule}}
		if _, err := api.ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = api.ClusterRoles().Delete(context.WithoutCancel(t.Context()), role.Name, metav1.DeleteOptions{})
		})
		bind(name, "ClusterRole", role.Name, false, subject("User", "", "who-cluster-"+name),
			subject("Group", "", "who-group-"+name), subject("ServiceAccount", "who", name),
			subject("User", "", "system:serviceaccount:who-user:"+name))
		if len(rule.NonResourceURLs) == 0 {
			bind(name, "ClusterRole", role.Name, true, subject("User", "", "who-local-"+name))
		}
	}
	bind("dangling", "ClusterRole", "who-missing", false, subject("User", "", "who-dangling"))
	bind("dangling", "Role", "who-everything", true, subject("User", "", "who-dangling"))

	run := shared.rig.AuditOnce(t.Context(), "--kubeconfig", shared.rig.Kubeconfig, "-o", "json", "--who-can-disable",
		"--config", shared.rig.Path("webhook", "config.yaml"), "--guard-manifest", shared.rig.Path("webhook", "guard.yaml"))
	var document whoDocument
	if err := json.Unmarshal([]byte(run.Output), &document); err != nil {
		t.Fatalf("%v\n%s", err, run.Output)
	}
	if document.WhoCanDisable == nil || document.WhoCanDisable.Unknown != "" {
		t.Fatalf("the document does not say who: %s", run.Output)
	}
	collectSubjects(t, everyone)

	listedInAny := map[whoSubject]bool{}
	for _, action := range document.WhoCanDisable.Actions {
		listed := map[whoSubject]bool{}
		for _, s := range action.Subjects {
			listed[s], listedInAny[s], everyone[s] = true, true, true
		}
		for s := range everyone {
			if allowed := anyAllowed(t, s, action.Permissions); allowed != listed[s] {
				t.Errorf("%s: %v is listed: %v, and the API server allows it: %v", action.Description, s, listed[s], allowed)
			}
		}
	}
	for name, want := range map[whoSubject]bool{
		{"User", "", "who-cluster-everything"}: true, {"User", "", "who-local-named"}: true,
		{"User", "", "who-local-unsafe"}: true, {"ServiceAccount", "who-user", "tokens"}: true,
		{"Group", "", "who-group-constrained"}: true, {"Group", "", "system:masters"}: true,
		{"User", "", "who-cluster-paths"}: false, {"User", "", "who-cluster-no-tokens"}: false,
		{"User", "", "who-cluster-delete-only"}: false, {"User", "", "who-cluster-named-other"}: false,
		{"User", "", "who-cluster-bind-a-little"}: false, {"User", "", "who-dangling"}: false,
	} {
		if listedInAny[name] != want {
			t.Errorf("%v is listed: %v", name, !want)
		}
	}
}

// collectSubjects adds all subjects of the cluster's bindings, those of the platform included.
func collectSubjects(t *testing.T, all map[whoSubject]bool) {
	t.Helper()
	add := func(subjects []rbacv1.Subject, namespace string) {
		for _, s := range subjects {
			one := whoSubject{Kind: s.Kind, Name: s.Name}
			if s.Kind == rbacv1.ServiceAccountKind {
				if one.Namespace = s.Namespace; one.Namespace == "" {
					one.Namespace = namespace
				}
			}
			if parts := strings.Split(s.Name, ":"); s.Kind == rbacv1.UserKind && len(parts) == 4 &&
				strings.HasPrefix(s.Name, "system:serviceaccount:") {
				one = whoSubject{Kind: rbacv1.ServiceAccountKind, Namespace: parts[2], Name: parts[3]}
			}
			all[one] = true
		}
	}
	clusterBindings, err := as(t, "").RbacV1().ClusterRoleBindings().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range clusterBindings.Items {
		add(b.Subjects, "")
	}
	bindings, err := as(t, "").RbacV1().RoleBindings("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bindings.Items {
		add(b.Subjects, b.Namespace)
	}
}

// anyAllowed asks the API server whether it allows one of the permissions to a subject alone, without its other groups.
func anyAllowed(t *testing.T, s whoSubject, permissions []string) bool {
	t.Helper()
	spec := authorizationv1.SubjectAccessReviewSpec{User: s.Name}
	switch s.Kind {
	case rbacv1.GroupKind:
		spec.User, spec.Groups = "who-member", []string{s.Name}
	case rbacv1.ServiceAccountKind:
		spec.User = "system:serviceaccount:" + s.Namespace + ":" + s.Name
	}
	for _, permission := range permissions {
		words := strings.Fields(permission)
		attributes := &authorizationv1.ResourceAttributes{Verb: words[0]}
		resource, sub, _ := strings.Cut(words[1], "/")
		attributes.Resource, attributes.Group, _ = strings.Cut(resource, ".")
		attributes.Subresource = sub
		if len(words) == 3 {
			var found bool
			if attributes.Namespace, attributes.Name, found = strings.Cut(words[2], "/"); !found {
				attributes.Namespace, attributes.Name = "", words[2]
			}
			attributes.Name = strings.TrimPrefix(attributes.Name, "*")
		}
		spec.ResourceAttributes = attributes
		review, err := as(t, "").AuthorizationV1().SubjectAccessReviews().Create(t.Context(),
			&authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if review.Status.Allowed {
			return true
		}
	}
	return false
}

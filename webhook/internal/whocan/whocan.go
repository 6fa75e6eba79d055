// SPDX-License-Identifier: Apache-2.0

// Package whocan lists the subjects that have a permission, by reading the RBAC objects of a cluster.
//
// It sees what RBAC grants and nothing else: no other authorizer, and no members of groups, which only the
// authenticator knows. It judges nothing.
package whocan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
)

const (
	// maxObjects bounds the RBAC objects that are read, pageSize those of one request. A cluster of OpenShift has about
	// 2,000 of its own.
	maxObjects, pageSize = 50_000, 500
	// maxSubjects bounds the subjects of one answer, maxGrants the bindings that are named for each.
	maxSubjects, maxGrants = 500, 5
)

// AnyNamespace is the namespace of a permission in any one namespace.
const AnyNamespace = "*"

// Permission is one thing that a request needs. Resource may have a subresource: "serviceaccounts/token".
type Permission struct {
	Verb, Group, Resource string
	// Namespace is empty for resources without one, and to ask about all namespaces at once. AnyNamespace asks about at
	// least one namespace.
	Namespace string
	// Name is empty to ask about all names.
	Name string
}

// String returns the permission as text, such as "delete secrets openshift-apiserver/serving-cert".
func (p Permission) String() string {
	resource := p.Resource
	if p.Group != "" {
		base, sub, found := strings.Cut(p.Resource, "/")
		resource = base + "." + p.Group
		if found {
			resource += "/" + sub
		}
	}
	return strings.TrimSpace(p.Verb + " " + resource + " " + p.Object())
}

// Object returns the object as text: "openshift-apiserver/serving-cert", "kubelet-https-guard", or "openshift-
// apiserver/*" for all names. It is empty for all objects.
func (p Permission) Object() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Namespace + "/" + cmp.Or(p.Name, "*")
}

// Grant is a binding that gives a permission, and its role: "ClusterRoleBinding cluster-admins" and "ClusterRole
// cluster-admin".
type Grant struct{ Binding, Role string }

// Subject is a subject of bindings. Namespace is that of a ServiceAccount.
type Subject struct{ Kind, Namespace, Name string }

// Entry is a subject with the bindings that give it one of the permissions that were asked about, at most five.
type Entry struct {
	Subject Subject
	// Everyone: the subject is a group that every user or every ServiceAccount belongs to. Platform: it is one of
	// Kubernetes or OpenShift, by its name.
	Everyone, Platform bool
	Grants             []Grant
}

// RBAC are the RBAC objects of a cluster.
type RBAC struct {
	ClusterRoles        []rbacv1.ClusterRole
	Roles               []rbacv1.Role
	ClusterRoleBindings []rbacv1.ClusterRoleBinding
	RoleBindings        []rbacv1.RoleBinding
}

// ErrTooMany means that there are more RBAC objects than are read.
var ErrTooMany = errors.New("the cluster has too many RBAC objects")

// Read reads all RBAC objects. It returns [ErrTooMany] if there are more than 50,000: an answer from some of them would
// miss subjects.
func Read(ctx context.Context, client rbacclient.RbacV1Interface) (RBAC, error) {
	var all RBAC
	var err error
	left := maxObjects
	if all.ClusterRoles, err = pages(ctx, "ClusterRoles", &left,
		func(ctx context.Context, o metav1.ListOptions) ([]rbacv1.ClusterRole, string, error) {
			list, err := client.ClusterRoles().List(ctx, o)
			return list.Items, list.Continue, err
		}); err != nil {
		return RBAC{}, err
	}
	if all.Roles, err = pages(ctx, "Roles", &left,
		func(ctx context.Context, o metav1.ListOptions) ([]rbacv1.Role, string, error) {
			list, err := client.Roles("").List(ctx, o)
			return list.Items, list.Continue, err
		}); err != nil {
		return RBAC{}, err
	}
	if all.ClusterRoleBindings, err = pages(ctx, "ClusterRoleBindings", &left,
		func(ctx context.Context, o metav1.ListOptions) ([]rbacv1.ClusterRoleBinding, string, error) {
			list, err := client.ClusterRoleBindings().List(ctx, o)
			return list.Items, list.Continue, err
		}); err != nil {
		return RBAC{}, err
	}
	if all.RoleBindings, err = pages(ctx, "RoleBindings", &left,
		func(ctx context.Context, o metav1.ListOptions) ([]rbacv1.RoleBinding, string, error) {
			list, err := client.RoleBindings("").List(ctx, o)
			return list.Items, list.Continue, err
		}); err != nil {
		return RBAC{}, err
	}
	return all, nil
}

// pages reads all pages of a list, and fails if there are more objects than are left.
func pages[T any](
	ctx context.Context, kind string, left *int, read func(context.Context, metav1.ListOptions) ([]T, string, error),
) ([]T, error) {
	var all []T
	for options := (metav1.ListOptions{Limit: pageSize}); ; {
		page, next, err := read(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		if *left -= len(page); *left < 0 {
			return nil, fmt.Errorf("list %s: %w: more than %d", kind, ErrTooMany, maxObjects)
		}
		all = append(all, page...)
		if options.Continue = next; next == "" {
			return all, nil
		}
	}
}

// Who returns the subjects that have at least one of the permissions. Groups of all users or ServiceAccounts come
// first, those of the platform last. It always has the group system:masters, which API servers allow everything,
// whatever RBAC says (k8s.io/apiserver pkg/authentication/user). omitted is the number of subjects beyond 500.
//
// A user whose name is that of a ServiceAccount is returned as this ServiceAccount.
func (r RBAC) Who(anyOf []Permission) (entries []Entry, omitted int) {
	found := map[Subject][]Grant{masters(): {{Binding: "the API server", Role: "everything"}}}
	add := func(subjects []rbacv1.Subject, grant Grant, namespace string) {
		for _, s := range subjects {
			subject := subjectOf(s, namespace)
			found[subject] = append(found[subject], grant)
		}
	}
	rules := r.rules()
	for _, binding := range r.ClusterRoleBindings {
		role := roleOf(binding.RoleRef, "")
		if grants(rules[role], anyOf) {
			add(binding.Subjects, Grant{"ClusterRoleBinding " + binding.Name, role.String()}, "")
		}
	}
	for _, binding := range r.RoleBindings {
		within := slices.DeleteFunc(slices.Clone(anyOf), func(p Permission) bool {
			return p.Namespace != AnyNamespace && p.Namespace != binding.Namespace
		})
		role := roleOf(binding.RoleRef, binding.Namespace)
		if grants(rules[role], within) {
			grant := Grant{"RoleBinding " + binding.Namespace + "/" + binding.Name, role.String()}
			add(binding.Subjects, grant, binding.Namespace)
		}
	}
	for subject, all := range found {
		slices.SortFunc(all, func(a, b Grant) int {
			return cmp.Or(cmp.Compare(a.Binding, b.Binding), cmp.Compare(a.Role, b.Role))
		})
		all = slices.Compact(all)
		entries = append(entries, Entry{
			Subject: subject, Everyone: isEveryone(subject), Platform: isPlatform(subject),
			Grants: all[:min(len(all), maxGrants)],
		})
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Subject.Kind, b.Subject.Kind),
			cmp.Compare(a.Subject.Namespace, b.Subject.Namespace), cmp.Compare(a.Subject.Name, b.Subject.Name))
	})
	if len(entries) > maxSubjects {
		omitted = len(entries) - maxSubjects
		entries = entries[:maxSubjects]
	}
	return entries, omitted
}

func masters() Subject { return Subject{Kind: rbacv1.GroupKind, Name: "system:masters"} }

// rank orders entries, so that those beyond the bound matter least.
func rank(e Entry) int {
	switch {
	case e.Everyone:
		return 0
	case e.Subject == masters():
		return 1
	case !e.Platform:
		return 2
	}
	return 3
}

// role identifies a role: a ClusterRole has no namespace.
type role struct{ kind, namespace, name string }

func (r role) String() string {
	if r.namespace == "" {
		return r.kind + " " + r.name
	}
	return r.kind + " " + r.namespace + "/" + r.name
}

// roleOf returns the role that a binding in the namespace refers to.
func roleOf(ref rbacv1.RoleRef, namespace string) role {
	if ref.Kind == clusterRoleKind {
		namespace = ""
	}
	return role{ref.Kind, namespace, ref.Name}
}

const (
	roleKind        = "Role"
	clusterRoleKind = "ClusterRole"
)

// rules returns the rules of all roles. Those of an aggregated ClusterRole are what kube-controller-manager stored in
// it. A role that does not exist has none.
func (r RBAC) rules() map[role][]rbacv1.PolicyRule {
	all := make(map[role][]rbacv1.PolicyRule, len(r.ClusterRoles)+len(r.Roles))
	for _, c := range r.ClusterRoles {
		all[role{clusterRoleKind, "", c.Name}] = c.Rules
	}
	for _, n := range r.Roles {
		all[role{roleKind, n.Namespace, n.Name}] = n.Rules
	}
	return all
}

// subjectOf returns the subject of a binding in the namespace, which a ServiceAccount has if it names none
// (k8s.io/kubernetes plugin/pkg/auth/authorizer/rbac, appliesToUser).
func subjectOf(s rbacv1.Subject, namespace string) Subject {
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		return Subject{s.Kind, cmp.Or(s.Namespace, namespace), s.Name}
	case rbacv1.UserKind:
		if account, ok := strings.CutPrefix(s.Name, "system:serviceaccount:"); ok {
			if of, name, ok := strings.Cut(account, ":"); ok {
				return Subject{rbacv1.ServiceAccountKind, of, name}
			}
		}
	}
	return Subject{Kind: s.Kind, Name: s.Name}
}

// grants reports whether the rules give at least one of the permissions.
func grants(rules []rbacv1.PolicyRule, anyOf []Permission) bool {
	return slices.ContainsFunc(anyOf, func(p Permission) bool {
		return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return covers(r, p) })
	})
}

// covers reports whether a rule gives a permission, as the API server's authorizer does it (k8s.io/kubernetes
// pkg/apis/rbac/v1, VerbMatches and the others): "*" is everything, also all subresources; "*/token" is a subresource
// of all resources; a request without a name needs a rule without names.
func covers(rule rbacv1.PolicyRule, p Permission) bool {
	has := func(values []string, value string) bool {
		return slices.Contains(values, value) || slices.Contains(values, rbacv1.ResourceAll)
	}
	_, sub, isSub := strings.Cut(p.Resource, "/")
	return has(rule.Verbs, p.Verb) && has(rule.APIGroups, p.Group) &&
		(has(rule.Resources, p.Resource) || isSub && slices.Contains(rule.Resources, "*/"+sub)) &&
		(len(rule.ResourceNames) == 0 || p.Name != "" && slices.Contains(rule.ResourceNames, p.Name))
}

// The groups that API servers add to users (k8s.io/apiserver pkg/authentication/user), and the one of OpenShift.
func isEveryone(s Subject) bool {
	return s.Kind == rbacv1.GroupKind && slices.Contains([]string{
		"system:authenticated", "system:unauthenticated", "system:authenticated:oauth", "system:serviceaccounts",
	}, s.Name)
}

// isPlatform goes by the names that Kubernetes and OpenShift reserve for themselves.
func isPlatform(s Subject) bool {
	if s.Kind == rbacv1.ServiceAccountKind {
		return strings.HasPrefix(s.Namespace, "kube-") || strings.HasPrefix(s.Namespace, "openshift-")
	}
	if namespace, ok := strings.CutPrefix(s.Name, "system:serviceaccounts:"); ok {
		return strings.HasPrefix(namespace, "kube-") || strings.HasPrefix(namespace, "openshift-")
	}
	return strings.HasPrefix(s.Name, "system:") && !isEveryone(s)
}

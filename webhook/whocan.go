// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/whocan"
)

// action is a way to disable the guard, or to act in spite of it, and the permissions that it takes: any one of them.
type action struct {
	description string
	anyOf       []whocan.Permission
}

// actions returns the ways to disable the guard that need permissions in the API. The objects of the guard are those
// that were installed; without them, there are no actions on them.
func actions(c config) []action {
	var webhooks, policies, gate []whocan.Permission
	for _, object := range c.guard {
		kind := object.GroupVersionKind()
		plural, _ := meta.UnsafeGuessKindToResource(kind) // right for the kinds of guardGroups
		resource := plural.Resource
		permissions := with(whocan.Permission{Group: kind.Group, Resource: resource, Name: object.GetName()},
			"update", "patch", "delete", "deletecollection")
		switch {
		case kind.Group == rbacv1.GroupName:
			gate = append(gate, permissions...)
		case kind.Kind == "ValidatingWebhookConfiguration":
			webhooks = append(webhooks, permissions...)
		case kind.Group == admissionv1.GroupName:
			policies = append(policies, permissions...)
		}
	}
	all := []action{
		{"change or delete the webhook configuration", webhooks},
		{"change or delete a policy or its binding", policies},
		{"change or delete the ClusterRole or ClusterRoleBinding that activates the webhook", gate},
		{"give themselves any permission", []whocan.Permission{
			{Verb: "escalate", Group: rbacv1.GroupName, Resource: "clusterroles", Name: "cluster-admin"},
			{Verb: "bind", Group: rbacv1.GroupName, Resource: "clusterroles", Name: "cluster-admin"},
			{Verb: "impersonate", Resource: "groups", Name: "system:masters"},
		}},
	}
	if keys := keys(c); keys != nil {
		all = append(all, action{"read the key of the webhook, or of its signer, and answer in its place", keys})
	}
	if c.decoy != nil { // it is in the guard's namespace
		all = append(all, redirecting(c.decoy.Namespace))
	}
	for _, user := range c.renewers {
		all = append(all, action{"act as " + user + ", which renews a protected Secret", acting(user)})
	}
	for _, secret := range c.protected {
		of := whocan.Permission{
			Resource: "secrets", Namespace: cmp.Or(secret.Namespace, whocan.AnyNamespace), Name: secret.Name,
		}
		all = append(all, action{"delete Secret " + of.Object() + " past admission while it cannot be decoded",
			with(of, "unsafe-delete-ignore-read-errors")})
		if secret.Selector != nil {
			all = append(all, action{"remove the label that selects a namespace of Secret " + secret.Name,
				slices.Concat(
					with(whocan.Permission{Resource: "namespaces", Namespace: whocan.AnyNamespace}, "update", "patch"),
					// Both also write labels.
					with(whocan.Permission{Resource: "namespaces/status", Namespace: whocan.AnyNamespace}, "update", "patch"),
					with(whocan.Permission{Resource: "namespaces/finalize", Namespace: whocan.AnyNamespace}, "update"),
				)})
		}
	}
	if c.decoy != nil {
		all = append(all, inNamespace(c.decoy.Namespace)...)
	}
	return slices.DeleteFunc(all, func(a action) bool { return len(a.anyOf) == 0 })
}

// redirecting returns the action to send the API servers' requests to another server. A user who may also change the CA
// bundle of the webhook configuration, which static policies allow, can then answer in the place of the webhook.
func redirecting(namespace string) action {
	in := func(group, resource string) whocan.Permission {
		return whocan.Permission{Group: group, Resource: resource, Namespace: namespace}
	}
	var all []whocan.Permission
	for _, p := range []whocan.Permission{
		in(corev1.GroupName, "services"), in(corev1.GroupName, "services/status"), in(corev1.GroupName, "endpoints"),
		in("discovery.k8s.io", "endpointslices"), in(corev1.GroupName, "pods"), in(corev1.GroupName, "pods/status"),
	} {
		all = append(all, with(p, "create", "update", "patch")...)
	}
	return action{"redirect the requests to the webhook, by its Service, endpoints or Pods", all}
}

// inNamespace returns the actions in the namespace of the guard.
func inNamespace(namespace string) []action {
	in := func(group, resource string) whocan.Permission {
		return whocan.Permission{Group: group, Resource: resource, Namespace: namespace}
	}
	return []action{
		{"stop the webhook or the audit", slices.Concat(
			with(in(appsv1.GroupName, "deployments"), "update", "patch", "delete", "deletecollection"),
			with(in(appsv1.GroupName, "deployments/scale"), "update", "patch"),
			with(in("coordination.k8s.io", "leases"), "update", "patch"),
			with(whocan.Permission{Resource: "namespaces", Name: namespace}, "delete"),
		)},
		{"change the configuration of the guard", with(in(corev1.GroupName, "configmaps"), "update", "patch", "delete",
			"deletecollection")},
		// The token of any of its ServiceAccounts. That of the webhook may change the webhook configuration in mode
		// self-managed.
		{"act as the guard, in a Pod or with a token of its namespace", running(namespace, "")},
	}
}

// keys returns the permissions to read the Secret with the webhook's key, by its name in each certificate mode that has
// one, or all Secrets beside it; and the key with which service-ca signs.
func keys(c config) []whocan.Permission {
	var all []whocan.Permission
	for _, object := range c.guard {
		webhooks, _, _ := unstructured.NestedSlice(object.Object, "webhooks")
		for _, w := range webhooks {
			one, _ := w.(map[string]any)
			namespace, _, _ := unstructured.NestedString(one, "clientConfig", "service", "namespace")
			name, _, _ := unstructured.NestedString(one, "clientConfig", "service", "name")
			if namespace == "" {
				continue
			}
			beside := whocan.Permission{Resource: "secrets", Namespace: namespace}
			all = append(all, with(beside, "get", "list", "watch")...)
			for _, mode := range []string{"service-ca", "cert-manager", "self-managed"} {
				beside.Name = name + "-" + mode
				all = append(all, with(beside, "get", "list", "watch")...)
			}
			return append(all, with(whocan.Permission{
				Resource: "secrets", Namespace: "openshift-service-ca", Name: "signing-key",
			}, "get", "list", "watch")...)
		}
	}
	return nil
}

// with returns the permission with each of the verbs. The delete of a collection names no object.
func with(p whocan.Permission, verbs ...string) []whocan.Permission {
	var all []whocan.Permission
	for _, verb := range verbs {
		one := p
		one.Verb = verb
		if verb == "deletecollection" {
			one.Name = ""
		}
		all = append(all, one)
	}
	return all
}

// serviceAccountPrefix is at the beginning of the user name of a ServiceAccount, before NAMESPACE:NAME.
const serviceAccountPrefix = "system:serviceaccount:"

// acting returns the permissions with which a user can act as another one: impersonation, also the constrained form of
// it (k8s.io/apiserver pkg/endpoints/filters/impersonation), and for a ServiceAccount its token, or a Pod that has it.
// Some of them take a second permission: constrained impersonation that to impersonate in this request, and a token in
// a Secret that to read it. So the list may have subjects too many, but none too few.
func acting(user string) []whocan.Permission {
	namespace, name, ok := strings.Cut(strings.TrimPrefix(user, serviceAccountPrefix), ":")
	if !ok || !strings.HasPrefix(user, serviceAccountPrefix) {
		all := []whocan.Permission{
			{Verb: "impersonate", Resource: "users", Name: user},
			{Verb: "impersonate:user-info", Group: authenticationv1.GroupName, Resource: "users", Name: user},
		}
		if node, ok := strings.CutPrefix(user, "system:node:"); ok {
			all = append(all, whocan.Permission{Verb: "impersonate:arbitrary-node", Group: authenticationv1.GroupName,
				Resource: "nodes", Name: node})
		}
		return append(all, certified()...)
	}
	all := []whocan.Permission{
		{Verb: "impersonate", Resource: "serviceaccounts", Namespace: namespace, Name: name},
		{Verb: "impersonate:serviceaccount", Group: authenticationv1.GroupName, Resource: "serviceaccounts",
			Namespace: namespace, Name: name},
	}
	return slices.Concat(all, running(namespace, name), certified())
}

// certified returns the permissions with which a user gets a client certificate with any name, except that of a member
// of system:masters: approval of signing requests (k8s.io/kubernetes plugin/pkg/admission/certificates). It also takes
// the permission to approve for the signer, and to create a request, which is not asked.
func certified() []whocan.Permission {
	approval := whocan.Permission{Group: "certificates.k8s.io", Resource: "certificatesigningrequests/approval"}
	return with(approval, "update", "patch")
}

// running returns the permissions with which a user gets the token of a ServiceAccount, of any one if the account is
// empty, or a Pod that has it.
func running(namespace, account string) []whocan.Permission {
	all := []whocan.Permission{
		{Verb: "create", Resource: "serviceaccounts/token", Namespace: namespace, Name: account},
	}
	// A Secret can have a token, and the image of a Pod can be changed.
	all = append(all, with(whocan.Permission{Resource: "secrets", Namespace: namespace},
		"create", "update", "patch", "get", "list", "watch")...)
	all = append(all, with(whocan.Permission{Resource: "pods", Namespace: namespace}, "create", "update", "patch")...)
	// kubelets execute commands in each Pod for it.
	all = append(all, with(whocan.Permission{Resource: "nodes/proxy"}, "create", "get")...)
	for _, way := range []string{"pods/exec", "pods/attach"} {
		all = append(all, with(whocan.Permission{Resource: way, Namespace: namespace}, "create", "get")...)
	}
	debug := whocan.Permission{Resource: "pods/ephemeralcontainers", Namespace: namespace}
	all = append(all, with(debug, "update", "patch")...)
	for group, resources := range map[string][]string{
		corev1.GroupName:  {"replicationcontrollers"},
		appsv1.GroupName:  {"daemonsets", "deployments", "replicasets", "statefulsets"},
		batchv1.GroupName: {"cronjobs", "jobs"},
	} {
		for _, resource := range resources {
			all = append(all, with(whocan.Permission{Group: group, Resource: resource, Namespace: namespace},
				"create", "update", "patch")...)
		}
	}
	return all
}

// whoCanDisable reads the RBAC objects and answers for each action who can do it. If they cannot be read, the answer
// says why.
func whoCanDisable(ctx context.Context, client *rest.Config, c config) (*evidence.WhoCanDisable, error) {
	reader, err := rbacclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for the API server: %w", err)
	}
	objects, err := whocan.Read(ctx, reader)
	if err != nil {
		// Not an error: this section has no verdict, so it must not prevent the others.
		return &evidence.WhoCanDisable{Unknown: err.Error() + ". Fix: " + howToRead(err)}, nil
	}
	answer := &evidence.WhoCanDisable{}
	for _, a := range actions(c) {
		entries, omitted := objects.Who(a.anyOf)
		one := evidence.Action{Description: a.description, Omitted: omitted}
		for _, p := range a.anyOf {
			one.Permissions = append(one.Permissions, p.String())
		}
		slices.Sort(one.Permissions)
		for _, entry := range entries {
			one.Subjects = append(one.Subjects, evidence.ActionSubject{
				Kind: entry.Subject.Kind, Namespace: entry.Subject.Namespace, Name: entry.Subject.Name,
				Everyone: entry.Everyone, Platform: entry.Platform, Grants: grants(entry.Grants),
			})
		}
		answer.Actions = append(answer.Actions, one)
	}
	return answer, nil
}

// howToRead returns what to do about an error of [whocan.Read].
func howToRead(err error) string {
	switch {
	case apierrors.IsForbidden(err):
		return "run the command as a user that may list all RBAC objects (chart value audit.whoCanDisable.enabled for the " +
			"audit's ServiceAccount)"
	case errors.Is(err, whocan.ErrTooMany):
		return "delete roles and bindings that nobody uses, or ask the API server about each subject " +
			"(kubectl auth can-i --as)"
	}
	return "run the command again, with a longer --timeout if the API server is slow"
}

func grants(all []whocan.Grant) []evidence.Grant {
	out := make([]evidence.Grant, len(all))
	for i, g := range all {
		out[i] = evidence.Grant(g)
	}
	return out
}

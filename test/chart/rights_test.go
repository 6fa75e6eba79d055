// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// unnamed are the only rights to objects of any name, and why they are.
var unnamed = map[string]string{
	"Role: create events.k8s.io/events":                     "an Event's name is a new one each time",
	"Role: create coordination.k8s.io/leases":               "RBAC knows no names of what is created",
	"Role: create secrets":                                  "as above; of the webhook's own namespace where it manages its certificate, and for as long as helm test takes",
	"ClusterRole: answer kubelet-https-guard.io/admissions": "there are no such objects: who has the right is asked for",
	"ClusterRole: get nodes":                                "an Event about a Node carries its UID, and one ServiceAccount is that of the agents of all nodes",
}

// TestRights: no right goes further than it must, in any way to install.
func TestRights(t *testing.T) {
	used := map[string]string{}
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff([]string(nil), rightsFaults(t, r.render(t), used)); diff != "" {
				t.Errorf("what is wrong with the rights (-want +got):\n%s", diff)
			}
		})
	}
	if diff := cmp.Diff(unnamed, used); diff != "" {
		t.Errorf("rights to objects of any name (-listed +given):\n%s", diff)
	}
}

// TestRightsBite: each of the rules finds what it is there for.
func TestRightsBite(t *testing.T) {
	const role = `apiVersion: rbac.authorization.k8s.io/v1
kind: %s
metadata: {name: guard}
rules: [%s]
`
	cases := map[string]struct {
		kind, rule string
		want       []string
	}{
		"by name":                {rule: `{apiGroups: [""], resources: [secrets], resourceNames: [a], verbs: [get, list, watch]}`},
		"listed":                 {rule: `{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}`},
		"all Secrets":            {rule: `{apiGroups: [""], resources: [secrets], verbs: [list, watch]}`, want: []string{"Role guard: list secrets of any name", "Role guard: watch secrets of any name"}},
		"Secrets everywhere":     {kind: "ClusterRole", rule: `{apiGroups: [""], resources: [secrets], resourceNames: [a], verbs: [get]}`, want: []string{"ClusterRole guard: secrets of all namespaces"}},
		"listed, but everywhere": {kind: "ClusterRole", rule: `{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}`, want: []string{"ClusterRole guard: create events.k8s.io/events of any name"}},
		"every verb":             {rule: `{apiGroups: [""], resources: [configmaps], resourceNames: [a], verbs: ["*"]}`, want: []string{`Role guard: "*"`}},
		"every resource":         {rule: `{apiGroups: [""], resources: ["*"], resourceNames: [a], verbs: [get]}`, want: []string{`Role guard: "*"`}},
		"every subresource":      {rule: `{apiGroups: [""], resources: ["pods/*"], resourceNames: [a], verbs: [get]}`, want: []string{`Role guard: "*"`}},
		"every group":            {rule: `{apiGroups: ["*"], resources: [configmaps], resourceNames: [a], verbs: [get]}`, want: []string{`Role guard: "*"`}},
		"paths":                  {kind: "ClusterRole", rule: `{nonResourceURLs: [/metrics], verbs: [get]}`, want: []string{"ClusterRole guard: paths of the API server"}},
		"other people":           {rule: `{apiGroups: [""], resources: [serviceaccounts], resourceNames: [a], verbs: [impersonate]}`, want: []string{"Role guard: impersonate"}},
		"any role":               {kind: "ClusterRole", rule: `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [admin], verbs: [bind]}`, want: []string{"ClusterRole guard: bind"}},
		"more than it has":       {rule: `{apiGroups: [rbac.authorization.k8s.io], resources: [roles], resourceNames: [a], verbs: [escalate]}`, want: []string{"Role guard: escalate"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = "Role"
			}
			got := rightsFaults(t, fmt.Appendf(nil, role, tc.kind, tc.rule), map[string]string{})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("what is wrong with the rights (-want +got):\n%s", diff)
			}
		})
	}
}

// rightsFaults are the rules of roles that go too far; used gets those of unnamed
// that are made use of.
func rightsFaults(t *testing.T, rendered []byte, used map[string]string) []string {
	t.Helper()
	objects, err := chart.Objects(rendered)
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	for _, o := range objects {
		if o.GetKind() != "Role" && o.GetKind() != "ClusterRole" {
			continue
		}
		for _, rule := range typed[rbacv1.ClusterRole](t, o).Rules { // a Role has the same rules
			for _, fault := range ruleFaults(o.GetKind(), rule, used) {
				faults = append(faults, fmt.Sprintf("%s %s: %s", o.GetKind(), o.GetName(), fault))
			}
		}
	}
	return faults
}

func ruleFaults(kind string, rule rbacv1.PolicyRule, used map[string]string) []string {
	var faults []string
	if slices.ContainsFunc(slices.Concat(rule.Verbs, rule.APIGroups, rule.Resources, rule.ResourceNames), func(s string) bool { return strings.Contains(s, "*") }) {
		faults = append(faults, `"*"`)
	}
	if len(rule.NonResourceURLs) > 0 {
		faults = append(faults, "paths of the API server")
	}
	for _, verb := range rule.Verbs {
		// It has no other rights in it.
		if verb == "bind" && slices.Equal(rule.ResourceNames, []string{chart.Release + "-answers"}) {
			continue
		}
		if slices.Contains([]string{"bind", "escalate", "impersonate"}, verb) {
			faults = append(faults, verb)
		}
	}
	for _, resource := range rule.Resources {
		if kind == "ClusterRole" && resource == "secrets" {
			faults = append(faults, "secrets of all namespaces")
		}
		if len(rule.ResourceNames) > 0 {
			continue
		}
		for _, verb := range rule.Verbs {
			for _, group := range rule.APIGroups {
				right := verb + " " + strings.TrimPrefix(group+"/"+resource, "/")
				if why, ok := unnamed[kind+": "+right]; ok {
					used[kind+": "+right] = why
				} else {
					faults = append(faults, right+" of any name")
				}
			}
		}
	}
	return faults
}

// typed makes an object one of its Go type.
func typed[T any](t *testing.T, object *unstructured.Unstructured) T {
	t.Helper()
	var into T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &into); err != nil {
		t.Fatalf("%s %s: %v", object.GetKind(), object.GetName(), err)
	}
	return into
}

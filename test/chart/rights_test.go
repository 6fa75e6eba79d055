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

// unnamed lists the only permissions without resource names, with the reasons.
var unnamed = map[string]string{
	"Role: create events.k8s.io/events":       "Event names are generated",
	"Role: create coordination.k8s.io/leases": "RBAC cannot restrict creates by name",
	"Role: create secrets":                    "as above; in the webhook's namespace, mode self-managed",
	"ClusterRole: answer kubelet-https-guard.io/admissions": "no such objects exist; match conditions check the " +
		"permission",
	"ClusterRole: list nodes": "the audit connects to the kubelet of each Node",
	"Role: list discovery.k8s.io/endpointslices": "their names are generated; in the namespaces of the protected Secrets' " +
		"Services, whose endpoints the audit connects to",
	"ClusterRole: list certificates.k8s.io/certificatesigningrequests": "they name the Node in their content only",
	"ClusterRole: list networking.k8s.io/servicecidrs":                 "each of them is a range in which no kubelet is",
	"ClusterRole: get nodes": "an Event about a Node needs its UID; the agents of all " +
		"nodes share one ServiceAccount",
	"ClusterRole: create authentication.k8s.io/tokenreviews": "reviews have no names: whose token a client of metrics " +
		"presents",
	"ClusterRole: create authorization.k8s.io/subjectaccessreviews": "as above; whether its user may read metrics",
	"ClusterRole: list rbac.authorization.k8s.io/clusterroles": "who can disable the guard depends on all of them; only " +
		"with audit.whoCanDisable.enabled",
	"ClusterRole: list rbac.authorization.k8s.io/clusterrolebindings": "as above",
	"ClusterRole: list rbac.authorization.k8s.io/roles":               "as above",
	"ClusterRole: list rbac.authorization.k8s.io/rolebindings":        "as above",
	"Role: get pods/log": "Pod names are generated; in the agent's namespace",
	"ClusterRole: list namespaces": "the audit lists those that a namespaceSelector of a protected Secret matches; RBAC " +
		"knows no labels",
	"ClusterRole: watch namespaces": "as above",
	"ClusterRole: create events.k8s.io/events": "Event names are generated; about the Secrets in these namespaces, which " +
		"are not known in advance",
}

// TestRights: no rendering grants more permissions than necessary.
func TestRights(t *testing.T) {
	used := map[string]string{}
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff([]string(nil), rightsFaults(t, r.render(t), used)); diff != "" {
				t.Errorf("excessive permissions (-want +got):\n%s", diff)
			}
		})
	}
	if diff := cmp.Diff(unnamed, used); diff != "" {
		t.Errorf("permissions without resource names (-listed +granted):\n%s", diff)
	}
}

// TestRightsOfEach: the ServiceAccounts of webhook, audit and helm test have exactly
// these permissions. The webhook can read no Secret except its serving certificate, and
// patch is the only permission on the decoy.
func TestRightsOfEach(t *testing.T) {
	const look = "get,list,watch "
	protected := []string{
		"openshift-apiserver: " + look + "secrets serving-cert",
		"openshift-apiserver: " + look + "services api",
		"openshift-kube-apiserver: " + look + "secrets kubelet-client",
	}
	withoutWebhook := slices.Concat(protected, []string{
		look + "config.openshift.io/infrastructures cluster",
		look + "config.openshift.io/pkis cluster",
		look + "apiextensions.k8s.io/customresourcedefinitions pkis.config.openshift.io",
		look + "namespaces openshift-apiserver,openshift-kube-apiserver",
		look + "operator.openshift.io/kubeapiservers cluster",
		"default: create events.k8s.io/events",
		"default: get discovery.k8s.io/endpointslices kubernetes",
		"kubelet-https-guard: create coordination.k8s.io/leases",
		"kubelet-https-guard: create events.k8s.io/events",
		"kubelet-https-guard: get apps/deployments kubelet-https-guard-audit",
		"kubelet-https-guard: " + look + "configmaps openshift-service-ca.crt",
		"kubelet-https-guard: get,update coordination.k8s.io/leases kubelet-https-guard-audit",
		"kubelet-https-guard: patch secrets kubelet-https-guard-decoy",
		"openshift-apiserver: create events.k8s.io/events",
		"openshift-kube-apiserver-operator: create events.k8s.io/events",
		"openshift-kube-apiserver-operator: " + look + "configmaps kube-apiserver-to-kubelet-client-ca",
		"openshift-kube-apiserver: create events.k8s.io/events",
		"openshift-kube-apiserver: " + look + "configmaps config",
	})
	kubelets := []string{
		"list nodes", "list certificates.k8s.io/certificatesigningrequests", "list networking.k8s.io/servicecidrs",
		"openshift-kube-apiserver: get configmaps kubelet-serving-ca",
	}
	served := []string{"openshift-apiserver: list discovery.k8s.io/endpointslices"}
	policies := []string{
		look + "admissionregistration.k8s.io/validatingadmissionpolicies,validatingadmissionpolicybindings " + strings.Join(
			[]string{
				"kubelet-https-guard.openshift-apiserver.serving-cert",
				"kubelet-https-guard.openshift-kube-apiserver.kubelet-client",
				"kubelet-https-guard.kubelet-https-guard.kubelet-https-guard-decoy",
			},
			",",
		),
	}
	registration := []string{
		look + "admissionregistration.k8s.io/validatingwebhookconfigurations kubelet-https-guard",
		look + "rbac.authorization.k8s.io/clusterroles,clusterrolebindings kubelet-https-guard-answers",
	}
	webhook := []string{
		look + "config.openshift.io/apiservers cluster",
		"bind rbac.authorization.k8s.io/clusterroles kubelet-https-guard-answers",
		"default: create events.k8s.io/events",
		"get,list,watch,update rbac.authorization.k8s.io/clusterrolebindings kubelet-https-guard-answers",
		"kubelet-https-guard: get apps/deployments kubelet-https-guard-webhook",
		"kubelet-https-guard: " + look + "configmaps openshift-service-ca.crt",
		"openshift-apiserver: create events.k8s.io/events",
		"openshift-kube-apiserver-operator: " + look + "configmaps kube-apiserver-to-kubelet-client-ca",
		"openshift-kube-apiserver: create events.k8s.io/events",
	}
	agent := []string{"default: create events.k8s.io/events", "get nodes"}
	// On OpenShift, metrics are served over HTTPS.
	metrics := []string{
		"create authentication.k8s.io/tokenreviews", "create authorization.k8s.io/subjectaccessreviews",
		"get config.openshift.io/apiservers cluster", "kube-system: get configmaps extension-apiserver-authentication",
	}
	withoutWebhook, webhook, agent = slices.Concat(withoutWebhook, metrics), slices.Concat(webhook, metrics),
		slices.Concat(agent, metrics)
	test := []string{
		"default: get discovery.k8s.io/endpointslices kubernetes",
		"kubelet-https-guard: patch secrets kubelet-https-guard-decoy",
	}
	cases := map[string]struct {
		account, rendering string
		want               []string
	}{
		"agent": {"nodeagent", "OpenShift", slices.Concat(agent, []string{
			"default: get discovery.k8s.io/endpointslices kubernetes",
			"kubelet-https-guard: get pods/log",
		})},
		"audit": {"audit", "OpenShift", slices.Concat(withoutWebhook, registration, policies, kubelets, served)},
		"audit, with who can disable": {"audit", "with who can disable", slices.Concat(withoutWebhook, registration, policies,
			kubelets, served,
			[]string{"list rbac.authorization.k8s.io/clusterroles,clusterrolebindings,roles,rolebindings"})},
		"audit only": {"audit", "only the audit", slices.Concat(withoutWebhook, kubelets, served)},
		"audit, without the webhook": {
			"audit", "without the webhook", slices.Concat(withoutWebhook, policies, kubelets, served),
		},
		"audit, without the kubelets": {
			"audit", "without the kubelets", slices.Concat(withoutWebhook, registration, policies, served),
		},
		"audit, without the served certificates": {
			"audit", "without the served certificates", slices.Concat(withoutWebhook, registration, policies, kubelets),
		},
		"audit, with a CA of kubelets": {"audit", "with a CA of kubelets", slices.Concat(withoutWebhook, registration, policies,
			kubelets, served, []string{"kube-system: create events.k8s.io/events", "kube-system: get configmaps kubelet-ca"})},
		"audit, with hosted control planes": {"audit", "with hosted control planes", slices.Concat(registration, kubelets,
			metrics, []string{
				look + "config.openshift.io/pkis cluster",
				look + "apiextensions.k8s.io/customresourcedefinitions pkis.config.openshift.io",
				look + "admissionregistration.k8s.io/validatingadmissionpolicies,validatingadmissionpolicybindings " +
					"kubelet-https-guard-selected-namespaces.kas-kubelet-client-crt," +
					"kubelet-https-guard.kubelet-https-guard.kubelet-https-guard-decoy",
				look + "config.openshift.io/infrastructures cluster", look + "operator.openshift.io/kubeapiservers cluster",
				"list,watch namespaces", look + "secrets kas-kubelet-client-crt", look + "configmaps kubelet-client-ca",
				"create events.k8s.io/events",
				"default: create events.k8s.io/events", "default: get discovery.k8s.io/endpointslices kubernetes",
				"kubelet-https-guard: create coordination.k8s.io/leases", "kubelet-https-guard: create events.k8s.io/events",
				"kubelet-https-guard: get apps/deployments kubelet-https-guard-audit",
				"kubelet-https-guard: get,update coordination.k8s.io/leases kubelet-https-guard-audit",
				"kubelet-https-guard: patch secrets kubelet-https-guard-decoy",
				"openshift-kube-apiserver: create events.k8s.io/events", "openshift-kube-apiserver: " + look + "configmaps config",
			})},
		"webhook, with hosted control planes": {"webhook", "with hosted control planes", slices.Concat(metrics, []string{
			look + "config.openshift.io/apiservers cluster", "list,watch namespaces", look + "configmaps kubelet-client-ca",
			"create events.k8s.io/events",
			"bind rbac.authorization.k8s.io/clusterroles kubelet-https-guard-answers",
			"default: create events.k8s.io/events",
			"get admissionregistration.k8s.io/validatingwebhookconfigurations kubelet-https-guard",
			"get,list,watch,update rbac.authorization.k8s.io/clusterrolebindings kubelet-https-guard-answers",
			"kubelet-https-guard: get apps/deployments kubelet-https-guard-webhook",
		})},
		"audit, disabled": {"audit", "without the audit", nil},
		"webhook": {"webhook", "OpenShift", slices.Concat(webhook, []string{
			"get admissionregistration.k8s.io/validatingwebhookconfigurations kubelet-https-guard",
		})},
		"webhook, self-managed": {"webhook", "self-managed on OpenShift", slices.Concat(webhook, []string{
			"get,update admissionregistration.k8s.io/validatingwebhookconfigurations kubelet-https-guard",
			"kubelet-https-guard: create secrets",
			"kubelet-https-guard: get,update secrets kubelet-https-guard-webhook-self-managed",
		})},
		"agent, with metrics over HTTPS on Kubernetes": {
			"nodeagent", "metrics over HTTPS", slices.Concat(agent, []string{
				"default: get discovery.k8s.io/endpointslices kubernetes", "kubelet-https-guard: get pods/log",
			}),
		},
		"reader of metrics":                      {"metrics-reader", "monitoring", []string{"get nonResourceURLs /metrics"}},
		"reader of metrics, with a scrape class": {"metrics-reader", "monitoring with a scrape class", nil},
		"agent, with metrics over HTTP": {"nodeagent", "metrics over HTTP on OpenShift", []string{
			"default: create events.k8s.io/events", "get nodes",
			"default: get discovery.k8s.io/endpointslices kubernetes", "kubelet-https-guard: get pods/log",
		}},
		"test":                      {"test", "OpenShift", test},
		"test, without the webhook": {"test", "without the webhook", test},
		"test, without the audit":   {"test", "without the audit", nil},
		"test, in namespace default": {"test", "in namespace default", []string{
			"default: get discovery.k8s.io/endpointslices kubernetes",
			"default: patch secrets kubelet-https-guard-decoy",
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			slices.Sort(tc.want)
			got := rightsOf(t, renderings[tc.rendering].objects(t), chart.Release+"-"+tc.account)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("permissions of %s (-want +got):\n%s", tc.account, diff)
			}
		})
	}
}

// TestNoRightOnKubelets: in no rendering can anybody act on kubelets or Pods: what the guard learns of kubelets it gets
// from a TLS handshake.
func TestNoRightOnKubelets(t *testing.T) {
	denied := []string{
		"nodes/proxy", "nodes/exec", "nodes/log", "nodes/metrics", "nodes/stats", "nodes/status",
		"pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "pods/ephemeralcontainers",
		"certificatesigningrequests/approval", "certificatesigningrequests/status", "signers",
	}
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			for _, o := range r.objects(t) {
				if o.GetKind() != "Role" && o.GetKind() != "ClusterRole" {
					continue
				}
				for _, rule := range typed[rbacv1.ClusterRole](t, o).Rules { // a Role has the same rules
					for _, resource := range rule.Resources {
						if slices.Contains(denied, resource) {
							t.Errorf("%s %s: %v %s", o.GetKind(), o.GetName(), rule.Verbs, resource)
						}
					}
				}
			}
		})
	}
}

// TestAdmissionReadsNoSecret: in every rendering, the webhook's ServiceAccount can read
// no Secret except its serving certificate.
func TestAdmissionReadsNoSecret(t *testing.T) {
	const webhook = chart.Release + "-webhook"
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			for _, right := range rightsOf(t, r.objects(t), webhook) {
				if strings.Contains(right, " secrets ") && right != r.namespace()+": get,update secrets "+webhook+"-self-managed" {
					t.Errorf("the webhook can %s", right)
				}
			}
		})
	}
}

// rightsOf returns the permissions of a ServiceAccount, each as namespace (empty: all),
// verbs, resources and names.
func rightsOf(t *testing.T, objects []*unstructured.Unstructured, account string) []string {
	t.Helper()
	roles := map[string][]rbacv1.PolicyRule{}
	var bound []string
	for _, o := range objects {
		kind, at := strings.TrimSuffix(o.GetKind(), "Binding"), o.GetNamespace()
		switch o.GetKind() {
		case "Role", "ClusterRole":
			roles[kind+" "+at+"/"+o.GetName()] = typed[rbacv1.ClusterRole](t, o).Rules // a Role has the same rules
		case "RoleBinding", "ClusterRoleBinding":
			binding := typed[rbacv1.ClusterRoleBinding](t, o)
			if binding.RoleRef.Kind != kind {
				t.Errorf("%s %s binds a %s: this test does not know its permissions", o.GetKind(), o.GetName(),
					binding.RoleRef.Kind)
			}
			if slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool { return s.Name == account }) {
				bound = append(bound, kind+" "+at+"/"+binding.RoleRef.Name)
			}
		}
	}
	var rights []string
	for _, role := range bound {
		_, at, _ := strings.Cut(role, " ")
		at, _, _ = strings.Cut(at, "/")
		for _, rule := range roles[role] {
			right := strings.Join(rule.Verbs, ",") + " " + strings.TrimPrefix(
				strings.Join(rule.APIGroups, ",")+"/"+strings.Join(rule.Resources, ","), "/")
			if len(rule.NonResourceURLs) > 0 {
				right = strings.Join(rule.Verbs, ",") + " nonResourceURLs " + strings.Join(rule.NonResourceURLs, ",")
			}
			if len(rule.ResourceNames) > 0 {
				right += " " + strings.Join(rule.ResourceNames, ",")
			}
			if at != "" {
				right = at + ": " + right
			}
			rights = append(rights, right)
		}
	}
	slices.Sort(rights)
	return rights
}

// TestRightsBite: each rule finds its violation.
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
		"by name": {rule: `{apiGroups: [""], resources: [secrets], resourceNames: [a], verbs: [get, list, watch]}`},
		"listed":  {rule: `{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}`},
		"all Secrets": {
			rule: `{apiGroups: [""], resources: [secrets], verbs: [list, watch]}`,
			want: []string{"Role guard: list secrets without a name", "Role guard: watch secrets without a name"},
		},
		"Secrets everywhere": {
			kind: "ClusterRole",
			rule: `{apiGroups: [""], resources: [secrets], resourceNames: [a], verbs: [get]}`,
			want: []string{"ClusterRole guard: secrets in all namespaces"},
		},
		"not listed, everywhere": {
			kind: "ClusterRole",
			rule: `{apiGroups: [events.k8s.io], resources: [events], verbs: [patch]}`,
			want: []string{"ClusterRole guard: patch events.k8s.io/events without a name"},
		},
		"Secrets of hosted control planes, by another verb": {
			kind: "ClusterRole",
			rule: `{apiGroups: [""], resources: [secrets], resourceNames: [kas-kubelet-client-crt], verbs: [get, update]}`,
			want: []string{"ClusterRole guard: secrets in all namespaces"},
		},
		"every verb": {
			rule: `{apiGroups: [""], resources: [configmaps], resourceNames: [a], verbs: ["*"]}`,
			want: []string{`Role guard: "*"`},
		},
		"every resource": {
			rule: `{apiGroups: [""], resources: ["*"], resourceNames: [a], verbs: [get]}`,
			want: []string{`Role guard: "*"`},
		},
		"every subresource": {
			rule: `{apiGroups: [""], resources: ["pods/*"], resourceNames: [a], verbs: [get]}`,
			want: []string{`Role guard: "*"`},
		},
		"every group": {
			rule: `{apiGroups: ["*"], resources: [configmaps], resourceNames: [a], verbs: [get]}`,
			want: []string{`Role guard: "*"`},
		},
		"URLs": {
			kind: "ClusterRole",
			rule: `{nonResourceURLs: [/logs], verbs: [get]}`,
			want: []string{"ClusterRole guard: non-resource URLs"},
		},
		"metrics": {kind: "ClusterRole", rule: `{nonResourceURLs: [/metrics], verbs: [get]}`},
		"all of metrics": {
			kind: "ClusterRole",
			rule: `{nonResourceURLs: [/metrics], verbs: [get, post]}`,
			want: []string{"ClusterRole guard: non-resource URLs"},
		},
		"impersonation": {
			rule: `{apiGroups: [""], resources: [serviceaccounts], resourceNames: [a], verbs: [impersonate]}`,
			want: []string{"Role guard: impersonate"},
		},
		"any role": {kind: "ClusterRole", rule: `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [admin], verbs: [bind]}`, want: []string{"ClusterRole guard: bind"}},
		"escalation": {
			rule: `{apiGroups: [rbac.authorization.k8s.io], resources: [roles], resourceNames: [a], verbs: [escalate]}`,
			want: []string{"Role guard: escalate"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = "Role"
			}
			got := rightsFaults(t, fmt.Appendf(nil, role, tc.kind, tc.rule), map[string]string{})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("excessive permissions (-want +got):\n%s", diff)
			}
		})
	}
}

// rightsFaults returns the excessive permissions in roles. It adds the entries of
// unnamed that occur to used.
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
	if slices.ContainsFunc(
		slices.Concat(rule.Verbs, rule.APIGroups, rule.Resources, rule.ResourceNames),
		func(s string) bool { return strings.Contains(s, "*") },
	) {
		faults = append(faults, `"*"`)
	}
	// The reader of metrics.
	getsMetrics := slices.Equal(rule.NonResourceURLs, []string{"/metrics"}) && slices.Equal(rule.Verbs, []string{"get"})
	if len(rule.NonResourceURLs) > 0 && !getsMetrics {
		faults = append(faults, "non-resource URLs")
	}
	for _, verb := range rule.Verbs {
		// This ClusterRole contains no other permission.
		if verb == "bind" && slices.Equal(rule.ResourceNames, []string{chart.Release + "-answers"}) {
			continue
		}
		if slices.Contains([]string{"bind", "escalate", "impersonate"}, verb) {
			faults = append(faults, verb)
		}
	}
	for _, resource := range rule.Resources {
		// Only the Secrets of the rendering with a namespaceSelector, and only to read them.
		ofSelected := slices.Equal(rule.ResourceNames, []string{"kas-kubelet-client-crt"}) &&
			slices.Equal(rule.Verbs, []string{"get", "list", "watch"})
		if kind == "ClusterRole" && resource == "secrets" && !ofSelected {
			faults = append(faults, "secrets in all namespaces")
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
					faults = append(faults, right+" without a name")
				}
			}
		}
	}
	return faults
}

// typed converts an object to its Go type.
func typed[T any](t *testing.T, object *unstructured.Unstructured) T {
	t.Helper()
	var into T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &into); err != nil {
		t.Fatalf("%s %s: %v", object.GetKind(), object.GetName(), err)
	}
	return into
}

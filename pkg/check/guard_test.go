// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// The objects that register the guard, as the chart renders them.
const (
	registration = `{
		"metadata": {"name": "guard", "labels": {"a": "b"}},
		"webhooks": [
			{
				"name": "secrets.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun",
				"failurePolicy": "Fail", "timeoutSeconds": 3, "matchPolicy": "Equivalent",
				"clientConfig": {"service": {"name": "webhook", "namespace": "guard", "path": "/validate", "port": 443}},
				"rules": [{
					"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"],
					"resources": ["secrets"], "scope": "Namespaced"
				}],
				"namespaceSelector": {"matchExpressions": [
					{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["openshift-apiserver", "openshift-kube-apiserver"]}
				]},
				"matchConditions": [
					{"name": "protected", "expression": "request.name in [\"serving-cert\"]"},
					{"name": "changes-something", "expression": "object != oldObject"}
				]
			},
			{
				"name": "kubeapiservers.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun",
				"failurePolicy": "Fail", "timeoutSeconds": 3, "matchPolicy": "Equivalent",
				"clientConfig": {"url": "https://127.0.0.1/validate"},
				"rules": [{
					"operations": ["CREATE", "UPDATE"], "apiGroups": ["operator.openshift.io"], "apiVersions": ["v1"],
					"resources": ["kubeapiservers"], "scope": "Cluster"
				}],
				"matchConditions": [{"name": "cluster", "expression": "request.name == \"cluster\""}]
			}
		]}`
	policy = `{
		"metadata": {"name": "guard.serving-cert"},
		"spec": {
			"failurePolicy": "Fail",
			"matchConstraints": {
				"matchPolicy": "Equivalent",
				"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-apiserver"}},
				"resourceRules": [{
					"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"],
					"resources": ["secrets"], "scope": "Namespaced"
				}, {
					"operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
					"resourceNames": ["settings"], "scope": "Namespaced"
				}]
			},
			"matchConditions": [{"name": "protected", "expression": "object.metadata.name == \"serving-cert\""}],
			"variables": [
				{"name": "sides", "expression": "[oldObject, object]"},
				{"name": "introduced", "expression": "variables.sides[1].filter(w, !(w in variables.sides[0]))"}
			],
			"validations": [
				{
					"expression": "variables.introduced.size() == 0", "reason": "Forbidden",
					"message": "it may not be stored like this", "messageExpression": "\"it may not be stored like this\""
				},
				{"expression": "request.operation != \"DELETE\"", "reason": "Forbidden", "message": "it may not be deleted"}
			]
		}}`
	binding = `{
		"metadata": {"name": "guard.serving-cert"},
		"spec": {"policyName": "guard.serving-cert", "validationActions": ["Deny", "Audit"]}}`
	role = `{
		"metadata": {"name": "guard-answers"},
		"rules": [{"apiGroups": ["kubelet-https-guard.io"], "resources": ["admissions"], "verbs": ["answer"]}]}`
	roleBinding = `{
		"metadata": {"name": "guard-answers"},
		"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "guard-answers"},
		"subjects": [{"kind": "ServiceAccount", "name": "webhook", "namespace": "guard"}]}`
)

func decoded(text string) map[string]any {
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		panic(err)
	}
	return object
}

// changed returns an object with another value (JSON) at a path ("webhooks.0.rules"). An empty
// value removes the field or item. The index after the last one appends.
func changed(text, path, value string) map[string]any {
	object := decoded(text)
	set(object, strings.Split(path, "."), value)
	return object
}

func set(in any, path []string, value string) any {
	if len(path) == 0 {
		var v any
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			panic(err)
		}
		return v
	}
	remove := len(path) == 1 && value == ""
	if list, ok := in.([]any); ok {
		i, err := strconv.Atoi(path[0])
		switch {
		case err != nil || i > len(list):
			panic("no such item: " + path[0])
		case remove:
			return slices.Delete(list, i, i+1)
		case i == len(list):
			list = append(list, nil)
		}
		list[i] = set(list[i], path[1:], value)
		return list
	}
	object, _ := in.(map[string]any)
	if object == nil {
		object = map[string]any{}
	}
	if remove {
		if _, known := object[path[0]]; !known {
			panic("no such field: " + path[0])
		}
		delete(object, path[0])
		return object
	}
	object[path[0]] = set(object[path[0]], path[1:], value)
	return object
}

var guardAt = finding.Subject{Kind: "ValidatingWebhookConfiguration", Name: "guard"}

func guarded(installed, live map[string]any) []finding.Result {
	results, _ := check.Guard{At: guardAt, Installed: installed, Live: live}.Check(pkitest.Now())
	return results
}

func guardFixtures() map[string]fixture {
	const at = " @ ValidatingWebhookConfiguration guard"
	ineffective, weakened := []string{
		"installed fail GuardIneffective" + at,
	}, []string{
		"installed warn GuardWeakened" + at,
	}
	live := func(object map[string]any) func(finding.Family) []finding.Result {
		return always(guarded(decoded(registration), object))
	}
	notKnown := func(reason finding.Reason) fixture {
		results, _ := check.Guard{
			At:         guardAt,
			Installed:  decoded(registration),
			WhyUnknown: because(reason),
		}.Check(pkitest.Now())
		return fixture{results: always(results), want: []string{"installed unknown " + string(reason) + " @ /why"}}
	}
	otherNumbers := decoded(registration)
	otherNumbers["webhooks"].([]any)[0].(map[string]any)["timeoutSeconds"] = int64(3)
	return map[string]fixture{
		"as installed":        {results: live(decoded(registration))},
		"another number type": {results: live(otherNumbers)},
		"deleted":             {results: live(nil), want: []string{"installed fail GuardMissing" + at}},
		"cannot be read":      notKnown(finding.Unreadable),
		"not seen yet":        notKnown(finding.NotObserved),
		"an empty object": {
			results: live(map[string]any{}), want: ineffective,
			mentions: "webhooks[kubeapiservers.example.com]",
		},
		"failing open": {
			results: live(changed(registration, "webhooks.0.failurePolicy", `"Ignore"`)), want: ineffective,
			mentions: `failurePolicy changed from "Fail" to "Ignore"`,
		},
		"shorter timeout": {
			results: live(changed(registration, "webhooks.0.timeoutSeconds", `1`)), want: weakened,
			mentions: "timeoutSeconds",
		},
		"another webhook": {
			results: live(changed(registration, "webhooks.2", `{"name": "third"}`)), want: weakened,
			mentions: "webhooks[third]",
		},
		// Important differences come first, also if they are the last of many.
		"many differences": {
			results: live(changed(
				registration,
				"webhooks.0",
				`{"name": "secrets.example.com", "a": "x", "b": ["y", "z"], "c": [{}], "d": {"e": {"f": 1}}, "objectSelector": {"matchLabels": {"a": "b"}}}`,
			)),
			want:     ineffective,
			mentions: "and 9 more",
		},
	}
}

// guardChange is a change of an object, and the expected outcome.
type guardChange struct {
	path, value string
	want        finding.Outcome
}

// TestGuardFields changes each field of the objects that register the guard. A change that may refuse less than before
// makes the guard ineffective. Every other change is a warning. Fields that the API server sets, and injected CA
// bundles, are not differences.
func TestGuardFields(t *testing.T) {
	const weaker, other, none = finding.Fail, finding.Warn, finding.Pass
	// end is the index after the last rule.
	rules := func(field, end string) []guardChange {
		return []guardChange{
			{field, "", weaker},
			{field, `[]`, weaker},
			{field + ".0", `{}`, weaker},
			{field + ".0", `"text"`, weaker},
			{field + ".0.operations", `["CONNECT"]`, weaker},
			{field + ".0.operations", `["CREATE", "UPDATE"]`, weaker},
			{field + ".0.operations", `["CREATE", "UPDATE", "DELETE", "CONNECT"]`, other},
			{field + ".0.operations", `["DELETE", "UPDATE", "CREATE"]`, other},
			{field + ".0.operations", `["*"]`, other},
			{field + ".0.apiGroups", `["apps"]`, weaker},
			{field + ".0.apiGroups", `["", "apps"]`, other},
			{field + ".0.apiVersions", `["v2"]`, weaker},
			{field + ".0.apiVersions", `["*"]`, other},
			{field + ".0.resources", `["configmaps"]`, weaker},
			{field + ".0.resources", `["secrets", "configmaps"]`, other},
			{field + ".0.resources", `["secrets/status"]`, weaker},
			{field + ".0.resourceNames", `["another"]`, weaker},
			{field + ".0.scope", `"Cluster"`, weaker},
			{field + ".0.scope", `"*"`, other},
			{field + ".0.scope", "", other},
			{field + "." + end, `{"operations": ["CONNECT"]}`, other},
		}
	}
	conditions := func(field string) []guardChange {
		return []guardChange{
			{field, "", other},
			{field + ".0", "", other},
			{field + ".0.expression", `"false"`, weaker},
			{field + ".0.name", `"other"`, weaker}, // it may be a different condition
		}
	}
	selector := func(field string) []guardChange {
		return []guardChange{
			{field, `{"matchLabels": {"a": "b"}}`, weaker},
			{field, `{"matchLabels": {"a": ""}}`, weaker},
			{field, `{"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}`, weaker},
		}
	}
	addedSelector := func(field string) []guardChange {
		return append(selector(field), guardChange{field, `{}`, none},
			guardChange{field, `{"matchLabels": {}, "matchExpressions": []}`, none})
	}
	metadata := []guardChange{
		{"metadata.labels", `{"other": "label"}`, none},
		{"metadata.resourceVersion", `"7"`, none},
		{"apiVersion", `"example.com/v1"`, none},
		{"kind", `"Kind"`, none},
	}
	cases := map[string]struct {
		object  string
		changes []guardChange
	}{
		"registration": {registration, slices.Concat(
			metadata,
			rules("webhooks.0.rules", "1"),
			conditions("webhooks.0.matchConditions"),
			selector("webhooks.0.namespaceSelector"),
			addedSelector("webhooks.0.objectSelector"),
			addedSelector("webhooks.1.namespaceSelector"),
			[]guardChange{
				{"webhooks", "", weaker},
				{"webhooks.0", "", weaker},
				{"webhooks.1", "", weaker},
				{"webhooks.1", `null`, weaker},
				{"webhooks.0.name", `"other.example.com"`, weaker},
				{"webhooks.0.failurePolicy", `"Ignore"`, weaker},
				{"webhooks.0.failurePolicy", "", other},
				{"webhooks.0.matchPolicy", `"Exact"`, weaker},
				{"webhooks.0.matchPolicy", "", other},
				{"webhooks.0.namespaceSelector", "", other},
				{"webhooks.0.matchConditions.2", `{"name": "never", "expression": "false"}`, weaker},
				{"webhooks.1.matchConditions.1", `{"name": "never", "expression": "false"}`, weaker},
				{"webhooks.0.clientConfig", "", weaker},
				{"webhooks.0.clientConfig.service.name", `"other"`, weaker},
				{"webhooks.0.clientConfig.service.path", `"/allow"`, weaker},
				{"webhooks.0.clientConfig", `{"url": "https://elsewhere/"}`, weaker},
				{"webhooks.1.clientConfig.url", `"https://elsewhere/"`, weaker},
				{"webhooks.0.clientConfig.caBundle", `"eA=="`, none},
				{"webhooks.0.timeoutSeconds", `30`, other},
				{"webhooks.0.sideEffects", `"None"`, other},
				{"webhooks.0.admissionReviewVersions", `["v1", "v1beta1"]`, other},
			},
		)},
		"policy": {policy, slices.Concat(metadata,
			rules("spec.matchConstraints.resourceRules", "2"), conditions("spec.matchConditions"),
			selector("spec.matchConstraints.namespaceSelector"), addedSelector("spec.matchConstraints.objectSelector"),
			[]guardChange{
				{"spec", "", weaker},
				{"status", `{"observedGeneration": 1}`, none},
				{"spec.failurePolicy", `"Ignore"`, weaker},
				{"spec.failurePolicy", "", other},
				{"spec.paramKind", `{"apiVersion": "v1", "kind": "ConfigMap"}`, weaker},
				{"spec.matchConstraints", "", weaker},
				{"spec.matchConstraints.resourceRules.1.resourceNames", `["other"]`, weaker},
				{"spec.matchConstraints.resourceRules.1.resourceNames", `["other", "settings"]`, other},
				{"spec.matchConstraints.resourceRules.1.resourceNames", `[]`, other},
				{"spec.matchConstraints.resourceRules.1.resourceNames", "", other},
				{"spec.matchConstraints.resourceRules.1", "", weaker},
				{"spec.matchConstraints.matchPolicy", `"Exact"`, weaker},
				{"spec.matchConstraints.namespaceSelector", "", other},
				{"spec.matchConstraints.excludeResourceRules", `[{"operations": ["*"]}]`, weaker},
				{"spec.matchConstraints.excludeResourceRules", `[]`, none},
				{"spec.matchConditions.1", `{"name": "never", "expression": "false"}`, weaker},
				{"spec.variables.1.expression", `"[]"`, weaker},
				{"spec.variables", "", weaker},
				{"spec.validations", "", weaker},
				{"spec.validations.0", "", weaker},
				{"spec.validations.1.expression", `"true"`, weaker},
				{"spec.validations.1.message", `"no"`, other},
				{"spec.validations.0.messageExpression", "", other},
				{"spec.validations.0.reason", `"Invalid"`, other},
				{"spec.validations.2", `{"expression": "false"}`, other},
				{"spec.auditAnnotations", `[{"key": "a", "valueExpression": "'b'"}]`, other},
			},
		)},
		"binding": {binding, slices.Concat(metadata,
			[]guardChange{
				{"spec", "", weaker},
				{"spec.policyName", `"other"`, weaker},
				{"spec.validationActions", `["Audit"]`, weaker},
				{"spec.validationActions", `["Warn", "Audit"]`, weaker},
				{"spec.validationActions", "", weaker},
				{"spec.validationActions", `["Deny"]`, other},
				{"spec.validationActions", `["Audit", "Deny"]`, other},
				{"spec.paramRef", `{"name": "none", "parameterNotFoundAction": "Allow"}`, weaker},
				{"spec.matchResources", `{"namespaceSelector": {"matchLabels": {"a": "b"}}}`, weaker},
				{"spec.matchResources", `{}`, none},
			},
		)},
		"role": {role, slices.Concat(metadata,
			[]guardChange{
				{"rules", "", weaker},
				{"rules.0.verbs", `["get"]`, weaker},
				{"rules.0.verbs", `["answer", "get"]`, other},
				{"rules.0.verbs", `["*"]`, other},
				{"rules.0.apiGroups", `[""]`, weaker},
				{"rules.0.resources", `["other"]`, weaker},
				{"rules.0.resourceNames", `["other"]`, weaker},
				{"rules.1", `{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}`, other},
			},
		)},
		"role binding": {roleBinding, slices.Concat(metadata,
			[]guardChange{
				{"subjects", "", weaker},
				{"subjects.0", "", weaker},
				{"subjects.0.kind", `"User"`, weaker},
				{"subjects.0.name", `"other"`, weaker},
				{"subjects.0.namespace", `"other"`, weaker},
				{"subjects.1", `{"kind": "ServiceAccount", "name": "other", "namespace": "guard"}`, other},
				{"roleRef", "", weaker},
				{"roleRef.apiGroup", `"other"`, weaker},
				{"roleRef.kind", `"Role"`, weaker},
				{"roleRef.name", `"other"`, weaker},
			},
		)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, change := range c.changes {
				results := guarded(decoded(c.object), changed(c.object, change.path, change.value))
				assertComplete(t, results, finding.Guard, "installed")
				if len(results) != 1 || results[0].Outcome != change.want {
					t.Errorf("%s set to %q: want %s, got %+v", change.path, change.value, change.want, results)
				}
			}
			for _, field := range fieldsOf("", decoded(c.object)) {
				if !slices.ContainsFunc(c.changes, func(change guardChange) bool {
					return change.path == field || strings.HasPrefix(change.path, field+".")
				}) {
					t.Errorf("no case changes %s", field)
				}
			}
		})
	}
}

// fieldsOf returns the paths of the fields that are compared. The first webhook represents all.
func fieldsOf(path string, object map[string]any) []string {
	var all []string
	for name, value := range object {
		at := strings.TrimPrefix(path+"."+name, ".")
		switch v := value.(type) {
		case map[string]any:
			if name == "spec" || name == "matchConstraints" || name == "clientConfig" || name == "roleRef" {
				all = append(all, fieldsOf(at, v)...)
				continue
			}
		case []any:
			if first, ok := v[0].(map[string]any); ok && slices.Contains([]string{"webhooks", "rules", "resourceRules",
				"subjects"}, name) {
				all = append(all, fieldsOf(at+".0", first)...)
				continue
			}
		}
		all = append(all, at)
	}
	return all
}

// TestGuardAsConfigured: a lenient configuration is not a difference. Making it stricter does
// not make the guard ineffective.
func TestGuardAsConfigured(t *testing.T) {
	page := messages.Record(t, "a guard that is configured to let changes through")
	open := changed(registration, "webhooks.0.failurePolicy", `"Ignore"`)
	audit := changed(binding, "spec.validationActions", `["Audit"]`)
	defaults := changed(registration, "webhooks.0.failurePolicy", "")
	exact := changed(registration, "webhooks.0.matchPolicy", `"Exact"`)
	cases := map[string]struct {
		installed, live map[string]any
		want            finding.Outcome
		mentions        string // of a pass: what was configured
	}{
		"fails open":                         {open, maps.Clone(open), finding.Pass, "failurePolicy of webhook secrets.example.com is Ignore"},
		"failed open, now fails closed":      {open, decoded(registration), finding.Warn, ""},
		"audits":                             {audit, maps.Clone(audit), finding.Pass, "validationActions is [Audit]"},
		"refuses":                            {decoded(binding), decoded(binding), finding.Pass, ""},
		"audited, now denies":                {audit, decoded(binding), finding.Warn, ""},
		"failed closed by default, now open": {defaults, open, finding.Fail, ""},
		"matched exactly, now equivalent":    {exact, decoded(registration), finding.Warn, ""},
		"bound to one more subject":          {changed(roleBinding, "subjects", ""), decoded(roleBinding), finding.Warn, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			results := guarded(c.installed, c.live)
			assertComplete(t, results, finding.Guard, "installed")
			message := results[0].Message
			if c.want == finding.Pass {
				page.Finding(results[0])
			}
			if results[0].Outcome != c.want || !strings.Contains(message, c.mentions) ||
				c.want == finding.Pass && (message != "") != (c.mentions != "") {
				t.Errorf("want %s with %q, got %+v", c.want, c.mentions, results)
			}
		})
	}
}

func actionFixtures() map[string]fixture {
	at := finding.Subject{Kind: "Secret", Namespace: "shop", Name: "till"}
	action := func(a check.Action) func(finding.Family) []finding.Result {
		a.At = at
		results, _ := a.Check(pkitest.Now())
		return always(results)
	}
	const recordsOnly = "action notApplicable  @ Secret shop/till"
	return map[string]fixture{
		"Deny": {results: action(check.Action{Refuses: true})},
		"Audit": {
			results: action(check.Action{Name: "Audit"}), want: []string{recordsOnly},
		},
		"Warn": {
			results: action(check.Action{Name: "Warn"}), want: []string{recordsOnly},
		},
	}
}

func effectFixtures() map[string]fixture {
	const at = " @ APIServer 192.0.2.1:6443 ValidatingAdmission"
	refused := check.Attempt{Refused: true}
	of := func(policy, webhook check.Attempt, static *check.Attempt) func(finding.Family) []finding.Result {
		results, _ := check.Effect{
			Server: finding.Subject{Kind: finding.KindAPIServer, Name: "192.0.2.1:6443"}, Policy: policy, Webhook: webhook,
			Static: static,
		}.Check(pkitest.Now())
		return always(results)
	}
	effect := func(policy, webhook check.Attempt) func(finding.Family) []finding.Result {
		return of(policy, webhook, nil)
	}
	allowed := check.Attempt{Answer: "it was accepted"}
	off := check.Attempt{WhyNotApplicable: "the webhook is disabled (webhook.enabled)"}
	fixtures := map[string]fixture{
		"both refuse":                 {results: effect(refused, refused)},
		"static policies refuse, too": {results: of(refused, refused, &refused)},
		"static policies are not in force": {
			results: of(refused, refused, &allowed),
			want:    []string{"policy-refuses fail GuardIneffective @ APIServer 192.0.2.1:6443 static policies"},
		},
		"the policy allows it": {
			results: effect(allowed, refused), want: []string{"policy-refuses fail GuardIneffective" + at + "Policy"},
		},
		"the webhook is not called": {
			results: effect(refused, allowed), want: []string{"webhook-asked fail GuardIneffective" + at + "Webhook"},
		},
		"neither refuses": {
			results: effect(allowed, allowed),
			want:    []string{"policy-refuses fail GuardIneffective" + at + "Policy", "webhook-asked fail GuardIneffective" + at + "Webhook"},
		},
		"the webhook is disabled by configuration": {
			results: effect(refused, off), want: []string{"webhook-asked notApplicable " + at + "Webhook"},
		},
		"the policy audits by configuration": {
			results: effect(check.Attempt{WhyNotApplicable: "the policy's action is Audit"}, refused), want: []string{"policy-refuses notApplicable " + at + "Policy"},
		},
	}
	for _, reason := range []finding.Reason{finding.Unreadable, finding.NotChecked, finding.NotObserved} {
		notKnown := check.Attempt{WhyUnknown: because(reason)}
		fixtures["not known: "+string(reason)] = fixture{
			results: effect(notKnown, notKnown), want: unknown("policy-refuses webhook-asked", string(reason)+" @ /why"),
		}
	}
	return fixtures
}

func platformFixtures() map[string]fixture {
	platform := func(p check.Platform) func(finding.Family) []finding.Result {
		results, _ := p.Check(pkitest.Now())
		return always(results)
	}
	elsewhere := []string{"control-plane notApplicable  @ Infrastructure cluster"}
	return map[string]fixture{
		"in this cluster":            {results: platform(check.Platform{Topology: "HighlyAvailable"})},
		"in this cluster, one node":  {results: platform(check.Platform{Topology: "SingleReplica"})},
		"no topology":                {results: platform(check.Platform{})},
		"an API without a namespace": {results: platform(check.Platform{Topology: "HighlyAvailable", NoNamespace: true})},
		"a namespace without an API": {results: platform(check.Platform{NoAPI: true})},
		"hosted": {
			results: platform(check.Platform{Topology: "External", NoNamespace: true}), want: elsewhere,
		},
		"hosted, with one of the namespaces": {results: platform(check.Platform{Topology: "External"}), want: elsewhere},
		"another Kubernetes": {
			results: platform(check.Platform{NoAPI: true, NoNamespace: true}), want: elsewhere,
		},
		"forbidden":    {results: platform(check.Platform{WhyUnknown: because(finding.Unreadable)}), want: unknown("control-plane", "Unreadable @ /why")},
		"not seen yet": {results: platform(check.Platform{WhyUnknown: because(finding.NotObserved)}), want: unknown("control-plane", "NotObserved @ /why")},
	}
}

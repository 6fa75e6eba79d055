// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Guard is an object that registers the guard with the API server, as it was installed and as it is now, decoded from
// JSON: a ValidatingWebhookConfiguration, a ValidatingAdmissionPolicy or its binding, or the ClusterRole or
// ClusterRoleBinding that activates the webhook.
type Guard struct {
	// At names the object.
	At finding.Subject
	// WhyUnknown says why the live object is not known. Live is ignored then.
	WhyUnknown *finding.Result
	Installed  map[string]any
	// Live is nil if the object does not exist.
	Live map[string]any
}

// Check reports whether the object is as it was installed. The API server exempts such objects from webhooks and from
// policies that are stored in the API (k8s.io/apiserver pkg/admission/plugin/webhook/predicates/rules,
// IsExemptAdmissionConfigurationResource), so anyone who can write them can disable the guard. The guard reports
// that and cannot prevent it.
func (g Guard) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(finding.Guard, guardChecks(), g, now), time.Time{}
}

func guardChecks() []check[Guard] {
	return []check[Guard]{{
		finding.Installed, nil,
		[]finding.Reason{
			finding.GuardMissing, finding.GuardIneffective, finding.GuardWeakened, finding.Unreadable, finding.NotObserved,
		},
		func(g Guard) finding.Subject { return g.At }, guardInstalled,
	}}
}

// maxDifferences is the largest number of differences in a message.
const maxDifferences = 5

// guardInstalled: rules, selectors, conditions, failure policy and all other fields that decide what is checked and
// refused are as they were installed. A difference that may allow more than before makes the guard ineffective. Any
// other difference is a warning.
func guardInstalled(g Guard, _ time.Time) []finding.Result {
	switch {
	case g.WhyUnknown != nil:
		return []finding.Result{Unknown(*g.WhyUnknown)}
	case g.Live == nil:
		return single(finding.GuardMissing, g.At,
			"it does not exist, so changes that it should refuse are allowed", "restore it with helm upgrade")
	}
	all := g.differences()
	if len(all) == 0 {
		return g.configuredToAllow()
	}
	// The important ones first, since the message may not have all.
	slices.SortStableFunc(all, func(a, b difference) int {
		switch {
		case a.weaker == b.weaker:
			return 0
		case a.weaker:
			return -1
		}
		return 1
	})
	reason, message := finding.GuardWeakened, "it changed since it was installed: "
	if all[0].weaker {
		reason, message = finding.GuardIneffective, "it may allow changes that it should refuse: "
	}
	var texts []string
	for _, d := range all[:min(len(all), maxDifferences)] {
		texts = append(texts, d.text)
	}
	if len(all) > maxDifferences {
		texts = append(texts, fmt.Sprintf("and %d more", len(all)-maxDifferences))
	}
	return single(reason, g.At, message+strings.Join(texts, "; "),
		"restore it with helm upgrade, or find out who changed it and why")
}

// configuredToAllow returns a pass that says what the object, as it was installed, does not refuse. That is a choice of
// the administrator and not drift. It returns nil if the object refuses everything.
func (g Guard) configuredToAllow() []finding.Result {
	var remarks []string
	spec, _ := g.Installed["spec"].(map[string]any)
	if actions, given := spec["validationActions"]; given && !allIn([]any{"Deny"}, actions) {
		remarks = append(remarks, "validationActions is "+brief(actions)+": changes that break the rule are not refused")
	}
	webhooks := byName(g.Installed["webhooks"])
	for _, name := range slices.Sorted(maps.Keys(webhooks)) {
		if webhooks[name]["failurePolicy"] == "Ignore" {
			remarks = append(remarks, "failurePolicy of webhook "+name+
				" is Ignore: it refuses nothing while no webhook Pod responds")
		}
	}
	if remarks == nil {
		return nil
	}
	return []finding.Result{
		{Subject: g.At, Outcome: finding.Pass, Message: "as configured: " + strings.Join(remarks, "; ")},
	}
}

// difference is a change of a field. weaker: the object may refuse less than before.
type difference struct {
	text   string
	weaker bool
}

// differences compares the live object with the installed one, field by field. It ignores metadata.
func (g Guard) differences() []difference {
	all := compareFields("", g.Installed, g.Live, "spec", "rules", "roleRef", "subjects")
	installed, live := byName(g.Installed["webhooks"]), byName(g.Live["webhooks"])
	for _, name := range slices.Sorted(maps.Keys(installed)) {
		path := "webhooks[" + name + "]"
		if live[name] == nil {
			all = append(all, difference{path + " was removed", true})
			continue
		}
		all = append(all, compareFields(path, installed[name], live[name])...)
	}
	for _, name := range slices.Sorted(maps.Keys(live)) {
		if installed[name] == nil {
			all = append(all, difference{"webhooks[" + name + "] was added", false})
		}
	}
	return all
}

// nested has the fields whose own fields are compared one by one.
var nested = []string{"spec", "matchConstraints", "clientConfig"}

// compareFields compares two decoded JSON objects: the named fields, or all without a name.
func compareFields(path string, installed, live map[string]any, only ...string) []difference {
	if len(only) == 0 {
		only = fieldNames(installed, live)
	}
	var all []difference
	for _, name := range only {
		// A controller may inject the CA bundle (service-ca, cert-manager). With failurePolicy Fail, a
		// wrong one alone allows nothing.
		before, after := prune(installed[name]), prune(live[name])
		if name == "caBundle" || equal(before, after) {
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		if slices.Contains(nested, name) {
			beforeMap, _ := before.(map[string]any)
			afterMap, _ := after.(map[string]any)
			all = append(all, compareFields(at, beforeMap, afterMap)...)
			continue
		}
		all = append(all,
			difference{at + " changed from " + brief(before) + " to " + brief(after), weaker(name, before, after)})
	}
	return all
}

// weaker reports whether a change of a field may allow something that was refused. Fields
// that cannot do so are not in the table.
func weaker(field string, before, after any) bool {
	switch field {
	case "failurePolicy": // k8s.io/api/admissionregistration/v1: Fail is the default
		return after == "Ignore"
	case "matchPolicy": // Equivalent is the default
		return after == "Exact"
	case "validationActions":
		return allIn([]any{"Deny"}, before) && !allIn([]any{"Deny"}, after)
	case "rules", "resourceRules": // each adds requests that are checked
		return !rulesCovered(before, after)
	case "subjects":
		return !allIn(before, after)
	case "validations": // only the expression decides what is refused
		return !allIn(expressions(before), expressions(after))
	case "matchConditions", "excludeResourceRules": // each removes requests that are checked
		return !allIn(after, before)
	case "namespaceSelector", "objectSelector", "matchResources": // an empty one selects everything
		return after != nil
	case "variables", "paramKind", "paramRef", "policyName", "roleRef", "service", "url":
		return true
	}
	return false
}

// allIn reports whether each item is in the list. It is true for no items.
func allIn(items, list any) bool { return allMatch(items, list, equal) }

// rulesCovered reports whether one rule of the list by covers each rule.
func rulesCovered(rules, by any) bool { return allMatch(rules, by, ruleCovered) }

// allMatch reports whether each item matches an item of the list.
func allMatch(items, list any, match func(item, other any) bool) bool {
	some, _ := items.([]any)
	all, _ := list.([]any)
	for _, item := range some {
		if !slices.ContainsFunc(all, func(other any) bool { return match(item, other) }) {
			return false
		}
	}
	return true
}

// ruleCovered reports whether another rule of a registration, a policy or a role matches every request that rule
// matches. It returns false if that is not certain.
func ruleCovered(rule, other any) bool {
	narrow, _ := rule.(map[string]any)
	wide, _ := other.(map[string]any)
	for _, field := range fieldNames(narrow, wide) {
		before, after := narrow[field], wide[field]
		switch field {
		case "scope": // k8s.io/api/admissionregistration/v1: "*" is the default
			if !equal(before, after) && after != nil && after != "*" {
				return false
			}
		case "operations", "apiGroups", "apiVersions", "verbs":
			if !allIn(before, after) && !allIn([]any{"*"}, after) {
				return false
			}
		case "resources": // "*" does not include subresources
			if !allIn(before, after) {
				return false
			}
		case "resourceNames": // none are all names
			if !empty(after) && (empty(before) || !allIn(before, after)) {
				return false
			}
		default:
			if !equal(before, after) {
				return false
			}
		}
	}
	return true
}

// empty reports whether a list is missing or has no items.
func empty(list any) bool {
	items, _ := list.([]any)
	return len(items) == 0
}

// fieldNames returns the names of the fields of two objects, each once, sorted.
func fieldNames(a, b map[string]any) []string {
	all := slices.Concat(slices.Collect(maps.Keys(a)), slices.Collect(maps.Keys(b)))
	slices.Sort(all)
	return slices.Compact(all)
}

// expressions returns the expressions of a list of validations.
func expressions(validations any) []any {
	list, _ := validations.([]any)
	var all []any
	for _, v := range list {
		validation, _ := v.(map[string]any)
		all = append(all, validation["expression"])
	}
	return all
}

// byName returns the objects of a list by name.
func byName(list any) map[string]map[string]any {
	items, _ := list.([]any)
	named := map[string]map[string]any{}
	for _, item := range items {
		if object, ok := item.(map[string]any); ok {
			named[fmt.Sprint(object["name"])] = object
		}
	}
	return named
}

// prune removes empty objects and lists, which the API server adds as defaults, from a decoded JSON value. It returns
// nil if nothing is left. Empty strings stay: a selector for a label with an empty value differs from a selector
// without that label.
func prune(value any) any {
	switch v := value.(type) {
	case map[string]any:
		kept := map[string]any{}
		for key, inner := range v {
			if inner = prune(inner); inner != nil {
				kept[key] = inner
			}
		}
		if len(kept) == 0 {
			return nil
		}
		return kept
	case []any:
		kept := make([]any, 0, len(v))
		for _, inner := range v {
			kept = append(kept, prune(inner))
		}
		if len(kept) == 0 {
			return nil
		}
		return kept
	}
	return value
}

// equal compares values without their empty parts. Numbers of different types may be equal.
func equal(a, b any) bool {
	a, b = prune(a), prune(b)
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, equal)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	case nil:
		return b == nil
	}
	switch b.(type) {
	case nil, map[string]any, []any:
		return false
	}
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// brief returns a short text for a value, for messages.
func brief(value any) string {
	switch v := value.(type) {
	case nil:
		return "unset"
	case []any:
		var scalars []string
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return fmt.Sprintf("a list of length %d", len(v))
			}
			scalars = append(scalars, text)
		}
		return strings.Trim(quoteName("["+strings.Join(scalars, " ")+"]"), `"`)
	case map[string]any:
		return "an object with " + strings.Trim(quoteName(strings.Join(slices.Sorted(maps.Keys(v)), ", ")), `"`)
	}
	return quoteName(fmt.Sprint(value))
}

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

// Guard is an object by which the API server knows of the guard, as it should
// be and as it is: a ValidatingWebhookConfiguration, a ValidatingAdmissionPolicy
// or its binding, the ClusterRole or the ClusterRoleBinding by which the webhook
// is asked, as decoded from JSON.
type Guard struct {
	// At names it.
	At        finding.Location
	Installed map[string]any
	// Live is nil where there is none.
	Live map[string]any
}

// GuardFindings checks the guard itself. Nobody's webhook or policy is asked
// about such objects (k8s.io/apiserver pkg/admission/plugin/webhook/
// predicates/rules, IsExemptAdmissionConfigurationResource), so who may write
// them can turn the guard off; that it is told is all there is.
func GuardFindings(g Guard, now time.Time) []finding.Finding {
	return runAll(guardChecks(), g, now)
}

// LookedFor are the reasons for which [GuardFindings] could look.
func (g Guard) LookedFor() []finding.Reason { return lookedFor(guardChecks(), g) }

func (g Guard) exists() bool { return g.Live != nil }

func guardChecks() []check[Guard] {
	return []check[Guard]{
		{[]finding.Reason{finding.GuardMissing}, nil, guardExists},
		{[]finding.Reason{finding.GuardWeakened}, Guard.exists, guardAsInstalled},
	}
}

func guardExists(g Guard, _ time.Time) []finding.Finding {
	if g.exists() {
		return nil
	}
	return one(finding.GuardMissing, g.At, "it is gone, so what it refused is let through", "install the chart's release again (helm upgrade)")
}

// maxDifferences bounds how many are told.
const maxDifferences = 5

// guardAsInstalled: rules, selectors, conditions, failure policy and all else
// that says what is asked about and what becomes of it are as they were
// installed.
func guardAsInstalled(g Guard, _ time.Time) []finding.Finding {
	var all []string
	for _, field := range []string{"spec", "webhooks", "rules", "roleRef", "subjects"} {
		all = append(all, differences(field, g.Installed[field], g.Live[field])...)
	}
	if len(all) == 0 {
		return nil
	}
	if len(all) > maxDifferences {
		all = append(all[:maxDifferences], "…")
	}
	return one(finding.GuardWeakened, g.At, "it is not as it was installed: "+strings.Join(all, "; "), "install the chart's release again (helm upgrade), or find out who changed it and why")
}

// differences of two decoded JSON values, by path. What is only there now and
// empty is a default of the API server; a CA bundle may be somebody's to
// inject (service-ca, cert-manager), and a wrong one lets nothing through.
func differences(path string, installed, live any) []string {
	switch was := installed.(type) {
	case map[string]any:
		is, ok := live.(map[string]any)
		if !ok {
			break
		}
		var all []string
		for _, key := range slices.Sorted(maps.Keys(was)) {
			if key != "caBundle" {
				all = append(all, differences(path+"."+key, was[key], is[key])...)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(is)) {
			if _, known := was[key]; !known && key != "caBundle" && !empty(is[key]) {
				all = append(all, path+"."+key+" was added")
			}
		}
		return all
	case []any:
		is, ok := live.([]any)
		if !ok || len(is) != len(was) {
			break
		}
		var all []string
		for i := range was {
			all = append(all, differences(fmt.Sprintf("%s[%d]", path, i), was[i], is[i])...)
		}
		return all
	default:
		if empty(installed) && empty(live) || scalar(installed) && fmt.Sprint(installed) == fmt.Sprint(live) {
			return nil
		}
		if scalar(installed) && scalar(live) {
			return []string{fmt.Sprintf("%s is %s instead of %s", path, quoteName(fmt.Sprint(live)), quoteName(fmt.Sprint(installed)))}
		}
	}
	if empty(installed) && empty(live) {
		return nil
	}
	return []string{path + " is another"}
}

func scalar(value any) bool {
	switch value.(type) {
	case string, bool, int64, float64:
		return true
	}
	return false
}

func empty(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Selection has the facts about one entry of the protected Secrets: which namespaces its selector matches. An entry
// without a selector names its namespace.
type Selection struct {
	// Name of the Secrets. Selector is the label selector of their namespaces, empty if the entry has none.
	Name, Selector string
	// WhyUnknown says why it is not known which namespaces match, or which have such a Secret.
	WhyUnknown *finding.Result
	// NotSelected are namespaces that have such a Secret although the selector does not match them.
	NotSelected []string
}

// Check answers whether the entry selects every namespace that has such a Secret.
func (s Selection) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(finding.AddedSecret, selectionChecks(), s, now), time.Time{}
}

func selectionChecks() []check[Selection] {
	return []check[Selection]{{
		finding.Selected, nil,
		[]finding.Reason{finding.NamespaceNotSelected, finding.Unreadable, finding.NotObserved},
		func(s Selection) finding.Subject { return finding.Subject{Kind: "Secret", Name: s.Name} }, namespacesSelected,
	}}
}

// namespacesSelected: no namespace has a Secret of the name without the labels that select it. API servers call
// webhooks and evaluate policies by these labels (k8s.io/apiserver pkg/admission/plugin/webhook/predicates/namespace),
// so in such a namespace the guard refuses nothing. Anyone who can update a namespace can remove its labels.
func namespacesSelected(s Selection, _ time.Time) []finding.Result {
	switch {
	case s.Selector == "":
		return notApplicable("the configuration names the namespaces of the protected Secrets")
	case s.WhyUnknown != nil:
		return []finding.Result{Unknown(*s.WhyUnknown)}
	}
	var results []finding.Result
	for _, namespace := range s.NotSelected {
		results = append(results, single(finding.NamespaceNotSelected,
			finding.Subject{Kind: "Secret", Namespace: namespace, Name: s.Name},
			fmt.Sprintf("the labels of namespace %s do not match %s, so changes of this Secret are neither refused nor checked",
				namespace, quoteName(s.Selector)),
			"restore the labels of the namespace, and find out who removed them; if the Secret is not one of those to "+
				"protect, delete or rename it")...)
	}
	return results
}

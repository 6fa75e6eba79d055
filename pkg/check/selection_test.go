// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

func selectionFixtures() map[string]fixture {
	selection := func(
		selector string, whyUnknown *finding.Result, notSelected ...string,
	) func(finding.Family) []finding.Result {
		return func(finding.Family) []finding.Result {
			results, _ := check.Selection{
				Name: "a", Selector: selector, WhyUnknown: whyUnknown, NotSelected: notSelected,
			}.Check(pkitest.Now())
			return results
		}
	}
	return map[string]fixture{
		"all selected": {results: selection("hosted", nil)},
		"no selector":  {results: selection("", nil), want: []string{"selected notApplicable  @ Secret a"}},
		"two namespaces are not selected": {
			results: selection("hosted", nil, "x", "y"),
			want: []string{
				"selected fail NamespaceNotSelected @ Secret x/a", "selected fail NamespaceNotSelected @ Secret y/a",
			},
			mentions: `namespace x do not match "hosted"`,
		},
		"namespaces cannot be listed": {
			results: selection("hosted", because(finding.Unreadable), "x"), want: []string{"selected unknown Unreadable @ /why"},
		},
		"nothing was listed yet": {
			results: selection("hosted", because(finding.NotObserved)), want: []string{"selected unknown NotObserved @ /why"},
		},
	}
}

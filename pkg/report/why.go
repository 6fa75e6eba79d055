// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// whyNotVerified lists why a control is not compliant: first the findings, by reason and
// subject, then the requirements that were not observed, by cause.
func whyNotVerified(v control.Verdict) string {
	var parts []string
	if failed := failures(v); len(failed) > 0 {
		parts = append(parts, "failed: "+strings.Join(failed, ", "))
	}
	if unknown := byCause(v.Unmet(), whyUnknown); len(unknown) > 0 {
		parts = append(parts, "not observed: "+strings.Join(unknown, ", "))
	}
	return strings.Join(parts, "; ")
}

// failures lists the findings that fail a requirement of the control, each once.
func failures(v control.Verdict) []string {
	var failed []finding.Result
	for _, answer := range v.Unmet() {
		for _, r := range answer.Results {
			if r.Outcome == finding.Fail || answer.Strict && r.Outcome == finding.Warn {
				failed = append(failed, r)
			}
		}
	}
	var texts []string
	for _, f := range finding.Findings(failed) {
		texts = append(texts, string(f.Reason)+" ("+f.Subject.String()+")")
	}
	return texts
}

// notKnownForAll lists the requirements of a compliant control that are not known for all subjects, such as all Nodes,
// by cause. It is empty if all were observed.
func notKnownForAll(v control.Verdict) string {
	return strings.Join(byCause(v.Answers, func(answer control.Answer) string {
		if !answer.Supplementary {
			return ""
		}
		// If nothing was checked, that is the configuration.
		checked := slices.ContainsFunc(answer.Results, finding.Result.Observed)
		return causes(answer, func(r finding.Result) bool { return checked || r.Reason != finding.NotChecked })
	}), ", ")
}

// byCause lists the requirements of answers by why they are unknown, which is empty if they are known. A cause with
// several requirements has their number instead of their names, to keep the text short.
func byCause(answers []control.Answer, why func(control.Answer) string) []string {
	var inOrder []string // the causes, in the order of the requirements
	requirements := map[string][]string{}
	for _, answer := range answers {
		cause := why(answer)
		if cause == "" {
			continue
		}
		if requirements[cause] == nil {
			inOrder = append(inOrder, cause)
		}
		requirements[cause] = append(requirements[cause], string(answer.Requirement))
	}
	var texts []string
	for _, cause := range inOrder {
		what := requirements[cause][0]
		if n := len(requirements[cause]); n > 1 {
			what = fmt.Sprintf("%d requirements", n)
		}
		texts = append(texts, what+" ("+cause+")")
	}
	return texts
}

// whyUnknown lists the reasons and subjects that keep a requirement unknown. It is empty if
// the requirement is known.
func whyUnknown(answer control.Answer) string {
	if len(answer.Results) == 0 {
		return "no result"
	}
	return causes(answer, func(r finding.Result) bool { return !answer.Optional || r.Reason != finding.NotChecked })
}

// causes lists the reasons and subjects of the unknown results that count, each once.
func causes(answer control.Answer, counts func(finding.Result) bool) string {
	var all []string
	for _, r := range answer.Results {
		cause := strings.TrimSpace(string(r.Reason) + " " + r.Subject.String())
		if !r.Observed() && counts(r) && !slices.Contains(all, cause) {
			all = append(all, cause)
		}
	}
	return strings.Join(all, ", ")
}

// whyNotApplicable returns the observation that makes a control not applicable.
func whyNotApplicable(v control.Verdict) string {
	for _, r := range v.Results() {
		decides := v.Control.Platform == "" || r.Requirement == v.Control.Platform
		if decides && r.Outcome == finding.NotApplicable && r.Message != "" {
			return r.Message
		}
	}
	return "there is nothing here that the control applies to"
}

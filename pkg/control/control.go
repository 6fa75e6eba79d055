// SPDX-License-Identifier: Apache-2.0

// Package control has the controls: what each requires, and how its verdict follows from what was observed.
//
// A verdict depends on results only. It is never "compliant" while something that the control requires was not
// observed. Only the table in table.go names controls and numbers of benchmarks; documents, metrics, messages and
// docs/control-mapping.md are generated from it.
package control

import (
	"cmp"
	"slices"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Scope is what a document covers: one node, or the objects of one cluster.
type Scope int

// The scopes.
const (
	Node Scope = iota
	Cluster
)

// String returns the scope as the documents write it.
func (s Scope) String() string {
	if s == Node {
		return "node"
	}
	return "cluster"
}

// Control is a control of a benchmark, or one of the product's own.
type Control struct {
	// ID is short and never changes: "use-https".
	ID    string
	Title string
	// Refs are its numbers, one for each version of the benchmark.
	Refs []Ref
	// Mappings to other frameworks.
	Mappings []Mapping
	// Neighbour: its verdict is shown with the others. It does not affect the exit code, and
	// no Event reports it.
	Neighbour bool
	// Platform is the requirement about where the control plane runs. If it is not
	// applicable, the control is not applicable in that scope. If it is empty, the control
	// always applies.
	Platform     finding.Requirement
	Requirements []Required
	// Automated says what is checked automatically, LeftToTheAuditor what an auditor must check.
	Automated, LeftToTheAuditor string
}

// Ref is the number of a control in one version of a benchmark.
type Ref struct {
	// Benchmark is its name ("CIS OpenShift"), Prefix the first part of IDs.
	Benchmark, Prefix string
	Version, Number   string
}

// ID returns the ID of the reference: "cis-ocp-1.9:1.2.2".
func (r Ref) ID() string { return r.Prefix + "-" + r.Version + ":" + r.Number }

// Mapping names equivalent requirements of another framework.
type Mapping struct {
	Framework string
	Numbers   []string
}

// Required is a requirement of a control.
type Required struct {
	finding.Requirement
	Scopes []Scope
	// Optional: the control can be compliant if the requirement is not configured to be
	// checked ([finding.NotChecked]). The document then lists it as not checked.
	Optional bool
	// Supplementary: the control can be compliant although the requirement is unknown, whatever the reason. It is about
	// something that comes and goes, such as Nodes or endpoints. If it fails for one subject, the control fails.
	Supplementary bool
	// ObservedOnce: a supplementary requirement must be observed for at least one subject, unless it is not checked.
	ObservedOnce bool
	// Strict: a warning fails the requirement. The same reason may be a warning for one
	// control and a failure for another: with unverified kubelet certificates the
	// kube-apiserver still uses https, but the control on the kubelet CA fails.
	Strict bool
}

// In reports whether the requirement belongs to the scope.
func (r Required) In(s Scope) bool { return slices.Contains(r.Scopes, s) }

// outcome returns the outcome of a result for this requirement.
func (r Required) outcome(result finding.Result) finding.Outcome {
	if r.Strict && result.Outcome == finding.Warn {
		return finding.Fail
	}
	return result.Outcome
}

// Status is the result of a verdict.
type Status int

// The verdicts. CouldNotVerify is the zero value.
const (
	// CouldNotVerify: no requirement fails, and one or more were not observed.
	CouldNotVerify Status = iota
	// NotCompliant: a requirement fails.
	NotCompliant
	// NotApplicable: the control plane runs elsewhere, or no requirement applies.
	NotApplicable
	// Compliant: all requirements were observed, and none fails. There may be warnings.
	Compliant
)

// String returns the status for people.
func (s Status) String() string {
	switch s {
	case Compliant:
		return "compliant"
	case NotCompliant:
		return "not compliant"
	case NotApplicable:
		return "not applicable"
	case CouldNotVerify:
		return "could not verify"
	}
	return "could not verify"
}

// Word returns the status for programs. It is a contract of the JSON documents.
func (s Status) Word() string {
	switch s {
	case Compliant:
		return "Compliant"
	case NotCompliant:
		return "NotCompliant"
	case NotApplicable:
		return "NotApplicable"
	case CouldNotVerify:
		return "CouldNotVerify"
	}
	return "CouldNotVerify"
}

// rank orders statuses, worst first.
func (s Status) rank() int {
	switch s {
	case NotCompliant:
		return 0
	case NotApplicable:
		return 2
	case Compliant:
		return 3
	case CouldNotVerify:
		return 1
	}
	return 1
}

// Verdict is the verdict about a control in a scope.
type Verdict struct {
	Control Control
	Scope   Scope
	Status  Status
	// Answers has an answer for each requirement of the scope, in the order of the table.
	Answers []Answer
}

// Answer is what was observed of one requirement.
type Answer struct {
	Required
	// Outcome is the worst outcome of its results, or [finding.Unknown] without results.
	Outcome finding.Outcome
	// Results of the requirement, in the given order.
	Results []finding.Result
	// Met: the control can be compliant with this answer.
	Met bool
}

// Judge returns the verdict that follows from the results. It ignores results of requirements that
// the control does not have. The first of these statuses that applies is the verdict: the control
// plane runs elsewhere, failed, not observed, compliant.
func (c Control) Judge(scope Scope, results []finding.Result) Verdict {
	verdict := Verdict{Control: c, Scope: scope, Status: Compliant}
	var failed, unmet, applies bool
	for _, required := range c.Requirements {
		if !required.In(scope) {
			continue
		}
		answer := answer(required, results)
		verdict.Answers = append(verdict.Answers, answer)
		failed = failed || answer.Outcome == finding.Fail
		unmet = unmet || !answer.Met
		applies = applies || answer.Outcome != finding.NotApplicable && required.Requirement != c.Platform
		if required.Requirement == c.Platform && answer.Outcome == finding.NotApplicable {
			verdict.Status = NotApplicable
		}
	}
	switch {
	case verdict.Status == NotApplicable:
	case failed:
		verdict.Status = NotCompliant
	case len(verdict.Answers) == 0 || unmet:
		verdict.Status = CouldNotVerify
	case !applies:
		verdict.Status = NotApplicable
	}
	return verdict
}

func answer(required Required, results []finding.Result) Answer {
	answer := Answer{Required: required, Outcome: finding.NotApplicable, Met: true}
	observed, unobserved := false, false
	for _, r := range results {
		if r.Requirement != required.Requirement {
			continue
		}
		answer.Results = append(answer.Results, r)
		outcome := required.outcome(r)
		if worse(outcome, answer.Outcome) {
			answer.Outcome = outcome
		}
		switch outcome {
		case finding.Fail:
			answer.Met = false
		case finding.Unknown:
			unobserved = unobserved || !required.Optional || r.Reason != finding.NotChecked
		case finding.Pass, finding.Warn:
			observed = true
		case finding.NotApplicable: // of a Node that was deleted, for example
		}
	}
	if unobserved && (!required.Supplementary || required.ObservedOnce && !observed) {
		answer.Met = false
	}
	if answer.Results == nil {
		answer.Outcome, answer.Met = finding.Unknown, false
	}
	return answer
}

// worse reports whether a is worse than b. The order is fail, unknown, warn, pass, not applicable.
func worse(a, b finding.Outcome) bool {
	order := []finding.Outcome{finding.Fail, finding.Unknown, finding.Warn, finding.Pass, finding.NotApplicable}
	return slices.Index(order, a) < slices.Index(order, b)
}

// Unmet returns the answers because of which the control is not compliant.
func (v Verdict) Unmet() []Answer {
	return slices.DeleteFunc(slices.Clone(v.Answers), func(a Answer) bool { return a.Met })
}

// Worst returns the worst status of several verdicts, without neighbours. The order is not
// compliant, could not verify, not applicable, compliant. It is [CouldNotVerify] without
// verdicts.
func Worst(verdicts []Verdict) Status {
	counted := slices.DeleteFunc(slices.Clone(verdicts), func(v Verdict) bool { return v.Control.Neighbour })
	if len(counted) == 0 {
		return CouldNotVerify
	}
	return slices.MinFunc(counted, func(a, b Verdict) int { return cmp.Compare(a.Status.rank(), b.Status.rank()) }).Status
}

// Of returns the first control that has the requirement. Messages about the requirement name
// it. ok is false if no control has it.
func Of(r finding.Requirement) (c Control, ok bool) {
	for _, c := range Table() {
		if slices.ContainsFunc(c.Requirements, func(required Required) bool { return required.Requirement == r }) {
			return c, true
		}
	}
	return Control{}, false
}

// RefIDs returns the IDs of the control's numbers, or its own ID if no benchmark has it.
func (c Control) RefIDs() []string {
	var ids []string
	for _, ref := range c.Refs {
		ids = append(ids, ref.ID())
	}
	if ids == nil {
		ids = []string{c.ID}
	}
	return ids
}

// String returns the name for people: "CIS OpenShift 1.2.4 (1.2.2 from v1.8)", or the title if
// no benchmark has it.
func (c Control) String() string {
	if len(c.Refs) == 0 {
		return c.Title
	}
	text, number := c.Refs[0].Benchmark+" "+c.Refs[0].Number, c.Refs[0].Number
	for _, ref := range c.Refs[1:] {
		if ref.Number != number {
			text, number = text+" ("+ref.Number+" from v"+ref.Version+")", ref.Number
		}
	}
	return text
}

// Results returns the results of all answers.
func (v Verdict) Results() []finding.Result {
	var all []finding.Result
	for _, answer := range v.Answers {
		all = append(all, answer.Results...)
	}
	return all
}

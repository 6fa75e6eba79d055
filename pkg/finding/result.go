// SPDX-License-Identifier: Apache-2.0

// Package finding has the types in which all parts of the guard report what they
// observed: a [Result] answers one [Requirement] for one [Subject] with one
// [Outcome], and, unless it passes, a [Reason].
//
// Only an observation meets a requirement. What could not be observed is
// Unknown, which is the zero value, and never counts as met.
//
// Package control decides which results make a control compliant.
package finding

import (
	"cmp"
	"slices"
)

// Requirement is what a control requires of a subject: "client-files/pair". Package
// control has the table of all requirements.
type Requirement string

// Outcome is the answer to a requirement.
type Outcome int

// The outcomes. Unknown is the zero value, so that nothing passes by mistake.
const (
	// Unknown: it was not observed. The reason says why.
	Unknown Outcome = iota
	// Pass: it is met.
	Pass
	// Warn: it is met, but is weakened or will fail soon.
	Warn
	// Fail: it is not met.
	Fail
	// NotApplicable: the requirement does not apply to the subject.
	NotApplicable
)

// String returns the outcome as the documents write it.
func (o Outcome) String() string {
	switch o {
	case Pass:
		return "pass"
	case Warn:
		return "warn"
	case Fail:
		return "fail"
	case NotApplicable:
		return "notApplicable"
	case Unknown:
		return "unknown"
	}
	return "unknown"
}

// Severity returns the word that logs, metrics and documents use for the outcome of a
// finding: Violation, Warning or Unverified. It is empty for an outcome that is not a
// finding.
func (o Outcome) Severity() string {
	switch o {
	case Fail:
		return "Violation"
	case Warn:
		return "Warning"
	case Pass, NotApplicable:
		return ""
	case Unknown:
		return "Unverified"
	}
	return "Unverified"
}

// rank orders outcomes, worst first: an unknown outcome is worse than a warning.
func (o Outcome) rank() int {
	switch o {
	case Fail:
		return 0
	case Warn:
		return 2
	case Pass:
		return 3
	case NotApplicable:
		return 4
	case Unknown:
		return 1
	}
	return 1
}

// Result answers one requirement for one subject.
type Result struct {
	Requirement Requirement
	// Subject that was checked, or could not be checked.
	Subject Subject
	Outcome Outcome
	// Reason is empty for Pass.
	Reason Reason
	// Message says what was observed, Remedy what to do. A pass has no remedy, and a message
	// only for an assumption or a remark.
	Message string
	Remedy  string
}

// ID identifies a finding. A finding is the same one as long as its reason and subject are the
// same; its message may change.
type ID struct {
	Reason  Reason
	Subject Subject
}

// ID returns the ID of the result as a finding.
func (r Result) ID() ID { return ID{r.Reason, r.Subject} }

// IsFinding reports whether the result must be reported: the requirement fails, is weakened, or
// could not be observed. Only documents contain what is not configured to be checked
// ([NotChecked]).
func (r Result) IsFinding() bool {
	switch r.Outcome {
	case Warn, Fail:
		return true
	case Pass, NotApplicable:
		return false
	case Unknown:
		return r.Reason != NotChecked
	}
	return true
}

// Observed reports whether the requirement was observed for the subject.
func (r Result) Observed() bool { return r.Outcome != Unknown }

// Findings returns the results that are findings, worst first, each [ID] once: several
// requirements may be unknown for the same reason, which is one finding. Of results with the
// same ID it keeps the worst, and the first of equally bad ones.
func Findings(results []Result) []Result {
	var findings []Result
	index := map[ID]int{}
	for _, r := range results {
		if !r.IsFinding() {
			continue
		}
		i, known := index[r.ID()]
		switch {
		case !known:
			index[r.ID()] = len(findings)
			findings = append(findings, r)
		case r.Outcome.rank() < findings[i].Outcome.rank():
			findings[i] = r
		}
	}
	Sort(findings)
	return findings
}

// Sort sorts results in place: worst first, then by reason, subject and requirement.
func Sort(results []Result) {
	slices.SortStableFunc(results, func(a, b Result) int {
		return cmp.Or(
			cmp.Compare(a.Outcome.rank(), b.Outcome.rank()),
			cmp.Compare(a.Reason, b.Reason),
			a.Subject.Compare(b.Subject),
			cmp.Compare(a.Requirement, b.Requirement),
		)
	})
}

// Introduced returns the findings of after that before does not have. An object that does not
// exist has findings, too, so this works for a create, an update and a delete.
func Introduced(before, after []Result) []Result {
	known := map[ID]bool{}
	for _, f := range Findings(before) {
		known[f.ID()] = true
	}
	return slices.DeleteFunc(Findings(after), func(f Result) bool { return known[f.ID()] })
}

// WithOutcome returns the results with an outcome, in their order.
func WithOutcome(results []Result, o Outcome) []Result {
	var matching []Result
	for _, r := range results {
		if r.Outcome == o {
			matching = append(matching, r)
		}
	}
	return matching
}

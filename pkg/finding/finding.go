// SPDX-License-Identifier: Apache-2.0

// Package finding holds the words in which everything here is said: a
// [Finding] is one thing that is wrong, at one place, with a [Reason] that
// fixes its [Severity].
//
// The package knows nothing of Kubernetes, certificates or files. It does not
// decide anything either: who reads findings (admission, audit, node agent)
// looks at their severity and at the difference between two sets, see [Diff].
package finding

import (
	"cmp"
	"slices"
)

// ControlTitle names the one control that every finding here is about.
const ControlTitle = "Use https for kubelet connections"

// Controls are its numbers: 1.2.4 in the CIS OpenShift benchmark up to v1.7,
// 1.2.2 from v1.9, where 1.2.4 became another control.
func Controls() []string {
	return []string{"cis-ocp-1.7:1.2.4", "cis-ocp-1.9:1.2.2"}
}

// ControlsText is [Controls] as people write it.
const ControlsText = "CIS OpenShift 1.2.4 (1.2.2 from v1.9)"

// Severity says what a finding means for the control. It alone drives the
// admission decision, the type of the Event and the exit code.
type Severity int

const (
	// Unverified: it could not be looked at. It is the zero value, so that
	// nothing is ever silently fine.
	Unverified Severity = iota
	// Info is worth telling; the control holds.
	Info
	// Warning: the control holds, but is weakened or about to fail.
	Warning
	// Violation: the control does not hold.
	Violation
)

// String is the severity's name as it stands in logs and reports.
func (s Severity) String() string {
	switch s {
	case Info:
		return "Info"
	case Warning:
		return "Warning"
	case Violation:
		return "Violation"
	case Unverified:
		return "Unverified"
	}
	return "Unverified"
}

// Location is the place that a finding is about, in the notation of its kind:
// a path on the host ("/etc/kubernetes/kubelet-ca.crt"), a Secret's key
// ("Secret openshift-apiserver/serving-cert tls.crt"), an argument of a
// configuration ("/etc/…/config.yaml apiServerArguments.kubelet-client-key").
type Location string

// Finding is one thing that is wrong (or, with [Info], worth telling).
//
// Reason and Location are its identity. Message and Remedy are for people,
// one line each without a final full stop; they may change while the finding
// stands. Neither ever holds bytes of a private key or values of a Secret.
type Finding struct {
	Reason   Reason
	Location Location
	// Message says what was seen.
	Message string
	// Remedy says what to do about it.
	Remedy string
}

// ID is what two findings must share to be the same one.
type ID struct {
	Reason   Reason
	Location Location
}

// ID returns the finding's identity.
func (f Finding) ID() ID { return ID{f.Reason, f.Location} }

// Severity is that of the finding's reason.
func (f Finding) Severity() Severity { return f.Reason.Severity() }

// Sort returns the findings worst first, then by reason and location, without
// duplicates: the order in which they are told.
func Sort(findings []Finding) []Finding {
	sorted := slices.Clone(findings)
	slices.SortStableFunc(sorted, func(a, b Finding) int {
		return cmp.Or(
			// Unverified is as bad as anything but a Violation.
			cmp.Compare(weight(b.Severity()), weight(a.Severity())),
			cmp.Compare(a.Reason, b.Reason),
			cmp.Compare(a.Location, b.Location),
		)
	})
	return slices.CompactFunc(sorted, func(a, b Finding) bool { return a.ID() == b.ID() })
}

// Diff compares two sets of findings by identity: raised stand only in after,
// cleared only in before, both in the order of [Sort]. What stands in both is
// neither, even if its message differs.
//
// It is the one rule of admission: what a change introduces is what Diff
// raises between the findings of the old and of the new object.
func Diff(before, after []Finding) (raised, cleared []Finding) {
	return without(after, before), without(before, after)
}

// without returns the findings whose identity is not among those of others.
func without(findings, others []Finding) []Finding {
	known := make(map[ID]bool, len(others))
	for _, f := range others {
		known[f.ID()] = true
	}
	var rest []Finding
	for _, f := range findings {
		if !known[f.ID()] {
			rest = append(rest, f)
		}
	}
	return Sort(rest)
}

// OfSeverity returns the findings of one severity, in their order.
func OfSeverity(findings []Finding, s Severity) []Finding {
	var some []Finding
	for _, f := range findings {
		if f.Severity() == s {
			some = append(some, f)
		}
	}
	return some
}

// Verdict is what a set of findings says about the control as a whole.
type Verdict int

const (
	// CouldNotVerify: something could not be looked at and nothing is known
	// to be violated. It is the zero value.
	CouldNotVerify Verdict = iota
	// Compliant: all was looked at, and no Violation stands.
	Compliant
	// NotCompliant: a Violation stands.
	NotCompliant
)

// String is the verdict as people read it.
func (v Verdict) String() string {
	switch v {
	case Compliant:
		return "compliant"
	case NotCompliant:
		return "not compliant"
	case CouldNotVerify:
		return "could not verify"
	}
	return "could not verify"
}

// VerdictOf sums findings up: a Violation outweighs Unverified, Warnings and
// Infos leave the control compliant. No findings at all are compliant, so the
// caller must have looked.
func VerdictOf(findings []Finding) Verdict {
	verdict := Compliant
	for _, f := range findings {
		switch f.Severity() {
		case Violation:
			return NotCompliant
		case Unverified:
			verdict = CouldNotVerify
		case Info, Warning:
		}
	}
	return verdict
}

func weight(s Severity) int {
	switch s {
	case Violation:
		return 3
	case Unverified:
		return 2
	case Warning:
		return 1
	case Info:
		return 0
	}
	return 2
}

// SPDX-License-Identifier: Apache-2.0

// Package evidence writes the results and verdicts of one check as a report: a table for
// people, JSON with its own schema, JUnit XML, SARIF or OpenReports.
//
// It checks and judges nothing itself: verdicts come from package control. It writes the
// public part of certificates, and never keys or Secret values.
package evidence

import (
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Format is the format of a report. It can be the value of a flag.
type Format int

// All formats.
const (
	// Table is text for people, the verdicts first.
	Table Format = iota
	// JSON follows docs/evidence.schema.json.
	JSON
	// JUnit is the XML that CI servers read: one test case for each requirement.
	JUnit
	// SARIF is version 2.1.0 of the OASIS standard.
	SARIF
	// OpenReports is a ClusterReport of openreports.io/v1alpha1, to be applied.
	OpenReports
)

var formats = []struct {
	name  string
	write func(io.Writer, Document, Options) error
}{
	Table:       {"table", writeTable},
	JSON:        {"json", writeJSON},
	JUnit:       {"junit", writeJUnit},
	SARIF:       {"sarif", writeSARIF},
	OpenReports: {"openreports", writeOpenReport},
}

// MarshalText implements [encoding.TextMarshaler].
func (f Format) MarshalText() ([]byte, error) { return []byte(formats[f].name), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *Format) UnmarshalText(text []byte) error {
	for format, known := range formats {
		if known.name == string(text) {
			*f = Format(format)
			return nil
		}
	}
	return errors.New("must be table, json, junit, sarif or openreports")
}

// Options of [Write].
type Options struct {
	// Colour writes a table in colours. Other formats have none.
	Colour bool
}

// Exit returns the exit code of the worst verdict, without neighbours.
func (d Document) Exit() command.Exit {
	switch control.Worst(d.Verdicts) {
	case control.Compliant:
		return command.ExitOK
	case control.NotCompliant:
		return command.ExitNotCompliant
	case control.NotApplicable:
		return command.ExitNotApplicable
	case control.CouldNotVerify:
		return command.ExitCouldNotVerify
	}
	return command.ExitCouldNotVerify
}

// Document is the content of a report. Empty fields were not known.
type Document struct {
	// At is the time of the check.
	At time.Time
	// Generator is the program that checked, Version its version.
	Generator, Version string
	// Kind and Name of what was checked: "Node", "master-0".
	Kind, Name string
	// FoundBy says how the files were found.
	FoundBy string
	// Revision of the static Pod, if there are revisions.
	Revision string
	// Examined are the files and objects that were checked.
	Examined []Examined
	// Certificates that were seen there.
	Certificates []Certificate
	// Verdicts on each control, in the order of the report. The first one is that of the
	// document's main control.
	Verdicts []control.Verdict
	// Results are all results behind the verdicts, including those that pass, in any order.
	Results []finding.Result
	// Checked are all reasons that could be checked. Duplicates count once.
	Checked []finding.Reason
	// WhoCanDisable says who could disable the guard; nil if that was not asked. It has no influence on verdicts, and only
	// the formats table, json and junit have it.
	WhoCanDisable *WhoCanDisable
}

// WhoCanDisable lists the subjects that could disable the guard.
type WhoCanDisable struct {
	// Unknown says why they are not known; Actions is empty then.
	Unknown string
	Actions []Action
}

// Action is a way to disable the guard or to act in spite of it.
type Action struct {
	Description string
	// Permissions that allow it, any one of them.
	Permissions []string
	// Subjects that have such a permission, without the Omitted ones.
	Subjects []ActionSubject
	Omitted  int
}

// ActionSubject is a subject of RBAC, and the bindings that give it the permission.
type ActionSubject struct {
	Kind, Namespace, Name string
	// Everyone: a group of all users or all ServiceAccounts. Platform: part of Kubernetes or OpenShift.
	Everyone, Platform bool
	Grants             []Grant
}

// Grant is a binding and its role.
type Grant struct{ Binding, Role string }

// Examined is a file or object that was checked, with its role.
type Examined struct {
	Role    string
	Subject finding.Subject
}

// Certificate is a certificate that was seen, with its role.
type Certificate struct {
	Role    string
	Subject finding.Subject
	X509    *x509.Certificate
}

// Write writes the document. It returns the writer's error.
//
// A requirement of a verdict without a result is written as not observed.
func Write(w io.Writer, format Format, d Document, o Options) error {
	d = d.complete()
	d.Checked = slices.Clone(d.Checked)
	for _, f := range d.findings() {
		// A reason that was found was checked.
		d.Checked = append(d.Checked, f.Reason)
	}
	slices.Sort(d.Checked)
	d.Checked = slices.Compact(d.Checked)
	return formats[format].write(w, d, o)
}

// complete returns the document with a result for each requirement of its verdicts, so that
// every format reports a requirement that no check answered.
func (d Document) complete() Document {
	d.Results, d.Verdicts = slices.Clone(d.Results), slices.Clone(d.Verdicts)
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		v.Answers = slices.Clone(v.Answers)
		for j := range v.Answers {
			a := &v.Answers[j]
			if len(a.Results) > 0 {
				continue
			}
			missing := finding.Result{
				Requirement: a.Requirement, Subject: finding.Subject{Kind: d.Kind, Name: d.Name}, Reason: finding.NotObserved,
				Message: "no check returned a result for this requirement",
				Remedy:  "report this as a bug of " + d.Generator,
			}
			a.Results = []finding.Result{missing}
			if !slices.Contains(d.Results, missing) {
				d.Results = append(d.Results, missing)
			}
		}
	}
	return d
}

// subject of the document: "Node/master-0".
func (d Document) subject() string {
	if d.Name == "" {
		return d.Kind
	}
	return d.Kind + "/" + d.Name
}

func (d Document) findings() []finding.Result { return finding.Findings(d.Results) }

// control returns the document's main control: that of its first verdict.
func (d Document) control() control.Control {
	if len(d.Verdicts) == 0 {
		return control.Table()[0]
	}
	return d.Verdicts[0].Control
}

// counted returns the verdicts that count for the exit code.
func (d Document) counted() []control.Verdict {
	return slices.DeleteFunc(slices.Clone(d.Verdicts), func(v control.Verdict) bool { return v.Control.Neighbour })
}

// skipped reports whether a result did not have to be observed: it is not applicable, or it
// was not checked and no verdict that counts needs it.
func (d Document) skipped(r finding.Result) bool {
	needed := func(v control.Verdict) bool {
		return v.Status != control.NotApplicable &&
			slices.ContainsFunc(v.Answers, func(a control.Answer) bool { return a.Requirement == r.Requirement && !a.Optional })
	}
	return r.Outcome == finding.NotApplicable ||
		r.Outcome == finding.Unknown && r.Reason == finding.NotChecked && !slices.ContainsFunc(d.counted(), needed)
}

// controlsOf returns the IDs of the document's controls that a finding counts for. It includes
// those of all results with this finding.
func (d Document) controlsOf(f finding.Result) []string {
	ids := []string{}
	for _, v := range d.Verdicts {
		if slices.ContainsFunc(v.Answers, func(a control.Answer) bool {
			return slices.ContainsFunc(a.Results, func(r finding.Result) bool { return r.IsFinding() && r.ID() == f.ID() })
		}) {
			ids = append(ids, v.Control.ID)
		}
	}
	return ids
}

// distinct returns the values in their order, each once, without zero values.
func distinct[T comparable](values []T) []T {
	some := []T{}
	var zero T
	for _, value := range values {
		if value != zero && !slices.Contains(some, value) {
			some = append(some, value)
		}
	}
	return some
}

func reasons(results []finding.Result) []finding.Reason {
	all := make([]finding.Reason, len(results))
	for i, r := range results {
		all[i] = r.Reason
	}
	return distinct(all)
}

func subjects(results []finding.Result) []finding.Subject {
	all := make([]finding.Subject, len(results))
	for i, r := range results {
		all[i] = r.Subject
	}
	return distinct(all)
}

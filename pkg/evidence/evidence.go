// SPDX-License-Identifier: Apache-2.0

// Package evidence writes what was found at one moment for those who keep
// records of it: a table for people, JSON of our own schema, JUnit XML, SARIF.
//
// It does not look at anything itself and does not judge beyond
// [finding.VerdictOf]. Of certificates it writes the public part, of keys and
// Secrets nothing.
package evidence

import (
	"crypto/x509"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Format is how evidence is written. It reads and writes itself as text, as a
// flag's value must.
type Format int

// The formats there are.
const (
	// Table is text for people, the verdict first.
	Table Format = iota
	// JSON follows docs/evidence.schema.json.
	JSON
	// JUnit is the XML that CI servers read: one test case for each reason
	// that was looked for.
	JUnit
	// SARIF is version 2.1.0 of the OASIS standard.
	SARIF
	// OpenReports is a ClusterReport of openreports.io/v1alpha1, to be applied.
	OpenReports
	// ColouredTable is [Table] with colours. No flag names it: see [Format.Coloured].
	ColouredTable
)

var formats = []struct {
	name  string
	write func(io.Writer, Document) error
}{
	Table: {"table", writeTable},
	JSON:  {"json", writeJSON},
	JUnit: {"junit", writeJUnit},
	SARIF: {"sarif", writeSARIF},

	OpenReports: {"openreports", writeOpenReport},

	ColouredTable: {"", writeColouredTable},
}

// MarshalText implements [encoding.TextMarshaler].
func (f Format) MarshalText() ([]byte, error) {
	if f == ColouredTable {
		f = Table
	}
	return []byte(formats[f].name), nil
}

// Coloured is the format for who may be shown colours, or not: only a table has
// any.
func (f Format) Coloured(yes bool) Format {
	if f == Table && yes {
		return ColouredTable
	}
	return f
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *Format) UnmarshalText(text []byte) error {
	for format, known := range formats {
		if known.name == string(text) && known.name != "" {
			*f = Format(format)
			return nil
		}
	}
	return fmt.Errorf("%q is not table, json, junit, sarif or openreports", text)
}

// Exit codes of programs that look once. They are a contract.
const (
	ExitCompliant  = 0
	ExitViolation  = 1
	ExitUnverified = 2
	ExitFailed     = 3 // the program itself failed
	ExitUsage      = 64
)

// ExitCode is that of the document's verdict.
func (d Document) ExitCode() int {
	switch finding.VerdictOf(d.Findings) {
	case finding.Compliant:
		return ExitCompliant
	case finding.NotCompliant:
		return ExitViolation
	case finding.CouldNotVerify:
		return ExitUnverified
	}
	return ExitUnverified
}

// Document is all that is written. What is empty was not known.
type Document struct {
	// At is the moment for which all of it holds.
	At time.Time
	// Generator is the program that looked, with its version.
	Generator, Version string
	// Kind and Name of what was looked at: "Node", "master-0".
	Kind, Name string
	// FoundBy says in words how it was found out where to look.
	FoundBy string
	// Revision of the static Pod, where there are revisions.
	Revision string
	// Examined are the places that were looked at.
	Examined []Examined
	// Certificates that were seen there.
	Certificates []Certificate
	// Checked are all reasons that were looked for; a reason that comes more
	// than once counts as one.
	Checked []finding.Reason
	// Findings are what was found, in any order.
	Findings []finding.Finding
}

// Examined is one place that was looked at, by what it is for.
type Examined struct {
	Role     string           `json:"role"`
	Location finding.Location `json:"location"`
}

// Certificate is one that was seen, by what it is for.
type Certificate struct {
	Role     string
	Location finding.Location
	X509     *x509.Certificate
}

// Write writes the document. Its error is the writer's.
func Write(w io.Writer, format Format, d Document) error {
	d.Checked = slices.Clone(d.Checked)
	for _, f := range d.Findings {
		// What was found was looked for.
		d.Checked = append(d.Checked, f.Reason)
	}
	slices.Sort(d.Checked)
	d.Checked = slices.Compact(d.Checked)
	d.Findings = finding.Sort(d.Findings)
	return formats[format].write(w, d)
}

func (d Document) subject() string {
	if d.Name == "" {
		return d.Kind
	}
	return d.Kind + "/" + d.Name
}

// withReason are the findings of one reason, in their order.
func (d Document) withReason(reason finding.Reason) []finding.Finding {
	var some []finding.Finding
	for _, f := range d.Findings {
		if f.Reason == reason {
			some = append(some, f)
		}
	}
	return some
}

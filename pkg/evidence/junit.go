// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// JUnit has no standard; this is what its two usual schemas (of Jenkins and of
// Apache Ant) have in common. There a case has at most one failure or error
// and no output of its own, and a time has no zone.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		ID         int             `xml:"id,attr"`
		Package    string          `xml:"package,attr"`
		Name       string          `xml:"name,attr"`
		Hostname   string          `xml:"hostname,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Time       int             `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
		Out        string          `xml:"system-out"`
		Err        string          `xml:"system-err"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name      string        `xml:"name,attr"`
		Classname string        `xml:"classname,attr"`
		Time      int           `xml:"time,attr"`
		Failure   *junitOutcome `xml:"failure"`
		Error     *junitOutcome `xml:"error"`
	}
	junitOutcome struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes one case for each reason that was looked for: a Violation
// fails it, what could not be looked at is its error, and a Warning lets it
// pass. The table is the suite's output.
func writeJUnit(w io.Writer, d Document) error {
	var table bytes.Buffer
	// A buffer takes everything.
	_ = writeTable(&table, d)
	suite := junitSuite{
		Package: d.Generator, Name: finding.ControlTitle, Hostname: orUnknown(d.Name),
		Timestamp:  d.At.UTC().Format("2006-01-02T15:04:05"),
		Properties: []junitProperty{{"controls", strings.Join(finding.Controls(), " ")}, {"version", d.Version}, {"verdict", verdict(d)}},
		Out:        table.String(),
	}
	for _, reason := range d.Checked {
		one := junitCase{Name: string(reason), Classname: d.subject()}
		outcome := junitOutcomeOf(reason, d.withReason(reason))
		switch {
		case outcome == nil:
		case reason.Severity() == finding.Violation:
			one.Failure, suite.Failures = outcome, suite.Failures+1
		case reason.Severity() == finding.Unverified:
			one.Error, suite.Errors = outcome, suite.Errors+1
		}
		suite.Cases = append(suite.Cases, one)
	}
	suite.Tests = len(suite.Cases)
	text, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{suite}}, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, text)
	return err
}

func junitOutcomeOf(reason finding.Reason, findings []finding.Finding) *junitOutcome {
	if len(findings) == 0 {
		return nil
	}
	var text strings.Builder
	for _, f := range findings {
		_, _ = fmt.Fprintf(&text, "%s\n%s\n%s\n", printable(string(f.Location)), printable(f.Message), printable(f.Remedy))
	}
	return &junitOutcome{Type: string(reason), Message: printable(findings[0].Message), Text: text.String()}
}

// orUnknown: a host without a name is no valid value.
func orUnknown(name string) string {
	if name == "" {
		return "unknown"
	}
	return name
}

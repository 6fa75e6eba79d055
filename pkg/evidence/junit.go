// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// JUnit has no standard. This is the common part of its two usual schemas (Jenkins and
// Apache Ant): a case has at most one failure, error or skipped element and no output of its
// own, a skipped element has text and no attributes, and a time has no zone.
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
		Skipped    int             `xml:"skipped,attr"`
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
		Skipped   *string       `xml:"skipped"`
		Error     *junitOutcome `xml:"error"`
		Failure   *junitOutcome `xml:"failure"`
	}
	junitOutcome struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes one case for each requirement of the controls that count. So the suite
// passes if the exit code is that of compliant or not applicable. A case with a warning
// passes; the warning is in the suite's output, which is the table.
func writeJUnit(w io.Writer, d Document, _ Options) error {
	var table bytes.Buffer
	// Writing to a buffer never fails.
	_ = writeTable(&table, d, Options{})
	own := d.control()
	suite := junitSuite{
		Package: d.Generator, Name: own.Title, Hostname: orUnknown(d.Name),
		Timestamp: d.At.UTC().Format("2006-01-02T15:04:05"),
		Properties: []junitProperty{
			{"controls", strings.Join(own.RefIDs(), " ")}, {"version", d.Version}, {"verdict", control.Worst(d.Verdicts).Word()},
		},
		Out: table.String(),
	}
	for _, v := range d.Verdicts {
		suite.Properties = append(suite.Properties, junitProperty{"verdict " + v.Control.ID, v.Status.Word()})
	}
	for _, a := range d.answers() {
		one := junitCase{Name: string(a.Requirement), Classname: d.subject()}
		switch {
		case a.Outcome == finding.Fail:
			one.Failure, suite.Failures = junitOutcomeOf(a), suite.Failures+1
		case !a.Met:
			one.Error, suite.Errors = junitOutcomeOf(a), suite.Errors+1
		case a.Outcome == finding.Unknown, a.Outcome == finding.NotApplicable:
			text := junitText(notPassed(a))
			one.Skipped, suite.Skipped = &text, suite.Skipped+1
		}
		suite.Cases = append(suite.Cases, one)
	}
	if control.Worst(d.Verdicts) == control.CouldNotVerify && suite.Errors == 0 {
		// A control without requirements, or no control, must not pass.
		suite.Cases, suite.Errors = append(
			suite.Cases,
			junitCase{Name: "verdict", Classname: d.subject(), Error: &junitOutcome{
				Type: string(finding.NotObserved), Message: "there are no requirements, so nothing was verified",
			}},
		), 1
	}
	suite.Tests = len(suite.Cases)
	text, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{suite}}, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, text)
	return err
}

// answers returns the worst answer to each requirement of the controls that count. If a
// control is not applicable, its answers are not applicable either.
func (d Document) answers() []control.Answer {
	var answers []control.Answer
	index := map[finding.Requirement]int{}
	for _, v := range d.counted() {
		for _, a := range v.Answers {
			if v.Status == control.NotApplicable {
				a.Outcome, a.Met = finding.NotApplicable, true
			}
			i, known := index[a.Requirement]
			switch {
			case !known:
				index[a.Requirement] = len(answers)
				answers = append(answers, a)
			case a.Outcome == finding.Fail, !a.Met && answers[i].Met, answers[i].Outcome == finding.NotApplicable:
				answers[i] = a
			}
		}
	}
	return answers
}

func notPassed(a control.Answer) []finding.Result {
	return slices.DeleteFunc(slices.Clone(a.Results), func(r finding.Result) bool { return r.Outcome == finding.Pass })
}

func junitOutcomeOf(a control.Answer) *junitOutcome {
	results := notPassed(a)
	finding.Sort(results)
	return &junitOutcome{Type: string(results[0].Reason), Message: printable(results[0].Message), Text: junitText(results)}
}

func junitText(results []finding.Result) string {
	var text strings.Builder
	for _, r := range results {
		_, _ = fmt.Fprintf(&text, "%s\n%s\n%s\n", printable(r.Subject.String()), printable(r.Message), printable(r.Remedy))
	}
	return text.String()
}

// orUnknown replaces an empty host name, which would not be valid.
func orUnknown(name string) string {
	if name == "" {
		return "unknown"
	}
	return name
}

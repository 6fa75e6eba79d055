// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"io"
	"net/url"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The part of SARIF 2.1.0 (OASIS) that is used. Comments refer to its sections.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool              sarifTool         `json:"tool"`
		AutomationDetails sarifAutomation   `json:"automationDetails"`
		Invocations       []sarifInvocation `json:"invocations"`
		Results           []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID                   string     `json:"id"`
		HelpURI              string     `json:"helpUri"`
		DefaultConfiguration sarifLevel `json:"defaultConfiguration"`
	}
	sarifLevel struct {
		Level string `json:"level"`
	}
	sarifProperties struct {
		Requirement finding.Requirement `json:"requirement"`
		// Tags are the numbers of the control.
		Tags []string `json:"tags,omitempty"`
	}
	sarifAutomation struct {
		ID string `json:"id"`
	}
	sarifInvocation struct {
		ExecutionSuccessful bool      `json:"executionSuccessful"`
		EndTimeUTC          time.Time `json:"endTimeUtc"`
	}
	sarifResult struct {
		RuleID     string          `json:"ruleId"`
		RuleIndex  int             `json:"ruleIndex"`
		Kind       string          `json:"kind"`
		Level      string          `json:"level"`
		Message    sarifMessage    `json:"message"`
		Locations  []sarifLocation `json:"locations"`
		Properties sarifProperties `json:"properties"`
	}
	sarifMessage struct {
		Text string `json:"text"`
	}
	sarifLocation struct {
		PhysicalLocation *sarifPhysical `json:"physicalLocation,omitempty"`
		LogicalLocations []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		ArtifactLocation sarifArtifact `json:"artifactLocation"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
	}
)

// writeSARIF writes one rule for each reason that was checked and one result for each finding.
// What could not be observed is "open" (3.27.9), and then the run was not successful
// (3.20.14).
func writeSARIF(w io.Writer, d Document, _ Options) error {
	findings := d.findings()
	run := sarifRun{
		Tool: sarifTool{sarifDriver{Name: d.Generator, Version: d.Version, Rules: []sarifRule{}}},
		// 3.17.3: the part before the last slash identifies the runs that belong together.
		AutomationDetails: sarifAutomation{d.subject() + "/"},
		Invocations: []sarifInvocation{{
			ExecutionSuccessful: control.Worst(d.Verdicts) != control.CouldNotVerify &&
				len(finding.WithOutcome(findings, finding.Unknown)) == 0,
			EndTimeUTC: d.At.UTC(),
		}},
		Results: []sarifResult{},
	}
	for index, reason := range d.Checked {
		_, level := sarifKind(reason.Outcome())
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: string(reason), HelpURI: reason.HelpURI(), DefaultConfiguration: sarifLevel{level},
		})
		for _, f := range findings {
			if f.Reason == reason {
				run.Results = append(run.Results, sarifResultOf(f, index))
			}
		}
	}
	return encodeJSON(w, sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func sarifResultOf(f finding.Result, rule int) sarifResult {
	kind, level := sarifKind(f.Outcome)
	out := sarifResult{
		RuleID: string(f.Reason), RuleIndex: rule, Kind: kind, Level: level,
		Message:    sarifMessage{f.Message + ". Fix: " + f.Remedy + "."},
		Locations:  []sarifLocation{sarifLocationOf(f.Subject)},
		Properties: sarifProperties{Requirement: f.Requirement},
	}
	if c, ok := control.Of(f.Requirement); ok {
		out.Properties.Tags = c.RefIDs()
	}
	return out
}

// sarifKind returns the kind and level of a finding. Only the kind "fail" has a level
// (3.27.10).
func sarifKind(o finding.Outcome) (kind, level string) {
	switch o {
	case finding.Fail:
		return "fail", "error"
	case finding.Warn:
		return "fail", "warning"
	case finding.Unknown, finding.Pass, finding.NotApplicable:
	}
	return "open", "none"
}

// sarifLocationOf returns the location of a subject, with its file if it is one.
func sarifLocationOf(s finding.Subject) sarifLocation {
	location := sarifLocation{LogicalLocations: []sarifLogical{{s.String()}}}
	if s.Kind == finding.KindFile && s.Path != "" {
		file := url.URL{Scheme: "file", Path: s.Path}
		location.PhysicalLocation = &sarifPhysical{sarifArtifact{file.String()}}
	}
	return location
}

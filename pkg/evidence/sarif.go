// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The part of SARIF 2.1.0 (OASIS, sections by its numbers) that is used.
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
		ID                   string          `json:"id"`
		HelpURI              string          `json:"helpUri"`
		DefaultConfiguration sarifLevel      `json:"defaultConfiguration"`
		Properties           sarifProperties `json:"properties"`
	}
	sarifLevel struct {
		Level string `json:"level"`
	}
	sarifProperties struct {
		Tags []string `json:"tags"`
	}
	sarifAutomation struct {
		ID string `json:"id"`
	}
	sarifInvocation struct {
		ExecutionSuccessful bool      `json:"executionSuccessful"`
		EndTimeUTC          time.Time `json:"endTimeUtc"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Kind      string          `json:"kind"`
		Level     string          `json:"level"`
		Message   sarifMessage    `json:"message"`
		Locations []sarifLocation `json:"locations"`
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

// writeSARIF writes one rule for each reason that was looked for and one
// result for each finding. What could not be looked at is "open" (3.27.9), and
// then the run did not succeed (3.20.14).
func writeSARIF(w io.Writer, d Document) error {
	run := sarifRun{
		Tool: sarifTool{sarifDriver{Name: d.Generator, Version: d.Version, Rules: []sarifRule{}}},
		// 3.17.3: what stands before the last slash says of which runs this
		// is one.
		AutomationDetails: sarifAutomation{d.subject() + "/"},
		Invocations: []sarifInvocation{{
			ExecutionSuccessful: len(finding.OfSeverity(d.Findings, finding.Unverified)) == 0,
			EndTimeUTC:          d.At.UTC(),
		}},
		Results: []sarifResult{},
	}
	for index, reason := range d.Checked {
		kind, level := sarifKind(reason.Severity())
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: string(reason), HelpURI: reason.HelpURI(), DefaultConfiguration: sarifLevel{level}, Properties: sarifProperties{finding.Controls()},
		})
		for _, f := range d.withReason(reason) {
			run.Results = append(run.Results, sarifResult{
				RuleID: string(reason), RuleIndex: index, Kind: kind, Level: level,
				Message:   sarifMessage{f.Message + ". To do: " + f.Remedy + "."},
				Locations: []sarifLocation{sarifLocationOf(d, f.Location)},
			})
		}
	}
	return encodeJSON(w, sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0", Runs: []sarifRun{run},
	})
}

// sarifKind: a level goes with the kind "fail" alone (3.27.10).
func sarifKind(s finding.Severity) (kind, level string) {
	switch s {
	case finding.Violation:
		return "fail", "error"
	case finding.Warning:
		return "fail", "warning"
	case finding.Info:
		return "fail", "note"
	case finding.Unverified:
		return "open", "none"
	}
	return "open", "none"
}

// sarifLocationOf names the file, where the finding is at one that was
// examined or, with an argument behind it, within one.
func sarifLocationOf(d Document, at finding.Location) sarifLocation {
	location := sarifLocation{LogicalLocations: []sarifLogical{{string(at)}}}
	for _, e := range d.Examined {
		path := string(e.Location)
		if strings.HasPrefix(path, "/") && (string(at) == path || strings.HasPrefix(string(at), path+" ")) {
			file := url.URL{Scheme: "file", Path: path}
			location.PhysicalLocation = &sarifPhysical{sarifArtifact{file.String()}}
		}
	}
	return location
}

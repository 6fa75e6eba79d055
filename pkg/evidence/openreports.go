// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"io"
	"slices"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The little of openreports.io/v1alpha1 (github.com/openreports/reports-api) that
// is written.
type (
	openReport struct {
		APIVersion string             `json:"apiVersion"`
		Kind       string             `json:"kind"`
		Metadata   openReportMetadata `json:"metadata"`
		Source     string             `json:"source"`
		Scope      openReportScope    `json:"scope"`
		Summary    openReportSummary  `json:"summary"`
		Results    []openReportResult `json:"results"`
	}
	openReportMetadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	}
	openReportScope struct {
		APIVersion string `json:"apiVersion,omitempty"`
		Kind       string `json:"kind"`
		Name       string `json:"name"`
	}
	openReportSummary struct {
		Pass  int `json:"pass"`
		Fail  int `json:"fail"`
		Warn  int `json:"warn"`
		Error int `json:"error"`
		Skip  int `json:"skip"`
	}
	openReportResult struct {
		Source     string            `json:"source"`
		Policy     string            `json:"policy"`
		Rule       string            `json:"rule"`
		Category   string            `json:"category"`
		Severity   string            `json:"severity,omitempty"`
		Timestamp  openReportTime    `json:"timestamp"`
		Result     string            `json:"result"`
		Scored     bool              `json:"scored"`
		Message    string            `json:"message,omitempty"`
		Properties map[string]string `json:"properties,omitempty"`
	}
	openReportTime struct {
		Seconds int64 `json:"seconds"`
		Nanos   int32 `json:"nanos"`
	}
)

const reportName = "kubelet-https-guard"

// writeOpenReport writes a ClusterReport, to be applied where that kind is
// installed: a result for each finding, and one for each reason that was looked
// for and not found.
func writeOpenReport(w io.Writer, d Document) error {
	report := openReport{
		APIVersion: "openreports.io/v1alpha1", Kind: "ClusterReport",
		Metadata: openReportMetadata{
			Name: objectName(reportName + "-" + d.Kind + "-" + d.Name), Labels: map[string]string{"app.kubernetes.io/managed-by": reportName},
		},
		Source: reportName, Scope: openReportScope{Kind: d.Kind, Name: d.Name}, Results: []openReportResult{},
	}
	if d.Kind == "Node" {
		report.Scope.APIVersion = "v1"
	}
	for _, reason := range d.Checked {
		one := openReportResult{
			Source: reportName, Policy: finding.ControlTitle, Rule: string(reason), Category: "CIS OpenShift", Result: "pass", Scored: true,
			Timestamp:  openReportTime{d.At.Unix(), int32(d.At.Nanosecond())}, //nolint:gosec // below a billion
			Properties: map[string]string{"controls": strings.Join(finding.Controls(), " "), "helpURI": reason.HelpURI()},
		}
		findings := d.withReason(reason)
		if len(findings) == 0 {
			report.Summary.Pass++
			report.Results = append(report.Results, one)
		}
		for _, f := range findings {
			found := one
			found.Message = f.Message + ". To do: " + f.Remedy
			found.Properties = map[string]string{"location": string(f.Location), "controls": one.Properties["controls"], "helpURI": one.Properties["helpURI"]}
			switch f.Severity() {
			case finding.Violation:
				found.Result, found.Severity = "fail", "high"
				report.Summary.Fail++
			case finding.Warning:
				found.Result, found.Severity, found.Scored = "warn", "medium", false
				report.Summary.Warn++
			case finding.Unverified:
				found.Result = "error"
				report.Summary.Error++
			case finding.Info:
				found.Severity = "info"
				report.Summary.Pass++
			}
			report.Results = append(report.Results, found)
		}
	}
	return encodeJSON(w, report)
}

// maxObjectName is that of the API (RFC 1123 subdomains).
const maxObjectName = 253

// objectName makes a name for an object of the API out of any text.
func objectName(text string) string {
	name := strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(text))
	// No label of it may begin or end with anything but a letter or a digit.
	labels := strings.FieldsFunc(name[:min(len(name), maxObjectName)], func(r rune) bool { return r == '.' })
	for i, label := range labels {
		labels[i] = strings.Trim(label, "-")
	}
	return strings.Join(slices.DeleteFunc(labels, func(label string) bool { return label == "" }), ".")
}

// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"io"
	"slices"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The part of openreports.io/v1alpha1 (github.com/openreports/reports-api) that is used.
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
		Category   string            `json:"category,omitempty"`
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

// writeOpenReport writes a ClusterReport, which can be applied to a cluster that has this
// kind. Each result is listed once, under the first control that its requirement counts for.
func writeOpenReport(w io.Writer, d Document, _ Options) error {
	report := openReport{
		APIVersion: "openreports.io/v1alpha1", Kind: "ClusterReport",
		Metadata: openReportMetadata{
			Name:   objectName(reportName + "-" + d.Kind + "-" + d.Name),
			Labels: map[string]string{"app.kubernetes.io/managed-by": reportName},
		},
		Source: reportName, Scope: openReportScope{Kind: d.Kind, Name: d.Name}, Results: []openReportResult{},
	}
	if d.Kind == "Node" {
		report.Scope.APIVersion = "v1"
	}
	for _, r := range d.Results {
		report.Results = append(report.Results, d.openReportResultOf(r, &report.Summary))
	}
	return encodeJSON(w, report)
}

func (d Document) openReportResultOf(r finding.Result, summary *openReportSummary) openReportResult {
	out := openReportResult{
		Source: reportName, Policy: reportName, Rule: string(r.Requirement), Result: "error", Scored: true,
		Timestamp:  openReportTime{d.At.Unix(), int32(d.At.Nanosecond())}, //nolint:gosec // below a billion
		Message:    r.Message,
		Properties: map[string]string{"location": r.Subject.String()},
	}
	// A requirement of no control is listed under the program.
	if c, ok := control.Of(r.Requirement); ok {
		out.Policy, out.Properties["controls"] = c.Title, strings.Join(c.RefIDs(), " ")
		if len(c.Refs) > 0 {
			out.Category = c.Refs[0].Benchmark
		}
	}
	if r.Reason != "" {
		out.Properties["reason"], out.Properties["helpURI"] = string(r.Reason), r.Reason.HelpURI()
	}
	if r.Remedy != "" {
		out.Message += ". Fix: " + r.Remedy
	}
	switch {
	case r.Outcome == finding.Pass:
		out.Result = "pass"
		summary.Pass++
	case r.Outcome == finding.Warn:
		out.Result, out.Severity, out.Scored = "warn", "medium", false
		summary.Warn++
	case r.Outcome == finding.Fail:
		out.Result, out.Severity = "fail", "high"
		summary.Fail++
	case d.skipped(r):
		out.Result = "skip"
		summary.Skip++
	default:
		summary.Error++
	}
	return out
}

// maxObjectName is the limit of the API (RFC 1123 subdomain).
const maxObjectName = 253

// objectName converts any text to the name of an API object.
func objectName(text string) string {
	name := strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(text))
	// Each label must begin and end with a letter or a digit.
	labels := strings.FieldsFunc(name[:min(len(name), maxObjectName)], func(r rune) bool { return r == '.' })
	for i, label := range labels {
		labels[i] = strings.Trim(label, "-")
	}
	return strings.Join(slices.DeleteFunc(labels, func(label string) bool { return label == "" }), ".")
}

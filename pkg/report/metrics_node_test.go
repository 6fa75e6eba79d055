// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// TestMetricsOfNodes: there is one series for all Nodes with a finding, until the last one is resolved.
func TestMetricsOfNodes(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	metrics := report.NewMetrics(registry)
	send := func(kind report.NoticeType, node string) {
		metrics.Report(t.Context(), report.Notice{Type: kind, Finding: finding.Result{
			Subject: finding.Subject{Kind: finding.KindNode, Name: node}, Outcome: finding.Fail, Reason: finding.KubeletNotTLS,
		}})
	}
	expect := func(when, want string) {
		t.Helper()
		if d := cmp.Diff(want, series(t, registry)); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	const active = "finding Node KubeletNotTLS Violation = 1\n"
	for i := range 100 {
		send(report.FindingActive, fmt.Sprint("worker-", i))
	}
	send(report.FindingActive, "")
	send(report.FindingStillActive, "worker-1")
	expect("all are active", active)
	for i := range 100 {
		send(report.FindingResolved, fmt.Sprint("worker-", i))
	}
	expect("the one about several Nodes is active", active)
	send(report.FindingResolved, "")
	expect("all are resolved", "")
	send(report.FindingActive, "worker-1")
	metrics.Forget()
	expect("forgotten", "")
	send(report.FindingActive, "worker-2")
	send(report.FindingResolved, "worker-2")
	expect("one is resolved after the others were forgotten", "")
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// TestMeterHealth: ready after the first scan, healthy while scans continue.
func TestMeterHealth(t *testing.T) {
	now := pkitest.Now()
	registry := prometheus.NewRegistry()
	m := newMeter(registry, report.NewMetrics(registry), func() uint64 { return 0 }, func() time.Time { return now },
		30*time.Second)
	states := func(when string, ready, healthy bool) {
		t.Helper()
		if err := m.ready(t.Context()); (err == nil) != ready {
			t.Errorf("%s: ready: %v", when, err)
		}
		if err := m.healthy(t.Context()); (err == nil) != healthy {
			t.Errorf("%s: healthy: %v", when, err)
		}
	}
	states("at the start", false, true)
	now = now.Add(3 * time.Minute)
	states("the first scan hangs", false, false)
	m.Scanned(agent.Start, time.Millisecond, scan.Snapshot{})
	states("after it", true, true)
	now = now.Add(2 * time.Minute)
	states("three ticks are missed", true, true)
	now = now.Add(time.Minute)
	states("no scan for too long", true, false)
	m.Scanned(agent.Tick, time.Millisecond, scan.Snapshot{})
	states("scans continue", true, true)
}

// TestMeterConnection: the gauge has the outcome of the last check, and no value if the connection is not checked.
func TestMeterConnection(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newMeter(registry, report.NewMetrics(registry), func() uint64 { return 0 }, pkitest.Now, 30*time.Second)
	seen := func() map[string]float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, family := range families {
			if family.GetName() == "kubelet_https_guard_connection" {
				for _, metric := range family.GetMetric() {
					values[metric.GetLabel()[0].GetValue()] = metric.GetGauge().GetValue()
				}
			}
		}
		return values
	}
	accepted := finding.Result{Requirement: finding.Kubelet.Requires(finding.ClientAccepted)}
	for _, step := range []struct {
		name       string
		connection finding.Result
		want       map[string]float64
	}{
		{"not checked", finding.Result{Reason: finding.NotChecked}, map[string]float64{}},
		{
			"no answer yet", finding.Result{Reason: finding.NotObserved},
			map[string]float64{"pass": 0, "fail": 0, "unknown": 1},
		},
		{"works", finding.Result{Outcome: finding.Pass}, map[string]float64{"pass": 1, "fail": 0, "unknown": 0}},
		{
			"refused", finding.Result{Outcome: finding.Fail, Reason: finding.ClientCertificateNotAccepted},
			map[string]float64{"pass": 0, "fail": 1, "unknown": 0},
		},
	} {
		step.connection.Requirement = finding.Kubelet.Requires(finding.Connection)
		m.Scanned(agent.Tick, time.Millisecond,
			scan.Snapshot{ConnectionResults: []finding.Result{accepted, step.connection}})
		if d := cmp.Diff(step.want, seen()); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, d)
		}
	}
}

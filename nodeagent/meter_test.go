// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
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

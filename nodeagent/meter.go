// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// roleKubeletServing is the role of the kubelet's own certificate in metrics
// and evidence.
const roleKubeletServing = "kubelet-serving"

// meter counts the agent's looks, and knows by them whether it is alive. It
// implements [agent.Meter].
type meter struct {
	scans        *prometheus.CounterVec
	duration     prometheus.Histogram
	certificates *report.Metrics
	now          func() time.Time
	// silence is how long without a look the agent counts as alive.
	silence time.Duration
	started time.Time
	last    atomic.Pointer[time.Time]
}

// newMeter registers its metrics. watchErrors counts what package watch had
// trouble with.
func newMeter(registry prometheus.Registerer, certificates *report.Metrics, watchErrors func() uint64, now func() time.Time, resync time.Duration) *meter {
	m := &meter{
		scans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_https_guard_scans_total", Help: "Looks at the node, by what made the agent look.",
		}, []string{"trigger"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_https_guard_scan_duration_seconds", Help: "Time that one look took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
		certificates: certificates, now: now, started: now(), silence: 3*resync + time.Minute,
	}
	registry.MustRegister(m.scans, m.duration, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "kubelet_https_guard_watch_errors_total", Help: "How often a directory could not be watched, or events were lost.",
	}, func() float64 { return float64(watchErrors()) }))
	for _, trigger := range agent.Triggers() {
		m.scans.WithLabelValues(string(trigger))
	}
	return m
}

// Looked implements [agent.Meter].
func (m *meter) Looked(trigger agent.Trigger, took time.Duration, seen scan.Snapshot) {
	m.scans.WithLabelValues(string(trigger)).Inc()
	m.duration.Observe(took.Seconds())
	m.certificates.Certificate(finding.Location(seen.Layout.Certificate.Host), agent.CertificateRole, seen.Leaf)
	m.certificates.Certificate(seen.ServingAt, roleKubeletServing, seen.Serving)
	now := m.now()
	m.last.Store(&now)
}

// ready: there has been a look.
func (m *meter) ready(context.Context) error {
	if m.last.Load() == nil {
		return errors.New("the first look at the node is not done yet")
	}
	return nil
}

// healthy: the looks go on. One may hang in a file system that does not answer.
func (m *meter) healthy(context.Context) error {
	last := m.started
	if looked := m.last.Load(); looked != nil {
		last = *looked
	}
	if silent := m.now().Sub(last); silent > m.silence {
		return fmt.Errorf("no look at the node was done for %s", silent.Round(time.Second))
	}
	return nil
}

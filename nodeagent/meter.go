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

// meter counts scans, and decides by them whether the agent is ready and healthy. It
// implements [agent.Meter].
type meter struct {
	scans        *prometheus.CounterVec
	connection   *prometheus.GaugeVec
	duration     prometheus.Histogram
	certificates *report.Metrics
	now          func() time.Time
	// maxSilence is how long the agent stays healthy without a scan.
	maxSilence time.Duration
	started    time.Time
	last       atomic.Pointer[time.Time]
}

// newMeter registers the metrics. watchErrors returns the number of errors in package watch.
func newMeter(
	registry prometheus.Registerer, certificates *report.Metrics, watchErrors func() uint64,
	now func() time.Time, resync time.Duration,
) *meter {
	m := &meter{
		scans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_https_guard_scans_total", Help: "Scans of the node, by what triggered them.",
		}, []string{"trigger"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_https_guard_scan_duration_seconds", Help: "Time that a scan of the node took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
		connection: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_connection",
			Help: "1 for the outcome of the last check of the kube-apiserver's connection to this node's kubelet (pass, fail " +
				"or unknown), 0 for others. It has no value if the connection is not checked.",
		}, []string{"outcome"}),
		certificates: certificates, now: now, started: now(), maxSilence: 3*resync + time.Minute,
	}
	registry.MustRegister(m.scans, m.duration, m.connection, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "kubelet_https_guard_watch_errors_total", Help: "How often a directory could not be watched, or events were " +
			"lost.",
	}, func() float64 { return float64(watchErrors()) }))
	for _, trigger := range agent.Triggers() {
		m.scans.WithLabelValues(string(trigger))
	}
	return m
}

// Scanned implements [agent.Meter].
func (m *meter) Scanned(trigger agent.Trigger, took time.Duration, seen scan.Snapshot) {
	m.scans.WithLabelValues(string(trigger)).Inc()
	m.duration.Observe(took.Seconds())
	m.certificates.Certificate(finding.File(seen.Found.Certificate.Host), agent.CertificateRole, seen.Leaf)
	m.certificates.Certificate(seen.ServingAt, roleKubeletServing, seen.Serving)
	m.connected(seen)
	now := m.now()
	m.last.Store(&now)
}

// connected sets the outcome of the connection.
func (m *meter) connected(seen scan.Snapshot) {
	requirement := finding.Kubelet.Requires(finding.Connection)
	for _, r := range seen.ConnectionResults {
		if r.Requirement != requirement || r.Reason == finding.NotChecked {
			continue
		}
		for _, outcome := range []finding.Outcome{finding.Pass, finding.Fail, finding.Unknown} {
			value := 0.
			if outcome == r.Outcome {
				value = 1
			}
			m.connection.WithLabelValues(outcome.String()).Set(value)
		}
	}
}

// ready returns an error until the first scan is done.
func (m *meter) ready(context.Context) error {
	if m.last.Load() == nil {
		return errors.New("the first scan of the node is not done yet")
	}
	return nil
}

// healthy returns an error if scans have stopped: one may hang in a file system that does not answer.
func (m *meter) healthy(context.Context) error {
	last := m.started
	if scanned := m.last.Load(); scanned != nil {
		last = *scanned
	}
	if silent := m.now().Sub(last); silent > m.maxSilence {
		return fmt.Errorf("no scan of the node for %s", silent.Round(time.Second))
	}
	return nil
}

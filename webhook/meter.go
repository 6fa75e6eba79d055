// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// meter counts the requests that were decided on. It implements
// [admit.Meter].
type meter struct {
	decided  *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMeter(registry prometheus.Registerer) meter {
	m := meter{
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_https_guard_admission_total",
			Help: "Requests decided on, by operation, decision (allow, deny, warn, audit, break-glass, error, panic) and the worst reason that they introduce.",
		}, []string{"operation", "decision", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_https_guard_admission_duration_seconds", Help: "Time that a decision took.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1},
		}, []string{"operation"}),
	}
	registry.MustRegister(m.decided, m.duration)
	return m
}

// Decided implements [admit.Meter].
func (m meter) Decided(operation, decision, reason string, took time.Duration) {
	m.decided.WithLabelValues(operation, decision, reason).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

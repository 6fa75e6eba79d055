// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// meter counts the requests that were decided on and the looks of the audit.
// It implements [admit.Meter] and [audit.Meter].
type meter struct {
	decided  *prometheus.CounterVec
	duration *prometheus.HistogramVec

	leader, asked  prometheus.Gauge
	audits, failed prometheus.Counter
	// told is what the audit tells.
	told *report.Metrics
}

func newMeter(registry prometheus.Registerer, told *report.Metrics) meter {
	m := meter{
		told: told,
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_audit_leader", Help: "1 where this process audits what is stored; of all that share a Lease it is one.",
		}),
		asked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_asked", Help: "1 where API servers ask the webhook about what is written, 0 where they do not, or it is not known.",
		}),
		audits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubelet_https_guard_audits_total", Help: "Looks at what is stored.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubelet_https_guard_audit_failures_total", Help: "Panics of the audit, after each of which it rests and begins anew.",
		}),
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_https_guard_admission_total",
			Help: "Requests decided on, by operation, decision (allow, deny, warn, audit, break-glass, error, panic) and the worst reason that they introduce.",
		}, []string{"operation", "decision", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_https_guard_admission_duration_seconds", Help: "Time that a decision took.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1},
		}, []string{"operation"}),
	}
	registry.MustRegister(m.decided, m.duration, m.leader, m.asked, m.audits, m.failed)
	return m
}

// Decided implements [admit.Meter].
func (m meter) Decided(operation, decision, reason string, took time.Duration) {
	m.decided.WithLabelValues(operation, decision, reason).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

// Audited implements [audit.Meter].
func (m meter) Audited(certificates []report.Certificate) {
	m.audits.Inc()
	roles := make([]string, 0, len(certificates))
	for _, c := range certificates {
		m.told.Certificate(c.At, c.Role, c.Leaf)
		roles = append(roles, c.Role)
	}
	m.told.KeepRoles(roles...) // others were protected before a change of the configuration
}

// isAsked shows whether API servers ask the webhook.
func (m meter) isAsked(yes bool) {
	m.asked.Set(0)
	if yes {
		m.asked.Set(1)
	}
}

// leading shows who audits. Whoever does so no more has nothing to say about
// what is stored.
func (m meter) leading(yes bool) {
	m.leader.Set(0)
	if yes {
		m.leader.Set(1)
		return
	}
	m.told.Forget()
}

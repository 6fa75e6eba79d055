// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
)

// meter counts the decided requests. It implements [admit.Meter].
type meter struct {
	decided  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	active   prometheus.Gauge
}

func newMeter(registry prometheus.Registerer) meter {
	m := meter{
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_webhook_active",
			Help: "1 if the webhook is active: API servers call it. 0 if they do not, or if that is unknown.",
		}),
		decided: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_https_guard_admission_total",
			Help: "Decided requests, by operation, decision (allow, deny, warn, audit, break-glass, error, panic) " +
				"and the worst reason that they introduce.",
		}, []string{"operation", "decision", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_https_guard_admission_duration_seconds", Help: "Duration of a decision.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1},
		}, []string{"operation"}),
	}
	registry.MustRegister(m.decided, m.duration, m.active)
	return m
}

// CountRequest implements [admit.Meter].
func (m meter) CountRequest(operation, decision, reason string, took time.Duration) {
	m.decided.WithLabelValues(operation, decision, reason).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

// setActive sets whether API servers call the webhook.
func (m meter) setActive(yes bool) {
	m.active.Set(0)
	if yes {
		m.active.Set(1)
	}
}

// auditMeter counts the checks of the audit. It implements [audit.Meter].
type auditMeter struct {
	leader         prometheus.Gauge
	audits, failed prometheus.Counter
	// reported has the findings and verdicts of the audit.
	reported *report.Metrics
}

func newAuditMeter(registry prometheus.Registerer, reported *report.Metrics) auditMeter {
	m := auditMeter{
		reported: reported,
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_audit_leader",
			Help: "1 if this process holds the Lease and checks the stored objects, 0 if not.",
		}),
		audits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubelet_https_guard_audits_total", Help: "Checks of the stored objects.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubelet_https_guard_audit_failures_total",
			Help: "Panics of the audit. It starts again 30 seconds after each.",
		}),
	}
	registry.MustRegister(m.leader, m.audits, m.failed)
	return m
}

// Audited implements [audit.Meter].
func (m auditMeter) Audited(certificates []tracker.Certificate) {
	m.audits.Inc()
	roles := make([]string, 0, len(certificates))
	for _, c := range certificates {
		m.reported.Certificate(c.At, c.Role, c.Leaf)
		roles = append(roles, c.Role)
	}
	m.reported.KeepRoles(roles...) // drops those that are no longer configured
}

// setLeading sets whether this process audits. If it does not, it has no metrics of findings.
func (m auditMeter) setLeading(yes bool) {
	m.leader.Set(0)
	if yes {
		m.leader.Set(1)
		return
	}
	m.reported.Forget()
}

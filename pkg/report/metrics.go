// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"crypto/x509"
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
)

// maxLabel bounds a location in a label, in bytes.
const maxLabel = 512

// Metrics shows as Prometheus metrics what was told. [NewMetrics] makes one.
//
// Label values are bounded: reasons and severities are a fixed set, locations
// are those of the few objects that are looked at.
type Metrics struct {
	findings, compliant, notBefore, notAfter *prometheus.GaugeVec

	mu sync.Mutex
	// at is where the certificate of each role was seen last.
	at map[string]string
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		vector := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_https_guard_" + name, Help: help}, labels)
		registry.MustRegister(vector)
		return vector
	}
	m := &Metrics{
		findings:  gauge("finding", "1 while the finding stands.", "reason", "severity", "location"),
		compliant: gauge("compliant", "1 while the control is verified to hold, 0 while it does not or could not be verified.", "control"),
		notBefore: gauge("certificate_not_before_seconds", "Begin of the validity of the certificate last read, in Unix time.", "location", "role"),
		notAfter:  gauge("certificate_not_after_seconds", "End of the validity of the certificate last read, in Unix time.", "location", "role"),
		at:        map[string]string{},
	}
	gauge("build_info", "Always 1; the labels say which build this is.", "version", "go_version").
		WithLabelValues(version.String(), runtime.Version()).Set(1)
	return m
}

// Tell implements [Teller].
func (m *Metrics) Tell(_ context.Context, n Notice) {
	labels := func() []string {
		return []string{string(n.Finding.Reason), n.Finding.Severity().String(), cut(string(n.Finding.Location), maxLabel)}
	}
	switch n.What {
	case FindingRaised, FindingStands:
		m.findings.WithLabelValues(labels()...).Set(1)
	case FindingCleared:
		m.findings.DeleteLabelValues(labels()...)
	case Verified:
		m.setCompliant(1)
	case NotVerified:
		m.setCompliant(0)
	case CertificateRotated, RequestDenied, RequestByBreakGlass:
	}
}

func (m *Metrics) setCompliant(value float64) {
	for _, control := range finding.Controls() {
		m.compliant.WithLabelValues(control).Set(value)
	}
}

// Forget takes back all that was told: somebody else tells it from now on.
func (m *Metrics) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = map[string]string{}
	for _, vector := range []*prometheus.GaugeVec{m.findings, m.compliant, m.notBefore, m.notAfter} {
		vector.Reset()
	}
}

// Certificate shows the validity of the certificate in a role, such as
// "kubelet-client", and where it was seen. Without a certificate (nil) or a
// location the last one stays: that it is gone is said by a finding, while a
// gap would resolve alerts. At another location it takes the old one's place.
func (m *Metrics) Certificate(location finding.Location, role string, c *x509.Certificate) {
	if c == nil || location == "" {
		return
	}
	at := cut(string(location), maxLabel)
	m.mu.Lock()
	defer m.mu.Unlock()
	if before, known := m.at[role]; known && before != at {
		m.notBefore.DeleteLabelValues(before, role)
		m.notAfter.DeleteLabelValues(before, role)
	}
	m.at[role] = at
	m.notBefore.WithLabelValues(at, role).Set(float64(c.NotBefore.Unix()))
	m.notAfter.WithLabelValues(at, role).Set(float64(c.NotAfter.Unix()))
}

// KeepRoles takes the validity of certificates in all other roles away: nobody
// looks for them any more.
func (m *Metrics) KeepRoles(roles ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for role, at := range m.at {
		if !slices.Contains(roles, role) {
			m.notBefore.DeleteLabelValues(at, role)
			m.notAfter.DeleteLabelValues(at, role)
			delete(m.at, role)
		}
	}
}

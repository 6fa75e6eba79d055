// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"crypto/x509"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// maxLabel bounds a location in a label, in bytes.
const maxLabel = 512

// Metrics exports notices as Prometheus metrics. [NewMetrics] makes one.
//
// Label values are bounded: reasons and severities are a fixed set, and locations are those
// of the few objects that are checked. All Nodes have the same location.
type Metrics struct {
	findings, compliant, inForce, notBefore, notAfter *prometheus.GaugeVec

	mu sync.Mutex
	// at is the last location of the certificate of each role.
	at map[string]string
	// nodes has the active findings about Nodes, by their labels.
	nodes map[[3]string]map[string]bool
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		vector := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_https_guard_" + name, Help: help}, labels)
		registry.MustRegister(vector)
		return vector
	}
	m := &Metrics{
		findings: gauge("finding", "1 while the finding is active.", "reason", "severity", "location"),
		compliant: gauge("compliant", "1 while the control is compliant, 0 while it is not or could not be verified. "+
			"Absent if it is not applicable.", "control"),
		inForce: gauge("in_force", "1 while the guard is verified to be in force, 0 while it is not or "+
			"could not be verified."),
		notBefore: gauge("certificate_not_before_seconds", "Start of the validity of the certificate last read, "+
			"in Unix time.", "location", "role"),
		notAfter: gauge("certificate_not_after_seconds", "End of the validity of the certificate last read, "+
			"in Unix time.", "location", "role"),
		at: map[string]string{}, nodes: map[[3]string]map[string]bool{},
	}
	gauge("build_info", "Always 1; the labels identify the build.", "version", "go_version").
		WithLabelValues(version.String(), runtime.Version()).Set(1)
	return m
}

// Report implements [Reporter].
func (m *Metrics) Report(_ context.Context, n Notice) {
	switch n.Type {
	case FindingActive, FindingStillActive:
		m.setFinding(n.Finding, true)
	case FindingResolved:
		m.setFinding(n.Finding, false)
	case Compliant:
		m.setVerdict(n.Verdict, 1)
	case NotCompliant, CouldNotVerify:
		m.setVerdict(n.Verdict, 0)
	case NotApplicable:
		m.deleteVerdict(n.Verdict)
	case CertificateRotated, RequestDenied, RequestByBreakGlass:
	}
}

// setFinding exports whether a finding is active. There is one series for all Nodes, as there may be thousands.
func (m *Metrics) setFinding(f finding.Result, isActive bool) {
	at := f.Subject
	if at.Kind == finding.KindNode {
		at = finding.Subject{Kind: finding.KindNode}
	}
	labels := [3]string{string(f.Reason), f.Outcome.Severity(), cut(at.String(), maxLabel)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.Kind == finding.KindNode {
		if m.nodes[labels] == nil {
			m.nodes[labels] = map[string]bool{}
		}
		delete(m.nodes[labels], f.Subject.Name)
		if isActive {
			m.nodes[labels][f.Subject.Name] = true
		}
		isActive = len(m.nodes[labels]) > 0
	}
	if isActive {
		m.findings.WithLabelValues(labels[:]...).Set(1)
		return
	}
	m.findings.DeleteLabelValues(labels[:]...)
}

// series returns the metric and labels of a verdict. The guard has its own metric, so that a
// disabled guard does not change the verdict on the cluster.
func (m *Metrics) series(v control.Verdict) (vector *prometheus.GaugeVec, labels []string) {
	if v.Control.ID == control.GuardInForce {
		return m.inForce, nil
	}
	return m.compliant, []string{v.Control.ID}
}

func (m *Metrics) setVerdict(v control.Verdict, value float64) {
	vector, labels := m.series(v)
	vector.WithLabelValues(labels...).Set(value)
}

func (m *Metrics) deleteVerdict(v control.Verdict) {
	vector, labels := m.series(v)
	vector.DeleteLabelValues(labels...)
}

// Forget removes all series, because another process exports them from now on.
func (m *Metrics) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at, m.nodes = map[string]string{}, map[[3]string]map[string]bool{}
	for _, vector := range []*prometheus.GaugeVec{m.findings, m.compliant, m.inForce, m.notBefore, m.notAfter} {
		vector.Reset()
	}
}

// Certificate exports the validity and the location of the certificate in a role, such as
// "kubelet-client". If there is no certificate (nil) or no location, the last values stay: a
// finding reports that it is gone, and a gap would resolve alerts. A new location replaces
// the old one.
func (m *Metrics) Certificate(at finding.Subject, role string, c *x509.Certificate) {
	if c == nil || at == (finding.Subject{}) {
		return
	}
	location := cut(at.String(), maxLabel)
	m.mu.Lock()
	defer m.mu.Unlock()
	if before, known := m.at[role]; known && before != location {
		m.notBefore.DeleteLabelValues(before, role)
		m.notAfter.DeleteLabelValues(before, role)
	}
	m.at[role] = location
	m.notBefore.WithLabelValues(location, role).Set(float64(c.NotBefore.Unix()))
	m.notAfter.WithLabelValues(location, role).Set(float64(c.NotAfter.Unix()))
}

// KeepRoles removes the certificates of all other roles, which are no longer checked.
func (m *Metrics) KeepRoles(roles ...string) {
	keep := map[string]bool{}
	for _, role := range roles {
		keep[role] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for role, at := range m.at {
		if !keep[role] {
			m.notBefore.DeleteLabelValues(at, role)
			m.notAfter.DeleteLabelValues(at, role)
			delete(m.at, role)
		}
	}
}

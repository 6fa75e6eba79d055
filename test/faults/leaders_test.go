// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"net/http"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// twoLeaders pauses the first leader, as on a machine that swaps or a virtual machine that is
// migrated. The other one acquires the Lease. Then the first one continues.
func twoLeaders(s *scene) {
	first := s.startAudit("first", launch{})
	s.awaitCleanAudit(first)
	second := s.startAudit("second", launch{})
	s.await("the second one waits for the Lease", func(ctx context.Context) bool {
		code, err := second.Status(ctx, "/readyz")
		return err == nil && code == http.StatusOK
	})
	s.awaitRest("first", first.Process, webhookLimit)

	signal := func(which syscall.Signal) {
		s.Helper()
		if err := syscall.Kill(first.PID, which); err != nil {
			s.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	s.Cleanup(func() { _ = syscall.Kill(first.PID, syscall.SIGCONT) })
	// As if it had not been renewed for its whole duration.
	leases := shared.api.CoordinationV1().Leases(s.name)
	lease, err := leases.Get(s.Context(), "kubelet-https-guard-audit", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	lease.Spec.HolderIdentity = new("")
	if _, err := leases.Update(s.Context(), lease, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.awaitCleanAudit(second)
	s.awaitRest("second", second.Process, webhookLimit)
	signal(syscall.SIGCONT)
	if !s.leads(first) {
		s.Fatal("the first one stopped leading too early: there were never two leaders")
	}

	garbage := s.validSecret().DeepCopy()
	garbage.Data[corev1.TLSPrivateKeyKey] = []byte("garbage")
	s.restore(garbage)
	s.auditLogs(first, "Finding active KeyUnparsable")
	s.auditLogs(second, "Finding active KeyUnparsable")
	s.await("the first one stops leading", func(context.Context) bool { return !s.leads(first) })
	s.await("the first one has no findings in its metrics", func(ctx context.Context) bool {
		metrics, err := first.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_finding") == 0
	})
	s.restore(s.validSecret())
	s.auditLogs(second, "Finding active KeyUnparsable", "Finding resolved KeyUnparsable")
	s.auditLogs(first, "Finding active KeyUnparsable")
	if !s.leads(second) {
		s.Error("the second one stopped leading")
	}
}

// nextLeader ends a leader while a finding is active. The next one reports it again, and says so.
func nextLeader(s *scene) {
	first := s.startAudit("first", launch{})
	s.awaitCleanAudit(first)
	garbage := s.validSecret().DeepCopy()
	garbage.Data[corev1.TLSPrivateKeyKey] = []byte("garbage")
	s.restore(garbage)
	s.auditLogs(first, "Finding active KeyUnparsable")
	s.atStart(first, "Compliant", true)
	s.atStart(first, "Finding active", false)

	if err := first.run.Stop(); err != nil {
		s.Fatal(err)
	}
	second := s.startAudit("second", launch{})
	s.auditLogs(second, "Finding active KeyUnparsable")
	s.atStart(second, "Finding active", true)
	s.atStart(second, "Not compliant", true)
	s.restore(s.validSecret())
	s.auditLogs(second, "Finding active KeyUnparsable", "Finding resolved KeyUnparsable")
	s.restore(garbage)
	s.auditLogs(second, "Finding active KeyUnparsable", "Finding active KeyUnparsable", "Finding resolved KeyUnparsable")
	if lines := s.lines(second.log, "Finding active"); lines[1].AtStart {
		s.Error("the finding that is active again is said to be present at start")
	}
	s.restore(s.validSecret())
}

// atStart requires that the first line of a log whose message begins with a text says whether it was present at start.
func (s *scene) atStart(a *auditor, message string, want bool) {
	s.Helper()
	s.await("a line "+message, func(context.Context) bool { return len(s.lines(a.log, message)) > 0 })
	if got := s.lines(a.log, message)[0].AtStart; got != want {
		s.Errorf("%s: %q: atStart is %t, want %t", a.name, message, got, want)
	}
}

func (s *scene) leads(a *auditor) bool {
	s.Helper()
	metrics, err := a.Read(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return metrics.Sum("kubelet_https_guard_audit_leader") == 1
}

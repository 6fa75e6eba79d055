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

func (s *scene) leads(a *auditor) bool {
	s.Helper()
	metrics, err := a.Read(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return metrics.Sum("kubelet_https_guard_audit_leader") == 1
}

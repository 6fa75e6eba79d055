// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// twoLeaders: the first one is stopped (as a machine that swaps, or a virtual one
// that is moved), the Lease becomes another's, and it goes on.
func twoLeaders(s *scene) {
	first := s.startWebhook("first", launch{})
	s.ready(first)
	s.audited(first)
	second := s.startWebhook("second", launch{})
	s.ready(second)
	s.rested("first", first.Process, webhookLimit)

	signal := func(which syscall.Signal) {
		s.Helper()
		if err := syscall.Kill(first.PID, which); err != nil {
			s.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	s.Cleanup(func() { _ = syscall.Kill(first.PID, syscall.SIGCONT) })
	// As if it had not been renewed for as long as it holds.
	leases := shared.api.CoordinationV1().Leases(s.name)
	lease, err := leases.Get(s.Context(), "kubelet-https-guard-audit", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	lease.Spec.HolderIdentity = new("")
	if _, err := leases.Update(s.Context(), lease, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.audited(second)
	s.rested("second", second.Process, webhookLimit)
	signal(syscall.SIGCONT)
	s.ready(first)
	if !s.leads(first) {
		s.Fatal("the first one does not lead any more: there were no two leaders")
	}
	_, doneFirst := s.ask(s.directly(first))
	_, doneSecond := s.ask(s.directly(second))

	garbage := s.good().DeepCopy()
	garbage.Data[corev1.TLSPrivateKeyKey] = []byte("garbage")
	s.restore(garbage)
	s.edges(first, "Finding raised KeyUnparsable")
	s.edges(second, "Finding raised KeyUnparsable")
	s.await("the first one leads no more", func(context.Context) bool { return !s.leads(first) })
	s.await("the first one shows no finding", func(ctx context.Context) bool {
		metrics, err := first.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_finding") == 0
	})
	s.restore(s.good())
	s.edges(second, "Finding raised KeyUnparsable", "Finding cleared KeyUnparsable")
	s.edges(first, "Finding raised KeyUnparsable")
	if !s.leads(second) {
		s.Error("the second one leads no more")
	}
	s.allAnswered(doneFirst())
	s.allAnswered(doneSecond())
	first.client.CloseIdleConnections()
	second.client.CloseIdleConnections()
}

func (s *scene) leads(w *webhook) bool {
	s.Helper()
	metrics, err := w.Read(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return metrics.Sum("kubelet_https_guard_audit_leader") == 1
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// TestServedCertificate: the Secret is renewed, and its server does not load the new certificate. The audit reports
// this after its patience, and that it is resolved when the server loads it.
func TestServedCertificate(t *testing.T) {
	first, second, third := issue(pkitest.ServingCert()), issue(pkitest.ServingCert()), issue(pkitest.ServingCert())
	now := time.Now()
	expired := shared.ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-1, 0, 0), now.Add(-time.Hour)))
	store(t, serving(first))
	client := issue(pkitest.KubeletClient())
	store(t, openshift.KubeletClient(client.Certificate, client.Key)) // so that the verdict is compliant at first
	at, own := rig.OwnAddress()
	if !own {
		t.Fatal("the machine has no IPv4 address but loopback, to which the audit does not connect")
	}
	server, err := rig.StartEndpoint(t.Context(), at, first.Certificate, first.Key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	if err := shared.rig.AnnounceEndpoint(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	load := func(t *testing.T, p pkitest.Pair) {
		t.Helper()
		if err := server.Load(p.Certificate, p.Key); err != nil {
			t.Fatal(err)
		}
	}
	start := restartAudit(t, "--served-certificates", "--served-patience=2s")
	// A subtest that fails does not end this test, so what it changed is restored.
	t.Run("serves the stored one", func(t *testing.T) {
		await(t, "an endpoint that serves it", func() bool {
			return slices.ContainsFunc(metrics(t, shared.auditMetrics), func(line string) bool {
				return strings.HasPrefix(line, `kubelet_https_guard_served_endpoints{certificate="stored"} 1`)
			})
		})
	})
	t.Run("renewed, and not loaded", func(t *testing.T) {
		store(t, serving(second))
		awaitAuditEvent(t, start, "Secret", name, "Warning", "ServedCertificateStale", "Pod "+rig.EndpointPod+" (")
		load(t, second)
		awaitAuditEvent(t, start, "Secret", name, "Normal", "ServedCertificateStale", "Resolved: ")
	})
	t.Run("an expired one", func(t *testing.T) {
		load(t, expired)
		store(t, serving(third)) // so that the endpoint is asked at once
		awaitAuditEvent(t, start, "Secret", name, "Warning", "ServedCertificateInvalid", "expired at")
		awaitAuditEvent(t, start, "Lease", "kubelet-https-guard-audit", "Warning", "NotCompliant", "ServedCertificateInvalid")
		load(t, third)
		awaitAuditEvent(t, start, "Secret", name, "Normal", "ServedCertificateInvalid", "Resolved: ")
	})
	t.Run("once", func(t *testing.T) {
		code, d := runAudit(t, "--kubeconfig", shared.rig.Kubeconfig, "--installed", installedMap, "--served-certificates")
		var got string
		for _, r := range d.Results {
			if r.Requirement == "serving-cert/served" {
				got = r.Outcome
			}
		}
		if got != "pass" {
			t.Errorf("exit code %d, the outcome is %q", code, got)
		}
	})
	if err := shared.rig.WithdrawEndpoint(t.Context()); err != nil {
		t.Error(err)
	}
	restartAudit(t)
}

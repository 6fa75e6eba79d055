// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// auditDocument is what the tests read of the JSON.
type auditDocument struct {
	Verdict           string
	Subject           struct{ Kind, Name string }
	Examined          []struct{ Role, Location string }
	Certificates      []struct{ Role string }
	Checked, Findings []struct{ Reason, Location string }
}

// TestAuditOnce: webhook audit --once reports what is stored, and its exit code says so.
func TestAuditOnce(t *testing.T) {
	good := issue(pkitest.ServingCert())
	client := issue(pkitest.KubeletClient())
	store(t, serving(good))
	store(t, openshift.KubeletClient(client.Certificate, client.Key))
	bundle := func(text string) {
		t.Helper()
		const ns = "openshift-kube-apiserver-operator"
		changed := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "kube-apiserver-to-kubelet-client-ca"},
			Data:       map[string]string{"ca-bundle.crt": text},
		}
		if _, err := as(t, "").CoreV1().ConfigMaps(ns).Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	once := func(flags ...string) (auditDocument, int, string) {
		t.Helper()
		r := shared.rig.AuditOnce(
			t.Context(),
			append([]string{"--kubeconfig", shared.rig.Kubeconfig, "-o", "json"}, flags...)...)
		var d auditDocument
		if r.Code <= 2 {
			if err := json.Unmarshal([]byte(r.Output), &d); err != nil {
				t.Fatalf("%v\n%s", err, r.Output)
			}
		}
		for _, secret := range [][]byte{good.Key, client.Key} {
			if strings.Contains(r.Output, string(secret)) {
				t.Error("the document contains a private key")
			}
		}
		return d, r.Code, r.Output
	}
	files := []string{
		"--config",
		shared.rig.Path("webhook", "config.yaml"),
		"--guard-manifest",
		shared.rig.Path("webhook", "guard.yaml"),
	}
	verdict := func(wantCode int, wantVerdict, wantFindings string, flags ...string) auditDocument {
		t.Helper()
		d, code, output := once(flags...)
		var found []string
		for _, f := range d.Findings {
			found = append(found, f.Reason+" at "+f.Location)
		}
		if diff := cmp.Diff([]any{wantCode, wantVerdict, wantFindings},
			[]any{code, d.Verdict, strings.Join(found, ", ")}); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, output)
		}
		return d
	}

	t.Run("compliant", func(t *testing.T) {
		d := verdict(0, "Compliant", "", files...)
		if d.Subject.Kind != "Cluster" || !strings.HasPrefix(d.Subject.Name, "https://") {
			t.Errorf("the subject is %v", d.Subject)
		}
		var roles, certificates []string
		for _, e := range d.Examined {
			roles = append(roles, e.Role)
		}
		for _, c := range d.Certificates {
			certificates = append(certificates, c.Role)
		}
		for _, role := range []string{"secret", "service", "ca-bundle", "configuration", "overrides", "guard"} {
			if !slices.Contains(roles, role) {
				t.Errorf("no %s was examined: %v", role, roles)
			}
		}
		if d := cmp.Diff([]string{"openshift-apiserver/serving-cert", "openshift-kube-apiserver/kubelet-client"},
			certificates); d != "" {
			t.Errorf("certificates (-want +got):\n%s", d)
		}
		for _, reason := range []string{"KeyMismatch", "RotationStuck", "OverrideWeakensKubeletTLS",
			"ClientCertificateNotConfigured", "GuardMissing", "GuardIneffective", "AdmissionDisabled", "UntrustedIssuer"} {
			if !slices.ContainsFunc(d.Checked, func(c struct{ Reason, Location string }) bool { return c.Reason == reason }) {
				t.Errorf("%s was not checked", reason)
			}
		}
	})
	t.Run("OpenShift's objects only, without the guard", func(t *testing.T) {
		d := verdict(0, "Compliant", "", "--cluster-name", "production")
		if d.Subject.Name != "production" ||
			slices.ContainsFunc(
				d.Checked,
				func(c struct{ Reason, Location string }) bool { return c.Reason == "GuardMissing" },
			) {
			t.Errorf("the subject is %v, checked %v", d.Subject, d.Checked)
		}
	})
	t.Run("as an OpenReports object", func(t *testing.T) {
		crd, err := filepath.Abs("testdata/openreports.io_clusterreports.yaml") // kubectl runs in another directory
		if err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"apply", "-f", crd}, {"wait", "--for=condition=Established", "-f", crd}} {
			if r := shared.rig.KubectlCommand(t.Context(), args...); r.Code != 0 {
				t.Fatal(r.Output)
			}
		}
		t.Cleanup(func() { shared.rig.KubectlCommand(context.WithoutCancel(t.Context()), "delete", "-f", crd) })
		report := shared.rig.AuditOnce(
			t.Context(),
			append(
				[]string{"--kubeconfig", shared.rig.Kubeconfig, "--cluster-name", "Production 1", "-o", "openreports"},
				files...)...)
		await(t, "the API to accept the report", func() bool { // the kind may be served a moment later
			return shared.rig.KubectlInput(t.Context(), report.Output, "apply", "--validate=strict", "-f", "-").Code == 0
		})
		stored := shared.rig.KubectlCommand(t.Context(),
			"get", "clusterreports.openreports.io", "kubelet-https-guard-cluster-production-1", "-o",
			"jsonpath={.summary.fail} {.scope.name} {.results[?(@.rule=='serving-cert/pair')].result}")
		if stored.Output != "0 Production 1 pass" {
			t.Errorf("stored: %s", stored.Output)
		}
	})
	t.Run("a violation", func(t *testing.T) {
		garbage := serving(good)
		garbage.Data["tls.key"] = []byte("garbage")
		store(t, garbage)
		verdict(1, "NotCompliant", "KeyUnparsable at Secret openshift-apiserver/serving-cert tls.key", files...)
		store(t, serving(good))
	})
	t.Run("an invalid CA bundle", func(t *testing.T) {
		bundle("garbage")
		verdict(
			2,
			"CouldNotVerify",
			"ClientCAUnavailable at ConfigMap openshift-kube-apiserver-operator/kube-apiserver-to-kubelet-client-ca "+
				"ca-bundle.crt",
			files...)
		// The running audit reports the same, and that it is resolved.
		start := time.Now().Add(-time.Minute)
		awaitAuditEvent(t, start, "Lease", "kubelet-https-guard-audit", "Warning", "CouldNotVerify",
			"ClientCAUnavailable")
		bundle(string(shared.rig.ServiceCA.PEM()))
		verdict(0, "Compliant", "", files...)
	})
	t.Run("repaired meanwhile", func(t *testing.T) {
		garbage := serving(good)
		garbage.Data["tls.key"] = []byte("garbage")
		store(t, garbage)
		repaired := make(chan struct{})
		go func() {
			defer close(repaired)
			<-time.After(time.Second) // before it is reported
			store(t, serving(good))
		}()
		verdict(0, "Compliant", "", files...)
		<-repaired
	})
	t.Run("without permissions", func(t *testing.T) {
		d, code, output := once(append(files, "--kubeconfig", agentKubeconfig(t))...)
		if code != 2 || d.Verdict != "CouldNotVerify" ||
			!slices.ContainsFunc(
				d.Findings,
				func(f struct{ Reason, Location string }) bool { return f.Reason == "Unreadable" },
			) {
			t.Errorf("exit code %d, verdict %s\n%s", code, d.Verdict, output)
		}
	})
	t.Run("no kubeconfig", func(t *testing.T) {
		r := shared.rig.AuditOnce(t.Context(), "--kubeconfig", "/does/not/exist")
		if r.Code != 64 || !strings.Contains(r.Output, "--kubeconfig /does/not/exist: no such file") {
			t.Errorf("exit code %d\n%s", r.Code, r.Output)
		}
	})
	t.Run("the guard is not installed", func(t *testing.T) {
		_, code, output := once("--installed", "default/kubelet-https-guard-webhook")
		if code != 3 || !strings.Contains(output, `--installed default/kubelet-https-guard-webhook: read the ConfigMap: `) {
			t.Errorf("exit code %d\n%s", code, output)
		}
	})
}

func agentKubeconfig(t *testing.T) string {
	t.Helper()
	path, err := shared.rig.AgentKubeconfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

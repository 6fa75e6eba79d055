// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// awaitAuditEvent waits for the audit's Event about an object.
func awaitAuditEvent(t *testing.T, since time.Time, kind, objectName, eventType, reason, note string) eventsv1.Event {
	t.Helper()
	var ns string
	switch kind {
	case "Secret", "Service":
		ns = namespace
	case "Lease":
		ns = "kubelet-https-guard"
	default:
		ns = "default"
	}
	return awaitEvent(t, ns, func(e eventsv1.Event) bool {
		return e.Action == "Check" && e.ReportingController == "kubelet-https-guard.io/webhook" &&
			e.Regarding.Kind == kind && e.Regarding.Name == objectName &&
			e.Type == eventType &&
			e.Reason == reason &&
			strings.Contains(e.Note, note) &&
			e.EventTime.After(since)
	})
}

// restartAudit restarts the audit, with additional flags. The new process reports after the returned time, the old one
// reports nothing after it.
func restartAudit(t *testing.T, more ...string) time.Time {
	t.Helper()
	// An audit that has just started does not exit cleanly yet.
	await(t, "a running audit", func() bool { return metrics(t, shared.auditMetrics) != nil })
	if err := shared.rig.Audit.Stop(); err != nil {
		t.Fatal(err)
	}
	between := time.Now()
	if err := shared.rig.StartAudit(t.Context(), more...); err != nil {
		t.Fatal(err)
	}
	return between
}

// TestAudit: the audit reports changes that admission did not see, and that they are resolved.
func TestAudit(t *testing.T) {
	good := issue(pkitest.ServingCert())
	client := issue(pkitest.KubeletClient())
	store(t, serving(good))
	store(t, openshift.KubeletClient(client.Certificate, client.Key))
	// The audit reports a verdict when it changes, and may have reported earlier findings already, or be
	// about to. So it starts from the beginning and finds nothing.
	start := restartAudit(t)
	awaitAuditEvent(t, start, "Lease", "kubelet-https-guard-audit", "Normal", "Compliant", "Control compliant")

	t.Run("a restored backup contains an invalid key", func(t *testing.T) {
		garbage := serving(good)
		garbage.Data["tls.key"] = []byte("garbage")
		store(t, garbage)
		event := awaitAuditEvent(t, start, "Secret", name, "Warning", "KeyUnparsable",
			"Secret openshift-apiserver/serving-cert tls.key: ")
		if event.Regarding.UID != get(t).UID {
			t.Errorf("the Event is about UID %q", event.Regarding.UID)
		}
		awaitAuditEvent(t, start, "Lease", "kubelet-https-guard-audit", "Warning", "NotCompliant", "KeyUnparsable")
		store(t, serving(good))
		awaitAuditEvent(t, start, "Secret", name, "Normal", "KeyUnparsable", "Resolved: ")
	})
	t.Run("service-ca writes a pair of another CA", func(t *testing.T) {
		foreign := pkitest.NewCAAround("openshift-service-serving-signer@1", time.Now()).Issue(
			pkitest.ServingCert().Valid(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)),
		)
		if err := write(openshift.ServingCert(shared.serviceUID, foreign.Certificate, foreign.Key))(t.Context(),
			as(t, openshift.ServiceCA)); err != nil {
			t.Fatal(err)
		}
		awaitAuditEvent(t, start, "Secret", name, "Warning", "UntrustedIssuer", "")
		store(t, serving(good))
		awaitAuditEvent(t, start, "Secret", name, "Normal", "UntrustedIssuer", "Resolved: ")
	})
	t.Run("service-ca writes an ML-DSA pair, which the API server cannot use", func(t *testing.T) {
		certificate, key, reason := mldsaPair()
		if err := write(openshift.ServingCert(shared.serviceUID, certificate, key))(t.Context(),
			as(t, openshift.ServiceCA)); err != nil {
			t.Fatal(err)
		}
		awaitAuditEvent(t, start, "Secret", name, "Warning", reason, "ML-DSA-65")
		store(t, serving(good))
		awaitAuditEvent(t, start, "Secret", name, "Normal", reason, "Resolved: ")
	})
	t.Run("the Secret is deleted with its Service", func(t *testing.T) {
		remove(t, name)
		awaitAuditEvent(t, start, "Secret", name, "Warning", "SecretMissing", "")
		store(t, serving(good))
		awaitAuditEvent(t, start, "Secret", name, "Normal", "SecretMissing", "Resolved: ")
	})
	t.Run("service-ca gave up", func(t *testing.T) {
		annotate := func(value any) {
			body, err := json.Marshal(
				map[string]any{
					"metadata": map[string]any{
						"annotations": map[string]any{"service.alpha.openshift.io/serving-cert-generation-error-num": value},
					},
				},
			)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := as(t, "").CoreV1().Services(namespace).Patch(t.Context(), "api", types.MergePatchType, body,
				metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		annotate("10")
		awaitAuditEvent(t, start, "Service", "api", "Warning", "RotationStuck", "remove the annotations")
		annotate(nil)
		awaitAuditEvent(t, start, "Service", "api", "Normal", "RotationStuck", "Resolved: ")
	})
	t.Run("the configuration loses its key", func(t *testing.T) {
		configMaps := as(t, "").CoreV1().ConfigMaps("openshift-kube-apiserver")
		stored, err := configMaps.Get(t.Context(), "config", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		write := func(text string) {
			changed := &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "config"},
				Data:       map[string]string{"config.yaml": text},
			}
			if _, err := configMaps.Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		write(strings.Replace(stored.Data["config.yaml"], "kubelet-client-key", "other", 1))
		awaitEvent(t, "openshift-kube-apiserver", func(e eventsv1.Event) bool {
			return e.Reason == "ClientKeyNotConfigured" && e.Regarding.Kind == "ConfigMap" && e.Regarding.UID == stored.UID &&
				e.Type == "Warning"
		})
		write(stored.Data["config.yaml"])
		awaitEvent(t, "openshift-kube-apiserver", func(e eventsv1.Event) bool {
			return e.Reason == "ClientKeyNotConfigured" && e.Type == "Normal"
		})
	})
	t.Run("the guard is removed", func(t *testing.T) {
		t.Cleanup(func() { register(t, rig.Registration, rig.Policy) })
		register(t, rig.Policy)
		awaitAuditEvent(t, start, "ValidatingWebhookConfiguration", "kubelet-https-guard", "Warning", "GuardMissing",
			"")
		register(t, rig.Registration, rig.Policy)
		awaitAuditEvent(t, start, "ValidatingWebhookConfiguration", "kubelet-https-guard", "Normal", "GuardMissing",
			"Resolved: ")
		body := []byte(`[{"op":"replace","path":"/spec/failurePolicy","value":"Ignore"}]`)
		policies := as(t, "").AdmissionregistrationV1().ValidatingAdmissionPolicies()
		if _, err := policies.Patch(t.Context(), "kubelet-https-guard.openshift-apiserver.serving-cert",
			types.JSONPatchType, body, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		awaitAuditEvent(t, start, "ValidatingAdmissionPolicy", "kubelet-https-guard.openshift-apiserver.serving-cert",
			"Warning", "GuardIneffective", `spec.failurePolicy changed from "Fail" to "Ignore"`)
	})
	t.Run("all findings are resolved", func(t *testing.T) {
		// The audit reports nothing while an API server restarts. After its own restart it repeats what is
		// still true.
		awaitAuditEvent(t, restartAudit(t), "Lease", "kubelet-https-guard-audit", "Normal", "Compliant",
			"Control compliant")
	})
}

// TestRights: the audit's ServiceAccount may read what it audits and nothing else; the webhook's may
// not read any Secret.
func TestRights(t *testing.T) {
	store(t, serving(issue(pkitest.ServingCert())))
	account := as(t, "system:serviceaccount:kubelet-https-guard:kubelet-https-guard-audit")
	if _, err := account.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
		t.Errorf("the audit cannot read the Secret: %v", err)
	}
	if _, err := account.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes",
		metav1.GetOptions{}); err != nil {
		t.Errorf("the audit cannot read the endpoints of the API servers: %v", err)
	}
	if _, err := account.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{}); err != nil {
		t.Errorf("the audit cannot read the Secret's namespace: %v", err)
	}
	endpoints := account.DiscoveryV1().EndpointSlices(namespace)
	if _, err := endpoints.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the audit cannot list the endpoints of the Secret's Service: %v", err)
	}
	refused := map[string]error{}
	refused["the end of endpoints"] = endpoints.Delete(t.Context(), "any", metav1.DeleteOptions{})
	others := account.DiscoveryV1().EndpointSlices("kube-system")
	_, refused["EndpointSlices of other namespaces"] = others.List(t.Context(), metav1.ListOptions{})
	decoys := account.CoreV1().Secrets(guardNamespace)
	_, refused["the decoy"] = decoys.Get(t.Context(), decoyName, metav1.GetOptions{})
	_, refused["a decoy of its own"] = decoys.Create(t.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: decoyName}}, metav1.CreateOptions{})
	refused["the decoy's end"] = decoys.Delete(t.Context(), decoyName, metav1.DeleteOptions{})
	_, refused["other Secrets beside the decoy"] = decoys.Patch(t.Context(), "other", types.MergePatchType, []byte(`{}`),
		metav1.PatchOptions{})
	_, refused["other EndpointSlices"] = account.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "other",
		metav1.GetOptions{})
	_, refused["all EndpointSlices"] = account.DiscoveryV1().EndpointSlices("default").List(t.Context(),
		metav1.ListOptions{})
	_, refused["other namespaces"] = account.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	_, refused["other Secrets"] = account.CoreV1().Secrets(namespace).Get(t.Context(), "other", metav1.GetOptions{})
	_, refused["all Secrets"] = account.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	_, refused["writes"] = account.CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(`{}`),
		metav1.PatchOptions{})
	_, refused["other ConfigMaps"] = account.CoreV1().ConfigMaps("openshift-kube-apiserver").Get(t.Context(), "other",
		metav1.GetOptions{})
	webhook := as(t, "system:serviceaccount:kubelet-https-guard:kubelet-https-guard-webhook")
	_, refused["the decoy, as the webhook"] = webhook.CoreV1().Secrets(guardNamespace).Patch(t.Context(), decoyName,
		types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
	_, refused["the Secret, as the webhook"] = webhook.CoreV1().Secrets(namespace).Get(t.Context(), name,
		metav1.GetOptions{})
	var allowed []string
	for what, err := range refused {
		if err == nil || !strings.Contains(err.Error(), "cannot ") {
			allowed = append(allowed, what)
		}
	}
	if slices.Sort(allowed); len(allowed) > 0 {
		t.Errorf("requests that should be forbidden are allowed: %v", allowed)
	}
}

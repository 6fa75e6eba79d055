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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// audited waits until the audit has said that about an object.
func audited(t *testing.T, since time.Time, kind, objectName, eventType, reason, note string) eventsv1.Event {
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
		return e.Action == "Check" && e.ReportingController == "kubelet-https-guard.io/webhook" && e.Regarding.Kind == kind && e.Regarding.Name == objectName &&
			e.Type == eventType && e.Reason == reason && strings.Contains(e.Note, note) && e.EventTime.After(since)
	})
}

// restarted ends the webhook and starts it anew. What the new one tells comes after
// the moment that is returned, and of the old one nothing does.
func restarted(t *testing.T) time.Time {
	t.Helper()
	if err := shared.rig.Webhook.Stop(); err != nil {
		t.Fatal(err)
	}
	between := time.Now()
	if err := shared.rig.RestartWebhook(t.Context()); err != nil {
		t.Fatal(err)
	}
	return between
}

// TestAudit: what nobody asked the webhook about is told, and that it is over.
func TestAudit(t *testing.T) {
	good := issue(pkitest.ServingCert())
	client := issue(pkitest.KubeletClient())
	store(t, serving(good))
	store(t, openshift.KubeletClient(client.Certificate, client.Key))
	// A verdict is told when it changes, and what was found before may have been
	// told already, or may be just now: the audit begins anew, and finds all well.
	start := restarted(t)
	audited(t, start, "Lease", "kubelet-https-guard-audit", "Normal", "Verified", "Control holds")

	t.Run("a backup brings garbage back", func(t *testing.T) {
		garbage := serving(good)
		garbage.Data["tls.key"] = []byte("garbage")
		store(t, garbage)
		event := audited(t, start, "Secret", name, "Warning", "KeyUnparsable", "Secret openshift-apiserver/serving-cert tls.key: ")
		if event.Regarding.UID != get(t).UID {
			t.Errorf("it is about UID %q", event.Regarding.UID)
		}
		audited(t, start, "Lease", "kubelet-https-guard-audit", "Warning", "NotVerified", "KeyUnparsable")
		store(t, serving(good))
		audited(t, start, "Secret", name, "Normal", "KeyUnparsable", "Cleared: ")
	})
	t.Run("service-ca writes another CA's", func(t *testing.T) {
		foreign := pkitest.NewCAAround("openshift-service-serving-signer@1", time.Now()).Issue(pkitest.ServingCert().Valid(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)))
		if err := write(openshift.ServingCert(shared.serviceUID, foreign.Certificate, foreign.Key))(t.Context(), as(t, openshift.ServiceCA)); err != nil {
			t.Fatal(err)
		}
		audited(t, start, "Secret", name, "Warning", "UntrustedIssuer", "")
		store(t, serving(good))
		audited(t, start, "Secret", name, "Normal", "UntrustedIssuer", "Cleared: ")
	})
	t.Run("it is deleted with its Service", func(t *testing.T) {
		remove(t, name)
		audited(t, start, "Secret", name, "Warning", "SecretMissing", "")
		store(t, serving(good))
		audited(t, start, "Secret", name, "Normal", "SecretMissing", "Cleared: ")
	})
	t.Run("service-ca gave up", func(t *testing.T) {
		annotate := func(value any) {
			body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"service.alpha.openshift.io/serving-cert-generation-error-num": value}}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := as(t, "").CoreV1().Services(namespace).Patch(t.Context(), "api", types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		annotate("10")
		audited(t, start, "Service", "api", "Warning", "RotationStuck", "remove the annotations")
		annotate(nil)
		audited(t, start, "Service", "api", "Normal", "RotationStuck", "Cleared: ")
	})
	t.Run("the configuration loses its key", func(t *testing.T) {
		configMaps := as(t, "").CoreV1().ConfigMaps("openshift-kube-apiserver")
		stored, err := configMaps.Get(t.Context(), "config", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		write := func(text string) {
			changed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config"}, Data: map[string]string{"config.yaml": text}}
			if _, err := configMaps.Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		write(strings.Replace(stored.Data["config.yaml"], "kubelet-client-key", "other", 1))
		awaitEvent(t, "openshift-kube-apiserver", func(e eventsv1.Event) bool {
			return e.Reason == "ClientKeyNotConfigured" && e.Regarding.Kind == "ConfigMap" && e.Regarding.UID == stored.UID && e.Type == "Warning"
		})
		write(stored.Data["config.yaml"])
		awaitEvent(t, "openshift-kube-apiserver", func(e eventsv1.Event) bool {
			return e.Reason == "ClientKeyNotConfigured" && e.Type == "Normal"
		})
	})
	t.Run("the guard is taken away", func(t *testing.T) {
		t.Cleanup(func() { register(t, rig.Registration, rig.Policy) })
		register(t, rig.Policy)
		audited(t, start, "ValidatingWebhookConfiguration", "kubelet-https-guard", "Warning", "GuardMissing", "")
		register(t, rig.Registration, rig.Policy)
		audited(t, start, "ValidatingWebhookConfiguration", "kubelet-https-guard", "Normal", "GuardMissing", "Cleared: ")
		body := []byte(`[{"op":"replace","path":"/spec/failurePolicy","value":"Ignore"}]`)
		policies := as(t, "").AdmissionregistrationV1().ValidatingAdmissionPolicies()
		if _, err := policies.Patch(t.Context(), "kubelet-https-guard.openshift-apiserver.serving-cert", types.JSONPatchType, body, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		audited(t, start, "ValidatingAdmissionPolicy", "kubelet-https-guard.openshift-apiserver.serving-cert", "Warning", "GuardWeakened", `spec.failurePolicy is "Ignore" instead of "Fail"`)
	})
	t.Run("all is well again", func(t *testing.T) {
		// Of an API server that restarts nothing is said, nor of a webhook that
		// does: what stands is told once more.
		audited(t, restarted(t), "Lease", "kubelet-https-guard-audit", "Normal", "Verified", "Control holds")
	})
}

// TestRights: the webhook's ServiceAccount may read what it audits and nothing
// else.
func TestRights(t *testing.T) {
	store(t, serving(issue(pkitest.ServingCert())))
	account := as(t, "system:serviceaccount:kubelet-https-guard:kubelet-https-guard-webhook")
	if _, err := account.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
		t.Errorf("it cannot read the Secret: %v", err)
	}
	refused := map[string]error{}
	_, refused["other Secrets"] = account.CoreV1().Secrets(namespace).Get(t.Context(), "other", metav1.GetOptions{})
	_, refused["all Secrets"] = account.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	_, refused["writes"] = account.CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
	_, refused["other ConfigMaps"] = account.CoreV1().ConfigMaps("openshift-kube-apiserver").Get(t.Context(), "other", metav1.GetOptions{})
	var allowed []string
	for what, err := range refused {
		if err == nil || !strings.Contains(err.Error(), "cannot ") {
			allowed = append(allowed, what)
		}
	}
	if slices.Sort(allowed); len(allowed) > 0 {
		t.Errorf("it may do more: %v", allowed)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

const (
	namespace    = "openshift-apiserver"
	name         = "serving-cert"
	collector    = "system:serviceaccount:kube-system:generic-garbage-collector"
	nsController = "system:serviceaccount:kube-system:namespace-controller"

	allowDeleteUntil = "kubelet-https-guard.io/allow-delete-until"
)

// serving is the protected Secret as service-ca writes it.
func serving(p pkitest.Pair) *corev1.Secret {
	return openshift.ServingCert(shared.serviceUID, p.ChainWith(shared.ca.PEM()), p.Key)
}

// store makes the protected Secret that, good or bad, behind the API server's
// back: no admission sees it.
func store(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	secret = secret.DeepCopy()
	stored, err := as(t, "").CoreV1().Secrets(secret.Namespace).Get(t.Context(), secret.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		secret.UID, secret.CreationTimestamp = uuid.NewUUID(), metav1.Now()
	case err != nil:
		t.Fatal(err)
	default:
		secret.UID, secret.CreationTimestamp = stored.UID, stored.CreationTimestamp
	}
	if err := shared.rig.Restore(t.Context(), "secrets", secret.Namespace, secret.Name, secret); err != nil {
		t.Fatal(err)
	}
}

// remove deletes a Secret as somebody who is never refused that.
func remove(t *testing.T, name string) {
	t.Helper()
	if err := as(t, collector).CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatalf("remove the Secret: %v", err)
	}
}

func base64Of(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

func get(t *testing.T) *corev1.Secret {
	t.Helper()
	secret, err := as(t, "").CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// mustBeRefused: by the webhook or the policy, with the reason and both
// control numbers.
func mustBeRefused(t *testing.T, err error, reason string) {
	t.Helper()
	mustSay(t, err, " denied ", reason, "CIS OpenShift 1.2.4 (1.2.2 from v1.9)")
}

// TestRenewingWriters: whoever renews one Secret is left out for that one
// alone, and not when deleting it.
func TestRenewingWriters(t *testing.T) {
	good := issue(pkitest.ServingCert())
	store(t, serving(good))
	client := openshift.KubeletClient([]byte("garbage"), []byte("garbage"))
	_, err := as(t, openshift.ServiceCA).CoreV1().Secrets(client.Namespace).Update(t.Context(), client, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = as(t, openshift.ServiceCA).CoreV1().Secrets(client.Namespace).Create(t.Context(), client, metav1.CreateOptions{})
	}
	mustBeRefused(t, err, "CertificateUnparsable (tls.crt)")

	mighty := rest.CopyConfig(shared.config)
	mighty.Impersonate = rest.ImpersonationConfig{UserName: openshift.ServiceCA, Groups: []string{"system:masters"}}
	asMightyServiceCA, err := kubernetes.NewForConfig(mighty)
	if err != nil {
		t.Fatal(err)
	}
	mustBeRefused(t, asMightyServiceCA.CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}), "SecretMissing")
}

// TestRegistration: what the API server does without us is what was meant.
func TestRegistration(t *testing.T) {
	registered, err := as(t, "").AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), "kubelet-https-guard", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(registered.Webhooks) != 2 {
		t.Errorf("%d webhooks are registered", len(registered.Webhooks))
	}
	for _, hook := range registered.Webhooks {
		if *hook.FailurePolicy != "Fail" || *hook.TimeoutSeconds != 3 || *hook.MatchPolicy != "Equivalent" || *hook.SideEffects != "NoneOnDryRun" {
			t.Errorf("registered: %+v", hook)
		}
	}
}

// TestOutage: with the webhook gone, who renews and who migrates go on, other
// writes to the protected Secret fail, nothing else is touched.
func TestOutage(t *testing.T) {
	good, other := issue(pkitest.ServingCert()), issue(pkitest.ServingCert())
	store(t, serving(good))
	if err := shared.rig.Webhook.Stop(); err != nil {
		t.Fatalf("the webhook did not end well: %v", err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if err := shared.rig.RestartWebhook(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("start the webhook again: %v", err)
		}
	})
	secrets := func(user string) func(*corev1.Secret) error {
		return func(secret *corev1.Secret) error {
			_, err := as(t, user).CoreV1().Secrets(secret.Namespace).Update(t.Context(), secret, metav1.UpdateOptions{})
			return err
		}
	}
	if err := secrets(openshift.ServiceCA)(serving(other)); err != nil {
		t.Errorf("service-ca cannot renew: %v", err)
	}
	if err := secrets(openshift.StorageMigrator)(get(t)); err != nil {
		t.Errorf("the migrator cannot write what is there: %v", err)
	}
	if err := secrets("")(serving(good)); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("a change of the protected Secret does not fail closed: %v", err)
	}
	if err := as(t, "").CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err == nil {
		t.Error("the protected Secret can be deleted")
	}
	finalizer := []byte(`{"metadata":{"finalizers":["example.com/mine"]}}`)
	if _, err := as(t, "").CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, finalizer, metav1.PatchOptions{}); err == nil {
		t.Error("a finalizer is not asked about")
	}
	for user, do := range map[string]attempt{collector: deleteWith(metav1.DeleteOptions{}), nsController: deleteCollection(metav1.ListOptions{})} {
		store(t, serving(good))
		if err := do(t.Context(), as(t, user)); err != nil {
			t.Errorf("%s cannot delete: %v", user, err)
		}
	}
	elsewhere := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "other-"}}
	if _, err := as(t, "").CoreV1().Secrets(namespace).Create(t.Context(), elsewhere, metav1.CreateOptions{}); err != nil {
		t.Errorf("another Secret cannot be created: %v", err)
	}
}

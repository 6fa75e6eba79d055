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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
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

// store makes this the stored Secret, valid or not, without the API server and without admission.
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

// remove deletes a Secret as a user whom the guard never refuses that.
func remove(t *testing.T, name string) {
	t.Helper()
	if err := as(t, collector).CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil &&
		!apierrors.IsNotFound(err) {
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

// mustBeRefused requires a refusal by the webhook or the policy, with the reason and both numbers of
// the control.
func mustBeRefused(t *testing.T, err error, reason string) {
	t.Helper()
	mustContain(t, err, " denied ", reason, "CIS OpenShift 1.2.4 (1.2.2 from v1.8)")
}

// TestRenewingWriters: the user that renews a Secret is exempt for that Secret only, and not when it
// deletes the Secret.
func TestRenewingWriters(t *testing.T) {
	good := issue(pkitest.ServingCert())
	store(t, serving(good))
	client := openshift.KubeletClient([]byte("garbage"), []byte("garbage"))
	_, err := as(t, openshift.ServiceCA).CoreV1().Secrets(
		client.Namespace,
	).Update(t.Context(), client, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = as(t, openshift.ServiceCA).CoreV1().Secrets(
			client.Namespace,
		).Create(t.Context(), client, metav1.CreateOptions{})
	}
	mustBeRefused(t, err, "tls.crt: … (CertificateUnparsable)")

	mighty := rest.CopyConfig(shared.config)
	mighty.Impersonate = rest.ImpersonationConfig{UserName: openshift.ServiceCA, Groups: []string{"system:masters"}}
	asMightyServiceCA, err := kubernetes.NewForConfig(mighty)
	if err != nil {
		t.Fatal(err)
	}
	mustBeRefused(t, asMightyServiceCA.CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}),
		"SecretMissing")
}

// TestRegistration: the registration that the API server has stored is complete, defaults included.
func TestRegistration(t *testing.T) {
	registered, err := as(t, "").AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(),
		"kubelet-https-guard", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(registered.Webhooks) != 2 {
		t.Errorf("%d webhooks are registered", len(registered.Webhooks))
	}
	for _, hook := range registered.Webhooks {
		if *hook.FailurePolicy != "Fail" || *hook.TimeoutSeconds != 3 || *hook.MatchPolicy != "Equivalent" ||
			*hook.SideEffects != "NoneOnDryRun" {
			t.Errorf("registered: %+v", hook)
		}
	}
}

// TestOutage: while the webhook is down, renewals and migrations succeed, other writes to the
// protected Secret fail, and nothing else is affected.
func TestOutage(t *testing.T) {
	good, other := issue(pkitest.ServingCert()), issue(pkitest.ServingCert())
	store(t, serving(good))
	if err := shared.rig.Webhook.Stop(); err != nil {
		t.Fatalf("the webhook exited with an error: %v", err)
	}
	t.Cleanup(func() {
		// The context of the test has ended by now.
		if err := shared.rig.RestartWebhook(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("restart the webhook: %v", err)
		}
	})
	secrets := func(user string) func(*corev1.Secret) error {
		return func(secret *corev1.Secret) error {
			_, err := as(t, user).CoreV1().Secrets(secret.Namespace).Update(t.Context(), secret, metav1.UpdateOptions{})
			return err
		}
	}
	if err := secrets(openshift.ServiceCA)(serving(other)); err != nil {
		t.Errorf("service-ca cannot renew the Secret: %v", err)
	}
	if err := secrets(openshift.StorageMigrator)(get(t)); err != nil {
		t.Errorf("the migrator cannot write the stored Secret: %v", err)
	}
	if err := secrets("")(serving(good)); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("a change of the protected Secret does not fail closed: %v", err)
	}
	if err := as(t, "").CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err == nil {
		t.Error("the protected Secret can be deleted")
	}
	finalizer := []byte(`{"metadata":{"finalizers":["example.com/mine"]}}`)
	if _, err := as(t, "").CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, finalizer,
		metav1.PatchOptions{}); err == nil {
		t.Error("adding a finalizer does not fail closed")
	}
	store(t, serving(good))
	if err := orphan(t.Context(), as(t, collector)); err != nil {
		t.Errorf("%s cannot remove an owner: %v", collector, err)
	}
	for user, do := range map[string]attempt{collector: deleteWith(metav1.DeleteOptions{}),
		nsController: deleteCollection(metav1.ListOptions{})} {
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

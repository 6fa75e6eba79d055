// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// TestSelfManagedCert: a webhook without a certificate makes one that the API server trusts.
func TestSelfManagedCert(t *testing.T) {
	const name = "self-managed"
	client := as(t, "")
	port, err := rig.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	url, none := fmt.Sprintf("https://127.0.0.1:%d/validate", port), registrationv1.SideEffectClassNone
	configurations := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if _, err := configurations.Create(t.Context(), &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []registrationv1.ValidatingWebhook{{
			Name: "self-managed.example.com", ClientConfig: registrationv1.WebhookClientConfig{URL: &url},
			Rules: []registrationv1.RuleWithOperations{{
				Operations: []registrationv1.OperationType{registrationv1.Create},
				Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
			}},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": name}},
			SideEffects:             &none,
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	create := func() error {
		_, err := client.CoreV1().Secrets(name).Create(t.Context(),
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "any-"}}, metav1.CreateOptions{})
		return err
	}
	await(t, "a registration that is in force", func() bool {
		err := create()
		return err != nil && strings.Contains(err.Error(), "failed calling webhook")
	})

	process, err := shared.rig.LaunchWebhook(name, "--cert-dir", t.TempDir(), "--bind-address",
		fmt.Sprintf("127.0.0.1:%d", port),
		"--namespace", "kubelet-https-guard", "--self-managed-cert", "own", "--webhook-configuration", name,
		"--serving-names", "self-managed.self-managed.svc,127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			t.Errorf("the webhook exited with an error: %v", err)
		}
	})
	await(t, "an API server that trusts it", func() bool { return create() == nil })
}

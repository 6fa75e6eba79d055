// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestMigration: Kubernetes' own storage version migrator (storagemigration.k8s.io/v1, a controller of
// kube-controller-manager, on by default from 1.37) rewrites all Secrets. A migration fails for good
// after one refusal, so the guard refuses none of its writes, whatever is stored, also while the
// webhook is down.
func TestMigration(t *testing.T) {
	if shared.rig == nil {
		t.Skip("writes to etcd directly, so it runs only on the tests' own cluster")
	}
	prepare(t)
	must(t, install(t, "--set", "nodeagent.enabled=false", "--wait", "--timeout", helmWait))
	defer uninstall(t)
	awaitRefusal(t)

	now := time.Now()
	ca := pkitest.NewCAAround("ca", now)
	pair := ca.Issue(shared.secret.request.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	client := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	faults := map[string]func(*corev1.Secret){
		"sound": func(*corev1.Secret) {},
		"garbage": func(s *corev1.Secret) {
			s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey] = []byte("garbage"), []byte("garbage")
		},
		"empty":     func(s *corev1.Secret) { s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey] = nil, nil },
		"immutable": func(s *corev1.Secret) { s.Immutable = new(true) },
		"detached, of another type": func(s *corev1.Secret) {
			s.Type, s.Annotations, s.OwnerReferences = corev1.SecretTypeOpaque, nil, nil
		},
	}
	store := func(t *testing.T, change func(*corev1.Secret)) {
		t.Helper()
		service, err := shared.client.CoreV1().Services(shared.secret.namespace).Get(t.Context(), "api", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for uid, secret := range map[types.UID]*corev1.Secret{
			"33333333-3333-4333-8333-333333333333": openshift.ServingCert(service.UID, pair.Certificate, pair.Key),
			"44444444-4444-4444-8444-444444444444": openshift.KubeletClient(client.Certificate, client.Key),
		} {
			secret.UID, secret.CreationTimestamp = uid, metav1.NewTime(now)
			change(secret)
			restore(t, secret)
		}
	}
	defer store(t, faults["sound"])
	for _, webhook := range []string{"up", "down"} {
		if webhook == "down" {
			evictGuard(t)
			awaitFailClosed(t)
		}
		for name, change := range faults {
			t.Run("webhook "+webhook+"/"+name, func(t *testing.T) {
				store(t, change)
				// The tests that follow write to the Secret, so it must not stay immutable.
				defer store(t, faults["sound"])
				if status := migrate(t); !meta.IsStatusConditionTrue(
					status.Conditions,
					string(storagemigrationv1.MigrationSucceeded),
				) {
					t.Errorf("the migration ended with %+v", status.Conditions)
				}
			})
		}
	}
	readmitGuard(t)
	awaitRefusal(t)
	t.Run("a migration that is refused", func(t *testing.T) {
		// This shows that the checks above would have detected a refusal.
		must(t, shared.kubectlInput(t.Context(), refusesMigrator, "apply", "-f", "-"))
		defer func() { must(t, shared.kubectlInput(t.Context(), refusesMigrator, "delete", "-f", "-")) }()
		await(t, "the policy is enforced", func() (bool, string) {
			_, err := as(t, openshift.InTreeMigrator).CoreV1().Secrets(
				release,
			).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "e2e"}},
				metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err != nil && strings.Contains(err.Error(), "denied request"), fmt.Sprint(err)
		})
		if status := migrate(t); !meta.IsStatusConditionTrue(status.Conditions, string(storagemigrationv1.MigrationFailed)) {
			t.Errorf("the migration ended with %+v", status.Conditions)
		}
	})
}

// migrate rewrites all Secrets and returns the result. Secrets that were restored are stored as JSON,
// so the migration really writes them.
func migrate(t *testing.T) storagemigrationv1.StorageVersionMigrationStatus {
	t.Helper()
	before := versions(t)
	migrations := shared.client.StoragemigrationV1().StorageVersionMigrations()
	made, err := migrations.Create(t.Context(), &storagemigrationv1.StorageVersionMigration{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"},
		Spec:       storagemigrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: "secrets"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { must(t, shared.kubectl(t.Context(), "delete", "storageversionmigration", made.Name)) }()
	began := time.Now()
	succeeded, failed := string(storagemigrationv1.MigrationSucceeded), string(storagemigrationv1.MigrationFailed)
	await(t, "the migration has ended", func() (bool, string) {
		// The controller waits until the garbage collector has seen a later change.
		must(t, shared.kubectl(t.Context(), "create", "secret", "generic", "e2e-later", "-n", "default"))
		must(t, shared.kubectl(t.Context(), "delete", "secret", "e2e-later", "-n", "default"))
		made, err = migrations.Get(t.Context(), made.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		return meta.IsStatusConditionTrue(made.Status.Conditions, succeeded) ||
				meta.IsStatusConditionTrue(made.Status.Conditions, failed), fmt.Sprintf(
				"%+v",
				made.Status,
			)
	})
	t.Logf("the migration ended after %s", time.Since(began).Round(time.Millisecond))
	if meta.IsStatusConditionTrue(made.Status.Conditions, succeeded) {
		for name, version := range versions(t) {
			if version == before[name] {
				t.Errorf("%s was not written", name)
			}
		}
	}
	return made.Status
}

// versions are the resource versions of the protected Secrets.
func versions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for namespace, name := range map[string]string{shared.secret.namespace: shared.secret.name,
		"openshift-kube-apiserver": "kubelet-client"} {
		secret, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all[name] = secret.ResourceVersion
	}
	return all
}

// refusesMigrator is a policy that is not part of the guard.
const refusesMigrator = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: e2e-refuses-the-migrator
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets]}
  validations:
  - expression: request.userInfo.username != "` + openshift.InTreeMigrator + `"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: e2e-refuses-the-migrator
spec:
  policyName: e2e-refuses-the-migrator
  validationActions: [Deny]
`

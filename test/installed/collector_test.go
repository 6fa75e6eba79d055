// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// parts are the settings to install one part of the guard or both.
var parts = []struct {
	name     string
	settings string
	webhook  bool
}{
	{"policy", "webhook.enabled=false", false},
	{"webhook", "policy.enabled=false", true},
	{"both", "policy.enabled=true", true},
}

// TestCollector: the garbage collector and the namespace controller of a real kube-controller-manager
// complete their work, whatever the guard refuses to others. The audit reports what they leave behind.
func TestCollector(t *testing.T) {
	if shared.rig == nil {
		t.Skip("deletes OpenShift's Service, so it runs only on the tests' own cluster")
	}
	prepare(t)
	for _, part := range parts {
		ok := t.Run(part.name, func(t *testing.T) {
			must(t, install(t, "--set", part.settings+",nodeagent.enabled=false", "--wait", "--timeout", helmWait))
			if part.webhook {
				awaitRefusal(t)
			}
			awaitAudit(t)
			t.Run("the guard refuses others", refusesOthers)
			for _, c := range cascades {
				t.Run(c.name, c.run)
				repair(t)
			}
			t.Run("a dangling and a living owner", danglingOwner)
			t.Run("dependents of the Secret with a pending deletion", circle)
			repair(t)
			t.Run("deletes of the Secret that are allowed", allowedDelete)
			t.Run("the namespace", namespaceDeleted)
			repair(t)
			uninstall(t)
		})
		if !ok {
			return // what is left may disturb the next one
		}
	}
}

// prepare makes the namespaces and the protected Secret. If a failure leaves a release, it is removed
// at the end.
func prepare(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		shared.helm(context.WithoutCancel(t.Context()),
			"uninstall", release, "--namespace", release, "--ignore-not-found", "--wait")
	})
	for _, namespace := range []string{release, shared.secret.namespace} {
		makeNamespace(t, namespace)
	}
	must(
		t,
		shared.kubectl(t.Context(),
			"label", "namespace", release, "--overwrite", "pod-security.kubernetes.io/enforce=privileged"),
	)
	storeSecret(t)
}

// refusesOthers makes sure that the guard is in force: otherwise the test would prove nothing.
func refusesOthers(t *testing.T) {
	secrets := shared.client.CoreV1().Secrets(shared.secret.namespace)
	// API servers do not enforce a new policy at once.
	await(t, "an administrator is refused", func() (bool, string) {
		deleted := secrets.Delete(t.Context(), shared.secret.name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		_, detached := secrets.Patch(t.Context(), shared.secret.name, types.MergePatchType,
			[]byte(`{"metadata":{"ownerReferences":null}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsForbidden(deleted) && apierrors.IsForbidden(detached), fmt.Sprintf("%v; %v", deleted, detached)
	})
}

// cascades delete the Service that owns the Secret.
var cascades = []cascade{
	{"background", "background", nil, false, finding.SecretMissing},
	{"foreground", "foreground", nil, false, finding.SecretMissing},
	{"foreground, which the Secret blocks", "foreground", new(true), false, finding.SecretMissing},
	{"orphan", "orphan", nil, true, finding.RotationDetached},
	{"orphan, which the Secret blocks", "orphan", new(true), true, finding.RotationDetached},
}

type cascade struct {
	name, how string
	// blocks is blockOwnerDeletion of the Secret's owner.
	blocks *bool
	// stays: the Secret remains, without an owner.
	stays bool
	// reported is the audit's finding.
	reported finding.Reason
}

func (c cascade) run(t *testing.T) {
	secrets := shared.client.CoreV1().Secrets(shared.secret.namespace)
	secret, err := secrets.Get(t.Context(), shared.secret.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c.blocks != nil {
		secret.OwnerReferences[0].BlockOwnerDeletion = c.blocks
		if _, err := as(t, openshift.ServiceCA).CoreV1().Secrets(secret.Namespace).Update(t.Context(), secret,
			metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	since := time.Now()
	must(
		t,
		shared.kubectl(t.Context(), "delete", "service", "api", "-n", secret.Namespace, "--cascade="+c.how, "--wait",
			"--timeout=60s"),
	)
	t.Logf("the Service was deleted after %s", time.Since(since).Round(time.Millisecond))
	await(t, "the Secret is deleted, or remains without an owner", func() (bool, string) {
		now, err := secrets.Get(t.Context(), secret.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return !c.stays, "it does not exist"
		}
		if err != nil {
			return false, err.Error()
		}
		return c.stays && now.UID == secret.UID && len(now.OwnerReferences) == 0 && len(now.Finalizers) == 0 &&
				now.DeletionTimestamp == nil, fmt.Sprintf(
				"%+v",
				now.ObjectMeta,
			)
	})
	t.Logf("the Secret has its final state after %s", time.Since(since).Round(time.Millisecond))
	reported(t, since, c.reported, corev1.EventTypeWarning)
	nothingTerminates(t)
	repair(t)
	reported(t, since, c.reported, corev1.EventTypeNormal)
}

// reported waits for the audit's Event on the Secret that is later than since.
func reported(t *testing.T, since time.Time, reason finding.Reason, kind string) {
	t.Helper()
	await(t, fmt.Sprintf("a %s Event %s of the audit", kind, reason), func() (bool, string) {
		list, err := shared.client.EventsV1().Events(shared.secret.namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		var all string
		for _, e := range list.Items {
			if e.ReportingController == "kubelet-https-guard.io/webhook" && e.Action == "Check" && e.EventTime.After(since) {
				if e.Regarding.Kind == "Secret" && e.Regarding.Name == shared.secret.name && e.Reason == string(reason) &&
					e.Type == kind {
					return true, ""
				}
				all += fmt.Sprintf("%s %s %s: %s\n", e.Type, e.Reason, e.Regarding.Name, e.Note)
			}
		}
		return false, all
	})
}

// nothingTerminates: no Service and no Secret waits for a finalizer.
func nothingTerminates(t *testing.T) {
	t.Helper()
	await(t, "nothing is Terminating", func() (bool, string) {
		now := shared.kubectl(t.Context(), "get", "services,secrets,configmaps", "-n", shared.secret.namespace, "-o",
			`jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.kind}/{.metadata.name} {.metadata.finalizers}{"\n"}{end}`)
		return now.Code == 0 && now.Output == "", now.Output
	})
}

// repair restores namespace, Service and Secret, as their operators would.
func repair(t *testing.T) {
	t.Helper()
	ctx, namespace := t.Context(), shared.secret.namespace
	if _, err := shared.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "api", Annotations: map[string]string{"service.alpha.openshift.io/serving-cert-secret-name": shared.secret.name}},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 443}}},
	}
	if _, err := shared.client.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	service, err := shared.client.CoreV1().Services(namespace).Get(ctx, "api", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secrets := as(t, openshift.ServiceCA).CoreV1().Secrets(namespace)
	// The Secret of the old Service is collected. It may still exist.
	await(t, "service-ca has written the Secret", func() (bool, string) {
		storeSecret(t)
		secret, err := secrets.Get(ctx, shared.secret.name, metav1.GetOptions{})
		switch {
		case err != nil:
			return false, err.Error()
		case secret.DeletionTimestamp != nil:
			return false, "it is Terminating"
		case len(secret.OwnerReferences) == 1 && secret.OwnerReferences[0].UID == service.UID &&
			secret.OwnerReferences[0].BlockOwnerDeletion == nil:
			return true, ""
		}
		_, err = secrets.Update(ctx,
			openshift.ServingCert(service.UID, secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]),
			metav1.UpdateOptions{})
		return false, fmt.Sprint(err)
	})
}

// danglingOwner: the collector removes those owners that do not exist. They were written without
// admission.
func danglingOwner(t *testing.T) {
	healed(t, func(living *metav1.OwnerReference) {})
	nothingTerminates(t)
}

// healed lets the collector remove the dangling owners of a Secret that has a living one, too, and
// returns the Secret. After that, the collector has seen the changed living one.
func healed(t *testing.T, change func(living *metav1.OwnerReference)) *corev1.Secret {
	t.Helper()
	secrets := shared.client.CoreV1().Secrets(shared.secret.namespace)
	secret, err := secrets.Get(t.Context(), shared.secret.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	living := secret.OwnerReferences[0]
	change(&living)
	secret.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Service", Name: "api", UID: "11111111-1111-4111-8111-111111111111"}, living,
		{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "22222222-2222-4222-8222-222222222222", BlockOwnerDeletion: new(true)},
	}
	restore(t, secret)
	await(t, "the living owner alone is left", func() (bool, string) {
		if secret, err = secrets.Get(t.Context(), shared.secret.name, metav1.GetOptions{}); err != nil {
			t.Fatal(err) // the Secret must not be collected
		}
		return cmp.Equal(secret.OwnerReferences, []metav1.OwnerReference{living}), fmt.Sprint(secret.OwnerReferences)
	})
	return secret
}

// restore writes a Secret without the API server.
func restore(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	secret.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	secret.ResourceVersion = ""
	if err := shared.rig.Restore(t.Context(), "secrets", secret.Namespace, secret.Name, secret); err != nil {
		t.Fatal(err)
	}
}

// circle: the Secret has a dependent whose own deletion is pending. So the collector unsets
// blockOwnerDeletion of the Secret and deletes it: in the foreground, or at once if it sees before
// that the Service was deleted.
func circle(t *testing.T) {
	namespace := shared.secret.namespace
	secret := healed(t, func(living *metav1.OwnerReference) { living.BlockOwnerDeletion = new(true) })
	configMaps := shared.client.CoreV1().ConfigMaps(namespace)
	dependent := func(name, kind, owner string, uid types.UID, finalizers ...string) *corev1.ConfigMap {
		t.Helper()
		made, err := configMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: name, Finalizers: finalizers,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: kind, Name: owner, UID: uid, BlockOwnerDeletion: new(true)}},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	first := dependent("e2e-first", "Secret", secret.Name, secret.UID)
	second := dependent("e2e-second", "ConfigMap", first.Name, first.UID, "example.com/waits")
	must(
		t,
		shared.kubectl(t.Context(),
			"delete", "configmap", first.Name, "-n", namespace, "--cascade=foreground", "--wait=false"),
	)
	await(t, "the deletion of the first dependent is pending", func() (bool, string) {
		now, err := configMaps.Get(t.Context(), second.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		return now.DeletionTimestamp != nil, "the dependent of the dependent is not being deleted"
	})
	must(
		t,
		shared.kubectl(t.Context(),
			"delete", "service", "api", "-n", namespace, "--cascade=foreground", "--wait", "--timeout=60s"),
	)
	await(t, "the Secret is deleted, or its deletion is pending and it does not block", func() (bool, string) {
		now, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), secret.Name, metav1.GetOptions{})
		if err != nil {
			return apierrors.IsNotFound(err), err.Error()
		}
		return now.DeletionTimestamp != nil && !*now.OwnerReferences[0].BlockOwnerDeletion, fmt.Sprintf("%+v", now.ObjectMeta)
	})
	if _, err := configMaps.Patch(t.Context(), second.Name, types.MergePatchType,
		[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the Secret is deleted", func() (bool, string) {
		_, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), secret.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	nothingTerminates(t)
}

// allowedDelete: the finalizer of a delete that break-glass allows can be removed.
func allowedDelete(t *testing.T) {
	namespace, name := shared.secret.namespace, shared.secret.name
	for _, how := range []string{"orphan", "foreground"} {
		until := time.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339)
		must(
			t,
			shared.kubectl(t.Context(), "annotate", "secret", name, "-n", namespace, "--overwrite",
				"kubelet-https-guard.io/allow-delete-until="+until),
		)
		must(t,
			shared.kubectl(t.Context(), "delete", "secret", name, "-n", namespace, "--cascade="+how, "--wait", "--timeout=60s"))
		nothingTerminates(t)
		repair(t)
	}
}

// namespaceDeleted: the namespace is deleted with all that is in it.
func namespaceDeleted(t *testing.T) {
	must(t, shared.kubectl(t.Context(), "delete", "namespace", shared.secret.namespace, "--wait", "--timeout=90s"))
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// store makes the protected Secret that, good or bad, as service-ca may: its
// writes are not sent to the webhook.
func store(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	secrets := as(t, openshift.ServiceCA).CoreV1().Secrets(secret.Namespace)
	stored, err := secrets.Get(t.Context(), secret.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = secrets.Create(t.Context(), secret, metav1.CreateOptions{})
	case err == nil && stored.Type != secret.Type:
		remove(t, secret.Name)
		_, err = secrets.Create(t.Context(), secret, metav1.CreateOptions{})
	case err == nil:
		_, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatalf("store the Secret: %v", err)
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

// TestDowngradesAreRefused: each way to weaken the Secret, by each verb that
// the API server has.
func TestDowngradesAreRefused(t *testing.T) {
	good, other := issue(pkitest.ServingCert()), issue(pkitest.ServingCert())
	now := time.Now()
	expired := shared.ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-2, 0, 0), now.Add(-time.Hour)))
	future := shared.ca.Issue(pkitest.ServingCert().Valid(now.Add(time.Hour), now.AddDate(1, 0, 0)))
	client := issue(pkitest.KubeletClient())
	encrypted, _ := pkitest.EncryptedKeys()

	put := func(change func(*corev1.Secret)) func(context.Context, kubernetes.Interface) error {
		return func(ctx context.Context, c kubernetes.Interface) error {
			secret := serving(good)
			change(secret)
			_, err := c.CoreV1().Secrets(namespace).Update(ctx, secret, metav1.UpdateOptions{})
			return err
		}
	}
	patch := func(kind types.PatchType, body string, options metav1.PatchOptions) func(context.Context, kubernetes.Interface) error {
		return func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(namespace).Patch(ctx, name, kind, []byte(body), options)
			return err
		}
	}
	remove := func(options metav1.DeleteOptions) func(context.Context, kubernetes.Interface) error {
		return func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Secrets(namespace).Delete(ctx, name, options)
		}
	}
	force, noGrace := true, int64(0)

	cases := map[string]struct {
		do     func(context.Context, kubernetes.Interface) error
		reason string
	}{
		"PUT without certificate":     {put(func(s *corev1.Secret) { s.Data["tls.crt"] = nil }), "CertificateMissing (tls.crt)"},
		"PUT without key":             {put(func(s *corev1.Secret) { s.Data["tls.key"] = nil }), "KeyMissing (tls.key)"},
		"PUT white space":             {put(func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("\n") }), "CertificateMissing (tls.crt)"},
		"PUT garbage for certificate": {put(func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("garbage") }), "CertificateUnparsable (tls.crt)"},
		"PUT garbage for key":         {put(func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") }), "KeyUnparsable (tls.key)"},
		"PUT 1 MiB of garbage":        {put(func(s *corev1.Secret) { s.Data["tls.crt"] = []byte(strings.Repeat("x", 1000<<10)) }), "CertificateUnparsable (tls.crt)"},
		"PUT an encrypted key":        {put(func(s *corev1.Secret) { s.Data["tls.key"] = encrypted }), "KeyUnparsable (tls.key)"},
		"PUT another pair's key":      {put(func(s *corev1.Secret) { s.Data["tls.key"] = other.Key }), "KeyMismatch (tls.key)"},
		"PUT an expired one":          {put(func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = expired.Certificate, expired.Key }), "CertificateExpired (tls.crt)"},
		"PUT one of tomorrow":         {put(func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = future.Certificate, future.Key }), "CertificateNotYetValid (tls.crt)"},
		"PUT a client's":              {put(func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = client.Certificate, client.Key }), "WrongKeyUsage (tls.crt)"},
		"PUT immutable":               {put(func(s *corev1.Secret) { s.Immutable = new(true) }), "RotationDetached (immutable)"},
		"PUT without owner":           {put(func(s *corev1.Secret) { s.OwnerReferences = nil }), "RotationDetached (metadata)"},
		"PUT without annotations":     {put(func(s *corev1.Secret) { s.Annotations = nil }), "RotationDetached (metadata)"},
		"PUT another owner":           {put(func(s *corev1.Secret) { s.OwnerReferences[0].UID = "absent" }), "RotationDetached (metadata)"},
		"PUT a foreign owner beside": {put(func(s *corev1.Secret) {
			s.OwnerReferences = append(s.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "x"})
		}), "RotationDetached (metadata.ownerReferences"},
		"merge patch, empty":     {patch(types.MergePatchType, `{"data":{"tls.key":""}}`, metav1.PatchOptions{}), "KeyMissing (tls.key)"},
		"strategic patch, empty": {patch(types.StrategicMergePatchType, `{"data":{"tls.key":""}}`, metav1.PatchOptions{}), "KeyMissing (tls.key)"},
		"JSON patch, garbage":    {patch(types.JSONPatchType, `[{"op":"replace","path":"/data/tls.crt","value":"Z2FyYmFnZQ=="}]`, metav1.PatchOptions{}), "CertificateUnparsable (tls.crt)"},
		"stringData, garbage":    {patch(types.MergePatchType, `{"stringData":{"tls.key":"garbage"}}`, metav1.PatchOptions{}), "KeyUnparsable (tls.key)"},
		"server-side apply": {patch(types.ApplyYAMLPatchType, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q},"data":{"tls.key":%q}}`, name, base64Of(other.Key)),
			metav1.PatchOptions{FieldManager: "mallory", Force: &force}), "KeyMismatch (tls.key)"},
		"a dry run":                {patch(types.MergePatchType, `{"data":{"tls.key":""}}`, metav1.PatchOptions{DryRun: []string{"All"}}), "KeyMissing (tls.key)"},
		"an annotation less":       {patch(types.MergePatchType, `{"metadata":{"annotations":{"service.alpha.openshift.io/originating-service-name":null}}}`, metav1.PatchOptions{}), "RotationDetached (metadata)"},
		"a beta name":              {patch(types.MergePatchType, `{"metadata":{"annotations":{"service.beta.openshift.io/originating-service-name":"other"}}}`, metav1.PatchOptions{}), "RotationDetached (metadata)"},
		"delete":                   {remove(metav1.DeleteOptions{}), "SecretMissing"},
		"delete, forced":           {remove(metav1.DeleteOptions{GracePeriodSeconds: &noGrace}), "SecretMissing"},
		"delete in the foreground": {remove(metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)}), "SecretMissing"},
		"delete, dry run":          {remove(metav1.DeleteOptions{DryRun: []string{"All"}}), "SecretMissing"},
		"delete of the collection": {func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Secrets(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}, "SecretMissing"},
		"delete by a field": {func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Secrets(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "type=kubernetes.io/tls"})
		}, "SecretMissing"},
		"the other Secret, emptied": {func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets("openshift-kube-apiserver").Create(ctx, openshift.KubeletClient(nil, nil), metav1.CreateOptions{})
			return err
		}, "CertificateMissing (tls.crt)"},
		"break-glass in the past":   {allowed(now.Add(-time.Minute).Format(time.RFC3339)), "which is over"},
		"break-glass too far ahead": {allowed(now.Add(2 * time.Hour).Format(time.RFC3339)), "more than 60 minutes ahead"},
		"break-glass of rubbish":    {allowed("yes"), "not a time like"},
		"moved to another Service": {put(func(s *corev1.Secret) {
			moved := openshift.ServingCert("other-uid", good.Certificate, good.Key)
			s.Annotations, s.OwnerReferences = moved.Annotations, moved.OwnerReferences
		}), "RotationDetached (metadata)"},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			store(t, serving(good))
			before := get(t)
			mustBeRefused(t, c.do(t.Context(), as(t, "")), c.reason)
			after := get(t)
			if strings.HasPrefix(title, "break-glass") {
				return // its annotation was written
			}
			if before.ResourceVersion != after.ResourceVersion {
				t.Error("the Secret was changed all the same")
			}
		})
	}
}

// allowed writes the annotation, then deletes.
func allowed(until string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		body := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, allowDeleteUntil, until)
		if _, err := c.CoreV1().Secrets(namespace).Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("write the annotation: %w", err)
		}
		return c.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	}
}

func get(t *testing.T) *corev1.Secret {
	t.Helper()
	secret, err := as(t, "").CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// mustBeRefused: by our webhook, with the reason and both control numbers.
func mustBeRefused(t *testing.T, err error, reason string) {
	t.Helper()
	if err == nil {
		t.Fatal("it passed")
	}
	for _, word := range []string{`admission webhook "secrets.kubelet-https-guard.io" denied the request`, reason, "CIS OpenShift 1.2.4 (1.2.2 from v1.9)"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the answer has no %q: %v", word, err)
		}
	}
}

// TestRecreationIsRefused: after a deletion on purpose it may not come back as
// something else.
func TestRecreationIsRefused(t *testing.T) {
	good := issue(pkitest.ServingCert())
	cases := map[string]struct {
		change func(*corev1.Secret)
		reason string
	}{
		"as Opaque":       {func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, `WrongSecretType (type): the type is "Opaque"`},
		"without a type":  {func(s *corev1.Secret) { s.Type = "" }, `WrongSecretType (type): the type is "Opaque"`},
		"of another type": {func(s *corev1.Secret) { s.Type = "example.com/tls" }, `WrongSecretType (type): the type is "example.com/tls"`},
		"with one key":    {func(s *corev1.Secret) { s.Type = "Opaque"; delete(s.Data, "tls.key") }, "KeyMissing (tls.key)"},
		"detached":        {func(s *corev1.Secret) { s.OwnerReferences, s.Annotations = nil, nil }, "RotationDetached (metadata)"},
		"for nobody":      {func(s *corev1.Secret) { s.OwnerReferences[0].Name = "other" }, "RotationDetached (metadata)"},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			store(t, serving(good))
			if err := allowed(time.Now().Add(10*time.Minute).Format(time.RFC3339))(t.Context(), as(t, "")); err != nil {
				t.Fatalf("delete on purpose: %v", err)
			}
			secret := serving(good)
			c.change(secret)
			_, err := as(t, "").CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
			mustBeRefused(t, err, c.reason)
		})
	}
}

// TestNeverInTheWay: what OpenShift and its people do passes.
func TestNeverInTheWay(t *testing.T) {
	good, other := issue(pkitest.ServingCert()), issue(pkitest.ServingCert())
	ecdsa, rsa := pkitest.ServingCert(), pkitest.ServingCert()
	rsa.Key = pkitest.RSA
	rsaPair := issue(rsa)
	now := time.Now()
	twoHours := shared.ca.Issue(ecdsa.Valid(now.Add(-time.Second), now.Add(2*time.Hour)))
	newCA := pkitest.NewCAAround(shared.ca.Certificate.Subject.CommonName, now)
	reissued := newCA.Issue(ecdsa.Valid(now.Add(-time.Second), now.AddDate(2, 0, 0)))
	garbage := serving(good)
	garbage.Data["tls.key"] = []byte("garbage")
	opaque := serving(good)
	opaque.Type = corev1.SecretTypeOpaque

	put := func(user string, secret *corev1.Secret) func(*testing.T) error {
		return func(t *testing.T) error {
			_, err := as(t, user).CoreV1().Secrets(secret.Namespace).Update(t.Context(), secret, metav1.UpdateOptions{})
			return err
		}
	}
	noop := func(user string) func(*testing.T) error {
		return func(t *testing.T) error { return put(user, get(t))(t) }
	}
	create := func(user string, secret *corev1.Secret) func(*testing.T) error {
		return func(t *testing.T) error {
			if secret.Name == name && secret.Namespace == namespace {
				remove(t, name)
			}
			_, err := as(t, user).CoreV1().Secrets(secret.Namespace).Create(t.Context(), secret, metav1.CreateOptions{})
			return err
		}
	}
	another := func(change func(*corev1.Secret)) *corev1.Secret {
		secret := garbage.DeepCopy()
		secret.Type = corev1.SecretTypeOpaque
		change(secret)
		return secret
	}
	cases := map[string]struct {
		stored *corev1.Secret // the good one where it is not set
		do     func(*testing.T) error
	}{
		"service-ca creates":                    {do: create(openshift.ServiceCA, serving(good))},
		"service-ca PUTs anew":                  {do: put(openshift.ServiceCA, serving(other))},
		"service-ca grows the chain":            {do: put(openshift.ServiceCA, openshift.ServingCert(shared.serviceUID, reissued.ChainWith(newCA.PEM(), newCA.CrossSign(shared.ca)), reissued.Key))},
		"an administrator rotates":              {do: put("", serving(other))},
		"an administrator creates it as it was": {do: create("", serving(good))},
		"RSA to ECDSA":                          {stored: serving(rsaPair), do: put("", serving(good))},
		"ECDSA to RSA":                          {do: put("", serving(rsaPair))},
		"two hours of life":                     {do: put("", serving(twoHours))},
		"a new CA of the same name":             {do: put("", openshift.ServingCert(shared.serviceUID, reissued.ChainWith(newCA.PEM()), reissued.Key))},
		"the migrator writes a good one":        {do: noop(openshift.StorageMigrator)},
		"the migrator writes a bad one":         {stored: garbage, do: noop(openshift.StorageMigrator)},
		"the migrator writes an Opaque one":     {stored: opaque, do: noop(openshift.StorageMigrator)},
		"a repair":                              {stored: garbage, do: put("", serving(good))},
		"a label": {do: func(t *testing.T) error {
			_, err := as(t, "").CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
			return err
		}},
		"an annotation": {do: func(t *testing.T) error {
			_, err := as(t, "").CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{})
			return err
		}},
		"the garbage collector deletes": {do: func(t *testing.T) error {
			return as(t, collector).CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{})
		}},
		"the namespace controller deletes all": {do: func(t *testing.T) error {
			return as(t, nsController).CoreV1().Secrets(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
		}},
		"a deletion on purpose": {do: func(t *testing.T) error {
			return allowed(now.Add(10*time.Minute).Format(time.RFC3339))(t.Context(), as(t, ""))
		}},
		"a bad one deleted on purpose": {stored: garbage, do: func(t *testing.T) error {
			return allowed(now.Add(10*time.Minute).Format(time.RFC3339))(t.Context(), as(t, ""))
		}},
		"another name":                       {do: create("", another(func(s *corev1.Secret) { s.Name = fmt.Sprint("other-", now.UnixNano()) }))},
		"a generated name":                   {do: create("", another(func(s *corev1.Secret) { s.Name, s.GenerateName = "", "serving-cert-" }))},
		"the same name in another namespace": {do: create("", another(func(s *corev1.Secret) { s.Namespace, s.OwnerReferences = "default", nil }))},
		"the operator writes kubelet-client": {do: create(openshift.KubeAPIServerOperator, openshift.KubeletClient(good.Certificate, good.Key))},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			if c.stored == nil {
				c.stored = serving(good)
			}
			store(t, c.stored)
			if err := c.do(t); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
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
	elsewhere := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "other-"}}
	if _, err := as(t, "").CoreV1().Secrets(namespace).Create(t.Context(), elsewhere, metav1.CreateOptions{}); err != nil {
		t.Errorf("another Secret cannot be created: %v", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// attempt is something that an administrator does.
type attempt func(context.Context, kubernetes.Interface) error

// detection says which parts of the guard can detect that an attempt breaks the control.
type detection int

const (
	byWebhookOnly detection = iota // only the webhook: contents of certificates, and the time
	byPolicyToo                    // also CEL in the policy
	byAPIServer                    // the API server, without the guard
)

// bypass is a way to weaken a protected Secret.
type bypass struct {
	do       attempt
	reason   string // in the answer
	detected detection
}

// put writes the whole Secret with a change.
func put(good pkitest.Pair, change func(*corev1.Secret)) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		secret := serving(good)
		change(secret)
		return write(secret)(ctx, c)
	}
}

func patch(kind types.PatchType, body string) attempt {
	return patchWith(kind, body, metav1.PatchOptions{})
}

func patchWith(kind types.PatchType, body string, options metav1.PatchOptions, subresources ...string) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Secrets(namespace).Patch(ctx, name, kind, []byte(body), options, subresources...)
		return err
	}
}

func deleteWith(options metav1.DeleteOptions) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoreV1().Secrets(namespace).Delete(ctx, name, options)
	}
}

func deleteCollection(list metav1.ListOptions) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoreV1().Secrets(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, list)
	}
}

// then makes one attempt after the other; only the last one may fail.
func then(attempts ...attempt) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		for i, do := range attempts {
			if err := do(ctx, c); err != nil {
				if i < len(attempts)-1 {
					return fmt.Errorf("step %d must pass: %w", i+1, err)
				}
				return err
			}
		}
		return nil
	}
}

// allow writes the break-glass annotation.
func allow(until string) attempt {
	return patch(types.MergePatchType, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, allowDeleteUntil, until))
}

// soon is a typical end of the break-glass.
func soon() string { return time.Now().Add(10 * time.Minute).Format(time.RFC3339) }

// allowSoon computes the time when it is called: a table of attempts may take long.
func allowSoon(ctx context.Context, c kubernetes.Interface) error { return allow(soon())(ctx, c) }

// recreate deletes the Secret on purpose and creates it again with a change.
func recreate(good pkitest.Pair, change func(*corev1.Secret)) attempt {
	return then(allowSoon, deleteWith(metav1.DeleteOptions{}), func(ctx context.Context, c kubernetes.Interface) error {
		secret := serving(good)
		change(secret)
		return create(secret)(ctx, c)
	})
}

// kubeletClient writes the other protected Secret with a change.
func kubeletClient(good pkitest.Pair, change func(*corev1.Secret)) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		secret := openshift.KubeletClient(good.Certificate, good.Key)
		change(secret)
		return write(secret)(ctx, c)
	}
}

// tooMany is a bypass with more details than a refusal may have.
const tooMany = "many foreign owners"

// bypasses is the table of all ways to weaken a protected Secret through the API.
func bypasses(good, client pkitest.Pair) map[string]bypass {
	now := time.Now()
	other := issue(pkitest.ServingCert())
	expired := shared.ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-2, 0, 0), now.Add(-time.Hour)))
	future := shared.ca.Issue(pkitest.ServingCert().Valid(now.Add(time.Hour), now.AddDate(1, 0, 0)))
	foreign := pkitest.NewCAAround(shared.ca.Certificate.Subject.CommonName, now).Issue(
		pkitest.ServingCert().Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)),
	)
	foreignClient := pkitest.NewCAAround("mallory", now).Issue(
		pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)),
	)
	elsewhereRequest := pkitest.ServingCert()
	elsewhereRequest.DNSNames = []string{"api.elsewhere.svc"}
	elsewhere := issue(elsewhereRequest)
	encrypted, _ := pkitest.EncryptedKeys()
	apply := func(fields string) attempt {
		return patchWith(types.ApplyYAMLPatchType,
			fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q},%s}`, name, fields),
			metav1.PatchOptions{FieldManager: "mallory", Force: new(true)})
	}
	uid := func(ctx context.Context, c kubernetes.Interface) error {
		secret, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return c.CoreV1().Secrets(namespace).Delete(
			ctx,
			name,
			metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion},
			},
		)
	}
	onAnother := func(ctx context.Context, c kubernetes.Interface) error {
		body := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, allowDeleteUntil, soon())
		_, err := c.CoreV1().Secrets("openshift-kube-apiserver").Patch(ctx, "kubelet-client", types.MergePatchType,
			[]byte(body), metav1.PatchOptions{})
		return err
	}
	label := patch(types.MergePatchType, `{"metadata":{"labels":{"doomed":"yes"}}}`)
	finalizer := patch(types.MergePatchType, `{"metadata":{"finalizers":["example.com/mine"]}}`)

	table := map[string]bypass{
		// Contents.
		"PUT without certificate":       {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = nil }), "tls.crt: … (CertificateMissing)", byPolicyToo},
		"PUT without key":               {put(good, func(s *corev1.Secret) { s.Data["tls.key"] = nil }), "tls.key: … (KeyMissing)", byPolicyToo},
		"PUT white space":               {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("\n") }), "tls.crt: … (CertificateMissing)", byWebhookOnly},
		"PUT garbage for certificate":   {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("garbage") }), "tls.crt: … (CertificateUnparsable)", byWebhookOnly},
		"PUT garbage for key":           {put(good, func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") }), "tls.key: … (KeyUnparsable)", byWebhookOnly},
		"PUT nearly 1 MiB of garbage":   {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = []byte(strings.Repeat("x", 1000<<10)) }), "tls.crt: … (CertificateUnparsable)", byWebhookOnly},
		"PUT the key for a certificate": {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = good.Key }), "tls.crt: … (CertificateUnparsable)", byWebhookOnly},
		"PUT garbage after the certificate": {put(good, func(s *corev1.Secret) {
			s.Data["tls.crt"] = good.ChainWith([]byte("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n"))
		}), "tls.crt: … (ChainUnparsable)", byWebhookOnly},
		"the other Secret, a foreign CA's pair": {kubeletClient(foreignClient, func(*corev1.Secret) {}),
			"tls.crt: … (UntrustedIssuer)", byWebhookOnly},
		"JSON patch, null": {patch(types.JSONPatchType,
			`[{"op":"replace","path":"/data/tls.crt","value":null}]`), "tls.crt: … (CertificateMissing)", byPolicyToo},
		"stringData, garbage": {patch(types.MergePatchType,
			`{"stringData":{"tls.key":"garbage"}}`), "tls.key: … (KeyUnparsable)", byWebhookOnly},
		"server-side apply, immutable": {apply(`"immutable":true`), "immutable: … (RotationDetached)", byPolicyToo},
		"a dry run": {patchWith(types.MergePatchType, `{"data":{"tls.key":""}}`,
			metav1.PatchOptions{DryRun: []string{"All"}}), "tls.key: … (KeyMissing)", byPolicyToo},
		"PUT another type": {put(good,
			func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }), "field is immutable", byAPIServer},
		"PUT without type": {put(good, func(s *corev1.Secret) { s.Type = "" }),
			"field is immutable", byAPIServer},
		"merge patch, no key": {patch(types.MergePatchType, `{"data":{"tls.key":null}}`),
			"Required value", byAPIServer},
		"patch of the status": {patchWith(types.MergePatchType, `{"data":{"tls.key":""}}`,
			metav1.PatchOptions{}, "status"), "could not find the requested resource", byAPIServer},
		"patch of an unknown subresource": {patchWith(types.MergePatchType, `{"data":{"tls.key":""}}`,
			metav1.PatchOptions{}, "finalize"), "could not find the requested resource", byAPIServer},
		"the other Secret, emptied": {kubeletClient(client,
			func(s *corev1.Secret) { s.Data["tls.key"] = nil }), "tls.key: … (KeyMissing)", byPolicyToo},
		"the other Secret, a server's pair": {kubeletClient(client,
			func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = good.Certificate, good.Key }),
			"tls.crt: … (WrongKeyUsage)", byWebhookOnly},
		"the other Secret, the key of another pair": {kubeletClient(client,
			func(s *corev1.Secret) { s.Data["tls.key"] = other.Key }), "tls.key: … (KeyMismatch)", byWebhookOnly},

		// Renewal, through metadata only.
		"immutable":      {put(good, func(s *corev1.Secret) { s.Immutable = new(true) }), "immutable: … (RotationDetached)", byPolicyToo},
		"no owner":       {put(good, func(s *corev1.Secret) { s.OwnerReferences = nil }), "metadata: … (RotationDetached)", byPolicyToo},
		"no annotations": {put(good, func(s *corev1.Secret) { s.Annotations = nil }), "metadata: … (RotationDetached)", byPolicyToo},
		"a missing owner instead, for the collector": {put(good,
			func(s *corev1.Secret) { s.OwnerReferences[0].UID = "absent" }), "metadata: … (RotationDetached)", byPolicyToo},
		"a missing ConfigMap as owner": {patch(types.MergePatchType,
			`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"absent","uid":"x"}]}}`),
			"metadata: … (RotationDetached)", byPolicyToo},
		"an additional foreign owner": {put(good,
			func(s *corev1.Secret) { s.OwnerReferences = append(s.OwnerReferences, owner("ConfigMap")) }),
			"metadata.ownerReferences … (RotationDetached)", byPolicyToo},
		"a foreign owner with a kind of two lines": {put(good, func(s *corev1.Secret) {
			s.OwnerReferences = append(s.OwnerReferences,
				metav1.OwnerReference{APIVersion: "v1", Kind: "X\nall is fine", Name: "absent", UID: "x"})
		}), "metadata.ownerReferences … (RotationDetached)", byPolicyToo},
		tooMany: {put(good, func(s *corev1.Secret) {
			for i := range 1000 {
				o := owner("ConfigMap")
				o.UID = types.UID(fmt.Sprint(i))
				s.OwnerReferences = append(s.OwnerReferences, o)
			}
		}), "RotationDetached", byPolicyToo},
		"an additional Service": {put(good,
			func(s *corev1.Secret) { s.OwnerReferences = append(s.OwnerReferences, owner("Service")) }),
			"metadata.ownerReferences … (RotationDetached)", byPolicyToo},
		"an annotation removed": {patch(types.MergePatchType,
			`{"metadata":{"annotations":{"service.alpha.openshift.io/originating-service-name":null}}}`),
			"metadata: … (RotationDetached)", byPolicyToo},
		"another UID in the annotation": {patch(types.MergePatchType,
			`{"metadata":{"annotations":{"service.alpha.openshift.io/originating-service-uid":"x"}}}`),
			"metadata: … (RotationDetached)", byPolicyToo},
		"a beta name, which takes precedence": {patch(types.MergePatchType,
			`{"metadata":{"annotations":{"service.beta.openshift.io/originating-service-name":"other"}}}`),
			"metadata: … (RotationDetached)", byPolicyToo},
		"moved to another Service of the same name": {put(good, func(s *corev1.Secret) { moveTo(s, "other-uid") }),
			"metadata: … (RotationDetached)", byPolicyToo},
		"a later expiry in the annotation": {patch(types.MergePatchType,
			`{"metadata":{"annotations":{"service.beta.openshift.io/expiry":"2099-01-01T00:00:00Z"}}}`),
			"metadata.annotations service.beta.openshift.io/expiry: … (RotationDetached)", byWebhookOnly},
		"the other Secret immutable": {kubeletClient(client,
			func(s *corev1.Secret) { s.Immutable = new(true) }), "immutable: … (RotationDetached)", byPolicyToo},
		"the other Secret with an owner": {kubeletClient(client,
			func(s *corev1.Secret) { s.OwnerReferences = []metav1.OwnerReference{owner("ConfigMap")} }),
			"metadata.ownerReferences … (RotationDetached)", byPolicyToo},
		"the other Secret with a later expiry in the annotation": {kubeletClient(client, func(s *corev1.Secret) {
			s.Annotations["auth.openshift.io/certificate-not-after"] = "2099-01-01T00:00:00Z"
		}), "metadata.annotations auth.openshift.io/certificate-not-after: … (RotationDetached)", byWebhookOnly},

		// As the garbage collector.
		"the collector adds an owner": {by(collector, ofStored(func(s *corev1.Secret) string {
			return fmt.Sprintf(
				`{"metadata":{"uid":%q,"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"absent","uid":"x"}]}}`,
				s.UID,
			)
		})), "metadata.ownerReferences … (RotationDetached)", byPolicyToo},
		"the collector replaces the owner": {by(collector,
			copiedByMerge(func(s *corev1.Secret) { s.OwnerReferences[0].UID = "absent" })),
			"metadata: … (RotationDetached)", byPolicyToo},
		"the collector removes owner and key":                    {by(collector, patch(types.MergePatchType, `{"metadata":{"ownerReferences":null},"data":{"tls.key":""}}`)), "tls.key: … (KeyMissing)", byPolicyToo},
		"the collector removes owner and annotations":            {by(collector, patch(types.MergePatchType, `{"metadata":{"ownerReferences":null,"annotations":null}}`)), "metadata: … (RotationDetached)", byPolicyToo},
		"the collector removes the owner and makes it immutable": {by(collector, patch(types.MergePatchType, `{"metadata":{"ownerReferences":null},"immutable":true}`)), "immutable: … (RotationDetached)", byPolicyToo},
		"the collector changes data":                             {by(collector, patch(types.MergePatchType, fmt.Sprintf(`{"data":{"tls.key":%q}}`, base64Of(other.Key)))), "tls.key: … (KeyMismatch)", byWebhookOnly},
		"the namespace controller removes the owner":             {by(nsController, orphan), "metadata: … (RotationDetached)", byPolicyToo},

		// Deletes.
		"delete": {deleteWith(metav1.DeleteOptions{}), "SecretMissing … " +
			"Fix: to renew it, remove annotations service.{alpha,beta}.openshift.io/expiry", byPolicyToo},
		"delete, forced":            {deleteWith(metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}), "SecretMissing", byPolicyToo},
		"delete in the foreground":  {deleteWith(metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)}), "SecretMissing", byPolicyToo},
		"delete, leaving orphans":   {deleteWith(metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationOrphan)}), "SecretMissing", byPolicyToo},
		"delete, dry run":           {deleteWith(metav1.DeleteOptions{DryRun: []string{"All"}}), "SecretMissing", byPolicyToo},
		"delete with preconditions": {uid, "SecretMissing", byPolicyToo},
		"delete of the collection":  {deleteCollection(metav1.ListOptions{}), "SecretMissing", byPolicyToo},
		"delete by a label":         {then(label, deleteCollection(metav1.ListOptions{LabelSelector: "doomed=yes"})), "SecretMissing", byPolicyToo},
		"delete by a field":         {deleteCollection(metav1.ListOptions{FieldSelector: "type=kubernetes.io/tls"}), "SecretMissing", byPolicyToo},
		"delete with a finalizer":   {then(finalizer, deleteWith(metav1.DeleteOptions{})), "SecretMissing", byPolicyToo},
		"delete of the other Secret": {func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Secrets("openshift-kube-apiserver").Delete(ctx, "kubelet-client", metav1.DeleteOptions{})
		}, "SecretMissing", byPolicyToo},
		"break-glass in the past": {then(allow(now.Add(-time.Minute).Format(time.RFC3339)),
			deleteWith(metav1.DeleteOptions{})), "expired at", byWebhookOnly},
		"break-glass too far ahead": {then(allow(now.Add(2*time.Hour).Format(time.RFC3339)),
			deleteWith(metav1.DeleteOptions{})), "more than 60 minutes ahead", byWebhookOnly},
		"break-glass with an invalid value": {then(allow("yes"), deleteWith(metav1.DeleteOptions{})),
			"expected a time such as", byWebhookOnly},
		"break-glass, empty": {then(allow(""), deleteWith(metav1.DeleteOptions{})), "SecretMissing",
			byPolicyToo},
		"break-glass on another Secret": {then(onAnother, deleteWith(metav1.DeleteOptions{})), "SecretMissing",
			byPolicyToo},

		// Recreated with a change.
		"created again as Opaque": {recreate(good,
			func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }), "type: … (WrongSecretType)", byPolicyToo},
		"created again without a type": {recreate(good, func(s *corev1.Secret) { s.Type = "" }),
			"type: … (WrongSecretType)", byPolicyToo},
		"created again of another type": {recreate(good, func(s *corev1.Secret) { s.Type = "example.com/tls" }),
			"type: … (WrongSecretType)", byPolicyToo},
		"created again with one key": {recreate(good,
			func(s *corev1.Secret) { s.Type = "Opaque"; delete(s.Data, "tls.key") }), "tls.key: … (KeyMissing)",
			byPolicyToo},
		"created again, empty": {recreate(good, func(s *corev1.Secret) { s.Data = nil; s.Type = "" }),
			"tls.crt: … (CertificateMissing)", byPolicyToo},
		"created again, detached": {recreate(good, func(s *corev1.Secret) {
			s.OwnerReferences,
				s.Annotations = nil, nil
		}), "metadata: … (RotationDetached)", byPolicyToo},
		"created again for another Service": {recreate(good,
			func(s *corev1.Secret) { s.OwnerReferences[0].Name = "other" }), "metadata: … (RotationDetached)", byPolicyToo},
		"created again with garbage": {recreate(good,
			func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") }), "tls.key: … (KeyUnparsable)", byWebhookOnly},
		"applied again as Opaque": {then(
			allowSoon,
			deleteWith(metav1.DeleteOptions{}),
			apply(fmt.Sprintf(`"data":{"tls.crt":%q,"tls.key":%q}`, base64Of(good.Certificate), base64Of(good.Key))),
		), "type: … (WrongSecretType)", byPolicyToo},
	}
	mldsa, mldsaKey, mldsaReason := mldsaPair()
	// Each bad pair by each verb.
	for what, value := range map[string]struct {
		certificate, key []byte
		reason           string
		detected         detection
	}{
		"empty":           {nil, nil, "tls.crt: … (CertificateMissing)", byPolicyToo},
		"garbage":         {[]byte("garbage"), []byte("garbage"), "tls.crt: … (CertificateUnparsable)", byWebhookOnly},
		"mismatched":      {good.Certificate, other.Key, "tls.key: … (KeyMismatch)", byWebhookOnly},
		"expired":         {expired.Certificate, expired.Key, "tls.crt: … (CertificateExpired)", byWebhookOnly},
		"not valid yet":   {future.Certificate, future.Key, "tls.crt: … (CertificateNotYetValid)", byWebhookOnly},
		"of a client":     {client.Certificate, client.Key, "tls.crt: … (WrongKeyUsage)", byWebhookOnly},
		"of another name": {elsewhere.Certificate, elsewhere.Key, "tls.crt: … (DNSNameMissing)", byWebhookOnly},
		"of a foreign CA": {foreign.Certificate, foreign.Key, "tls.crt: … (UntrustedIssuer)", byWebhookOnly},
		// The API server is built with Go 1.26.
		"with an ML-DSA key": {mldsa, mldsaKey, "tls.crt: … (" + mldsaReason + ")", byWebhookOnly},
		"an encrypted key":   {good.Certificate, encrypted, "tls.key: … (KeyUnparsable)", byWebhookOnly},
	} {
		data := fmt.Sprintf(`"data":{"tls.crt":%q,"tls.key":%q}`, base64Of(value.certificate), base64Of(value.key))
		for verb, do := range map[string]attempt{
			"PUT": put(good, func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = value.certificate, value.key }),
			"JSON patch": patch(types.JSONPatchType, fmt.Sprintf(`[{"op":"replace","path":"/data/tls.crt","value":%q},{"op":"replace","path":"/data/tls.key","value":%q}]`,
				base64Of(value.certificate), base64Of(value.key))),
			"merge patch":       patch(types.MergePatchType, "{"+data+"}"),
			"strategic patch":   patch(types.StrategicMergePatchType, "{"+data+"}"),
			"server-side apply": apply(data),
		} {
			table[verb+": "+what] = bypass{do, value.reason, value.detected}
		}
	}
	return table
}

// by makes an attempt as another user than an administrator.
func by(user string, do attempt) attempt {
	return func(ctx context.Context, _ kubernetes.Interface) error {
		client, err := shared.client(user)
		if err != nil {
			return err
		}
		return do(ctx, client)
	}
}

// owner is an owner that does not exist.
func owner(kind string) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: "absent", UID: "absent-uid"}
}

// moveTo makes service-ca renew it for the Service with this UID.
func moveTo(s *corev1.Secret, uid types.UID) {
	moved := openshift.ServingCert(uid, nil, nil)
	s.OwnerReferences = moved.OwnerReferences
	s.Annotations["service.alpha.openshift.io/originating-service-uid"] = string(uid)
}

// TestBypasses: the guard refuses each way to weaken a protected Secret, with the reason, by each part
// that can detect it. The webhook detects all that the policy does.
func TestBypasses(t *testing.T) {
	good, client := issue(pkitest.ServingCert()), issue(pkitest.KubeletClient())
	table := bypasses(good, client)
	installations := []struct {
		title   string
		parts   []rig.Part
		detects detection // less or equal
		words   []string
	}{
		{"policy and webhook", []rig.Part{rig.Policy, rig.Registration}, byWebhookOnly, []string{" denied ", "[kubelet-https-guard/"}},
		{"webhook alone", []rig.Part{rig.Registration}, byWebhookOnly, []string{`admission webhook "secrets.kubelet-https-guard.io" denied the request`, "[kubelet-https-guard/webhook]"}},
		{"policy alone", []rig.Part{rig.Policy}, byPolicyToo, []string{"ValidatingAdmissionPolicy 'kubelet-https-guard.openshift-", "[kubelet-https-guard/policy]"}},
	}
	t.Cleanup(func() { register(t, rig.Policy, rig.Registration) })
	for _, installation := range installations {
		register(t, installation.parts...)
		for title, b := range table {
			t.Run(installation.title+"/"+title, func(t *testing.T) {
				store(t, serving(good))
				store(t, openshift.KubeletClient(client.Certificate, client.Key))
				err := b.do(t.Context(), as(t, ""))
				if b.detected < installation.detects {
					if err != nil {
						t.Errorf("refused, though only the webhook can detect it: %v", err)
					}
					remove(t, name) // in any state
					return
				}
				words := []string{b.reason}
				if b.detected != byAPIServer {
					words = append(words, installation.words...)
				}
				switch {
				case b.detected == byAPIServer:
				case title == tooMany && slices.Contains(installation.parts, rig.Policy):
					// Instead of details, if they exceed CEL's limits.
					words = append(words, "a control that kubelet-https-guard enforces")
				default:
					words = append(words, "CIS OpenShift 1.2.4 (1.2.2 from v1.8)")
				}
				mustContain(t, err, words...)
				if len(err.Error()) > 5000 || strings.Contains(err.Error(), "\n") {
					t.Errorf("the answer is not one line of bounded length: %.5000v", err)
				}
			})
		}
	}
}

// register registers these parts of the guard with the API server.
func register(t *testing.T, parts ...rig.Part) {
	t.Helper()
	// The context of the test has ended when this runs.
	if err := shared.rig.Register(context.WithoutCancel(t.Context()), parts...); err != nil {
		t.Fatal(err)
	}
}

// mustContain requires an error with these words: "tls.key: … (KeyMissing)" are two.
func mustContain(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("the request was allowed")
	}
	for word := range strings.SplitSeq(strings.Join(words, "…"), "…") {
		if word = strings.TrimSpace(word); !strings.Contains(err.Error(), word) {
			t.Errorf("the answer has no %q: %v", word, err)
		}
	}
}

// coveragePage has the table of what each part of the guard refuses, and updateCoverage writes it.
const coveragePage = "../../docs/modes.md"

var updateCoverage = flag.Bool("update", false, "write the table in docs/modes.md")

// TestCoverage: the table in the documentation says what TestBypasses and TestStaticFloor have tested.
func TestCoverage(t *testing.T) {
	rows := map[string]detection{}
	for title, b := range bypasses(issue(pkitest.ServingCert()), issue(pkitest.KubeletClient())) {
		if verb, what, ok := strings.Cut(title, ": "); ok && verb != "" {
			title = "any write: " + what
		}
		if known, ok := rows[title]; ok && known != b.detected {
			t.Errorf("%s: not the same for each verb", title)
		}
		rows[title] = b.detected
	}
	var table strings.Builder
	table.WriteString("| attempt | policies in the API | webhook | both | static policies alone |\n" +
		"| --- | --- | --- | --- | --- |\n")
	for _, title := range slices.Sorted(maps.Keys(rows)) {
		cells := map[detection]string{
			byWebhookOnly: "no | yes | yes | no", byPolicyToo: "yes | yes | yes | yes",
			byAPIServer: "API server | API server | API server | API server",
		}[rows[title]]
		table.WriteString("| " + title + " | " + cells + " |\n")
	}
	page, err := os.ReadFile(coveragePage)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := docs.Between(string(page), "coverage", table.String())
	if err != nil {
		t.Fatal(err)
	}
	if *updateCoverage {
		if err := os.WriteFile(coveragePage, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(page), changed); d != "" {
		t.Errorf("run go test ./test/e2e -run TestCoverage -update (-page +tested):\n%s", d)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// attempt does something as an administrator.
type attempt func(context.Context, kubernetes.Interface) error

// sight says who can see that an attempt breaks the control.
type sight int

const (
	webhookSees sight = iota // only the webhook: what a certificate holds, and the clock
	policySees               // CEL too
	serverSees               // the API server, without any of us
)

// bypass is one way to weaken a protected Secret.
type bypass struct {
	do     attempt
	reason string // in the answer
	seen   sight
}

// put writes the whole Secret, changed.
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

// then does one after the other; only the last may fail.
func then(attempts ...attempt) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		for i, do := range attempts {
			if err := do(ctx, c); err != nil {
				if i < len(attempts)-1 {
					return fmt.Errorf("step %d, which should pass: %w", i+1, err)
				}
				return err
			}
		}
		return nil
	}
}

// allow writes the annotation of the break-glass.
func allow(until string) attempt {
	return patch(types.MergePatchType, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, allowDeleteUntil, until))
}

// soon is when the break-glass usually ends.
func soon() string { return time.Now().Add(10 * time.Minute).Format(time.RFC3339) }

// allowSoon writes it as of now: a table of attempts may take long.
func allowSoon(ctx context.Context, c kubernetes.Interface) error { return allow(soon())(ctx, c) }

// recreate deletes on purpose and creates it again, changed.
func recreate(good pkitest.Pair, change func(*corev1.Secret)) attempt {
	return then(allowSoon, deleteWith(metav1.DeleteOptions{}), func(ctx context.Context, c kubernetes.Interface) error {
		secret := serving(good)
		change(secret)
		return create(secret)(ctx, c)
	})
}

// kubeletClient writes the other protected Secret, changed.
func kubeletClient(good pkitest.Pair, change func(*corev1.Secret)) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		secret := openshift.KubeletClient(good.Certificate, good.Key)
		change(secret)
		return write(secret)(ctx, c)
	}
}

// bypasses is the table of all ways to weaken a protected Secret that the API
// offers.
func bypasses(good, client pkitest.Pair) map[string]bypass {
	now := time.Now()
	other := issue(pkitest.ServingCert())
	expired := shared.ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-2, 0, 0), now.Add(-time.Hour)))
	future := shared.ca.Issue(pkitest.ServingCert().Valid(now.Add(time.Hour), now.AddDate(1, 0, 0)))
	foreign := pkitest.NewCAAround(shared.ca.Certificate.Subject.CommonName, now).Issue(pkitest.ServingCert().Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	foreignClient := pkitest.NewCAAround("mallory", now).Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	elsewhereRequest := pkitest.ServingCert()
	elsewhereRequest.DNSNames = []string{"api.elsewhere.svc"}
	elsewhere := issue(elsewhereRequest)
	encrypted, _ := pkitest.EncryptedKeys()
	apply := func(fields string) attempt {
		return patchWith(types.ApplyYAMLPatchType, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q},%s}`, name, fields),
			metav1.PatchOptions{FieldManager: "mallory", Force: new(true)})
	}
	uid := func(ctx context.Context, c kubernetes.Interface) error {
		secret, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return c.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion}})
	}
	onAnother := func(ctx context.Context, c kubernetes.Interface) error {
		body := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, allowDeleteUntil, soon())
		_, err := c.CoreV1().Secrets("openshift-kube-apiserver").Patch(ctx, "kubelet-client", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		return err
	}
	label := patch(types.MergePatchType, `{"metadata":{"labels":{"doomed":"yes"}}}`)
	finalizer := patch(types.MergePatchType, `{"metadata":{"finalizers":["example.com/mine"]}}`)

	table := map[string]bypass{
		// What it holds.
		"PUT without certificate":       {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = nil }), "CertificateMissing (tls.crt)", policySees},
		"PUT without key":               {put(good, func(s *corev1.Secret) { s.Data["tls.key"] = nil }), "KeyMissing (tls.key)", policySees},
		"PUT white space":               {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("\n") }), "CertificateMissing (tls.crt)", webhookSees},
		"PUT garbage for certificate":   {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("garbage") }), "CertificateUnparsable (tls.crt)", webhookSees},
		"PUT garbage for key":           {put(good, func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") }), "KeyUnparsable (tls.key)", webhookSees},
		"PUT nearly 1 MiB of garbage":   {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = []byte(strings.Repeat("x", 1000<<10)) }), "CertificateUnparsable (tls.crt)", webhookSees},
		"PUT the key for a certificate": {put(good, func(s *corev1.Secret) { s.Data["tls.crt"] = good.Key }), "CertificateUnparsable (tls.crt)", webhookSees},
		"PUT garbage behind the certificate": {put(good, func(s *corev1.Secret) {
			s.Data["tls.crt"] = good.ChainWith([]byte("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n"))
		}), "ChainUnparsable (tls.crt)", webhookSees},
		"the other Secret, a foreign CA's pair":  {kubeletClient(foreignClient, func(*corev1.Secret) {}), "UntrustedIssuer (tls.crt)", webhookSees},
		"JSON patch, null":                       {patch(types.JSONPatchType, `[{"op":"replace","path":"/data/tls.crt","value":null}]`), "CertificateMissing (tls.crt)", policySees},
		"stringData, garbage":                    {patch(types.MergePatchType, `{"stringData":{"tls.key":"garbage"}}`), "KeyUnparsable (tls.key)", webhookSees},
		"server-side apply, immutable":           {apply(`"immutable":true`), "RotationDetached (immutable)", policySees},
		"a dry run":                              {patchWith(types.MergePatchType, `{"data":{"tls.key":""}}`, metav1.PatchOptions{DryRun: []string{"All"}}), "KeyMissing (tls.key)", policySees},
		"PUT another type":                       {put(good, func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }), "field is immutable", serverSees},
		"PUT without type":                       {put(good, func(s *corev1.Secret) { s.Type = "" }), "field is immutable", serverSees},
		"merge patch, no key":                    {patch(types.MergePatchType, `{"data":{"tls.key":null}}`), "Required value", serverSees},
		"patch of the status":                    {patchWith(types.MergePatchType, `{"data":{"tls.key":""}}`, metav1.PatchOptions{}, "status"), "could not find the requested resource", serverSees},
		"patch of something unheard of":          {patchWith(types.MergePatchType, `{"data":{"tls.key":""}}`, metav1.PatchOptions{}, "finalize"), "could not find the requested resource", serverSees},
		"the other Secret, emptied":              {kubeletClient(client, func(s *corev1.Secret) { s.Data["tls.key"] = nil }), "KeyMissing (tls.key)", policySees},
		"the other Secret, a server's pair":      {kubeletClient(client, func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = good.Certificate, good.Key }), "WrongKeyUsage (tls.crt)", webhookSees},
		"the other Secret, the key of some pair": {kubeletClient(client, func(s *corev1.Secret) { s.Data["tls.key"] = other.Key }), "KeyMismatch (tls.key)", webhookSees},

		// Its renewal, by its metadata alone.
		"immutable":      {put(good, func(s *corev1.Secret) { s.Immutable = new(true) }), "RotationDetached (immutable)", policySees},
		"no owner":       {put(good, func(s *corev1.Secret) { s.OwnerReferences = nil }), "RotationDetached (metadata)", policySees},
		"no annotations": {put(good, func(s *corev1.Secret) { s.Annotations = nil }), "RotationDetached (metadata)", policySees},
		"an absent owner instead, for the collector": {put(good, func(s *corev1.Secret) { s.OwnerReferences[0].UID = "absent" }), "RotationDetached (metadata)", policySees},
		"an absent ConfigMap for an owner":           {patch(types.MergePatchType, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"absent","uid":"x"}]}}`), "RotationDetached (metadata)", policySees},
		"a foreign owner beside":                     {put(good, func(s *corev1.Secret) { s.OwnerReferences = append(s.OwnerReferences, owner("ConfigMap")) }), "RotationDetached (metadata.ownerReferences", policySees},
		"a foreign owner with a kind of two lines": {put(good, func(s *corev1.Secret) {
			s.OwnerReferences = append(s.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "X\nall is fine", Name: "absent", UID: "x"})
		}), "RotationDetached (metadata.ownerReferences", policySees},
		"many foreign owners": {put(good, func(s *corev1.Secret) {
			for i := range 1000 {
				o := owner("ConfigMap")
				o.UID = types.UID(fmt.Sprint(i))
				s.OwnerReferences = append(s.OwnerReferences, o)
			}
		}), "RotationDetached", policySees},
		"another Service beside":               {put(good, func(s *corev1.Secret) { s.OwnerReferences = append(s.OwnerReferences, owner("Service")) }), "RotationDetached (metadata.ownerReferences", policySees},
		"an annotation less":                   {patch(types.MergePatchType, `{"metadata":{"annotations":{"service.alpha.openshift.io/originating-service-name":null}}}`), "RotationDetached (metadata)", policySees},
		"another UID in the annotation":        {patch(types.MergePatchType, `{"metadata":{"annotations":{"service.alpha.openshift.io/originating-service-uid":"x"}}}`), "RotationDetached (metadata)", policySees},
		"a beta name, which wins":              {patch(types.MergePatchType, `{"metadata":{"annotations":{"service.beta.openshift.io/originating-service-name":"other"}}}`), "RotationDetached (metadata)", policySees},
		"moved to another Service of the name": {put(good, func(s *corev1.Secret) { moveTo(s, "other-uid") }), "RotationDetached (metadata)", policySees},
		"the noted expiry put off":             {patch(types.MergePatchType, `{"metadata":{"annotations":{"service.beta.openshift.io/expiry":"2099-01-01T00:00:00Z"}}}`), "RotationDetached (metadata.annotations service.beta.openshift.io/expiry)", webhookSees},
		"the other Secret immutable":           {kubeletClient(client, func(s *corev1.Secret) { s.Immutable = new(true) }), "RotationDetached (immutable)", policySees},
		"the other Secret with an owner":       {kubeletClient(client, func(s *corev1.Secret) { s.OwnerReferences = []metav1.OwnerReference{owner("ConfigMap")} }), "RotationDetached (metadata.ownerReferences", policySees},
		"the other Secret with its noted expiry put off": {kubeletClient(client, func(s *corev1.Secret) {
			s.Annotations["auth.openshift.io/certificate-not-after"] = "2099-01-01T00:00:00Z"
		}), "RotationDetached (metadata.annotations auth.openshift.io/certificate-not-after)", webhookSees},

		// Its end.
		"delete":                    {deleteWith(metav1.DeleteOptions{}), "SecretMissing", policySees},
		"delete, forced":            {deleteWith(metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}), "SecretMissing", policySees},
		"delete in the foreground":  {deleteWith(metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)}), "SecretMissing", policySees},
		"delete, leaving orphans":   {deleteWith(metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationOrphan)}), "SecretMissing", policySees},
		"delete, dry run":           {deleteWith(metav1.DeleteOptions{DryRun: []string{"All"}}), "SecretMissing", policySees},
		"delete with preconditions": {uid, "SecretMissing", policySees},
		"delete of the collection":  {deleteCollection(metav1.ListOptions{}), "SecretMissing", policySees},
		"delete by a label":         {then(label, deleteCollection(metav1.ListOptions{LabelSelector: "doomed=yes"})), "SecretMissing", policySees},
		"delete by a field":         {deleteCollection(metav1.ListOptions{FieldSelector: "type=kubernetes.io/tls"}), "SecretMissing", policySees},
		"delete behind a finalizer": {then(finalizer, deleteWith(metav1.DeleteOptions{})), "SecretMissing", policySees},
		"delete of the other Secret": {func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Secrets("openshift-kube-apiserver").Delete(ctx, "kubelet-client", metav1.DeleteOptions{})
		}, "SecretMissing", policySees},
		"break-glass in the past":       {then(allow(now.Add(-time.Minute).Format(time.RFC3339)), deleteWith(metav1.DeleteOptions{})), "which is over", webhookSees},
		"break-glass too far ahead":     {then(allow(now.Add(2*time.Hour).Format(time.RFC3339)), deleteWith(metav1.DeleteOptions{})), "more than 60 minutes ahead", webhookSees},
		"break-glass of rubbish":        {then(allow("yes"), deleteWith(metav1.DeleteOptions{})), "not a time like", webhookSees},
		"break-glass, empty":            {then(allow(""), deleteWith(metav1.DeleteOptions{})), "SecretMissing", policySees},
		"break-glass on another Secret": {then(onAnother, deleteWith(metav1.DeleteOptions{})), "SecretMissing", policySees},

		// Back as something else.
		"created again as Opaque":       {recreate(good, func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }), "WrongSecretType (type)", policySees},
		"created again without a type":  {recreate(good, func(s *corev1.Secret) { s.Type = "" }), "WrongSecretType (type)", policySees},
		"created again of another type": {recreate(good, func(s *corev1.Secret) { s.Type = "example.com/tls" }), "WrongSecretType (type)", policySees},
		"created again with one key":    {recreate(good, func(s *corev1.Secret) { s.Type = "Opaque"; delete(s.Data, "tls.key") }), "KeyMissing (tls.key)", policySees},
		"created again, empty":          {recreate(good, func(s *corev1.Secret) { s.Data = nil; s.Type = "" }), "CertificateMissing (tls.crt)", policySees},
		"created again, detached":       {recreate(good, func(s *corev1.Secret) { s.OwnerReferences, s.Annotations = nil, nil }), "RotationDetached (metadata)", policySees},
		"created again for nobody":      {recreate(good, func(s *corev1.Secret) { s.OwnerReferences[0].Name = "other" }), "RotationDetached (metadata)", policySees},
		"created again with garbage":    {recreate(good, func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") }), "KeyUnparsable (tls.key)", webhookSees},
		"applied again as Opaque": {then(allowSoon, deleteWith(metav1.DeleteOptions{}),
			apply(fmt.Sprintf(`"data":{"tls.crt":%q,"tls.key":%q}`, base64Of(good.Certificate), base64Of(good.Key)))), "WrongSecretType (type)", policySees},
	}
	// Each bad pair by each verb.
	for what, value := range map[string]struct {
		certificate, key []byte
		reason           string
		seen             sight
	}{
		"empty":            {nil, nil, "CertificateMissing (tls.crt)", policySees},
		"garbage":          {[]byte("garbage"), []byte("garbage"), "CertificateUnparsable (tls.crt)", webhookSees},
		"a mismatch":       {good.Certificate, other.Key, "KeyMismatch (tls.key)", webhookSees},
		"expired":          {expired.Certificate, expired.Key, "CertificateExpired (tls.crt)", webhookSees},
		"of tomorrow":      {future.Certificate, future.Key, "CertificateNotYetValid (tls.crt)", webhookSees},
		"a client's":       {client.Certificate, client.Key, "WrongKeyUsage (tls.crt)", webhookSees},
		"of another name":  {elsewhere.Certificate, elsewhere.Key, "DNSNameMissing (tls.crt)", webhookSees},
		"of a foreign CA":  {foreign.Certificate, foreign.Key, "UntrustedIssuer (tls.crt)", webhookSees},
		"an encrypted key": {good.Certificate, encrypted, "KeyUnparsable (tls.key)", webhookSees},
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
			table[verb+": "+what] = bypass{do, value.reason, value.seen}
		}
	}
	return table
}

// owner is one that does not exist.
func owner(kind string) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: "absent", UID: "absent-uid"}
}

// moveTo has service-ca renew it for the Service of that UID.
func moveTo(s *corev1.Secret, uid types.UID) {
	moved := openshift.ServingCert(uid, nil, nil)
	s.OwnerReferences = moved.OwnerReferences
	s.Annotations["service.alpha.openshift.io/originating-service-uid"] = string(uid)
}

// TestBypasses: each way to weaken a protected Secret is refused, with the
// reason, by whichever part of the guard can see it; and the webhook sees all
// that the policy does.
func TestBypasses(t *testing.T) {
	good, client := issue(pkitest.ServingCert()), issue(pkitest.KubeletClient())
	table := bypasses(good, client)
	installations := []struct {
		title string
		parts []rig.Part
		sees  sight // less or equal
		words string
	}{
		{"policy and webhook", []rig.Part{rig.Policy, rig.Registration}, webhookSees, " denied "},
		{"webhook alone", []rig.Part{rig.Registration}, webhookSees, `admission webhook "secrets.kubelet-https-guard.io" denied the request`},
		{"policy alone", []rig.Part{rig.Policy}, policySees, "ValidatingAdmissionPolicy 'kubelet-https-guard.openshift-"},
	}
	t.Cleanup(func() { register(t, rig.Policy, rig.Registration) })
	for _, installation := range installations {
		register(t, installation.parts...)
		for title, b := range table {
			t.Run(installation.title+"/"+title, func(t *testing.T) {
				store(t, serving(good))
				store(t, openshift.KubeletClient(client.Certificate, client.Key))
				err := b.do(t.Context(), as(t, ""))
				if b.seen < installation.sees {
					if err != nil {
						t.Errorf("it is refused, though only the webhook can see what is wrong: %v", err)
					}
					remove(t, name) // whatever it is by now
					return
				}
				words := []string{b.reason}
				if b.seen != serverSees {
					words = append(words, installation.words, "CIS OpenShift 1.2.4 (1.2.2 from v1.9)")
				}
				mustSay(t, err, words...)
				if len(err.Error()) > 5000 || strings.Contains(err.Error(), "\n") {
					t.Errorf("the answer is not one line of bounded length: %.5000v", err)
				}
			})
		}
	}
}

// register makes the API server know these parts of the guard.
func register(t *testing.T, parts ...rig.Part) {
	t.Helper()
	// The test's own context has ended when it cleans up.
	if err := shared.rig.Register(context.WithoutCancel(t.Context()), parts...); err != nil {
		t.Fatal(err)
	}
}

// mustSay: an error, with these words.
func mustSay(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("it passed")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the answer has no %q: %v", word, err)
		}
	}
}

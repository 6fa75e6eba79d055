// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// legitimate is something that OpenShift or its administrators do.
type legitimate struct {
	stored *corev1.Secret // nil: the valid one
	user   string         // empty: an administrator
	do     attempt
}

// write PUTs this Secret.
func write(secret *corev1.Secret) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
		return err
	}
}

// create creates this Secret if it does not exist.
func create(secret *corev1.Secret) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Secrets(secret.Namespace).Create(ctx, secret, metav1.CreateOptions{})
		return err
	}
}

// copied PUTs the stored Secret with a change: a write with a resourceVersion.
func copied(change func(*corev1.Secret)) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		secret, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(secret)
		return write(secret)(ctx, c)
	}
}

func unchanged(*corev1.Secret) {}

// legitimateWrites is the table of what must never be refused.
func legitimateWrites(good pkitest.Pair) map[string]legitimate {
	now := time.Now()
	request := pkitest.ServingCert()
	other := issue(request)
	rsaRequest := request
	rsaRequest.Key = pkitest.RSA
	rsa := issue(rsaRequest)
	ed25519Request := request
	ed25519Request.Key = pkitest.Ed25519
	twoHours := shared.ca.Issue(request.Valid(now.Add(-time.Second), now.Add(2*time.Hour)))
	newCA := pkitest.NewCAAround(shared.ca.Certificate.Subject.CommonName, now)
	reissued := newCA.Issue(request.Valid(now.Add(-time.Second), now.AddDate(2, 0, 0)))
	client, nextClient := issue(pkitest.KubeletClient()), issue(pkitest.KubeletClient())
	thirtyDays := shared.ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Second), now.AddDate(0, 0, 30)))
	bad := func(change func(*corev1.Secret)) *corev1.Secret {
		secret := serving(good)
		change(secret)
		return secret
	}
	garbage := bad(func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") })
	empty := bad(func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = nil, nil })
	opaque := bad(func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })
	detached := bad(func(s *corev1.Secret) { s.OwnerReferences, s.Annotations = nil, nil })
	mismatched := bad(func(s *corev1.Secret) { s.Data["tls.key"] = other.Key })
	expired := serving(shared.ca.Issue(request.Valid(now.AddDate(-2, 0, 0), now.Add(-time.Hour))))
	foreignOwner := bad(func(s *corev1.Secret) { s.OwnerReferences = append(s.OwnerReferences, owner("ConfigMap")) })
	allowed := func(secret *corev1.Secret) *corev1.Secret {
		secret = secret.DeepCopy()
		if secret.Annotations == nil {
			secret.Annotations = map[string]string{}
		}
		secret.Annotations[allowDeleteUntil] = soon()
		return secret
	}
	onPurpose := then(allowSoon, deleteWith(metav1.DeleteOptions{}))
	another := func(change func(*corev1.Secret)) *corev1.Secret {
		secret := bad(func(s *corev1.Secret) { s.Type, s.Data["tls.key"] = corev1.SecretTypeOpaque, []byte("garbage") })
		change(secret)
		return secret
	}
	dangling := owner("Service")
	dangling.Name = "api"
	besideDangling := bad(func(s *corev1.Secret) {
		s.OwnerReferences = append([]metav1.OwnerReference{dangling}, s.OwnerReferences...)
	})
	owners := func(count int) *corev1.Secret {
		return bad(func(s *corev1.Secret) {
			for i := range count {
				o := owner("ConfigMap")
				o.UID = types.UID(fmt.Sprintf("absent-uid-%d", i))
				s.OwnerReferences = append(s.OwnerReferences, o)
			}
		})
	}
	blocking := bad(func(s *corev1.Secret) { s.OwnerReferences[0].BlockOwnerDeletion = new(true) })
	terminating := bad(func(s *corev1.Secret) {
		s.Finalizers = []string{metav1.FinalizerDeleteDependents}
		s.DeletionTimestamp, s.DeletionGracePeriodSeconds = new(metav1.NewTime(now)), new(int64(0))
	})
	detachedTerminating := terminating.DeepCopy()
	detachedTerminating.OwnerReferences = nil
	generated := func(s *corev1.Secret) { s.Name, s.GenerateName = "", "serving-cert-" }

	return map[string]legitimate{
		// service-ca, in each of its ways to write.
		"service-ca creates":           {user: openshift.ServiceCA, do: then(absent, create(serving(good)))},
		"service-ca PUTs a new object": {user: openshift.ServiceCA, do: write(serving(other))},
		"service-ca PUTs a copy": {user: openshift.ServiceCA,
			do: copied(func(s *corev1.Secret) { s.Data = serving(other).Data })},
		"service-ca repairs garbage": {stored: garbage, user: openshift.ServiceCA, do: write(serving(other))},
		"service-ca adds its owner to another": {
			stored: bad(func(s *corev1.Secret) { s.OwnerReferences = []metav1.OwnerReference{owner("ConfigMap")} }),
			user:   openshift.ServiceCA,
			do: copied(func(s *corev1.Secret) {
				s.OwnerReferences = append(s.OwnerReferences, serving(good).OwnerReferences...)
			}),
		},
		"service-ca extends the chain": {user: openshift.ServiceCA,
			do: write(openshift.ServingCert(shared.serviceUID, reissued.ChainWith(newCA.PEM(),
				newCA.CrossSign(shared.ca)), reissued.Key))},
		"service-ca has a new CA of the same name": {user: openshift.ServiceCA,
			do: write(openshift.ServingCert(shared.serviceUID, reissued.ChainWith(newCA.PEM()), reissued.Key))},
		"service-ca overwrites the break-glass": {stored: allowed(serving(good)), user: openshift.ServiceCA,
			do: write(serving(other))},
		"service-ca changes to beta annotations": {user: openshift.ServiceCA, do: copied(toBeta)},
		"an administrator, to beta annotations":  {do: copied(toBeta)},
		"an administrator rotates":               {do: write(serving(other))},
		"an administrator patches both": {do: patch(
			types.MergePatchType,
			fmt.Sprintf(
				`{"metadata":{"annotations":{"service.alpha.openshift.io/expiry":null,"service.beta.openshift.io/expiry":null}},"data":{"tls.crt":%q,"tls.key":%q}}`,
				base64Of(other.Certificate),
				base64Of(other.Key),
			),
		)},
		"an administrator creates it as it was": {do: then(absent, create(serving(good)))},
		"an administrator extends the chain": {do: write(openshift.ServingCert(shared.serviceUID,
			good.ChainWith(shared.ca.PEM(), newCA.PEM()), good.Key))},
		"an intermediate's chain": {do: write(openshift.ServingCert(shared.serviceUID,
			reissued.ChainWith(shared.ca.CrossSign(newCA)), reissued.Key))},
		"RSA to ECDSA":        {stored: serving(rsa), do: write(serving(good))},
		"ECDSA to RSA":        {do: write(serving(rsa))},
		"ECDSA to Ed25519":    {do: write(serving(issue(ed25519Request)))},
		"valid for two hours": {do: write(serving(twoHours))},
		"a label":             {do: patch(types.MergePatchType, `{"metadata":{"labels":{"a":"b"}}}`)},
		"an annotation":       {do: patch(types.MergePatchType, `{"metadata":{"annotations":{"a":"b"}}}`)},
		"a label on an invalid one": {stored: empty, do: patch(types.MergePatchType,
			`{"metadata":{"labels":{"a":"b"}}}`)},
		"an annotation on an invalid one": {stored: garbage, do: patch(types.MergePatchType,
			`{"metadata":{"annotations":{"a":"b"}}}`)},
		"an extra key": {do: patch(types.MergePatchType, `{"data":{"ca.crt":"eA=="}}`)},
		"a finalizer":  {do: patch(types.MergePatchType, `{"metadata":{"finalizers":["example.com/mine"]}}`)},
		"applied without a change": {do: patchWith(types.ApplyYAMLPatchType,
			fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q},"type":"kubernetes.io/tls"}`,
				name), metav1.PatchOptions{FieldManager: "gitops", Force: new(true)})},

		// The storage migrator writes what is stored.
		"the migrator, a valid one":       {user: openshift.StorageMigrator, do: copied(unchanged)},
		"the migrator, garbage":           {stored: garbage, user: openshift.StorageMigrator, do: copied(unchanged)},
		"the migrator, an Opaque one":     {stored: opaque, user: openshift.StorageMigrator, do: copied(unchanged)},
		"the migrator, an empty one":      {stored: empty, user: openshift.StorageMigrator, do: copied(unchanged)},
		"the migrator, a detached one":    {stored: detached, user: openshift.StorageMigrator, do: copied(unchanged)},
		"the migrator, a foreign owner's": {stored: foreignOwner, user: openshift.StorageMigrator, do: copied(unchanged)},

		"the migrator, a thousand foreign owners'": {stored: owners(1000), user: openshift.StorageMigrator, do: copied(unchanged)},
		"the in-tree migrator, a valid one":        {user: openshift.InTreeMigrator, do: migrated},
		"the in-tree migrator, garbage":            {stored: garbage, user: openshift.InTreeMigrator, do: migrated},
		"the in-tree migrator, immutable":          {stored: bad(func(s *corev1.Secret) { s.Immutable = new(true) }), user: openshift.InTreeMigrator, do: migrated},

		// The garbage collector removes owners and finalizers (Kubernetes
		// pkg/controller/garbagecollector/patch.go and operations.go).
		"the collector orphans it":                         {user: collector, do: orphan},
		"the collector orphans an invalid one":             {stored: garbage, user: collector, do: orphan},
		"the collector drops a dangling owner":             {stored: besideDangling, user: collector, do: dropOwner("absent-uid")},
		"the collector drops the living owner":             {stored: besideDangling, user: collector, do: orphan},
		"the collector drops a dangling owner, by a merge": {stored: besideDangling, user: collector, do: copiedByMerge(func(s *corev1.Secret) { s.OwnerReferences = s.OwnerReferences[1:] })},
		"the collector drops one of a hundred owners":      {stored: owners(100), user: collector, do: dropOwner("absent-uid-50")},
		"the collector unsets blockOwnerDeletion": {
			stored: blocking,
			user:   collector,
			do: ofStored(func(s *corev1.Secret) string {
				return fmt.Sprintf(
					`{"metadata":{"uid":%q,"resourceVersion":%q,"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"api","uid":%q,"blockOwnerDeletion":false}]}}`,
					s.UID,
					s.ResourceVersion,
					shared.serviceUID,
				)
			}),
		},
		"the collector ends a foreground deletion": {stored: terminating, user: collector, do: finalized},
		"the collector ends it for a Secret without its owner": {stored: detachedTerminating, user: collector,
			do: finalized},

		// Repairs, complete and partial.
		"repair of garbage":             {stored: garbage, do: write(serving(good))},
		"repair of an empty one":        {stored: empty, do: write(serving(good))},
		"repair of half an empty one":   {stored: empty, do: patch(types.MergePatchType, fmt.Sprintf(`{"data":{"tls.crt":%q}}`, base64Of(good.Certificate)))},
		"repair of a mismatched one":    {stored: mismatched, do: write(serving(good))},
		"repair of an expired one":      {stored: expired, do: write(serving(good))},
		"repair of a detached one":      {stored: detached, do: write(serving(good))},
		"repair of a foreign owner's":   {stored: foreignOwner, do: write(serving(good))},
		"repair of an Opaque one's key": {stored: bad(func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque; s.Data["tls.key"] = nil }), do: copied(func(s *corev1.Secret) { s.Data["tls.key"] = good.Key })},
		"repair of the data only, of an empty one with later annotations": {
			stored: bad(func(s *corev1.Secret) {
				s.Data["tls.crt"], s.Annotations["service.beta.openshift.io/expiry"] = nil, "2099-01-01T00:00:00Z"
			}),
			do: patch(types.MergePatchType, fmt.Sprintf(`{"data":{"tls.crt":%q}}`, base64Of(good.Certificate))),
		},
		"repair of an Opaque one": {stored: opaque, do: then(onPurpose, create(serving(good)))},

		// Issued again without a delete.
		"both expiry annotations removed": {do: patch(types.MergePatchType, `{"metadata":{"annotations":{"service.alpha.openshift.io/expiry":null,"service.beta.openshift.io/expiry":null}}}`)},
		"oc adm ocp-certificates regenerate-leaf": {do: func(ctx context.Context, c kubernetes.Interface) error {
			body := `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"openshift-kube-apiserver","name":"kubelet-client","annotations":{"auth.openshift.io/certificate-not-after":"force-regeneration"}}}`
			_, err := c.CoreV1().Secrets("openshift-kube-apiserver").Patch(ctx, "kubelet-client", types.ApplyYAMLPatchType,
				[]byte(body), metav1.PatchOptions{FieldManager: "regenerate-leaf-certificates", Force: new(true)})
			return err
		}},

		// Deletes.
		"a deletion on purpose":             {do: onPurpose},
		"garbage deleted on purpose":        {stored: garbage, do: onPurpose},
		"the collection deleted on purpose": {do: then(allowSoon, deleteCollection(metav1.ListOptions{}))},
		"on purpose, in another time zone":  {do: then(allow(now.Add(10*time.Minute).In(time.FixedZone("", 2*60*60)).Format(time.RFC3339)), deleteWith(metav1.DeleteOptions{}))},
		"deleted on purpose, dry run":       {do: then(allow(soon()), deleteWith(metav1.DeleteOptions{DryRun: []string{"All"}}))},
		"the garbage collector deletes":     {user: collector, do: deleteWith(metav1.DeleteOptions{})},
		"the collector deletes an invalid one": {stored: garbage, user: collector,
			do: deleteWith(metav1.DeleteOptions{})},
		"the namespace controller deletes all": {user: nsController, do: deleteCollection(metav1.ListOptions{})},

		// The other Secret.
		"the operator renews kubelet-client":     {user: openshift.KubeAPIServerOperator, do: write(openshift.KubeletClient(nextClient.Certificate, nextClient.Key))},
		"the operator renews it for thirty days": {user: openshift.KubeAPIServerOperator, do: write(openshift.KubeletClient(thirtyDays.Certificate, thirtyDays.Key))},
		"an administrator renews it":             {do: write(openshift.KubeletClient(nextClient.Certificate, nextClient.Key))},
		"the migrator writes it unchanged": {user: openshift.StorageMigrator,
			do: write(openshift.KubeletClient(client.Certificate, client.Key))},
		"an administrator has it reissued": {do: func(ctx context.Context, c kubernetes.Interface) error {
			// As OpenShift's documentation says: by removing not-after.
			_, err := c.CoreV1().Secrets("openshift-kube-apiserver").Patch(ctx, "kubelet-client", types.MergePatchType,
				[]byte(`{"metadata":{"annotations":{"auth.openshift.io/certificate-not-after":null}}}`), metav1.PatchOptions{})
			return err
		}},

		// Everything else.
		"another name":     {do: create(another(func(s *corev1.Secret) { s.Name = fmt.Sprint("other-", now.UnixNano()) }))},
		"a generated name": {do: create(another(generated))},
		"the same name in another namespace": {do: create(another(func(s *corev1.Secret) {
			s.Namespace, s.OwnerReferences, s.Name = "default", nil, name+fmt.Sprint("-", now.UnixNano())
		}))},
		"a ConfigMap of the name": {do: func(ctx context.Context, c kubernetes.Interface) error {
			if _, err := c.CoreV1().ConfigMaps(namespace).Create(ctx,
				&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
				return err
			}
			return c.CoreV1().ConfigMaps(namespace).Delete(ctx, name, metav1.DeleteOptions{})
		}},
	}
}

// absent deletes the Secret on purpose, if it exists.
func absent(ctx context.Context, _ kubernetes.Interface) error {
	client, err := shared.client(collector)
	if err != nil {
		return err
	}
	return client.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// ofStored patches with a body that depends on the stored Secret.
func ofStored(body func(*corev1.Secret) string) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		secret, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return patch(types.StrategicMergePatchType, body(secret))(ctx, c)
	}
}

// dropOwner removes an owner as the garbage collector does.
func dropOwner(uid types.UID) attempt {
	return ofStored(func(s *corev1.Secret) string {
		return fmt.Sprintf(`{"metadata":{"ownerReferences":[{"$patch":"delete","uid":%q}],"uid":%q}}`, uid, s.UID)
	})
}

// orphan is what the garbage collector does when the Service is deleted with --cascade=orphan.
func orphan(ctx context.Context, c kubernetes.Interface) error {
	return dropOwner(shared.serviceUID)(ctx, c)
}

// copiedByMerge patches the owners with a change of the stored ones, as the collector does if a
// strategic merge is not possible.
func copiedByMerge(change func(*corev1.Secret)) attempt {
	return func(ctx context.Context, c kubernetes.Interface) error {
		secret, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(secret)
		body, err := json.Marshal(
			map[string]any{
				"metadata": map[string]any{"resourceVersion": secret.ResourceVersion, "ownerReferences": secret.OwnerReferences},
			},
		)
		if err != nil {
			return err
		}
		return patch(types.MergePatchType, string(body))(ctx, c)
	}
}

// finalized ends a deletion in the foreground.
func finalized(ctx context.Context, c kubernetes.Interface) error {
	secret, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return patch(types.MergePatchType,
		fmt.Sprintf(`{"metadata":{"resourceVersion":%q,"finalizers":[]}}`, secret.ResourceVersion))(
		ctx,
		c,
	)
}

// migrated is what Kubernetes' own StorageVersionMigration sends.
func migrated(ctx context.Context, c kubernetes.Interface) error {
	secret, err := c.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return patch(
		types.MergePatchType,
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":%q,"uid":%q,"resourceVersion":%q}}`,
			name, namespace, secret.UID, secret.ResourceVersion),
	)(ctx, c)
}

// toBeta changes the annotations to the beta names.
func toBeta(s *corev1.Secret) {
	for _, key := range []string{"originating-service-name", "originating-service-uid"} {
		s.Annotations["service.beta.openshift.io/"+key] = s.Annotations["service.alpha.openshift.io/"+key]
		delete(s.Annotations, "service.alpha.openshift.io/"+key)
	}
}

// TestNeverInTheWay: the guard allows what OpenShift and its administrators do.
func TestLegitimateWritesPass(t *testing.T) {
	good, client := issue(pkitest.ServingCert()), issue(pkitest.KubeletClient())
	for title, l := range legitimateWrites(good) {
		t.Run(title, func(t *testing.T) {
			if l.stored == nil {
				l.stored = serving(good)
			}
			store(t, openshift.KubeletClient(client.Certificate, client.Key))
			store(t, l.stored)
			if err := l.do(t.Context(), as(t, l.user)); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

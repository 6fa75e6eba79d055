// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// hostedValues are chart values for a management cluster, as in docs/hosted-control-planes.md, and another entry for
// one of the namespaces.
const hostedValues = `
protectedSecrets:
  - namespace: openshift-kube-apiserver
    name: kubelet-client
    usage: clientAuth
    managedBy: cert-rotation
  - namespace: openshift-apiserver
    name: serving-cert
    usage: serverAuth
    dnsNames: [api.openshift-apiserver.svc]
    managedBy: service-ca
    service: api
  - name: kas-kubelet-client-crt
    namespaceSelector:
      matchExpressions:
        - {key: hypershift.openshift.io/hosted-control-plane, operator: Exists}
    type: Opaque
    usage: clientAuth
    identity: {commonName: "system:kube-apiserver", organization: kubernetes}
    expiringFraction: 0.08
    caBundleConfigMap: {name: kubelet-client-ca, key: ca.crt}
    owners:
      - {apiVersion: hypershift.openshift.io, kind: HostedControlPlane}
    renewedByServiceAccounts: [control-plane-operator]
  - namespace: clusters-named
    name: kas-kubelet-client-crt
    usage: clientAuth
`

const (
	hostedName, hostedBundle = "kas-kubelet-client-crt", "kubelet-client-ca"
	hostedLabel              = "hypershift.openshift.io/hosted-control-plane"
)

// hostedSecret is the Secret as HyperShift writes it.
func hostedSecret(namespace string, p pkitest.Pair) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: hostedName, OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "hypershift.openshift.io/v1beta1", Kind: "HostedControlPlane", Name: "a", UID: "a-uid",
			}},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"ca.crt": shared.ca.PEM(), "tls.crt": p.Certificate, "tls.key": p.Key},
	}
}

func hostedClient() pkitest.Request {
	request := pkitest.KubeletClient()
	request.Organization = "kubernetes"
	return request
}

// hostNamespace makes a namespace with the CA bundle of a hosted control plane. A label value of "-" means no label.
func hostNamespace(t *testing.T, name, label string) {
	t.Helper()
	namespace := &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{hostedLabel: label}},
	}
	if label == "-" {
		namespace.Labels = nil
	}
	if _, err := as(t, "").CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteNamespace(t, name) })
}

// deleteNamespace deletes a namespace as its controller does, which this cluster does not run: first what is in it.
func deleteNamespace(t *testing.T, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, err := range []error{
		as(t, "").CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}),
		as(t, nsController).CoreV1().Secrets(name).Delete(ctx, hostedName, metav1.DeleteOptions{}),
		as(t, "").CoreV1().ConfigMaps(name).Delete(ctx, hostedBundle, metav1.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	namespace, err := as(t, "").CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	namespace.Spec.Finalizers = nil
	if _, err := as(t, "").CoreV1().Namespaces().Finalize(ctx, namespace, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// storeBundle makes the CA bundle of a hosted control plane.
func storeBundle(t *testing.T, namespace string) {
	t.Helper()
	bundle := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: hostedBundle}, Data: map[string]string{"ca.crt": string(shared.ca.PEM())},
	}
	configMaps := as(t, "").CoreV1().ConfigMaps(namespace)
	if _, err := configMaps.Create(t.Context(), bundle, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func operatorOf(namespace string) string {
	return "system:serviceaccount:" + namespace + ":control-plane-operator"
}

// installForHosted installs the guard with hostedValues, and lets the operators of two namespaces write Secrets.
func installForHosted(t *testing.T) {
	t.Helper()
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte(hostedValues), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"clusters-a", "clusters-b"} {
		hostNamespace(t, name, "true")
	}
	hostNamespace(t, "clusters-named", "")
	hostNamespace(t, "clusters-none", "-")
	reinstall := func(values string) {
		t.Helper()
		ctx := context.WithoutCancel(t.Context())
		if err := shared.rig.Reinstall(ctx, values); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { reinstall("") })
	reinstall(values)
	bindings := as(t, "").RbacV1().ClusterRoleBindings()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "hosted-operators"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "rig:writes-secrets"},
	}
	for _, namespace := range []string{"clusters-a", "clusters-b"} {
		binding.Subjects = append(binding.Subjects,
			rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: "control-plane-operator"})
	}
	if _, err := bindings.Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bindings.Delete(context.WithoutCancel(t.Context()), binding.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// TestHostedControlPlanes: the Secret of each selected namespace is guarded, from the creation of the namespace, by the
// webhook and by a policy. Its writers are the ServiceAccounts of its own namespace.
func TestHostedControlPlanes(t *testing.T) {
	installForHosted(t)
	good := issue(hostedClient())
	changed := func(namespace string, change func(*corev1.Secret)) *corev1.Secret {
		secret := hostedSecret(namespace, good)
		change(secret)
		return secret
	}
	garbage := func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") }
	keyless := func(s *corev1.Secret) { s.Data["tls.key"] = nil }
	asTLS := func(s *corev1.Secret) { s.Type = corev1.SecretTypeTLS }
	foreign := func(s *corev1.Secret) {
		s.OwnerReferences = append(s.OwnerReferences, owner("ConfigMap"))
	}
	erase := func(ctx context.Context, c kubernetes.Interface) error {
		return c.CoreV1().Secrets("clusters-a").Delete(ctx, hostedName, metav1.DeleteOptions{})
	}
	annotated := changed("clusters-a", func(s *corev1.Secret) {
		s.Annotations = map[string]string{allowDeleteUntil: soon()}
	})
	// In a namespace that is new in each case.
	first := func(change func(*corev1.Secret)) attempt {
		return func(ctx context.Context, c kubernetes.Interface) error {
			hostNamespace(t, "clusters-new", "true")
			defer deleteNamespace(t, "clusters-new")
			return create(changed("clusters-new", change))(ctx, c)
		}
	}
	cases := map[string]struct {
		stored   *corev1.Secret // nil: the valid one; without a namespace: none
		user     string         // empty: an administrator
		do       attempt
		reason   string // empty if it is allowed
		detected detection
	}{
		"first write, of type kubernetes.io/tls": {do: first(asTLS), reason: "type: … (WrongSecretType)", detected: byPolicyToo},
		"first write, without a key":             {do: first(keyless), reason: "tls.key: … (KeyMissing)", detected: byPolicyToo},
		"first write, an invalid key":            {do: first(garbage), reason: "tls.key: … (KeyUnparsable)"},
		"first write, valid":                     {do: first(unchanged)},
		"an empty key": {
			do: write(changed("clusters-a", keyless)), reason: "tls.key: … (KeyMissing)", detected: byPolicyToo,
		},
		"an empty key, by its operator": { // which never writes one; only the policy sees it
			user: operatorOf("clusters-a"), do: write(changed("clusters-a", keyless)), reason: "tls.key: … (KeyMissing)",
			detected: byPolicyToo,
		},
		"another owner": {
			do: write(changed("clusters-a", foreign)), reason: "metadata.ownerReferences … (RotationDetached)", detected: byPolicyToo,
		},
		"an invalid key": {do: write(changed("clusters-a", garbage)), reason: "tls.key: … (KeyUnparsable)"},
		"an invalid key, by the operator of another namespace": {
			user: operatorOf("clusters-b"), do: write(changed("clusters-a", garbage)), reason: "tls.key: … (KeyUnparsable)",
		},
		"an invalid key, by its operator": {user: operatorOf("clusters-a"), do: write(changed("clusters-a", garbage))},
		"a renewal":                       {do: write(hostedSecret("clusters-a", issue(hostedClient())))},
		"an invalid key in a namespace that is not selected": {
			stored: hostedSecret("clusters-none", good), do: write(changed("clusters-none", garbage)),
		},
		"the same in a namespace of another entry": {
			stored: changed("clusters-named", asTLS), do: write(changed("clusters-named", func(s *corev1.Secret) {
				asTLS(s)
				keyless(s)
				s.Data["tls.key"] = []byte{}
			})),
			reason: "tls.key: … (KeyMissing)", detected: byPolicyToo,
		},
		"a delete":                    {do: erase, reason: "allow-delete-until", detected: byPolicyToo},
		"a delete, with break-glass":  {stored: annotated, do: erase},
		"a repair of an invalid one":  {stored: changed("clusters-a", garbage), do: write(hostedSecret("clusters-a", good))},
		"a delete with its namespace": {user: nsController, do: erase},
	}
	for title, parts := range map[string][]rig.Part{"webhook alone": {rig.Registration}, "policy alone": {rig.Policy}} {
		register(t, parts...)
		await(t, "a guard of selected namespaces", func() bool {
			_, err := as(t, "").CoreV1().Secrets("clusters-b").Create(t.Context(), changed("clusters-b", keyless),
				metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err != nil
		})
		for name, c := range cases {
			t.Run(title+"/"+name, func(t *testing.T) {
				stored := c.stored
				if stored == nil {
					stored = hostedSecret("clusters-a", good)
				}
				store(t, stored)
				err := c.do(t.Context(), as(t, c.user))
				isPolicy := slices.Contains(parts, rig.Policy)
				byRenewer := c.user == operatorOf("clusters-a") && !isPolicy
				if c.reason == "" || isPolicy && c.detected != byPolicyToo || byRenewer {
					if err != nil {
						t.Errorf("refused: %v", err)
					}
					return
				}
				mustContain(t, err, " denied ", c.reason, "control protected-secrets of kubelet-https-guard",
					"Secret "+stored.Namespace[:len("clusters-")])
			})
		}
	}
	t.Run("another CA", func(t *testing.T) {
		register(t, rig.Registration)
		store(t, hostedSecret("clusters-a", good))
		storeBundle(t, "clusters-a")
		another := pkitest.NewCAAround("another", time.Now()).Issue(
			hostedClient().Valid(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)))
		await(t, "a refusal of a certificate of another CA", func() bool {
			err := write(hostedSecret("clusters-a", another))(t.Context(), as(t, ""))
			if err == nil { // the webhook has not read the bundle yet
				store(t, hostedSecret("clusters-a", good))
				return false
			}
			mustContain(t, err, "(UntrustedIssuer)")
			return true
		})
		if err := write(hostedSecret("clusters-a", issue(hostedClient())))(t.Context(), as(t, "")); err != nil {
			t.Errorf("a certificate of the CA of this namespace: %v", err)
		}
	})
}

// TestAuditOfHostedControlPlanes: with the permissions of the chart, the audit judges the Secret of each selected
// namespace, reports a namespace that lost its label, and nothing about one that is being deleted.
func TestAuditOfHostedControlPlanes(t *testing.T) {
	installForHosted(t)
	register(t, rig.Registration, rig.Policy)
	soundCluster(t)
	for _, namespace := range []string{"clusters-a", "clusters-b", "clusters-named"} {
		secret := hostedSecret(namespace, issue(hostedClient()))
		if namespace == "clusters-named" {
			secret.Type, secret.OwnerReferences = corev1.SecretTypeTLS, nil
		}
		store(t, secret)
		storeBundle(t, namespace)
	}
	label := func(namespace string, value any) {
		t.Helper()
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{hostedLabel: value}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := as(t, "").CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, body,
			metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig, err := shared.rig.AuditKubeconfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	once := func(want ...string) {
		t.Helper()
		r := shared.rig.AuditOnce(t.Context(), "--kubeconfig", kubeconfig, "-o", "json",
			"--config", shared.rig.Path("webhook", "config.yaml"))
		var document auditDocument
		if err := json.Unmarshal([]byte(r.Output), &document); err != nil {
			t.Fatalf("%v\n%s", err, r.Output)
		}
		var got []string
		for _, f := range document.Findings {
			got = append(got, f.Reason+" "+f.Location)
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("findings (-want +got):\n%s", d)
		}
		for _, namespace := range []string{"clusters-a", "clusters-b", "clusters-named"} {
			at := "Secret " + namespace + "/" + hostedName
			isExamined := slices.ContainsFunc(document.Examined,
				func(e struct{ Role, Location string }) bool { return e.Location == at })
			if !isExamined && !slices.Contains(want, "NamespaceNotSelected "+at) {
				t.Errorf("%s was not examined: %+v", at, document.Examined)
			}
		}
	}
	const atA = "Secret clusters-a/" + hostedName
	once()
	label("clusters-a", nil)
	once("NamespaceNotSelected " + atA)
	start := restartAudit(t)
	awaitEventOn(t, "clusters-a", start, "Warning", "NamespaceNotSelected")
	label("clusters-a", "")
	awaitEventOn(t, "clusters-a", start, "Normal", "NamespaceNotSelected")

	// A namespace is deleted: its controller deletes the Secret first.
	if err := as(t, "").CoreV1().Namespaces().Delete(t.Context(), "clusters-b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	asController := as(t, nsController).CoreV1().Secrets("clusters-b")
	if err := asController.Delete(t.Context(), hostedName, metav1.DeleteOptions{}); err != nil {
		t.Errorf("the namespace controller cannot delete the Secret: %v", err)
	}
	once()

	account := as(t, "system:serviceaccount:kubelet-https-guard:kubelet-https-guard-audit")
	secrets := account.CoreV1().Secrets("")
	named := metav1.ListOptions{FieldSelector: "metadata.name=" + hostedName}
	if _, err := secrets.List(t.Context(), named); err != nil {
		t.Errorf("the audit cannot list the Secrets of the name: %v", err)
	}
	for what, options := range map[string]metav1.ListOptions{
		"all Secrets": {}, "Secrets of another name": {FieldSelector: "metadata.name=pull-secret"},
		"all other Secrets": {FieldSelector: "metadata.name!=" + hostedName},
	} {
		if _, err := secrets.List(t.Context(), options); !apierrors.IsForbidden(err) {
			t.Errorf("the audit can list %s: %v", what, err)
		}
	}
	webhook := as(t, "system:serviceaccount:kubelet-https-guard:kubelet-https-guard-webhook")
	if _, err := webhook.CoreV1().Secrets("").List(t.Context(), named); !apierrors.IsForbidden(err) {
		t.Errorf("the webhook can list the Secrets: %v", err)
	}
}

// awaitEventOn waits for the audit's Event about the Secret of a namespace.
func awaitEventOn(t *testing.T, namespace string, since time.Time, eventType, reason string) {
	t.Helper()
	awaitEvent(t, namespace, func(e eventsv1.Event) bool {
		return e.Regarding.Kind == "Secret" && e.Regarding.Name == hostedName && e.Regarding.UID != "" &&
			e.Type == eventType && e.Reason == reason && e.EventTime.After(since)
	})
}

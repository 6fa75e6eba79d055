// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

const goodConfig = `{"apiVersion":"kubecontrolplane.config.openshift.io/v1","kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-certificate-authority":["/ca"],"kubelet-client-certificate":["/crt"],"kubelet-client-key":["/key"]}}`

// subject is what OpenShift has, and one object of the guard.
func subject() Subject {
	installed := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": map[string]any{"name": "guard"},
		"spec": map[string]any{"failurePolicy": "Fail"},
	}}
	return Subject{
		Secrets: []Secret{
			{SecretExpectation: check.SecretExpectation{
				Namespace: "openshift-apiserver", Name: "serving-cert", Usage: x509.ExtKeyUsageServerAuth, DNSNames: []string{"api.openshift-apiserver.svc"},
				ManagedBy: check.ManagedByServiceCA, Service: "api", ExpiringFraction: check.DefaultExpiringFraction,
			}},
			{SecretExpectation: check.SecretExpectation{
				Namespace: "openshift-kube-apiserver", Name: "kubelet-client", Usage: x509.ExtKeyUsageClientAuth,
				ManagedBy: check.ManagedByCertRotation, ExpiringFraction: check.DefaultExpiringFraction,
			}},
		},
		Guard: []*unstructured.Unstructured{installed}, GuardPatience: time.Minute,
	}
}

// The objects of the subject.
var (
	servingCert   = follow.Named(corev1.SchemeGroupVersion, "Secret", "openshift-apiserver", "serving-cert")
	kubeletClient = follow.Named(corev1.SchemeGroupVersion, "Secret", "openshift-kube-apiserver", "kubelet-client")
	service       = follow.Named(corev1.SchemeGroupVersion, "Service", "openshift-apiserver", "api")
	configMap     = follow.Named(corev1.SchemeGroupVersion, "ConfigMap", "openshift-kube-apiserver", "config")
	operator      = follow.Named(schema.GroupVersion{Group: "operator.openshift.io", Version: "v1"}, "KubeAPIServer", "", "cluster")
	policy        = follow.Named(schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}, "ValidatingAdmissionPolicy", "", "guard")
)

func live(t *testing.T, typed any) *unstructured.Unstructured {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: fields}
}

// sound is a cluster in which nothing is wrong.
func sound(t *testing.T) map[follow.Object]follow.State {
	t.Helper()
	ca := pkitest.NewCA("service-ca")
	serving, client := ca.Issue(pkitest.ServingCert()), ca.Issue(pkitest.KubeletClient())
	is := func(o *unstructured.Unstructured) follow.State { return follow.State{Known: true, Live: o} }
	return map[follow.Object]follow.State{
		servingCert:   is(live(t, openshift.ServingCert("uid-1", serving.Certificate, serving.Key))),
		kubeletClient: is(live(t, openshift.KubeletClient(client.Certificate, client.Key))),
		service:       is(&unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"uid": "uid-1", "annotations": map[string]any{}}}}),
		configMap:     is(live(t, &corev1.ConfigMap{Data: map[string]string{"config.yaml": goodConfig}})),
		operator:      is(&unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"uid": "uid-2"}, "spec": map[string]any{}}}),
		policy:        is(&unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"failurePolicy": "Fail"}}}),
	}
}

// set changes a field of what is stored.
func set(t *testing.T, s follow.State, value any, path ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(s.Live.Object, value, path...); err != nil {
		t.Fatal(err)
	}
}

// TestLook: what is found in which state of the cluster, and about which
// object.
func TestLook(t *testing.T) {
	gone, away := follow.State{Known: true}, errors.New("connection refused")
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "serving-cert", errors.New("no"))
	cases := map[string]struct {
		change func(t *testing.T, states map[follow.Object]follow.State)
		want   []string // source, reason, location, object
		waits  bool
	}{
		"all is well": {change: func(*testing.T, map[follow.Object]follow.State) {}},
		"nothing is known yet": {change: func(_ *testing.T, states map[follow.Object]follow.State) {
			clear(states)
		}, waits: true},
		"no OpenShift": {change: func(_ *testing.T, states map[follow.Object]follow.State) {
			states[operator], states[configMap] = follow.State{Known: true, NoAPI: true}, gone
		}},
		"a Secret is gone": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) { states[servingCert] = gone },
			want:   []string{"0 SecretMissing Secret openshift-apiserver/serving-cert of Secret serving-cert"},
		},
		"a Secret with garbage": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[kubeletClient], "eA==", "data", "tls.key")
			},
			want: []string{"0 KeyUnparsable Secret openshift-kube-apiserver/kubelet-client tls.key of Secret kubelet-client"},
		},
		"attached to a Service that is another one by now": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[service], "uid-9", "metadata", "uid")
			},
			want: []string{
				"0 RotationDetached Secret openshift-apiserver/serving-cert metadata of Secret serving-cert",
				`0 RotationDetached Secret openshift-apiserver/serving-cert metadata.ownerReferences Service "api" "uid-1" of Secret serving-cert`,
			},
		},
		"service-ca gave up": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[service], "10", "metadata", "annotations", "service.beta.openshift.io/serving-cert-generation-error-num")
			},
			want: []string{"0 RotationStuck Service openshift-apiserver/api of Service api"},
		},
		"no Service, so nobody renews": {change: func(_ *testing.T, states map[follow.Object]follow.State) { states[service] = gone }},
		"https overridden": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[operator], []any{"false"}, "spec", "unsupportedConfigOverrides", "apiServerArguments", "kubelet-https")
			},
			want: []string{"0 OverrideWeakensKubeletTLS KubeAPIServer cluster spec.unsupportedConfigOverrides.apiServerArguments kubelet-https of KubeAPIServer cluster"},
		},
		"no configuration": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) { states[configMap] = gone },
			want:   []string{"0 ConfigMissing ConfigMap openshift-kube-apiserver/config config.yaml of ConfigMap config"},
		},
		"a configuration without a key": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[configMap], strings.Replace(goodConfig, "kubelet-client-key", "x", 1), "data", "config.yaml")
			},
			want: []string{"0 ClientKeyNotConfigured ConfigMap openshift-kube-apiserver/config config.yaml kubelet-client-key of ConfigMap config"},
		},
		"the guard is gone": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) { states[policy] = gone },
			want:   []string{"1 GuardMissing ValidatingAdmissionPolicy guard of ValidatingAdmissionPolicy guard"},
		},
		"the guard fails open": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[policy], "Ignore", "spec", "failurePolicy")
			},
			want: []string{"1 GuardWeakened ValidatingAdmissionPolicy guard of ValidatingAdmissionPolicy guard"},
		},
		"no right to look": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				states[servingCert] = follow.State{Err: forbidden}
			},
			want: []string{"2 Unreadable Secret openshift-apiserver/serving-cert of Secret serving-cert"},
		},
		"a right to look is lost, and what was bad was not mended": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[servingCert], "eA==", "data", "tls.key")
				s := states[servingCert]
				s.Err = forbidden
				states[servingCert] = s
			},
			want: []string{
				"0 KeyUnparsable Secret openshift-apiserver/serving-cert tls.key of Secret serving-cert",
				"2 Unreadable Secret openshift-apiserver/serving-cert of Secret serving-cert",
			},
		},
		"an API server that is away": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				for o, s := range states {
					s.Err = away
					states[o] = s
				}
			},
			want: []string{
				"2 Unreadable ConfigMap openshift-kube-apiserver/config of ConfigMap config",
				"2 Unreadable KubeAPIServer cluster of KubeAPIServer cluster",
				"2 Unreadable Secret openshift-apiserver/serving-cert of Secret serving-cert",
				"2 Unreadable Secret openshift-kube-apiserver/kubelet-client of Secret kubelet-client",
				"2 Unreadable Service openshift-apiserver/api of Service api",
				"2 Unreadable ValidatingAdmissionPolicy guard of ValidatingAdmissionPolicy guard",
			},
		},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			states := sound(t)
			c.change(t, states)
			seen := look(subject(), states, pkitest.Now())
			var got []string
			for i, source := range seen.Sources {
				for _, f := range source.Findings {
					o := seen.about[f.ID()]
					got = append(got, fmt.Sprintf("%d %s %s of %s %s", i, f.Reason, f.Location, o.Kind, o.Name))
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if seen.Waiting != c.waits {
				t.Errorf("waiting: %t, want %t", seen.Waiting, c.waits)
			}
		})
	}
}

// TestBundle: a certificate is held against a CA bundle, and that there is none is
// not passed over.
func TestBundle(t *testing.T) {
	bundle := follow.Named(corev1.SchemeGroupVersion, "ConfigMap", "openshift-kube-apiserver-operator", "signers")
	of := func(ca *pkitest.CA) follow.State {
		return follow.State{Known: true, Live: live(t, &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(ca.PEM())}})}
	}
	own, foreign := pkitest.NewCA("signer"), pkitest.NewCA("foreign")
	client := own.Issue(pkitest.KubeletClient())
	const (
		untrusted = "0 UntrustedIssuer Secret openshift-kube-apiserver/kubelet-client tls.crt"
		noBundle  = "0 ClientCAUnavailable ConfigMap openshift-kube-apiserver-operator/signers ca.crt"
	)
	cases := map[string]struct {
		state follow.State
		want  []string // source, reason, location
		looks bool     // for UntrustedIssuer
		waits bool
	}{
		"of who issued it":              {state: of(own), looks: true},
		"of somebody else":              {state: of(foreign), looks: true, want: []string{untrusted}},
		"not known yet":                 {waits: true},
		"gone":                          {state: follow.State{Known: true}, want: []string{noBundle}},
		"of no certificate":             {state: follow.State{Known: true, Live: live(t, &corev1.ConfigMap{})}, want: []string{noBundle}},
		"no right to look":              {state: follow.State{Err: errors.New("no")}, want: []string{"2 Unreadable ConfigMap openshift-kube-apiserver-operator/signers"}},
		"not seen of late":              {state: follow.State{Known: true, Live: of(own).Live, Err: errors.New("no")}, looks: true, want: []string{"2 Unreadable ConfigMap openshift-kube-apiserver-operator/signers"}},
		"foreign, and not seen of late": {state: follow.State{Known: true, Live: of(foreign).Live, Err: errors.New("no")}, looks: true, want: []string{untrusted, "2 Unreadable ConfigMap openshift-kube-apiserver-operator/signers"}},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			states, subject := sound(t), subject()
			states[kubeletClient] = follow.State{Known: true, Live: live(t, openshift.KubeletClient(client.Certificate, client.Key))}
			subject.Secrets = subject.Secrets[1:]
			subject.Secrets[0].Bundle = &Bundle{Namespace: bundle.Namespace, Name: bundle.Name, Key: "ca.crt"}
			states[bundle] = c.state
			seen := look(subject, states, pkitest.Now())
			var got []string
			for i, source := range seen.Sources {
				for _, f := range source.Findings {
					got = append(got, fmt.Sprintf("%d %s %s", i, f.Reason, f.Location))
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if looks := slices.Contains(seen.everywhere(), finding.UntrustedIssuer); looks != c.looks || seen.Waiting != c.waits {
				t.Errorf("looks for UntrustedIssuer: %t, want %t; waits: %t, want %t", looks, c.looks, seen.Waiting, c.waits)
			}
		})
	}
}

// TestObjectsComeAndGo: a certificate of somebody else's stays told until it has
// been held against its own bundle again, whatever becomes of others; what is
// not audited any more does not; and nothing is verified before it was looked at.
func TestObjectsComeAndGo(t *testing.T) {
	own, foreign := pkitest.NewCA("signer"), pkitest.NewCA("foreign")
	client, server := own.Issue(pkitest.KubeletClient()), own.Issue(pkitest.ServingCert())
	named := func(name string) follow.Object {
		return follow.Named(corev1.SchemeGroupVersion, "ConfigMap", "signers", name)
	}
	versions := 0
	of := func(ca *pkitest.CA) follow.State {
		stored := live(t, &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(ca.PEM())}})
		versions++
		stored.SetResourceVersion(fmt.Sprint(versions))
		return follow.State{Known: true, Live: stored}
	}
	gone, away := follow.State{Known: true}, follow.State{Err: errors.New("no")}
	other := follow.Named(corev1.SchemeGroupVersion, "Secret", kubeletClient.Namespace, "other")
	states, subject := sound(t), subject()
	states[kubeletClient] = follow.State{Known: true, Live: live(t, openshift.KubeletClient(client.Certificate, client.Key))}
	states[servingCert] = follow.State{Known: true, Live: live(t, openshift.ServingCert("uid-1", server.Certificate, server.Key))}
	bundles := func(ofServer, ofClient string) {
		subject.Secrets[0].Bundle = &Bundle{Namespace: "signers", Name: ofServer, Key: "ca.crt"}
		subject.Secrets[1].Bundle = &Bundle{Namespace: "signers", Name: ofClient, Key: "ca.crt"}
	}
	bundles("server", "client")
	ledger, at := report.NewLedger(settle), pkitest.Now()
	for _, step := range []struct {
		what   string
		change func()
		want   string // of what is told in the next two minutes
	}{
		{"the client's bundle is another's", func() { states[named("client")], states[named("server")] = of(foreign), of(own) }, "Finding raised UntrustedIssuer, Not verified"},
		{"it is deleted", func() { states[named("client")] = gone }, "Finding raised ClientCAUnavailable"},
		{"the server's is deleted", func() { states[named("server")] = gone }, "Finding raised ClientCAUnavailable"},
		{"the client's is written anew", func() { states[named("client")] = of(own) }, "Finding cleared UntrustedIssuer, Finding cleared ClientCAUnavailable, Not verified"},
		{"and is another's again", func() { states[named("client")] = of(foreign) }, "Finding raised UntrustedIssuer, Not verified"},
		{"the configuration names a third one", func() { bundles("server", "third") }, ""}, // it is waited for
		{"which may not be looked at", func() { states[named("third")] = away }, "Finding raised Unreadable"},
		{"it may, and is right", func() { states[named("third")] = of(own) }, "Finding cleared UntrustedIssuer, Finding cleared Unreadable, Not verified"},
		{"and so is the server's", func() { states[named("server")] = of(own) }, "Finding cleared ClientCAUnavailable, Verified"},
		{"a key is spoilt", func() {
			stored := live(t, openshift.KubeletClient(client.Certificate, []byte("garbage")))
			stored.SetResourceVersion("spoilt")
			states[kubeletClient] = follow.State{Known: true, Live: stored}
		}, "Finding raised KeyUnparsable, Not verified"},
		{"the configuration names another Secret in its place", func() { subject.Secrets[1].Name = "other" }, "Finding cleared KeyUnparsable"},
		{"which may not be looked at", func() { states[other] = away }, "Finding raised Unreadable, Not verified"},
	} {
		step.change()
		var told []string
		for range 120 {
			at = at.Add(time.Second)
			for _, n := range ledger.Observe(look(subject, states, at).Look).Notices {
				told = append(told, strings.TrimSpace(string(n.What)+" "+string(n.Finding.Reason)))
			}
		}
		if d := cmp.Diff(step.want, strings.Join(told, ", ")); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, d)
		}
	}
}

// TestContents: two looks are the same if and only if what is stored is.
func TestContents(t *testing.T) {
	states := sound(t)
	digest := func() [32]byte {
		seen := look(subject(), states, pkitest.Now())
		return seen.Contents
	}
	first := digest()
	if digest() != first {
		t.Error("it differs from itself")
	}
	set(t, states[servingCert], "2", "metadata", "resourceVersion")
	second := digest()
	if second == first {
		t.Error("a write is not seen")
	}
	states[policy] = follow.State{Known: true}
	if digest() == second {
		t.Error("a deletion is not seen")
	}
}

// TestNext: it looks again when a certificate begins to expire.
func TestNext(t *testing.T) {
	seen := look(subject(), sound(t), pkitest.Now())
	if seen.Next.IsZero() || !seen.Next.After(pkitest.Now()) {
		t.Errorf("the next look is at %s", seen.Next)
	}
	if len(seen.Certificates) != 2 || !seen.Certificates[0].Sound || seen.Certificates[0].Role != "openshift-apiserver/serving-cert" {
		t.Errorf("certificates: %+v", seen.Certificates)
	}
}

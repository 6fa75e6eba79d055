// SPDX-License-Identifier: Apache-2.0

package audit

import (
	gocmp "cmp"
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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

const goodConfig = `{"apiVersion":"kubecontrolplane.config.openshift.io/v1","kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-certificate-authority":["/ca"],"kubelet-client-certificate":["/crt"],"kubelet-client-key":["/key"]}}`

// subject has the Secrets of OpenShift and one object of the guard.
func subject() Subject {
	installed := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
		"metadata": map[string]any{"name": "guard"},
		"spec":     map[string]any{"failurePolicy": "Fail"},
	}}
	return Subject{
		Secrets: []admit.ProtectedSecret{
			{SecretExpectation: check.SecretExpectation{
				Namespace: "openshift-apiserver", Name: "serving-cert", Usage: x509.ExtKeyUsageServerAuth,
				DNSNames:  []string{"api.openshift-apiserver.svc"},
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
	operator      = follow.Named(schema.GroupVersion{Group: "operator.openshift.io", Version: "v1"}, "KubeAPIServer", "",
		"cluster")
	infrastructure = follow.Named(schema.GroupVersion{Group: "config.openshift.io", Version: "v1"}, "Infrastructure", "",
		"cluster")
	servingSpace = follow.Named(corev1.SchemeGroupVersion, "Namespace", "", "openshift-apiserver")
	clientSpace  = follow.Named(corev1.SchemeGroupVersion, "Namespace", "", "openshift-kube-apiserver")
	pkiCluster   = follow.Named(schema.GroupVersion{Group: "config.openshift.io", Version: "v1alpha1"}, "PKI", "",
		"cluster")
	pkiDefinition = follow.Named(schema.GroupVersion{Group: "apiextensions.k8s.io", Version: "v1"},
		"CustomResourceDefinition", "", "pkis.config.openshift.io")
	policy = follow.Named(schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"},
		"ValidatingAdmissionPolicy", "", "guard")
)

func live(t testing.TB, typed any) *unstructured.Unstructured {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: fields}
}

// healthy returns the states of a cluster in which nothing is wrong.
func healthy(t *testing.T) map[follow.Object]follow.State {
	t.Helper()
	ca := pkitest.NewCA("service-ca")
	serving, client := ca.Issue(pkitest.ServingCert()), ca.Issue(pkitest.KubeletClient())
	is := func(o *unstructured.Unstructured) follow.State { return follow.State{Known: true, Live: o} }
	return map[follow.Object]follow.State{
		servingCert:   is(live(t, openshift.ServingCert("uid-1", serving.Certificate, serving.Key))),
		kubeletClient: is(live(t, openshift.KubeletClient(client.Certificate, client.Key))),
		service: is(
			&unstructured.Unstructured{
				Object: map[string]any{"metadata": map[string]any{"uid": "uid-1", "annotations": map[string]any{
					"service.beta.openshift.io/serving-cert-secret-name": "serving-cert",
				}}},
			},
		),
		configMap:      is(live(t, &corev1.ConfigMap{Data: map[string]string{"config.yaml": goodConfig}})),
		operator:       is(&unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"uid": "uid-2"}, "spec": map[string]any{}}}),
		policy:         is(&unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"failurePolicy": "Fail"}}}),
		infrastructure: is(&unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"controlPlaneTopology": "HighlyAvailable"}}}),
		pkiDefinition:  {Known: true},
		pkiCluster:     {Known: true, NoAPI: true},
		servingSpace:   is(&unstructured.Unstructured{Object: map[string]any{}}),
		clientSpace:    is(&unstructured.Unstructured{Object: map[string]any{}}),
	}
}

// set changes a field of a stored object.
func set(t *testing.T, s follow.State, value any, path ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(s.Live.Object, value, path...); err != nil {
		t.Fatal(err)
	}
}

// configuresKeys adds the PKI object, which configures the key for all certificates, and its definition, with the
// versions that the API server serves.
func configuresKeys(states map[follow.Object]follow.State, key map[string]any, served ...string) {
	versions := []any{map[string]any{"name": "v1alpha0", "served": false}}
	for _, version := range served {
		versions = append(versions, map[string]any{"name": version, "served": true})
	}
	states[pkiDefinition] = follow.State{Known: true, Live: &unstructured.Unstructured{
		Object: map[string]any{"spec": map[string]any{"versions": versions}},
	}}
	states[pkiCluster] = follow.State{Known: true, Live: &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{"certificateManagement": map[string]any{
			"mode": "Custom", "custom": map[string]any{"defaults": map[string]any{"key": key}},
		}},
	}}}
}

// effective returns the effect of an API server on which both the policy and the webhook refuse.
func effective() []check.Effect {
	refused := check.Attempt{Refused: true}
	return []check.Effect{
		{Server: finding.Subject{Kind: finding.KindAPIServer, Name: "192.0.2.1:6443"}, Policy: refused, Webhook: refused},
	}
}

// found lists the findings of an observation: the source, the reason, the subject, and what more adds.
func found(seen observation, more func(finding.Result) string) []string {
	var all []string
	for i, source := range seen.Sources {
		for _, f := range finding.Findings(source.Results) {
			all = append(all, fmt.Sprintf("%d %s %s%s", i, f.Reason, f.Subject, more(f)))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestObserve: the findings, their objects and the verdicts for each state of the
// cluster.
func TestObserve(t *testing.T) {
	page := messages.Record(t, "findings of the audit")
	gone, unavailable := follow.State{Known: true}, errors.New("connection refused")
	p256 := map[string]any{"algorithm": "ECDSA", "ecdsa": map[string]any{"curve": "P256"}}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "serving-cert", errors.New("no"))
	cases := map[string]struct {
		change func(t *testing.T, states map[follow.Object]follow.State)
		want   []string // source, reason, subject, object
		// control and guard are the verdicts on the control and on the guard; empty: compliant.
		control, guard string
	}{
		"nothing is wrong": {change: func(*testing.T, map[follow.Object]follow.State) {}},
		"nothing has been read yet": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) { clear(states) },
			want: []string{
				"3 NotObserved Infrastructure cluster of no object",
				"3 NotObserved KubeAPIServer cluster of no object",
				"3 NotObserved Secret openshift-apiserver/serving-cert of no object",
				"3 NotObserved Secret openshift-kube-apiserver/kubelet-client of no object",
				"3 NotObserved Service openshift-apiserver/api of no object",
				"3 NotObserved ValidatingAdmissionPolicy guard of no object",
			},
			control: "could not verify", guard: "could not verify",
		},
		"no operator API on OpenShift": {change: func(_ *testing.T, states map[follow.Object]follow.State) {
			states[operator], states[configMap] = follow.State{Known: true, NoAPI: true}, gone
		}, want: []string{"3 Unreadable KubeAPIServer cluster of KubeAPIServer cluster"}, control: "could not verify",
			guard: "could not verify"},
		"no operator API, perhaps not OpenShift": {change: func(_ *testing.T, states map[follow.Object]follow.State) {
			states[operator], states[infrastructure] = follow.State{Known: true, NoAPI: true}, follow.State{Err: forbidden}
		}, want: []string{"3 Unreadable Infrastructure cluster of Infrastructure cluster"}, control: "could not verify",
			guard: "could not verify"},
		"a hosted control plane without the operator's API": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[infrastructure], "External", "status", "controlPlaneTopology")
				states[operator] = follow.State{Known: true, NoAPI: true}
				states[servingCert], states[kubeletClient], states[configMap], states[service] = gone, gone, gone, gone
			},
			control: "not applicable",
		},
		"a hosted control plane": {change: func(t *testing.T, states map[follow.Object]follow.State) {
			set(t, states[infrastructure], "External", "status", "controlPlaneTopology")
			states[servingCert], states[kubeletClient], states[configMap], states[service] = gone, gone, gone, gone
		}, control: "not applicable"},
		"not OpenShift": {change: func(_ *testing.T, states map[follow.Object]follow.State) {
			noAPI := follow.State{Known: true, NoAPI: true}
			states[infrastructure], states[operator], states[servingSpace], states[clientSpace] = noAPI, noAPI, gone, gone
			states[servingCert], states[kubeletClient], states[configMap], states[service] = gone, gone, gone, gone
		}, control: "not applicable"},
		"not OpenShift, but with the namespaces": {change: func(_ *testing.T, states map[follow.Object]follow.State) {
			noAPI := follow.State{Known: true, NoAPI: true}
			states[infrastructure], states[operator] = noAPI, noAPI
			states[servingCert] = gone
		}, want: []string{"0 SecretMissing Secret openshift-apiserver/serving-cert of Secret serving-cert"},
			control: "not compliant"},
		"a Secret is missing, unknown platform": {change: func(_ *testing.T, states map[follow.Object]follow.State) {
			states[infrastructure], states[servingCert] = follow.State{Err: forbidden}, gone
		}, want: []string{"3 Unreadable Infrastructure cluster of Infrastructure cluster"}, control: "could not verify"},
		"a Secret is missing": {
			change:  func(_ *testing.T, states map[follow.Object]follow.State) { states[servingCert] = gone },
			want:    []string{"0 SecretMissing Secret openshift-apiserver/serving-cert of Secret serving-cert"},
			control: "not compliant",
		},
		"a Secret with an unparsable key": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[kubeletClient], "eA==", "data", "tls.key")
			},
			want:    []string{"0 KeyUnparsable Secret openshift-kube-apiserver/kubelet-client tls.key of Secret kubelet-client"},
			control: "not compliant",
		},
		"a Secret of a Service that was recreated": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[service], "uid-9", "metadata", "uid")
			},
			want: []string{
				"1 RotationDetached Secret openshift-apiserver/serving-cert metadata of Secret serving-cert",
				`1 RotationDetached Secret openshift-apiserver/serving-cert metadata.ownerReferences Service "api" "uid-1" of Secret serving-cert`,
			},
			control: "not compliant",
		},
		"service-ca stopped retrying": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[service],
					"10", "metadata", "annotations", "service.beta.openshift.io/serving-cert-generation-error-num")
			},
			want: []string{"0 RotationStuck Service openshift-apiserver/api of Service api"},
		},
		"the Service is missing, so nothing renews": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) { states[service] = gone },
			want:   []string{"0 RotationDetached Service openshift-apiserver/api of Service api"}, control: "not compliant",
		},
		"a Service without the annotation for the Secret": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[service], map[string]any{}, "metadata", "annotations")
			},
			want:    []string{"0 RotationDetached Service openshift-apiserver/api service.beta.openshift.io/serving-cert-secret-name of Service api"},
			control: "not compliant",
		},
		"an override of kubelet-https": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[operator], []any{"false"},
					"spec", "unsupportedConfigOverrides", "apiServerArguments", "kubelet-https")
			},
			want:    []string{"0 OverrideWeakensKubeletTLS KubeAPIServer cluster spec.unsupportedConfigOverrides.apiServerArguments kubelet-https of KubeAPIServer cluster"},
			control: "not compliant",
		},
		"the configuration is missing": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) { states[configMap] = gone },
			want:   []string{"0 ConfigMissing ConfigMap openshift-kube-apiserver/config config.yaml of ConfigMap config"},
			guard:  "could not verify", control: "not compliant",
		},
		"a configuration without a key": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[configMap], strings.Replace(goodConfig, "kubelet-client-key", "x", 1), "data", "config.yaml")
			},
			want:    []string{"0 ClientKeyNotConfigured ConfigMap openshift-kube-apiserver/config config.yaml kubelet-client-key of ConfigMap config"},
			control: "not compliant",
		},
		"an object of the guard is missing": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) { states[policy] = gone },
			want:   []string{"2 GuardMissing ValidatingAdmissionPolicy guard of ValidatingAdmissionPolicy guard"},
			guard:  "not compliant",
		},
		"the guard fails open": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[policy], "Ignore", "spec", "failurePolicy")
			},
			want:  []string{"2 GuardIneffective ValidatingAdmissionPolicy guard of ValidatingAdmissionPolicy guard"},
			guard: "not compliant",
		},
		"no permission to read": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				states[servingCert] = follow.State{Err: forbidden}
			},
			want:    []string{"3 Unreadable Secret openshift-apiserver/serving-cert of Secret serving-cert"},
			control: "could not verify",
		},
		"permission to read is lost, and the fault was not corrected": {
			change: func(t *testing.T, states map[follow.Object]follow.State) {
				set(t, states[servingCert], "eA==", "data", "tls.key")
				s := states[servingCert]
				s.Err = forbidden
				states[servingCert] = s
			},
			want: []string{
				"0 KeyUnparsable Secret openshift-apiserver/serving-cert tls.key of Secret serving-cert",
				"3 Unreadable Secret openshift-apiserver/serving-cert of Secret serving-cert",
			},
			control: "not compliant",
		},
		"the keys are as the PKI object configures": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, p256, "v1alpha1")
			},
		},
		"the PKI object configures another key": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				rsa := map[string]any{"algorithm": "RSA", "rsa": map[string]any{"keySize": int64(4096)}}
				configuresKeys(states, rsa, "v1alpha1")
			},
			want: []string{
				"1 KeyNotAsConfigured Secret openshift-apiserver/serving-cert tls.crt of Secret serving-cert",
				"1 KeyNotAsConfigured Secret openshift-kube-apiserver/kubelet-client tls.crt of Secret kubelet-client",
			},
		},
		"the PKI object is not there": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, nil, "v1alpha1")
				states[pkiCluster] = gone
			},
		},
		"the PKI object has a later version, too": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, p256, "v1alpha1", "v1")
			},
			want: []string{"3 PKIConfigUnknown PKI cluster of PKI cluster"},
		},
		"the PKI object has only a later version": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, nil, "v1beta1", "v1")
				states[pkiCluster] = follow.State{Known: true, NoAPI: true}
			},
			want: []string{"3 PKIConfigUnknown PKI cluster of PKI cluster"},
		},
		"no version of the PKI object is served": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, nil)
				states[pkiCluster] = follow.State{Known: true, NoAPI: true}
			},
			want: []string{"3 PKIConfigUnknown PKI cluster of PKI cluster"},
		},
		"the PKI object configures what is not known": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, map[string]any{"algorithm": "ML-DSA"}, "v1alpha1")
			},
			want: []string{"3 PKIConfigUnknown PKI cluster of PKI cluster"},
		},
		"the PKI object must not be read": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, nil, "v1alpha1")
				states[pkiCluster] = follow.State{Err: forbidden}
			},
			want: []string{"3 Unreadable PKI cluster of PKI cluster"},
		},
		"the PKI object can no longer be read": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				configuresKeys(states, p256, "v1alpha1")
				s := states[pkiCluster]
				s.Err = forbidden
				states[pkiCluster] = s
			},
			want: []string{"3 Unreadable PKI cluster of PKI cluster"},
		},
		"the definition of PKI objects must not be read": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				states[pkiDefinition] = follow.State{Err: forbidden}
			},
			want: []string{
				"3 Unreadable CustomResourceDefinition pkis.config.openshift.io of CustomResourceDefinition pkis.config.openshift.io",
			},
		},
		"the API server is unavailable": {
			change: func(_ *testing.T, states map[follow.Object]follow.State) {
				for o, s := range states {
					s.Err = unavailable
					states[o] = s
				}
			},
			want: []string{
				"3 Unreadable ConfigMap openshift-kube-apiserver/config of ConfigMap config",
				"3 Unreadable Infrastructure cluster of Infrastructure cluster",
				"3 Unreadable KubeAPIServer cluster of KubeAPIServer cluster",
				"3 Unreadable Secret openshift-apiserver/serving-cert of Secret serving-cert",
				"3 Unreadable Secret openshift-kube-apiserver/kubelet-client of Secret kubelet-client",
				"3 Unreadable Service openshift-apiserver/api of Service api",
				"3 Unreadable ValidatingAdmissionPolicy guard of ValidatingAdmissionPolicy guard",
			},
			control: "could not verify", guard: "could not verify",
		},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			states := healthy(t)
			c.change(t, states)
			seen := observe(subject(), states, effective(), nil, nil, pkitest.Now())
			page.Unobserved(seen.results())
			for _, r := range finding.WithOutcome(seen.results(), finding.NotApplicable) {
				page.Finding(r)
			}
			got := found(seen, func(f finding.Result) string {
				o, ok := seen.objectOf(f.Subject)
				if !ok {
					return " of no object"
				}
				return " of " + o.Kind + " " + o.Name
			})
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			want := map[string]string{
				control.UseHTTPS:     gocmp.Or(c.control, "compliant"),
				control.GuardInForce: gocmp.Or(c.guard, "compliant"),
			}
			verdicts := map[string]string{}
			for _, judged := range seen.Controls {
				if !judged.Neighbour {
					verdicts[judged.ID] = judged.Judge(control.Cluster, seen.results()).Status.String()
				}
			}
			if d := cmp.Diff(want, verdicts); d != "" {
				t.Errorf("verdicts (-want +got):\n%s", d)
			}
		})
	}
}

// TestBundle: a certificate is verified against its CA bundle, and a bundle that cannot
// be used is reported.
func TestBundle(t *testing.T) {
	bundle := follow.Named(corev1.SchemeGroupVersion, "ConfigMap", "openshift-kube-apiserver-operator", "signers")
	of := func(ca *pkitest.CA) follow.State {
		return follow.State{
			Known: true,
			Live:  live(t, &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(ca.PEM())}}),
		}
	}
	withUnusable := func(ca *pkitest.CA) follow.State {
		bundle := string(pkitest.Algorithms()["Ed448"].Certificate("1.3.101.113")) + string(ca.PEM())
		return follow.State{Known: true, Live: live(t, &corev1.ConfigMap{Data: map[string]string{"ca.crt": bundle}})}
	}
	own, foreign := pkitest.NewCA("signer"), pkitest.NewCA("foreign")
	client := own.Issue(pkitest.KubeletClient())
	const (
		untrusted  = "1 UntrustedIssuer Secret openshift-kube-apiserver/kubelet-client tls.crt"
		unusable   = "0 CAUnusable Secret openshift-kube-apiserver/kubelet-client tls.crt"
		unreadable = "3 Unreadable ConfigMap openshift-kube-apiserver-operator/signers"
		noBundle   = "0 ClientCAUnavailable ConfigMap openshift-kube-apiserver-operator/signers ca.crt"
	)
	cases := map[string]struct {
		state follow.State
		want  []string // source, reason, subject
		// verified: it was checked that the bundle's CA signed the certificate.
		verified bool
	}{
		"of the issuer": {state: of(own), verified: true},
		"of another CA": {state: of(foreign), want: []string{untrusted}},
		"of the issuer, with a CA that cannot be used": {state: withUnusable(own), verified: true},
		"of another CA, with one that cannot be used":  {state: withUnusable(foreign), want: []string{unusable}},
		"not read yet": {want: []string{"3 NotObserved ConfigMap openshift-kube-apiserver-operator/signers"}},
		"missing":      {state: follow.State{Known: true}, want: []string{noBundle}},
		"without a certificate": {state: follow.State{Known: true, Live: live(t, &corev1.ConfigMap{})},
			want: []string{noBundle}},
		"no permission to read": {state: follow.State{Err: errors.New("no")}, want: []string{unreadable}},
		"cannot be read any longer": {state: follow.State{Known: true, Live: of(own).Live,
			Err: errors.New("no")}, want: []string{unreadable}},
		"of another CA, cannot be read any longer": {state: follow.State{Known: true, Live: of(foreign).Live,
			Err: errors.New("no")}, want: []string{unreadable}},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			states, subject := healthy(t), subject()
			states[kubeletClient] = follow.State{
				Known: true,
				Live:  live(t, openshift.KubeletClient(client.Certificate, client.Key)),
			}
			subject.Secrets = subject.Secrets[1:]
			subject.Secrets[0].Bundle = &admit.CABundle{Namespace: bundle.Namespace, Name: bundle.Name, Key: "ca.crt"}
			states[bundle] = c.state
			seen := observe(subject, states, effective(), nil, nil, pkitest.Now())
			got := found(seen, func(finding.Result) string { return "" })
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			verified := slices.Contains(check.CheckedReasons(seen.results()), finding.UntrustedIssuer)
			if verified != c.verified {
				t.Errorf("issuer verified: %t, want %t", verified, c.verified)
			}
		})
	}
}

// TestChangingObjects: the finding of an untrusted certificate stays active until the
// certificate was verified against its own bundle again, whatever happens to other
// bundles. A finding about an object that is no longer configured is resolved. An object
// that was not read yet cannot be verified.
func TestChangingObjects(t *testing.T) {
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
	gone, unreadable := follow.State{Known: true}, follow.State{Err: errors.New("no")}
	other := follow.Named(corev1.SchemeGroupVersion, "Secret", kubeletClient.Namespace, "other")
	states, subject := healthy(t), subject()
	states[kubeletClient] = follow.State{
		Known: true,
		Live:  live(t, openshift.KubeletClient(client.Certificate, client.Key)),
	}
	states[servingCert] = follow.State{
		Known: true,
		Live:  live(t, openshift.ServingCert("uid-1", server.Certificate, server.Key)),
	}
	bundles := func(ofServer, ofClient string) {
		subject.Secrets[0].Bundle = &admit.CABundle{Namespace: "signers", Name: ofServer, Key: "ca.crt"}
		subject.Secrets[1].Bundle = &admit.CABundle{Namespace: "signers", Name: ofClient, Key: "ca.crt"}
	}
	bundles("server", "client")
	tracker, at := tracker.New(storedPatience), pkitest.Now()
	for _, step := range []struct {
		what   string
		change func()
		want   string // the notices of the next two minutes
	}{
		{"the client's bundle is of another CA",
			func() { states[named("client")], states[named("server")] = of(foreign), of(own) },
			"Finding active UntrustedIssuer, Not compliant use-https"},
		{"the client's bundle is deleted", func() { states[named("client")] = gone }, "Finding active ClientCAUnavailable"},
		{"the server's bundle is deleted", func() { states[named("server")] = gone }, "Finding active ClientCAUnavailable"},
		{"the client's bundle is written again", func() { states[named("client")] = of(own) },
			"Finding resolved UntrustedIssuer, Finding resolved ClientCAUnavailable, Could not verify use-https"},
		{"the client's bundle is of another CA again", func() { states[named("client")] = of(foreign) },
			"Finding active UntrustedIssuer, Not compliant use-https"},
		{"the configuration names a third bundle", func() { bundles("server", "third") }, "Finding active NotObserved"},
		{"the third bundle cannot be read", func() { states[named("third")] = unreadable },
			"Finding active Unreadable, Finding resolved NotObserved"},
		{"the third bundle can be read and is of the issuer", func() { states[named("third")] = of(own) },
			"Finding resolved UntrustedIssuer, Finding resolved Unreadable, Could not verify use-https"},
		{"the server's bundle is of the issuer", func() { states[named("server")] = of(own) },
			"Finding resolved ClientCAUnavailable, Compliant use-https"},
		{"a key becomes unparsable", func() {
			stored := live(t, openshift.KubeletClient(client.Certificate, []byte("garbage")))
			stored.SetResourceVersion("unparsable")
			states[kubeletClient] = follow.State{Known: true, Live: stored}
		}, "Finding active KeyUnparsable, Not compliant use-https"},
		{"the configuration names another Secret instead", func() { subject.Secrets[1].Name = "other" },
			"Finding resolved KeyUnparsable, Could not verify use-https, Finding active NotObserved, " +
				"Could not verify protected-secrets"},
		{"the other Secret cannot be read", func() { states[other] = unreadable },
			"Finding active Unreadable, Finding resolved NotObserved"},
	} {
		step.change()
		var notices []string
		for range 120 {
			at = at.Add(time.Second)
			for _, n := range tracker.Observe(observe(subject, states, effective(), nil, nil, at).Observation).Notices {
				if n.Control.ID != control.GuardInForce { // not tested here
					notices = append(notices, strings.TrimSpace(string(n.Type)+" "+string(n.Finding.Reason)+n.Control.ID))
				}
			}
		}
		if d := cmp.Diff(step.want, strings.Join(notices, ", ")); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, d)
		}
	}
}

// TestContents: the digest changes if and only if an object or the configuration changes.
func TestContents(t *testing.T) {
	states := healthy(t)
	digest := func() [32]byte {
		seen := observe(subject(), states, effective(), nil, nil, pkitest.Now())
		return seen.Contents
	}
	first := digest()
	if digest() != first {
		t.Error("the digest changed without a change")
	}
	set(t, states[servingCert], "2", "metadata", "resourceVersion")
	second := digest()
	if second == first {
		t.Error("the digest does not change after a write")
	}
	states[policy] = follow.State{Known: true}
	third := digest()
	if third == second {
		t.Error("the digest does not change after a deletion")
	}
	for what, change := range map[string]func(s *Subject){
		"a Secret's names":                      func(s *Subject) { s.Secrets[0].DNSNames = nil },
		"a Secret that is no longer configured": func(s *Subject) { s.Secrets = s.Secrets[:1] },
		"a bundle":                              func(s *Subject) { s.Secrets[0].Bundle = &admit.CABundle{Namespace: "n", Name: "b", Key: "k"} },
		"an object of the guard": func(s *Subject) {
			set(t, follow.State{Live: s.Guard[0]}, "Ignore", "spec", "failurePolicy")
		},
	} {
		other := subject()
		change(&other)
		if observe(other, states, effective(), nil, nil, pkitest.Now()).Contents == third {
			t.Errorf("the digest does not change with the configuration: %s", what)
		}
	}
}

// TestNextChange: the next check is due when a certificate begins to expire soon.
func TestNextChange(t *testing.T) {
	seen := observe(subject(), healthy(t), effective(), nil, nil, pkitest.Now())
	if seen.NextChange.IsZero() || !seen.NextChange.After(pkitest.Now()) {
		t.Errorf("the next check is at %s", seen.NextChange)
	}
	if len(seen.Certificates) != 2 || !seen.Certificates[0].Valid ||
		seen.Certificates[0].Role != "openshift-apiserver/serving-cert" {
		t.Errorf("certificates: %+v", seen.Certificates)
	}
}

// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// hosted is the entry for the Secrets of hosted control planes, as in docs/hosted-control-planes.md.
func hosted() admit.ProtectedSecret {
	return admit.ProtectedSecret{
		SecretExpectation: check.SecretExpectation{
			Name: "kas-kubelet-client-crt", Type: "Opaque", Usage: x509.ExtKeyUsageClientAuth, ExpiringFraction: 0.08,
			Identity: layout.Identity{CommonName: "system:kube-apiserver", Organization: "kubernetes"},
			Owners:   []check.AllowedOwner{{APIVersion: "hypershift.openshift.io", Kind: "HostedControlPlane"}},
		},
		Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "hypershift.openshift.io/hosted-control-plane", Operator: metav1.LabelSelectorOpExists},
		}},
		Bundle: &admit.CABundle{Name: "kubelet-client-ca", Key: "ca.crt"},
	}
}

// The objects of this entry.
var (
	hostedSpaces  = selectedNamespaces(hosted())
	hostedSecrets = secretsObject(hosted())
	hostedCAs     = bundlesObject(hosted())
)

// host adds the entry to a subject, and healthy hosted control planes to the states.
func host(t testing.TB, subject *Subject, states map[follow.Object]follow.State, namespaces ...string) {
	t.Helper()
	subject.Secrets = append(subject.Secrets, hosted())
	all := map[follow.Object]map[string]*unstructured.Unstructured{hostedSpaces: {}, hostedSecrets: {}, hostedCAs: {}}
	for _, namespace := range namespaces {
		ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
		all[hostedSpaces][namespace] = live(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: namespace, CreationTimestamp: metav1.NewTime(pkitest.Now().Add(-time.Hour)),
		}})
		all[hostedSecrets][namespace] = live(t, hostedSecret(ca.Issue(hostedClient()), namespace))
		all[hostedCAs][namespace] = live(t, &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(ca.PEM())}})
	}
	for o, items := range all {
		states[o] = follow.State{Known: true, All: items}
	}
}

// hostedClient is the certificate that HyperShift issues.
func hostedClient() pkitest.Request {
	request := pkitest.KubeletClient()
	request.Organization = "kubernetes"
	return request
}

// hostedSecret is the Secret that HyperShift writes.
func hostedSecret(pair pkitest.Pair, namespace string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "kas-kubelet-client-crt", UID: "uid-of-secret",
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "hypershift.openshift.io/v1beta1", Kind: "HostedControlPlane", Name: "a", UID: "uid-hcp",
			}},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": []byte("x")},
	}
}

// TestSelected: the findings and the verdict about hosted control planes, for each state of the cluster.
func TestSelected(t *testing.T) {
	page := messages.Record(t, "findings of the audit in selected namespaces")
	type states = map[follow.Object]follow.State
	put := func(o follow.Object, key string, object *unstructured.Unstructured) func(states) {
		return func(s states) {
			if object != nil {
				object.SetResourceVersion("2")
			}
			items := maps.Clone(s[o].All)
			if items[key] = object; object == nil {
				delete(items, key)
			}
			s[o] = follow.State{Known: true, All: items}
		}
	}
	space := func(change func(*corev1.Namespace)) *unstructured.Unstructured {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "hcp-1", CreationTimestamp: metav1.NewTime(pkitest.Now().Add(-time.Hour)),
		}}
		change(namespace)
		return live(t, namespace)
	}
	deleted := space(func(n *corev1.Namespace) { n.DeletionTimestamp = new(metav1.NewTime(pkitest.Now())) })
	aged := func(age time.Duration) *unstructured.Unstructured {
		return space(func(n *corev1.Namespace) { n.CreationTimestamp = metav1.NewTime(pkitest.Now().Add(-age)) })
	}
	garbage := hostedSecret(pkitest.NewCA("x").Issue(hostedClient()), "hcp-1")
	garbage.Data["tls.key"] = []byte("garbage")
	foreign := hostedSecret(pkitest.NewCA("x").Issue(hostedClient()), "hcp-1")
	mastersRequest := pkitest.KubeletClient()
	mastersRequest.Organization = "system:masters"
	masters := hostedSecret(pkitest.NewCA("x").Issue(mastersRequest), "hcp-1")
	masters.Type = corev1.SecretTypeTLS
	unreadable := follow.State{Err: errors.New("connection refused")}
	const secret = "Secret hcp-1/kas-kubelet-client-crt"
	const compared = "1 " // the source, see found
	cases := map[string]struct {
		change func(states)
		want   []string
		status control.Status
		// next is when the results change by time alone, after now.
		next time.Duration
	}{
		"healthy":      {func(states) {}, nil, control.Compliant, 0},
		"no namespace": {func(s states) { host(t, &Subject{}, s) }, nil, control.Compliant, 0},
		"an invalid key": {
			put(hostedSecrets, "hcp-1", live(t, garbage)),
			[]string{"0 KeyUnparsable " + secret + " tls.key", compared + "UntrustedIssuer " + secret + " tls.crt"},
			control.NotCompliant, 0,
		},
		"of another CA": {
			put(hostedSecrets, "hcp-1", live(t, foreign)), []string{compared + "UntrustedIssuer " + secret + " tls.crt"},
			control.NotCompliant, 0,
		},
		"another type and identity": {
			func(s states) {
				put(hostedSecrets, "hcp-1", live(t, masters))(s)
				put(hostedCAs, "hcp-1", nil)(s)
			}, []string{
				"0 ClientCAUnavailable ConfigMap hcp-1/kubelet-client-ca ca.crt", "0 UnexpectedIdentity " + secret + " tls.crt",
				"0 WrongSecretType " + secret + " type",
			}, control.NotCompliant, 0,
		},
		"the Secret is missing": {
			put(hostedSecrets, "hcp-1", nil), []string{compared + "SecretMissing " + secret}, control.NotCompliant, 0,
		},
		"missing in a new namespace": {
			func(s states) {
				put(hostedSecrets, "hcp-1", nil)(s)
				put(hostedSpaces, "hcp-1", aged(10*time.Minute))(s)
			}, nil, control.Compliant, 5 * time.Minute,
		},
		"missing in a new namespace, and the clock of the API server is ahead": {
			func(s states) {
				put(hostedSecrets, "hcp-1", nil)(s)
				put(hostedSpaces, "hcp-1", aged(-clockSkew))(s)
			}, nil, control.Compliant, 16 * time.Minute,
		},
		"missing in a namespace with a creation time in the future": {
			func(s states) {
				put(hostedSecrets, "hcp-1", nil)(s)
				put(hostedSpaces, "hcp-1", aged(-clockSkew-time.Second))(s)
			}, []string{compared + "SecretMissing " + secret}, control.NotCompliant, 0,
		},
		"missing, when the time of a new namespace is over": {
			func(s states) {
				put(hostedSecrets, "hcp-1", nil)(s)
				put(hostedSpaces, "hcp-1", aged(newNamespaceGrace))(s)
			}, []string{compared + "SecretMissing " + secret}, control.NotCompliant, 0,
		},
		"invalid in a new namespace": {
			func(s states) {
				put(hostedSecrets, "hcp-1", live(t, foreign))(s)
				put(hostedSpaces, "hcp-1", aged(time.Minute))(s)
			}, []string{compared + "UntrustedIssuer " + secret + " tls.crt"}, control.NotCompliant, 0,
		},
		"missing in a namespace that is being deleted": {
			func(s states) {
				put(hostedSecrets, "hcp-1", nil)(s)
				put(hostedSpaces, "hcp-1", deleted)(s)
			}, nil, control.Compliant, 0,
		},
		"invalid in a namespace that is being deleted": {
			func(s states) {
				put(hostedSecrets, "hcp-1", live(t, garbage))(s)
				put(hostedSpaces, "hcp-1", deleted)(s)
			}, []string{"0 KeyUnparsable " + secret + " tls.key", compared + "UntrustedIssuer " + secret + " tls.crt"},
			control.NotCompliant, 0,
		},
		"the CA bundle of a namespace that is being deleted is missing": {
			func(s states) {
				put(hostedCAs, "hcp-1", nil)(s)
				put(hostedSpaces, "hcp-1", deleted)(s)
			}, nil, control.Compliant, 0,
		},
		"a namespace and its objects were deleted": {
			func(s states) {
				put(hostedSecrets, "hcp-1", nil)(s)
				put(hostedCAs, "hcp-1", nil)(s)
				put(hostedSpaces, "hcp-1", nil)(s)
			}, nil, control.Compliant, 0,
		},
		"a namespace lost its label": {
			put(hostedSpaces, "hcp-1", nil), []string{compared + "NamespaceNotSelected " + secret}, control.NotCompliant, 0,
		},
		"the only namespace lost its label": {
			func(s states) {
				host(t, &Subject{}, s, "hcp-1")
				put(hostedSpaces, "hcp-1", nil)(s)
			}, []string{compared + "NamespaceNotSelected " + secret}, control.NotCompliant, 0,
		},
		"a namespace of another entry is not selected": {
			func(s states) {
				put(hostedSecrets, "named", live(t, foreign))(s)
				put(hostedSpaces, "named", aged(time.Hour))(s)
			}, nil, control.Compliant, 0,
		},
		"namespaces cannot be read": {
			func(s states) { s[hostedSpaces] = unreadable },
			[]string{"3 Unreadable Namespace hypershift.openshift.io/hosted-control-plane"}, control.CouldNotVerify, 0,
		},
		"Secrets cannot be read": {
			func(s states) { s[hostedSecrets] = unreadable }, []string{"3 Unreadable Secret kas-kubelet-client-crt"},
			control.CouldNotVerify, 0,
		},
		"nothing was read yet": {
			func(s states) { s[hostedSpaces], s[hostedSecrets] = follow.State{}, follow.State{} },
			[]string{"3 NotObserved Namespace hypershift.openshift.io/hosted-control-plane"}, control.CouldNotVerify, 0,
		},
		"too many": {
			func(s states) {
				s[hostedSecrets] = follow.State{Known: true, All: s[hostedSecrets].All, Err: follow.ErrTooMany}
			}, []string{"3 Unreadable Secret kas-kubelet-client-crt"}, control.CouldNotVerify, 0,
		},
		"a Secret is too large": {
			func(s states) {
				put(hostedSecrets, "hcp-1", live(t, garbage))(s)
				s[hostedSecrets] = follow.State{
					Known: true, All: s[hostedSecrets].All, TooLarge: map[string]bool{"hcp-1": true},
				}
			}, []string{"3 Unreadable " + secret}, control.CouldNotVerify, 0,
		},
		"a CA bundle is too large": {
			func(s states) {
				put(hostedCAs, "hcp-1", live(t, &corev1.ConfigMap{}))(s)
				s[hostedCAs] = follow.State{Known: true, All: s[hostedCAs].All, TooLarge: map[string]bool{"hcp-1": true}}
			}, []string{"3 Unreadable ConfigMap hcp-1/kubelet-client-ca"}, control.CouldNotVerify, 0,
		},
		"too many in other namespaces": {
			func(s states) {
				s[hostedSecrets] = follow.State{Known: true, All: s[hostedSecrets].All, Err: follow.ErrTooManyOthers}
			}, []string{"3 Unreadable Secret kas-kubelet-client-crt"}, control.CouldNotVerify, 0,
		},
		"a Secret in a namespace that was not selected": {
			func(s states) {
				s[hostedSecrets] = follow.State{
					Known: true, All: s[hostedSecrets].All,
					Others: map[string]*unstructured.Unstructured{"other": live(t, garbage), "named": live(t, garbage)},
				}
			}, []string{compared + "NamespaceNotSelected Secret other/kas-kubelet-client-crt"}, control.NotCompliant, 0,
		},
		"the content of a Secret in a namespace that was selected just now is not known yet": {
			func(s states) {
				put(hostedSecrets, "hcp-1", nil)(s)
				s[hostedSecrets] = follow.State{
					Known: true, All: s[hostedSecrets].All,
					Others: map[string]*unstructured.Unstructured{"hcp-1": live(t, garbage)},
				}
			}, []string{"3 NotObserved " + secret}, control.CouldNotVerify, 0,
		},
		"a namespace lost its label, then Secrets cannot be read": {
			func(s states) {
				put(hostedSpaces, "hcp-1", nil)(s)
				s[hostedSecrets] = follow.State{Known: true, All: s[hostedSecrets].All, Err: unreadable.Err}
			}, []string{compared + "NamespaceNotSelected " + secret, "3 Unreadable Secret kas-kubelet-client-crt"},
			control.NotCompliant, 0,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, all := subject(), healthy(t)
			host(t, &s, all, "hcp-1", "hcp-2")
			s.Secrets[len(s.Secrets)-1].Except = []string{"named"}
			before := observe(s, all, effective(), nil, nil, pkitest.Now())
			c.change(all)
			seen := observe(s, all, effective(), nil, nil, pkitest.Now())
			got := found(seen, func(f finding.Result) string { page.Finding(f); return "" })
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			verdict := control.ByID(control.ProtectedSecrets).Judge(control.Cluster, seen.results())
			if verdict.Status != c.status {
				t.Errorf("the verdict is %s, want %s: %+v", verdict.Status, c.status, verdict.Unmet())
			}
			if c.next != 0 && seen.NextChange.Sub(seen.At) != c.next {
				t.Errorf("the next change is in %s, want %s", seen.NextChange.Sub(seen.At), c.next)
			}
			if before.Contents == seen.Contents && name != "healthy" {
				t.Error("the contents are the same as before")
			}
			for _, f := range finding.Findings(seen.results()) {
				// An Event about several objects would be about none.
				if _, ok := seen.objectOf(f.Subject); ok != (f.Subject.Namespace != "") {
					t.Errorf("an Event about %s has an object: %t", f.Subject, ok)
				}
			}
		})
	}
}

// TestSelectionAnswersEachRequirement: also where no namespace is selected, or it is not known which are.
func TestSelectionAnswersEachRequirement(t *testing.T) {
	for name, known := range map[string]bool{"no namespace is selected": true, "the namespaces are not known": false} {
		t.Run(name, func(t *testing.T) {
			s, states := Subject{}, map[follow.Object]follow.State{}
			host(t, &s, states)
			if !known {
				states[hostedSpaces] = follow.State{}
			}
			answered := map[finding.Requirement]bool{}
			seen := observe(s, states, nil, nil, nil, pkitest.Now())
			for _, r := range seen.results() {
				if r.Subject.Kind != "Cluster" { // that of a requirement that nothing checks
					answered[r.Requirement] = true
				}
			}
			for _, c := range control.Table() {
				if c.ID != control.ProtectedSecrets {
					continue
				}
				for _, required := range c.Requirements {
					if required.In(control.Cluster) && !answered[required.Requirement] {
						t.Errorf("no result of %s", required.Requirement)
					}
				}
			}
		})
	}
}

// TestSelectedObjects: three lists and watches read all hosted control planes, and an Event about one of them has its
// UID.
func TestSelectedObjects(t *testing.T) {
	s, states := Subject{}, map[follow.Object]follow.State{}
	host(t, &s, states, "hcp-1", "hcp-2")
	want := []follow.Object{
		infrastructure, operator, configMap, pkiDefinition, pkiCluster, hostedSecrets, hostedSpaces, hostedCAs,
	}
	if d := cmp.Diff(want, objectsOf(s)); d != "" {
		t.Errorf("objects (-want +got):\n%s", d)
	}
	seen := observe(s, states, nil, nil, nil, pkitest.Now())
	object, ok := seen.objectOf(finding.Subject{
		Kind: "Secret", Namespace: "hcp-2", Name: "kas-kubelet-client-crt", Key: "tls.crt",
	})
	if !ok || object.Namespace != "hcp-2" || object.UID != "uid-of-secret" {
		t.Errorf("the object of a result is %+v, %t", object, ok)
	}
	var roles []string
	for _, c := range seen.Certificates {
		if c.Valid {
			roles = append(roles, c.Role)
		}
	}
	if d := cmp.Diff([]string{"hcp-1/kas-kubelet-client-crt", "hcp-2/kas-kubelet-client-crt"}, roles); d != "" {
		t.Errorf("valid certificates (-want +got):\n%s", d)
	}
	if examined := objectsOf(seen.subject); slices.ContainsFunc(examined, follow.Object.Several) {
		t.Errorf("the report would list several objects as one: %v", examined)
	}
}

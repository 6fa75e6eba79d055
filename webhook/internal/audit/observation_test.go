// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// Objects that the other tests do not have: an added Secret, the Services of two Secrets,
// and one CA bundle for all three Secrets.
var (
	addedSecret   = follow.Named(corev1.SchemeGroupVersion, "Secret", "mine", "added")
	addedService  = follow.Named(corev1.SchemeGroupVersion, "Service", "mine", "api")
	clientService = follow.Named(corev1.SchemeGroupVersion, "Service", "openshift-kube-apiserver", "api")
	signers       = follow.Named(corev1.SchemeGroupVersion, "ConfigMap", "mine", "signers")
)

// observable returns a cluster in which each requirement of each control can be observed
// and passes.
func observable(t *testing.T) (Subject, map[follow.Object]follow.State) {
	t.Helper()
	subject, states := subject(), healthy(t)
	added := subject.Secrets[0]
	added.Namespace, added.Name = addedSecret.Namespace, addedSecret.Name
	subject.Secrets = append(subject.Secrets, added)
	subject.Secrets[1].ManagedBy, subject.Secrets[1].Service = check.ManagedByServiceCA, "api"
	ca := pkitest.NewCA("signer")
	for i, o := range []follow.Object{servingCert, kubeletClient, addedSecret} {
		subject.Secrets[i].Bundle = &admit.CABundle{Namespace: signers.Namespace, Name: signers.Name, Key: "ca.crt"}
		request := pkitest.ServingCert()
		if o == kubeletClient {
			request = pkitest.KubeletClient()
		}
		pair := ca.Issue(request)
		secret := openshift.ServingCert("uid-1", pair.Certificate, pair.Key)
		secret.Namespace, secret.Name = o.Namespace, o.Name
		states[o] = follow.State{Known: true, Live: live(t, secret)}
		states[follow.Named(corev1.SchemeGroupVersion, "Service", o.Namespace, "api")] = follow.State{
			Known: true,
			Live:  states[service].Live.DeepCopy(),
		}
		set(t, states[follow.Named(corev1.SchemeGroupVersion, "Service", o.Namespace, "api")],
			o.Name, "metadata", "annotations", "service.beta.openshift.io/serving-cert-secret-name")
	}
	states[signers] = follow.State{
		Known: true,
		Live:  live(t, &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(ca.PEM())}}),
	}
	host(t, &subject, states, "hcp-1", "hcp-2")
	return subject, states
}

// loss makes an observation impossible.
type loss func(states map[follow.Object]follow.State, effects []check.Effect) []check.Effect

// losses returns the ways in which the facts behind a requirement can be unobservable. It
// returns none for a requirement that it does not know, so that the test of a new one fails.
func losses(t *testing.T, r finding.Requirement) map[string]loss {
	t.Helper()
	secretOf := map[finding.Family]follow.Object{
		finding.ServingCert: servingCert, finding.KubeletClient: kubeletClient, finding.AddedSecret: addedSecret,
	}
	serviceOf := map[finding.Family]follow.Object{
		finding.ServingCert: service, finding.KubeletClient: clientService, finding.AddedSecret: addedService,
	}
	secret, isSecret := secretOf[r.Family()]
	switch {
	case r == finding.AddedSecret.Requires(finding.Selected):
		all := ofObject(hostedSpaces)
		for how, l := range ofObject(hostedSecrets) {
			all["the Secrets: "+how] = l
		}
		return all
	case isSecret && r.Aspect() == finding.Service:
		return ofObject(serviceOf[r.Family()])
	case isSecret && r.Aspect() == finding.Issuer:
		all := ofObject(secret)
		for how, l := range ofObject(signers) {
			all["the CA bundle: "+how] = l
		}
		if r.Family() == finding.AddedSecret {
			for how, l := range ofObject(hostedCAs) {
				all["the CA bundles of selected namespaces: "+how] = l
			}
		}
		all["no CA bundle"] = become(signers, follow.State{Known: true})
		all["a CA bundle without a certificate"] = become(signers,
			follow.State{Known: true, Live: live(t, &corev1.ConfigMap{Data: map[string]string{"ca.crt": "x"}})})
		return all
	case isSecret:
		all := ofObject(secret)
		if r.Family() == finding.AddedSecret {
			for how, l := range ofObject(hostedSecrets) {
				all["of selected namespaces: "+how] = l
			}
		}
		return all
	case r.Family() == finding.Platform:
		all := ofObject(infrastructure)
		// Without that API the namespaces decide, if they can be read.
		delete(all, apiGone)
		all["no such API, and the namespaces cannot be read"] = func(states map[follow.Object]follow.State,
			effects []check.Effect) []check.Effect {
			states[infrastructure] = follow.State{Known: true, NoAPI: true}
			states[servingSpace], states[clientSpace] = follow.State{Err: forbidden}, follow.State{Err: forbidden}
			return effects
		}
		return all
	case r.Family() == finding.Overrides:
		return ofObject(operator)
	case r.Family() == finding.Config:
		all := ofObject(configMap)
		// Once the operator's object was read, only the ConfigMap matters.
		for how, l := range ofObject(operator) {
			if how != laterForbidden {
				all["the operator: "+how] = l
			}
		}
		return all
	case r == finding.Guard.Requires(finding.Installed):
		return ofObject(policy)
	case r == finding.Guard.Requires(finding.PolicyRefuses):
		return ofEffect(func(e *check.Effect) *check.Attempt { return &e.Policy })
	case r == finding.Guard.Requires(finding.WebhookAsked):
		return ofEffect(func(e *check.Effect) *check.Attempt { return &e.Webhook })
	}
	return nil
}

var forbidden = apierrors.NewForbidden(schema.GroupResource{Resource: "anything"}, "any", errors.New("no"))

const apiGone, laterForbidden = "the kind is not served", "reading it is forbidden after it was read"

func become(o follow.Object, s follow.State) loss {
	return func(states map[follow.Object]follow.State, effects []check.Effect) []check.Effect {
		states[o] = s
		return effects
	}
}

// ofObject returns the ways in which an object cannot be read.
func ofObject(o follow.Object) map[string]loss {
	all := map[string]loss{
		"reading it is forbidden":        become(o, follow.State{Err: forbidden}),
		"the API server does not answer": become(o, follow.State{Err: errors.New("connection refused")}),
		"it has not been read yet":       become(o, follow.State{}),
		laterForbidden: func(states map[follow.Object]follow.State, effects []check.Effect) []check.Effect {
			s := states[o]
			s.Err = forbidden
			states[o] = s
			return effects
		},
	}
	if o == infrastructure || o == operator { // every API server serves the other kinds
		all[apiGone] = become(o, follow.State{Known: true, NoAPI: true})
	}
	return all
}

// ofEffect: one of several API servers was not observed to refuse.
func ofEffect(of func(*check.Effect) *check.Attempt) map[string]loss {
	with := func(because finding.Result) loss {
		return func(_ map[follow.Object]follow.State, effects []check.Effect) []check.Effect {
			another := effective()[0]
			another.Server.Name = "192.0.2.2:6443"
			*of(&another) = check.Attempt{WhyUnknown: &because}
			return append(effects, another)
		}
	}
	server := finding.Subject{Kind: finding.KindAPIServer, Name: "192.0.2.2:6443"}
	return map[string]loss{
		"one API server does not answer": with(finding.Result{Subject: server, Reason: finding.Unreadable}),
		"no dry run was made yet":        with(finding.Result{Subject: server, Reason: finding.NotObserved}),
		"there is no decoy":              with(finding.Result{Subject: finding.Subject{Kind: "Secret", Namespace: "guard", Name: "decoy"}, Reason: finding.Unreadable}),
	}
}

// TestMutationOfObservation: if any fact behind a requirement of a control cannot be
// observed, the control is never compliant. It iterates the table of controls.
func TestMutationOfObservation(t *testing.T) {
	judged := map[string]bool{}
	for _, c := range control.Table() {
		for _, required := range c.Requirements {
			if !required.In(control.Cluster) {
				continue
			}
			if required.Requirement == finding.Guard.Requires(finding.Action) {
				continue // the configuration of the audit answers it; nothing is observed
			}
			if required.Supplementary {
				continue // it may be unknown; see TestKubeletsUnknown and TestServed
			}
			ways := losses(t, required.Requirement)
			if len(ways) == 0 {
				t.Errorf("%s of %s: no test makes it unobservable: add it to losses", required.Requirement, c.ID)
			}
			for how, lose := range ways {
				t.Run(c.ID+"/"+string(required.Requirement)+"/"+how, func(t *testing.T) {
					subject, states := observable(t)
					before := observe(subject, states, effective(), nil, nil, pkitest.Now())
					if v := c.Judge(control.Cluster, before.results()); v.Status != control.Compliant {
						t.Fatalf("before the loss it is %s, because of %+v", v.Status, v.Unmet())
					}
					states = maps.Clone(states)
					effects := lose(states, effective())
					after := observe(subject, states, effects, nil, nil, pkitest.Now())
					v := c.Judge(control.Cluster, after.results())
					if v.Status == control.Compliant {
						t.Errorf("compliant after the loss")
					}
					for _, a := range v.Answers {
						if a.Requirement == required.Requirement && (a.Met || a.Outcome == finding.Pass) {
							t.Errorf("%s is %s, and met: %t", a.Requirement, a.Outcome, a.Met)
						}
					}
				})
			}
			judged[c.ID] = true
		}
	}
	// The audit judges each of these controls.
	subject, states := observable(t)
	for _, c := range observe(subject, states, effective(), nil, nil, pkitest.Now()).Controls {
		delete(judged, c.ID)
	}
	if len(judged) > 0 {
		t.Errorf("controls with requirements of the cluster that the audit does not judge: %v", judged)
	}
}

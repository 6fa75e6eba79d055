// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"pgregory.net/rapid"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/activation"
)

const guardName = "guard"

// gate is the world of the keeper that activates the webhook.
type gate struct {
	client *fake.Clientset
	// What the keeper needs, and whether the API answers.
	ready, available, trusted, granted, answers bool
	// fault is what the keeper did wrong, lastCheck what it reported last.
	fault     error
	lastCheck bool
	bundles   map[bool][]byte // that trusts the certificate, and that does not
}

func newGate() (*gate, tls.Certificate) {
	ca, other := pkitest.NewCAAround("ca", time.Now()), pkitest.NewCAAround("other", time.Now())
	pair := ca.Issue(pkitest.Request{DNSNames: []string{"guard.guard.svc"}}.
		Valid(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)))
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		panic(err) // a fault of the test
	}
	g := &gate{answers: true, bundles: map[bool][]byte{true: ca.PEM(), false: other.PEM()}}
	g.client = fake.NewClientset(
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: guardName}},
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: guardName, Name: guardName}},
		&registrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: guardName}},
	)
	g.client.PrependReactor("*", "*", g.react)
	return g, certificate
}

// react answers the keeper, and watches what it writes.
func (g *gate) react(action clienttesting.Action) (handled bool, answer runtime.Object, err error) {
	if !g.answers {
		return true, nil, errors.New("the API server does not answer")
	}
	switch a := action.(type) {
	case clienttesting.CreateActionImpl: // a SelfSubjectAccessReview
		review := &authorizationv1.SelfSubjectAccessReview{}
		review.Status.Allowed = g.granted
		return true, review, nil
	case clienttesting.UpdateActionImpl:
		binding, ok := a.GetObject().(*rbacv1.ClusterRoleBinding)
		switch {
		case !ok:
			g.fault = fmt.Errorf("the keeper writes a %T", a.GetObject())
		case len(binding.Subjects) != 1 ||
			binding.Subjects[0] != rbacv1.Subject{Kind: "ServiceAccount", Namespace: guardName, Name: guardName}:
			g.fault = fmt.Errorf("the keeper writes the subjects %v", binding.Subjects)
		case !g.ready || !g.available || !g.trusted:
			g.fault = fmt.Errorf("the keeper activates the webhook; ready: %t, available: %t, trusted: %t",
				g.ready, g.available, g.trusted)
		}
	case clienttesting.DeleteActionImpl, clienttesting.PatchActionImpl:
		g.fault = fmt.Errorf("the keeper sends %s %s", action.GetVerb(), action.GetResource().Resource)
	case clienttesting.GetActionImpl:
		switch a.GetResource().Resource {
		case "deployments":
			deployment := &appsv1.Deployment{}
			if g.available {
				deployment.Status.AvailableReplicas = 1
			}
			return true, deployment, nil
		case "validatingwebhookconfigurations":
			configuration := &registrationv1.ValidatingWebhookConfiguration{}
			configuration.Webhooks = []registrationv1.ValidatingWebhook{{
				Name: "secrets", ClientConfig: registrationv1.WebhookClientConfig{
					Service: &registrationv1.ServiceReference{Namespace: guardName, Name: guardName}, CABundle: g.bundles[g.trusted],
				},
			}}
			return true, configuration, nil
		}
	}
	return false, nil, nil
}

// isActive reports whether the webhook's account is in the binding.
func (g *gate) isActive() (bool, error) {
	object, err := g.client.Tracker().Get(rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings"), "", guardName)
	if err != nil {
		return false, err
	}
	return len(object.(*rbacv1.ClusterRoleBinding).Subjects) > 0, nil //nolint:forcetypeassert // by resource
}

// deactivate removes the account, as a user could.
func (g *gate) deactivate() error {
	return g.client.Tracker().Update(rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings"),
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: guardName}}, "")
}

// TestActivation changes everything that the keeper needs, at random, while it runs. It activates the webhook only when
// that can answer, then at once, and never deactivates it.
func TestActivation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		changes := rapid.SliceOfN(rapid.SampledFrom([]string{
			"ready", "available", "trusted", "granted", "answers", "deactivate",
		}), 1, 20).Draw(rt, "changes")
		var err error
		synctest.Test(t, func(*testing.T) { err = runGate(changes) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// runGate runs a keeper.
func runGate(changes []string) error {
	g, certificate := newGate()
	changed := make(chan struct{}, 1)
	keeper := &activation.Keeper{
		Bindings: g.client.RbacV1().ClusterRoleBindings(), Deployments: g.client.AppsV1().Deployments(guardName),
		Webhooks: g.client.AdmissionregistrationV1().ValidatingWebhookConfigurations(),
		Reviews:  g.client.AuthorizationV1().SelfSubjectAccessReviews(), Changed: changed,
		OnCheck: func(active bool) { g.lastCheck = active },
		Binding: guardName, Deployment: guardName, Configuration: guardName, Namespace: guardName, Account: guardName,
		Ready: func(context.Context) error {
			if !g.ready {
				return errors.New("not ready")
			}
			return nil
		},
		Serving: func() *tls.Certificate { return &certificate }, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { keeper.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	for i, change := range changes {
		synctest.Wait() // the keeper waits, so nothing else uses the gate
		wasActive, err := g.isActive()
		if err != nil {
			return err
		}
		switch change {
		case "ready":
			g.ready = !g.ready
		case "available":
			g.available = !g.available
		case "trusted":
			g.trusted = !g.trusted
		case "granted":
			g.granted = !g.granted
		case "answers":
			g.answers = !g.answers
		case "deactivate":
			wasActive = false
			if err := g.deactivate(); err != nil {
				return err
			}
			changed <- struct{}{}
		}
		// A keeper checks each second; once a minute, if its webhook is active or its requests are forbidden.
		<-time.After(time.Minute + time.Second)
		synctest.Wait()
		if err := g.check(wasActive); err != nil {
			return fmt.Errorf("after change %d of %v: %w", i+1, changes, err)
		}
	}
	return nil
}

// check checks the keeper a minute after the last change.
func (g *gate) check(wasActive bool) error {
	active, err := g.isActive()
	switch {
	case err != nil:
		return err
	case g.fault != nil:
		return g.fault
	case wasActive && !active:
		return errors.New("the keeper deactivated the webhook")
	case !active && g.answers && g.ready && g.available && g.trusted:
		return errors.New("the webhook can answer, and is not active")
	case g.lastCheck != (active && g.granted && g.answers):
		return fmt.Errorf("the last check says %t; active: %t, granted: %t, the API server answers: %t",
			g.lastCheck, active, g.granted, g.answers)
	}
	return nil
}

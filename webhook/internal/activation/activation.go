// SPDX-License-Identifier: Apache-2.0

// Package activation activates the webhook: it makes API servers call it as soon as it can answer.
//
// A registration that fails closed refuses requests as soon as it is stored. During an
// install that is before a Pod can answer. So the chart's registration has a match
// condition that is true only if the webhook's ServiceAccount has a permission that has no
// other purpose. The chart installs the permission as a ClusterRole, and a ClusterRoleBinding
// without subjects. This package adds the ServiceAccount to the binding when a replica is
// available and has a serving certificate that API servers trust. The webhook then stays
// active, also while no replica is available: an outage must not allow anything.
//
// The permission to write this one binding is smaller than the permission to write the
// registration. With that, an attacker who controls the webhook could have every Secret of
// the cluster sent to it.
package activation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	admissionv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// retryInterval is for activation, checkInterval for checks that the webhook is still
	// active. A change of the binding causes a check, too.
	retryInterval, checkInterval = time.Second, time.Minute
	// callTime bounds the calls of one check.
	callTime = 20 * time.Second
)

// Keeper activates the webhook and keeps it active.
type Keeper struct {
	Bindings    rbacclient.ClusterRoleBindingInterface
	Deployments appsv1.DeploymentInterface // in the webhook's namespace
	Webhooks    admissionv1.ValidatingWebhookConfigurationInterface
	Reviews     authorizationclient.SelfSubjectAccessReviewInterface
	// Changed receives a value when the binding has changed.
	Changed <-chan struct{}
	// OnCheck is called after each check, with true if the webhook is active.
	OnCheck func(bool)
	// Binding, Deployment and Configuration are the names of the objects.
	Binding, Deployment, Configuration string
	// Namespace and Account name the webhook's ServiceAccount.
	Namespace, Account string
	// Ready returns an error that says why this process cannot answer, nil if it can.
	Ready func(context.Context) error
	// Serving returns the serving certificate.
	Serving func() *tls.Certificate
	Now     func() time.Time
	Log     *slog.Logger

	lastLogged string // the error that was logged last
	active     bool   // the last successful check found it active
}

// Run activates the webhook, and keeps it active, until the context ends.
func (k *Keeper) Run(ctx context.Context) {
	forbiddenPause := retryInterval
	for {
		pause := checkInterval
		err := k.check(ctx)
		k.OnCheck(err == nil)
		if err != nil {
			pause = retryInterval
			if apierrors.IsForbidden(err) { // this can last forever
				pause, forbiddenPause = forbiddenPause, min(2*forbiddenPause, checkInterval)
			} else {
				forbiddenPause = retryInterval
			}
			if k.lastLogged != err.Error() {
				k.lastLogged = err.Error()
				k.logInactive(ctx, err)
			}
		} else {
			k.lastLogged, k.active = "", true
		}
		select {
		case <-ctx.Done():
			return
		case <-k.Changed:
		case <-time.After(pause):
		}
	}
}

// logInactive logs why the webhook is not active: this is normal during an install, and a
// problem later.
func (k *Keeper) logInactive(ctx context.Context, err error) {
	if k.active {
		k.Log.WarnContext(ctx, "Webhook may no longer be active", "err", err)
		return
	}
	k.Log.InfoContext(ctx, "Webhook is not active yet", "err", err)
}

// check activates the webhook if it is not active and can answer. The error says why it is
// not active.
func (k *Keeper) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	binding, err := k.Bindings.Get(ctx, k.Binding, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read ClusterRoleBinding %s: %w", k.Binding, err)
	}
	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: k.Namespace, Name: k.Account}
	if slices.Contains(binding.Subjects, subject) {
		return k.checkPermission(ctx)
	}
	if k.active {
		k.Log.WarnContext(ctx, "Webhook was deactivated: its ServiceAccount was removed from the ClusterRoleBinding",
			"binding", k.Binding)
		k.active = false
	}
	if err := k.checkReady(ctx); err != nil {
		return err
	}
	binding.Subjects = []rbacv1.Subject{subject}
	_, err = k.Bindings.Update(ctx, binding, metav1.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("conflict while writing ClusterRoleBinding %s: another process has just written it", k.Binding)
	case err != nil:
		return fmt.Errorf("write ClusterRoleBinding %s: %w", k.Binding, err)
	}
	k.Log.InfoContext(ctx, "Webhook is active", "binding", k.Binding)
	return k.checkPermission(ctx)
}

// checkPermission returns an error if the binding does not grant the permission. This process
// cannot write the ClusterRole that should.
func (k *Keeper) checkPermission(ctx context.Context) error {
	review, err := k.Reviews.Create(
		ctx,
		&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: "answer", Group: "kubelet-https-guard.io", Resource: "admissions",
			},
		}},
		metav1.CreateOptions{},
	)
	switch {
	case err != nil:
		return fmt.Errorf("check the permission to answer admissions.kubelet-https-guard.io: %w", err)
	case !review.Status.Allowed:
		return fmt.Errorf("ClusterRoleBinding %s contains the ServiceAccount, but does not grant it the permission "+
			"to answer admissions.kubelet-https-guard.io: check ClusterRole %s", k.Binding, k.Binding)
	}
	return nil
}

// checkReady returns an error if an API server would get no answer, or not from this webhook.
func (k *Keeper) checkReady(ctx context.Context) error {
	if err := k.Ready(ctx); err != nil {
		return err
	}
	deployment, err := k.Deployments.Get(ctx, k.Deployment, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read Deployment %s: %w", k.Deployment, err)
	}
	// Available means ready for minReadySeconds. In this time all nodes learn the Service's
	// endpoints.
	if deployment.Status.AvailableReplicas == 0 {
		return fmt.Errorf("no replica of Deployment %s is available", k.Deployment)
	}
	configuration, err := k.Webhooks.Get(ctx, k.Configuration, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read ValidatingWebhookConfiguration %s: %w", k.Configuration, err)
	}
	for _, hook := range configuration.Webhooks {
		service := hook.ClientConfig.Service
		if service == nil {
			continue // called by URL: not the chart's Service
		}
		if err := k.checkTrusted(hook.ClientConfig.CABundle, service.Name+"."+service.Namespace+".svc"); err != nil {
			return fmt.Errorf("ValidatingWebhookConfiguration %s, %s: %w", k.Configuration, hook.Name, err)
		}
	}
	return nil
}

// checkTrusted returns an error if an API server with this CA bundle would not trust the
// serving certificate. The certificate must be valid for the name of the Service
// (k8s.io/apiserver pkg/util/webhook/client.go, ServerName).
func (k *Keeper) checkTrusted(bundle []byte, name string) error {
	if len(bundle) == 0 {
		return errors.New("its CA bundle is empty: the CA of the serving certificate is not registered yet")
	}
	cas, err := pki.ParseBundle(bundle)
	if err != nil {
		return fmt.Errorf("its CA bundle %w", err)
	}
	options := x509.VerifyOptions{
		Roots: cas.Pool(), Intermediates: x509.NewCertPool(), DNSName: name, CurrentTime: k.Now(),
	}
	pair := k.Serving()
	for _, der := range pair.Certificate[1:] {
		if intermediate, err := x509.ParseCertificate(der); err == nil {
			options.Intermediates.AddCert(intermediate)
		}
	}
	if _, err := pair.Leaf.Verify(options); err != nil {
		return fmt.Errorf("the serving certificate is not valid with its CA bundle: %w", err)
	}
	return nil
}

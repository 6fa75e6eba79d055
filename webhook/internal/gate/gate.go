// SPDX-License-Identifier: Apache-2.0

// Package gate has API servers ask the webhook, once it can answer.
//
// A registration that fails closed refuses from the moment at which it is
// stored, which at an install is before there is anybody to ask. So the chart
// registers the webhook behind a gate: a match condition that holds only when
// the webhook's ServiceAccount has a right that means nothing else. The chart
// installs the right as a ClusterRole, and a ClusterRoleBinding that binds it to
// nobody. This package makes the ServiceAccount its subject when a replica has
// become available and answers with a certificate that API servers trust. From
// then on the gate stays open, whatever becomes of the replicas: an outage
// must not let anything through.
//
// To write that one binding is less of a right than to write the registration
// itself, with which whoever has taken the webhook over could have every Secret
// of the cluster sent to it.
package gate

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
	// retry is how often it is tried to open the gate, every how often it is
	// looked whether it still is, beside when the binding changes.
	retry, every = time.Second, time.Minute
	// callTime bounds the calls of one round.
	callTime = 20 * time.Second
)

// Keeper opens the gate and keeps it open.
type Keeper struct {
	Bindings    rbacclient.ClusterRoleBindingInterface
	Deployments appsv1.DeploymentInterface // of the webhook's own namespace
	Webhooks    admissionv1.ValidatingWebhookConfigurationInterface
	Reviews     authorizationclient.SelfSubjectAccessReviewInterface
	// Changed gets a value when the binding has changed.
	Changed <-chan struct{}
	// Asked is told whether API servers ask the webhook.
	Asked func(bool)
	// Binding, Deployment and Configuration are the names of the objects.
	Binding, Deployment, Configuration string
	// Namespace and Account are those of the webhook's ServiceAccount.
	Namespace, Account string
	// Ready says why this process does not answer, if so.
	Ready func(context.Context) error
	// Serving is the pair that it answers with.
	Serving func() *tls.Certificate
	Now     func() time.Time
	Log     *slog.Logger

	fault string // that was told last
	open  bool   // it was seen open
}

// Run keeps the gate until the context ends.
func (k *Keeper) Run(ctx context.Context) {
	for {
		pause := every
		err := k.round(ctx)
		k.Asked(err == nil)
		if err != nil {
			pause = retry
			if k.fault != err.Error() {
				k.fault = err.Error()
				k.told(ctx, err)
			}
		} else {
			k.fault, k.open = "", true
		}
		select {
		case <-ctx.Done():
			return
		case <-k.Changed:
		case <-time.After(pause):
		}
	}
}

// told logs why API servers do not ask the webhook: no wonder at an install, and
// a hole in the guard later.
func (k *Keeper) told(ctx context.Context, err error) {
	if k.open {
		k.Log.WarnContext(ctx, "API servers may not ask the webhook any more", "err", err)
		return
	}
	k.Log.InfoContext(ctx, "API servers do not ask the webhook yet", "err", err)
}

// round opens the gate if it is closed and may be opened. The error says why it
// stays closed.
func (k *Keeper) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	binding, err := k.Bindings.Get(ctx, k.Binding, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read ClusterRoleBinding %s: %w", k.Binding, err)
	}
	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: k.Namespace, Name: k.Account}
	if slices.Contains(binding.Subjects, subject) {
		return k.granted(ctx)
	}
	if k.open {
		k.Log.WarnContext(ctx, "Somebody has had API servers ask the webhook no more", "binding", k.Binding)
		k.open = false
	}
	if err := k.answers(ctx); err != nil {
		return err
	}
	binding.Subjects = []rbacv1.Subject{subject}
	_, err = k.Bindings.Update(ctx, binding, metav1.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err):
		return errors.New("another process has just written the ClusterRoleBinding")
	case err != nil:
		return fmt.Errorf("write ClusterRoleBinding %s: %w", k.Binding, err)
	}
	k.Log.InfoContext(ctx, "API servers ask the webhook from now on", "binding", k.Binding)
	return k.granted(ctx)
}

// granted says why the right that is bound is not granted: what it consists of
// is not this process's to write.
func (k *Keeper) granted(ctx context.Context) error {
	review, err := k.Reviews.Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "answer", Group: "kubelet-https-guard.io", Resource: "admissions"},
	}}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return fmt.Errorf("look up the right to answer admissions.kubelet-https-guard.io: %w", err)
	case !review.Status.Allowed:
		return fmt.Errorf("the right to answer admissions.kubelet-https-guard.io is bound by ClusterRoleBinding %s, but not granted: see ClusterRole %s", k.Binding, k.Binding)
	}
	return nil
}

// answers says why an API server would get no answer, or not from us.
func (k *Keeper) answers(ctx context.Context) error {
	if err := k.Ready(ctx); err != nil {
		return err
	}
	deployment, err := k.Deployments.Get(ctx, k.Deployment, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read Deployment %s: %w", k.Deployment, err)
	}
	// Available is more than ready: it has been so for minReadySeconds, in which
	// the Service's endpoints get around.
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
			continue // by a URL: somebody else's to see to
		}
		if err := k.trusted(hook.ClientConfig.CABundle, service.Name+"."+service.Namespace+".svc"); err != nil {
			return fmt.Errorf("ValidatingWebhookConfiguration %s, %s: %w", k.Configuration, hook.Name, err)
		}
	}
	return nil
}

// trusted says why an API server that knows these CAs would not trust the
// serving certificate. It asks for the name of the Service (k8s.io/apiserver
// pkg/util/webhook/client.go, ServerName).
func (k *Keeper) trusted(bundle []byte, name string) error {
	if len(bundle) == 0 {
		return errors.New("nobody has registered the CA of the serving certificate yet")
	}
	cas, err := pki.ParseBundle(bundle)
	if err != nil {
		return fmt.Errorf("its CA bundle %w", err)
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: name, CurrentTime: k.Now()}
	for _, ca := range cas {
		options.Roots.AddCert(ca)
	}
	pair := k.Serving()
	for _, der := range pair.Certificate[1:] {
		if intermediate, err := x509.ParseCertificate(der); err == nil {
			options.Intermediates.AddCert(intermediate)
		}
	}
	if _, err := pair.Leaf.Verify(options); err != nil {
		return fmt.Errorf("its CA bundle does not vouch for the serving certificate: %w", err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const (
	release           = "kubelet-https-guard" // also the namespace
	activation, decoy = release + "-answers", release + "-decoy"

	// forceTime bounds waiting until API servers act on a change of the registration.
	forceTime = time.Minute
	// pollInterval is how often they are asked.
	pollInterval = 20 * time.Millisecond

	// callsWebhook is in the answer to a write for which the API server calls the webhook. The chart registers the
	// webhook's Service, which has no endpoints here: nothing that is measured needs an answer of the webhook.
	callsWebhook = `failed calling webhook "`
)

// guard has the objects of the chart that API servers act on.
type guard struct {
	webhooks *registrationv1.ValidatingWebhookConfiguration
	policies []*registrationv1.ValidatingAdmissionPolicy
	bindings []*registrationv1.ValidatingAdmissionPolicyBinding
	// The permission that activates the webhook, and the Secret for dry runs. They stay.
	role        *rbacv1.ClusterRole
	roleBinding *rbacv1.ClusterRoleBinding
	decoy       *corev1.Secret
}

// render renders the guard as a chart installs it on OpenShift, and makes its webhook active.
func (b *bench) render(ctx context.Context, chart string, flags ...string) (*guard, error) {
	args := []string{"template", release, chart, "--namespace", release, "--api-versions", "security.openshift.io/v1"}
	rendered := b.rig.Helm(ctx, append(args, flags...)...)
	if rendered.Code != 0 {
		return nil, fmt.Errorf("render %s: %s", chart, rendered.Output)
	}
	g := &guard{}
	for document := range strings.SplitSeq(rendered.Output, "\n---\n") {
		if err := g.add([]byte(document)); err != nil {
			return nil, fmt.Errorf("read what %s renders: %w", chart, err)
		}
	}
	if g.webhooks == nil || len(g.policies) == 0 {
		return nil, fmt.Errorf("%s renders no webhooks or no policies", chart)
	}
	return g, nil
}

// add adds an object, if it is one of those.
func (g *guard) add(document []byte) error {
	var object metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(document, &object); err != nil {
		return err
	}
	var into any
	switch kind := object.Kind; {
	case kind == "ValidatingWebhookConfiguration":
		g.webhooks = new(registrationv1.ValidatingWebhookConfiguration)
		into = g.webhooks
	case kind == "ValidatingAdmissionPolicy":
		g.policies = append(g.policies, new(registrationv1.ValidatingAdmissionPolicy))
		into = g.policies[len(g.policies)-1]
	case kind == "ValidatingAdmissionPolicyBinding":
		g.bindings = append(g.bindings, new(registrationv1.ValidatingAdmissionPolicyBinding))
		into = g.bindings[len(g.bindings)-1]
	case kind == "ClusterRole" && object.Name == activation:
		g.role = new(rbacv1.ClusterRole)
		into = g.role
	case kind == "ClusterRoleBinding" && object.Name == activation:
		g.roleBinding = new(rbacv1.ClusterRoleBinding)
		into = g.roleBinding
	case kind == "Secret" && object.Name == decoy:
		g.decoy = new(corev1.Secret)
		into = g.decoy
	default:
		return nil
	}
	return yaml.UnmarshalStrict(document, into)
}

// prepare creates what stays during the whole benchmark.
func (b *bench) prepare(ctx context.Context, g *guard) error {
	if g.role == nil || g.roleBinding == nil || g.decoy == nil {
		return errors.New("the chart does not render the permission that activates the webhook, or no decoy")
	}
	g.roleBinding.Subjects = []rbacv1.Subject{
		{Kind: rbacv1.ServiceAccountKind, Namespace: release, Name: release + "-webhook"},
	}
	_, roleErr := b.client.RbacV1().ClusterRoles().Create(ctx, g.role, metav1.CreateOptions{})
	_, bindingErr := b.client.RbacV1().ClusterRoleBindings().Create(ctx, g.roleBinding, metav1.CreateOptions{})
	_, decoyErr := b.client.CoreV1().Secrets(release).Create(ctx, g.decoy, metav1.CreateOptions{})
	return errors.Join(roleErr, bindingErr, decoyErr)
}

// install registers the guard. It returns when the API server acts on all of it.
func (b *bench) install(ctx context.Context, g *guard) error {
	if err := b.register(ctx, g.webhooks, g.policies, g.bindings); err != nil {
		return err
	}
	return b.await(ctx, true)
}

func (b *bench) register(ctx context.Context, webhooks *registrationv1.ValidatingWebhookConfiguration,
	policies []*registrationv1.ValidatingAdmissionPolicy, bindings []*registrationv1.ValidatingAdmissionPolicyBinding,
) error {
	api := b.client.AdmissionregistrationV1()
	var faults []error
	for _, policy := range policies {
		_, err := api.ValidatingAdmissionPolicies().Create(ctx, policy, metav1.CreateOptions{})
		faults = append(faults, err)
	}
	for _, binding := range bindings {
		_, err := api.ValidatingAdmissionPolicyBindings().Create(ctx, binding, metav1.CreateOptions{})
		faults = append(faults, err)
	}
	if webhooks != nil {
		_, err := api.ValidatingWebhookConfigurations().Create(ctx, webhooks, metav1.CreateOptions{})
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// remove removes what install registered. It returns when the API server acts on none of it.
func (b *bench) remove(ctx context.Context, g *guard) error {
	api := b.client.AdmissionregistrationV1()
	for _, binding := range g.bindings {
		err := api.ValidatingAdmissionPolicyBindings().Delete(ctx, binding.Name, metav1.DeleteOptions{})
		if err != nil {
			return err
		}
	}
	for _, policy := range g.policies {
		if err := api.ValidatingAdmissionPolicies().Delete(ctx, policy.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	// Until the API server acts on that, self-protection refuses it.
	err := until(ctx, "the webhooks are removed", func(ctx context.Context) error {
		return api.ValidatingWebhookConfigurations().Delete(ctx, g.webhooks.Name, metav1.DeleteOptions{})
	})
	if err != nil {
		return err
	}
	return b.await(ctx, false)
}

// until repeats something until it succeeds.
func until(ctx context.Context, what string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, forceTime)
	defer cancel()
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, err)
		case <-time.After(pollInterval):
		}
	}
}

// await waits until each part of the guard refuses dry runs, or until none of them does.
func (b *bench) await(ctx context.Context, inForce bool) error {
	dryRun := []string{metav1.DryRunAll}
	create := func(secret *corev1.Secret) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.client.CoreV1().Secrets(secret.Namespace).Create(ctx, secret, metav1.CreateOptions{DryRun: dryRun})
			return err
		}
	}
	serving := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: guardedNamespace, Name: protected}}
	client := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "openshift-kube-apiserver", Name: "kubelet-client"},
	}
	// Garbage, which CEL cannot recognize: no policy refuses it.
	garbage := client.DeepCopy()
	garbage.Type = corev1.SecretTypeTLS
	garbage.Data = map[string][]byte{corev1.TLSCertKey: []byte("x"), corev1.TLSPrivateKeyKey: []byte("x")}
	for _, probe := range []struct {
		do     func(context.Context) error
		refuse string // in the answer
	}{
		{create(serving), "ValidatingAdmissionPolicy '" + release + "." + guardedNamespace + "." + protected},
		{create(client), "ValidatingAdmissionPolicy '" + release + ".openshift-kube-apiserver.kubelet-client"},
		{create(garbage), callsWebhook},
		{func(ctx context.Context) error {
			_, err := b.client.CoreV1().Secrets(release).Patch(ctx, decoy, "application/merge-patch+json",
				[]byte(`{"immutable":true}`), metav1.PatchOptions{DryRun: dryRun})
			return err
		}, "ValidatingAdmissionPolicy '" + release + "." + release},
		{func(ctx context.Context) error {
			return b.client.RbacV1().ClusterRoles().Delete(ctx, activation, metav1.DeleteOptions{DryRun: dryRun})
		}, "ValidatingAdmissionPolicy '" + release + "-self-protection'"},
	} {
		what := fmt.Sprintf("the API server answers %q: %t", probe.refuse, inForce)
		err := until(ctx, what, func(ctx context.Context) error {
			err := probe.do(ctx)
			switch {
			case !inForce:
				return err
			case err == nil:
				return errors.New("it was allowed")
			case !strings.Contains(err.Error(), probe.refuse):
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// createNamespace creates a namespace with the ServiceAccount that Pods need.
func (b *bench) createNamespace(ctx context.Context, name string) error {
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := b.client.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err = b.client.CoreV1().ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{})
	return err
}

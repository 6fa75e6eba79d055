// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// Namespaces: ours guards the Secret in the first, the no-op is asked about the
// one in the second, nobody about the one in the third.
const (
	guarded   = "openshift-apiserver"
	withNoop  = "bench-noop"
	unguarded = "bench-none"
)

// measureThroughServer: updates of a Secret, as a client of the API server sees
// them.
func (b *bench) measureThroughServer(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", b.rig.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // as fast as it goes
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := b.prepareServer(ctx, api); err != nil {
		return err
	}
	service, err := api.CoreV1().Services(guarded).Get(ctx, "api", metav1.GetOptions{})
	if err != nil {
		return err
	}
	update := func(namespace string, i int) (time.Duration, error) {
		p := b.rsa[i%len(b.rsa)]
		secret := openshift.ServingCert(service.UID, p.ChainWith(b.rig.ServiceCA.PEM()), p.Key)
		secret.Namespace = namespace
		begin := time.Now()
		_, err := api.CoreV1().Secrets(namespace).Update(ctx, secret, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			_, err = api.CoreV1().Secrets(namespace).Create(ctx, secret, metav1.CreateOptions{})
		}
		return time.Since(begin), err
	}
	between := func(ours, other string) func(contender, int) (time.Duration, error) {
		return func(to contender, i int) (time.Duration, error) {
			if to.name == b.ours.name {
				return update(ours, i)
			}
			return update(other, i)
		}
	}
	for _, namespace := range []string{guarded, withNoop, unguarded} {
		if _, err := update(namespace, 0); err != nil {
			return err
		}
	}
	if err := b.rig.Register(ctx, rig.Registration); err != nil {
		return err
	}
	if err := b.compare("through the API server, new RSA 2048 content", b.requests, "1.10", "1.25", between(guarded, withNoop)); err != nil {
		return err
	}
	if err := b.throughput(update); err != nil {
		return err
	}
	if err := b.compare("  ours, and no webhook at all", b.requests, "", "", between(guarded, unguarded)); err != nil {
		return err
	}
	if err := b.rig.Register(ctx, rig.Registration, rig.Policy); err != nil {
		return err
	}
	return b.compare("  ours with the policy, and the no-op", b.requests, "", "", between(guarded, withNoop))
}

// throughput: eight clients at a time, by turns.
func (b *bench) throughput(update func(namespace string, i int) (time.Duration, error)) error {
	const clients = 8
	var counts [2]atomic.Int64
	var failed atomic.Pointer[error]
	for range b.rounds {
		for i, namespace := range []string{guarded, withNoop} {
			var group sync.WaitGroup
			deadline := time.Now().Add(b.load)
			for offset := range clients {
				group.Go(func() {
					for j := offset; time.Now().Before(deadline); j += clients {
						switch _, err := update(namespace, j); {
						case err == nil:
							counts[i].Add(1)
						case !apierrors.IsConflict(err):
							failed.Store(&err)
						}
					}
				})
			}
			group.Wait()
		}
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	seconds := b.load.Seconds() * float64(b.rounds)
	b.row("through the API server, 8 at a time", fmt.Sprintf("%.0f a second", float64(counts[0].Load())/seconds), fmt.Sprintf("%.0f a second", float64(counts[1].Load())/seconds),
		fmt.Sprintf("%.2f", float64(counts[0].Load())/float64(counts[1].Load())), "0.90 at least")
	return nil
}

// prepareServer registers the no-op webhook just as ours is.
func (b *bench) prepareServer(ctx context.Context, api kubernetes.Interface) error {
	for _, name := range []string{withNoop, unguarded} {
		if _, err := api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	configurations := api.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	ours, err := configurations.Get(ctx, "kubelet-https-guard", metav1.GetOptions{})
	if err != nil {
		return err
	}
	hook := ours.Webhooks[0].DeepCopy()
	hook.ClientConfig = registrationv1.WebhookClientConfig{URL: &b.noop.url, CABundle: b.rig.CABundle()}
	hook.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": withNoop}}
	for i := range hook.MatchConditions {
		if hook.MatchConditions[i].Name == "protected" {
			hook.MatchConditions[i].Expression = `request.namespace + "/" + (object == null ? oldObject : object).metadata.?name.orValue("") in ["` + withNoop + `/serving-cert"]`
		}
	}
	_, err = configurations.Create(ctx, &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "noop"}, Webhooks: []registrationv1.ValidatingWebhook{*hook},
	}, metav1.CreateOptions{})
	return err
}

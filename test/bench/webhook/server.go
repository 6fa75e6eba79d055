// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/controlplane"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// Each contender has a namespace with a Secret of the same name. Ours protects the platform's Secret;
// a copy of its policy applies to another namespace.
const (
	secretName       = "serving-cert"
	guardedNamespace = "openshift-apiserver"
	policyNamespace  = "bench-policy"
)

// server is the API server.
type server struct {
	kubernetes.Interface
	etcd       *controlplane.Etcd
	pid        int
	serviceUID types.UID
	ca         []byte
}

func (b *bench) connect(ctx context.Context) (*server, error) {
	config, err := clientcmd.BuildConfigFromFlags("", b.rig.Kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1                           // no rate limit
	config.WarningHandler = rest.NoWarnings{} // the API server warns about pairs that do not match
	s := &server{ca: b.rig.ServiceCA.PEM()}
	if s.Interface, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	version, err := s.Discovery().ServerVersion()
	if err != nil {
		return nil, err
	}
	b.document.Notes = append(b.document.Notes, "Kubernetes "+version.GitVersion+", etcd without fsync.")
	service, err := s.CoreV1().Services(guardedNamespace).Get(ctx, "api", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	s.serviceUID = service.UID
	if s.etcd, err = controlplane.EtcdOf(b.rig); err != nil {
		return nil, err
	}
	s.pid, err = controlplane.APIServerPID(b.rig)
	return s, err
}

// secret is the Secret of a contender with this pair.
func (s *server) secret(of contender, p pkitest.Pair) *corev1.Secret {
	secret := openshift.ServingCert(s.serviceUID, p.ChainWith(s.ca), p.Key)
	secret.Namespace = of.namespace
	return secret
}

// update writes a Secret. A wrong answer is an error.
func (s *server) update(ctx context.Context, secret *corev1.Secret, refused bool) (time.Duration, error) {
	begin := time.Now()
	_, err := s.CoreV1().Secrets(secret.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	took := time.Since(begin)
	if err != nil && strings.Contains(err.Error(), "failed calling webhook") {
		return 0, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	if !refused {
		return took, err
	}
	if err == nil {
		return 0, fmt.Errorf("%s/%s is not refused", secret.Namespace, secret.Name)
	}
	if !strings.Contains(err.Error(), "denied the request") {
		return 0, err
	}
	return took, nil
}

// measureThroughServer measures updates of a Secret, as a client of the API server sees them.
func (b *bench) measureThroughServer(ctx context.Context) error {
	s, err := b.connect(ctx)
	if err != nil {
		return err
	}
	if err := b.prepareServer(ctx, s); err != nil {
		return err
	}
	for _, k := range []struct {
		what          string
		pairs         []pkitest.Pair
		change        func(secret *corev1.Secret, i int)
		refused       bool
		p50, p99, cpu float64 // budgets; 0: no budget
		share         int     // of the requests: 1/share
		loaded        bool    // also with concurrent requests
	}{
		{what: "content as before, an annotation new", pairs: b.rsa[:1], change: annotate, p50: 1.05, cpu: 1.5, share: 1},
		{what: "new RSA 2048 content", pairs: b.rsa, p50: 1.05, p99: 1.25, cpu: 1.5, share: 1, loaded: true},
		{what: "new ECDSA content", pairs: b.ecdsa, share: 1},
		{what: "refused, key of another pair", pairs: mismatched(b.rsa), refused: true, share: 1},
		{what: "new RSA 2048 content, Secret of 1 MiB", pairs: b.rsa, change: enlarge, share: 20},
	} {
		comparison := comparison{
			what: "through the API server: " + k.what, among: b.contenders, requests: max(1, b.requests/k.share),
			p50: k.p50, p99: k.p99, cpu: k.cpu, throughput: 0.90, server: s.pid, afterRound: s.etcd.Compact,
			send: func(ctx context.Context, to contender, i int) (time.Duration, error) {
				secret := s.secret(to, k.pairs[i%len(k.pairs)])
				if k.change != nil {
					k.change(secret, i)
				}
				return s.update(ctx, secret, k.refused && to.judges)
			},
		}
		if err := b.compare(ctx, comparison); err != nil {
			return err
		}
		if k.loaded {
			if err := b.throughput(ctx, comparison); err != nil {
				return err
			}
		}
	}
	return b.measureWithPolicy(ctx, s)
}

func annotate(secret *corev1.Secret, i int) { secret.Annotations["bench"] = strconv.Itoa(i) }
func enlarge(secret *corev1.Secret, _ int)  { large(secret) }

// measureWithPolicy compares our webhook and policy together, as installed, with the reference.
func (b *bench) measureWithPolicy(ctx context.Context, s *server) error {
	if err := b.rig.Register(ctx, rig.Registration, rig.Policy); err != nil {
		return err
	}
	var among []contender
	for _, c := range b.contenders {
		if c.ours {
			c.name += ", with the policy"
		}
		if c.ours || c.name == reference {
			among = append(among, c)
		}
	}
	return b.compare(ctx, comparison{
		what: "through the API server, webhook and policy: new RSA 2048 content", among: among, requests: b.requests,
		p50: 1.10, p99: 1.25, afterRound: s.etcd.Compact,
		send: func(ctx context.Context, to contender, i int) (time.Duration, error) {
			return s.update(ctx, s.secret(to, b.rsa[i%len(b.rsa)]), false)
		},
	})
}

// prepareServer makes the Secrets, registers each other webhook as ours is registered, and waits until
// each contender is in force.
func (b *bench) prepareServer(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for _, c := range b.contenders {
		if !c.ours {
			if _, err := s.CoreV1().Namespaces().Create(ctx,
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		if _, err := s.CoreV1().Secrets(c.namespace).Create(ctx, s.secret(c, b.rsa[0]), metav1.CreateOptions{}); err != nil {
			return err
		}
		if c.pid != 0 && !c.ours {
			if err := b.register(ctx, s, c); err != nil {
				return err
			}
		}
	}
	if err := s.copyPolicy(ctx); err != nil {
		return err
	}
	if err := b.rig.Register(ctx, rig.Registration); err != nil {
		return err
	}
	for _, c := range b.contenders {
		for {
			err := b.proveInForce(ctx, s, c)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s is not in force at the API server: %w", c.name, err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// hookName is the name of the webhook in its registration.
func (c contender) hookName() string {
	if c.ours {
		return "secrets.kubelet-https-guard.io"
	}
	return c.namespace + ".kubelet-https-guard.io"
}

// register registers a webhook like ours, for its own namespace.
func (b *bench) register(ctx context.Context, s *server, c contender) error {
	configurations := s.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	ours, err := configurations.Get(ctx, "kubelet-https-guard", metav1.GetOptions{})
	if err != nil {
		return err
	}
	hook := ours.Webhooks[0].DeepCopy()
	hook.Name = c.hookName()
	hook.ClientConfig = registrationv1.WebhookClientConfig{URL: &c.url, CABundle: b.rig.CABundle()}
	hook.NamespaceSelector = inNamespace(c.namespace)
	for i := range hook.MatchConditions {
		condition := &hook.MatchConditions[i]
		condition.Expression = strings.ReplaceAll(condition.Expression, strconv.Quote(guardedNamespace+"/"+secretName),
			strconv.Quote(c.namespace+"/"+secretName))
	}
	_, err = configurations.Create(ctx, &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace}, Webhooks: []registrationv1.ValidatingWebhook{*hook},
	}, metav1.CreateOptions{})
	return err
}

func inNamespace(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
}

// copyPolicy copies the policy of the protected Secret to another namespace.
func (s *server) copyPolicy(ctx context.Context) error {
	const name = "kubelet-https-guard." + guardedNamespace + "." + secretName
	policies, bindings := s.AdmissionregistrationV1().ValidatingAdmissionPolicies(),
		s.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	policy, err := policies.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	binding, err := bindings.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	policy.ObjectMeta, binding.ObjectMeta = metav1.ObjectMeta{
		Name: policyNamespace,
	}, metav1.ObjectMeta{
		Name: policyNamespace,
	}
	policy.Spec.MatchConstraints.NamespaceSelector = inNamespace(policyNamespace)
	binding.Spec.PolicyName = policyNamespace
	_, err = policies.Create(ctx, policy, metav1.CreateOptions{})
	_, bindingErr := bindings.Create(ctx, binding, metav1.CreateOptions{})
	return errors.Join(err, bindingErr)
}

// proveInForce ensures that the API server calls a webhook, that a judging webhook and the policy
// refuse what they should, and that nothing else does.
func (b *bench) proveInForce(ctx context.Context, s *server, c contender) error {
	empty := s.secret(c, b.rsa[0])
	empty.Data[corev1.TLSPrivateKeyKey] = nil
	other := s.secret(c, mismatched(b.rsa)[1])
	dry := metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}
	before, err := s.asked(ctx, c)
	if err != nil {
		return err
	}
	_, emptyErr := s.CoreV1().Secrets(c.namespace).Update(ctx, empty, dry)
	_, otherErr := s.CoreV1().Secrets(c.namespace).Update(ctx, other, dry)
	after, err := s.asked(ctx, c)
	if err != nil {
		return err
	}
	type facts struct{ emptyRefused, otherRefused, asked bool }
	want := facts{emptyRefused: c.judges || c.namespace == policyNamespace, otherRefused: c.judges, asked: c.pid != 0}
	if got := (facts{emptyErr != nil, otherErr != nil, after == before+2}); got != want {
		return fmt.Errorf("got %+v, want %+v: %w", got, want, errors.Join(emptyErr, otherErr))
	}
	for _, err := range []error{emptyErr, otherErr} {
		if apierrors.IsInternalError(err) {
			return err
		}
	}
	return nil
}

// asked is how often the API server reports to have called a webhook.
func (s *server) asked(ctx context.Context, c contender) (count float64, err error) {
	metrics, err := s.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(metrics)) {
		if !strings.HasPrefix(line, "apiserver_admission_webhook_request_total{") ||
			!strings.Contains(line, fmt.Sprintf("name=%q", c.hookName())) {
			continue
		}
		_, text, _ := strings.Cut(line, "} ")
		value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			return 0, fmt.Errorf("read the API server's metrics: %w", err)
		}
		count += value
	}
	return count, nil
}

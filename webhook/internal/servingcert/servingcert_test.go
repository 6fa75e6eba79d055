// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

// keeper keeps in a cluster, with a clock that the test sets.
func keeper(t *testing.T, cluster *fake.Clientset, now *time.Time, log *strings.Builder) *Keeper {
	t.Helper()
	return &Keeper{
		Secrets:  cluster.CoreV1().Secrets("guard"),
		Webhooks: cluster.AdmissionregistrationV1().ValidatingWebhookConfigurations(),
		Secret:   "own", Configuration: "guard", Names: []string{"guard.guard.svc", "127.0.0.1"},
		Directory: t.TempDir(), Now: func() time.Time { return *now }, Issue: Issue, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
}

func registration() *registrationv1.ValidatingWebhookConfiguration {
	return &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"},
		Webhooks:   []registrationv1.ValidatingWebhook{{Name: "one"}, {Name: "two"}},
	}
}

// served is the certificate in the files; it must hold by the registered CAs.
func served(t *testing.T, k *Keeper) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(k.Directory, "tls.crt"), filepath.Join(k.Directory, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	configuration, err := k.Webhooks.Get(t.Context(), "guard", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, hook := range configuration.Webhooks {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(hook.ClientConfig.CABundle)
		for _, name := range k.Names {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: k.Now()}); err != nil {
				t.Errorf("an API server that asks %s by %s cannot trust it: %v", hook.Name, name, err)
			}
		}
	}
	return pair.Leaf
}

func round(t *testing.T, k *Keeper) time.Duration {
	t.Helper()
	pause, err := k.round(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pause
}

// TestLife of a certificate: issued, kept, renewed without a moment in which it
// is not trusted, by two processes.
func TestLife(t *testing.T) {
	var log strings.Builder
	now := time.Now()
	cluster := fake.NewClientset(registration())
	one, other := keeper(t, cluster, &now, &log), keeper(t, cluster, &now, &log)
	issue := func([]string) (chain, key []byte, err error) {
		ca := pkitest.NewCAAround("own", now)
		pair := ca.Issue(pkitest.Request{DNSNames: []string{"guard.guard.svc"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}.Valid(now, now.Add(lifetime)))
		return pair.ChainWith(ca.PEM()), pair.Key, nil
	}
	one.Issue, other.Issue = issue, issue

	round(t, one)
	round(t, other)
	first := served(t, one)
	if !served(t, other).Equal(first) {
		t.Error("they serve two certificates")
	}
	now = now.Add(lifetime - renewAt - 2*time.Hour)
	if pause := round(t, one); pause != every || !served(t, one).Equal(first) {
		t.Errorf("renewed too early, or looked at again after %s", pause)
	}
	now = now.Add(3 * time.Hour)
	if pause := round(t, one); pause > spread || !served(t, one).Equal(first) {
		t.Errorf("the new one is served before it is known; again after %s", pause)
	}
	served(t, other) // which has not looked yet
	now = now.Add(spread + time.Second)
	round(t, other)
	round(t, one)
	second := served(t, one)
	if second.Equal(first) || !served(t, other).Equal(second) {
		t.Error("the new one is not served by both")
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Error("a key was logged")
	}
}

// TestIssue: what is of no use is replaced.
func TestIssue(t *testing.T) {
	cases := map[string]func(*corev1.Secret){
		"deleted":       func(s *corev1.Secret) { s.Name = "" },
		"nothing":       func(s *corev1.Secret) { s.Data = nil },
		"garbage":       func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") },
		"no CA":         func(s *corev1.Secret) { delete(s.Data, "ca.crt") },
		"another CA":    func(s *corev1.Secret) { s.Data["ca.crt"] = foreignCA(t) },
		"another names": nil,
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			now := time.Now()
			cluster := fake.NewClientset(registration())
			k := keeper(t, cluster, &now, &log)
			round(t, k)
			before := served(t, k)
			if spoil == nil {
				k.Names = append(k.Names, "elsewhere.svc")
			} else {
				secret, err := k.Secrets.Get(t.Context(), "own", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				spoil(secret)
				if secret.Name == "" {
					err = k.Secrets.Delete(t.Context(), "own", metav1.DeleteOptions{})
				} else {
					_, err = k.Secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			round(t, k)
			// By the new name nobody could be answered before either.
			if spoil != nil && !served(t, k).Equal(before) {
				t.Error("the new one is served before it is known")
			}
			now = now.Add(spread + time.Second)
			round(t, k)
			if served(t, k).Equal(before) {
				t.Error("it was not replaced")
			}
		})
	}
}

func foreignCA(t *testing.T) []byte {
	t.Helper()
	var log strings.Builder
	now := time.Now()
	k := keeper(t, fake.NewClientset(registration()), &now, &log)
	round(t, k)
	secret, err := k.Secrets.Get(t.Context(), "own", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Data["ca.crt"]
}

// TestRegistrationLater: the webhook serves before it is registered, and is
// registered when that comes.
func TestRegistrationLater(t *testing.T) {
	var log strings.Builder
	now := time.Now()
	cluster := fake.NewClientset()
	k := keeper(t, cluster, &now, &log)
	if pause := round(t, k); pause != retry || !k.usable() {
		t.Errorf("again after %s", pause)
	}
	if _, err := k.Webhooks.Create(t.Context(), registration(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if pause := round(t, k); pause <= retry {
		t.Errorf("again after %s", pause)
	}
	served(t, k)
}

// TestStart: many processes that start at once agree.
func TestStart(t *testing.T) {
	now := time.Now()
	cluster := fake.NewClientset(registration())
	var group sync.WaitGroup
	keepers := make([]*Keeper, 5)
	for i := range keepers {
		var log strings.Builder
		keepers[i] = keeper(t, cluster, &now, &log)
		ready := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		group.Go(func() { keepers[i].Run(ctx, ready) })
		group.Go(func() {
			<-ready
			cancel()
		})
	}
	group.Wait()
	for _, k := range keepers[1:] {
		if !served(t, k).Equal(served(t, keepers[0])) {
			t.Error("they serve different certificates")
		}
	}
}

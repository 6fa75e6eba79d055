// SPDX-License-Identifier: Apache-2.0

package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// keeper returns a Keeper for a cluster, with a clock that the test sets.
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

// served returns the certificate in the files; the registered CAs must trust it.
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
				t.Errorf("an API server that calls %s at %s does not trust it: %v", hook.Name, name, err)
			}
		}
	}
	return pair.Leaf
}

func round(t *testing.T, k *Keeper) time.Duration {
	t.Helper()
	pause, err := k.reconcile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pause
}

// issueAt returns [Issue] with a clock that the test sets.
func issueAt(now *time.Time) func([]string) (chain, key []byte, err error) {
	return func([]string) (chain, key []byte, err error) {
		ca := pkitest.NewCAAround("own", *now)
		pair := ca.Issue(
			pkitest.Request{
				DNSNames: []string{"guard.guard.svc"},
				IPs:      []net.IP{net.IPv4(127, 0, 0, 1)},
			}.Valid(*now, now.Add(lifetime)),
		)
		return pair.ChainWith(ca.PEM()), pair.Key, nil
	}
}

// TestOtherReplicaIssues: a process that serves an older certificate than the one that issues must not wait with the
// new one, if its own CA is no longer registered.
func TestOtherReplicaIssues(t *testing.T) {
	now := time.Now()
	cluster := fake.NewClientset(registration())
	one, late := keeper(t, cluster, &now, new(strings.Builder)), keeper(t, cluster, &now, new(strings.Builder))
	one.Issue, late.Issue = issueAt(&now), issueAt(&now)
	round(t, one)
	round(t, late)
	for range 2 { // each time the CAs in the Secret are lost, and one registers those that it knows
		if err := one.Secrets.Delete(t.Context(), one.Secret, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		round(t, one)
		served(t, one)
		now = now.Add(propagationTime + time.Second)
		round(t, one)
	}
	now = now.Add(-propagationTime) // the last certificate is new when the other process checks
	round(t, late)
	if !served(t, late).Equal(served(t, one)) {
		t.Error("the processes serve different certificates")
	}
}

// TestLifecycle: two processes issue a certificate, keep it and renew it, and what they
// serve is trusted at each step.
func TestLifecycle(t *testing.T) {
	var log strings.Builder
	now := time.Now()
	cluster := fake.NewClientset(registration())
	one, other := keeper(t, cluster, &now, &log), keeper(t, cluster, &now, &log)
	one.Issue, other.Issue = issueAt(&now), issueAt(&now)

	round(t, one)
	round(t, other)
	first := served(t, one)
	if !served(t, other).Equal(first) {
		t.Error("the processes serve different certificates")
	}
	now = now.Add(lifetime - renewAt - 2*time.Hour)
	if pause := round(t, one); pause != checkInterval || !served(t, one).Equal(first) {
		t.Errorf("renewed too early, or checked again after %s", pause)
	}
	now = now.Add(3 * time.Hour)
	if pause := round(t, one); pause > propagationTime || !served(t, one).Equal(first) {
		t.Errorf("the new certificate is served before its CA is known; checked again after %s", pause)
	}
	served(t, other) // which has not checked yet
	now = now.Add(propagationTime + time.Second)
	round(t, other)
	round(t, one)
	second := served(t, one)
	if second.Equal(first) || !served(t, other).Equal(second) {
		t.Error("not both processes serve the new certificate")
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Error("a key was logged")
	}
}

// TestIssue: an unusable certificate is replaced.
func TestIssue(t *testing.T) {
	cases := map[string]func(*corev1.Secret){
		"deleted":     func(s *corev1.Secret) { s.Name = "" },
		"no data":     func(s *corev1.Secret) { s.Data = nil },
		"invalid key": func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") },
		"no CA":       func(s *corev1.Secret) { delete(s.Data, "ca.crt") },
		"another CA":  func(s *corev1.Secret) { s.Data["ca.crt"] = foreignCA(t) },
		"other names": nil,
	}
	for name, corrupt := range cases {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			now := time.Now()
			cluster := fake.NewClientset(registration())
			k := keeper(t, cluster, &now, &log)
			round(t, k)
			before := served(t, k)
			if corrupt == nil {
				k.Names = append(k.Names, "elsewhere.svc")
			} else {
				secret, err := k.Secrets.Get(t.Context(), "own", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				corrupt(secret)
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
			// With the new name, the old certificate was not valid either.
			if corrupt != nil && !served(t, k).Equal(before) {
				t.Error("the new certificate is served before its CA is known")
			}
			now = now.Add(propagationTime + time.Second)
			round(t, k)
			if served(t, k).Equal(before) {
				t.Error("the certificate was not replaced")
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

// TestRegistrationLater: the certificate is served before the webhook configuration exists,
// and its CA is registered after that was created.
func TestRegistrationLater(t *testing.T) {
	var log strings.Builder
	now := time.Now()
	cluster := fake.NewClientset()
	k := keeper(t, cluster, &now, &log)
	if pause := round(t, k); pause != retryDelay || !k.filesUsable() {
		t.Errorf("checked again after %s", pause)
	}
	if _, err := k.Webhooks.Create(t.Context(), registration(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if pause := round(t, k); pause <= retryDelay {
		t.Errorf("checked again after %s", pause)
	}
	served(t, k)
}

// TestConcurrentStart: processes that start at the same time agree on one certificate.
func TestConcurrentStart(t *testing.T) {
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
			t.Error("the processes serve different certificates")
		}
	}
}

// TestRefused: a missing permission is logged once, the recovery is logged, too, and the
// retries slow down to one a minute.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		now := time.Now()
		cluster := fake.NewClientset(registration())
		requests, until := 0, now.Add(time.Hour)
		cluster.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			if !time.Now().Before(until) {
				return false, nil, nil
			}
			requests++
			return true, nil, apierrors.NewForbidden(corev1.Resource("secrets"), "own", errors.New("no permission"))
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour+time.Minute)
		defer cancel()
		keeper(t, cluster, &now, &log).Run(ctx, nil)
		if requests < 60 || requests > 70 {
			t.Errorf("requested %d times in an hour, want 60 to 70", requests)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if !strings.Contains(lines[len(lines)-1], "level=INFO ") || strings.Contains(lines[len(lines)-1],
			" err=") || strings.Count(log.String(), "no permission") != 1 {
			t.Errorf("want one line for the failure and one for the recovery:\n%s", &log)
		}
	})
}

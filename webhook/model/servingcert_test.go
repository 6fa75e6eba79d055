// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
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
	"pgregory.net/rapid"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/servingcert"
)

const (
	// propagation is how long an API server may still use a CA bundle that was replaced.
	propagation = 25 * time.Second
	// checkEvery is the time between two checks of a replica.
	checkEvery = time.Minute
)

// shared is what the replicas of the webhook share: their Secret and their registration.
type shared struct {
	mu            sync.Mutex
	secret        *corev1.Secret
	configuration *registrationv1.ValidatingWebhookConfiguration
	version       int
	// replaced are the CA bundles that were registered before, and until when.
	replaced []bundle
}

type bundle struct {
	pem   []byte
	until time.Time
}

// replica is one of them.
type replica struct {
	directory string
	// silent: the API server does not answer it.
	silent bool
	served *x509.Certificate
	// files and checked are the certificate and the version of what is shared at the last check.
	files   []byte
	checked int
	// distrusted is since when the registered CA bundle does not trust what is served; zero if it does.
	distrusted time.Time
}

const certificateName = "certificate"

var errSilent = errors.New("the API server does not answer")

// A certificate is renewed when renewAt is left. issue makes one that is renewed after renewedAfter, since months of
// checks take long.
const renewAt, renewedAfter = 365 * 24 * time.Hour / 3, 6 * time.Hour

// issue is [servingcert.Issue] with keys that are made fast.
func issue(names []string) (chain, key []byte, err error) {
	ca := pkitest.NewCAAround("webhook-ca", time.Now())
	pair := ca.Issue(pkitest.Request{DNSNames: names, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}.
		Valid(time.Now().Add(-time.Minute), time.Now().Add(renewAt+renewedAfter)))
	return pair.ChainWith(ca.PEM()), pair.Key, nil
}

// react answers as an API server does: it refuses a write of an old version.
func (s *shared) react(action clienttesting.Action) (handled bool, answer runtime.Object, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	isSecret := action.GetResource().Resource == "secrets"
	missing := apierrors.NewNotFound(action.GetResource().GroupResource(), "")
	switch a := action.(type) {
	case clienttesting.GetActionImpl:
		switch {
		case isSecret && s.secret != nil:
			return true, s.secret.DeepCopy(), nil
		case !isSecret && s.configuration != nil:
			return true, s.configuration.DeepCopy(), nil
		}
		return true, nil, missing
	case clienttesting.CreateActionImpl:
		if s.secret != nil {
			return true, nil, apierrors.NewAlreadyExists(a.GetResource().GroupResource(), certificateName)
		}
		s.secret = a.GetObject().DeepCopyObject().(*corev1.Secret) //nolint:forcetypeassert // nothing else is created
		s.secret.ResourceVersion = s.nextVersion()
		return true, s.secret.DeepCopy(), nil
	case clienttesting.UpdateActionImpl:
		conflict := apierrors.NewConflict(a.GetResource().GroupResource(), "", errors.New("an old version"))
		switch object := a.GetObject().DeepCopyObject().(type) {
		case *corev1.Secret:
			if s.secret == nil {
				return true, nil, missing
			}
			if object.ResourceVersion != s.secret.ResourceVersion {
				return true, nil, conflict
			}
			s.secret = object
			s.secret.ResourceVersion = s.nextVersion()
			return true, s.secret.DeepCopy(), nil
		case *registrationv1.ValidatingWebhookConfiguration:
			if object.ResourceVersion != s.configuration.ResourceVersion {
				return true, nil, conflict
			}
			s.register(object)
			return true, s.configuration.DeepCopy(), nil
		}
	}
	return true, nil, fmt.Errorf("unexpected: %s %s", action.GetVerb(), action.GetResource().Resource)
}

func (s *shared) nextVersion() string {
	s.version++
	return strconv.Itoa(s.version)
}

// registered returns the registered CA bundle.
func (s *shared) registered() []byte { return s.configuration.Webhooks[0].ClientConfig.CABundle }

// register stores a registration.
func (s *shared) register(object *registrationv1.ValidatingWebhookConfiguration) {
	if s.configuration != nil {
		s.replaced = append(s.replaced, bundle{s.registered(), time.Now()})
	}
	s.configuration = object
	s.configuration.ResourceVersion = s.nextVersion()
}

// newRegistration is a registration without a CA, as the chart installs it.
func newRegistration() *registrationv1.ValidatingWebhookConfiguration {
	return &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: guardName}, Webhooks: []registrationv1.ValidatingWebhook{{Name: "secrets"}},
	}
}

// start starts a replica, until the context ends.
func (s *shared) start(ctx context.Context, r *replica, ended chan<- struct{}) {
	client := fake.NewClientset()
	client.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if r.silent {
			return true, nil, errSilent
		}
		return s.react(action)
	})
	keeper := &servingcert.Keeper{
		Secrets:  client.CoreV1().Secrets(guardName),
		Webhooks: client.AdmissionregistrationV1().ValidatingWebhookConfigurations(),
		Secret:   certificateName, Configuration: guardName, Names: []string{"guard.guard.svc"},
		Directory: r.directory, Issue: issue, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	go func() {
		keeper.Run(ctx, make(chan struct{}))
		ended <- struct{}{}
	}()
}

// checkTrust: API servers trust what a replica serves, or do so again after its next check: two replicas may serve
// different certificates, and one of them loses its CA if the Secret is deleted. When a replica serves another
// certificate than before, although API servers trust that one, they trust the new one also with a CA bundle that was
// registered until a short time ago.
func (s *shared) checkTrust(r *replica) error {
	files, err := os.ReadFile(filepath.Join(r.directory, "tls.crt"))
	if err != nil {
		if r.served != nil {
			return fmt.Errorf("nothing is served any more: %w", err)
		}
		return nil
	}
	if s.version == r.checked && bytes.Equal(files, r.files) && r.distrusted.IsZero() {
		return nil
	}
	r.checked, r.files = s.version, files
	pair, err := tls.LoadX509KeyPair(filepath.Join(r.directory, "tls.crt"), filepath.Join(r.directory, "tls.key"))
	if err != nil {
		return err
	}
	before := r.served
	r.served = pair.Leaf
	if before == nil {
		return nil // no API server knows the first certificate yet
	}
	if r.silent || trusts(s.registered(), pair.Leaf) {
		r.distrusted = time.Time{}
	} else if r.distrusted.IsZero() {
		r.distrusted = time.Now()
	} else if time.Since(r.distrusted) > checkEvery {
		return fmt.Errorf("the registered CA bundle does not trust what is served since %s", r.distrusted)
	}
	for _, b := range s.replaced {
		if time.Since(b.until) < propagation && trusts(s.registered(), before) &&
			trusts(b.pem, before) && !trusts(b.pem, pair.Leaf) {
			return errors.New("a certificate is served that some API servers do not trust yet")
		}
	}
	return nil
}

// trusts reports whether a CA bundle trusts a certificate now.
func trusts(bundle []byte, leaf *x509.Certificate) bool {
	cas, err := pki.ParseBundle(bundle)
	if err != nil {
		return false
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: cas.Pool(), CurrentTime: time.Now()})
	return err == nil
}

// change is a change of what the replicas share, and the time until the next one.
type change struct {
	what string
	of   int // which replica
	then time.Duration
}

// TestServingCertificate changes what the replicas of a webhook share, at random, while they run.
func TestServingCertificate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var changes []change
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			changes = append(changes, change{
				rapid.SampledFrom([]string{
					"delete the Secret", "spoil the Secret", "reinstall", "silent", "hours", "nothing",
				}).Draw(rt, "change"),
				rapid.IntRange(0, 1).Draw(rt, "replica"),
				rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second, time.Minute, 3 * time.Minute}).Draw(rt, "time"),
			})
		}
		var err error
		directory := t.TempDir()
		synctest.Test(t, func(*testing.T) { err = runReplicas(directory, changes) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// runReplicas runs two replicas.
func runReplicas(directory string, changes []change) error {
	s := &shared{configuration: newRegistration()}
	replicas := make([]*replica, 2)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, len(replicas))
	defer func() {
		cancel()
		for range replicas {
			<-ended
		}
	}()
	for i := range replicas {
		replicas[i] = &replica{directory: filepath.Join(directory, strconv.Itoa(i))}
		if err := os.Mkdir(replicas[i].directory, 0o700); err != nil {
			return err
		}
		s.start(ctx, replicas[i], ended)
		<-time.After(100 * time.Millisecond) // so that they never do something at the same time
	}
	// let lets time pass, and checks each second.
	let := func(pass time.Duration) error {
		for end := time.Now().Add(pass); time.Now().Before(end); {
			<-time.After(min(time.Second, time.Until(end)))
			synctest.Wait()
			for i, r := range replicas {
				if err := s.checkTrust(r); err != nil {
					return fmt.Errorf("replica %d: %w", i, err)
				}
			}
		}
		return nil
	}
	if err := let(time.Minute); err != nil {
		return err
	}
	for i, c := range changes {
		switch c.what {
		case "delete the Secret":
			s.secret = nil
		case "spoil the Secret":
			if s.secret != nil {
				s.secret.Data["tls.crt"] = []byte("garbage")
				s.secret.ResourceVersion = s.nextVersion()
			}
		case "reinstall": // Helm leaves the CA bundle as it is
			s.register(s.configuration.DeepCopy())
		case "silent":
			replicas[c.of].silent = !replicas[c.of].silent
		case "hours":
			<-time.After(renewedAfter)
			synctest.Wait()
		}
		if err := let(c.then); err != nil {
			return fmt.Errorf("after change %d of %+v: %w", i+1, changes, err)
		}
	}
	for _, r := range replicas {
		r.silent = false
	}
	if err := let(4 * time.Minute); err != nil {
		return fmt.Errorf("after %+v: %w", changes, err)
	}
	if err := s.checkSettled(replicas); err != nil {
		return fmt.Errorf("some minutes after %+v: %w", changes, err)
	}
	return nil
}

// checkSettled checks what must be true some minutes after the last change.
func (s *shared) checkSettled(replicas []*replica) error {
	stored, err := pki.ParseChain(s.secret.Data["tls.crt"])
	if err != nil {
		return err
	}
	for i, r := range replicas {
		switch {
		case r.served == nil || !bytes.Equal(stored.Leaf.Raw, r.served.Raw):
			return fmt.Errorf("replica %d does not serve the stored certificate", i)
		case !trusts(s.registered(), r.served):
			return fmt.Errorf("the registered CA does not trust what replica %d serves", i)
		case time.Until(r.served.NotAfter) < renewAt:
			return fmt.Errorf("what replica %d serves is not renewed: it ends at %s", i, r.served.NotAfter)
		}
	}
	return nil
}

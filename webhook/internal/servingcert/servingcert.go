// SPDX-License-Identifier: Apache-2.0

// Package servingcert gives the webhook a serving certificate where nobody else
// does: it issues one, keeps it in a Secret that all of the webhook's processes
// share, registers its CA with the API server, and writes it to the files that
// are served from.
package servingcert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	admissionv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/cert"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// lifetime of a certificate, of which it is renewed when renewAt is left.
	lifetime = 365 * 24 * time.Hour
	renewAt  = lifetime / 3
	// spread is how long a new CA is registered before its certificate is served:
	// every API server must have seen it. The old one stays registered.
	spread = 30 * time.Second
	// every is how often all of that is looked at, retry after a failure or a
	// change.
	every, retry = time.Minute, 2 * time.Second
	// callTime bounds the calls of one round.
	callTime = 20 * time.Second
	// maxCAs bounds those that are registered: the last ones.
	maxCAs = 3

	caKey = "ca.crt"
	// issuedAt is the annotation with the moment of issue (RFC 3339).
	issuedAt = "kubelet-https-guard.io/issued-at"
)

// Keeper keeps the certificate.
type Keeper struct {
	Secrets  coreclient.SecretInterface // of the webhook's own namespace
	Webhooks admissionv1.ValidatingWebhookConfigurationInterface
	// Secret and Configuration are the names of the objects; the Secret is made,
	// the ValidatingWebhookConfiguration is somebody else's.
	Secret, Configuration string
	// Names, at least one, are the DNS names and IP addresses that API servers
	// reach the webhook at.
	Names []string
	// Directory has tls.crt and tls.key.
	Directory string
	// Issue makes a key and a chain of its certificate for the names and a CA:
	// [Issue], but in tests of what happens in a year.
	Issue func(names []string) (chain, key []byte, err error)
	Now   func() time.Time
	Log   *slog.Logger

	fault string // that was told last
}

// errAgain: somebody else was faster; what is there now must be looked at.
var errAgain = errors.New("another process has just written the object")

// Run keeps the certificate until the context ends. ready is closed when there
// are files to serve from.
func (k *Keeper) Run(ctx context.Context, ready chan<- struct{}) {
	for {
		pause, err := k.round(ctx)
		switch {
		case errors.Is(err, errAgain):
		case err != nil && k.fault != err.Error():
			k.fault = err.Error()
			k.Log.ErrorContext(ctx, "Serving certificate not kept, trying again", "err", err)
		case err == nil:
			k.fault = ""
		}
		if ready != nil && k.usable() {
			close(ready)
			ready = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// round looks at everything once. pause is when to do it again.
func (k *Keeper) round(ctx context.Context) (pause time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	secret, err := k.Secrets.Get(ctx, k.Secret, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return retry, fmt.Errorf("read Secret %s: %w", k.Secret, err)
	}
	if apierrors.IsNotFound(err) {
		secret = nil
	}
	if why := k.unfit(secret); why != "" {
		k.Log.InfoContext(ctx, "Issuing a serving certificate", "why", why, "names", k.Names)
		if secret, err = k.issue(ctx, secret); err != nil {
			return retry, err
		}
	}
	registered, err := k.register(ctx, secret.Data[caKey])
	if err != nil && !apierrors.IsNotFound(err) {
		return retry, fmt.Errorf("register the CA with ValidatingWebhookConfiguration %s: %w", k.Configuration, err)
	}
	// A certificate that API servers do not know the CA of yet is not served if
	// there is another.
	issued, _ := time.Parse(time.RFC3339, secret.Annotations[issuedAt])
	if wait := issued.Add(spread).Sub(k.Now()); wait > 0 && k.usable() {
		return min(wait, every), nil
	}
	if err := k.write(secret); err != nil {
		return retry, err
	}
	if !registered {
		return retry, nil // it may be installed after the webhook
	}
	return every, nil
}

// unfit says why a certificate must be issued; empty if none.
func (k *Keeper) unfit(secret *corev1.Secret) string {
	if secret == nil {
		return "there is no Secret"
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return "the Secret holds no pair that can be served"
	}
	for _, name := range k.Names {
		if pair.Leaf.VerifyHostname(name) != nil {
			return "it does not hold for " + name
		}
	}
	if k.Now().Add(renewAt).After(pair.Leaf.NotAfter) {
		return "it expires at " + pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	cas, err := pki.ParseBundle(secret.Data[caKey])
	if err != nil {
		return "the Secret holds no CA"
	}
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: k.Now()}); err != nil {
		return "it was not issued by the CA beside it"
	}
	return ""
}

// Issue issues a certificate for the names, at least one, that holds for a year
// from now. The key of its CA is thrown away.
func Issue(names []string) (chain, key []byte, err error) {
	options := cert.SelfSignedCertKeyOptions{Host: names[0], MaxAge: lifetime}
	for _, name := range names[1:] {
		if ip := net.ParseIP(name); ip != nil {
			options.AlternateIPs = append(options.AlternateIPs, ip)
		} else {
			options.AlternateDNS = append(options.AlternateDNS, name)
		}
	}
	return cert.GenerateSelfSignedCertKeyWithOptions(options)
}

// issue puts a new certificate into the Secret.
func (k *Keeper) issue(ctx context.Context, before *corev1.Secret) (*corev1.Secret, error) {
	chain, key, err := k.Issue(k.Names)
	if err != nil {
		return nil, fmt.Errorf("issue a serving certificate: %w", err)
	}
	parsed, err := pki.ParseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("issue a serving certificate: it %w", err)
	}
	if len(parsed.Rest) != 1 {
		return nil, errors.New("issue a serving certificate: it came without its CA")
	}
	// What is served until the new one is known stays trusted, whatever has become
	// of the Secret.
	registered, err := k.registered(ctx)
	if err != nil {
		return nil, err
	}
	cas := append([]*x509.Certificate{parsed.Rest[0]}, registered...)
	// Of the type that the chart gives it, which comes without data.
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: k.Secret}, Type: corev1.SecretTypeOpaque}
	if before != nil {
		secret = before.DeepCopy()
		old, _ := pki.ParseBundle(before.Data[caKey]) // of no use where there is none
		for _, ca := range old {
			if !slices.ContainsFunc(cas, ca.Equal) {
				cas = append(cas, ca)
			}
		}
	}
	var bundle []byte
	for _, ca := range cas[:min(len(cas), maxCAs)] {
		pem, err := cert.EncodeCertificates(ca)
		if err != nil {
			return nil, fmt.Errorf("encode the CA: %w", err)
		}
		bundle = append(bundle, pem...)
	}
	secret.Data = map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key, caKey: bundle}
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, issuedAt, k.Now().UTC().Format(time.RFC3339))
	var stored *corev1.Secret
	if before == nil {
		stored, err = k.Secrets.Create(ctx, secret, metav1.CreateOptions{})
	} else {
		stored, err = k.Secrets.Update(ctx, secret, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return nil, errAgain
	case err != nil:
		return nil, fmt.Errorf("write Secret %s: %w", k.Secret, err)
	}
	return stored, nil
}

// registered are the CAs that API servers trust now and that vouch for what is
// in the files.
func (k *Keeper) registered(ctx context.Context) ([]*x509.Certificate, error) {
	served, err := k.served()
	if err != nil {
		return nil, nil //nolint:nilerr // nothing is served yet
	}
	configuration, err := k.Webhooks.Get(ctx, k.Configuration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ValidatingWebhookConfiguration %s: %w", k.Configuration, err)
	}
	var vouching []*x509.Certificate
	for _, hook := range configuration.Webhooks {
		cas, _ := pki.ParseBundle(hook.ClientConfig.CABundle) // of no use where there is none
		for _, ca := range cas {
			roots := x509.NewCertPool()
			roots.AddCert(ca)
			_, err := served.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: k.Now()})
			if err == nil && !slices.ContainsFunc(vouching, ca.Equal) {
				vouching = append(vouching, ca)
			}
		}
	}
	return vouching, nil
}

// register has API servers trust the CAs; false where the configuration is not
// there yet.
func (k *Keeper) register(ctx context.Context, bundle []byte) (bool, error) {
	configuration, err := k.Webhooks.Get(ctx, k.Configuration, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	changed := false
	for i := range configuration.Webhooks {
		if client := &configuration.Webhooks[i].ClientConfig; !bytes.Equal(client.CABundle, bundle) {
			client.CABundle, changed = bundle, true
		}
	}
	if !changed {
		return true, nil
	}
	_, err = k.Webhooks.Update(ctx, configuration, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return false, errAgain // the other replica does the same
	}
	if err != nil {
		return false, err
	}
	k.Log.InfoContext(ctx, "CA registered", "configuration", k.Configuration)
	return true, nil
}

// served is the certificate in the files.
func (k *Keeper) served() (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(k.Directory, corev1.TLSCertKey), filepath.Join(k.Directory, corev1.TLSPrivateKeyKey))
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// usable reports whether the files can be served from.
func (k *Keeper) usable() bool {
	leaf, err := k.served()
	return err == nil && k.Now().Before(leaf.NotAfter)
}

// write writes the files, each in one step.
func (k *Keeper) write(secret *corev1.Secret) error {
	for _, name := range []string{corev1.TLSPrivateKeyKey, corev1.TLSCertKey} {
		path := filepath.Join(k.Directory, name)
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, secret.Data[name]) {
			continue
		}
		if err := os.WriteFile(path+".new", secret.Data[name], 0o600); err != nil {
			return fmt.Errorf("write the serving certificate: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("write the serving certificate: %w", err)
		}
	}
	return nil
}

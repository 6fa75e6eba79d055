// SPDX-License-Identifier: Apache-2.0

// Package servingcert manages the webhook's serving certificate if the cluster does not
// provide one: it issues one, stores it in a Secret that all replicas of the webhook share,
// registers its CA with the API server, and writes it to the files that the server reads.
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
	// lifetime of a certificate. It is renewed when only renewAt of it is left.
	lifetime = 365 * 24 * time.Hour
	renewAt  = lifetime / 3
	// propagationTime is how long a new CA is registered before its certificate is served:
	// every API server must have read it. The old CA stays registered.
	propagationTime = 30 * time.Second
	// checkInterval is the time between two checks, retryDelay that after a failure or a
	// change.
	checkInterval, retryDelay = time.Minute, 2 * time.Second
	// roundTimeout bounds the API calls of one check.
	roundTimeout = 20 * time.Second
	// maxCAs bounds the registered CAs; the latest ones are kept.
	maxCAs = 3

	caKey = "ca.crt"
	// issuedAt is the annotation with the time of issue (RFC 3339).
	issuedAt = "kubelet-https-guard.io/issued-at"
)

// Keeper keeps the serving certificate valid.
type Keeper struct {
	Secrets  coreclient.SecretInterface // of the webhook's own namespace
	Webhooks admissionv1.ValidatingWebhookConfigurationInterface
	// Secret and Configuration are the names of the objects. Keeper creates the Secret, but
	// not the ValidatingWebhookConfiguration.
	Secret, Configuration string
	// Names are the DNS names and IP addresses, at least one, at which API servers call
	// the webhook.
	Names []string
	// Directory is where tls.crt and tls.key are written.
	Directory string
	// Issue makes a key, and a chain of a certificate for the names and its CA. It is
	// [Issue], except in tests that change the time.
	Issue func(names []string) (chain, key []byte, err error)
	Now   func() time.Time
	Log   *slog.Logger

	lastError string // the one that was logged last; empty after a success
}

// errConflict says that another process wrote the object first, so it must be read again.
var errConflict = errors.New("another process has just written the object")

// Run manages the certificate until the context ends. It closes ready when the files can be
// served.
func (k *Keeper) Run(ctx context.Context, ready chan<- struct{}) {
	refusedDelay := retryDelay // the next pause after a refusal
	for {
		pause, err := k.reconcile(ctx)
		// A missing permission may last forever.
		if apierrors.IsForbidden(err) {
			pause, refusedDelay = refusedDelay, min(2*refusedDelay, checkInterval)
		} else {
			refusedDelay = retryDelay
		}
		switch {
		case errors.Is(err, errConflict):
		case err != nil && k.lastError != err.Error():
			k.lastError = err.Error()
			k.Log.ErrorContext(ctx, "Cannot manage the serving certificate, trying again", "err", err)
		case err == nil:
			if k.lastError != "" {
				k.Log.InfoContext(ctx, "The serving certificate is managed again")
			}
			k.lastError = ""
		}
		if ready != nil && k.filesUsable() {
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

// reconcile checks everything once. pause is the time until the next check.
func (k *Keeper) reconcile(ctx context.Context) (pause time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	secret, err := k.Secrets.Get(ctx, k.Secret, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return retryDelay, fmt.Errorf("read Secret %s: %w", k.Secret, err)
	}
	if apierrors.IsNotFound(err) {
		secret = nil
	}
	if why := k.whyReissue(secret); why != "" {
		k.Log.InfoContext(ctx, "Issuing a serving certificate", "why", why, "names", k.Names)
		if secret, err = k.issue(ctx, secret); err != nil {
			return retryDelay, err
		}
	}
	registered, err := k.register(ctx, secret.Data[caKey])
	if err != nil && !apierrors.IsNotFound(err) {
		return retryDelay, fmt.Errorf("register the CA with ValidatingWebhookConfiguration %s: %w", k.Configuration, err)
	}
	// While API servers may not know the CA of a new certificate yet, the old one is served, if
	// there is one that they still trust: another replica, which served a later one, may have
	// registered CAs that do not include its CA.
	issued, _ := time.Parse(time.RFC3339, secret.Annotations[issuedAt])
	if wait := issued.Add(propagationTime).Sub(k.Now()); wait > 0 && k.filesTrustedBy(secret.Data[caKey]) {
		return min(wait, checkInterval), nil
	}
	if err := k.writeFiles(secret); err != nil {
		return retryDelay, err
	}
	if !registered {
		return retryDelay, nil // the configuration may be installed after the webhook
	}
	return checkInterval, nil
}

// whyReissue says why a certificate must be issued; empty if the current one is valid.
func (k *Keeper) whyReissue(secret *corev1.Secret) string {
	if secret == nil {
		return "the Secret does not exist"
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return "the Secret has no usable certificate and key"
	}
	for _, name := range k.Names {
		if pair.Leaf.VerifyHostname(name) != nil {
			return "the certificate is not valid for " + name
		}
	}
	if k.Now().Add(renewAt).After(pair.Leaf.NotAfter) {
		return "the certificate expires at " + pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	cas, err := pki.ParseBundle(secret.Data[caKey])
	if err != nil {
		return "the Secret has no CA"
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: cas.Pool(), CurrentTime: k.Now()}); err != nil {
		return "the certificate is not signed by the CA in the Secret"
	}
	return ""
}

// Issue issues a certificate for the names, at least one, that is valid for a year from
// now. It discards the key of the CA.
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

// issue stores a new certificate in the Secret.
func (k *Keeper) issue(ctx context.Context, before *corev1.Secret) (*corev1.Secret, error) {
	chain, key, err := k.Issue(k.Names)
	if err != nil {
		return nil, fmt.Errorf("issue a serving certificate: %w", err)
	}
	parsed, err := pki.ParseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("issue a serving certificate: the chain %w", err)
	}
	if len(parsed.Rest) != 1 {
		return nil, errors.New("issue a serving certificate: the chain must contain exactly one CA")
	}
	// The certificate that is served until the new CA is known must stay trusted, whatever
	// happened to the Secret.
	registered, err := k.trustedCAs(ctx)
	if err != nil {
		return nil, err
	}
	cas := append([]*x509.Certificate{parsed.Rest[0]}, registered...)
	// The type is that of the empty Secret that the chart creates.
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: k.Secret}, Type: corev1.SecretTypeOpaque}
	if before != nil {
		secret = before.DeepCopy()
		old, _ := pki.ParseBundle(before.Data[caKey]) // an invalid bundle has no CA to keep
		for _, ca := range old.CAs {
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
		return nil, errConflict
	case err != nil:
		return nil, fmt.Errorf("write Secret %s: %w", k.Secret, err)
	}
	return stored, nil
}

// trustedCAs returns the registered CAs that signed the certificate in the files.
func (k *Keeper) trustedCAs(ctx context.Context) ([]*x509.Certificate, error) {
	served, err := k.servedLeaf()
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
	var signers []*x509.Certificate
	for _, hook := range configuration.Webhooks {
		cas, _ := pki.ParseBundle(hook.ClientConfig.CABundle) // an invalid bundle has no CA
		for _, ca := range cas.CAs {
			roots := x509.NewCertPool()
			roots.AddCert(ca)
			_, err := served.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: k.Now()})
			if err == nil && !slices.ContainsFunc(signers, ca.Equal) {
				signers = append(signers, ca)
			}
		}
	}
	return signers, nil
}

// register writes the CAs into the webhook configuration; false if that does not exist yet.
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
		return false, errConflict // by another replica that does the same
	}
	if err != nil {
		return false, err
	}
	k.Log.InfoContext(ctx, "CA of the serving certificate registered", "configuration", k.Configuration)
	return true, nil
}

// servedLeaf returns the certificate in the files.
func (k *Keeper) servedLeaf() (*x509.Certificate, error) {
	certificate := filepath.Join(k.Directory, corev1.TLSCertKey)
	pair, err := tls.LoadX509KeyPair(certificate, filepath.Join(k.Directory, corev1.TLSPrivateKeyKey))
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// filesUsable reports whether the files have a certificate that has not expired, and its key.
func (k *Keeper) filesUsable() bool {
	leaf, err := k.servedLeaf()
	return err == nil && k.Now().Before(leaf.NotAfter)
}

// filesTrustedBy reports whether the files have a certificate that a CA bundle trusts now.
func (k *Keeper) filesTrustedBy(bundle []byte) bool {
	leaf, err := k.servedLeaf()
	if err != nil {
		return false
	}
	cas, _ := pki.ParseBundle(bundle) // an invalid bundle trusts nothing
	_, err = leaf.Verify(x509.VerifyOptions{Roots: cas.Pool(), CurrentTime: k.Now()})
	return err == nil
}

// writeFiles writes the files, each atomically.
func (k *Keeper) writeFiles(secret *corev1.Secret) error {
	for _, name := range []string{corev1.TLSPrivateKeyKey, corev1.TLSCertKey} {
		path := filepath.Join(k.Directory, name)
		if current, err := os.ReadFile(path); err == nil && bytes.Equal(current, secret.Data[name]) {
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

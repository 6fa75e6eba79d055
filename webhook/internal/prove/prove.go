// SPDX-License-Identifier: Apache-2.0

// Package prove tries to weaken the protected Secrets, and tells whether the
// guard refuses it. Every try is a dry run: nothing is changed, and nothing of
// what is stored is read.
package prove

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// pause is the time between two tries at the same thing.
	pause = time.Second
	// maxAnswer bounds how much of the API server's answer is shown, in bytes.
	maxAnswer = 400
)

// ErrNotRefused: the guard let something through, or could not be asked.
var ErrNotRefused = errors.New("not everything was refused by the guard")

// Secret is a protected Secret that refuses, not one that only warns. Type is
// kubernetes.io/tls if it is empty.
type Secret struct{ Namespace, Name, Type string }

// tries are what is written into a Secret: the first can be seen without
// knowing certificates, so the policy refuses it as well, the second by the
// webhook alone.
var tries = []struct{ what, certificate string }{
	{"an empty certificate", ""},
	{"a certificate that is none", "not a certificate"},
}

// Prover proves.
type Prover struct {
	Secrets coreclient.SecretsGetter
	// Patience is how long it is waited for a refusal: a guard that has just been
	// installed needs a moment.
	Patience time.Duration
	Out      io.Writer
}

// Prove makes all tries and writes a line for each. The error is
// [ErrNotRefused], or the context's.
func (p *Prover) Prove(ctx context.Context, secrets []Secret) error {
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	refused := true
	for _, secret := range secrets {
		for _, try := range tries {
			result, ok := p.await(ctx, secret, try.certificate)
			if !ok {
				refused = false
			}
			if _, err := fmt.Fprintf(p.Out, "Secret %s/%s, %s: %s\n", secret.Namespace, secret.Name, try.what, result); err != nil {
				return err
			}
		}
	}
	if !refused {
		return ErrNotRefused
	}
	return nil
}

// await repeats a try until it is refused or the time is up.
func (p *Prover) await(ctx context.Context, secret Secret, certificate string) (result string, refused bool) {
	for {
		result, refused = p.try(context.WithoutCancel(ctx), secret, certificate)
		if refused {
			return result, true
		}
		select {
		case <-ctx.Done():
			return result, false
		case <-time.After(pause):
		}
	}
}

// try writes into the Secret, or makes one where there is none.
func (p *Prover) try(ctx context.Context, secret Secret, certificate string) (result string, refused bool) {
	api := p.Secrets.Secrets(secret.Namespace)
	patch := fmt.Sprintf(`{"data":{"tls.crt":%q}}`, base64.StdEncoding.EncodeToString([]byte(certificate)))
	dryRun := []string{metav1.DryRunAll}
	_, err := api.Patch(ctx, secret.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: secret.Name},
			Type:       cmp.Or(corev1.SecretType(secret.Type), corev1.SecretTypeTLS),
			Data:       map[string][]byte{corev1.TLSCertKey: []byte(certificate), corev1.TLSPrivateKeyKey: []byte(certificate)},
		}, metav1.CreateOptions{DryRun: dryRun})
	}
	switch {
	case err == nil:
		return "NOT REFUSED: it would have been stored", false
	// What the guard refuses says which control it would break, whoever of its
	// two parts refused it; a missing right does not.
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), finding.ControlsText):
		return "refused: " + shortened(err.Error()), true
	}
	return "NOT REFUSED BY THE GUARD: " + shortened(err.Error()), false
}

func shortened(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxAnswer {
		return strings.ToValidUTF8(text[:maxAnswer], "") + "…"
	}
	return text
}

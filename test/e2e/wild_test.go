// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// warnings counts the warnings of API servers.
type warnings struct{ texts []string }

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.texts = append(w.texts, text)
}

// TestWildWarnings: API servers warn about a kubernetes.io/tls Secret whose pair crypto/tls cannot load. The guard
// refuses each of these pairs, and others.
func TestWildWarnings(t *testing.T) {
	for name, c := range pkitest.WildPairs() {
		t.Run(name, func(t *testing.T) {
			var seen warnings
			config := rest.CopyConfig(shared.config)
			config.WarningHandlerWithContext = &seen
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			secret := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: "wild"}, Type: corev1.SecretTypeTLS,
				Data: map[string][]byte{"tls.crt": c.Certificate, "tls.key": c.Key},
			}
			if _, err := client.CoreV1().Secrets("default").Create(t.Context(), secret,
				metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
				t.Fatal(err)
			}
			_, err = tls.X509KeyPair(c.Certificate, c.Key)
			if (len(seen.texts) > 0) != (err != nil) {
				t.Errorf("warnings %q, crypto/tls: %v", seen.texts, err)
			}
			refused := strings.Contains(strings.Join(c.Findings, " "), " fail ")
			if len(seen.texts) > 0 && !refused {
				t.Errorf("the guard accepts it, the API server warns: %q", seen.texts)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// notCounted counts nothing.
type notCounted struct{}

func (notCounted) CountRequest(string, string, string, time.Duration) {}

// BenchmarkServeHTTP: an allowed update, without TLS. test/bench/webhook compares the whole program with others.
func BenchmarkServeHTTP(b *testing.B) {
	ca := pkitest.NewCA("service-ca")
	secret := func(kind pkitest.KeyKind, change func(*corev1.Secret)) []byte {
		request := pkitest.ServingCert()
		request.Key = kind
		pair := ca.Issue(request)
		s := openshift.ServingCert("uid-1", pair.ChainWith(ca.PEM()), pair.Key)
		change(s)
		data, err := json.Marshal(s)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	want := servingCert()
	want.Roots = []*x509.Certificate{ca.Certificate}
	asItIs := func(*corev1.Secret) {}
	large := func(s *corev1.Secret) { s.Data["more"] = bytes.Repeat([]byte("x"), corev1.MaxSecretSize-8<<10) }
	for name, objects := range map[string][2][]byte{
		"new RSA":             {secret(pkitest.RSA, asItIs), secret(pkitest.RSA, asItIs)},
		"new ECDSA":           {secret(pkitest.ECDSA, asItIs), secret(pkitest.ECDSA, asItIs)},
		"new RSA, with 1 MiB": {secret(pkitest.RSA, large), secret(pkitest.RSA, large)},
	} {
		r := request(admissionv1.Update)
		r.OldObject.Raw, r.Object.Raw = objects[0], objects[1]
		body, err := json.Marshal(admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &r.AdmissionRequest,
		})
		if err != nil {
			b.Fatal(err)
		}
		h := handler(&notices{})
		h.Meter, h.Protected = notCounted{}, protecting(admit.ProtectedSecret{SecretExpectation: want})
		hook := &admission.Webhook{Handler: h}
		b.Run(fmt.Sprintf("%s/%d KiB", name, len(body)>>10), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/validate", bytes.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				hook.ServeHTTP(w, r)
				if !bytes.Contains(w.Body.Bytes(), []byte(`"allowed":true`)) {
					b.Fatalf("not allowed: %s", w.Body)
				}
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	apijson "sigs.k8s.io/json"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// FuzzHandle: no two objects make the handler panic, it allows nothing that introduces a
// violation, and its answer quotes no value of a Secret. The test finds violations in another
// way: from the API server's own decoding.
func FuzzHandle(f *testing.F) {
	ca := pkitest.NewCA("service-ca")
	one, two := ca.Issue(pkitest.ServingCert()), ca.Issue(pkitest.ServingCert())
	secret := func(certificate, key []byte, change func(*corev1.Secret)) []byte {
		s := openshift.ServingCert("uid-1", certificate, key)
		change(s)
		data, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	asItIs := func(*corev1.Secret) {}
	seeds := [][]byte{
		secret(one.Certificate, one.Key,
			asItIs), secret(two.Certificate, two.Key, asItIs), secret(one.Certificate, two.Key, asItIs),
		secret(nil, nil, asItIs), secret([]byte("MARKER-MARKER"), []byte("MARKER-MARKER"), asItIs),
		secret(one.ChainWith(ca.PEM()), one.LegacyKey(),
			asItIs), secret(two.Certificate, two.Key, func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }),
		secret(one.Certificate, one.Key, func(s *corev1.Secret) { s.Immutable = new(true) }),
		secret(one.Certificate, one.Key, func(s *corev1.Secret) { s.OwnerReferences, s.Annotations = nil, nil }),
		secret(one.Certificate, one.Key, func(s *corev1.Secret) { s.Name = "other" }),
		secret(one.Certificate, one.Key, func(s *corev1.Secret) {
			s.Annotations = map[string]string{
				"kubelet-https-guard.io/allow-delete-until": pkitest.Now().Add(600e9).Format("2006-01-02T15:04:05Z07:00"),
			}
		}),
		[]byte(`{}`), []byte(`null`), []byte(`{"data":{"tls.key":"TUFSS0VSLU1BUktFUg=="}}`), []byte(`{"metadata":7}`), nil,
	}
	// Not all pairs: a fuzzer runs all seeds before it begins.
	for i, seed := range seeds {
		f.Add("UPDATE", seeds[0], seed)
		f.Add("UPDATE", seed, seeds[1])
		f.Add([]string{"CREATE", "DELETE", "CONNECT", ""}[i%4], seed, seeds[(i+1)%len(seeds)])
	}
	f.Fuzz(func(t *testing.T, operation string, before, after []byte) {
		var reported notices
		r := request(admissionv1.Operation(operation))
		r.OldObject, r.Object = runtime.RawExtension{Raw: before}, runtime.RawExtension{Raw: after}
		response := handler(&reported).Handle(t.Context(), r)
		if response.Result.Code == http.StatusInternalServerError {
			t.Fatalf("it panicked: %s", response.Result.Message)
		}
		if refused := response.Result.Code == http.StatusForbidden; refused && (response.Allowed || len(reported) != 1) {
			t.Errorf("allowed %v, code %d, %d reports", response.Allowed, response.Result.Code, len(reported))
		}
		answer, err := json.Marshal(response)
		if err != nil {
			t.Fatal(err)
		}
		var oldSecret, newSecret corev1.Secret
		oldErr, newErr := apijson.UnmarshalCaseSensitivePreserveInts(before,
			&oldSecret), apijson.UnmarshalCaseSensitivePreserveInts(
			after,
			&newSecret,
		)
		const long = 13 // a shorter value may be part of any answer
		for _, s := range []corev1.Secret{oldSecret, newSecret} {
			for _, value := range s.Data {
				if len(value) >= long && bytes.Contains(answer, value) {
					t.Errorf("the answer quotes a value: %s", answer)
				}
			}
		}
		if !response.Allowed || newErr != nil || newSecret.Name != "serving-cert" {
			return
		}
		was := violations(check.CheckSecret(servingCert(), nil, pkitest.Now()).Results)
		switch r.Operation {
		case admissionv1.Create:
		case admissionv1.Update:
			if len(before) == 0 || string(before) == "null" {
				t.Error("allowed, although there is no old object")
			}
			if oldErr != nil {
				return // invalid in a field that the handler does not decode
			}
			was = violations(check.CheckSecret(servingCert(), reduced(oldSecret), pkitest.Now()).Results)
		case admissionv1.Delete, admissionv1.Connect:
			return
		}
		for id := range violations(check.CheckSecret(servingCert(), reduced(newSecret), pkitest.Now()).Results) {
			if !was[id] {
				t.Errorf("allowed, although it introduces %s", id.Reason)
			}
		}
	})
}

// reduced returns what the checks see.
func reduced(s corev1.Secret) *check.Secret {
	facts := &check.Secret{
		Type: string(s.Type), Certificate: s.Data["tls.crt"], Key: s.Data["tls.key"],
		Immutable: s.Immutable != nil && *s.Immutable, Annotations: s.Annotations,
	}
	for _, o := range s.OwnerReferences {
		facts.Owners = append(facts.Owners,
			check.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)})
	}
	return facts
}

func violations(results []finding.Result) map[finding.ID]bool {
	all := map[finding.ID]bool{}
	for _, f := range finding.WithOutcome(finding.Findings(results), finding.Fail) {
		all[f.ID()] = true
	}
	return all
}

// FuzzServeHTTP: each request is answered with an AdmissionReview. If it allows, it has the
// UID of the request.
func FuzzServeHTTP(f *testing.F) {
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	object, err := json.Marshal(openshift.ServingCert("uid-1", pair.Certificate, pair.Key))
	if err != nil {
		f.Fatal(err)
	}
	for _, operation := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete} {
		r := request(operation)
		r.Object, r.OldObject = runtime.RawExtension{Raw: object}, runtime.RawExtension{Raw: object}
		data, err := json.Marshal(admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &r.AdmissionRequest,
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{"", "null", "[]", "{}",
		`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`, `{"apiVersion":"v1","kind":"Pod"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var reported notices
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/validate", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		(&admission.Webhook{Handler: handler(&reported)}).ServeHTTP(w, r)
		var answer, asked admissionv1.AdmissionReview
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
			t.Fatalf("the answer is not an AdmissionReview: %v\n%s", err, w.Body)
		}
		if !answer.Response.Allowed {
			return
		}
		if err := json.Unmarshal(body, &asked); err != nil || asked.Request == nil {
			t.Fatalf("allowed, although there is no request: %v", err)
		}
		if d := cmp.Diff(asked.Request.UID, answer.Response.UID); d != "" {
			t.Errorf("UID (-asked +answered):\n%s", d)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The type of what API servers send and expect: the chart registers this version only.
const reviewAPIVersion, reviewKind = "admission.k8s.io/v1", "AdmissionReview"

// jsonType is the content type of requests and answers.
const jsonType = "application/json"

// ServeHTTP implements [http.Handler]. Each answer is an AdmissionReview with the HTTP status 200, as API servers
// expect it, even if it refuses a request with code 400. The caller must bound the body.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: reviewAPIVersion, Kind: reviewKind}}
	if request, err := readReview(r); err != nil {
		h.Log.WarnContext(r.Context(), "Request refused, it is not an AdmissionReview", "err", err)
		answer.Response = failed(http.StatusBadRequest, err)
	} else {
		answer.Response = h.Handle(r.Context(), request)
		answer.Response.UID = request.UID
	}
	w.Header().Set("Content-Type", jsonType)
	_ = json.MarshalWrite(w, &answer) // fails only if the client has gone
}

// readReview returns the request in an AdmissionReview. Its errors do not wrap the decoder's, which can quote a Secret.
//
// Names of fields are case-sensitive here and in [decode], as in the API server, and duplicate fields are refused,
// which no API server sends.
func readReview(r *http.Request) (*admissionv1.AdmissionRequest, error) {
	if is := r.Header.Get("Content-Type"); is != jsonType {
		return nil, fmt.Errorf("content type %s is not supported, expected %s", quote(is), jsonType)
	}
	var review admissionv1.AdmissionReview
	if err := json.UnmarshalRead(r.Body, &review); err != nil {
		return nil, errors.New("cannot decode the body as an AdmissionReview")
	}
	if review.APIVersion != reviewAPIVersion || review.Kind != reviewKind {
		return nil, fmt.Errorf("kind %s of %s is not supported, expected %s of %s",
			quote(review.Kind), quote(review.APIVersion), reviewKind, reviewAPIVersion)
	}
	if review.Request == nil {
		return nil, errors.New("the AdmissionReview has no request")
	}
	return review.Request, nil
}

// failed is the answer to a request that is not decided on.
func failed(code int32, err error) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Code: code, Message: err.Error()}}
}

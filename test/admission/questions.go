// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// Change is a change of the protected Secret whose right answer is known.
type Change struct {
	Name    string
	Allowed bool
	// To is the new Secret; nil for a delete.
	To *corev1.Secret
}

// pairs is the number of valid pairs among the changes.
const pairs = 20

// Changes are valid and invalid changes of a Secret for a server. secret makes the Secret of a chain
// and a key. All pairs but the expired one are valid now and for years.
//
// The policy refuses only the delete. The webhook must detect the other invalid ones.
func Changes(ca *pkitest.CA, request pkitest.Request, secret func(chain, key []byte) *corev1.Secret) []Change {
	now := time.Now()
	issue := func(ca *pkitest.CA, r pkitest.Request) pkitest.Pair {
		return ca.Issue(r.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	}
	one, another := issue(ca, request), issue(ca, request)
	foreign := issue(pkitest.NewCAAround("foreign", now), request)
	client := pkitest.KubeletClient()
	client.DNSNames = request.DNSNames
	wrongUsage := issue(ca, client)
	expired := ca.Issue(request.Valid(now.AddDate(-2, 0, 0), now.Add(-time.Hour)))
	bad := []Change{
		{Name: "another pair's key", To: secret(one.Certificate, another.Key)},
		{Name: "a foreign CA", To: secret(foreign.Certificate, foreign.Key)},
		{Name: "another usage", To: secret(wrongUsage.Certificate, wrongUsage.Key)},
		{Name: "an expired certificate", To: secret(expired.Certificate, expired.Key)},
		{Name: "garbage for a certificate", To: secret([]byte("garbage"), one.Key)},
		{Name: "a delete"},
	}
	var all []Change
	for i := range pairs {
		pair := issue(ca, request)
		all = append(all, Change{Name: "a good pair", Allowed: true, To: secret(pair.ChainWith(ca.PEM()), pair.Key)},
			bad[i%len(bad)])
	}
	return all
}

// Directly sends these changes to a webhook at a URL. Each request says that the last valid Secret is
// stored.
func Directly(client *http.Client, url string, changes []Change) ([]Question, error) {
	var questions []Question
	var stored *corev1.Secret
	for _, change := range changes {
		if change.Allowed {
			stored = change.To
		}
	}
	for _, change := range changes {
		body, err := Review(stored, change.To)
		if err != nil {
			return nil, err
		}
		questions = append(
			questions,
			Question{Name: change.Name, Allowed: change.Allowed, Ask: func(ctx context.Context) (bool, error) {
				return Post(ctx, client, url, body)
			}},
		)
		if change.Allowed {
			stored = change.To
		}
	}
	return questions, nil
}

// Review is an AdmissionReview of a change; after is nil for a delete.
func Review(before, after *corev1.Secret) ([]byte, error) {
	request := &admissionv1.AdmissionRequest{
		UID: "u", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Secret"},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "secrets"},
		Name:     before.Name, Namespace: before.Namespace, Operation: admissionv1.Update,
		UserInfo: authenticationv1.UserInfo{Username: "somebody"},
	}
	var err error
	if request.OldObject.Raw, err = json.Marshal(before); err != nil {
		return nil, err
	}
	if after == nil {
		request.Operation = admissionv1.Delete
	} else if request.Object.Raw, err = json.Marshal(after); err != nil {
		return nil, err
	}
	if after == nil {
		request.Object = runtime.RawExtension{Raw: []byte("null")}
	}
	return json.Marshal(
		admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
			Request:  request,
		},
	)
}

// Post sends an AdmissionReview and returns the answer.
func Post(ctx context.Context, client *http.Client, url string, body []byte) (allowed bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return false, err
	}
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: %s", response.Status, answer)
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &review); err != nil {
		return false, err
	}
	if review.Response == nil || review.Response.UID != "u" {
		return false, fmt.Errorf("no answer to the request: %s", answer)
	}
	return review.Response.Allowed, nil
}

// Through sends these changes to an API server. The Secret must exist. Valid changes are sent one
// after the other: concurrent ones conflict and the API server retries all but one of them, each time,
// so that the last one might never end.
func Through(api kubernetes.Interface, namespace, name string, changes []Change) []Question {
	var questions []Question
	turn := make(chan struct{}, 1)
	for _, change := range changes {
		questions = append(
			questions,
			Question{Name: change.Name, Allowed: change.Allowed, Ask: func(ctx context.Context) (bool, error) {
				if change.To == nil {
					return answerOf(api.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{}))
				}
				if change.Allowed {
					select {
					case turn <- struct{}{}:
						defer func() { <-turn }()
					case <-ctx.Done():
						return false, fmt.Errorf("the change before has no answer: %w", ctx.Err())
					}
				}
				_, err := api.CoreV1().Secrets(namespace).Update(ctx, change.To, metav1.UpdateOptions{})
				return answerOf(err)
			}},
		)
	}
	return questions
}

// answerOf distinguishes a refusal, by a policy or a webhook, from another error.
func answerOf(err error) (allowed bool, failure error) {
	switch {
	case err == nil:
		return true, nil
	case strings.Contains(err.Error(), " denied request: "), strings.Contains(err.Error(), "denied the request"):
		return false, nil
	}
	return false, err
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// body is an AdmissionReview of an update.
func (b *bench) body(before, after *corev1.Secret) ([]byte, error) {
	oldObject, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	object, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	return json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "u", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Secret"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "secrets"},
			Name:     after.Name, Namespace: after.Namespace, Operation: admissionv1.Update,
			UserInfo: authenticationv1.UserInfo{Username: "bench"},
			Object:   runtime.RawExtension{Raw: object}, OldObject: runtime.RawExtension{Raw: oldObject},
		},
	})
}

func (b *bench) secret(p pkitest.Pair) *corev1.Secret {
	return openshift.ServingCert("uid-1", p.ChainWith(b.rig.ServiceCA.PEM()), p.Key)
}

// client sends requests as an API server does: HTTP/1.1 with persistent connections.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		// Only the time is measured.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"}},
		MaxIdleConnsPerHost: 100,
	}}
}

// errUnanswered: a webhook is overloaded or for another reason does not answer with a review.
var errUnanswered = errors.New("no verdict")

// ask sends a review. A wrong answer is an error.
func ask(ctx context.Context, c *http.Client, url string, body []byte, allowed bool) (took time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	begin := time.Now()
	response, err := c.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	took = time.Since(begin)
	if err != nil {
		return 0, err
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &review); err != nil || response.StatusCode != http.StatusOK ||
		review.Response == nil {
		return 0, fmt.Errorf("%w: %s: %s: %.200s", errUnanswered, url, response.Status, answer)
	}
	if review.Response.Allowed != allowed {
		return 0, fmt.Errorf("%s answered %t, want %t: %v", url, review.Response.Allowed, allowed,
			review.Response.Result)
	}
	return took, nil
}

// updates are the bodies of updates from one of the pairs to the next one, in a circle, of Secrets
// with the same change.
func (b *bench) updates(from, to []pkitest.Pair, change func(*corev1.Secret)) (bodies [][]byte, err error) {
	for i := range from {
		before, after := b.secret(from[i]), b.secret(to[(i+1)%len(to)])
		change(before)
		change(after)
		body, err := b.body(before, after)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

// mismatched makes pairs of a certificate and the key of the next pair.
func mismatched(pairs []pkitest.Pair) []pkitest.Pair {
	mixed := slices.Clone(pairs)
	for i := range mixed {
		mixed[i].Key = pairs[(i+1)%len(pairs)].Key
	}
	return mixed
}

func asItIs(*corev1.Secret) {}

// large makes a Secret as large as allowed.
func large(s *corev1.Secret) {
	s.Data["more"] = bytes.Repeat([]byte("x"),
		corev1.MaxSecretSize-len(s.Data[corev1.TLSCertKey])-len(s.Data[corev1.TLSPrivateKeyKey]))
}

// measureDirectly sends the same requests to each webhook over TLS, without an API server.
func (b *bench) measureDirectly(ctx context.Context) error {
	c := client()
	for _, k := range []struct {
		what     string
		from, to []pkitest.Pair
		change   func(*corev1.Secret)
		refused  bool
		p50      float64 // budget; 0: no budget
		share    int     // of the requests: 1/share
		loaded   bool    // also with concurrent requests
	}{
		{what: "no-op update", from: b.rsa[:1], to: b.rsa[:1], change: asItIs, p50: 1.10, share: 1},
		{what: "content seen before", from: b.rsa[:2], to: b.rsa[:2], change: asItIs, p50: 1.25, share: 1},
		{what: "new RSA 2048 content", from: b.rsa, to: b.rsa, change: asItIs, p50: 2.00, share: 1, loaded: true},
		{what: "new ECDSA content", from: b.ecdsa, to: b.ecdsa, change: asItIs, share: 1},
		{what: "refused, key of another pair", from: b.rsa, to: mismatched(b.rsa), change: asItIs, refused: true,
			share: 1},
		{what: "Secret of 1 MiB, content seen before", from: b.rsa[:2], to: b.rsa[:2], change: large, share: 10, loaded: true},
	} {
		bodies, err := b.updates(k.from, k.to, k.change)
		if err != nil {
			return err
		}
		comparison := comparison{
			what: "directly: " + k.what, among: b.webhooks(), requests: max(1, b.requests/k.share), p50: k.p50,
			send: func(ctx context.Context, to contender, i int) (time.Duration, error) {
				return ask(ctx, c, to.url, bodies[i%len(bodies)], !k.refused || !to.judges)
			},
			afterRound: func(context.Context) error { return nil },
		}
		if err := b.compare(ctx, comparison); err != nil {
			return err
		}
		if k.loaded {
			if err := b.throughput(ctx, comparison); err != nil {
				return err
			}
		}
	}
	return b.eachMemory("most, under load of 1 MiB Secrets", 96, func(m rotation.Memory) int64 { return m.Most })
}

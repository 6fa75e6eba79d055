// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
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
			UID: "u", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Secret"}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "secrets"},
			Name: after.Name, Namespace: after.Namespace, Operation: admissionv1.Update, UserInfo: authenticationv1.UserInfo{Username: "bench"},
			Object: runtime.RawExtension{Raw: object}, OldObject: runtime.RawExtension{Raw: oldObject},
		},
	})
}

func (b *bench) secret(p pkitest.Pair) *corev1.Secret {
	return openshift.ServingCert("uid-1", p.ChainWith(b.rig.ServiceCA.PEM()), p.Key)
}

// client asks as an API server does: HTTP/1.1, connections kept.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, // only time is of interest
		MaxIdleConnsPerHost: 100,
	}}
}

func ask(ctx context.Context, c *http.Client, url string, body []byte) (took time.Duration, err error) {
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
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s answers %s", url, response.Status)
	}
	return time.Since(begin), nil
}

// updates are the bodies of updates along a chain of Secrets, in a circle.
func (b *bench) updates(pairs []pkitest.Pair, change func(*corev1.Secret)) (bodies [][]byte, err error) {
	for i := range pairs {
		before, after := b.secret(pairs[i]), b.secret(pairs[(i+1)%len(pairs)])
		change(after)
		body, err := b.body(before, after)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

func asItIs(*corev1.Secret) {}

// measureDirectly: the same requests to both over TLS, without an API server.
func (b *bench) measureDirectly(ctx context.Context) error {
	large := func(s *corev1.Secret) { s.Data["more"] = bytes.Repeat([]byte("x"), 1000<<10) }
	cases := []struct {
		what     string
		pairs    []pkitest.Pair
		change   func(*corev1.Secret)
		share    int // of the requests: 1/share
		p50, p99 string
	}{
		{"directly, no-op update", b.rsa[:1], asItIs, 1, "1.10", ""},
		{"directly, content seen before", b.rsa[:2], asItIs, 1, "1.25", ""},
		{"directly, new RSA 2048 content", b.rsa, asItIs, 1, "2.00", ""},
		{"directly, new ECDSA content", b.ecdsa, asItIs, 1, "", ""},
		{"directly, refused", b.rsa[:2], func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") }, 1, "", ""},
		{"directly, Secret of 1 MiB", b.rsa[:2], large, 10, "", ""},
	}
	c := client()
	for _, k := range cases {
		bodies, err := b.updates(k.pairs, k.change)
		if err != nil {
			return err
		}
		send := func(to contender, i int) (time.Duration, error) { return ask(ctx, c, to.url, bodies[i%len(bodies)]) }
		if err := b.compare(k.what, b.requests/k.share, k.p50, k.p99, send); err != nil {
			return err
		}
	}
	return nil
}

// compare sends requests to both by turns, in rounds, and tells the medians of
// the rounds' ratios.
func (b *bench) compare(what string, requests int, p50, p99 string, send func(to contender, i int) (time.Duration, error)) error {
	type quantiles struct{ ours, other []time.Duration }
	var half, most quantiles
	var ratio50, ratio99 []float64
	next := 0
	for range b.rounds {
		var ours, other []time.Duration
		for range requests {
			next++
			order := []contender{b.ours, b.noop}
			if next%2 == 0 {
				slices.Reverse(order)
			}
			for _, to := range order {
				took, err := send(to, next)
				if err != nil {
					return fmt.Errorf("%s: %w", what, err)
				}
				if to.name == b.ours.name {
					ours = append(ours, took)
				} else {
					other = append(other, took)
				}
			}
		}
		add := func(q *quantiles, share float64, ratios []float64) []float64 {
			a, o := rotation.Quantile(ours, share), rotation.Quantile(other, share)
			q.ours, q.other = append(q.ours, a), append(q.other, o)
			return append(ratios, float64(a)/float64(o))
		}
		ratio50, ratio99 = add(&half, 0.5, ratio50), add(&most, 0.99, ratio99)
	}
	tell := func(name string, q quantiles, ratios []float64, allowed string) {
		slices.Sort(ratios)
		b.row(what+", "+name, micro(rotation.Quantile(q.ours, 0.5)), micro(rotation.Quantile(q.other, 0.5)),
			fmt.Sprintf("%.2f (%.2f to %.2f)", ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1]), allowed)
	}
	tell("p50", half, ratio50, p50)
	tell("p99", most, ratio99, p99)
	return nil
}

func micro(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// measureLoad: eight at a time with Secrets of 1 MiB, and what memory that takes.
func (b *bench) measureLoad(ctx context.Context) error {
	const clients = 8
	bodies, err := b.updates(b.rsa[:20], func(s *corev1.Secret) { s.Data["more"] = bytes.Repeat([]byte("x"), 1000<<10) })
	if err != nil {
		return err
	}
	var counts [2]atomic.Int64
	for i, to := range []contender{b.ours, b.noop} {
		limited, cancel := context.WithTimeout(ctx, b.load)
		var group sync.WaitGroup
		for range clients {
			group.Go(func() {
				c := client()
				for j := 0; limited.Err() == nil; j++ {
					if _, err := ask(limited, c, to.url, bodies[j%len(bodies)]); err == nil {
						counts[i].Add(1)
					}
				}
			})
		}
		group.Wait()
		cancel()
	}
	perSecond := func(i int) string { return fmt.Sprintf("%.0f a second", float64(counts[i].Load())/b.load.Seconds()) }
	b.row("directly, Secrets of 1 MiB, 8 at a time", perSecond(0), perSecond(1), fmt.Sprintf("%.2f", float64(counts[0].Load())/float64(counts[1].Load())), "")
	return b.memory("memory, under that load", "96 MiB")
}

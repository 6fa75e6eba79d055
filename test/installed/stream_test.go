// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// protected is a Secret that the guard protects.
type protected struct {
	namespace, name string
	request         pkitest.Request
}

var (
	// servingCert is protected by the chart's defaults.
	servingCert = protected{"openshift-apiserver", "serving-cert", pkitest.ServingCert()}
	// ownSecret is protected on an existing cluster.
	ownSecret = protected{
		"kubelet-https-guard-e2e",
		"pair",
		pkitest.Request{CommonName: "e2e", DNSNames: []string{"e2e.example.com"}},
	}
)

// values protect only this Secret.
func (p protected) values() string {
	return fmt.Sprintf(`protectedSecrets=[{"namespace":%q,"name":%q,"usage":"serverAuth","dnsNames":[%q]}]`, p.namespace,
		p.name, p.request.DNSNames[0])
}

// patch is a merge patch that writes a certificate and a key.
func patch(certificate, key []byte) []byte {
	data := map[string]map[string]string{"data": {
		corev1.TLSCertKey: base64.StdEncoding.EncodeToString(certificate), corev1.TLSPrivateKeyKey: base64.StdEncoding.EncodeToString(key),
	}}
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // cannot happen: strings in maps
	}
	return text
}

// verdict is the result of a request.
type verdict int

const (
	allowed verdict = iota
	refused         // by the guard
	failed          // without an answer
)

// write patches the Secret in a dry run, which goes through admission like any other write.
func (p protected) write(ctx context.Context, body []byte) (verdict, error) {
	_, err := shared.client.CoreV1().Secrets(p.namespace).Patch(ctx, p.name, types.MergePatchType, body,
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return allowed, nil
	// By the names, which the previous version has, too. Another release's policy has its name before that.
	case apierrors.IsForbidden(err) && (strings.Contains(err.Error(),
		`admission webhook "secrets.kubelet-https-guard.io" denied`) ||
		strings.Contains(err.Error(), "ValidatingAdmissionPolicy '") &&
			strings.Contains(err.Error(), "kubelet-https-guard.")):
		return refused, err
	}
	return failed, err
}

const (
	// writers of each kind write concurrently, each after a pause.
	writers = 2
	pause   = 20 * time.Millisecond
	// pairs are made in advance and used in turn.
	pairs = 8
)

// answered counts the results of the requests of one kind.
type answered struct {
	allowed, refused, failed int
	// The times and the error are for the failure message.
	firstRefused, lastAllowed, lastFailed time.Time
	firstFault                            error
}

// stream is a stream of writes that must be allowed and of writes that must be refused, which only the
// webhook can tell apart.
type stream struct {
	mu        sync.Mutex
	good, bad answered
	stop      context.CancelFunc
	all       sync.WaitGroup
}

// startStream writes until finish is called.
func startStream(t *testing.T, p protected) *stream {
	t.Helper()
	now := time.Now()
	ca := pkitest.NewCAAround("stream", now)
	// Valid for longer than the stored Secret's annotations say: otherwise they would put off the renewal.
	made := make([]pkitest.Pair, pairs)
	for i := range made {
		made[i] = ca.Issue(p.request.Valid(now.Add(-time.Hour), now.AddDate(3, 0, i)))
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &stream{stop: stop}
	t.Cleanup(func() { stop(); s.all.Wait() })
	for range writers {
		s.write(ctx, p, &s.good, func(i int) []byte { return patch(made[i%pairs].Certificate, made[i%pairs].Key) })
		s.write(ctx, p, &s.bad, func(i int) []byte { return patch(made[i%pairs].Certificate, made[(i+1)%pairs].Key) })
	}
	return s
}

func (s *stream) write(ctx context.Context, p protected, into *answered, body func(int) []byte) {
	s.all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			v, err := p.write(context.WithoutCancel(ctx), body(i))
			s.mu.Lock()
			switch v {
			case allowed:
				into.allowed++
				into.lastAllowed = began
			case refused:
				into.refused++
				if into.firstRefused.IsZero() {
					into.firstRefused = time.Now()
				}
			case failed:
				into.failed++
				if began.After(into.lastFailed) {
					into.lastFailed = began
				}
			}
			if err != nil && into.firstFault == nil && (into == &s.good || v == failed) {
				into.firstFault = fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly+".000"), err)
			}
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	})
}

// now are the results so far.
func (s *stream) now() (good, bad answered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.good, s.bad
}

// finish ends the stream. No write that must be allowed may have failed, for any reason. No write that
// must be refused may have been allowed: none at all, or none after the first refusal.
func (s *stream) finish(t *testing.T, fromTheBeginning bool) {
	t.Helper()
	s.finishFailing(t, fromTheBeginning, time.Time{})
}

// finishFailing is [stream.finish] if writes may have failed without an answer until a given time.
func (s *stream) finishFailing(t *testing.T, fromTheBeginning bool, until time.Time) {
	t.Helper()
	s.stop()
	s.all.Wait()
	good, bad := s.now()
	t.Logf("good: %d passed, %d refused, %d failed; bad: %d refused, %d passed, %d failed", good.allowed, good.refused,
		good.failed, bad.refused, bad.allowed, bad.failed)
	if good.refused > 0 || good.allowed == 0 || good.lastFailed.After(until) {
		t.Errorf("of the writes that must be allowed %d were refused, %d failed and %d passed; first: %v",
			good.refused, good.failed, good.allowed, good.firstFault)
	}
	if bad.lastFailed.After(until) {
		t.Errorf("%d of the writes that must be refused got no answer; first: %v", bad.failed, bad.firstFault)
	}
	if bad.refused == 0 {
		t.Error("nothing was refused")
	}
	if fromTheBeginning && bad.allowed > 0 || bad.lastAllowed.After(bad.firstRefused) {
		t.Errorf("%d writes were allowed that must be refused, the last at %s; the first refusal was at %s",
			bad.allowed, bad.lastAllowed.Format(time.TimeOnly+".000"), bad.firstRefused.Format(time.TimeOnly+".000"))
	}
}

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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

// protected is a Secret that the guard protects.
type protected struct {
	namespace, name string
	request         pkitest.Request
}

var (
	// servingCert is protected by the chart's defaults.
	servingCert = protected{"openshift-apiserver", "serving-cert", pkitest.ServingCert()}
	// ownSecret is protected where the cluster is somebody else's.
	ownSecret = protected{"kubelet-https-guard-e2e", "pair", pkitest.Request{CommonName: "e2e", DNSNames: []string{"e2e.example.com"}}}
)

// values protect this Secret and no other.
func (p protected) values() string {
	return fmt.Sprintf(`webhook.protectedSecrets=[{"namespace":%q,"name":%q,"usage":"serverAuth","dnsNames":[%q]}]`, p.namespace, p.name, p.request.DNSNames[0])
}

// patch is a merge patch that writes a certificate and a key.
func patch(certificate, key []byte) []byte {
	data := map[string]map[string]string{"data": {
		corev1.TLSCertKey: base64.StdEncoding.EncodeToString(certificate), corev1.TLSPrivateKeyKey: base64.StdEncoding.EncodeToString(key),
	}}
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // strings in maps
	}
	return text
}

// verdict is what became of a request.
type verdict int

const (
	allowed verdict = iota
	refused         // by the guard
	failed          // for want of an answer
)

// write patches the Secret in a dry run, which admission is asked about like
// about any other write.
func (p protected) write(ctx context.Context, body []byte) (verdict, error) {
	_, err := shared.client.CoreV1().Secrets(p.namespace).Patch(ctx, p.name, types.MergePatchType, body, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return allowed, nil
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), finding.ControlsText):
		return refused, err
	}
	return failed, err
}

const (
	// writers of each kind write at the same time, each after a pause.
	writers = 2
	pause   = 20 * time.Millisecond
	// pairs are made before, and used in turn.
	pairs = 8
)

// answered is what became of the requests of one kind.
type answered struct {
	allowed, refused, failed int
	// The moments and the error are for who looks into it.
	firstRefused, lastAllowed, lastFailed time.Time
	firstFault                            error
}

// stream is a stream of writes that must pass and of writes that must not, of
// a kind that only the webhook can tell from them.
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
	// Longer than what the stored Secret's annotations say, or they would put the
	// renewal off.
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

// now is what was answered until now.
func (s *stream) now() (good, bad answered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.good, s.bad
}

// finish ends the stream. Not one write that must pass may have been refused,
// for whatever reason, and not one of the others let through: none at all, or
// none after the first one was refused.
func (s *stream) finish(t *testing.T, fromTheBeginning bool) {
	t.Helper()
	s.finishFailing(t, fromTheBeginning, time.Time{})
}

// finishFailing is [stream.finish] where writes may have failed for want of an
// answer until a moment.
func (s *stream) finishFailing(t *testing.T, fromTheBeginning bool, until time.Time) {
	t.Helper()
	s.stop()
	s.all.Wait()
	good, bad := s.now()
	t.Logf("good: %d passed, %d refused, %d failed; bad: %d refused, %d passed, %d failed", good.allowed, good.refused, good.failed, bad.refused, bad.allowed, bad.failed)
	if good.refused > 0 || good.allowed == 0 || good.lastFailed.After(until) {
		t.Errorf("of the writes that must pass %d were refused and %d failed, %d passed; first: %v", good.refused, good.failed, good.allowed, good.firstFault)
	}
	if bad.lastFailed.After(until) {
		t.Errorf("%d of the writes that must be refused were, for want of an answer; first: %v", bad.failed, bad.firstFault)
	}
	if bad.refused == 0 {
		t.Error("nothing was refused")
	}
	if fromTheBeginning && bad.allowed > 0 || bad.lastAllowed.After(bad.firstRefused) {
		t.Errorf("%d writes were let through that must not be, the last at %s; the first was refused at %s", bad.allowed, bad.lastAllowed.Format(time.TimeOnly+".000"), bad.firstRefused.Format(time.TimeOnly+".000"))
	}
}

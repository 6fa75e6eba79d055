// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	// writers write at the same time, writes each.
	writers, writes = 8, 60
	// writeAnnotation has the number of the write.
	writeAnnotation = "example.com/write"
)

// write is a write of one of the writers.
type write struct {
	user string
	// to is the state that it stores. uid is that of the Secret that it deletes.
	to  State
	uid string
	// answer is what the API server said.
	answer answer
}

type answer string

const (
	stored  answer = "stored"
	refused answer = "refused"
	// lost: no answer, or a conflict. It may have been stored.
	lost answer = "lost"
)

// TestHistory lets many clients write at the same time while the webhook is restarted and not available, and compares
// every version that was stored with the rule. The watch has all versions in the order in which etcd stored them, so
// the order of the writes need not be found out.
func TestHistory(t *testing.T) {
	r, config, world := startRig(t)
	kind := world.Kinds()[0].few()
	h := &recorded{Kind: kind, writes: map[string]*write{}}
	client := as(t, config, person)
	h.begin(t, client)

	var working sync.WaitGroup
	for i := range writers {
		user := []string{person, "jane", kind.Renewer, collector}[i%4]
		secrets := as(t, config, user).CoreV1().Secrets(kind.Namespace)
		random := rand.New(rand.NewPCG(uint64(i), 1))
		working.Go(func() {
			for n := range writes {
				h.write(t.Context(), secrets, user, fmt.Sprintf("%d-%d", i, n), random)
			}
		})
	}
	done := make(chan struct{})
	go func() { working.Wait(); close(done) }()
	restarts := restartUntil(t, r, done)
	h.end(t, as(t, config, kind.Renewer))
	counts := h.check(t)
	t.Logf("%d versions; %v; %d restarts of the webhook", len(h.versions), counts, restarts)
	for _, a := range []answer{stored, refused} {
		if counts[a] == 0 {
			t.Errorf("no write was %s", a)
		}
	}
}

// restartUntil stops and starts the webhook until the writers are done, and returns how often.
func restartUntil(t *testing.T, r *rig.Rig, done <-chan struct{}) (restarts int) {
	t.Helper()
	for {
		select {
		case <-done:
			return restarts
		case <-time.After(time.Second):
		}
		if err := r.Webhook.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := r.StartWebhook(t.Context()); err != nil {
			t.Fatal(err)
		}
		restarts++
	}
}

// recorded is what the writers did, and what was stored.
type recorded struct {
	*Kind
	mu     sync.Mutex
	writes map[string]*write

	first    string // the first resourceVersion
	versions []watch.Event
}

// begin stores a good Secret.
func (h *recorded) begin(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	created, err := client.CoreV1().Secrets(h.Namespace).Create(t.Context(), h.numbered(State{Exists: true}, "begin"),
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.writes["begin"] = &write{user: person, to: State{Exists: true}, answer: stored}
	h.first = created.ResourceVersion
	h.versions = []watch.Event{{Type: watch.Added, Object: created}}
}

// numbered returns a Secret with the number of its write.
func (h *recorded) numbered(s State, number string) *corev1.Secret {
	secret := h.object(s)
	secret.UID = ""
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, writeAnnotation, number)
	return secret
}

// write sends one write, and records it.
func (h *recorded) write(
	ctx context.Context, secrets typedcorev1.SecretInterface, user, number string, random *rand.Rand,
) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	current, err := secrets.Get(ctx, h.Name, metav1.GetOptions{})
	w := &write{user: user}
	switch {
	case apierrors.IsNotFound(err):
		w.to = h.choose(State{Exists: true}, random)
		_, err = secrets.Create(ctx, h.numbered(w.to, number), metav1.CreateOptions{})
	case err != nil:
		return
	case random.IntN(10) == 0 && user != h.Renewer:
		w.uid = string(current.UID)
		err = secrets.Delete(ctx, h.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &current.UID}})
		number = "delete " + w.uid + " " + number
	default:
		w.to = h.choose(h.stateOf(current), random)
		_, err = secrets.Update(ctx, h.numbered(w.to, number), metav1.UpdateOptions{})
	}
	switch {
	case err == nil:
		w.answer = stored
	case strings.Contains(err.Error(), policyMarker), strings.Contains(err.Error(), webhookMarker),
		strings.Contains(err.Error(), "failed calling webhook"), apierrors.IsInvalid(err):
		w.answer = refused
	default:
		w.answer = lost
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes[number] = w
}

// choose returns a state to write: often one that is like the current one.
func (h *recorded) choose(from State, random *rand.Rand) State {
	near := h.neighbours(from)
	to := near[random.IntN(len(near))]
	to.Type, to.Lifecycle, to.Immutable = from.Type, notHeld, mutable // what cannot be undone by an update
	return to
}

// stateOf returns the state that a stored Secret had when it was written.
func (h *recorded) stateOf(s *corev1.Secret) State {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.writes[s.Annotations[writeAnnotation]]; w != nil {
		return w.to
	}
	return State{Exists: true} // its answer has not arrived yet
}

// end reads all versions that were stored.
func (h *recorded) end(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	secrets := client.CoreV1().Secrets(h.Namespace)
	last, err := secrets.Get(t.Context(), h.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) { // so that the watch has a last version
		h.writes["end"] = &write{user: h.Renewer, to: State{Exists: true}, answer: stored}
		last, err = secrets.Create(t.Context(), h.numbered(State{Exists: true}, "end"), metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := secrets.Watch(ctx, metav1.ListOptions{
		ResourceVersion: h.first, FieldSelector: "metadata.name=" + h.Name,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		secret, ok := event.Object.(*corev1.Secret)
		if !ok {
			t.Fatalf("watch: %v", event.Object)
		}
		h.versions = append(h.versions, event)
		if secret.ResourceVersion == last.ResourceVersion {
			return
		}
	}
	t.Fatal("the watch ended before the last version")
}

// check compares each stored version with the rule, and each answer with what was stored.
func (h *recorded) check(t *testing.T) map[answer]int {
	t.Helper()
	wrong := failures{t: t}
	defer wrong.end()
	isStored, deleted := map[string]bool{}, map[string]bool{}
	before := State{}
	for _, event := range h.versions {
		secret := event.Object.(*corev1.Secret) //nolint:forcetypeassert // end checks it
		if event.Type == watch.Deleted {
			deleted[string(secret.UID)] = true
			h.checkDelete(&wrong, before, string(secret.UID))
			before = State{}
			continue
		}
		number := secret.Annotations[writeAnnotation]
		w := h.writes[number]
		if w == nil || isStored[number] {
			wrong.add("version %s has write %q, which nobody sent, or which was stored before", secret.ResourceVersion, number)
			continue
		}
		isStored[number] = true
		r := Request{User: w.user, Old: before, New: w.to}
		introduced := h.introduced(r, h.Now)
		if len(introduced) > 0 && (w.user != h.Renewer || len(inPolicy(introduced)) > 0) &&
			(w.user != collector || !h.onlyDetaches(r)) {
			wrong.add("%s by %s: %s → %s was stored, and introduces %v",
				number, w.user, h.describe(before), h.describe(w.to), introduced)
		}
		before = w.to
	}
	counts := map[answer]int{}
	for number, w := range h.writes {
		counts[w.answer]++
		has := isStored[number] || w.uid != "" && deleted[w.uid]
		switch {
		case w.answer == stored && !has:
			wrong.add("%s by %s was acknowledged, and is not stored", number, w.user)
		case w.answer == refused && isStored[number]:
			wrong.add("%s by %s was refused, and is stored", number, w.user)
		}
	}
	return counts
}

// checkDelete checks that somebody who may deleted the Secret.
func (h *recorded) checkDelete(wrong *failures, before State, uid string) {
	for _, w := range h.writes {
		if w.uid == uid && w.answer != refused && (w.user == collector || h.mayDelete(before, h.Now)) {
			return
		}
	}
	wrong.add("%s was deleted by nobody who may", h.describe(before))
}

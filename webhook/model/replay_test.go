// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// replays is how many requests of each kind of Secret are replayed.
var replays = flag.Int("replays", 100, "number of requests of each Secret to replay on a real API server")

// TestReplay sends a sample of the explored requests to a real API server with the guard: its answers, and what is
// stored afterwards, are those of the model.
func TestReplay(t *testing.T) {
	r, config, world := startRig(t)
	var samples []*replay
	for _, kind := range world.Kinds() {
		e := install(t, kind.few(), admit.Deny)
		requests := e.sample(*replays)
		e.decide(t, requests)
		p := &replay{explored: e, rig: r, requests: requests, clients: map[string]kubernetes.Interface{}}
		for _, user := range []string{person, e.Renewer, collector, namespaceController, storageMigrator, inTreeMigrator} {
			p.clients[user] = as(t, config, user)
		}
		samples = append(samples, p)
	}
	for _, state := range []struct {
		name string
		guardState
	}{{"webhook up", guardState{webhook: up, policy: true}}, {"webhook down", guardState{webhook: down, policy: true}}} {
		if state.webhook == down {
			if err := r.Webhook.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		for _, sample := range samples {
			t.Run(state.name+"/"+sample.Name, func(t *testing.T) { sample.run(t, state.guardState) })
		}
	}
}

// startRig starts an API server with the guard.
func startRig(t *testing.T) (*rig.Rig, *rest.Config, World) {
	t.Helper()
	r, err := rig.Start(t.Context(), rig.Options{Repository: "../..", Dir: t.TempDir(), Progress: os.Stderr})
	t.Cleanup(r.Stop)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.InstallGuard(t.Context()); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 1000, 1000
	services := as(t, config, person).CoreV1().Services("openshift-apiserver")
	service, err := services.Get(t.Context(), serviceName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// One CA of the rig signs for both.
	return r, config, World{Now: time.Now(), ServiceCA: r.ServiceCA, Signer: r.ServiceCA, Service: service.UID}
}

// replay sends requests to a real API server.
type replay struct {
	*explored
	rig      *rig.Rig
	requests []Request
	clients  map[string]kubernetes.Interface // by the user
}

// sample returns some of the explored requests, each time the same ones: of each user and operation as many.
func (e *explored) sample(n int) []Request {
	position := func(r Request) uint64 {
		hash := fnv.New64a()
		_, _ = fmt.Fprintf(hash, "%v", r) // a hash accepts everything
		return hash.Sum64()
	}
	groups := map[string][]Request{}
	for _, r := range e.allRequests() {
		group := fmt.Sprint(r.User, r.Operation(), r.Collection, e.valid(r))
		groups[group] = append(groups[group], r)
	}
	var all []Request
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		group := groups[name]
		slices.SortFunc(group, func(a, b Request) int { return cmp.Compare(position(a), position(b)) })
		all = append(all, group[:min((n+len(groups)-1)/len(groups), len(group))]...)
	}
	return all
}

// as returns a client of a user who has all permissions.
func as(t *testing.T, config *rest.Config, user string) kubernetes.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// run replays all requests.
func (p *replay) run(t *testing.T, g guardState) {
	wrong := failures{t: t}
	defer wrong.end()
	counts := map[string]int{}
	for i, r := range p.requests {
		before := p.prepare(t, r.Old)
		for _, dryRun := range []bool{true, false} {
			how, err := p.send(t, r, before, i, dryRun)
			allowed := p.valid(r) && g.allows(p.decisions[r], 0)
			switch {
			case (err == nil) != allowed:
				wrong.add("%s, %s, dry run: %t: got %v, the model says allowed: %t",
					p.describeRequest(r), how, dryRun, err, allowed)
			case err != nil && p.valid(r) && !refusedByGuard(err, g):
				wrong.add("%s, %s: refused by something else: %v", p.describeRequest(r), how, err)
			}
			after := p.stored(t)
			if dryRun || err != nil {
				if diff := gocmp.Diff(before, after); diff != "" {
					wrong.add("%s, %s, dry run: %t: stored something (-before +after):\n%s", p.describeRequest(r), how, dryRun, diff)
				}
				counts[fmt.Sprintf("refused: %t", err != nil)]++
				continue
			}
			counts[how]++
			if diff := gocmp.Diff(p.relevant(p.object(r.effect())), p.relevant(after)); diff != "" {
				wrong.add("%s, %s: stored (-model +server):\n%s", p.describeRequest(r), how, diff)
			}
		}
	}
	t.Log(counts)
}

// refusedByGuard reports whether an error is a refusal by the guard, or that the webhook did not answer.
func refusedByGuard(err error, g guardState) bool {
	text := err.Error()
	return strings.Contains(text, policyMarker) || strings.Contains(text, webhookMarker) ||
		g.webhook == down && strings.Contains(text, "failed calling webhook")
}

// prepare stores a state, past the API server, and returns what is stored; nil if it is absent.
func (p *replay) prepare(t *testing.T, s State) *corev1.Secret {
	t.Helper()
	plain := s
	if !s.Exists {
		plain = State{Exists: true}
	}
	object := p.object(plain)
	object.UID = types.UID(fmt.Sprintf("%08d-0000-0000-0000-000000000000", time.Now().UnixNano()%100_000_000))
	object.CreationTimestamp = metav1.NewTime(p.Now.Truncate(time.Second))
	if err := p.rig.Restore(t.Context(), "secrets", p.Namespace, p.Name, object); err != nil {
		t.Fatal(err)
	}
	if !s.Exists { // the garbage collector is never refused
		secrets := p.clients[collector].CoreV1().Secrets(p.Namespace)
		if err := secrets.Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return p.stored(t)
}

// stored returns the stored Secret; nil if it does not exist.
func (p *replay) stored(t *testing.T) *corev1.Secret {
	t.Helper()
	secret, err := p.clients[person].CoreV1().Secrets(p.Namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// relevant returns what the model knows of a Secret.
func (p *replay) relevant(s *corev1.Secret) *corev1.Secret {
	if s == nil {
		return nil
	}
	relevant := &corev1.Secret{
		Type: s.Type, Data: map[string][]byte{}, Immutable: s.Immutable, ObjectMeta: metav1.ObjectMeta{
			Annotations: s.Annotations, OwnerReferences: s.OwnerReferences, Finalizers: s.Finalizers,
		},
	}
	for key, value := range s.Data {
		relevant.Data[key] = append([]byte{}, value...) // empty and nil are the same
	}
	if s.DeletionTimestamp != nil {
		relevant.DeletionTimestamp = new(metav1.Time)
	}
	return relevant
}

// send sends a request, in a way that depends on i, and returns the way.
func (p *replay) send(t *testing.T, r Request, before *corev1.Secret, i int, dryRun bool) (how string, err error) {
	t.Helper()
	ctx, secrets := t.Context(), p.clients[r.User].CoreV1().Secrets(p.Namespace)
	var dry []string
	if dryRun {
		dry = []string{metav1.DryRunAll}
	}
	switch {
	case r.Operation() == admission.Create:
		_, err = secrets.Create(ctx, withoutServerFields(p.object(r.New)), metav1.CreateOptions{DryRun: dry})
		return "create", err
	case r.Operation() == admission.Delete && r.Collection:
		return "delete of a collection", secrets.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: dry},
			metav1.ListOptions{FieldSelector: "metadata.name=" + p.Name})
	case r.Operation() == admission.Delete:
		return "delete", secrets.Delete(ctx, p.Name, metav1.DeleteOptions{DryRun: dry})
	}
	after := p.after(before, r)
	if i%5 == 0 {
		_, err = secrets.Update(ctx, after, metav1.UpdateOptions{DryRun: dry})
		return "update", err
	}
	how, kind, patch := p.patch(t, before, after, i)
	options := metav1.PatchOptions{DryRun: dry, FieldManager: "model", Force: force(kind)}
	_, err = secrets.Patch(ctx, p.Name, kind, patch, options)
	return how, err
}

// force is needed and allowed for a server-side apply only.
func force(kind types.PatchType) *bool {
	if kind == types.ApplyPatchType {
		return new(true)
	}
	return nil
}

// after returns the stored Secret, changed as a request says.
func (p *replay) after(before *corev1.Secret, r Request) *corev1.Secret {
	after := p.object(r.New)
	after.ResourceVersion, after.UID = before.ResourceVersion, before.UID
	after.CreationTimestamp = before.CreationTimestamp
	after.DeletionTimestamp, after.DeletionGracePeriodSeconds = before.DeletionTimestamp, before.DeletionGracePeriodSeconds
	return after
}

func withoutServerFields(s *corev1.Secret) *corev1.Secret {
	s.UID = ""
	return s
}

// patch returns the change as one of the four patches. A server-side apply removes nothing that others own, so it is
// used only for changes that remove nothing.
func (p *replay) patch(
	t *testing.T, before, after *corev1.Secret, i int,
) (how string, kind types.PatchType, patch []byte) {
	t.Helper()
	encode := func(object any) []byte {
		encoded, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	var err error
	before = before.DeepCopy()
	before.TypeMeta, before.ManagedFields = after.TypeMeta, nil
	switch i % 5 {
	case 1:
		how, kind = "merge patch", types.MergePatchType
		patch, err = jsonpatch.CreateMergePatch(encode(before), encode(after))
	case 2:
		how, kind = "strategic merge patch", types.StrategicMergePatchType
		patch, err = strategicpatch.CreateTwoWayMergePatch(encode(before), encode(after), corev1.Secret{})
	case 3:
		if onlyAdds(before, after) {
			applied := after.DeepCopy()
			applied.ResourceVersion, applied.CreationTimestamp = "", metav1.Time{}
			return "server-side apply", types.ApplyPatchType, encode(applied)
		}
		fallthrough
	default:
		how, kind = "JSON patch", types.JSONPatchType
		patch = encode([]map[string]any{{"op": "replace", "path": "", "value": after}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return how, kind, patch
}

// onlyAdds reports whether a change removes no annotation, owner, finalizer or field.
func onlyAdds(before, after *corev1.Secret) bool {
	for key := range before.Annotations {
		if _, kept := after.Annotations[key]; !kept {
			return false
		}
	}
	for _, owner := range before.OwnerReferences {
		if !slices.ContainsFunc(after.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == owner.UID }) {
			return false
		}
	}
	for key, value := range before.Data { // an empty value is not applied
		if len(value) > 0 && len(after.Data[key]) == 0 || bytes.Equal(value, nil) {
			return false
		}
	}
	return len(before.Finalizers) <= len(after.Finalizers) && (before.Immutable == nil || after.Immutable != nil) &&
		before.DeletionTimestamp == nil
}

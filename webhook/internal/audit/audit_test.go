// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// server is an API server with objects, for the dynamic client. Its watches
// last until the test ends them.
type server struct {
	dynamic.Interface
	mu      sync.Mutex
	objects map[follow.Object]follow.State
	listErr map[string]error // by resource
	watches map[string]*watch.FakeWatcher
	asked   []string // field selectors
}

func newServer(objects map[follow.Object]follow.State) *server {
	s := &server{objects: objects, listErr: map[string]error{}, watches: map[string]*watch.FakeWatcher{}}
	kinds := map[schema.GroupVersionResource]string{}
	for o := range objects {
		kinds[o.Resource] = o.Kind + "List"
	}
	fake := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds)
	fake.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		list, _ := action.(clienttesting.ListAction)
		selector := list.GetListRestrictions().Fields.String()
		s.asked = append(s.asked, selector)
		if err := s.listErr[action.GetResource().Resource]; err != nil {
			return true, nil, err
		}
		result := &unstructured.UnstructuredList{Object: map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "7"}}}
		for o, stored := range s.objects {
			if o.Resource == action.GetResource() && o.Namespace == action.GetNamespace() && selector == "metadata.name="+o.Name && stored.Live != nil {
				named := stored.Live.DeepCopy()
				named.SetName(o.Name) // the fake client selects, too
				result.Items = append(result.Items, *named)
			}
		}
		return true, result, nil
	})
	fake.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w := watch.NewFakeWithOptions(watch.FakeOptions{ChannelSize: 10})
		s.watches[action.GetResource().Resource+" "+action.GetNamespace()] = w
		return true, w, nil
	})
	s.Interface = fake
	return s
}

func (s *server) failLists(resource string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listErr[resource] = err
}

// store has the object from now on, or none.
func (s *server) store(o follow.Object, live *unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, before := s.watches[o.Resource.Resource+" "+o.Namespace], s.objects[o].Live
	s.objects[o] = follow.State{Live: live}
	switch {
	case live == nil:
		w.Delete(before)
	case before == nil:
		w.Add(live)
	default:
		w.Modify(live)
	}
}

// end ends the watch of an object.
func (s *server) end(o follow.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches[o.Resource.Resource+" "+o.Namespace].Stop()
}

// told keeps what was told, by the object it is about.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (r *told) Tell(_ context.Context, n report.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, strings.TrimSpace(string(n.What)+" "+string(n.Finding.Reason))+" on "+n.Object.Kind+" "+n.Object.Name)
}

func (r *told) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

type noMeter struct{}

func (noMeter) Audited([]report.Certificate) {}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestRun: an audit from its start on, as time goes by.
func TestRun(t *testing.T) {
	states := sound(t)
	synctest.Test(t, func(t *testing.T) {
		api, lines := newServer(states), &told{}
		a := &Auditor{Client: api, Subject: subject, Teller: lines, Meter: noMeter{}, Self: report.Object{Kind: "Lease", Name: "guard"}, Now: now(t)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			a.Run(ctx)
		}()
		step := func(what string, wait time.Duration, want ...string) {
			t.Helper()
			pass(wait)
			if d := cmp.Diff(want, lines.take()); d != "" {
				t.Errorf("%s: told (-want +got):\n%s", what, d)
			}
		}
		step("all is well", 10*time.Second, "Verified on Lease guard")

		good := states[kubeletClient].Live
		bad := good.DeepCopy()
		bad.SetResourceVersion("8")
		if err := unstructured.SetNestedField(bad.Object, "eA==", "data", "tls.key"); err != nil {
			t.Fatal(err)
		}
		api.store(kubeletClient, bad)
		step("garbage that does not last", settle-time.Second)
		api.store(kubeletClient, good)
		step("garbage that did not last", time.Minute)
		api.store(kubeletClient, bad)
		step("garbage", time.Minute, "Finding raised KeyUnparsable on Secret kubelet-client", "Not verified on Lease guard")
		api.store(kubeletClient, nil)
		step("deleted", time.Minute, "Finding raised SecretMissing on Secret kubelet-client", "Finding cleared KeyUnparsable on Secret kubelet-client")
		api.store(kubeletClient, good)
		step("back", time.Minute, "Finding cleared SecretMissing on Secret kubelet-client", "Verified on Lease guard")

		renewed := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
		rotated := live(t, openshift.ServingCert("uid-1", renewed.Certificate, renewed.Key))
		rotated.SetResourceVersion("9")
		api.store(servingCert, rotated)
		step("rotated", time.Minute, "Certificate rotated on Secret serving-cert")

		api.failLists("services", apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "api", errors.New("no")))
		api.end(service)
		step("a right is lost for a moment", awayPatience-5*time.Second)
		step("a right is lost", 10*time.Second, "Finding raised Unreadable on Service api", "Not verified on Lease guard")
		api.failLists("services", nil)
		step("it is back", time.Minute, "Finding cleared Unreadable on Service api", "Verified on Lease guard")

		api.store(policy, nil)
		step("an upgrade", 30*time.Second)
		step("the guard is gone", time.Minute, "Finding raised GuardMissing on ValidatingAdmissionPolicy guard", "Not verified on Lease guard")
		step("an hour later", time.Hour, "Finding stands GuardMissing on ValidatingAdmissionPolicy guard")
		cancel()
		<-ended
		for _, selector := range api.asked {
			if !strings.HasPrefix(selector, "metadata.name=") {
				t.Errorf("it listed by %q, not by a name", selector)
			}
		}
	})
}

// now is a clock that begins at the fixtures' instant.
func now(t *testing.T) func() time.Time {
	t.Helper()
	start, fixtures := time.Now(), pkitest.Now()
	return func() time.Time { return fixtures.Add(time.Since(start)) }
}

// TestNoAPI: an API that is not served is no error.
func TestNoAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(map[follow.Object]follow.State{operator: {}})
		api.failLists("kubeapiservers", apierrors.NewNotFound(schema.GroupResource{Resource: "kubeapiservers"}, ""))
		ctx, cancel := context.WithCancel(t.Context())
		f := follow.Start(ctx, api, operator, make(chan struct{}, 1))
		pass(time.Minute)
		if s := f.State(); !s.Known || !s.NoAPI || s.Err != nil {
			t.Errorf("state: %+v", s)
		}
		api.failLists("kubeapiservers", nil) // OpenShift's operator is installed
		pass(time.Minute)
		if s := f.State(); !s.Known || s.NoAPI || s.Err != nil {
			t.Errorf("state: %+v", s)
		}
		cancel()
		synctest.Wait()
	})
}

// TestNoKubernetes: what has no Secrets is no API server (a proxy, a wrong path in a
// kubeconfig), and nothing is known of them.
func TestNoKubernetes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(sound(t))
		for _, resource := range []string{"secrets", "services", "configmaps", "kubeapiservers", "validatingadmissionpolicies"} {
			api.failLists(resource, apierrors.NewNotFound(schema.GroupResource{Resource: resource}, ""))
		}
		result, err := Once(t.Context(), api, subject(), now(t))
		if err != nil {
			t.Fatal(err)
		}
		if verdict := finding.VerdictOf(result.Findings); verdict != finding.CouldNotVerify || !slices.Equal(result.Checked, []finding.Reason{finding.Unreadable}) {
			t.Errorf("%s; looked for %s; found %v", verdict, result.Checked, result.Findings)
		}
	})
}

// TestLeader: an audit that fails is begun anew after a rest, and releases its
// Lease at the end.
func TestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var log strings.Builder
		var audits, panics atomic.Int64
		var mu sync.Mutex
		var leading []bool
		l := &Leader{
			Leases: client.CoordinationV1(), Namespace: "guard", Name: "audit", Identity: "pod",
			Owner: func(context.Context) (metav1.OwnerReference, error) {
				return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "webhook", UID: "u"}, nil
			},
			Audit: func(ctx context.Context) {
				if audits.Add(1) == 1 {
					panic("-----BEGIN PRIVATE KEY-----")
				}
				<-ctx.Done()
			},
			Leading: func(yes bool) {
				mu.Lock()
				defer mu.Unlock()
				leading = append(leading, yes)
			},
			Failed: func() { panics.Add(1) },
			Log:    slog.New(slog.NewTextHandler(&log, nil)),
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			l.Run(ctx)
		}()
		pass(restPeriod - time.Second)
		if audits.Load() != 1 || panics.Load() != 1 {
			t.Errorf("before the rest is over: %d audits, %d panics", audits.Load(), panics.Load())
		}
		pass(time.Minute)
		cancel()
		<-ended
		if d := cmp.Diff([]bool{true, false, true, false}, leading); d != "" || audits.Load() != 2 {
			t.Errorf("%d audits, leading (-want +got):\n%s", audits.Load(), d)
		}
		if strings.Contains(log.String(), "PRIVATE KEY") || !strings.Contains(log.String(), "Panic while auditing") {
			t.Errorf("log:\n%s", log.String())
		}
		lease, err := client.CoordinationV1().Leases("guard").Get(context.WithoutCancel(t.Context()), "audit", metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != "" {
			t.Errorf("the Lease was not released: %v, %v", lease.Spec, err)
		}
		if err == nil && (len(lease.OwnerReferences) != 1 || lease.OwnerReferences[0].UID != "u") {
			t.Errorf("the Lease belongs to %v", lease.OwnerReferences)
		}
	})
}

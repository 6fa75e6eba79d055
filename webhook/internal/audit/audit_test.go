// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordination "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
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
		result := &unstructured.UnstructuredList{
			Object: map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "7"}},
		}
		for o, stored := range s.objects {
			if o.Resource == action.GetResource() && o.Namespace == action.GetNamespace() &&
				selector == "metadata.name="+o.Name &&
				stored.Live != nil {
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

// store stores an object, or deletes it if live is nil.
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

// recorder records the notices, with the object that each is about.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Report(_ context.Context, n report.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines,
		strings.TrimSpace(string(n.Type)+" "+string(n.Finding.Reason))+" on "+n.Object.Kind+" "+n.Object.Name)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

type noMeter struct{}

func (noMeter) Audited([]tracker.Certificate) {}

func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// startAuditor starts an audit. step waits and compares the notices of that time; end ends
// the audit.
func startAuditor(
	t *testing.T, api *server, subject func() Subject,
) (step func(what string, wait time.Duration, want ...string), end func()) {
	t.Helper()
	lines := &recorder{}
	a := &Auditor{
		Client: api, Subject: subject, Reporter: lines, Meter: noMeter{},
		Self: report.Object{Kind: "Lease", Name: "guard"}, Now: now(t), Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.Run(ctx)
	}()
	step = func(what string, wait time.Duration, want ...string) {
		t.Helper()
		advance(wait)
		if d := cmp.Diff(want, lines.take()); d != "" {
			t.Errorf("%s: notices (-want +got):\n%s", what, d)
		}
	}
	return step, func() {
		cancel()
		<-ended
	}
}

// TestRun: the notices of an audit while objects change.
func TestRun(t *testing.T) {
	states := healthy(t)
	// Keys are not generated in the bubble: Go's FIPS module collects entropy from the clock.
	renewed := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	synctest.Test(t, func(t *testing.T) {
		api := newServer(states)
		step, end := startAuditor(t, api, subject)
		step("nothing is wrong", 10*time.Second, "Compliant on Lease guard", "Compliant on Lease guard") // control and guard

		good := states[kubeletClient].Live
		bad := good.DeepCopy()
		bad.SetResourceVersion("8")
		if err := unstructured.SetNestedField(bad.Object, "eA==", "data", "tls.key"); err != nil {
			t.Fatal(err)
		}
		api.store(kubeletClient, bad)
		step("an unparsable key, before the patience ends", storedPatience-time.Second)
		api.store(kubeletClient, good)
		step("the key is restored in time", time.Minute)
		api.store(kubeletClient, bad)
		step("an unparsable key", time.Minute, "Finding active KeyUnparsable on Secret kubelet-client",
			"Not compliant on Lease guard")
		api.store(kubeletClient, nil)
		// KeyUnparsable stays active: no key was read since.
		step("deleted", time.Minute, "Finding active SecretMissing on Secret kubelet-client")
		api.store(kubeletClient, good)
		step("restored", time.Minute, "Finding resolved KeyUnparsable on Secret kubelet-client",
			"Finding resolved SecretMissing on Secret kubelet-client", "Compliant on Lease guard")

		rotated := live(t, openshift.ServingCert("uid-1", renewed.Certificate, renewed.Key))
		rotated.SetResourceVersion("9")
		api.store(servingCert, rotated)
		step("rotated", time.Minute, "Certificate rotated on Secret serving-cert")

		api.failLists("services", apierrors.NewForbidden(schema.GroupResource{Resource: "services"}, "api", errors.New("no")))
		api.end(service)
		step("permission is lost, before the patience ends", unreadablePatience-5*time.Second)
		step("permission is lost", 10*time.Second, "Finding active Unreadable on Service api",
			"Could not verify on Lease guard")
		api.failLists("services", nil)
		step("permission is granted again", time.Minute, "Finding resolved Unreadable on Service api",
			"Compliant on Lease guard")

		api.store(policy, nil)
		step("the guard is missing, before the patience ends", 30*time.Second)
		step("the guard is missing", time.Minute, "Finding active GuardMissing on ValidatingAdmissionPolicy guard",
			"Not compliant on Lease guard")
		step("an hour later", time.Hour, "Finding still active GuardMissing on ValidatingAdmissionPolicy guard")
		end()
		for _, selector := range api.asked {
			if !strings.HasPrefix(selector, "metadata.name=") {
				t.Errorf("listed by %q, want by name", selector)
			}
		}
	})
}

// TestComparedObjects: a certificate and its CA bundle change one after the other. If the
// second change follows within the patience, nothing is reported; a certificate that the
// bundle's CA never signs is reported.
func TestComparedObjects(t *testing.T) {
	before, after := pkitest.NewCA("service-ca@1"), pkitest.NewCA("service-ca@2")
	bundle := follow.Named(corev1.SchemeGroupVersion, "ConfigMap", "guard", "openshift-service-ca.crt")
	version := 10
	next := func(stored *unstructured.Unstructured) *unstructured.Unstructured {
		version++
		stored.SetResourceVersion(fmt.Sprint(version))
		return stored
	}
	// Keys are not generated in the bubble, as above.
	pairs := map[*pkitest.CA]pkitest.Pair{
		before: before.Issue(pkitest.ServingCert()),
		after:  after.Issue(pkitest.ServingCert()),
	}
	issued := func(ca *pkitest.CA) *unstructured.Unstructured {
		pair := pairs[ca]
		return next(live(t, openshift.ServingCert("uid-1", pair.Certificate, pair.Key)))
	}
	published := func(ca *pkitest.CA) *unstructured.Unstructured {
		return next(live(t, &corev1.ConfigMap{Data: map[string]string{"service-ca.crt": string(ca.PEM())}}))
	}
	states, audited := healthy(t), subject()
	audited.Secrets[0].Bundle = &admit.CABundle{Namespace: bundle.Namespace, Name: bundle.Name, Key: "service-ca.crt"}
	states[servingCert] = follow.State{Live: issued(before)}
	states[bundle] = follow.State{Live: published(before)}
	synctest.Test(t, func(t *testing.T) {
		api := newServer(states)
		step, end := startAuditor(t, api, func() Subject { return audited })
		step("nothing is wrong", 10*time.Second, "Compliant on Lease guard", "Compliant on Lease guard") // control and guard

		api.store(servingCert, issued(after))
		step("a new service CA issues the certificate", comparedPatience-5*time.Second)
		api.store(bundle, published(after))
		step("the bundle follows", 2*comparedPatience, "Certificate rotated on Secret serving-cert")

		api.store(bundle, published(before))
		step("the bundle changes first", comparedPatience-5*time.Second)
		api.store(servingCert, issued(before))
		step("the certificate follows", 2*comparedPatience, "Certificate rotated on Secret serving-cert")

		garbage := issued(after)
		if err := unstructured.SetNestedField(garbage.Object, "eA==", "data", "tls.key"); err != nil {
			t.Fatal(err)
		}
		api.store(servingCert, garbage)
		step("a fault of the certificate alone is reported first", 2*storedPatience,
			"Finding active KeyUnparsable on Secret serving-cert", "Not compliant on Lease guard")
		step("then the mismatch with the bundle", 2*comparedPatience, "Finding active UntrustedIssuer on Secret serving-cert")
		end()
	})
}

// now returns a clock that starts at the instant of the fixtures.
func now(t *testing.T) func() time.Time {
	t.Helper()
	start, fixtures := time.Now(), pkitest.Now()
	return func() time.Time { return fixtures.Add(time.Since(start)) }
}

// TestNoAPI: an API that is not served is not an error.
func TestNoAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(map[follow.Object]follow.State{operator: {}})
		api.failLists("kubeapiservers", apierrors.NewNotFound(schema.GroupResource{Resource: "kubeapiservers"}, ""))
		ctx, cancel := context.WithCancel(t.Context())
		f := follow.Start(ctx, api, operator, make(chan struct{}, 1), slog.New(slog.DiscardHandler))
		advance(time.Minute)
		if s := f.State(); !s.Known || !s.NoAPI || s.Err != nil {
			t.Errorf("state: %+v", s)
		}
		api.failLists("kubeapiservers", nil) // OpenShift's operator is installed
		advance(time.Minute)
		if s := f.State(); !s.Known || s.NoAPI || s.Err != nil {
			t.Errorf("state: %+v", s)
		}
		cancel()
		synctest.Wait()
	})
}

// TestNotAnAPIServer: a server that does not serve Secrets is not an API server (a proxy, a
// wrong path in a kubeconfig), and the audit cannot verify anything.
func TestNotAnAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer(healthy(t))
		for _, resource := range []string{"secrets", "services", "configmaps", "kubeapiservers",
			"validatingadmissionpolicies"} {
			api.failLists(resource, apierrors.NewNotFound(schema.GroupResource{Resource: resource}, ""))
		}
		result, err := Once(t.Context(), api, subject(), nil, nil, now(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, verdict := range result.Verdicts {
			if verdict.Status != control.CouldNotVerify && !verdict.Control.Neighbour {
				t.Errorf("%s: %s", verdict.Control.ID, verdict.Status)
			}
		}
		if checked := check.CheckedReasons(result.Results); len(checked) > 0 || len(result.Verdicts) == 0 {
			t.Errorf("%d verdicts; checked %s", len(result.Verdicts), checked)
		}
	})
}

// TestLeader: an audit that fails is started again after a delay, and the Lease is
// released at the end.
func TestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Up to chart 0.2 the webhook owned the Lease, and its Pod cannot release it.
		client := fake.NewClientset(&coordination.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "guard", Name: "audit", OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1",
					Kind: "Deployment", Name: "webhook", UID: "w"}},
			},
			Spec: coordination.LeaseSpec{
				HolderIdentity: new("webhook-pod"), LeaseDurationSeconds: new(int32(leaseDuration.Seconds())),
				AcquireTime: new(metav1.NowMicro()), RenewTime: new(metav1.NowMicro()),
			},
		})
		var log strings.Builder
		var audits, panics atomic.Int64
		var mu sync.Mutex
		var leading []bool
		l := &Leader{
			Leases: client.CoordinationV1(), Namespace: "guard", Name: "audit", Identity: "pod",
			Owner: func(context.Context) (metav1.OwnerReference, error) {
				return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "audit", UID: "u"}, nil
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
		advance(retryDelay - time.Second)
		if audits.Load() != 1 || panics.Load() != 1 {
			t.Errorf("before the delay ends: %d audits, %d panics", audits.Load(), panics.Load())
		}
		advance(time.Minute)
		cancel()
		<-ended
		if d := cmp.Diff([]bool{true, false, true, false}, leading); d != "" || audits.Load() != 2 {
			t.Errorf("%d audits, leading (-want +got):\n%s", audits.Load(), d)
		}
		if strings.Contains(log.String(), "PRIVATE KEY") || !strings.Contains(log.String(), "Panic in the audit") {
			t.Errorf("log:\n%s", log.String())
		}
		lease, err := client.CoordinationV1().Leases("guard").Get(context.WithoutCancel(t.Context()), "audit",
			metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != "" {
			t.Errorf("the Lease was not released: %v, %v", lease.Spec, err)
		}
		if err == nil && (len(lease.OwnerReferences) != 1 || lease.OwnerReferences[0].UID != "u") {
			t.Errorf("owners of the Lease: %v", lease.OwnerReferences)
		}
	})
}

// TestLeaderRefused: a Lease or Deployment that cannot be read is requested a few times an
// hour. The first failure and the recovery are logged, and then the audit starts. The same
// applies if the permission is lost while the audit runs.
func TestLeaderRefused(t *testing.T) {
	const failed, recovered = " longestInterval=", " lease=" // keys in the log lines
	leases := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	forbidden, missing := apierrors.NewForbidden(leases, "audit", errors.New("no right")), apierrors.NewNotFound(
		schema.GroupResource{Group: "apps", Resource: "deployments"}, "audit")
	cases := map[string]struct {
		owned    bool  // the Lease gets an owner
		ownerErr error // of reading the owner
		leaseErr error // of reading the Lease
		max      int   // requests in an hour
	}{
		"no permission to read the Lease":                {leaseErr: forbidden, max: 13},
		"no permission to read the Lease, with an owner": {owned: true, leaseErr: forbidden, max: 13},
		"the Deployment does not exist":                  {owned: true, ownerErr: missing, max: 13},
		"the API server is unavailable":                  {owned: true, ownerErr: errors.New("connection refused"), max: 121},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset()
				var asked, audits atomic.Int64
				var failing atomic.Bool
				client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
					if !failing.Load() || c.leaseErr == nil {
						return false, nil, nil
					}
					asked.Add(1)
					return true, nil, c.leaseErr
				})
				var log strings.Builder
				l := &Leader{
					Leases: client.CoordinationV1(), Namespace: "guard", Name: "audit", Identity: "pod",
					Audit:   func(ctx context.Context) { audits.Add(1); <-ctx.Done() },
					Leading: func(bool) {}, Failed: func() {}, Log: slog.New(slog.NewTextHandler(&log, nil)),
				}
				if c.owned {
					l.Owner = func(context.Context) (metav1.OwnerReference, error) {
						if failing.Load() && c.ownerErr != nil {
							asked.Add(1)
							return metav1.OwnerReference{}, c.ownerErr
						}
						return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "audit", UID: "u"}, nil
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				failing.Store(true)
				ended := make(chan struct{})
				go func() { defer close(ended); l.Run(ctx) }()
				advance(time.Hour)
				asked.Store(0)
				advance(time.Hour)
				if n := int(asked.Load()); n > c.max || n < 5 || audits.Load() != 0 {
					t.Errorf("requested %d times in an hour, want 5 to %d; %d audits", n, c.max, audits.Load())
				}
				failing.Store(false)
				advance(maxRetryDelay + time.Second)
				if audits.Load() != 1 {
					t.Errorf("%d audits after the recovery, want 1", audits.Load())
				}
				if c.leaseErr != nil { // the permission is lost while the audit runs
					failing.Store(true)
					advance(time.Hour)
					asked.Store(0)
					advance(time.Hour)
					if n := int(asked.Load()); n > c.max {
						t.Errorf("requested %d times in an hour after the permission was lost, want at most %d", n, c.max)
					}
					failing.Store(false)
					advance(maxRetryDelay + leaseDuration)
					if audits.Load() != 2 {
						t.Errorf("%d audits after the permission is granted again, want 2", audits.Load())
					}
				}
				cancel()
				<-ended
				times := int(audits.Load())
				if a, b := strings.Count(log.String(), failed), strings.Count(log.String(), recovered); a != times || b != times {
					t.Errorf("the failure is logged %d times, the recovery %d times, want %d:\n%s", a, b, times, &log)
				}
			})
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package follow

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
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

// server is an API server with one ConfigMap. Its lists and watches can fail.
type server struct {
	dynamic.Interface
	mu sync.Mutex
	// list and watch return the errors of lists and watches, or panic.
	list, watch func() error
	// lists counts the requests to list.
	lists int
}

func newServer(t *testing.T) *server {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	apiServers := schema.GroupVersionResource{Group: "config.openshift.io", Version: "v1", Resource: "apiservers"}
	client := fake.NewSimpleDynamicClientWithCustomListKinds(
		scheme,
		map[schema.GroupVersionResource]string{apiServers: "APIServerList"},
		&corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ca"},
		},
	)
	s := &server{Interface: client}
	client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lists++; s.list == nil {
			return false, nil, nil
		}
		err := s.list()
		return err != nil, nil, err
	})
	client.PrependWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.watch != nil {
			if err := s.watch(); err != nil {
				return true, nil, err
			}
		}
		return true, watch.NewFake(), nil
	})
	return s
}

// fail makes lists and watches fail; with nil they succeed.
func (s *server) fail(list, watch func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.watch = list, watch
}

// asked returns how many lists there were since the last call.
func (s *server) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.lists
	s.lists = 0
	return n
}

// pass lets time pass in the test's bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func always(err error) func() error { return func() error { return err } }

// TestRetries: what fails is tried again, soon after an error that may end soon, and every few
// minutes after one that may last. A panic is such an error, and is logged once.
func TestRetries(t *testing.T) {
	configMaps := schema.GroupResource{Resource: "configmaps"}
	forbidden := always(apierrors.NewForbidden(configMaps, "ca", errors.New("no permission")))
	panics := func() error { panic("a value that may hold anything") }
	for name, c := range map[string]struct {
		list, watch func() error
		// most bounds the lists in an hour, soon the time until the object is known again after
		// an hour of errors.
		most int
		soon time.Duration
		err  string
		// logs is how many lines are logged.
		logs int
	}{
		"no permission to list":  {list: forbidden, most: 25, soon: 7 * time.Minute, err: "no permission", logs: 1},
		"no permission to watch": {watch: forbidden, most: 25, soon: 7 * time.Minute, err: "no permission", logs: 1},
		"not an API server":      {list: always(apierrors.NewNotFound(configMaps, "")), most: 25, soon: 7 * time.Minute, err: "not found", logs: 1},
		"unavailable":            {list: always(errors.New("connection refused")), most: 130, soon: 40 * time.Second, err: "connection refused"},
		"panic in a list":        {list: panics, most: 130, soon: 40 * time.Second, err: "panic: string", logs: 1},
		"panic in a watch":       {watch: panics, most: 130, soon: 40 * time.Second, err: "panic: string", logs: 1},
		"no error":               {most: 15, soon: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				s.fail(c.list, c.watch)
				var log strings.Builder
				ctx, cancel := context.WithCancel(t.Context())
				f := Start(ctx, s, Named(corev1.SchemeGroupVersion, "ConfigMap", "ns", "ca"), make(chan struct{}, 1),
					slog.New(slog.NewTextHandler(&log, nil)))
				pass(20 * time.Second)
				if n := s.asked(); c.err != "" && n < 3 {
					t.Errorf("asked %d times at the beginning, want 3 or more", n)
				}
				pass(time.Hour)
				if n := s.asked(); n > c.most || n < 5 {
					t.Errorf("asked %d times in an hour, want 5 to %d", n, c.most)
				}
				if err := f.State().Err; c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) ||
					c.err == "" && err != nil {
					t.Errorf("error: %v", err)
				}
				if n := strings.Count(log.String(), "\n"); n != c.logs {
					t.Errorf("%d lines were logged, want %d:\n%s", n, c.logs, &log)
				}
				if strings.Contains(log.String(), "may hold anything") {
					t.Errorf("the log has the panic's value:\n%s", &log)
				}
				s.fail(nil, nil)
				pass(c.soon)
				if state := f.State(); !state.Known || state.Live == nil || state.Err != nil {
					t.Errorf("%s after the last error: %+v", c.soon, state)
				}
				cancel()
				synctest.Wait()
				s.asked()
				pass(time.Hour)
				if n := s.asked(); n > 0 {
					t.Errorf("asked %d times after it was stopped", n)
				}
			})
		})
	}
}

// TestPanicAgain: a panic is logged again after a success.
func TestPanicAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		var log strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		Start(ctx, s, Named(corev1.SchemeGroupVersion, "ConfigMap", "ns", "ca"), make(chan struct{}, 1),
			slog.New(slog.NewTextHandler(&log, nil)))
		for range 2 {
			s.fail(func() error { panic(errors.New("x")) }, nil)
			pass(time.Hour)
			s.fail(nil, nil)
			pass(time.Hour)
		}
		if n := strings.Count(log.String(), " stack="); n != 2 {
			t.Errorf("logged %d times, want 2:\n%s", n, &log)
		}
		cancel()
		synctest.Wait()
	})
}

// TestRefusalLogged: a refusal is logged once when it begins and once when it ends, also if its
// text changes and if there are other errors.
func TestRefusalLogged(t *testing.T) {
	configMaps := schema.GroupResource{Resource: "configmaps"}
	// Only the line about the beginning has an error.
	const begun, ended = "begins", "ends"
	n := 0
	forbidden := func() error {
		n++
		return apierrors.NewForbidden(configMaps, "ca", fmt.Errorf("attempt %d", n))
	}
	away := always(errors.New("connection refused"))
	missing := always(
		apierrors.NewNotFound(schema.GroupResource{Group: "config.openshift.io", Resource: "apiservers"}, ""),
	)
	builtIn := Named(corev1.SchemeGroupVersion, "ConfigMap", "ns", "ca")
	custom := Named(schema.GroupVersion{Group: "config.openshift.io", Version: "v1"}, "APIServer", "", "cluster")
	cases := map[string]struct {
		object Object
		// fails are the errors of lists, each for an hour; nil: no error.
		fails []func() error
		// watch is the error of all watches.
		watch func() error
		want  []string
	}{
		"begins and ends":                          {builtIn, []func() error{nil, forbidden, nil}, nil, []string{"WARN " + begun, "INFO " + ended}},
		"begins and ends twice":                    {builtIn, []func() error{forbidden, nil, forbidden, nil}, nil, []string{"WARN " + begun, "INFO " + ended, "WARN " + begun, "INFO " + ended}},
		"the API server is unavailable in between": {builtIn, []func() error{forbidden, away, forbidden, nil}, nil, []string{"WARN " + begun, "INFO " + ended}},
		"the API server is unavailable":            {builtIn, []func() error{nil, away, nil}, nil, nil},
		"no permission to watch":                   {builtIn, []func() error{nil, nil}, forbidden, []string{"WARN " + begun}},
		"no such API":                              {custom, []func() error{missing, missing, nil}, nil, []string{"INFO " + begun, "INFO " + ended}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				var log strings.Builder
				ctx, cancel := context.WithCancel(t.Context())
				s.fail(c.fails[0], c.watch)
				Start(ctx, s, c.object, make(chan struct{}, 1), slog.New(slog.NewTextHandler(&log, nil)))
				for _, fail := range c.fails {
					s.fail(fail, c.watch)
					pass(time.Hour)
				}
				cancel()
				synctest.Wait()
				var got []string
				for line := range strings.Lines(log.String()) {
					level, rest, _ := strings.Cut(line[strings.Index(line, "level=")+len("level="):], " msg=\"")
					what := ended
					if strings.Contains(rest, " err=") {
						what = begun
					}
					got = append(got, level+" "+what)
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("(-want +got):\n%s\n%s", d, &log)
				}
			})
		})
	}
}

// TestListedAgain: an object that is listed again and is the same is not a change. Another one is, even if its version
// is the same, as after a restore of etcd.
func TestListedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		s := newServer(t)
		var replaced atomic.Pointer[unstructured.Unstructured]
		client, _ := s.Interface.(*fake.FakeDynamicClient)
		client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			other := replaced.Load()
			if other == nil {
				return false, nil, nil
			}
			return true, &unstructured.UnstructuredList{
				Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMapList"}, Items: []unstructured.Unstructured{*other},
			}, nil
		})
		changed := make(chan struct{}, 1)
		object := Named(corev1.SchemeGroupVersion, "ConfigMap", "ns", "ca")
		f := Start(ctx, s, object, changed, slog.New(slog.DiscardHandler))
		synctest.Wait()
		<-changed
		before := f.State().Live
		pass(time.Hour)
		if s.asked() < 2 {
			t.Error("it was not listed again")
		}
		if len(changed) > 0 || f.State().Live != before {
			t.Error("the same object counts as a change")
		}
		other := before.DeepCopy()
		other.Object["data"] = map[string]any{"ca.crt": "x"}
		replaced.Store(other)
		pass(time.Hour)
		if len(changed) == 0 || f.State().Live == before {
			t.Error("a change of the object is not one")
		}
	})
}

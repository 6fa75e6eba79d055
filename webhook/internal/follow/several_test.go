// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

// stored is an object in an API server.
func stored(kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind}}
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// TestSeveral: the objects of a name in all namespaces, and those with some labels, are requested by name and by
// labels, and followed.
func TestSeveral(t *testing.T) {
	configMap := func(namespace, data string) *unstructured.Unstructured {
		o := stored("ConfigMap", namespace, "ca")
		o.Object["data"] = map[string]any{"k": data}
		return o
	}
	space := func(name string) *unstructured.Unstructured {
		o := stored("Namespace", "", name)
		o.SetLabels(map[string]string{"hosted": "true"})
		return o
	}
	inAll := Named(corev1.SchemeGroupVersion, "ConfigMap", "", "ca").InAllNamespaces("")
	labelled := Named(corev1.SchemeGroupVersion, "Namespace", "", "")
	labelled.Selector = "hosted"
	for name, c := range map[string]struct {
		object             Object
		first, more, other *unstructured.Unstructured
		fields, labels     string
	}{
		"in all namespaces": {
			object: inAll, first: configMap("a", "1"), more: configMap("b", "1"), other: configMap("a", "2"), fields: "metadata.name=ca",
		},
		"with labels": {object: labelled, first: space("a"), more: space("b"), other: space("a"), labels: "hosted"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				scheme := runtime.NewScheme()
				if err := corev1.AddToScheme(scheme); err != nil {
					t.Fatal(err)
				}
				client := fake.NewSimpleDynamicClient(scheme)
				client.PrependReactor("list", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
					asked := action.(clienttesting.ListAction).GetListRestrictions() //nolint:forcetypeassert // it is one
					if asked.Fields.String() != c.fields || asked.Labels.String() != c.labels {
						t.Errorf("requested with fields %q and labels %q", asked.Fields, asked.Labels)
					}
					return false, nil, nil
				})
				f := Start(t.Context(), client, c.object, make(chan struct{}, 1), slog.New(slog.DiscardHandler))
				expect := func(when string, want ...string) {
					t.Helper()
					synctest.Wait()
					s := f.State()
					got := slices.Sorted(maps.Keys(s.All))
					if d := cmp.Diff(want, got); d != "" || !s.Known || s.Live != nil {
						t.Errorf("%s: known: %t, one object: %t (-want +got):\n%s", when, s.Known, s.Live != nil, d)
					}
				}
				tracker := client.Tracker()
				do := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				expect("at first")
				do(tracker.Add(c.first))
				expect("after the first", "a")
				before := f.State().All
				do(tracker.Add(c.more))
				expect("after one more", "a", "b")
				if len(before) != 1 {
					t.Error("the state that was returned before changed")
				}
				do(tracker.Update(c.object.Resource, c.other, c.first.GetNamespace()))
				expect("after an update", "a", "b")
				do(tracker.Delete(c.object.Resource, c.first.GetNamespace(), c.first.GetName()))
				expect("after a delete", "b")
			})
		})
	}
}

// TestTooMany: more objects than the bound are an error, at the first list and later, and what was read before is kept.
func TestTooMany(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	object := Named(corev1.SchemeGroupVersion, "ConfigMap", "", "ca").InAllNamespaces("")
	configMap := func(i int) *unstructured.Unstructured { return stored("ConfigMap", fmt.Sprintf("ns-%d", i), "ca") }
	client := fake.NewSimpleDynamicClient(scheme)
	for i := range MaxObjects {
		if err := client.Tracker().Add(configMap(i)); err != nil {
			t.Fatal(err)
		}
	}
	if s := ReadOnce(t.Context(), client, object); s.Err != nil || len(s.All) != MaxObjects {
		t.Fatalf("%d objects, error %v", len(s.All), s.Err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := Start(t.Context(), client, object, make(chan struct{}, 1), slog.New(slog.DiscardHandler))
		synctest.Wait()
		if err := client.Tracker().Add(configMap(MaxObjects)); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if s := f.State(); !s.Known || !errors.Is(s.Err, ErrTooMany) || len(s.All) != MaxObjects {
			t.Errorf("known: %t, %d objects, error %v", s.Known, len(s.All), s.Err)
		}
		if err := client.Tracker().Delete(object.Resource, "ns-0", "ca"); err != nil {
			t.Fatal(err)
		}
		pass(2 * refusedRetry)
		if s := f.State(); s.Err != nil || len(s.All) != MaxObjects {
			t.Errorf("after one is gone: %d objects, error %v", len(s.All), s.Err)
		}
	})
	if err := client.Tracker().Add(configMap(MaxObjects + 1)); err != nil {
		t.Fatal(err)
	}
	if s := ReadOnce(t.Context(), client, object); !errors.Is(s.Err, ErrTooMany) || s.Known {
		t.Errorf("known: %t, error %v", s.Known, s.Err)
	}
}

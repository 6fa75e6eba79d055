// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
)

// selectedCAs are the ConfigMaps of the name ca, with their content in the namespaces with the label hosted.
func selectedCAs() Object {
	return Named(corev1.SchemeGroupVersion, "ConfigMap", "", "ca").InAllNamespaces("hosted")
}

// caIn is such a ConfigMap.
func caIn(namespace, data string) *unstructured.Unstructured {
	o := stored("ConfigMap", namespace, "ca")
	o.Object["data"] = map[string]any{"k": data}
	return o
}

// namespace is a Namespace that is selected, or not.
func namespace(name string, selected bool) *unstructured.Unstructured {
	o := stored("Namespace", "", name)
	if selected {
		o.SetLabels(map[string]string{"hosted": "true"})
	}
	return o
}

// selectingServer is an API server with objects. Its watches ignore the label selector.
func selectingServer(t *testing.T, objects ...runtime.Object) *fake.FakeDynamicClient {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewSimpleDynamicClient(scheme, objects...)
}

// TestSelected: the content of objects is kept in selected namespaces only, and unless they are too large; also after
// changes of an object and of the labels of its namespace.
func TestSelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := selectingServer(t, namespace("a", true), namespace("b", false), caIn("a", "1"), caIn("b", "1"))
		f := Start(t.Context(), client, selectedCAs(), make(chan struct{}, 1), slog.New(slog.DiscardHandler))
		expect := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			s := f.State()
			var got []string
			for key, o := range s.All {
				text, _, _ := unstructured.NestedString(o.Object, "data", "k")
				if s.TooLarge[key] {
					text = "too large" + text
				}
				got = append(got, key+" "+text)
			}
			for key, o := range s.Others {
				if got = append(got, key+" other"); o.Object["data"] != nil {
					t.Errorf("%s: the content of %s was kept", when, key)
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(want, got); d != "" || !s.Known || s.Err != nil {
				t.Errorf("%s: known: %t, error: %v (-want +got):\n%s", when, s.Known, s.Err, d)
			}
		}
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		configMaps, namespaces := selectedCAs().Resource, corev1.SchemeGroupVersion.WithResource("namespaces")
		tracker := client.Tracker()
		expect("at first", "a 1", "b other")
		do(tracker.Update(configMaps, caIn("b", "2"), "b"))
		do(tracker.Update(configMaps, caIn("a", "2"), "a"))
		expect("after updates", "a 2", "b other")
		do(tracker.Update(configMaps, caIn("a", strings.Repeat("x", MaxSize)), "a"))
		expect("after it became large", "a too large", "b other")
		do(tracker.Update(configMaps, caIn("a", "3"), "a"))
		expect("after it became small", "a 3", "b other")
		do(tracker.Update(namespaces, namespace("b", true), ""))
		expect("after the other namespace was selected", "a 3", "b 2")
		do(tracker.Delete(namespaces, "", "a"))
		expect("after the label was removed", "a other", "b 2")
		do(tracker.Delete(configMaps, "a", "ca"))
		expect("after one was deleted", "b 2")
	})
}

// TestTooManyOthers: objects in namespaces that are not selected do not count as selected ones, and have a bound.
func TestTooManyOthers(t *testing.T) {
	client := selectingServer(t, namespace("a", true), caIn("a", "1"))
	for i := range MaxOthers {
		if err := client.Tracker().Add(caIn(fmt.Sprintf("ns-%d", i), "1")); err != nil {
			t.Fatal(err)
		}
	}
	if s := ReadOnce(t.Context(), client, selectedCAs()); s.Err != nil || len(s.All) != 1 || len(s.Others) != MaxOthers {
		t.Errorf("%d objects, %d others, error %v", len(s.All), len(s.Others), s.Err)
	}
	if err := client.Tracker().Add(caIn("one-more", "1")); err != nil {
		t.Fatal(err)
	}
	if s := ReadOnce(t.Context(), client, selectedCAs()); !errors.Is(s.Err, ErrTooManyOthers) || s.Known {
		t.Errorf("one more: known: %t, error %v", s.Known, s.Err)
	}
}

// paged answers lists in pages of the limit.
type paged struct {
	dynamic.ResourceInterface
	items  []unstructured.Unstructured
	limits []int64
}

func (p *paged) List(_ context.Context, options metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	p.limits = append(p.limits, options.Limit)
	from, _ := strconv.Atoi(options.Continue) // empty: 0
	to := min(from+int(options.Limit), len(p.items))
	list := &unstructured.UnstructuredList{Items: p.items[from:to]}
	list.SetResourceVersion("7")
	if to < len(p.items) {
		list.SetContinue(strconv.Itoa(to))
	}
	return list, nil
}

// TestPages: all pages are read, each with a limit, and the list ends at the first error.
func TestPages(t *testing.T) {
	p := &paged{}
	for i := range 2*pageSize + 1 {
		p.items = append(p.items, *caIn(strconv.Itoa(i), "1"))
	}
	var got []string
	version, err := pages(t.Context(), p, metav1.ListOptions{}, func(o *unstructured.Unstructured) error {
		got = append(got, o.GetNamespace())
		return nil
	})
	if err != nil || version != "7" || len(got) != len(p.items) || got[len(got)-1] != strconv.Itoa(2*pageSize) {
		t.Errorf("version %q, error %v, objects %v", version, err, got)
	}
	if d := cmp.Diff([]int64{pageSize, pageSize, pageSize}, p.limits); d != "" {
		t.Errorf("limits (-want +got):\n%s", d)
	}
	p.limits = nil
	_, err = pages(t.Context(), p, metav1.ListOptions{}, func(*unstructured.Unstructured) error { return ErrTooMany })
	if !errors.Is(err, ErrTooMany) || len(p.limits) != 1 {
		t.Errorf("after an error: %v, %d pages", err, len(p.limits))
	}
}

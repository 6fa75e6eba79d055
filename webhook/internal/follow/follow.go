// SPDX-License-Identifier: Apache-2.0

// Package follow keeps up with single objects of the API, by a list and a watch
// with the object's name: nothing else is ever read or kept.
package follow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

const (
	// listTime bounds a list, watchTime a watch, after which all begins anew:
	// so nothing that was missed stays unseen for longer.
	listTime, watchTime = 10 * time.Second, 5 * time.Minute
	// firstRetry and lastRetry bound the time between two attempts.
	firstRetry, lastRetry = time.Second, 30 * time.Second
)

// Object names one object of the API.
type Object struct {
	Resource        schema.GroupVersionResource
	Kind            string
	Namespace, Name string // Namespace is empty where there is none
}

// Named names an object by its kind. The resource is the kind's plural, as it
// is for all kinds that are followed here.
func Named(version schema.GroupVersion, kind, namespace, name string) Object {
	plural := strings.ToLower(kind) + "s"
	if stem, isPolicy := strings.CutSuffix(plural, "policys"); isPolicy {
		plural = stem + "policies"
	}
	return Object{Resource: version.WithResource(plural), Kind: kind, Namespace: namespace, Name: name}
}

// At locates it in findings.
func (o Object) At() finding.Location {
	name := o.Name
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	return finding.Location(o.Kind + " " + name)
}

// builtIn: every API server has such objects (Kubernetes' own API groups have no
// dot in their name, or end so).
func (o Object) builtIn() bool {
	return !strings.Contains(o.Resource.Group, ".") || strings.HasSuffix(o.Resource.Group, ".k8s.io")
}

// State is what is known of an object.
type State struct {
	// Known: it has been looked at, at least once.
	Known bool
	// NoAPI: the API server does not serve such objects.
	NoAPI bool
	// Live is the object as it is stored, nil where there is none. It must not be
	// changed.
	Live *unstructured.Unstructured
	// Err says why it could not be looked at; the rest is then of before.
	Err error
}

// Reference is what Events are about.
func (s State) Reference(o Object) report.Object {
	r := report.Object{APIVersion: o.Resource.GroupVersion().String(), Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
	if s.Live != nil {
		r.UID = string(s.Live.GetUID())
	}
	return r
}

// Follower keeps up with one object. [Start] makes one.
//
// client-go's Reflector would do most of it, but takes an API that is not served
// (operator.openshift.io elsewhere) for an error to be logged for ever.
type Follower struct {
	object Object
	api    dynamic.ResourceInterface

	mu  sync.Mutex
	now State
	// changed gets a value after now has changed.
	changed chan<- struct{}
}

// Start follows an object until the context ends. changed gets a value after the
// state has changed; it should have room for one.
func Start(ctx context.Context, client dynamic.Interface, o Object, changed chan<- struct{}) *Follower {
	f := newFollower(client, o, changed)
	go f.run(ctx)
	return f
}

// Look looks at an object once.
func Look(ctx context.Context, client dynamic.Interface, o Object) State {
	f := newFollower(client, o, make(chan struct{}, 1))
	if _, err := f.list(ctx); err != nil {
		f.failed(err)
	}
	return f.State()
}

func newFollower(client dynamic.Interface, o Object, changed chan<- struct{}) *Follower {
	f := &Follower{object: o, api: client.Resource(o.Resource), changed: changed}
	if o.Namespace != "" {
		f.api = client.Resource(o.Resource).Namespace(o.Namespace)
	}
	return f
}

// State is what is known now.
func (f *Follower) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *Follower) set(s State) {
	f.mu.Lock()
	f.now = s
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default: // one is waiting already
	}
}

// failed notes why the object could not be looked at. A list of objects is not
// found only where there is no such API, which may be so of one that is not
// Kubernetes' own; who has not even those is no API server (a proxy, a wrong path).
func (f *Follower) failed(err error) {
	s := f.State()
	if s.Err = err; apierrors.IsNotFound(err) && !f.object.builtIn() {
		s = State{Known: true, NoAPI: true}
	}
	f.set(s)
}

// run lists and watches until the context ends.
func (f *Follower) run(ctx context.Context) {
	pause := firstRetry
	for {
		version, err := f.list(ctx)
		if err == nil {
			pause = firstRetry
			err = f.watch(ctx, version)
		}
		if err != nil && ctx.Err() == nil {
			f.failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause + rand.N(pause/4)): //nolint:gosec // no secret: it spreads retries
		}
		if err != nil {
			pause = min(2*pause, lastRetry)
		}
	}
}

func (f *Follower) options() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, f.object.Name).String()}
}

func (f *Follower) list(ctx context.Context) (resourceVersion string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	list, err := f.api.List(ctx, f.options())
	if err != nil {
		return "", err
	}
	s := State{Known: true}
	if len(list.Items) > 0 {
		s.Live = &list.Items[0]
	}
	f.set(s)
	return list.GetResourceVersion(), nil
}

// watch follows until the watch ends, as it does now and then.
func (f *Follower) watch(ctx context.Context, version string) error {
	options := f.options()
	options.ResourceVersion = version
	options.TimeoutSeconds = new(int64(watchTime / time.Second))
	// The API server ends it in time, unless it is away.
	ctx, cancel := context.WithTimeout(ctx, watchTime+listTime)
	defer cancel()
	w, err := f.api.Watch(ctx, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, more := <-w.ResultChan():
			if !more {
				return nil
			}
			live, _ := event.Object.(*unstructured.Unstructured)
			switch event.Type {
			case watch.Added, watch.Modified:
				f.set(State{Known: true, Live: live})
			case watch.Deleted:
				f.set(State{Known: true})
			case watch.Bookmark:
			case watch.Error:
				if err := apierrors.FromObject(event.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
					return fmt.Errorf("watch: %w", err)
				}
				return nil
			}
		}
	}
}

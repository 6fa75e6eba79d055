// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"math/rand/v2"
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

// object names one object of the API.
type object struct {
	resource        schema.GroupVersionResource
	kind            string
	namespace, name string
}

// at locates it in findings.
func (o object) at() finding.Location {
	name := o.name
	if o.namespace != "" {
		name = o.namespace + "/" + name
	}
	return finding.Location(o.kind + " " + name)
}

// state is what is known of an object.
type state struct {
	// known: it has been looked at, at least once.
	known bool
	// noAPI: the API server does not serve such objects.
	noAPI bool
	// live is the object as it is stored, nil where there is none.
	live *unstructured.Unstructured
	// err says why it could not be looked at; the rest is then of before.
	err error
}

// reference is what Events are about.
func (s state) reference(o object) report.Object {
	r := report.Object{APIVersion: o.resource.GroupVersion().String(), Kind: o.kind, Namespace: o.namespace, Name: o.name}
	if s.live != nil {
		r.UID = string(s.live.GetUID())
	}
	return r
}

// follower keeps up with one object. It lists and watches by the object's name
// alone, so that nothing else is ever read or kept.
//
// client-go's Reflector would do most of it, but takes an API that is not served
// (operator.openshift.io elsewhere) for an error to be logged for ever.
type follower struct {
	object
	api dynamic.ResourceInterface

	mu  sync.Mutex
	now state
	// changed gets a value after now has changed.
	changed chan<- struct{}
}

func follow(ctx context.Context, client dynamic.Interface, o object, changed chan<- struct{}) *follower {
	f := &follower{object: o, api: client.Resource(o.resource), changed: changed}
	if o.namespace != "" {
		f.api = client.Resource(o.resource).Namespace(o.namespace)
	}
	go f.run(ctx)
	return f
}

func (f *follower) state() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *follower) set(s state) {
	f.mu.Lock()
	f.now = s
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default: // one is waiting already
	}
}

// run lists and watches until the context ends.
func (f *follower) run(ctx context.Context) {
	pause := firstRetry
	for {
		version, err := f.list(ctx)
		if err == nil {
			pause = firstRetry
			err = f.watch(ctx, version)
		}
		if err != nil && ctx.Err() == nil {
			s := f.state()
			if s.err = err; apierrors.IsNotFound(err) {
				s = state{known: true, noAPI: true}
			}
			f.set(s)
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

func (f *follower) options() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, f.name).String()}
}

func (f *follower) list(ctx context.Context) (resourceVersion string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	list, err := f.api.List(ctx, f.options())
	if err != nil {
		return "", err
	}
	s := state{known: true}
	if len(list.Items) > 0 {
		s.live = &list.Items[0]
	}
	f.set(s)
	return list.GetResourceVersion(), nil
}

// watch follows until the watch ends, as it does now and then.
func (f *follower) watch(ctx context.Context, version string) error {
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
				f.set(state{known: true, live: live})
			case watch.Deleted:
				f.set(state{known: true})
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

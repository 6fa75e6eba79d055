// SPDX-License-Identifier: Apache-2.0

// Package follow watches single objects of the API, the objects of one name in all namespaces,
// and the objects with some labels. It lists and watches with the name or the labels, so it
// never reads or keeps another object.
package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
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
	// listTime bounds a list, watchTime a watch. After it the object is listed again, which
	// bounds how long a missed change is unknown.
	listTime, watchTime = 10 * time.Second, 5 * time.Minute
	// firstRetry and lastRetry bound the time between two attempts. refusedRetry is the
	// longest one if the API server refuses (no permission, no such API), which can last
	// forever.
	firstRetry, lastRetry, refusedRetry = time.Second, 30 * time.Second, 5 * time.Minute
)

// MaxObjects is the largest number of objects that one [Follower] keeps: of one name in all
// namespaces, or with some labels. It bounds the memory, to some 10 MiB of Secrets.
const MaxObjects = 500

// ErrTooMany is the error in the state of more than [MaxObjects] objects.
var ErrTooMany = fmt.Errorf("there are more than %d of them", MaxObjects)

// Object names one object of the API, or several.
type Object struct {
	Resource        schema.GroupVersionResource
	Kind            string
	Namespace, Name string // Namespace is empty for a cluster-scoped object
	// AllNamespaces: it is the objects of this name in all namespaces. Namespace is empty.
	AllNamespaces bool
	// Selector is a label selector. If it is set, it is the cluster-scoped objects with these
	// labels. Name is empty.
	Selector string
}

// Named names an object by its kind. The resource must be the kind's plural, as for all kinds
// that are watched here.
func Named(version schema.GroupVersion, kind, namespace, name string) Object {
	plural := strings.ToLower(kind) + "s"
	if stem, isPolicy := strings.CutSuffix(plural, "policys"); isPolicy {
		plural = stem + "policies"
	}
	return Object{Resource: version.WithResource(plural), Kind: kind, Namespace: namespace, Name: name}
}

// InAllNamespaces returns the objects of the name in all namespaces.
func (o Object) InAllNamespaces() Object {
	o.Namespace, o.AllNamespaces = "", true
	return o
}

// Several reports whether these are several objects, see [State] All.
func (o Object) Several() bool { return o.AllNamespaces || o.Selector != "" }

// Subject returns the subject of results about the object. The name of objects with labels is
// their selector.
func (o Object) Subject() finding.Subject {
	return finding.Subject{Kind: o.Kind, Namespace: o.Namespace, Name: cmp.Or(o.Name, o.Selector)}
}

// builtIn reports whether every API server has such objects. The names of Kubernetes' own API
// groups have no dot, or end in .k8s.io.
func (o Object) builtIn() bool {
	return !strings.Contains(o.Resource.Group, ".") || strings.HasSuffix(o.Resource.Group, ".k8s.io")
}

// State is what is known of an object.
type State struct {
	// Known: it was read at least once.
	Known bool
	// NoAPI: the API server does not serve such objects.
	NoAPI bool
	// Live is the stored object, nil if it does not exist. It must not be changed.
	Live *unstructured.Unstructured
	// All are the stored objects, if they are several: by namespace, or by name if they have
	// no namespace. Neither the map nor the objects must be changed.
	All map[string]*unstructured.Unstructured
	// Err says why the last attempt to read it failed. The other fields are then older.
	Err error
}

// Reference returns the object for Events about it.
func (s State) Reference(o Object) report.Object {
	r := report.Object{APIVersion: o.Resource.GroupVersion().String(), Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
	if s.Live != nil {
		r.UID = string(s.Live.GetUID())
	}
	return r
}

// Follower watches one object, or several. [Start] makes one.
//
// client-go's Reflector does most of this, but logs an error again and again if an API is not
// served (operator.openshift.io on another Kubernetes).
type Follower struct {
	object Object
	api    dynamic.ResourceInterface
	log    *slog.Logger
	// refused: the last answer was a refusal, which was logged.
	refused bool

	mu    sync.Mutex
	state State
	// changed receives a value after state has changed.
	changed chan<- struct{}
}

// Start watches an object until the context ends. changed receives a value after the state
// has changed; it should be buffered with room for one. The state has the error of the last
// attempt. A refusal (no permission, no such API) is logged when it begins and when it ends.
// A panic ends only the attempt, and is logged.
func Start(
	ctx context.Context,
	client dynamic.Interface,
	o Object,
	changed chan<- struct{},
	log *slog.Logger,
) *Follower {
	f := newFollower(client, o, changed)
	f.log = log
	go f.run(ctx)
	return f
}

// ReadOnce reads an object once.
func ReadOnce(ctx context.Context, client dynamic.Interface, o Object) State {
	f := newFollower(client, o, make(chan struct{}, 1))
	if _, err := f.list(ctx); err != nil {
		f.recordError(err)
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

// State returns what is known now.
func (f *Follower) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

func (f *Follower) set(s State) {
	f.mu.Lock()
	f.state = s
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default: // a value is already pending
	}
}

// recordError records why the object could not be read. A list is not found only if the API
// server does not serve the API. That is normal for an API that is not built in. For a
// built-in one, the server is not an API server (a proxy, a wrong path).
func (f *Follower) recordError(err error) {
	s := f.State()
	if s.Err = err; apierrors.IsNotFound(err) && !f.object.builtIn() {
		s = State{Known: true, NoAPI: true}
	}
	f.set(s)
}

// run lists and watches until the context ends.
func (f *Follower) run(ctx context.Context) {
	pause := firstRetry
	var panicked bool // in the last attempt, and logged
	for {
		began := time.Now()
		stack, err := f.attempt(ctx)
		if err != nil && ctx.Err() == nil {
			if stack != "" && !panicked {
				f.log.ErrorContext(ctx, "Panic while watching an object, trying again",
					"object", f.object.Subject().String(), "err", err, "stack", stack)
			}
			f.recordError(err)
			f.logRefusal(ctx, err)
		}
		panicked = stack != ""
		if err == nil || time.Since(began) > lastRetry { // it worked for some time
			pause = firstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause + rand.N(pause/4)): //nolint:gosec // not security-relevant: it spreads retries
		}
		if err != nil {
			pause = min(2*pause, maxPause(err))
		}
	}
}

// isRefusal reports whether the API server will probably give the same answer again.
func isRefusal(err error) bool {
	return errors.Is(err, ErrTooMany) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err) ||
		apierrors.IsMethodNotSupported(err)
}

// maxPause returns the longest pause after an error.
func maxPause(err error) time.Duration {
	if isRefusal(err) {
		return refusedRetry
	}
	return lastRetry
}

// logRefusal logs the beginning of a refusal. Other errors, for example an unavailable API
// server, do not begin or end one; users of the state report them. An API that is not served
// is normal: not every cluster is OpenShift.
func (f *Follower) logRefusal(ctx context.Context, err error) {
	if f.refused || !isRefusal(err) {
		return
	}
	f.refused = true
	level := slog.LevelWarn
	if f.State().NoAPI {
		level = slog.LevelInfo
	}
	f.log.Log(ctx, level, "Object cannot be read, trying again with increasing delays", "object",
		f.object.Subject().String(), "err", err, "longestInterval", refusedRetry.String())
}

// logReadable logs the end of a refusal.
func (f *Follower) logReadable(ctx context.Context) {
	if f.refused {
		f.refused = false
		f.log.InfoContext(ctx, "Object can be read again", "object", f.object.Subject().String())
	}
}

// attempt lists and watches until an error or the end of the watch. It returns a panic as an
// error, without its value, which can be anything.
func (f *Follower) attempt(ctx context.Context) (stack string, err error) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		what := fmt.Sprintf("%T", value)
		if runtimeError, ok := value.(runtime.Error); ok {
			what = runtimeError.Error()
		}
		stack, err = string(debug.Stack()), fmt.Errorf("panic: %s", what)
	}()
	version, err := f.list(ctx)
	if err != nil {
		return "", err
	}
	return "", f.watch(ctx, version)
}

func (f *Follower) options() metav1.ListOptions {
	if f.object.Selector != "" {
		return metav1.ListOptions{LabelSelector: f.object.Selector}
	}
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, f.object.Name).String()}
}

// keyOf returns the key of an object in [State] All.
func keyOf(object *unstructured.Unstructured) string {
	return cmp.Or(object.GetNamespace(), object.GetName())
}

func (f *Follower) list(ctx context.Context) (resourceVersion string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	options := f.options()
	if f.object.Several() {
		options.Limit = MaxObjects + 1
	}
	list, err := f.api.List(ctx, options)
	switch {
	case err != nil:
		return "", err
	case f.object.Several() && (len(list.Items) > MaxObjects || list.GetContinue() != ""):
		return "", ErrTooMany
	}
	s := State{Known: true}
	switch {
	case f.object.Several():
		s.All = make(map[string]*unstructured.Unstructured, len(list.Items))
		for i := range list.Items {
			s.All[keyOf(&list.Items[i])] = &list.Items[i]
		}
	case len(list.Items) > 0:
		s.Live = &list.Items[0]
	}
	f.set(s)
	return list.GetResourceVersion(), nil
}

// changedBy returns the state after an object was written, or deleted.
func (f *Follower) changedBy(live *unstructured.Unstructured, deleted bool) (State, error) {
	if !f.object.Several() {
		if deleted {
			return State{Known: true}, nil
		}
		return State{Known: true, Live: live}, nil
	}
	all := maps.Clone(f.State().All) // others may be reading it
	if deleted {
		delete(all, keyOf(live))
	} else {
		all[keyOf(live)] = live
	}
	if len(all) > MaxObjects {
		return State{}, ErrTooMany
	}
	return State{Known: true, All: all}, nil
}

// watch updates the state until the watch ends.
func (f *Follower) watch(ctx context.Context, version string) error {
	options := f.options()
	options.ResourceVersion = version
	options.TimeoutSeconds = new(int64(watchTime / time.Second))
	// The API server ends the watch in time, unless it is unavailable.
	ctx, cancel := context.WithTimeout(ctx, watchTime+listTime)
	defer cancel()
	w, err := f.api.Watch(ctx, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	f.logReadable(ctx) // not after the list: the permission to watch may be missing
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
			case watch.Added, watch.Modified, watch.Deleted:
				s, err := f.changedBy(live, event.Type == watch.Deleted)
				if err != nil {
					return err
				}
				f.set(s)
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

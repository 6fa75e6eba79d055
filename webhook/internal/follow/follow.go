// SPDX-License-Identifier: Apache-2.0

// Package follow watches single objects of the API, the objects of one name in all namespaces,
// and the objects with some labels. It lists and watches with the name or the labels, so it
// never reads another object. It keeps the content of objects in selected namespaces only.
package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	// bounds how long a missed change is unknown. A watch is shorter by up to watchSpread, so
	// that those of many objects do not end at the same time.
	listTime, watchTime, watchSpread = 10 * time.Second, 5 * time.Minute, time.Minute
	// firstRetry and lastRetry bound the time between two attempts. refusedRetry is the
	// longest one if the API server refuses (no permission, no such API), which can last
	// forever.
	firstRetry, lastRetry, refusedRetry = time.Second, 30 * time.Second, 5 * time.Minute
)

// Bounds of one [Follower] of several objects. The content that it keeps is at most
// MaxObjects times MaxSize, 31 MiB; a Secret with a key pair has some 5 KiB.
const (
	// MaxObjects is the largest number of objects: with some labels, or in selected namespaces.
	MaxObjects = 500
	// MaxSize is the largest size of an object whose content is kept, in bytes of all its texts.
	MaxSize = 64 << 10
	// MaxOthers is the largest number of objects of the name in other namespaces. Only their
	// names are kept, some 1 KiB for each.
	MaxOthers = 5000
	// pageSize bounds how many objects are in memory at once in full, each up to 1.5 MiB.
	pageSize = 10
	// pagesTime bounds a list of several pages.
	pagesTime = 2 * time.Minute
)

var (
	// ErrTooMany is the error in the state of more than [MaxObjects] objects.
	ErrTooMany = fmt.Errorf("there are more than %d of them", MaxObjects)
	// ErrTooManyOthers is the error in the state of more than [MaxOthers] objects in namespaces
	// that are not selected.
	ErrTooManyOthers = fmt.Errorf("there are more than %d of them in namespaces that are not selected", MaxOthers)
	// ErrTooLarge says why the content of an object is unknown.
	ErrTooLarge = fmt.Errorf("it is larger than %d KiB", MaxSize>>10)
)

// Object names one object of the API, or several.
type Object struct {
	Resource        schema.GroupVersionResource
	Kind            string
	Namespace, Name string // Namespace is empty for a cluster-scoped object
	// AllNamespaces: it is the objects of this name in all namespaces. Namespace is empty.
	AllNamespaces bool
	// Selector is a label selector. With AllNamespaces, it selects the namespaces whose objects
	// are kept with their content. Otherwise, if it is set, it is the cluster-scoped objects with
	// these labels, and Name is empty.
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

// InAllNamespaces returns the objects of the name in all namespaces. The label selector selects
// those whose objects are kept with their content.
func (o Object) InAllNamespaces(selector string) Object {
	o.Namespace, o.AllNamespaces, o.Selector = "", true, selector
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
	// TooLarge has the keys of the objects in All that are larger than [MaxSize]. They have no
	// content: only what [identity] keeps.
	TooLarge map[string]bool
	// Others are the objects in namespaces that are not selected, by namespace, without content.
	Others map[string]*unstructured.Unstructured
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
	client dynamic.Interface
	api    dynamic.ResourceInterface
	log    *slog.Logger
	// selected has the selected namespaces, nil if all objects are kept with their content. Only
	// the goroutine that lists and watches uses it.
	selected map[string]bool
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
	if _, _, err := f.list(ctx); err != nil {
		f.recordError(err)
	}
	return f.State()
}

func newFollower(client dynamic.Interface, o Object, changed chan<- struct{}) *Follower {
	f := &Follower{object: o, client: client, api: client.Resource(o.Resource), changed: changed}
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
	unchanged := f.state.is(s)
	f.state = s
	f.mu.Unlock()
	if unchanged {
		return
	}
	select {
	case f.changed <- struct{}{}:
	default: // a value is already pending
	}
}

// is reports whether a state has the same objects and error.
func (s State) is(other State) bool {
	same := func(a, b *unstructured.Unstructured) bool { return a == b }
	return s.Known == other.Known && s.NoAPI == other.NoAPI && s.Live == other.Live && s.Err == nil && other.Err == nil &&
		maps.EqualFunc(s.All, other.All, same) && maps.Equal(s.TooLarge, other.TooLarge) &&
		maps.EqualFunc(s.Others, other.Others, same)
}

// kept returns the object of the last state if the one that was listed is equal: each object is listed again every few
// minutes, and users of the state need not look at it again.
func kept(before, listed *unstructured.Unstructured) *unstructured.Unstructured {
	listed = withoutFieldManagers(listed)
	if before != nil && reflect.DeepEqual(before.Object, listed.Object) {
		return before
	}
	return listed
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
	return errors.Is(err, ErrTooMany) || errors.Is(err, ErrTooManyOthers) || apierrors.IsForbidden(err) ||
		apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
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
	version, ofNamespaces, err := f.list(ctx)
	if err != nil {
		return "", err
	}
	return "", f.watch(ctx, version, ofNamespaces)
}

func (f *Follower) options() metav1.ListOptions {
	if f.object.Selector != "" && !f.object.AllNamespaces {
		return metav1.ListOptions{LabelSelector: f.object.Selector}
	}
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, f.object.Name).String()}
}

// namespaces returns the API of namespaces, and the options for those that are selected.
func (f *Follower) namespaces() (dynamic.ResourceInterface, metav1.ListOptions) {
	return f.client.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")),
		metav1.ListOptions{LabelSelector: f.object.Selector}
}

// keyOf returns the key of an object in [State] All.
func keyOf(object *unstructured.Unstructured) string {
	return cmp.Or(object.GetNamespace(), object.GetName())
}

// withoutFieldManagers removes metadata.managedFields from an object that is kept: it is large, and nothing reads it.
func withoutFieldManagers(object *unstructured.Unstructured) *unstructured.Unstructured {
	unstructured.RemoveNestedField(object.Object, "metadata", "managedFields")
	return object
}

// identity returns an object with what identifies it, and without its content.
func identity(object *unstructured.Unstructured) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": object.GetAPIVersion(), "kind": object.GetKind()}}
	o.SetNamespace(object.GetNamespace())
	o.SetName(object.GetName())
	o.SetUID(object.GetUID())
	o.SetResourceVersion(object.GetResourceVersion())
	o.SetCreationTimestamp(object.GetCreationTimestamp())
	o.SetDeletionTimestamp(object.GetDeletionTimestamp())
	return o
}

// size returns the bytes of all texts in a value of JSON.
func size(value any) int {
	n := 0
	switch v := value.(type) {
	case string:
		n = len(v)
	case []any:
		for _, item := range v {
			n += size(item)
		}
	case map[string]any:
		for key, item := range v {
			n += len(key) + size(item)
		}
	}
	return n
}

// put adds an object to the maps of a state, or replaces it.
func (f *Follower) put(s *State, live *unstructured.Unstructured) error {
	key, before := keyOf(live), f.State()
	remove(s, key)
	switch {
	case f.selected != nil && !f.selected[key]:
		s.Others[key] = kept(before.Others[key], identity(live))
	case size(live.Object) > MaxSize:
		s.All[key], s.TooLarge[key] = kept(before.All[key], identity(live)), true
	default:
		s.All[key] = kept(before.All[key], live)
	}
	switch {
	case len(s.All) > MaxObjects:
		return ErrTooMany
	case len(s.Others) > MaxOthers:
		return ErrTooManyOthers
	}
	return nil
}

// remove removes an object from the maps of a state.
func remove(s *State, key string) {
	delete(s.All, key)
	delete(s.TooLarge, key)
	delete(s.Others, key)
}

// list lists the objects, and the selected namespaces before them. It returns the versions of
// both lists.
func (f *Follower) list(ctx context.Context) (version, ofNamespaces string, err error) {
	if !f.object.Several() {
		list, err := listPage(ctx, f.api, f.options())
		if err != nil {
			return "", "", err
		}
		s := State{Known: true}
		if len(list.Items) > 0 {
			s.Live = kept(f.State().Live, &unstructured.Unstructured{Object: list.Items[0].Object})
		}
		f.set(s)
		return list.GetResourceVersion(), "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, pagesTime)
	defer cancel()
	if f.object.AllNamespaces && f.object.Selector != "" {
		selected := map[string]bool{}
		api, options := f.namespaces()
		ofNamespaces, err = pages(ctx, api, options, func(namespace *unstructured.Unstructured) error {
			if selected[namespace.GetName()] = true; len(selected) > MaxObjects {
				return ErrTooMany
			}
			return nil
		})
		if err != nil {
			return "", "", err
		}
		f.selected = selected
	}
	s := State{
		Known: true, All: map[string]*unstructured.Unstructured{}, TooLarge: map[string]bool{},
		Others: map[string]*unstructured.Unstructured{},
	}
	version, err = pages(ctx, f.api, f.options(), func(live *unstructured.Unstructured) error { return f.put(&s, live) })
	if err != nil {
		return "", "", err
	}
	f.set(s)
	return version, ofNamespaces, nil
}

// pages lists in pages, so that few objects are in memory in full, and calls each with every
// object. It returns the version of the list.
func pages(
	ctx context.Context, api dynamic.ResourceInterface, options metav1.ListOptions,
	each func(*unstructured.Unstructured) error,
) (version string, err error) {
	options.Limit = pageSize
	for {
		page, err := listPage(ctx, api, options)
		if err != nil {
			return "", err
		}
		for _, item := range page.Items {
			// A pointer into Items would keep the page in memory.
			if err := each(&unstructured.Unstructured{Object: item.Object}); err != nil {
				return "", err
			}
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return page.GetResourceVersion(), nil
		}
	}
}

func listPage(
	ctx context.Context, api dynamic.ResourceInterface, options metav1.ListOptions,
) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	return api.List(ctx, options)
}

// copied returns the state with copies of its maps: others may be reading them.
func (s State) copied() State {
	s.All, s.TooLarge, s.Others = maps.Clone(s.All), maps.Clone(s.TooLarge), maps.Clone(s.Others)
	return s
}

// objectChanged updates the state after an object was written, or deleted.
func (f *Follower) objectChanged(_ context.Context, live *unstructured.Unstructured, deleted bool) error {
	if !f.object.Several() {
		if deleted {
			f.set(State{Known: true})
			return nil
		}
		f.set(State{Known: true, Live: withoutFieldManagers(live)})
		return nil
	}
	key, s := keyOf(live), f.State()
	if other := s.Others[key]; other != nil && !deleted && !f.selected[key] && other.GetUID() == live.GetUID() {
		return nil // its content is not kept
	}
	s = s.copied()
	s.Known, s.Err = true, nil
	if deleted {
		remove(&s, key)
	} else if err := f.put(&s, live); err != nil {
		return err
	}
	f.set(s)
	return nil
}

// namespaceChanged updates the state after a namespace was selected, or is no longer.
func (f *Follower) namespaceChanged(ctx context.Context, live *unstructured.Unstructured, deleted bool) error {
	namespace, s := live.GetName(), f.State()
	if f.selected[namespace] == !deleted {
		return nil
	}
	f.selected[namespace] = true
	if deleted {
		delete(f.selected, namespace)
	}
	if len(f.selected) > MaxObjects {
		return ErrTooMany
	}
	object := s.All[namespace]
	if !deleted && s.Others[namespace] != nil {
		list, err := listPage(ctx, f.client.Resource(f.object.Resource).Namespace(namespace), f.options())
		if err != nil {
			return err
		}
		if len(list.Items) > 0 {
			object = &list.Items[0]
		}
	}
	if object == nil {
		return nil
	}
	return f.objectChanged(ctx, object, false)
}

// watch updates the state until a watch ends. The arguments are the versions of the lists.
func (f *Follower) watch(ctx context.Context, version, ofNamespaces string) error {
	// The API server ends the watch in time, unless it is unavailable.
	ctx, cancel := context.WithTimeout(ctx, watchTime+listTime)
	defer cancel()
	w, err := startWatch(ctx, f.api, f.options(), version)
	if err != nil {
		return err
	}
	defer w.Stop()
	var namespaces <-chan watch.Event // nil: never
	if f.selected != nil {
		api, options := f.namespaces()
		wn, err := startWatch(ctx, api, options, ofNamespaces)
		if err != nil {
			return err
		}
		defer wn.Stop()
		namespaces = wn.ResultChan()
	}
	f.logReadable(ctx) // not after the list: the permission to watch may be missing
	for {
		var event watch.Event
		var more bool
		update := f.objectChanged
		select {
		case <-ctx.Done():
			return nil
		case event, more = <-w.ResultChan():
		case event, more = <-namespaces:
			update = f.namespaceChanged
		}
		if !more {
			return nil
		}
		switch event.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			live, _ := event.Object.(*unstructured.Unstructured)
			if err := update(ctx, live, event.Type == watch.Deleted); err != nil {
				return err
			}
		case watch.Bookmark:
		case watch.Error:
			if err := apierrors.FromObject(event.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
				return fmt.Errorf("watch: %w", err)
			}
			return nil
		}
	}
}

func startWatch(
	ctx context.Context, api dynamic.ResourceInterface, options metav1.ListOptions, version string,
) (watch.Interface, error) {
	options.ResourceVersion = version
	spread := rand.N(watchSpread) //nolint:gosec // not security-relevant
	options.TimeoutSeconds = new(int64((watchTime - spread) / time.Second))
	return api.Watch(ctx, options)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// bundles watches CA bundles in ConfigMaps. They change at every rotation of a signer,
// monthly on some releases of OpenShift.
type bundles struct {
	// start watches an object until it is stopped; nil if no API server is configured.
	start func(follow.Object) (*follow.Follower, context.CancelFunc)
	log   *slog.Logger

	// changed gets a value after a bundle may have changed.
	changed chan struct{}

	mu      sync.Mutex
	watched map[watchedBundle]*bundle
}

// watchedBundle names a CA bundle, or with a selector those of the namespaces that it selects.
type watchedBundle struct {
	admit.CABundle
	selector string
}

// readTime bounds the wait for the bundles at the start.
const readTime = 5 * time.Second

// bundle is a watched CA bundle: one, or with a reference without a namespace those of all namespaces.
type bundle struct {
	follower *follow.Follower
	stop     context.CancelFunc
	// parsed has what was read, by namespace.
	parsed map[string]*parsedBundle
}

// parsedBundle is a CA bundle as it was read last.
type parsedBundle struct {
	// read: the bundle was read at least once. live is the ConfigMap, nil if it does not
	// exist, and roots are its CAs.
	read  bool
	live  *unstructured.Unstructured
	roots pki.Bundle
	// problem is why the bundle, or a part of it, cannot be used, as it was logged last; empty if all can.
	problem string
}

func newBundles(ctx context.Context, client dynamic.Interface, log *slog.Logger) *bundles {
	b := &bundles{log: log, changed: make(chan struct{}, 1), watched: map[watchedBundle]*bundle{}}
	if client != nil {
		b.start = func(o follow.Object) (*follow.Follower, context.CancelFunc) {
			following, stop := context.WithCancel(ctx)
			return follow.Start(following, client, o, b.changed, log), stop
		}
	}
	return b
}

// roots returns the current CAs of a bundle; none (nil) if they are unknown, or no protected Secret refers to it. Then
// certificates are not verified against the bundle: a bundle that cannot be read must not block a renewal.
func (b *bundles) roots(ref admit.CABundle) pki.Bundle {
	if b == nil {
		return pki.Bundle{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	watched := b.find(ref)
	if watched == nil {
		return pki.Bundle{}
	}
	if len(watched.parsed) > follow.MaxObjects { // some of the namespaces do not exist any more
		clear(watched.parsed)
	}
	parsed := watched.parsed[ref.Namespace]
	if parsed == nil {
		parsed = &parsedBundle{}
		watched.parsed[ref.Namespace] = parsed
	}
	state := watched.follower.State()
	live := state.Live
	if state.All != nil {
		live = state.All[ref.Namespace]
	}
	if !state.Known && state.Err != nil {
		parsed.logProblem(b.log, ref, "it cannot be read", state.Err.Error())
	}
	if !state.Known || (parsed.read && live == parsed.live) {
		return parsed.roots
	}
	parsed.read, parsed.live, parsed.roots = true, live, pki.Bundle{}
	problem := "it does not exist"
	if live != nil {
		// A value of another type, or of an object that is too large, counts as an empty bundle.
		text, _, _ := unstructured.NestedString(live.Object, "data", ref.Key)
		var err error
		switch parsed.roots, err = pki.ParseBundle([]byte(text)); {
		case state.TooLarge[ref.Namespace]:
			problem = follow.ErrTooLarge.Error()
		case err != nil:
			problem = "its " + ref.Key + " " + err.Error()
		case parsed.roots.Unusable != nil:
			problem = "of its " + ref.Key + ", " + parsed.roots.Unusable.Error()
		default:
			problem = ""
		}
	}
	parsed.logProblem(b.log, ref, problem)
	return parsed.roots
}

// find returns the watched bundle that a reference is in, or nil.
func (b *bundles) find(ref admit.CABundle) (found *bundle) {
	if watched := b.watched[watchedBundle{CABundle: ref}]; watched != nil {
		return watched
	}
	for at, watched := range b.watched {
		if at.CABundle != (admit.CABundle{Name: ref.Name, Key: ref.Key}) {
			continue
		}
		if found = watched; watched.follower.State().All[ref.Namespace] != nil {
			break
		}
	}
	return found
}

// follow watches the bundles of the Secrets, and no others.
func (b *bundles) follow(secrets []admit.ProtectedSecret) {
	if b == nil || b.start == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	wanted := map[watchedBundle]bool{}
	for _, s := range secrets {
		switch {
		case s.Bundle == nil:
		case s.Bundle.Namespace != "":
			wanted[watchedBundle{CABundle: *s.Bundle}] = true
		default:
			wanted[watchedBundle{*s.Bundle, metav1.FormatLabelSelector(s.Selector)}] = true
		}
	}
	for ref, watched := range b.watched {
		if !wanted[ref] {
			watched.stop()
			delete(b.watched, ref)
		}
	}
	for ref := range wanted {
		if b.watched[ref] != nil {
			continue
		}
		object := follow.Named(corev1.SchemeGroupVersion, "ConfigMap", ref.Namespace, ref.Name)
		if ref.Namespace == "" {
			object = object.InAllNamespaces(ref.selector)
		}
		watched := &bundle{parsed: map[string]*parsedBundle{}}
		watched.follower, watched.stop = b.start(object)
		b.watched[ref] = watched
	}
}

// await waits until each watched bundle was requested once, at most for [readTime].
// Otherwise the first certificates would not be verified against a bundle.
func (b *bundles) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for !b.allRequested() {
		select {
		case <-ctx.Done():
			return
		case <-b.changed:
		}
	}
}

// allRequested reports whether each watched bundle was read, or its first read failed.
func (b *bundles) allRequested() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, watched := range b.watched {
		if state := watched.follower.State(); !state.Known && state.Err == nil {
			return false
		}
	}
	return true
}

// logProblem logs a problem when it is not that of the last call, or the recovery if problem
// is empty. details are logged with it, but other details alone are not logged again: network
// errors name ports.
func (b *parsedBundle) logProblem(log *slog.Logger, ref admit.CABundle, problem string, details ...string) {
	err := strings.Join(append([]string{problem}, details...), ": ")
	switch {
	case problem == b.problem:
	case problem == "":
		log.Info("CA bundle can be used again", "configMap", ref.Namespace+"/"+ref.Name)
	case b.roots.CAs != nil:
		log.Warn("CA bundle can be used only in part, certificates of its other CAs cannot be verified",
			"configMap", ref.Namespace+"/"+ref.Name, "err", err)
	default:
		log.Warn("CA bundle cannot be used, certificates are not verified against it",
			"configMap", ref.Namespace+"/"+ref.Name, "err", err)
	}
	b.problem = problem
}

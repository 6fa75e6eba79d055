// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// bundleRef names a CA bundle in a ConfigMap. Only comparable fields: it is a
// map's key.
type bundleRef struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	Key       string `yaml:"key"`
}

// bundles are the CA bundles in ConfigMaps, as they are now. They change at
// every rotation of a signer, monthly on some releases of OpenShift.
type bundles struct {
	// start follows an object; nil where there is no API server to ask.
	start func(follow.Object, chan<- struct{}) *follow.Follower
	log   *slog.Logger

	mu    sync.Mutex
	known map[bundleRef]*bundle
}

// bundle is one of them.
type bundle struct {
	follower *follow.Follower
	// read: there was an answer; live is what it was, roots and fault come from
	// it.
	read  bool
	live  *unstructured.Unstructured
	roots []*x509.Certificate
	fault string
}

func newBundles(ctx context.Context, client dynamic.Interface, log *slog.Logger) *bundles {
	b := &bundles{log: log, known: map[bundleRef]*bundle{}}
	if client != nil {
		b.start = func(o follow.Object, changed chan<- struct{}) *follow.Follower {
			return follow.Start(ctx, client, o, changed)
		}
	}
	return b
}

// roots are the CAs that are in a bundle now; nil where that is not known, and
// then nobody's certificate is held against it: a bundle that cannot be read
// must not stop a renewal.
func (b *bundles) roots(ref bundleRef) []*x509.Certificate {
	if b == nil || b.start == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.known[ref]
	if known == nil {
		// Nobody waits for changes: they are looked at when they are asked for.
		known = &bundle{follower: b.start(follow.Named(corev1.SchemeGroupVersion, "ConfigMap", ref.Namespace, ref.Name), make(chan struct{}, 1))}
		b.known[ref] = known
	}
	state := known.follower.State()
	if !state.Known && state.Err != nil {
		known.tell(b.log, ref, "it cannot be read: "+state.Err.Error())
	}
	if !state.Known || (known.read && state.Live == known.live) {
		return known.roots
	}
	known.read, known.live, known.roots = true, state.Live, nil
	fault := "it does not exist"
	if state.Live != nil {
		text, _, _ := unstructured.NestedString(state.Live.Object, "data", ref.Key) // no string is no bundle
		var err error
		if known.roots, err = pki.ParseBundle([]byte(text)); err == nil {
			fault = ""
		} else {
			fault = "its " + ref.Key + " " + err.Error()
		}
	}
	known.tell(b.log, ref, fault)
	return known.roots
}

// tell logs a fault, once; empty if there is none any more.
func (b *bundle) tell(log *slog.Logger, ref bundleRef, fault string) {
	if fault != b.fault && fault != "" {
		log.Warn("CA bundle of no use, certificates are not held against it", "configMap", ref.Namespace+"/"+ref.Name, "err", fault)
	}
	b.fault = fault
}

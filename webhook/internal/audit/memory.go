// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// memory is what an observation remembers for the next one, so that a change of one object does not check all others
// again: there can be a thousand Secrets. It has the objects of one observation only, and changes no result. The zero
// value remembers nothing.
type memory struct {
	secrets map[secretKey]checkedSecret
	bundles map[bundleKey]readBundle
}

// secretKey is a Secret, checked as it is configured, or alone: without what is compared with it.
type secretKey struct {
	follow.Object
	alone bool
}

// checkedSecret is a Secret with its results at one time.
type checkedSecret struct {
	live *unstructured.Unstructured
	want check.SecretExpectation
	at   time.Time
	check.SecretResults
}

// bundleKey is a key of a ConfigMap.
type bundleKey struct {
	follow.Object
	key string
}

// readBundle is a CA bundle with what was parsed of it.
type readBundle struct {
	live  *unstructured.Unstructured
	roots pki.Bundle
	err   error
}

func newMemory() memory {
	return memory{secrets: map[secretKey]checkedSecret{}, bundles: map[bundleKey]readBundle{}}
}

// checkStored checks a Secret, unless it is the same object as in the last observation, with the same expectation, and
// time alone cannot have changed the results. Observations never change an object.
func (seen *observation) checkStored(key secretKey, want check.SecretExpectation) check.SecretResults {
	// The dates of certificates are compared with the wall clock, which can be set back.
	now := seen.At.Round(0)
	last, known := seen.before.secrets[key]
	isValid := known && !now.Before(last.at) && (last.NextChange.IsZero() || now.Before(last.NextChange))
	if s := seen.states[key.Object]; !isValid || last.live != s.Live || !reflect.DeepEqual(last.want, want) {
		// The API server stores no Secret that cannot be converted.
		secret, _ := decode[facts.Secret](s)
		last = checkedSecret{s.Live, want, now, check.CheckSecret(want, secret.Facts(), seen.At)}
	}
	seen.remembered.secrets[key] = last
	return last.SecretResults
}

// parsedBundle returns the CAs under a key of a ConfigMap that exists.
func (seen *observation) parsedBundle(o follow.Object, key string) (pki.Bundle, error) {
	at, s := bundleKey{o, key}, seen.states[o]
	read, known := seen.remembered.bundles[at]
	if !known {
		read, known = seen.before.bundles[at]
	}
	if !known || read.live != s.Live {
		// The API server stores no ConfigMap that cannot be converted.
		configMap, _ := decode[corev1.ConfigMap](s)
		if configMap == nil {
			configMap = &corev1.ConfigMap{}
		}
		read = readBundle{live: s.Live}
		read.roots, read.err = pki.ParseBundle([]byte(configMap.Data[key]))
	}
	seen.remembered.bundles[at] = read
	return read.roots, read.err
}

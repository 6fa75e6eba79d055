// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// newProfile watches OpenShift's TLS security profile, which other clusters do not have. The
// function that it returns gives the current profile, with at least minVersion. A setting
// that cannot be applied is logged once.
func newProfile(
	ctx context.Context,
	client dynamic.Interface,
	minVersion uint16,
	log *slog.Logger,
) func() tlsprofile.Profile {
	object := follow.Named(schema.GroupVersion{Group: check.ConfigGroup, Version: "v1"}, "APIServer", "", "cluster")
	// Nothing waits for changes: the profile is read for each connection.
	follower := follow.Start(ctx, client, object, make(chan struct{}, 1), log)
	var mu sync.Mutex
	var read *unstructured.Unstructured
	profile := tlsprofile.Profile{MinVersion: minVersion}
	return func() tlsprofile.Profile {
		live := follower.State().Live
		mu.Lock()
		defer mu.Unlock()
		if live == read {
			return profile
		}
		read = live
		var err error
		if profile, err = tlsprofile.Of(live); err != nil {
			log.WarnContext(ctx, "TLS security profile not applied", "object", "APIServer cluster", "err", err)
		}
		profile.MinVersion = max(profile.MinVersion, minVersion)
		return profile
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
)

// TestProfile: OpenShift's TLS security profile is applied, but never lowers the minimum version
// of the flag.
func TestProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resource := schema.GroupVersionResource{Group: "config.openshift.io", Version: "v1", Resource: "apiservers"}
		client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
			map[schema.GroupVersionResource]string{resource: "APIServerList"})
		store := func(profile string) {
			t.Helper()
			object := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "config.openshift.io/v1", "kind": "APIServer", "metadata": map[string]any{"name": "cluster"},
				"spec": map[string]any{"tlsSecurityProfile": map[string]any{"type": profile}},
			}}
			_, err := client.Resource(resource).Update(t.Context(), object, metav1.UpdateOptions{})
			if err != nil {
				_, err = client.Resource(resource).Create(t.Context(), object, metav1.CreateOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		var log strings.Builder
		low := newProfile(t.Context(), client, tls.VersionTLS12, slog.New(slog.NewTextHandler(&log, nil)))
		high := newProfile(t.Context(), client, tls.VersionTLS13, slog.New(slog.DiscardHandler))
		synctest.Wait()
		if got := low(); got.MinVersion != tls.VersionTLS12 || got.CipherSuites != nil {
			t.Errorf("without a profile: %+v", got)
		}
		store("Intermediate")
		if got := low(); got.MinVersion != tls.VersionTLS12 || len(got.CipherSuites) != 6 {
			t.Errorf("Intermediate: %+v", got)
		}
		if got := high(); got.MinVersion != tls.VersionTLS13 {
			t.Errorf("Intermediate, with a higher flag: %+v", got)
		}
		store("Modern")
		if got := low(); got.MinVersion != tls.VersionTLS13 {
			t.Errorf("Modern: %+v", got)
		}
		store("Ancient")
		for range 3 {
			if got := low(); got.MinVersion != tls.VersionTLS12 {
				t.Errorf("an unknown type: %+v", got)
			}
		}
		if got := strings.Count(log.String(), `type \"Ancient\"`); got != 1 {
			t.Errorf("logged %d times, want once:\n%s", got, log.String())
		}
	})
}

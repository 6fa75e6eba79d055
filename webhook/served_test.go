// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/served"
)

// TestServedMeter: a round replaces the values of the one before.
func TestServedMeter(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := newServedMeter(registry)
	m.asked(served.Count{Stored: 1, Other: 2})
	m.asked(served.Count{Stored: 3, Unknown: 1})
	const series = "kubelet_https_guard_served_endpoints "
	want := map[string]float64{series + "stored": 3, series + "other": 0, series + "unknown": 1}
	if d := cmp.Diff(want, gauges(t, registry)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	m.forget()
	if got := gauges(t, registry); len(got) > 0 {
		t.Errorf("after forget: %v", got)
	}
}

// TestAskServedOnce: the program itself refuses addresses in which no Pod is, whatever an EndpointSlice has.
func TestAskServedOnce(t *testing.T) {
	endpoint := httptest.NewTLSServer(http.NotFoundHandler()) // it would show its certificate
	t.Cleanup(endpoint.Close)
	port := netip.MustParseAddrPort(endpoint.Listener.Addr().String()).Port()
	var slice discoveryv1.EndpointSlice
	for _, address := range []string{"127.0.0.1", "169.254.169.254", "100.100.100.200"} {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}})
	}
	slice.Ports = []discoveryv1.EndpointPort{{Port: new(int32(port))}}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"},
			Items:    []discoveryv1.EndpointSlice{slice},
		})
	}))
	t.Cleanup(api.Close)
	ask, err := askServedOnce(&rest.Config{Host: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), maxAuditTime)
	defer cancel()
	at := served.Target{Namespace: "openshift-apiserver", Service: "api"}
	answers := ask(ctx, []served.Target{at})[at]
	if len(answers.Endpoints) != 3 || answers.WhyUnknown != nil {
		t.Fatalf("got %+v", answers)
	}
	for _, e := range answers.Endpoints {
		if e.Leaf != nil || !strings.HasPrefix(e.Why, "its address is in a range in which no Pod is: ") {
			t.Errorf("%s: %+v", e.Name, e)
		}
	}
}

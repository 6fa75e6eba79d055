// SPDX-License-Identifier: Apache-2.0

package served

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// slice returns an EndpointSlice with the port https.
func slice(endpoints ...discoveryv1.Endpoint) discoveryv1.EndpointSlice {
	return discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{
			{Name: new("metrics"), Port: new(int32(9090))}, {Name: new("https"), Port: new(int32(8443))},
		},
	}
}

func ready(address, pod string) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod},
	}
}

// TestEndpointsOf: which endpoints are asked, and why others are not.
func TestEndpointsOf(t *testing.T) {
	with := func(e discoveryv1.Endpoint, change func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
		change(&e)
		return e
	}
	changed := func(s discoveryv1.EndpointSlice, change func(*discoveryv1.EndpointSlice)) discoveryv1.EndpointSlice {
		change(&s)
		return s
	}
	var many []discoveryv1.Endpoint
	for i := range maxEndpoints + 7 {
		many = append(many, ready(fmt.Sprintf("10.128.%d.1", i), "p"))
	}
	one := ready("10.128.0.1", "a")
	cases := map[string]struct {
		slices  []discoveryv1.EndpointSlice
		port    string
		want    []string
		omitted int
	}{
		"none":    {nil, "https", nil, 0},
		"ready":   {[]discoveryv1.EndpointSlice{slice(ready("10.128.0.2", "b"), one)}, "https", []string{"Pod a (10.128.0.1:8443)", "Pod b (10.128.0.2:8443)"}, 0},
		"unset":   {[]discoveryv1.EndpointSlice{slice(with(one, func(e *discoveryv1.Endpoint) { e.Conditions.Ready = nil }))}, "https", []string{"Pod a (10.128.0.1:8443)"}, 0},
		"no Pods": {[]discoveryv1.EndpointSlice{slice(with(one, func(e *discoveryv1.Endpoint) { e.TargetRef = nil }))}, "https", []string{"10.128.0.1:8443"}, 0},
		"not ready": {
			[]discoveryv1.EndpointSlice{slice(with(one, func(e *discoveryv1.Endpoint) { e.Conditions.Ready = new(false) }))},
			"https", []string{"Pod a (10.128.0.1:8443): it is not ready"}, 0,
		},
		"terminating, and serving": {
			[]discoveryv1.EndpointSlice{slice(with(one, func(e *discoveryv1.Endpoint) {
				e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
			}))}, "https", nil, 0,
		},
		"dual stack": {
			[]discoveryv1.EndpointSlice{slice(one), changed(slice(ready("fd01::1", "a")), func(s *discoveryv1.EndpointSlice) {
				s.AddressType = discoveryv1.AddressTypeIPv6
			})}, "https", []string{"Pod a (10.128.0.1:8443)", "Pod a ([fd01::1]:8443)"}, 0,
		},
		"in two slices for a moment": {
			[]discoveryv1.EndpointSlice{
				slice(with(one, func(e *discoveryv1.Endpoint) { e.Conditions.Ready = new(false) })), slice(one), slice(one),
			}, "https", []string{"Pod a (10.128.0.1:8443)"}, 0,
		},
		"a DNS name": {
			[]discoveryv1.EndpointSlice{changed(slice(ready("evil.example.com", "a")), func(s *discoveryv1.EndpointSlice) {
				s.AddressType = discoveryv1.AddressTypeFQDN
			})}, "https", []string{"Pod a: its address is not an IP address"}, 0,
		},
		"a zone with any text": {[]discoveryv1.EndpointSlice{slice(ready("fe80::1%MARKER", "a"))}, "https", []string{"Pod a ([fe80::1]:8443)"}, 0},
		"a Pod with any text":  {[]discoveryv1.EndpointSlice{slice(ready("10.128.0.1", "MARKER\n"))}, "https", []string{"10.128.0.1:8443"}, 0},
		"no address":           {[]discoveryv1.EndpointSlice{slice(discoveryv1.Endpoint{})}, "https", nil, 0},
		"no such port": {
			[]discoveryv1.EndpointSlice{slice(one)}, "other",
			[]string{"Pod a (10.128.0.1:0): its EndpointSlice does not have the port"}, 0,
		},
		"a port without a name": {
			[]discoveryv1.EndpointSlice{changed(slice(one), func(s *discoveryv1.EndpointSlice) {
				s.Ports = []discoveryv1.EndpointPort{{Port: new(int32(8443))}}
			})}, "", []string{"Pod a (10.128.0.1:8443)"}, 0,
		},
		"UDP": {
			[]discoveryv1.EndpointSlice{changed(slice(one), func(s *discoveryv1.EndpointSlice) {
				s.Ports = []discoveryv1.EndpointPort{{Name: new("https"), Port: new(int32(1)), Protocol: new(corev1.ProtocolUDP)}}
			})}, "https", []string{"Pod a (10.128.0.1:0): its EndpointSlice does not have the port"}, 0,
		},
		"no ports, as without a selector": {
			[]discoveryv1.EndpointSlice{changed(slice(one), func(s *discoveryv1.EndpointSlice) { s.Ports = nil })}, "https",
			[]string{"Pod a (10.128.0.1:0): its EndpointSlice does not have the port"}, 0,
		},
		"many": {[]discoveryv1.EndpointSlice{slice(many...)}, "https", nil, 7},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			all, omitted := endpointsOf(c.slices, c.port, maxEndpoints)
			var got []string
			for _, e := range all {
				text := e.name()
				if e.Problem != "" {
					text += ": " + e.Problem
				}
				got = append(got, text)
			}
			if name == "many" && len(got) == maxEndpoints {
				got = nil
			}
			if d := cmp.Diff(c.want, got); d != "" || omitted != c.omitted {
				t.Errorf("(-want +got):\n%s\nomitted %d, want %d", d, omitted, c.omitted)
			}
		})
	}
}

// TestPortName: the port 443, or the only one.
func TestPortName(t *testing.T) {
	https, other := corev1.ServicePort{Name: "https", Port: 443}, corev1.ServicePort{Name: "other", Port: 8080}
	quic := corev1.ServicePort{Name: "quic", Port: 443, Protocol: corev1.ProtocolUDP}
	for name, c := range map[string]struct {
		ports   []corev1.ServicePort
		want    string
		problem bool
	}{
		"443":               {[]corev1.ServicePort{other, https}, "https", false},
		"the only one":      {[]corev1.ServicePort{other}, "other", false},
		"443, without name": {[]corev1.ServicePort{{Port: 443}}, "", false},
		"UDP":               {[]corev1.ServicePort{quic, other}, "other", false},
		"none":              {nil, "", true},
		"several":           {[]corev1.ServicePort{other, {Name: "b", Port: 8081}}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, problem := PortName(c.ports); got != c.want || (problem != "") != c.problem {
				t.Errorf("got %q, %q", got, problem)
			}
		})
	}
}

// TestFromSlices: the request names the Service, and is bounded. A list that is not complete is an error.
func TestFromSlices(t *testing.T) {
	more := ""
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/discovery.k8s.io/v1/namespaces/openshift-apiserver/endpointslices" ||
			r.URL.RawQuery != "labelSelector=kubernetes.io%2Fservice-name%3Dapi&limit=20" {
			t.Errorf("requested %s", r.URL)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"},
			ListMeta: metav1.ListMeta{Continue: more}, Items: []discoveryv1.EndpointSlice{slice(ready("10.128.0.1", "a"))},
		})
	}))
	t.Cleanup(api.Close)
	list, err := FromSlices(&rest.Config{Host: api.URL, Transport: api.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	at := Target{Namespace: "openshift-apiserver", Service: "api", Port: "https"}
	if all, omitted, err := list(t.Context(), at, maxEndpoints); err != nil || len(all) != 1 || omitted != 0 {
		t.Errorf("got %v, %d, %v", all, omitted, err)
	}
	more = "token"
	if _, _, err := list(t.Context(), at, maxEndpoints); err == nil {
		t.Error("an incomplete list is no error")
	}
}

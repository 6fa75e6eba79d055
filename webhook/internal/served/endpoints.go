// SPDX-License-Identifier: Apache-2.0

package served

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// listTime bounds the list of EndpointSlices, maxSlices their number. A slice has up to 100 endpoints by default
	// (kube-controller-manager --max-endpoints-per-slice).
	listTime, maxSlices = 10 * time.Second, 20
	// httpsPort is the port of a Service that is preferred.
	httpsPort = 443
)

// FromSlices lists endpoints from EndpointSlices. It needs the permission to list them in the Service's namespace.
func FromSlices(config *rest.Config) (Endpoints, error) {
	client, err := discoveryclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create a client for EndpointSlices: %w", err)
	}
	return func(ctx context.Context, t Target, most int) ([]Endpoint, int, error) {
		ctx, cancel := context.WithTimeout(ctx, listTime)
		defer cancel()
		list, err := client.EndpointSlices(t.Namespace).List(ctx, metav1.ListOptions{
			LabelSelector: labels.Set{discoveryv1.LabelServiceName: t.Service}.String(), Limit: maxSlices,
		})
		if err != nil {
			return nil, 0, err
		}
		if list.Continue != "" {
			return nil, 0, errTooManySlices
		}
		all, omitted := endpointsOf(list.Items, t.Port, most)
		return all, omitted, nil
	}, nil
}

// errTooManySlices: the list is not complete.
var errTooManySlices = fmt.Errorf("there are more than %d", maxSlices)

// endpointsOf returns the endpoints behind a port, each address once, sorted. Endpoints that are terminating do not
// count: they end soon, and get no new connections while others are ready.
func endpointsOf(slicesOfService []discoveryv1.EndpointSlice, port string, most int) (all []Endpoint, omitted int) {
	seen := map[netip.AddrPort]Endpoint{}
	for _, slice := range slicesOfService {
		number, portProblem := portOf(slice.Ports, port)
		for _, e := range slice.Endpoints {
			if is(e.Conditions.Terminating, false) || len(e.Addresses) == 0 {
				continue
			}
			// The other addresses are not used (Kubernetes api/discovery/v1, Endpoint.Addresses).
			address, err := netip.ParseAddr(e.Addresses[0])
			address = address.WithZone("") // which can be any text
			endpoint := Endpoint{Address: netip.AddrPortFrom(address, number), Pod: podOf(e), Problem: portProblem}
			switch {
			case err != nil || slice.AddressType == discoveryv1.AddressTypeFQDN:
				endpoint.Problem = "its address is not an IP address"
			case !is(e.Conditions.Ready, true): // nil is ready (same file)
				endpoint.Problem = "it is not ready"
			}
			// An endpoint that moves to another slice is in both for a moment.
			if known, has := seen[endpoint.Address]; !has || known.Problem != "" {
				seen[endpoint.Address] = endpoint
			}
		}
	}
	for _, endpoint := range seen {
		all = append(all, endpoint)
	}
	slices.SortFunc(all, func(a, b Endpoint) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Pod, b.Pod))
	})
	if omitted = len(all) - most; omitted > 0 {
		return all[:most], omitted
	}
	return all, 0
}

// is returns the value of a condition.
func is(condition *bool, unset bool) bool {
	if condition == nil {
		return unset
	}
	return *condition
}

// podOf returns the name of the Pod of an endpoint. A text that cannot be the name of a Pod is ignored.
func podOf(e discoveryv1.Endpoint) string {
	if e.TargetRef == nil || e.TargetRef.Kind != "Pod" || len(validation.IsDNS1123Subdomain(e.TargetRef.Name)) > 0 {
		return ""
	}
	return e.TargetRef.Name
}

// portOf returns the number of the port with a name.
func portOf(ports []discoveryv1.EndpointPort, name string) (number uint16, problem string) {
	for _, p := range ports {
		tcp := p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP
		isNamed := p.Name == nil && name == "" || p.Name != nil && *p.Name == name
		if tcp && isNamed && p.Port != nil && *p.Port > 0 && *p.Port < 1<<16 {
			return uint16(*p.Port), ""
		}
	}
	return 0, "its EndpointSlice does not have the port"
}

// PortName returns the name of the Service's port that is asked: 443, or the only one. problem says why no port is
// chosen.
func PortName(ports []corev1.ServicePort) (name, problem string) {
	ports = slices.DeleteFunc(slices.Clone(ports), func(p corev1.ServicePort) bool {
		return p.Protocol != "" && p.Protocol != corev1.ProtocolTCP
	})
	i := slices.IndexFunc(ports, func(p corev1.ServicePort) bool { return p.Port == httpsPort })
	switch {
	case i >= 0:
		return ports[i].Name, ""
	case len(ports) == 1:
		return ports[0].Name, ""
	}
	return "", fmt.Sprintf("it has %d TCP ports, and none of them is %d", len(ports), httpsPort)
}

// unreadable says why the endpoints could not be listed, in words that are the same at each attempt.
func unreadable(t Target, err error) finding.Result {
	why, reason := "the API server did not answer", apierrors.ReasonForError(err)
	switch {
	case errors.Is(err, errTooManySlices):
		why = err.Error()
	case reason != "":
		why = "the API server answered " + string(reason)
	}
	return finding.Result{
		Subject: finding.Subject{Kind: "Service", Namespace: t.Namespace, Name: t.Service, Key: "EndpointSlices"},
		Reason:  finding.Unreadable,
		Message: "cannot list them, so its endpoints are not asked for their certificate: " + why,
		Remedy: "grant the audit's ServiceAccount (or the user of the kubeconfig) permission to list endpointslices in " +
			"that namespace, or check that the API server is available",
	}
}

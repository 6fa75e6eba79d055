// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// EndpointPod is the Pod that [Rig.AnnounceEndpoint] names.
	EndpointPod = "apiserver-0"
	// endpointService is the Service of the stand-in, with the namespace and the name of its EndpointSlice.
	endpointNamespace, endpointService, endpointSlice = "openshift-apiserver", "api", "api-stand-in"
)

// Endpoint is a stand-in for a Pod of openshift-apiserver: a TLS server that serves the certificate that it loaded
// last, whatever is stored. It has no API.
type Endpoint struct {
	// Address is where it listens.
	Address netip.AddrPort

	server *http.Server
	loaded atomic.Pointer[tls.Certificate]
}

// StartEndpoint starts a stand-in on a free port of an address of this machine, with a certificate and its key as PEM.
// The caller must stop it.
func StartEndpoint(ctx context.Context, address netip.Addr, certificate, key []byte) (*Endpoint, error) {
	e := &Endpoint{}
	if err := e.Load(certificate, key); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		return nil, fmt.Errorf("start an endpoint of Service %s: %w", endpointService, err)
	}
	listening, _ := listener.Addr().(*net.TCPAddr) // a TCP listener has no other
	e.Address = netip.AddrPortFrom(address, listening.AddrPort().Port())
	e.server = &http.Server{
		Handler: http.NotFoundHandler(), ReadHeaderTimeout: headerTime,
		ErrorLog: log.New(io.Discard, "", 0), // the guard's handshakes end without a request
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.loaded.Load(), nil },
		},
	}
	go func() { _ = e.server.ServeTLS(listener, "", "") }() // until Stop
	return e, nil
}

// Load makes the endpoint serve another certificate, from the next handshake on.
func (e *Endpoint) Load(certificate, key []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("load the certificate of an endpoint of Service %s: %w", endpointService, err)
	}
	e.loaded.Store(&pair)
	return nil
}

// Stop closes the listener and all connections.
func (e *Endpoint) Stop() { _ = e.server.Close() }

// AnnounceEndpoint makes the stand-in the only endpoint of Service api in openshift-apiserver, until
// [Rig.WithdrawEndpoint].
func (r *Rig) AnnounceEndpoint(ctx context.Context, e *Endpoint) error {
	slice, err := json.Marshal(discovery.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: discovery.SchemeGroupVersion.String(), Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: endpointNamespace, Name: endpointSlice,
			Labels: map[string]string{discovery.LabelServiceName: endpointService},
		},
		AddressType: discovery.AddressTypeIPv4,
		Endpoints: []discovery.Endpoint{{
			Addresses:  []string{e.Address.Addr().String()},
			Conditions: discovery.EndpointConditions{Ready: new(true)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: endpointNamespace, Name: EndpointPod},
		}},
		Ports: []discovery.EndpointPort{{Port: new(int32(e.Address.Port()))}},
	})
	if err != nil {
		return err
	}
	if made := r.KubectlInput(ctx, string(slice), "create", "-f", "-"); made.Code != 0 {
		return fmt.Errorf("announce an endpoint of Service %s: %s", endpointService, made.Output)
	}
	return nil
}

// WithdrawEndpoint removes the endpoint, so that the Service has none.
func (r *Rig) WithdrawEndpoint(ctx context.Context) error {
	removed := r.KubectlCommand(ctx, "--namespace", endpointNamespace, "delete", "endpointslice", endpointSlice)
	if removed.Code != 0 {
		return fmt.Errorf("withdraw the endpoint of Service %s: %s", endpointService, removed.Output)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package kubelettls makes the TLS handshake with a kubelet as a kube-apiserver does, and records the kubelet's
// certificate and the client CAs that it accepts.
//
// It uses no private key: the kubelet names the CAs that it accepts in its request for a client certificate, and
// package handshake completes the handshake without a certificate, within bounds. It sends no request. Package check
// decides what the answer means.
package kubelettls

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/handshake"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

const (
	// Port is the default port of the kubelet (Kubernetes pkg/cluster/ports/ports.go).
	Port = 10250
	// ReadOnlyPort is the default port of its read-only server (same file).
	ReadOnlyPort = 10255

	// Timeout bounds one handshake, ReadOnlyTimeout one connection to the read-only port.
	Timeout, ReadOnlyTimeout = handshake.Timeout, time.Second
)

// Dialer connects to kubelets. The zero value connects to any address.
type Dialer struct {
	Control handshake.Control
}

// Target is the kubelet to connect to.
type Target struct {
	// Address of the TLS server, and of the read-only server: host:port.
	Address, ReadOnly string
	// Host is the address or name without the port, for the TLS server name.
	Host string
}

// At returns the target for a host, an IP address or a DNS name, and a port.
func At(host string, port int) Target {
	return Target{
		Address: net.JoinHostPort(host, strconv.Itoa(port)), ReadOnly: net.JoinHostPort(host, strconv.Itoa(ReadOnlyPort)),
		Host: host,
	}
}

// Handshake connects to the kubelet and records in the answer what it sends: Err, NotTLS, Alert, Certificates,
// RequestsClientCertificate, AcceptedCAs and SignatureSchemes. It takes at most [Timeout].
func (d Dialer) Handshake(ctx context.Context, to Target, answer *check.KubeletAnswer) {
	a := handshake.Dialer{Control: d.Control}.Handshake(ctx, to.Address, to.Host)
	answer.Err, answer.NotTLS, answer.Alert, answer.Certificates = a.Err, a.NotTLS, a.Alert, a.Certificates
	answer.RequestsClientCertificate, answer.AcceptedCAs = a.RequestsClientCertificate, a.AcceptedCAs
	answer.SignatureSchemes = a.SignatureSchemes
}

// ReadOnlyOpen reports whether the read-only port is open. It returns an error if this is not known: only a refused
// connection shows that the port is closed. It takes at most [ReadOnlyTimeout].
func (d Dialer) ReadOnlyOpen(ctx context.Context, to Target) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadOnlyTimeout)
	defer cancel()
	connection, err := handshake.Dialer{Control: d.Control}.Connect(ctx, to.ReadOnly)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return false, nil
	case err != nil:
		return false, handshake.StableError(err, ReadOnlyTimeout)
	}
	_ = connection.Close()
	return true, nil
}

// IsFiltered reports whether an error of [Dialer.ReadOnlyOpen] is what a firewall causes: no answer, or one that says
// that there is no way to the host. A host that is down or far away causes the same errors.
func IsFiltered(err error) bool {
	return handshake.IsTimeout(err) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// SPDX-License-Identifier: Apache-2.0

// Package probe connects to a kubelet as a kube-apiserver does, and records its
// certificate and the client CAs that it accepts.
//
// It uses no private key: the kubelet names the CAs that it accepts in its request for a
// client certificate, and the probe finishes the handshake without a certificate. It sends
// no request. Package check decides what the answer means.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// Port is the default port of the kubelet (Kubernetes pkg/cluster/ports/ports.go).
	Port = 10250
	// readOnlyPort is the default port of its read-only server (same file).
	readOnlyPort = 10255

	// timeout bounds one probe.
	timeout = 3 * time.Second
	// minInterval is the least time between two probes.
	minInterval = time.Second
)

// Prober probes one kubelet. [New] makes one.
type Prober struct {
	host, address, readOnly string
	// assumed is the default port if the address has no port, otherwise 0.
	assumed int

	ask      chan struct{}
	answered chan struct{}
	mu       sync.Mutex
	answer   *check.KubeletAnswer
}

// New returns a prober of the kubelet at an address: an IP address or a DNS name, with a
// port if it is not [Port].
func New(address string) (*Prober, error) {
	host, port, err := net.SplitHostPort(address)
	assumed := 0
	if err != nil {
		assumed = Port
		// The address has no port. An IPv6 address may be in brackets.
		host, port = address, strconv.Itoa(Port)
		if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
		if net.ParseIP(host) == nil && !isName(host) {
			return nil, fmt.Errorf("%q is not an IP address or a DNS name, with or without a port", address)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("%q has no host or no port from 1 to 65535", address)
	}
	return &Prober{
		host: host, address: net.JoinHostPort(host, port), readOnly: net.JoinHostPort(host, strconv.Itoa(readOnlyPort)),
		assumed: assumed, ask: make(chan struct{}, 1), answered: make(chan struct{}, 1),
	}, nil
}

// isName reports whether the text has only characters of a DNS name.
func isName(host string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
	return host != "" && strings.Trim(host, allowed) == ""
}

// Ask requests a probe and does not wait for it. If a probe is running, another one follows.
func (p *Prober) Ask() { signal(p.ask) }

// Answered receives a value after each probe.
func (p *Prober) Answered() <-chan struct{} { return p.answered }

// Answer returns the result of the last probe, nil before the first one. While the kubelet
// does not answer, a read-only port that was open counts as open.
func (p *Prober) Answer() *check.KubeletAnswer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answer
}

// Run probes the kubelet after each [Prober.Ask], until the context ends.
func (p *Prober) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.ask:
		}
		answer := p.Probe(ctx)
		select {
		case <-ctx.Done():
			return nil // the probe may have failed because of this
		default:
		}
		p.mu.Lock()
		if !answer.Answered() && p.answer != nil && p.answer.ReadOnlyOpen {
			answer.ReadOnlyOpen = true // not known: nothing on the host answers
		}
		p.answer = &answer
		p.mu.Unlock()
		signal(p.answered)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(minInterval):
		}
	}
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // a value is waiting already
	}
}

// Probe connects to the kubelet now. It takes at most a few seconds.
func (p *Prober) Probe(ctx context.Context) check.KubeletAnswer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer := check.KubeletAnswer{
		At: finding.Subject{Kind: finding.KindKubelet, Name: p.address}, Host: p.host,
		ReadOnlyAt: finding.Subject{Kind: finding.KindKubelet, Name: p.readOnly}, AssumedPort: p.assumed,
	}
	var both errgroup.Group
	both.Go(func() error {
		answer.ReadOnlyOpen, answer.ReadOnlyErr = p.readOnlyOpen(ctx)
		return nil
	})
	answer.Err = p.handshake(ctx, &answer)
	interpretAlert(&answer)
	_ = both.Wait() // always nil
	if _, ok := errors.AsType[tls.RecordHeaderError](answer.Err); ok {
		answer.NotTLS = true
	}
	if answer.Err != nil {
		answer.Err = stableError(answer.Err)
	}
	return answer
}

func (p *Prober) handshake(ctx context.Context, answer *check.KubeletAnswer) error {
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12, // as all of Kubernetes' clients
		ServerName: p.host,
		// The probe sends nothing, and it must also record certificates that are not
		// valid. Package check verifies them.
		InsecureSkipVerify: true, //nolint:gosec // see above
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			answer.RequestsClientCertificate, answer.AcceptedCAs = true, request.AcceptableCAs
			return &tls.Certificate{}, nil // no certificate
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			answer.Certificates = state.PeerCertificates // also if the handshake fails later
			return nil
		},
	}}
	connection, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	_ = connection.Close()
	return nil
}

// interpretAlert handles a handshake that the kubelet itself ended. If it sent its
// certificate and asked for ours before that, the cause is that the probe has none, and
// everything that the probe needs was seen. (In TLS 1.3 the handshake is complete before
// the kubelet sends the alert.)
func interpretAlert(answer *check.KubeletAnswer) {
	if answer.Err == nil {
		return
	}
	alert, ok := alertOf(answer.Err)
	switch {
	case !ok:
		answer.Certificates = nil
	case len(answer.Certificates) > 0 && answer.RequestsClientCertificate:
		answer.Err = nil
	default:
		answer.Alert = &alert
	}
}

// alertOf returns the alert that the kubelet sent. crypto/tls uses an unexported type for
// it, which only its text identifies.
func alertOf(err error) (alert tls.AlertError, ok bool) {
	operation, ok := errors.AsType[*net.OpError](err)
	if !ok || operation.Op != remoteError {
		return 0, false
	}
	for code := range 1 << 8 {
		if alert := tls.AlertError(code); alert.Error() == operation.Err.Error() {
			return alert, true
		}
	}
	return 0, false
}

// remoteError is the Op of the error for an alert (crypto/tls conn.go).
const remoteError = "remote error"

// readOnlyOpen reports whether the read-only port is open. It returns an error if this is
// not known: only a refused connection shows that the port is closed.
func (p *Prober) readOnlyOpen(ctx context.Context) (bool, error) {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", p.readOnly)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return false, nil
	case err != nil:
		return false, stableError(err)
	}
	_ = connection.Close()
	return true, nil
}

// stableError removes from an error what changes from probe to probe, such as the local
// port, and the address, which the finding names already.
func stableError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", timeout)
	}
	if operation, ok := errors.AsType[*net.OpError](err); ok && operation.Op != remoteError {
		return operation.Err
	}
	return err
}

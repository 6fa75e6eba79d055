// SPDX-License-Identifier: Apache-2.0

// Package probe asks a kubelet who it is and whom it takes, by a TLS handshake
// as a kube-apiserver would begin it.
//
// No private key is used: the kubelet names the CAs that it accepts in its
// request for a client certificate, and the handshake is finished without one.
// No request follows. The package judges nothing, package check does.
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
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// Port is the kubelet's (Kubernetes pkg/cluster/ports/ports.go).
	Port = 10250
	// readOnlyPort is that of its read-only server (ibid.).
	readOnlyPort = 10255

	// timeout bounds one look at a kubelet.
	timeout = 3 * time.Second
	// gap is the least time between two looks.
	gap = time.Second
)

// Prober looks at one kubelet. [New] makes one.
type Prober struct {
	host, address, readOnly string

	ask      chan struct{}
	answered chan struct{}
	mu       sync.Mutex
	answer   *check.KubeletAnswer
}

// New returns a prober of the kubelet at an address: an IP address or name,
// with a port where it is not [Port].
func New(address string) (*Prober, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		// Without a port; an IPv6 address may stand in brackets then, too.
		host, port = address, strconv.Itoa(Port)
		if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
		if net.ParseIP(host) == nil && !isName(host) {
			return nil, fmt.Errorf("%q is neither an IP address nor a name, with or without a port", address)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("%q has no host or no port from 1 to 65535", address)
	}
	return &Prober{
		host: host, address: net.JoinHostPort(host, port), readOnly: net.JoinHostPort(host, strconv.Itoa(readOnlyPort)),
		ask: make(chan struct{}, 1), answered: make(chan struct{}, 1),
	}, nil
}

// isName: the text could be a DNS name.
func isName(host string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
	return host != "" && strings.Trim(host, allowed) == ""
}

// Ask asks for a look, soon. It does not wait; one that is asked for while
// another is under way follows it.
func (p *Prober) Ask() { signal(p.ask) }

// Answered gives a value after each look.
func (p *Prober) Answered() <-chan struct{} { return p.answered }

// Answer is what the last look saw, nil before the first one. That the read-only
// port is open stays so while the kubelet is away.
func (p *Prober) Answer() *check.KubeletAnswer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answer
}

// Run looks whenever it is asked to, until the context ends.
func (p *Prober) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.ask:
		}
		answer := p.Look(ctx)
		select {
		case <-ctx.Done():
			return nil // that is why it did not answer
		default:
		}
		p.mu.Lock()
		if answer.Err != nil && !answer.NotTLS && p.answer != nil && p.answer.ReadOnlyOpen {
			answer.ReadOnlyOpen = true // where nothing answers, that this port does not says nothing
		}
		p.answer = &answer
		p.mu.Unlock()
		signal(p.answered)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(gap):
		}
	}
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // one is waiting already
	}
}

// Look asks the kubelet now, for a few seconds at the most.
func (p *Prober) Look(ctx context.Context) check.KubeletAnswer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer := check.KubeletAnswer{
		At: finding.Location("kubelet " + p.address), Host: p.host, ReadOnlyAt: finding.Location("kubelet " + p.readOnly),
	}
	var both errgroup.Group
	both.Go(func() error {
		answer.ReadOnlyOpen = p.readOnlyOpen(ctx)
		return nil
	})
	answer.Err = p.handshake(ctx, &answer)
	_ = both.Wait() // it has no error
	if _, ok := errors.AsType[tls.RecordHeaderError](answer.Err); ok {
		answer.NotTLS = true
	}
	if answer.Err != nil {
		answer.Err = words(answer.Err)
	}
	return answer
}

func (p *Prober) handshake(ctx context.Context, answer *check.KubeletAnswer) error {
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12, // as all of Kubernetes' clients
		ServerName: p.host,
		// Nothing is sent, and a certificate that does not verify is what is
		// looked for: package check verifies it.
		InsecureSkipVerify: true, //nolint:gosec // see above
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			answer.AsksClients, answer.AcceptedCAs = true, request.AcceptableCAs
			return &tls.Certificate{}, nil // none
		},
	}}
	connection, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	if connection, ok := connection.(*tls.Conn); ok {
		answer.Certificates = connection.ConnectionState().PeerCertificates
	}
	return nil
}

// readOnlyOpen: a connection that nobody answers counts as none.
func (p *Prober) readOnlyOpen(ctx context.Context) bool {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", p.readOnly)
	if err != nil {
		return false
	}
	_ = connection.Close()
	return true
}

// words are the error without what differs from one look to the next, such as
// our own port, and without the address, which stands beside it.
func words(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", timeout)
	}
	if operation, ok := errors.AsType[*net.OpError](err); ok && operation.Op != "remote error" {
		return operation.Err
	}
	return err
}

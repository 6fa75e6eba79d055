// SPDX-License-Identifier: Apache-2.0

// Package probe connects to a kubelet as a kube-apiserver does, and records its
// certificate and the client CAs that it accepts.
//
// Package kubelettls makes the handshake, without a private key. Package check decides what the answer means.
package probe

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubelettls"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Port is the default port of the kubelet.
const Port = kubelettls.Port

// minInterval is the least time between two probes.
const minInterval = time.Second

// Prober probes one kubelet. [New] makes one.
type Prober struct {
	to kubelettls.Target
	// assumed is the default port if the address has no port, otherwise 0.
	assumed int

	ask      chan struct{}
	answered chan struct{}
	mu       sync.Mutex
	answer   *check.KubeletAnswer
	answers  uint64
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
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("%q has no host or no port from 1 to 65535", address)
	}
	return &Prober{
		to: kubelettls.At(host, int(n)), assumed: assumed, ask: make(chan struct{}, 1), answered: make(chan struct{}, 1),
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

// Answers counts the answers that were not the same as the one before.
func (p *Prober) Answers() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answers
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
		if p.answer == nil || !p.answer.Same(answer) {
			p.answers++
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
	answer := check.KubeletAnswer{
		At: finding.Subject{Kind: finding.KindKubelet, Name: p.to.Address}, Host: p.to.Host,
		ReadOnlyAt: finding.Subject{Kind: finding.KindKubelet, Name: p.to.ReadOnly}, AssumedPort: p.assumed,
	}
	var dialer kubelettls.Dialer
	var both errgroup.Group
	both.Go(func() error {
		answer.ReadOnlyOpen, answer.ReadOnlyErr = dialer.ReadOnlyOpen(ctx, p.to)
		return nil
	})
	dialer.Handshake(ctx, p.to, &answer)
	_ = both.Wait() // always nil
	return answer
}

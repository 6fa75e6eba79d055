// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/handshake"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/served"
)

// newAsker returns an asker of the endpoints of Services.
func newAsker(client *rest.Config) (*served.Asker, error) {
	endpoints, err := served.FromSlices(client)
	if err != nil {
		return nil, err
	}
	return &served.Asker{
		Endpoints: endpoints, Now: time.Now,
		// The ranges for Services are not refused: they are known on OpenShift only, and a handshake harms no Service.
		Refuse: func(address netip.Addr) string { return handshake.Refuse(address, nil) },
		Random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), //nolint:gosec // it spreads the work
	}, nil
}

// maxServedTime bounds asking the endpoints of one Service with --once. It is at most half of what is left of
// --timeout.
const maxServedTime = 10 * time.Second

// askServedOnce returns a function that asks endpoints once.
func askServedOnce(client *rest.Config) (audit.AskServed, error) {
	asker, err := newAsker(client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, targets []served.Target) map[served.Target]check.ServedAnswers {
		within := maxServedTime
		if deadline, bounded := ctx.Deadline(); bounded {
			within = min(within, time.Until(deadline)/2)
		}
		return asker.Once(ctx, targets, within/time.Duration(max(len(targets), 1)))
	}, nil
}

// servedMeter counts the endpoints of the Services. Its labels do not have the endpoints.
type servedMeter struct{ endpoints *prometheus.GaugeVec }

func newServedMeter(registry prometheus.Registerer) servedMeter {
	m := servedMeter{prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubelet_https_guard_served_endpoints",
		Help: "Endpoints of the Services of protected Secrets by the certificate that they serve: " +
			"stored, other or unknown.",
	}, []string{"certificate"})}
	registry.MustRegister(m.endpoints)
	return m
}

// asked replaces the values by those of a round.
func (m servedMeter) asked(c served.Count) {
	for certificate, count := range map[string]int{"stored": c.Stored, "other": c.Other, "unknown": c.Unknown} {
		m.endpoints.WithLabelValues(certificate).Set(float64(count))
	}
}

// forget removes all values.
func (m servedMeter) forget() { m.endpoints.Reset() }

// auditServed makes an audit also ask the endpoints of Services which certificate they serve.
func auditServed(
	auditor *audit.Auditor, leader *audit.Leader, client *rest.Config, patience time.Duration,
	registry prometheus.Registerer,
) error {
	asker, err := newAsker(client)
	if err != nil {
		return err
	}
	meter := newServedMeter(registry)
	asker.Asked, auditor.Served, auditor.ServedPatience = meter.asked, asker, patience
	without, leading := leader.Audit, leader.Leading
	leader.Audit = func(ctx context.Context) { runBoth(ctx, without, asker.Run) }
	leader.Leading = func(yes bool) {
		if !yes {
			meter.forget()
		}
		leading(yes)
	}
	return nil
}

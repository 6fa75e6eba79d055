// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/sweep"
)

// kubeletCAOf parses NAMESPACE/NAME/KEY. It returns the zero value for another text.
func kubeletCAOf(text string) sweep.ConfigMapKey {
	parts := strings.Split(text, "/")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return sweep.ConfigMapKey{}
	}
	return sweep.ConfigMapKey{Namespace: parts[0], Name: parts[1], Key: parts[2]}
}

// newSweeper returns a sweeper of the kubelets of all Nodes. If the address of Service default/kubernetes is a name, or
// empty, it counts as not known.
func newSweeper(client *rest.Config, options auditOptions, log *slog.Logger) (*sweep.Sweeper, error) {
	api, err := sweep.NewAPI(client, kubeletCAOf(options.kubeletCA))
	if err != nil {
		return nil, err
	}
	address, err := netip.ParseAddr(options.apiService)
	if err != nil {
		address = netip.Addr{}
	}
	return &sweep.Sweeper{
		Cluster: api, Refuse: sweep.Refuse, APIService: address, Now: time.Now, Log: log,
		Random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), //nolint:gosec // it spreads the work
	}, nil
}

// sweepOnce asks the kubelets of all Nodes, and returns a result for each Node and requirement; if few is true, those
// about several Nodes are joined.
func sweepOnce(
	ctx context.Context, client *rest.Config, options auditOptions, few bool,
) ([]finding.Result, error) {
	sweeper, err := newSweeper(client, options, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	outcomes, err := sweeper.Once(ctx, timeToSweep(ctx))
	if err != nil {
		return nil, fmt.Errorf("check the kubelets of the Nodes: %w", err)
	}
	if few || len(outcomes) == 0 {
		return sweeper.Results(), nil // without outcomes they say why
	}
	var results []finding.Result
	for _, o := range outcomes {
		results = append(results, o.All()...)
	}
	return results, nil
}

// afterSweep is the part of --timeout that is for what follows the sweep: the last kubelets that are being asked, and
// the stored objects. It is at most half of it.
const afterSweep = 20 * time.Second

// timeToSweep returns how long kubelets may be asked, so that there is a report before the context ends.
func timeToSweep(ctx context.Context) time.Duration {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		return maxAuditTime
	}
	left := time.Until(deadline)
	return left - min(afterSweep, left/2)
}

// kubeletMeter counts the kubelets of the Nodes. Its labels do not have the Nodes.
type kubeletMeter struct {
	outcomes, reasons *prometheus.GaugeVec
	took, at          *prometheus.GaugeVec // without labels; a vector can have no value
}

func newKubeletMeter(registry prometheus.Registerer) kubeletMeter {
	m := kubeletMeter{
		outcomes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_kubelets",
			Help: "Nodes by the worst outcome of their kubelet in the last sweep: pass, warn, fail or unknown.",
		}, []string{"outcome"}),
		reasons: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_kubelet_findings",
			Help: "Nodes whose kubelet has a finding with the reason in the last sweep.",
		}, []string{"reason"}),
		took: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_kubelet_sweep_seconds", Help: "Duration of the last sweep of all Nodes.",
		}, nil),
		at: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_https_guard_kubelet_sweep_timestamp_seconds",
			Help: "When the last sweep of all Nodes ended, as Unix time.",
		}, nil),
	}
	registry.MustRegister(m.outcomes, m.reasons, m.took, m.at)
	return m
}

// swept replaces the values by those of a sweep.
func (m kubeletMeter) swept(s sweep.Sweep) {
	m.forget()
	for _, outcome := range []finding.Outcome{finding.Pass, finding.Warn, finding.Fail, finding.Unknown} {
		m.outcomes.WithLabelValues(outcome.String()).Set(float64(s.Outcomes[outcome]))
	}
	for reason, count := range s.Reasons {
		m.reasons.WithLabelValues(string(reason)).Set(float64(count))
	}
	m.took.WithLabelValues().Set(s.Took.Seconds())
	m.at.WithLabelValues().Set(float64(s.At.Unix()))
}

// forget removes all values.
func (m kubeletMeter) forget() {
	m.outcomes.Reset()
	m.reasons.Reset()
	m.took.Reset()
	m.at.Reset()
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/prove"
)

// serveAudit checks the stored objects until the context ends, while it holds the Lease that
// replicas share, and reports in the log, Events and metrics.
func serveAudit(ctx context.Context, options auditOptions, log *slog.Logger) error {
	// All files that the command line names are checked before anything is logged.
	loaded, err := loadConfig(options.source())
	if err != nil {
		return err
	}
	client, err := kubeclient.Config(options.kubeconfig, auditUserAgent())
	switch {
	case errors.Is(err, kubeclient.ErrNoAPIServer):
		return errNoAPIServer
	case err != nil:
		return err
	}
	objects, err := newObjects(client)
	if err != nil {
		return err
	}
	if debug.SetMemoryLimit(-1) == memoryLimit { // GOMEMLIMIT is not set
		debug.SetMemoryLimit(auditMemoryLimit)
	}
	registry := newRegistry()
	config := newReloader(options.source(), loaded, registry, log)
	metrics := report.NewMetrics(registry)
	meter := newAuditMeter(registry, metrics)
	events, err := newEvents(client, options.instance, registry, log)
	if err != nil {
		return err
	}
	if config.release, err = kubeclient.NewGoRelease(client); err != nil {
		return err
	}
	config.release.Read(ctx)
	leader, err := newLeader(client, options, log)
	if err != nil {
		return err
	}
	auditor := audit.Auditor{
		Client: objects, Reporter: report.Reporters{metrics, report.NewLog(log), events}, Meter: meter,
		Subject: func() audit.Subject { return config.Subject(options.guardPatience) },
		Self: report.Object{
			APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: options.namespace, Name: options.lease,
		},
		Now: time.Now, Log: log,
	}
	prover := prove.Prover{Guard: config.Guard, Servers: prove.EachServer(client), Now: time.Now}
	auditor.Effects = prover.Effects
	leader.Audit = func(ctx context.Context) { runBoth(ctx, auditor.Run, prover.Run) }
	leader.Leading, leader.Failed = meter.setLeading, meter.failed.Inc
	if options.kubelets {
		if err := auditKubelets(&auditor, leader, client, options, registry, log); err != nil {
			return err
		}
	}
	if options.served {
		if err := auditServed(&auditor, leader, client, options.servedPatience, registry); err != nil {
			return err
		}
	}

	metricsServer, err := options.metrics.Listen(ctx, client, registry, 0, log)
	if err != nil {
		return err
	}
	// The last Events are delivered after the audit has ended.
	delivery, delivered := context.WithCancel(context.WithoutCancel(ctx))
	defer delivered()
	var deliverer errgroup.Group
	deliverer.Go(func() error { return events.Run(delivery) })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { leader.Run(ctx); return nil })
	group.Go(func() error { config.release.Run(ctx); return nil })
	group.Go(func() error { return config.Run(ctx) })
	if options.healthAddress != noAddress {
		var listen net.ListenConfig
		health, err := listen.Listen(ctx, "tcp", options.healthAddress)
		if err != nil {
			err = command.ListenError("--health-bind-address", options.healthAddress, err)
			group.Go(func() error { return err })
		} else {
			log.Info("Serving metrics and health", "address", health.Addr().String())
			// A replica that waits for the Lease is ready, too.
			group.Go(func() error { return statusserver.Serve(ctx, health, options.metrics.Plain(registry), alive, alive) })
		}
	}
	if metricsServer != nil {
		group.Go(func() error { return metricsServer.Run(ctx) })
	}
	log.Info("Started", "version", version.String())
	err = group.Wait()
	delivered()
	return errors.Join(err, deliverer.Wait())
}

// newObjects returns the client that watches objects. It has no rate limit: a list and a watch for each protected
// Secret of the configuration, which has at most [maxConfigBytes], begin at the same time, and requests that wait for
// client-go's limit would time out. API servers have their own limits.
func newObjects(client *rest.Config) (dynamic.Interface, error) {
	own := rest.CopyConfig(client)
	own.QPS = -1
	objects, err := dynamic.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("create a client for the API server: %w", err)
	}
	return objects, nil
}

// auditKubelets makes an audit also sweep the kubelets of all Nodes.
func auditKubelets(
	auditor *audit.Auditor, leader *audit.Leader, client *rest.Config, options auditOptions,
	registry prometheus.Registerer, log *slog.Logger,
) error {
	sweeper, err := newSweeper(client, options, log)
	if err != nil {
		return err
	}
	kubelets := newKubeletMeter(registry)
	sweeper.Swept, sweeper.Stale, auditor.Kubelets = kubelets.swept, kubelets.forget, sweeper
	withoutKubelets, leading := leader.Audit, leader.Leading
	leader.Audit = func(ctx context.Context) { runBoth(ctx, withoutKubelets, sweeper.Run) }
	leader.Leading = func(yes bool) {
		if !yes {
			kubelets.forget()
		}
		leading(yes)
	}
	return nil
}

// runBoth runs both functions until the context ends, or the first returns. If the second
// panics, it ends the first and then panics with the same value, for the caller to handle.
func runBoth(ctx context.Context, first, second func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var panicked any
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		defer func() { panicked = recover() }()
		second(ctx)
	}()
	first(ctx)
	cancel()
	<-ended
	if panicked != nil {
		panic(panicked)
	}
}

// newLeader returns the leader election. The caller must set its Audit, Leading and Failed.
func newLeader(client *rest.Config, options auditOptions, log *slog.Logger) (*audit.Leader, error) {
	leases, err := coordinationv1.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for the Lease: %w", err)
	}
	leader := &audit.Leader{
		Leases: leases, Namespace: options.namespace, Name: options.lease, Identity: instance(options.instance), Log: log,
	}
	if options.deployment == "" {
		return leader, nil
	}
	deployments, err := appsclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for the Lease: %w", err)
	}
	// No manifest of the release has the Lease; the owner makes it deleted with the release.
	leader.Owner = func(ctx context.Context) (metav1.OwnerReference, error) {
		deployment, err := deployments.Deployments(options.namespace).Get(ctx, options.deployment, metav1.GetOptions{})
		if err != nil {
			return metav1.OwnerReference{}, fmt.Errorf("read Deployment %s: %w", options.deployment, err)
		}
		return metav1.OwnerReference{
			APIVersion: "apps/v1", Kind: "Deployment", Name: deployment.Name, UID: deployment.UID,
		}, nil
	}
	return leader, nil
}

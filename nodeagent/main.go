// SPDX-License-Identifier: Apache-2.0

// Command nodeagent watches the kubelet client certificate of a control-plane
// node and tells in its log and in Events whether it is there and holds.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/probe"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/watch"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
)

const reporterName = "kubelet-https-guard.io/nodeagent"

// The agent's heap is small and it does one thing at a time, rarely. So, unless
// GOGC and GOMAXPROCS say otherwise, the garbage collector gets half of the usual
// reserve and the scheduler one thread: no measurable time lost, a quarter less
// of idle CPU and two to three of 20 MiB saved (test/bench/agent).
const (
	gcPercent = 50
	threads   = 1
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(threads)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole command but for the process around it.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	config, err := parseConfig(args, getenv, stderr)
	switch {
	case errors.Is(err, errHelp):
		return evidence.ExitCompliant
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "nodeagent: %v\nRun nodeagent --help for the flags.\n", err)
		return evidence.ExitUsage
	case config.version:
		_, _ = fmt.Fprintln(stdout, "nodeagent", version.String())
		return evidence.ExitCompliant
	}

	host, err := hostfs.New(config.root, check.MaxFileBytes)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "nodeagent: --root: %v\n", err)
		return evidence.ExitUsage
	}
	log, err := report.NewLogger(stderr, config.logFormat, config.logLevel)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "nodeagent: --log-format: %v\n", err)
		return evidence.ExitUsage
	}
	// client-go and net/http log through globals of their own.
	klog.SetSlogLogger(log)
	slog.SetDefault(log)
	options := scan.Options{
		Directory: config.directory, ClientCA: config.clientCA, ExpiringFraction: config.expiringFraction,
	}
	guard := &agent.Agent{
		Chain:  host.Chain,
		Object: report.Object{APIVersion: "v1", Kind: "Node", Name: config.nodeName},
		Now:    time.Now, Log: log, Resync: config.resync, Settle: config.settle,
	}
	if config.once {
		guard.Scan = func(now time.Time) scan.Snapshot { return scan.Scan(host, askedNow(ctx, config.kubelet), options, now) }
		snapshot := guard.Settled(ctx)
		if ctx.Err() != nil {
			log.Error("Interrupted before what is found has settled")
			return evidence.ExitFailed
		}
		d := document(snapshot, config)
		if err := evidence.Write(stdout, config.output.Coloured(report.Colours(stdout, getenv)), d); err != nil {
			log.Error("Report not written", "err", err)
			return evidence.ExitFailed
		}
		return d.ExitCode()
	}
	var kubelet scan.Kubelet
	if config.kubelet != nil {
		kubelet, guard.Kubelet = config.kubelet, config.kubelet
	}
	guard.Scan = func(now time.Time) scan.Snapshot { return scan.Scan(host, kubelet, options, now) }
	err = serve(ctx, guard, config, log)
	switch {
	case errors.Is(err, errNoNode):
		_, _ = fmt.Fprintf(stderr, "nodeagent: %v\n", err)
		return evidence.ExitUsage
	case err != nil:
		log.Error("Stopped", "err", err)
		return evidence.ExitFailed
	}
	return evidence.ExitCompliant
}

// askedNow asks the kubelet for each look, which then waits for the answer.
func askedNow(ctx context.Context, kubelet *probe.Prober) scan.Kubelet {
	if kubelet == nil {
		return nil
	}
	answer := kubelet.Look(ctx)
	return answered{&answer}
}

type answered struct{ answer *check.KubeletAnswer }

func (a answered) Answer() *check.KubeletAnswer { return a.answer }

// serve runs the agent until the context ends or a part of it fails, which
// ends all of it: an agent that is half alive would look like one that has
// nothing to say. What the agent has told by then is still delivered.
func serve(ctx context.Context, guard *agent.Agent, config config, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := report.NewMetrics(registry)
	// Metrics first: who reads a line of the log finds them set.
	tellers := report.Tellers{metrics, report.NewLog(log)}

	delivery, delivered := context.WithCancel(context.WithoutCancel(ctx))
	defer delivered()
	var deliverer errgroup.Group
	client, err := report.Connect(config.kubeconfig, "kubelet-https-guard-nodeagent/"+version.String())
	switch {
	case errors.Is(err, report.ErrNoAPIServer):
		log.Info("No API server known, telling in the log and in metrics only")
	case err != nil:
		return err
	case config.nodeName == "":
		return errNoNode
	default:
		events := report.NewEvents(client, log, reporterName, config.nodeName)
		registry.MustRegister(events)
		tellers = append(tellers, events)
		deliverer.Go(func() error { return events.Run(delivery) })
	}

	watcher := watch.New(log)
	meter := newMeter(registry, metrics, watcher.Errors, time.Now, config.resync)
	guard.Watcher, guard.Teller, guard.Meter = watcher, tellers, meter
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return watcher.Run(ctx) })
	if config.kubelet != nil {
		group.Go(func() error { return config.kubelet.Run(ctx) })
	}
	if config.metricsAddress != "0" {
		var listen net.ListenConfig
		listener, err := listen.Listen(ctx, "tcp", config.metricsAddress)
		if err != nil {
			return fmt.Errorf("serve metrics: %w", err)
		}
		log.Info("Serving metrics and health", "address", listener.Addr().String())
		group.Go(func() error { return report.Serve(ctx, listener, registry, meter.ready, meter.healthy) })
	}
	group.Go(func() error { return guard.Run(ctx) })
	log.Info("Started", "version", version.String(), "node", config.nodeName, "root", config.root)
	err = group.Wait()
	delivered()
	return errors.Join(err, deliverer.Wait())
}

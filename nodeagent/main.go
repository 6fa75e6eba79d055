// SPDX-License-Identifier: Apache-2.0

// Command nodeagent checks on a control-plane node that the kube-apiserver uses HTTPS to
// kubelets, and reports findings and verdicts in its log, in Events and in metrics.
package main

import (
	"context"
	"errors"
	"flag"
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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/connection"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/probe"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/watch"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

const reporterName = "kubelet-https-guard.io/nodeagent"

// userAgent names this program to API servers.
func userAgent() string { return "kubelet-https-guard-nodeagent/" + version.String() }

// The agent's heap is small, and it rarely works. So, unless GOGC and GOMAXPROCS are set, the
// heap grows by half as much as usual between collections, and Go code runs on one thread. This
// costs no measurable time, and saves a quarter of the idle CPU and two to three of 20 MiB
// (test/bench/agent).
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

// run is the whole program without the process. It returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	return int(program(getenv).Run(ctx, args, command.Output{Stdout: stdout, Stderr: stderr}))
}

// program defines the commands.
func program(getenv func(string) string) command.Program {
	return command.Program{
		Name: "nodeagent", Version: version.String(), Default: "run",
		Summary: "nodeagent checks on a control-plane node that the kube-apiserver uses HTTPS to kubelets.",
		Commands: []command.Command{
			{
				Name: "run", Summary: "check the node whenever something changes, and report in the log, Events and metrics",
				Description: "Check the node whenever a file changes, a certificate is about to expire or a timer fires, and " +
					"report in the log, Events and metrics. This is what the DaemonSet runs. With --once it checks the node once, " +
					"as 'nodeagent check' does.",
				Groups: runGroups(), Exits: command.Verdicts(),
				New: func(flags *flag.FlagSet) command.Run { return newRun(flags, getenv, false) },
			},
			{
				Name: "check", Summary: "check the node once, print a report, and exit with the code of the verdict",
				Description: "Check the node once, print a report, and exit with the code of the verdict. Changes nothing on " +
					"the node. If an API server is configured, it reads its /version, and with --pod the log. It must be able to " +
					"read the host's files: run it as root on the node, or in the agent's Pod with --root=/host.",
				Groups: checkGroups(), Exits: command.Verdicts(),
				New: func(flags *flag.FlagSet) command.Run { return newRun(flags, getenv, true) },
			},
		},
	}
}

// newRun implements both commands. They differ in their flags.
func newRun(flags *flag.FlagSet, getenv func(string) string, once bool) command.Run {
	c := config{output: evidence.Table}
	c.defineFlags(flags, getenv)
	return func(ctx context.Context, output command.Output) (command.Exit, error) {
		c.once = c.once || once
		if err := c.validate(); err != nil {
			return command.ExitUsage, err
		}
		if err := command.CheckDirectory("--root", c.root, os.Stat); err != nil {
			return command.ExitUsage, err
		}
		host, err := hostfs.New(c.root, check.MaxFileBytes, hostfs.MountInfo)
		if err != nil {
			return command.ExitUsage, command.FileError("--root", c.root, err)
		}
		log := logging.New(output.Stderr, c.log)
		// client-go and net/http log through globals of their own.
		klog.SetSlogLogger(log)
		slog.SetDefault(log)
		guard := &agent.Agent{
			Chains: host.Chains,
			Object: report.Object{APIVersion: "v1", Kind: "Node", Name: c.nodeName},
			Now:    time.Now, Log: log, Resync: c.resync, Settle: c.settle,
		}
		options := scan.Options{
			Layout: c.layout, Directory: c.directory, Certificate: c.certificate, Key: c.key,
			ClientCA: c.clientCA, ExpiringFraction: c.expiringFraction, NodeName: c.nodeName, KeyPolicy: c.keyPolicy(),
		}
		asker, err := c.asker()
		if err != nil {
			return command.ExitUsage, err
		}
		release, err := c.goRelease()
		if err != nil {
			return command.ExitUsage, err
		}
		if release == nil && !c.once {
			if err := c.metrics.CheckAPIServer(kubeclient.ErrNoAPIServer); err != nil {
				return command.ExitUsage, err
			}
		}
		if c.once {
			answer := askNow(ctx, asker)
			if release != nil {
				release.Read(ctx)
				options.GoVersion = release.Version()
			}
			guard.Scan = func(now time.Time) scan.Snapshot {
				return scan.Scan(scan.Sources{
					Host: host.WithCurrentMounts(), Kubelet: probeNow(ctx, c.kubelet), Connection: answer,
				}, options, now)
			}
			return checkOnce(ctx, guard, c, output.Stdout, getenv)
		}
		from := scan.Sources{Memory: &scan.Memory{}}
		if c.kubelet != nil {
			from.Kubelet, guard.Kubelet = c.kubelet, c.kubelet
		}
		if asker != nil {
			from.Connection, guard.Connection = asker, asker
		}
		guard.Scan = func(now time.Time) scan.Snapshot {
			from := from
			from.Host = host.WithCurrentMounts()
			options := options
			options.GoVersion = release.Version()
			return scan.Scan(from, options, now)
		}
		err = serve(ctx, guard, c, asker, release, log)
		if err != nil && !command.IsUsage(err) {
			log.Error("Stopped", "err", err)
			return command.ExitFailed, nil
		}
		return command.ExitOK, err
	}
}

// checkOnce scans the node until no finding is pending, and writes the report.
func checkOnce(
	ctx context.Context, guard *agent.Agent, c config, stdout io.Writer, getenv func(string) string,
) (command.Exit, error) {
	snapshot := guard.Settled(ctx)
	if ctx.Err() != nil {
		return command.ExitFailed, errors.New("interrupted before the check was finished")
	}
	d := document(snapshot, c)
	if err := evidence.Write(stdout, c.output, d, evidence.Options{Colour: logging.Colours(stdout, getenv)}); err != nil {
		return command.ExitFailed, fmt.Errorf("write the report: %w", err)
	}
	return d.Exit(), nil
}

// probeNow probes the kubelet and waits for its answer. It returns nil if the kubelet is not
// probed.
func probeNow(ctx context.Context, kubelet *probe.Prober) scan.Kubelet {
	if kubelet == nil {
		return nil
	}
	answer := kubelet.Probe(ctx)
	return asked[check.KubeletAnswer]{&answer}
}

// askNow asks the kube-apiserver and waits for its answer. It returns nil if it is not asked.
func askNow(ctx context.Context, asker *connection.Asker) scan.Connection {
	if asker == nil {
		return nil
	}
	answer := asker.Ask(ctx)
	return asked[check.ConnectionAnswer]{&answer}
}

// asked is a kubelet or a kube-apiserver that was asked once.
type asked[A any] struct{ answer *A }

func (a asked[A]) Answer() *A { return a.answer }

// serve runs the agent until the context ends or a part of the agent fails. If one part
// fails, all of it stops: otherwise nobody could tell a broken agent from one that finds
// nothing. Events that are waiting are still delivered.
func serve(
	ctx context.Context, guard *agent.Agent, config config, asker *connection.Asker, release *kubeclient.GoRelease,
	log *slog.Logger,
) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := report.NewMetrics(registry)
	// Metrics first: they are set before the log line is written.
	reporters := report.Reporters{metrics, report.NewLog(log)}

	delivery, delivered := context.WithCancel(context.WithoutCancel(ctx))
	defer delivered()
	var deliverer errgroup.Group
	client, err := kubeclient.Connect(config.kubeconfig, userAgent())
	switch {
	case errors.Is(err, kubeclient.ErrNoAPIServer):
		log.Info("No API server configured: reporting in the log and in metrics only")
	case err != nil:
		return err
	case config.nodeName == "":
		return errNoNode
	default:
		events := report.NewEvents(client, log, reporterName, config.nodeName)
		registry.MustRegister(events)
		reporters = append(reporters, events)
		deliverer.Go(func() error { return events.Run(delivery) })
	}

	watcher := watch.New(log)
	meter := newMeter(registry, metrics, watcher.Errors, time.Now, config.resync)
	guard.Watcher, guard.Reporter, guard.Meter = watcher, reporters, meter
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return watcher.Run(ctx) })
	if config.kubelet != nil {
		group.Go(func() error { return config.kubelet.Run(ctx) })
	}
	if asker != nil {
		group.Go(func() error { return asker.Run(ctx) })
	}
	if release != nil {
		group.Go(func() error {
			release.Read(ctx)
			release.Run(ctx)
			return nil
		})
	}
	if config.metricsAddress != noAddress {
		var listen net.ListenConfig
		listener, err := listen.Listen(ctx, "tcp", config.metricsAddress)
		if err != nil {
			return command.ListenError("--metrics-bind-address", config.metricsAddress, err)
		}
		log.Info("Serving metrics and health", "address", listener.Addr().String())
		group.Go(func() error {
			return statusserver.Serve(ctx, listener, config.metrics.Plain(registry), meter.ready, meter.healthy)
		})
	}
	if config.metrics.Enabled() {
		api, err := kubeclient.Config(config.kubeconfig, userAgent())
		if err != nil {
			return err
		}
		server, err := config.metrics.Listen(ctx, api, registry, 0, log)
		if err != nil {
			return err
		}
		group.Go(func() error { return server.Run(ctx) })
	}
	group.Go(func() error { return guard.Run(ctx) })
	log.Info("Started", "version", version.String(), "node", config.nodeName, "root", config.root)
	err = group.Wait()
	delivered()
	return errors.Join(err, deliverer.Wait())
}

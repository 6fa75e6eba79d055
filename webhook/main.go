// SPDX-License-Identifier: Apache-2.0

// Command webhook is a validating admission webhook that refuses changes which
// would weaken the protected Secrets.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/tlsserver"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 64

	// handlerPath is where the API server sends AdmissionReviews.
	handlerPath  = "/validate"
	reporterName = "kubelet-https-guard.io/webhook"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole command but for the process around it.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	options, err := parseOptions(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "webhook: %v\nRun webhook --help for the flags.\n", err)
		return exitUsage
	case options.version:
		_, _ = fmt.Fprintln(stdout, "webhook", version.String())
		return exitOK
	}
	log, err := report.NewLogger(stderr, options.logFormat, options.logLevel)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "webhook: --log-format: %v\n", err)
		return exitUsage
	}
	// controller-runtime and net/http log through globals of their own.
	crlog.SetLogger(logr.FromSlogHandler(log.Handler()))
	slog.SetDefault(log)

	if err := serve(ctx, options, log); err != nil {
		log.Error("Stopped", "err", err)
		return exitFailed
	}
	return exitOK
}

// serve answers until the context ends or a part fails, which ends all of it.
func serve(ctx context.Context, options options, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	config, err := newReloader(options.config, registry, log)
	if err != nil {
		return err
	}
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tellers := report.Tellers{report.NewMetrics(registry), report.NewLog(log)}
	// What the last requests told is delivered after the server has ended.
	delivery, delivered := context.WithCancel(context.WithoutCancel(ctx))
	defer delivered()
	var deliverer errgroup.Group
	client, err := report.Connect(options.kubeconfig, "kubelet-https-guard-webhook/"+version.String())
	switch {
	case errors.Is(err, report.ErrNoAPIServer):
		log.Info("No API server known, telling in the log only")
	case err != nil:
		return err
	default:
		events := report.NewEvents(client, log, reporterName, instance(options.instance))
		tellers = append(tellers, events)
		registry.MustRegister(events)
		deliverer.Go(func() error { return events.Run(delivery) })
	}

	mux := http.NewServeMux()
	mux.Handle(handlerPath, &admission.Webhook{Handler: &admit.Handler{
		Protected: config.Protected, OverridesAction: config.OverridesAction,
		Teller: tellers, Meter: newMeter(registry), Log: log, Now: time.Now,
	}})
	server, err := tlsserver.New(options.certDir, mux, options.shutdownDelay, time.Now, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", options.address)
	if err != nil {
		return fmt.Errorf("serve admission: %w", err)
	}
	log.Info("Serving admission", "address", listener.Addr().String())
	// Health is served until admission has ended: not ready, but alive.
	serving, served := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer served()
		return server.Run(ctx, listener)
	})
	group.Go(func() error { return config.Run(ctx) })
	if options.healthAddress != "0" {
		health, err := listen.Listen(ctx, "tcp", options.healthAddress)
		if err != nil {
			served()
			return fmt.Errorf("serve health: %w", err)
		}
		group.Go(func() error { return report.Serve(serving, health, registry, server.Ready, alive) })
	}
	log.Info("Started", "version", version.String())
	err = group.Wait()
	delivered()
	return errors.Join(err, deliverer.Wait())
}

// alive: a part that dies ends the process, so one that answers is alive.
func alive(context.Context) error { return nil }

// instance names this process in Events.
func instance(podName string) string {
	if podName != "" {
		return podName
	}
	if host, err := os.Hostname(); err == nil {
		return host
	}
	return "webhook"
}

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
	"golang.org/x/sync/errgroup"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	crwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 64

	// handlerPath is where the API server sends AdmissionReviews.
	handlerPath  = "/validate-secrets"
	reporterName = "kubelet-https-guard.io/webhook"
	// healthTimeout bounds reading a request for health.
	healthTimeout = 5 * time.Second
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
	protected, err := loadConfig(options.config)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	tellers := report.Tellers{report.NewLog(log)}
	client, err := report.Connect(options.kubeconfig, "kubelet-https-guard-webhook/"+version.String())
	switch {
	case errors.Is(err, report.ErrNoAPIServer):
		log.Info("No API server known, telling in the log only")
	case err != nil:
		return err
	default:
		events := report.NewEvents(client, log, reporterName, instance(options.instance))
		tellers = append(tellers, events)
		group.Go(func() error { return events.Run(ctx) })
	}

	server := crwebhook.NewServer(crwebhook.Options{Host: options.host, Port: options.port, CertDir: options.certDir})
	server.Register(handlerPath, &admission.Webhook{
		Handler: &admit.Handler{Protected: protected, Teller: tellers, Now: time.Now},
	})
	group.Go(func() error { return server.Start(ctx) })
	if options.healthAddress != "0" {
		group.Go(func() error { return serveHealth(ctx, options.healthAddress, server.StartedChecker()) })
	}
	for _, p := range protected {
		log.Info("Protecting", "namespace", p.Namespace, "name", p.Name)
	}
	log.Info("Started", "version", version.String())
	return group.Wait()
}

// serveHealth answers /healthz, and /readyz with whether admission is served.
func serveHealth(ctx context.Context, address string, ready func(*http.Request) error) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve health: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: healthTimeout, ReadTimeout: healthTimeout, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health: %w", err)
	}
	return nil
}

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

// SPDX-License-Identifier: Apache-2.0

// Command webhook is a validating admission webhook that refuses changes which would weaken
// the protected objects (webhook serve), and the audit of the stored objects (webhook
// audit). It also tests whether API servers refuse (webhook prove) and prints the policies
// (webhook policy).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/dynamic"
	admissionv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/activation"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/servingcert"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/tlsserver"
)

const (
	// handlerPath is where the API server sends AdmissionReviews.
	handlerPath  = "/validate"
	reporterName = "kubelet-https-guard.io/webhook"
)

// The webhook's heap is a few MiB, and a request takes some tens of KiB. With this GC percent
// the garbage collector runs half as often; the limit bounds the memory when there are many
// large requests at once (test/bench/webhook). GOGC and GOMEMLIMIT override both.
const (
	gcPercent   = 200
	memoryLimit = 64 << 20 // bytes; the chart's memory limit is 128 MiB
	// auditMemoryLimit is that of the audit, whose heap grows with the protected Secrets: with 1,000 it is about 50 MiB,
	// and with a lower limit the garbage collector runs all the time (test/bench/audit).
	auditMemoryLimit = 96 << 20
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the program with its process's inputs and outputs as arguments, and returns the exit
// code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	return int(program(getenv).Run(ctx, args, command.Output{Stdout: stdout, Stderr: stderr}))
}

// program returns the program with its commands.
func program(getenv func(string) string) command.Program {
	return command.Program{
		Name: "webhook", Version: version.String(), Default: "serve", Rewrite: rewrite,
		Summary: "webhook refuses changes of Secrets and settings that would weaken HTTPS to kubelets, " +
			"and checks the stored objects.",
		Commands: []command.Command{serveCommand(getenv), auditCommand(getenv), proveCommand(getenv), policyCommand()},
	}
}

// rewrite translates the deprecated flag --prove to the command webhook prove.
func rewrite(args []string) (rewritten []string, notice string) {
	isProve := func(arg string) bool {
		return slices.Contains([]string{"-prove", "--prove", "-prove=true", "--prove=true"}, arg)
	}
	if !slices.ContainsFunc(args, isProve) {
		return nil, ""
	}
	rewritten = []string{"prove"}
	newNames := map[string]string{"prove-patience": "wait", "guard": "guard-manifest"}
	for _, arg := range args {
		if isProve(arg) {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if newName, renamed := newNames[name]; renamed && strings.HasPrefix(arg, "-") {
			arg = strings.Replace(arg, name, newName, 1)
		}
		rewritten = append(rewritten, arg)
	}
	return rewritten, "--prove is deprecated: use 'webhook prove'; --prove-patience is now --wait, and --guard is now " +
		"--guard-manifest"
}

// newLogger returns the logger, and makes controller-runtime, client-go and net/http log to
// it; each of them has a global logger.
func newLogger(stderr io.Writer, options logging.Options) *slog.Logger {
	log := logging.New(stderr, options)
	crlog.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	slog.SetDefault(log)
	return log
}

// ended returns the exit code and error of a command that logs: it logs errors, except usage
// errors, which are returned to be printed.
func ended(err error, log *slog.Logger) (command.Exit, error) {
	if err != nil && !command.IsUsage(err) {
		log.Error("Stopped", "err", err)
		return command.ExitFailed, nil
	}
	return command.ExitOK, err
}

// newRegistry returns a registry with the metrics of the Go runtime and the process.
func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// serve serves admission requests until the context ends, or one of its parts fails.
func serve(ctx context.Context, options serveOptions, log *slog.Logger) error {
	// All files that the command line names are checked before anything is logged or requested,
	// so that an error is one line.
	from := source{path: options.config, namespace: options.namespace}
	loaded, err := loadConfig(from)
	if err != nil {
		return err
	}
	client, err := checkServe(options)
	reachable := err == nil
	if err != nil && !errors.Is(err, kubeclient.ErrNoAPIServer) {
		return err
	}
	registry := newRegistry()
	config := newReloader(from, loaded, registry, log)
	metrics := report.NewMetrics(registry)
	meter := newMeter(registry)
	reporters := report.Reporters{metrics, report.NewLog(log)}
	// The Events of the last requests are delivered after the server has ended.
	delivery, delivered := context.WithCancel(context.WithoutCancel(ctx))
	defer delivered()
	var deliverer errgroup.Group
	var manageCert func(context.Context, chan<- struct{})
	var activator *activation.Keeper
	profile := func() tlsprofile.Profile { return tlsprofile.Profile{MinVersion: options.tlsMinVersion} }
	if !reachable {
		log.Info("No API server configured: reporting in the log only")
	} else {
		events, err := newEvents(client, options.instance, registry, log)
		if err != nil {
			return err
		}
		reporters = append(reporters, events)
		deliverer.Go(func() error { return events.Run(delivery) })
		objects, err := dynamic.NewForConfig(client)
		if err != nil {
			return fmt.Errorf("create a client for the API server: %w", err)
		}
		profile = newProfile(ctx, objects, options.tlsMinVersion, log)
		config.bundles = newBundles(delivery, objects, log)
		if config.release, err = kubeclient.NewGoRelease(client); err != nil {
			return err
		}
		config.release.Read(ctx)
		config.followBundles()
		config.bundles.await(ctx)
		if manageCert, err = newCertManager(client, options, log); err != nil {
			return err
		}
		if activator, err = newActivator(ctx, client, objects, options, meter, log); err != nil {
			return err
		}
	}

	metricsServer, err := options.metrics.Listen(ctx, client, registry, options.tlsMinVersion, log)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(handlerPath, &admission.Webhook{Handler: &admit.Handler{
		Protected: config.Protected, OverridesAction: config.OverridesAction,
		Reporter: reporters, Meter: meter, Log: log, Now: time.Now,
	}})
	group, ctx := errgroup.WithContext(ctx)
	if config.release != nil {
		group.Go(func() error { config.release.Run(ctx); return nil })
	}
	if manageCert != nil {
		ready := make(chan struct{})
		group.Go(func() error { manageCert(ctx, ready); return nil })
		select {
		case <-ready:
		case <-ctx.Done():
			return group.Wait()
		}
	}
	server, err := tlsserver.New(tlsserver.Options{
		Directory: options.certDir, Handler: mux, ShutdownDelay: options.shutdownDelay, Profile: profile,
		ClientCA: options.clientCA, ClientNames: options.clientNames, Now: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", options.address)
	if err != nil {
		return command.ListenError("--bind-address", options.address, err)
	}
	log.Info("Serving admission requests", "address", listener.Addr().String())
	// Health is served until the shutdown of admission has ended: not ready, but alive.
	serving, served := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer served()
		return server.Run(ctx, listener)
	})
	group.Go(func() error { return config.Run(ctx) })
	if activator != nil {
		activator.Ready, activator.Serving = server.Ready, server.Serving
		group.Go(func() error { activator.Run(ctx); return nil })
	}
	if options.healthAddress != noAddress {
		health, err := listen.Listen(ctx, "tcp", options.healthAddress)
		if err != nil {
			served()
			return command.ListenError("--health-bind-address", options.healthAddress, err)
		}
		log.Info("Serving metrics and health", "address", health.Addr().String())
		group.Go(func() error {
			return statusserver.Serve(serving, health, options.metrics.Plain(registry), server.Ready, alive)
		})
	}
	if metricsServer != nil {
		group.Go(func() error { return metricsServer.Run(serving) })
	}
	log.Info("Started", "version", version.String())
	err = group.Wait()
	delivered()
	return errors.Join(err, deliverer.Wait())
}

// checkServe checks the certificate files and the kubeconfig that the command line names. It
// returns the client configuration, or [kubeclient.ErrNoAPIServer] if none is configured and
// none is needed.
func checkServe(options serveOptions) (*rest.Config, error) {
	provided := options.certDir
	if options.certSecret != "" {
		provided = "" // the files are written later
	}
	if err := tlsserver.CheckFiles(provided, options.clientCA); err != nil {
		return nil, err
	}
	client, err := kubeclient.Config(options.kubeconfig, "kubelet-https-guard-webhook/"+version.String())
	if err := options.metrics.CheckAPIServer(err); err != nil {
		return nil, err
	}
	switch {
	case !errors.Is(err, kubeclient.ErrNoAPIServer):
		return client, err
	case options.certSecret != "":
		return nil, command.Usagef("--self-managed-cert needs an API server: set --kubeconfig")
	case options.activationBinding != "":
		return nil, command.Usagef("--activation-binding needs an API server: set --kubeconfig")
	}
	return nil, err
}

// newEvents returns a reporter that writes Events while it runs.
func newEvents(
	client *rest.Config,
	podName string,
	registry prometheus.Registerer,
	log *slog.Logger,
) (*report.Events, error) {
	api, err := kubeclient.NewClient(client)
	if err != nil {
		return nil, err
	}
	events := report.NewEvents(api, log, reporterName, instance(podName))
	registry.MustRegister(events)
	return events, nil
}

// newCertManager returns a function that manages the serving certificate; nil if the files in
// --cert-dir are provided.
func newCertManager(
	client *rest.Config, options serveOptions, log *slog.Logger,
) (func(context.Context, chan<- struct{}), error) {
	if options.certSecret == "" {
		return nil, nil
	}
	core, err := coreclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for the serving certificate: %w", err)
	}
	registration, err := admissionv1.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for the serving certificate: %w", err)
	}
	keeper := servingcert.Keeper{
		Secrets: core.Secrets(options.namespace), Webhooks: registration.ValidatingWebhookConfigurations(),
		Secret: options.certSecret, Configuration: options.registration,
		Names: options.servingNames, Directory: options.certDir,
		Issue: servingcert.Issue, Now: time.Now, Log: log,
	}
	return keeper.Run, nil
}

// newActivator returns what makes API servers call the webhook; nil if they call it from the
// start. The caller must set its Ready and Serving.
func newActivator(
	ctx context.Context, client *rest.Config, objects dynamic.Interface,
	options serveOptions, meter meter, log *slog.Logger,
) (*activation.Keeper, error) {
	if options.activationBinding == "" {
		return nil, nil
	}
	bindings, err := rbacclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for --activation-binding: %w", err)
	}
	deployments, err := appsclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for --activation-binding: %w", err)
	}
	registration, err := admissionv1.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for --activation-binding: %w", err)
	}
	reviews, err := authorizationclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("create a client for --activation-binding: %w", err)
	}
	changed := make(chan struct{}, 1)
	binding := follow.Named(rbacv1.SchemeGroupVersion, "ClusterRoleBinding", "", options.activationBinding)
	follow.Start(ctx, objects, binding, changed, log)
	return &activation.Keeper{
		Reviews: reviews.SelfSubjectAccessReviews(), Changed: changed, OnCheck: meter.setActive,
		Bindings: bindings.ClusterRoleBindings(), Deployments: deployments.Deployments(options.namespace),
		Webhooks: registration.ValidatingWebhookConfigurations(),
		Binding:  options.activationBinding, Deployment: options.deployment, Configuration: options.registration,
		Namespace: options.namespace, Account: options.account, Now: time.Now, Log: log,
	}, nil
}

// alive always succeeds: a part that fails ends the process, so a process that answers is alive.
func alive(context.Context) error { return nil }

// instance returns the name of this process in Events.
func instance(podName string) string {
	if podName != "" {
		return podName
	}
	if host, err := os.Hostname(); err == nil {
		return host
	}
	return "webhook"
}

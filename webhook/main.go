// SPDX-License-Identifier: Apache-2.0

// Command webhook is a validating admission webhook that refuses changes which
// would weaken the protected objects, and an audit of what is stored.
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
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	admissionv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/gate"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/prove"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/servingcert"
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

// The webhook's heap is a few MiB and a request takes some tens of KiB: with a
// larger reserve the garbage collector runs half as often, and the limit keeps
// it from being used up by many large requests at once (test/bench/webhook).
// GOGC and GOMEMLIMIT win.
const (
	gcPercent   = 200
	memoryLimit = 64 << 20 // bytes, of the 128 MiB that the chart gives
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

// run is the whole command but for the process around it.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "audit" {
		return runAudit(ctx, args[1:], getenv, stdout, stderr)
	}
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
	// controller-runtime, client-go and net/http log through globals of their
	// own.
	crlog.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	slog.SetDefault(log)

	if options.prove {
		err = proveRefusals(ctx, options, stdout)
	} else {
		err = serve(ctx, options, log)
	}
	if err != nil {
		log.Error("Stopped", "err", err)
		return exitFailed
	}
	return exitOK
}

// serve answers until the context ends or a part fails, which ends all of it.
func serve(ctx context.Context, options options, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	config, err := newReloader(options.config, options.guard, registry, log)
	if err != nil {
		return err
	}
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := report.NewMetrics(registry)
	meter := newMeter(registry, metrics)
	tellers := report.Tellers{metrics, report.NewLog(log)}
	// What the last requests told is delivered after the server has ended.
	delivery, delivered := context.WithCancel(context.WithoutCancel(ctx))
	defer delivered()
	var deliverer errgroup.Group
	var auditing func(context.Context)
	var keeping func(context.Context, chan<- struct{})
	var gatekeeper *gate.Keeper
	profile := func() tlsserver.Profile { return tlsserver.Profile{MinVersion: options.tlsMinVersion} }
	client, err := report.Config(options.kubeconfig, "kubelet-https-guard-webhook/"+version.String())
	switch {
	case errors.Is(err, report.ErrNoAPIServer):
		if options.ownSecret != "" {
			return fmt.Errorf("keep the serving certificate: %w", err)
		}
		if options.gate != "" {
			return fmt.Errorf("have API servers ask the webhook: %w", err)
		}
		log.Info("No API server known, telling in the log only")
	case err != nil:
		return err
	default:
		api, err := report.NewClient(client)
		if err != nil {
			return err
		}
		events := report.NewEvents(api, log, reporterName, instance(options.instance))
		tellers = append(tellers, events)
		registry.MustRegister(events)
		deliverer.Go(func() error { return events.Run(delivery) })
		objects, err := dynamic.NewForConfig(client)
		if err != nil {
			return fmt.Errorf("make a client of the API server: %w", err)
		}
		profile = newProfile(ctx, objects, options.tlsMinVersion, log)
		config.bundles = newBundles(delivery, objects, log)
		config.Protected() // so that the bundles are known when the first request comes
		if keeping, err = newKeeper(client, options, log); err != nil {
			return err
		}
		if gatekeeper, err = newGatekeeper(ctx, client, objects, options, meter, log); err != nil {
			return err
		}
		if auditing, err = newAudit(client, objects, options, config, tellers, meter, log); err != nil {
			return err
		}
	}

	mux := http.NewServeMux()
	mux.Handle(handlerPath, &admission.Webhook{Handler: &admit.Handler{
		Protected: config.Protected, Judge: admit.NewMemory().Judge, OverridesAction: config.OverridesAction,
		Teller: tellers, Meter: meter, Log: log, Now: time.Now,
	}})
	group, ctx := errgroup.WithContext(ctx)
	if keeping != nil {
		ready := make(chan struct{})
		group.Go(func() error { keeping(ctx, ready); return nil })
		select {
		case <-ready:
		case <-ctx.Done():
			return group.Wait()
		}
	}
	server, err := tlsserver.New(tlsserver.Options{
		Directory: options.certDir, Handler: mux, Linger: options.shutdownDelay, Profile: profile,
		ClientCA: options.clientCA, ClientNames: options.clientNames, Now: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
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
	if gatekeeper != nil {
		gatekeeper.Ready, gatekeeper.Serving = server.Ready, server.Serving
		group.Go(func() error { gatekeeper.Run(ctx); return nil })
	}
	if auditing != nil {
		group.Go(func() error { auditing(ctx); return nil })
	}
	if options.healthAddress != "0" {
		health, err := listen.Listen(ctx, "tcp", options.healthAddress)
		if err != nil {
			served()
			return fmt.Errorf("serve health: %w", err)
		}
		log.Info("Serving health", "address", health.Addr().String())
		group.Go(func() error { return report.Serve(serving, health, registry, server.Ready, alive) })
	}
	log.Info("Started", "version", version.String())
	err = group.Wait()
	delivered()
	return errors.Join(err, deliverer.Wait())
}

// newKeeper keeps the serving certificate; nil where others do.
func newKeeper(client *rest.Config, options options, log *slog.Logger) (func(context.Context, chan<- struct{}), error) {
	if options.ownSecret == "" {
		return nil, nil
	}
	core, err := coreclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the serving certificate: %w", err)
	}
	registration, err := admissionv1.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the serving certificate: %w", err)
	}
	keeper := servingcert.Keeper{
		Secrets: core.Secrets(options.namespace), Webhooks: registration.ValidatingWebhookConfigurations(),
		Secret: options.ownSecret, Configuration: options.registration, Names: options.servingNames, Directory: options.certDir,
		Issue: servingcert.Issue, Now: time.Now, Log: log,
	}
	return keeper.Run, nil
}

// newGatekeeper has API servers ask the webhook; nil where they do anyway. It
// lacks the server.
func newGatekeeper(ctx context.Context, client *rest.Config, objects dynamic.Interface, options options, meter meter, log *slog.Logger) (*gate.Keeper, error) {
	if options.gate == "" {
		return nil, nil
	}
	bindings, err := rbacclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the gate: %w", err)
	}
	deployments, err := appsclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the gate: %w", err)
	}
	registration, err := admissionv1.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the gate: %w", err)
	}
	reviews, err := authorizationclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the gate: %w", err)
	}
	changed := make(chan struct{}, 1)
	follow.Start(ctx, objects, follow.Named(rbacv1.SchemeGroupVersion, "ClusterRoleBinding", "", options.gate), changed)
	return &gate.Keeper{
		Reviews: reviews.SelfSubjectAccessReviews(), Changed: changed, Asked: meter.isAsked,
		Bindings: bindings.ClusterRoleBindings(), Deployments: deployments.Deployments(options.namespace), Webhooks: registration.ValidatingWebhookConfigurations(),
		Binding: options.gate, Deployment: options.deployment, Configuration: options.registration,
		Namespace: options.namespace, Account: options.account, Now: time.Now, Log: log,
	}, nil
}

// proveRefusals tries what the guard must refuse.
func proveRefusals(ctx context.Context, options options, stdout io.Writer) error {
	file, _, err := readConfig(options.config)
	if err != nil {
		return err
	}
	client, err := report.Config(options.kubeconfig, "kubelet-https-guard-prove/"+version.String())
	if err != nil {
		return err
	}
	core, err := coreclient.NewForConfig(client)
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	var secrets []prove.Secret
	for _, s := range file.ProtectedSecrets {
		if s.Action == admit.Deny || s.Action == "" {
			secrets = append(secrets, prove.Secret{Namespace: s.Namespace, Name: s.Name, Type: s.Type})
		}
	}
	if len(secrets) == 0 {
		return errors.New("no protected Secret has the action Deny, so nothing would be refused")
	}
	prover := prove.Prover{Secrets: core, Patience: options.provePatience, Out: stdout}
	return prover.Prove(ctx, secrets)
}

// newAudit is the audit, to be run; nil where there is to be none.
func newAudit(client *rest.Config, objects dynamic.Interface, options options, config *reloader, teller report.Teller, meter meter, log *slog.Logger) (func(context.Context), error) {
	switch {
	case !options.audit:
		return nil, nil
	case options.namespace == "":
		log.Info("No namespace known for a Lease, what is stored is not audited: set --namespace or POD_NAMESPACE")
		return nil, nil
	}
	leases, err := coordinationv1.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the audit: %w", err)
	}
	auditor := audit.Auditor{
		Client: objects, Teller: teller, Meter: meter,
		Subject: func() audit.Subject { return config.Subject(options.guardPatience) },
		Self:    report.Object{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: options.namespace, Name: options.lease},
		Now:     time.Now,
	}
	leader := audit.Leader{
		Leases: leases, Namespace: options.namespace, Name: options.lease, Identity: instance(options.instance),
		Audit: auditor.Run, Leading: meter.leading, Failed: meter.failed.Inc, Log: log,
	}
	if options.gate == "" {
		return leader.Run, nil // no Deployment is known
	}
	deployments, err := appsclient.NewForConfig(client)
	if err != nil {
		return nil, fmt.Errorf("make a client for the audit: %w", err)
	}
	// So that it goes with the release, although no manifest has it.
	leader.Owner = func(ctx context.Context) (metav1.OwnerReference, error) {
		deployment, err := deployments.Deployments(options.namespace).Get(ctx, options.deployment, metav1.GetOptions{})
		if err != nil {
			return metav1.OwnerReference{}, fmt.Errorf("read Deployment %s: %w", options.deployment, err)
		}
		return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: deployment.Name, UID: deployment.UID}, nil
	}
	return leader.Run, nil
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

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
)

// noAddress as an address disables what would be served there.
const noAddress = "0"

// maxShutdownDelay bounds --shutdown-delay.
const maxShutdownDelay = time.Minute

// configUsage is the help of --config, a flag of several commands.
const configUsage = "configuration `file` with the protected Secrets (default: the Secrets of OpenShift)"

// healthUsage is the help of --health-bind-address, a flag of several commands.
const healthUsage = "`address` for /healthz, /readyz and, without --metrics-cert-dir, /metrics over plain HTTP; 0 " +
	"disables them"

// serveOptions are the options of webhook serve.
type serveOptions struct {
	config, certDir, kubeconfig string
	namespace                   string
	certSecret, registration    string
	servingNames                []string
	activationBinding           string
	deployment                  string
	account                     string
	address                     string
	shutdownDelay               time.Duration
	tlsMinVersion               uint16
	clientCA                    string
	clientNames                 []string
	healthAddress               string
	metrics                     statusserver.SecureOptions
	instance                    string
	log                         logging.Options
}

// serveCommand is webhook serve.
func serveCommand(getenv func(string) string) command.Command {
	return command.Command{
		Name: "serve", Summary: "answer the admission requests of API servers",
		Description: "Answer the admission requests of API servers: refuse changes that would weaken the protected " +
			"Secrets or the settings of the kube-apiserver. This is what the Deployment runs.\nEnvironment: POD_NAME, " +
			"POD_NAMESPACE and POD_SERVICE_ACCOUNT, as the chart sets them.",
		Groups: []command.Group{
			{Title: "What to protect", Flags: []string{"config", "namespace"}},
			{Title: "Serving", Flags: []string{
				"bind-address", "tls-min-version", "client-ca", "client-names", "shutdown-delay",
			}},
			{Title: "Serving certificate", Flags: []string{
				"cert-dir", "self-managed-cert", "serving-names", "webhook-configuration",
			}},
			{Title: "Activation", Flags: []string{"activation-binding", "deployment"}},
			{Title: "Reporting", Flags: slices.Concat([]string{"kubeconfig", "health-bind-address"},
				statusserver.SecureFlags(), []string{"log-format", "log-level"})},
		},
		Exits: command.Endings(),
		New: func(flags *flag.FlagSet) command.Run {
			complete := defineServeFlags(flags, getenv)
			return func(ctx context.Context, output command.Output) (command.Exit, error) {
				options, err := complete()
				if err != nil {
					return command.ExitUsage, err
				}
				log := newLogger(output.Stderr, options.log)
				return ended(serve(ctx, options, log), log)
			}
		},
	}
}

// defineServeFlags defines the flags. The function that it returns must be called after they
// are parsed; it returns the options, or a usage error.
func defineServeFlags(flags *flag.FlagSet, getenv func(string) string) func() (serveOptions, error) {
	o := serveOptions{instance: getenv("POD_NAME"), account: getenv("POD_SERVICE_ACCOUNT")}
	flags.StringVar(&o.config, "config", "", configUsage)
	flags.StringVar(
		&o.namespace,
		"namespace",
		getenv("POD_NAMESPACE"),
		"`namespace` of this webhook, for --self-managed-cert and --activation-binding. Without --config, the service CA is "+
			"read from its ConfigMap openshift-service-ca.crt (default: $POD_NAMESPACE; without it, the service CA is read "+
			"from the namespace of each Secret)",
	)
	flags.StringVar(&o.address, "bind-address", ":9443", "`address` to serve admission requests on")
	minVersion := flags.String(
		"tls-min-version",
		"VersionTLS12",
		"lowest TLS `version`: VersionTLS12 or VersionTLS13. OpenShift's TLS security profile (APIServer cluster) can "+
			"raise it, and sets the cipher suites and the groups of the key exchange",
	)
	flags.StringVar(
		&o.clientCA,
		"client-ca",
		"",
		"`file` with the CAs of the client certificates that API servers must present (default: no client certificate is "+
			"required; API servers present one only if configured to)",
	)
	clientNames := flags.String("client-names", "",
		"comma-separated common `names` of the accepted client certificates (default: any)")
	flags.DurationVar(&o.shutdownDelay, "shutdown-delay", 10*time.Second,
		"keep answering for this `time` after SIGTERM, until API servers use other replicas: 0s to 1m")
	flags.StringVar(&o.certDir, "cert-dir", "",
		"`directory` with the serving certificate tls.crt and its key tls.key; required")
	flags.StringVar(&o.certSecret, "self-managed-cert", "",
		"issue and renew the serving certificate: keep it in the Secret of this `name` in --namespace, "+
			"write it to --cert-dir, and register its CA (default: the files in --cert-dir are provided)")
	names := flags.String("serving-names", "",
		"comma-separated DNS `names` and IP addresses of the certificate that --self-managed-cert issues")
	flags.StringVar(&o.registration, "webhook-configuration", "kubelet-https-guard",
		"`name` of the ValidatingWebhookConfiguration of this webhook, for --self-managed-cert and --activation-binding")
	flags.StringVar(&o.activationBinding, "activation-binding", "",
		"`name` of the ClusterRoleBinding that activates the webhook: when a replica is available, $POD_SERVICE_ACCOUNT is "+
			"added to it, and from then on API servers call the webhook (default: they call it from the start)")
	flags.StringVar(&o.deployment, "deployment", "kubelet-https-guard-webhook",
		"`name` of the Deployment in --namespace whose replicas --activation-binding waits for")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "",
		"kubeconfig `file` for the API server (default: the Pod's ServiceAccount; outside a Pod: report in the log only)")
	flags.StringVar(&o.healthAddress, "health-bind-address", ":8081", healthUsage)
	o.metrics.Flags(flags, "health-bind-address")
	o.log.Flags(flags)
	return func() (serveOptions, error) { return o.completed(*minVersion, *names, *clientNames) }
}

// completed returns the options with the parsed values of the other flags, or a usage error.
// It reads no files, but checks that --cert-dir is a directory.
func (o serveOptions) completed(minVersion, names, clientNames string) (serveOptions, error) {
	if names != "" {
		o.servingNames = strings.Split(names, ",")
	}
	if clientNames != "" {
		o.clientNames = strings.Split(clientNames, ",")
	}
	var err error
	if o.tlsMinVersion, err = tlsprofile.ParseVersion(minVersion); err != nil {
		return o, command.Usagef("--tls-min-version %q: must be VersionTLS12 or VersionTLS13", minVersion)
	}
	switch {
	case o.certDir == "":
		return o, command.Usagef("--cert-dir is required: the directory with tls.crt and tls.key of this server")
	case len(o.clientNames) > 0 && o.clientCA == "":
		return o, command.Usagef("--client-names requires --client-ca")
	case o.certSecret != "" && (len(o.servingNames) == 0 || slices.Contains(o.servingNames, "") || o.namespace == ""):
		return o, command.Usagef("--self-managed-cert requires --serving-names, without empty names, and --namespace")
	case o.activationBinding != "" && (o.account == "" || o.namespace == ""):
		return o, command.Usagef("--activation-binding requires --namespace and the environment variable POD_SERVICE_ACCOUNT")
	}
	if err := command.CheckDuration("--shutdown-delay", o.shutdownDelay, 0, maxShutdownDelay); err != nil {
		return o, err
	}
	if err := command.CheckBindAddress("--bind-address", o.address); err != nil {
		return o, err
	}
	if err := checkHealthAddress(o.healthAddress); err != nil {
		return o, err
	}
	if err := o.metrics.Validate(); err != nil {
		return o, err
	}
	return o, command.CheckDirectory("--cert-dir", o.certDir, os.Stat)
}

func checkHealthAddress(address string) error {
	if address == noAddress {
		return nil
	}
	return command.CheckBindAddress("--health-bind-address", address)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/sweep"
)

// The keys in the chart's ConfigMap.
const configKey, guardKey = "config.yaml", "guard.yaml"

// auditTime is the default of --timeout. Objects are read at the same time: twice if there
// are findings, four times if those change, each time within 10 s, with 3 s in between
// (package audit, Once).
const auditTime, minAuditTime, maxAuditTime = time.Minute, 5 * time.Second, 10 * time.Minute

// auditOptions are the options of webhook audit.
type auditOptions struct {
	kubeconfig, config, guardManifest, namespace string
	output                                       evidence.Format
	once, kubelets, served                       bool
	// kubeletCA is NAMESPACE/NAME/KEY of a ConfigMap, or empty.
	kubeletCA string
	// apiService is the address of Service default/kubernetes, as every container gets it; empty outside of a cluster.
	apiService string
	// Only with --once:
	installed, cluster string
	whoCanDisable      bool
	time               time.Duration
	// Only without --once:
	guardPatience               time.Duration
	servedPatience              time.Duration
	lease, deployment, instance string
	healthAddress               string
	metrics                     statusserver.SecureOptions
	log                         logging.Options
}

// onceFlags are the flags that require --once, continuousFlags those that exclude it.
func onceFlags() []string {
	return []string{"installed", "o", "who-can-disable", "cluster-name", "timeout"}
}
func continuousFlags() []string {
	return slices.Concat([]string{"guard-patience", "served-patience", "lease", "deployment", "health-bind-address"},
		statusserver.SecureFlags(), []string{"log-format", "log-level"})
}

// auditCommand is webhook audit: it checks the stored objects, continuously, or once, on an
// administrator's machine or in a CronJob. It does not change the objects that it checks.
func auditCommand(getenv func(string) string) command.Command {
	return command.Command{
		Name:    "audit",
		Summary: "check the stored objects, and report in the log, Events and metrics; with --once print a report",
		Description: "Check the stored objects whenever one changes, and report in the log, Events and metrics. " +
			"Of several replicas, only the holder of the Lease checks. This is what the audit's Deployment runs.\n" +
			"With --once: check once, print a report, and exit with the code of the verdict.",
		Groups: []command.Group{
			{Title: "What to check", Flags: []string{
				"kubeconfig", "config", "guard-manifest", "namespace", "kubelets", "kubelet-ca-bundle", "served-certificates",
			}},
			{Title: "Without --once", Flags: continuousFlags()},
			{Title: "With --once", Flags: append([]string{"once"}, onceFlags()...)},
		},
		Exits: command.Verdicts(),
		New: func(flags *flag.FlagSet) command.Run {
			o := auditOptions{
				output: evidence.Table, instance: getenv("POD_NAME"), apiService: getenv("KUBERNETES_SERVICE_HOST"),
			}
			o.defineFlags(flags, getenv)
			return func(ctx context.Context, output command.Output) (command.Exit, error) {
				if err := o.validate(flags); err != nil {
					return command.ExitUsage, err
				}
				if o.once {
					return runAuditOnce(ctx, o, getenv, output.Stdout)
				}
				log := newLogger(output.Stderr, o.log)
				return ended(serveAudit(ctx, o, log), log)
			}
		},
	}
}

func (o *auditOptions) defineFlags(flags *flag.FlagSet, getenv func(string) string) {
	flags.BoolVar(&o.once, "once", false, "check once, print a report, and exit with the code of the verdict")
	flags.StringVar(
		&o.kubeconfig,
		"kubeconfig",
		"",
		"kubeconfig `file` for the API server (default: the Pod's ServiceAccount; with --once $KUBECONFIG or "+
			"~/.kube/config come first)",
	)
	flags.BoolVar(&o.kubelets, "kubelets", false,
		"connect to the kubelet of each Node with TLS, every 5 minutes, and check its certificate. "+
			"It needs permission to list Nodes, and a network path to their port 10250")
	flags.StringVar(&o.kubeletCA, "kubelet-ca-bundle", "",
		"verify kubelets with the CAs in this ConfigMap `namespace/name/key`, if the kube-apiserver's configuration in the "+
			"cluster does not name one. It needs permission to get it "+
			"(default: on OpenShift the ConfigMap that the configuration names, elsewhere they are not verified)")
	flags.BoolVar(&o.served, "served-certificates", false,
		"connect to the endpoints of the protected Secrets' Services with TLS, every 5 minutes and after a renewal, and "+
			"compare the certificate that they serve with the stored one. It needs permission to list EndpointSlices in their "+
			"namespaces, and a network path to their port, 8443 for openshift-apiserver")
	flags.StringVar(&o.installed, "installed", "",
		"read the configuration and the guard's manifests from the chart's ConfigMap `namespace/name`, "+
			"not from --config and --guard-manifest")
	flags.StringVar(&o.config, "config", "", configUsage)
	flags.StringVar(&o.guardManifest, "guard-manifest", "",
		"`file` with the objects of the guard as they were installed (webhook configuration, policies, activation), "+
			"to compare the stored ones with (default: they are not compared)")
	flags.StringVar(
		&o.namespace,
		"namespace",
		getenv("POD_NAMESPACE"),
		"`namespace` of the Lease. Without --config, the service CA is read from its ConfigMap openshift-service-ca.crt "+
			"(default: $POD_NAMESPACE; without it, the service CA is read from the namespace of each Secret)",
	)
	flags.DurationVar(&o.guardPatience, "guard-patience", 3*time.Minute,
		"report drift of the guard only after it has lasted for this `time`: "+
			"a Pod may see a changed ConfigMap up to two minutes later")
	flags.DurationVar(&o.servedPatience, "served-patience", audit.ServedPatience,
		"report that an endpoint serves another certificate than the stored one only after it has lasted for this `time`: "+
			"after a renewal, a Pod needs two to three minutes to load the new one")
	flags.StringVar(&o.lease, "lease", "kubelet-https-guard-audit",
		"`name` of the Lease that replicas share: only its holder checks")
	flags.StringVar(
		&o.deployment,
		"deployment",
		"",
		"`name` of the Deployment in --namespace that owns the Lease, so that both are deleted together (default: the "+
			"Lease has no owner)",
	)
	flags.StringVar(&o.healthAddress, "health-bind-address", ":8081", healthUsage)
	o.metrics.Flags(flags, "health-bind-address")
	o.log.Flags(flags)
	flags.BoolVar(&o.whoCanDisable, "who-can-disable", false,
		"also list who could disable the guard, as RBAC grants it, in the formats table, json and junit. It does not change "+
			"the verdict. It needs permission to list all RBAC objects")
	flags.StringVar(&o.cluster, "cluster-name", "",
		"`name` of the cluster in the report (default: the address of its API server)")
	flags.DurationVar(&o.time, "timeout", auditTime, "fail after this `time`: 5s to 10m")
	flags.TextVar(&o.output, "o", evidence.Table, "`format` of the report: table, json, junit, sarif or openreports")
}

// validate returns a usage error if the options are not valid. flags are the parsed flags.
func (o *auditOptions) validate(flags *flag.FlagSet) error {
	misplaced, why := onceFlags(), "requires --once"
	if o.once {
		misplaced, why = continuousFlags(), "cannot be used with --once"
	}
	var wrong error
	flags.Visit(func(f *flag.Flag) {
		if wrong == nil && slices.Contains(misplaced, f.Name) {
			name := "--" + f.Name
			if len(f.Name) == 1 {
				name = "-" + f.Name
			}
			wrong = command.Usagef("%s %s", name, why)
		}
	})
	switch {
	case wrong != nil:
		return wrong
	case o.installed != "" && (o.config != "" || o.guardManifest != ""):
		return command.Usagef("--installed cannot be used with --config or --guard-manifest: it replaces them")
	case o.installed != "" && !isNamespacedName(o.installed):
		return command.Usagef("--installed %q: must be NAMESPACE/NAME of a ConfigMap", o.installed)
	case !o.once && o.namespace == "":
		return command.Usagef("--namespace is required without --once: the namespace of the Lease (or set POD_NAMESPACE)")
	case o.kubeletCA != "" && !o.kubelets:
		return command.Usagef("--kubelet-ca-bundle requires --kubelets")
	case o.kubeletCA != "" && kubeletCAOf(o.kubeletCA) == (sweep.ConfigMapKey{}):
		return command.Usagef("--kubelet-ca-bundle %q: must be NAMESPACE/NAME/KEY of a ConfigMap", o.kubeletCA)
	case o.guardPatience < 0:
		return command.Usagef("--guard-patience %s: must not be negative", command.Duration(o.guardPatience))
	}
	if o.servedPatience < 0 {
		return command.Usagef("--served-patience %s: must not be negative", command.Duration(o.servedPatience))
	}
	if err := command.CheckDuration("--timeout", o.time, minAuditTime, maxAuditTime); err != nil {
		return err
	}
	if err := checkHealthAddress(o.healthAddress); err != nil {
		return err
	}
	return o.metrics.Validate()
}

// isNamespacedName reports whether a text has the form NAMESPACE/NAME.
func isNamespacedName(text string) bool {
	namespace, name, found := strings.Cut(text, "/")
	return found && namespace != "" && name != "" && !strings.Contains(name, "/")
}

// source returns where the configuration comes from if --installed is not set.
func (o auditOptions) source() source {
	return source{path: o.config, guardManifest: o.guardManifest, namespace: o.namespace}
}

// errNoAPIServer is the usage error if no API server is configured.
var errNoAPIServer = command.Usagef("no API server is configured: set --kubeconfig or KUBECONFIG")

// runAuditOnce checks once and prints the document.
func runAuditOnce(
	ctx context.Context,
	options auditOptions,
	getenv func(string) string,
	stdout io.Writer,
) (command.Exit, error) {
	var loaded config
	var err error
	if options.installed == "" {
		// Check the named files before a missing API server is reported.
		if loaded, err = loadConfig(options.source()); err != nil {
			return command.ExitUsage, err
		}
	}
	client, err := options.client(getenv)
	if err != nil {
		return command.ExitUsage, err
	}
	ctx, cancel := context.WithTimeout(ctx, options.time)
	defer cancel()
	document, err := auditOnce(ctx, client, loaded, options)
	if errors.Is(err, context.DeadlineExceeded) {
		return command.ExitFailed, fmt.Errorf("not finished within --timeout %s: %w", command.Duration(options.time), err)
	}
	if err != nil {
		return command.ExitFailed, err
	}
	if err := evidence.Write(stdout, options.output, document,
		evidence.Options{Colour: logging.Colours(stdout, getenv)}); err != nil {
		return command.ExitFailed, fmt.Errorf("write the report: %w", err)
	}
	return document.Exit(), nil
}

// auditUserAgent is the audit's user agent in requests to API servers.
func auditUserAgent() string { return "kubelet-https-guard-audit/" + version.String() }

// client returns the client configuration, found in the same way as kubectl does.
func (o auditOptions) client(getenv func(string) string) (*rest.Config, error) {
	client, err := kubeclient.UserConfig(o.kubeconfig, auditUserAgent(), getenv)
	switch {
	case errors.Is(err, kubeclient.ErrNoAPIServer):
		return nil, errNoAPIServer
	case err != nil:
		return nil, err
	}
	// No client-side rate limit: the objects are read at the same time, and requests that
	// wait for client-go's limit would time out. API servers have their own limits.
	client.QPS = -1
	return client, nil
}

// auditOnce checks once and returns the document. loaded is the configuration, unless
// --installed is set.
func auditOnce(
	ctx context.Context,
	client *rest.Config,
	loaded config,
	options auditOptions,
) (evidence.Document, error) {
	if options.installed != "" {
		var err error
		if loaded, err = loadInstalled(ctx, client, options.installed); err != nil {
			return evidence.Document{}, err
		}
	}
	objects, err := dynamic.NewForConfig(client)
	if err != nil {
		return evidence.Document{}, fmt.Errorf("create a client for the API server: %w", err)
	}
	var kubelets []finding.Result
	if options.kubelets {
		// A ClusterReport is an object of the API, which has no room for thousands of Nodes.
		few := options.output == evidence.OpenReports
		if kubelets, err = sweepOnce(ctx, client, options, few); err != nil {
			return evidence.Document{}, err
		}
	}
	var ask audit.AskServed
	if options.served {
		if ask, err = askServedOnce(client); err != nil {
			return evidence.Document{}, err
		}
	}
	release, err := kubeclient.NewGoRelease(client)
	if err != nil {
		return evidence.Document{}, err
	}
	release.Read(ctx)
	subject := loaded.subject(0)
	subject.Secrets = withGoVersion(slices.Clone(subject.Secrets), release.Version())
	result, err := audit.Once(ctx, objects, subject, kubelets, ask, time.Now)
	if err != nil {
		return evidence.Document{}, fmt.Errorf("check the stored objects: %w", err)
	}
	document := evidence.Document{
		At: result.At, Generator: "kubelet-https-guard/webhook", Version: version.String(),
		Kind: "Cluster", Name: options.cluster, FoundBy: options.foundBy(),
		Verdicts: result.Verdicts, Results: result.Results, Checked: check.CheckedReasons(result.Results),
	}
	if document.Name == "" {
		document.Name = address(client)
	}
	if options.whoCanDisable {
		if document.WhoCanDisable, err = whoCanDisable(ctx, client, loaded); err != nil {
			return evidence.Document{}, fmt.Errorf("find who could disable the guard: %w", err)
		}
	}
	for _, e := range result.Examined {
		document.Examined = append(document.Examined, evidence.Examined{Role: e.Role, Subject: e.Subject})
	}
	for _, c := range result.Certificates {
		document.Certificates = append(document.Certificates, evidence.Certificate{Role: c.Role, Subject: c.At, X509: c.Leaf})
	}
	return document, nil
}

// address returns the API server's URL, without the user name and password that a kubeconfig
// may contain.
func address(client *rest.Config) string {
	server, _, err := rest.DefaultServerUrlFor(client)
	if err != nil {
		return "unknown"
	}
	server.User = nil
	return server.String()
}

// foundBy says in words where the list of the checked objects comes from.
func (o auditOptions) foundBy() string {
	switch {
	case o.installed != "":
		return "ConfigMap " + o.installed
	case o.config != "":
		return "configuration " + o.config
	}
	return "the default configuration"
}

// loadInstalled reads the configuration from the ConfigMap NAMESPACE/NAME in the cluster.
func loadInstalled(ctx context.Context, client *rest.Config, installed string) (config, error) {
	core, err := coreclient.NewForConfig(client)
	if err != nil {
		return config{}, fmt.Errorf("create a client for the API server: %w", err)
	}
	namespace, name, _ := strings.Cut(installed, "/")
	configMap, err := core.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return config{}, fmt.Errorf("--installed %s: read the ConfigMap: %w", installed, err)
	}
	loaded, err := installedConfig(configMap)
	if err != nil {
		return config{}, fmt.Errorf("--installed %s: %w", installed, err)
	}
	return loaded, nil
}

// installedConfig parses the chart's ConfigMap.
func installedConfig(configMap *corev1.ConfigMap) (config, error) {
	file, err := parseConfig([]byte(configMap.Data[configKey]))
	if err != nil {
		return config{}, fmt.Errorf("key %s: %w", configKey, err)
	}
	loaded, err := file.validated()
	if err != nil {
		return config{}, fmt.Errorf("key %s: %w", configKey, err)
	}
	guard, has := configMap.Data[guardKey]
	if !has {
		return config{}, fmt.Errorf("key %s is missing: upgrade the chart, or leave --installed out", guardKey)
	}
	if loaded.guard, err = parseGuard([]byte(guard)); err != nil {
		return config{}, fmt.Errorf("key %s: %w", guardKey, err)
	}
	return loaded, nil
}

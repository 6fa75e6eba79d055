// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/usage"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
)

// The chart's files: where its Deployment mounts the service CA, the ConfigMap
// from which it does, and the keys of its own ConfigMap.
const (
	serviceCAFile                    = "/etc/service-ca/service-ca.crt"
	serviceCAConfigMap, serviceCAKey = "openshift-service-ca.crt", "service-ca.crt"
	configKey, guardKey              = "config.yaml", "guard.yaml"
)

// auditTime bounds it all: objects are asked for at the same time, twice if
// something is found and four times if that changes, at most 10 s each time with
// 3 s in between (package audit, Once).
const auditTime, minAuditTime, maxAuditTime = time.Minute, 5 * time.Second, 10 * time.Minute

// auditOptions are what the command line of webhook audit says.
type auditOptions struct {
	kubeconfig, config, guard, installed, cluster string
	time                                          time.Duration
	output                                        evidence.Format
}

// parseAuditOptions reads the flags. Its error is one line for people.
func parseAuditOptions(args []string, stderr io.Writer) (auditOptions, error) {
	o := auditOptions{output: evidence.Table}
	var once bool
	flags := flag.NewFlagSet("webhook audit", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.BoolVar(&once, "once", false, "look once, print the verdict, exit 0 (compliant), 1 (a violation) or 2 (could not verify); must be set: without audit, the webhook does it all the time")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` to reach the API server by (default: those of $KUBECONFIG, ~/.kube/config, or what the Pod is given)")
	flags.StringVar(&o.installed, "installed", "", "`namespace/name` of the chart's ConfigMap in the cluster, to take what --config and --guard say from")
	flags.StringVar(&o.config, "config", "", "`file` with the protected Secrets (default: those of OpenShift)")
	flags.StringVar(&o.guard, "guard", "", "`file` with what registers the guard as it was installed, to compare (default: it is not looked at)")
	flags.StringVar(&o.cluster, "cluster-name", "", "`name` of the cluster in the report (default: its API server's address)")
	flags.DurationVar(&o.time, "timeout", auditTime, "give up after this `time`")
	flags.TextVar(&o.output, "o", evidence.Table, "`format` of the report: table, json, junit, sarif or openreports")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage.Print(stderr, "webhook audit --once looks at what is stored, prints what it found, and ends.", flags,
			usage.Group{Title: "What it looks at", Flags: []string{"kubeconfig", "installed", "config", "guard"}},
			usage.Group{Title: "What it prints", Flags: []string{"once", "o", "cluster-name", "timeout"}})
		return o, err
	case err != nil:
		return o, err
	case flags.NArg() > 0:
		return o, fmt.Errorf("argument %q: only flags are taken", flags.Arg(0))
	case !once:
		return o, errors.New("webhook audit needs --once")
	case o.installed != "" && (o.config != "" || o.guard != ""):
		return o, errors.New("--installed takes the place of --config and --guard: leave them out")
	case o.installed != "" && strings.Count(o.installed, "/") != 1:
		return o, fmt.Errorf("--installed %q is no namespace/name", o.installed)
	case o.time < minAuditTime || o.time > maxAuditTime:
		return o, fmt.Errorf("--timeout %s is not between %s and %s", o.time, minAuditTime, maxAuditTime)
	}
	return o, nil
}

// runAudit is webhook audit: one look at what is stored, for an administrator's
// own machine or a CronJob. It changes nothing in the cluster.
func runAudit(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	usage := func(err error) int {
		_, _ = fmt.Fprintf(stderr, "webhook audit: %v\nRun webhook audit --help for the flags.\n", err)
		return exitUsage
	}
	options, err := parseAuditOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return usage(err)
	}
	client, err := options.client(getenv)
	switch {
	case errors.Is(err, report.ErrNoAPIServer):
		return usage(errors.New("no API server is known: set --kubeconfig or KUBECONFIG"))
	case err != nil:
		return usage(err)
	}
	ctx, cancel := context.WithTimeout(ctx, options.time)
	defer cancel()
	document, err := auditOnce(ctx, client, options)
	if err == nil {
		err = evidence.Write(stdout, options.output.Coloured(report.Colours(stdout, getenv)), document)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "webhook audit: %v\n", err)
		return evidence.ExitFailed
	}
	return document.ExitCode()
}

// client says how to reach the API server, as kubectl finds out: by the flag, by
// the files of KUBECONFIG, by the one in the home directory; then by what a Pod is
// given. But where files were named, by nothing else: the verdict on another
// cluster would be worse than none.
func (o auditOptions) client(getenv func(string) string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: o.kubeconfig, Precedence: filepath.SplitList(getenv(clientcmd.RecommendedConfigPathEnvVar))}
	named := ""
	switch home := getenv("HOME"); {
	case o.kubeconfig != "":
		named = "--kubeconfig"
	case len(rules.Precedence) > 0:
		named = clientcmd.RecommendedConfigPathEnvVar
	case home != "":
		rules.Precedence = []string{filepath.Join(home, clientcmd.RecommendedHomeDir, clientcmd.RecommendedFileName)}
	}
	userAgent := "kubelet-https-guard-audit/" + version.String()
	loaded, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig (%s): %w", cmp.Or(named, rules.GetDefaultFilename()), err)
	}
	client, err := clientcmd.NewNonInteractiveClientConfig(*loaded, "", nil, rules).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err) && named == "":
		if client, err = report.Config("", userAgent); err != nil {
			return nil, err
		}
	case clientcmd.IsEmptyConfig(err):
		return nil, fmt.Errorf("read the kubeconfig (%s): no context and cluster to use is in it", named)
	case err != nil:
		return nil, fmt.Errorf("read the kubeconfig (%s): %w", cmp.Or(named, rules.GetDefaultFilename()), err)
	}
	client.UserAgent = userAgent
	// One request for each object and look, all at once: client-go's own limit
	// would have them wait for longer than they are given. API servers have theirs.
	client.QPS = -1
	return client, nil
}

// auditOnce is the look, as a document.
func auditOnce(ctx context.Context, client *rest.Config, options auditOptions) (evidence.Document, error) {
	loaded, err := options.load(ctx, client)
	if err != nil {
		return evidence.Document{}, err
	}
	objects, err := dynamic.NewForConfig(client)
	if err != nil {
		return evidence.Document{}, fmt.Errorf("make a client of the API server: %w", err)
	}
	result, err := audit.Once(ctx, objects, loaded.subject(0), time.Now)
	if err != nil {
		return evidence.Document{}, fmt.Errorf("look at what is stored: %w", err)
	}
	document := evidence.Document{
		At: result.At, Generator: "kubelet-https-guard/webhook", Version: version.String(),
		Kind: "Cluster", Name: options.cluster, FoundBy: options.foundBy(),
		Checked: result.Checked, Findings: result.Findings,
	}
	if document.Name == "" {
		document.Name = address(client)
	}
	for _, e := range result.Examined {
		document.Examined = append(document.Examined, evidence.Examined{Role: e.Role, Location: e.Location})
	}
	for _, c := range result.Certificates {
		document.Certificates = append(document.Certificates, evidence.Certificate{Role: c.Role, Location: c.At, X509: c.Leaf})
	}
	return document, nil
}

// address is the server's as client-go understands it, without a user's name and
// password, which a kubeconfig may have in it.
func address(client *rest.Config) string {
	server, _, err := rest.DefaultServerUrlFor(client)
	if err != nil {
		return "unknown"
	}
	server.User = nil
	return server.String()
}

// foundBy says in words where it stands what is to be looked at.
func (o auditOptions) foundBy() string {
	switch {
	case o.installed != "":
		return "ConfigMap " + o.installed
	case o.config != "":
		return "configuration " + o.config
	}
	return "what OpenShift has"
}

// load reads the configuration: out of files, or out of the cluster.
func (o auditOptions) load(ctx context.Context, client *rest.Config) (config, error) {
	if o.installed == "" {
		return loadConfig(o.config, o.guard)
	}
	core, err := coreclient.NewForConfig(client)
	if err != nil {
		return config{}, fmt.Errorf("make a client of the API server: %w", err)
	}
	namespace, name, _ := strings.Cut(o.installed, "/")
	configMap, err := core.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return config{}, fmt.Errorf("read the chart's ConfigMap %s: %w", o.installed, err)
	}
	loaded, err := installedConfig(configMap)
	if err != nil {
		return config{}, fmt.Errorf("ConfigMap %s: %w", o.installed, err)
	}
	return loaded, nil
}

// installedConfig is the configuration in the chart's ConfigMap. What its Pods
// have mounted is read from where it is mounted from.
func installedConfig(configMap *corev1.ConfigMap) (config, error) {
	file, err := parseConfig([]byte(configMap.Data[configKey]))
	if err != nil {
		return config{}, fmt.Errorf("its %s: %w", configKey, err)
	}
	for i, s := range file.ProtectedSecrets {
		if s.CABundleFile == serviceCAFile {
			file.ProtectedSecrets[i].CABundleFile = ""
			file.ProtectedSecrets[i].CABundleConfigMap = &bundleRef{Namespace: configMap.Namespace, Name: serviceCAConfigMap, Key: serviceCAKey}
		}
	}
	loaded, err := file.validated()
	if err != nil {
		return config{}, fmt.Errorf("its %s: %w", configKey, err)
	}
	if loaded.guard, err = parseGuard([]byte(configMap.Data[guardKey])); err != nil {
		return config{}, fmt.Errorf("its %s: %w", guardKey, err)
	}
	if len(loaded.guard) == 0 {
		return config{}, fmt.Errorf("it has no %s, with which the guard's registration is compared; upgrade the chart, or leave --installed out", guardKey)
	}
	return loaded, nil
}

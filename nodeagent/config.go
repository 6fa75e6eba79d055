// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/connection"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/probe"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// errNoNode is a usage error, because Events are about a Node.
var errNoNode = command.Usagef(
	"--node-name is required with an API server, since Events are about the Node: set it or NODE_NAME",
)

// The bounds of --resync and --settle. An agent that scans less often than maxResync is of
// little use.
const minResync, maxResync, maxSettle = time.Second, 24 * time.Hour, time.Minute

// noAddress disables the server of an address flag.
const noAddress = "0"

// config holds the values of the flags.
type config struct {
	root, directory, clientCA string
	layout                    string
	certificate, key          string // of the kubelet client pair
	nodeName, kubeconfig      string
	nodeAddress               string
	pod                       string        // NAMESPACE/NAME of the agent's own Pod; empty: the connection is not checked
	kubelet                   *probe.Prober // nil: the kubelet is not probed
	metricsAddress            string
	metrics                   statusserver.SecureOptions
	resync, settle            time.Duration
	expiringFraction          float64
	minimumRSABits            int
	allowedKeys               string // algorithms, separated by commas
	keysFail                  bool
	kubeletAddress            string
	log                       logging.Options
	once                      bool
	output                    evidence.Format
}

// defineFlags defines the flags of all commands. [runGroups] and [checkGroups] list the
// flags of each command.
func (c *config) defineFlags(flags *flag.FlagSet, getenv func(string) string) {
	flags.StringVar(&c.root, "root", "/", "`directory` where the host's root file system is mounted")
	flags.StringVar(&c.layout, "layout", layout.Auto,
		"`kind` of control-plane node, which says where its files are: "+strings.Join(layout.Names(), ", ")+
			". With auto the kind is detected")
	flags.StringVar(
		&c.directory,
		"kubelet-client-dir",
		"",
		"`directory` on the host with the kubelet client certificate and key. With this flag the static Pod manifest "+
			"and the kube-apiserver's configuration are not read, so the control cannot be verified (default: the files "+
			"that the kube-apiserver's configuration names)",
	)
	flags.StringVar(
		&c.certificate,
		"kubelet-client-certificate",
		"",
		"`file` on the host with the kubelet client certificate; requires --kubelet-client-key. Use both in place of "+
			"--kubelet-client-dir, with the same effect",
	)
	flags.StringVar(&c.key, "kubelet-client-key", "",
		"`file` on the host with the private key of --kubelet-client-certificate")
	flags.StringVar(
		&c.clientCA,
		"kubelet-ca",
		"",
		"`file` on the host with the CAs that the kubelet trusts for client certificates (default: the file that the "+
			"kubelet's configuration names; if the configuration is not visible, the default file of OpenShift or kubeadm)",
	)
	flags.StringVar(&c.nodeName, "node-name", getenv("NODE_NAME"), "`name` of this node (default: $NODE_NAME)")
	flags.StringVar(
		&c.kubeconfig,
		"kubeconfig",
		"",
		"kubeconfig `file` for the API server: for Events and for --pod (default: the Pod's ServiceAccount; outside a "+
			"Pod no Events are sent)",
	)
	flags.StringVar(
		&c.kubeletAddress,
		"kubelet-address",
		"",
		"`address` of this node's kubelet, HOST or HOST:PORT; the default port is 10250. If empty, the kubelet is not "+
			"contacted",
	)
	flags.StringVar(&c.pod, "pod", "",
		"`name` of the agent's own Pod, NAMESPACE/NAME. The agent asks this node's kube-apiserver for a line of the Pod's "+
			"log, which it can only get from the kubelet. The Pod's container must have the name nodeagent. If empty, the "+
			"kube-apiserver's connection is not checked")
	flags.StringVar(&c.nodeAddress, "node-address", "",
		"IP `address` of this node, for --pod: it finds this node's kube-apiserver among the endpoints of Service "+
			"default/kubernetes. If empty, the Service is asked, so any API server answers")
	flags.StringVar(&c.metricsAddress, "metrics-bind-address", ":8080",
		"`address` for /healthz, /readyz and, without --metrics-cert-dir, /metrics over plain HTTP; 0 disables them")
	c.metrics.Flags(flags, "metrics-bind-address")
	flags.DurationVar(&c.resync, "resync", 30*time.Second,
		"longest `time` between two checks of the node, even if no file changed: 1s to 24h")
	flags.DurationVar(
		&c.settle,
		"settle",
		time.Second,
		"report a finding about files only after it has lasted for this `time`: 0s to 1m. While certificate and key are "+
			"replaced one after the other, they do not match for a moment",
	)
	flags.Float64Var(&c.expiringFraction, "expiring-fraction", check.DefaultExpiringFraction,
		"warn when less than this `fraction` of a certificate's lifetime is left: at least 0, below 1")
	flags.IntVar(&c.minimumRSABits, "minimum-rsa-bits", 0,
		"warn about a client certificate with an RSA key of less than this `number` of bits: 2048 to 8192. With 0, keys "+
			"of less than 2048 bits are reported")
	flags.StringVar(&c.allowedKeys, "allowed-key-algorithms", "",
		"warn about a client certificate with a key of an algorithm that is not in this `list`, separated by commas: "+
			strings.Join(check.KeyAlgorithms(), ", ")+". If empty, all are allowed")
	flags.BoolVar(&c.keysFail, "key-policy-fails", false,
		"report a key that --minimum-rsa-bits or --allowed-key-algorithms do not allow as a violation, not as a warning")
	c.log.Flags(flags)
	flags.BoolVar(&c.once, "once", false,
		"check the node once, print a report, and exit with the code of the verdict: the same as 'nodeagent check'")
	flags.TextVar(&c.output, "o", evidence.Table, "`format` of the report: table, json, junit, sarif or openreports")
}

// runGroups returns the flags of 'nodeagent run' as --help groups them.
func runGroups() []command.Group {
	return append(
		checkedGroups(),
		command.Group{Title: "When to check", Flags: []string{"resync", "settle"}},
		command.Group{
			Title: "Reporting",
			Flags: slices.Concat([]string{"node-name", "kubeconfig", "metrics-bind-address"}, statusserver.SecureFlags(),
				[]string{"log-format", "log-level"}),
		},
		command.Group{Title: "Check once", Flags: []string{"once", "o"}},
	)
}

// checkGroups returns the flags of 'nodeagent check' as --help groups them.
func checkGroups() []command.Group {
	return append(checkedGroups(),
		command.Group{Title: "When to check", Flags: []string{"settle"}},
		command.Group{Title: "Report", Flags: []string{"node-name", "kubeconfig", "o", "log-format", "log-level"}},
	)
}

// checkedGroups returns the flags of both commands.
func checkedGroups() []command.Group {
	return []command.Group{
		{Title: "What to check", Flags: []string{
			"root", "layout", "kubelet-client-dir", "kubelet-client-certificate", "kubelet-client-key", "kubelet-ca",
			"kubelet-address", "pod", "node-address", "expiring-fraction", "minimum-rsa-bits", "allowed-key-algorithms",
			"key-policy-fails",
		}},
	}
}

// validate returns a usage error for a value that cannot be used. It reads no files.
func (c *config) validate() error {
	switch {
	case !slices.Contains(layout.Names(), c.layout):
		return command.Usagef("--layout %q: must be one of %s", c.layout, strings.Join(layout.Names(), ", "))
	case c.output != evidence.Table && !c.once:
		return command.Usagef("-o requires --once, or 'nodeagent check'")
	case c.certificate != "" && c.key == "":
		return command.Usagef("--kubelet-client-certificate is set without --kubelet-client-key: set both or neither")
	case c.certificate == "" && c.key != "":
		return command.Usagef("--kubelet-client-key is set without --kubelet-client-certificate: set both or neither")
	case c.certificate != "" && c.directory != "":
		return command.Usagef("--kubelet-client-dir and --kubelet-client-certificate both name the certificate and key: " +
			"set one of them")
	case !(c.expiringFraction >= 0 && c.expiringFraction < 1): // NaN too
		return command.Usagef("--expiring-fraction %v: must be at least 0 and below 1", c.expiringFraction)
	}
	if err := check.CheckMinimumRSABits(c.minimumRSABits); err != nil {
		return command.Usagef("--minimum-rsa-bits %d: %s", c.minimumRSABits, err)
	}
	if err := check.CheckAllowedAlgorithms(c.keyPolicy().AllowedAlgorithms); err != nil {
		return command.Usagef("--allowed-key-algorithms: %s", err)
	}
	if err := command.CheckDuration("--resync", c.resync, minResync, maxResync); err != nil {
		return err
	}
	if err := command.CheckDuration("--settle", c.settle, 0, maxSettle); err != nil {
		return err
	}
	if c.kubeletAddress != "" {
		var err error
		if c.kubelet, err = probe.New(c.kubeletAddress); err != nil {
			return command.Usagef("--kubelet-address %q: must be HOST or HOST:PORT, with a port from 1 to 65535",
				c.kubeletAddress)
		}
	}
	if namespace, name, ok := strings.Cut(c.pod, "/"); c.pod != "" &&
		(!ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0) {
		return command.Usagef("--pod %q: must be NAMESPACE/NAME of a Pod", c.pod)
	}
	if c.nodeAddress != "" && net.ParseIP(c.nodeAddress) == nil {
		return command.Usagef("--node-address %q: must be an IP address", c.nodeAddress)
	}
	if c.metricsAddress != noAddress {
		if err := command.CheckBindAddress("--metrics-bind-address", c.metricsAddress); err != nil {
			return err
		}
	}
	if err := c.metrics.Validate(); err != nil {
		return err
	}
	return c.validatePaths()
}

// validatePaths checks that paths on the host are absolute.
func (c *config) validatePaths() error {
	for _, p := range []struct{ flag, path string }{
		{"kubelet-client-dir", c.directory}, {"kubelet-client-certificate", c.certificate},
		{"kubelet-client-key", c.key}, {"kubelet-ca", c.clientCA},
	} {
		if p.path != "" && !path.IsAbs(p.path) {
			return command.Usagef("--%s %q: must be an absolute path on the host", p.flag, p.path)
		}
	}
	return nil
}

// asker returns what asks the kube-apiserver about its connection, nil without --pod.
func (c *config) asker() (*connection.Asker, error) {
	if c.pod == "" {
		return nil, nil //nolint:nilnil // see above
	}
	api, err := kubeclient.Config(c.kubeconfig, userAgent())
	switch {
	case errors.Is(err, kubeclient.ErrNoAPIServer):
		return nil, command.Usagef("--pod requires an API server: run in a Pod, or set --kubeconfig")
	case err != nil:
		return nil, err
	}
	namespace, name, _ := strings.Cut(c.pod, "/")
	return connection.New(connection.Options{API: api, Namespace: namespace, Pod: name, Node: c.nodeAddress})
}

// goRelease returns what knows the API server's Go release, nil if no API server is configured.
func (c *config) goRelease() (*kubeclient.GoRelease, error) {
	api, err := kubeclient.Config(c.kubeconfig, userAgent())
	switch {
	case errors.Is(err, kubeclient.ErrNoAPIServer):
		return nil, nil //nolint:nilnil // see above
	case err != nil:
		return nil, err
	}
	return kubeclient.NewGoRelease(api)
}

// keyPolicy returns what the flags allow.
func (c *config) keyPolicy() check.KeyPolicy {
	policy := check.KeyPolicy{MinimumRSABits: c.minimumRSABits, Fails: c.keysFail}
	if c.allowedKeys != "" {
		for algorithm := range strings.SplitSeq(c.allowedKeys, ",") {
			policy.AllowedAlgorithms = append(policy.AllowedAlgorithms, strings.TrimSpace(algorithm))
		}
	}
	return policy
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"

	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

const (
	configAPIVersion = "kubelet-https-guard.io/v1alpha1"
	configKind       = "WebhookConfiguration"
	// maxConfigBytes bounds the configuration file: it comes out of a
	// ConfigMap.
	maxConfigBytes = 1 << 20
)

// options are what the command line says.
type options struct {
	config, certDir, kubeconfig string
	host                        string
	port                        int
	healthAddress               string
	instance                    string
	logFormat                   string
	logLevel                    slog.Level
	version                     bool
}

// parseOptions reads the flags. Its error is one line for people.
func parseOptions(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{instance: getenv("POD_NAME")}
	var address string
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.StringVar(&o.config, "config", "", "`file` with the protected Secrets (default: those of OpenShift)")
	flags.StringVar(&o.certDir, "cert-dir", "", "`directory` with tls.crt and tls.key of this server")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` to reach the API server by (default: that of the Pod; without either: log only)")
	flags.StringVar(&address, "bind-address", ":9443", "`address` to serve admission on")
	flags.StringVar(&o.healthAddress, "health-bind-address", ":8081", "`address` for /healthz, /readyz and /metrics; 0 for none")
	flags.StringVar(&o.logFormat, "log-format", "json", "`format` of the log: json or text")
	flags.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "`level` of the log: debug, info, warn or error")
	flags.BoolVar(&o.version, "version", false, "print the version")

	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprint(stderr, "webhook refuses changes that would weaken the protected Secrets.\n\nFlags:\n")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return options{}, err
	case err != nil:
		return options{}, err
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("argument %q: only flags are taken", flags.Arg(0))
	case o.version:
		return o, nil
	case o.certDir == "":
		return options{}, errors.New("--cert-dir is not set")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return options{}, fmt.Errorf("--bind-address: %w", err)
	}
	o.host = host
	if o.port, err = strconv.Atoi(port); err != nil || o.port < 1 || o.port > 65535 {
		return options{}, fmt.Errorf("--bind-address: port %q is not between 1 and 65535", port)
	}
	return o, nil
}

// fileConfig is the configuration file.
type fileConfig struct {
	APIVersion       string            `json:"apiVersion"`
	Kind             string            `json:"kind"`
	ProtectedSecrets []protectedSecret `json:"protectedSecrets"`
	// ExpiringFraction as in [check.Expectation]; nil for the default.
	ExpiringFraction *float64 `json:"expiringFraction,omitempty"`
}

// protectedSecret is one Secret that is protected, and what it should be.
type protectedSecret struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Usage is serverAuth or clientAuth.
	Usage    string   `json:"usage"`
	DNSNames []string `json:"dnsNames,omitempty"`
	// ManagedBy is service-ca or empty.
	ManagedBy string `json:"managedBy,omitempty"`
	Service   string `json:"service,omitempty"`
	// RenewedBy are the users that renew it. They are left out where the
	// webhook is registered, by matchConditions, so that neither an outage nor
	// a bug here can stop a renewal; a DELETE of theirs still comes here.
	RenewedBy []string `json:"renewedBy,omitempty"`
}

// defaultConfig protects what OpenShift has: the Secret that the control
// names, and the one from which the nodes' files are written, faithfully even
// if it is empty.
func defaultConfig() fileConfig {
	return fileConfig{
		APIVersion: configAPIVersion, Kind: configKind,
		ProtectedSecrets: []protectedSecret{
			{
				Namespace: "openshift-apiserver", Name: "serving-cert", Usage: "serverAuth",
				DNSNames:  []string{"api.openshift-apiserver.svc"},
				ManagedBy: check.ManagedByServiceCA, Service: "api",
				RenewedBy: []string{"system:serviceaccount:openshift-service-ca:service-ca"},
			},
			{
				Namespace: "openshift-kube-apiserver", Name: "kubelet-client", Usage: "clientAuth",
				RenewedBy: []string{
					"system:serviceaccount:openshift-kube-apiserver-operator:kube-apiserver-operator",
					// The static pod's own controller, after an outage.
					"system:serviceaccount:openshift-kube-apiserver:localhost-recovery-client",
				},
			},
		},
	}
}

// loadConfig reads the configuration file, or takes the default without one.
func loadConfig(path string) ([]check.SecretExpectation, error) {
	if path == "" {
		return defaultConfig().expectations()
	}
	data, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	expectations, err := config.expectations()
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return expectations, nil
}

func readConfig(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("configuration %s is larger than %d bytes", path, maxConfigBytes)
	}
	return data, nil
}

// parseConfig reads YAML or JSON strictly: a misspelt field would otherwise
// leave something unprotected, unseen.
func parseConfig(data []byte) (fileConfig, error) {
	var config fileConfig
	if err := yaml.UnmarshalStrict(data, &config); err != nil {
		return fileConfig{}, err
	}
	if config.APIVersion != configAPIVersion || config.Kind != configKind {
		return fileConfig{}, fmt.Errorf("it is a %q of %q, not a %s of %s", config.Kind, config.APIVersion, configKind, configAPIVersion)
	}
	return config, nil
}

// expectations validates the configuration and gives it to the checks.
func (c fileConfig) expectations() ([]check.SecretExpectation, error) {
	fraction := check.DefaultExpiringFraction
	if c.ExpiringFraction != nil {
		fraction = *c.ExpiringFraction
	}
	if fraction < 0 || fraction >= 1 {
		return nil, fmt.Errorf("expiringFraction %v is not at least 0 and below 1", fraction)
	}
	if len(c.ProtectedSecrets) == 0 {
		return nil, errors.New("protectedSecrets is empty, so nothing would be protected")
	}
	seen := map[string]bool{}
	var expectations []check.SecretExpectation
	for i, s := range c.ProtectedSecrets {
		id := s.Namespace + "/" + s.Name
		switch {
		case s.Namespace == "" || s.Name == "":
			return nil, fmt.Errorf("protectedSecrets[%d]: namespace and name must be set", i)
		case seen[id]:
			return nil, fmt.Errorf("protectedSecrets[%d]: %s is there twice", i, id)
		case s.ManagedBy != "" && s.ManagedBy != check.ManagedByServiceCA:
			return nil, fmt.Errorf("protectedSecrets[%d] %s: managedBy %q is not %s", i, id, s.ManagedBy, check.ManagedByServiceCA)
		case s.Service != "" && s.ManagedBy == "":
			return nil, fmt.Errorf("protectedSecrets[%d] %s: service is of use only with managedBy: %s", i, id, check.ManagedByServiceCA)
		}
		seen[id] = true
		expectation := check.SecretExpectation{
			Namespace: s.Namespace, Name: s.Name, DNSNames: s.DNSNames,
			ManagedBy: s.ManagedBy, Service: s.Service, ExpiringFraction: fraction,
		}
		switch s.Usage {
		case "serverAuth":
			expectation.Usage = x509.ExtKeyUsageServerAuth
		case "clientAuth":
			expectation.Usage = x509.ExtKeyUsageClientAuth
		default:
			return nil, fmt.Errorf("protectedSecrets[%d] %s: usage %q is neither serverAuth nor clientAuth", i, id, s.Usage)
		}
		expectations = append(expectations, expectation)
	}
	return expectations, nil
}

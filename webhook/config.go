// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/usage"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/tlsserver"
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
	audit                       bool
	guard, namespace, lease     string
	guardPatience               time.Duration
	ownSecret, registration     string
	servingNames                []string
	gate, deployment, account   string
	prove                       bool
	provePatience               time.Duration
	address                     string
	shutdownDelay               time.Duration
	tlsMinVersion               uint16
	clientCA                    string
	clientNames                 []string
	healthAddress               string
	instance                    string
	logFormat                   string
	logLevel                    slog.Level
	version                     bool
}

// parseOptions reads the flags. Its error is one line for people.
func parseOptions(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{instance: getenv("POD_NAME"), account: getenv("POD_SERVICE_ACCOUNT")}
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.StringVar(&o.config, "config", "", "`file` with the protected Secrets (default: those of OpenShift)")
	flags.StringVar(&o.certDir, "cert-dir", "", "`directory` with tls.crt and tls.key of this server")
	flags.StringVar(&o.ownSecret, "self-managed-cert", "", "`name` of a Secret in --namespace: issue the serving certificate, keep it there, write it to --cert-dir, and register its CA (default: others write --cert-dir)")
	flags.StringVar(&o.registration, "webhook-configuration", "kubelet-https-guard", "`name` of the ValidatingWebhookConfiguration that registers this webhook, for --self-managed-cert and --activate")
	names := flags.String("serving-names", "", "`names` and IP addresses, with commas between them, that API servers reach this server at")
	flags.StringVar(&o.gate, "activate", "", "`name` of the ClusterRoleBinding by which API servers begin to ask this webhook, to be bound to $POD_SERVICE_ACCOUNT once a replica answers (default: they ask anyway)")
	flags.StringVar(&o.deployment, "deployment", "kubelet-https-guard-webhook", "`name` of the Deployment in --namespace whose replicas --activate waits for")
	flags.BoolVar(&o.prove, "prove", false, "try to weaken each protected Secret, in a dry run, and exit 0 if all is refused, 1 if not")
	flags.DurationVar(&o.provePatience, "prove-patience", time.Minute, "wait this `time` for --prove's refusals: a guard that was just installed needs a moment")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` to reach the API server by (default: that of the Pod; without either: log only)")
	flags.BoolVar(&o.audit, "audit", true, "look at what is stored, too, in one of the processes that share a Lease")
	flags.StringVar(&o.guard, "guard", "", "`file` with the webhook configuration and policies as they were installed, for the audit to compare (default: it does not)")
	flags.DurationVar(&o.guardPatience, "guard-patience", 3*time.Minute, "tell that they are not as they were installed when it has lasted this `time`; a Pod may see a changed ConfigMap two minutes late")
	flags.StringVar(&o.namespace, "namespace", getenv("POD_NAMESPACE"), "`namespace` of the Lease; without one nothing is audited")
	flags.StringVar(&o.lease, "lease", "kubelet-https-guard-audit", "`name` of the Lease")
	flags.StringVar(&o.address, "bind-address", ":9443", "`address` to serve admission on")
	minVersion := flags.String("tls-min-version", "VersionTLS12", "lowest `version` of TLS to speak: VersionTLS12 or VersionTLS13; OpenShift's TLS security profile (APIServer cluster) can raise it, and says which cipher suites")
	flags.StringVar(&o.clientCA, "client-ca", "", "`file` with the CAs of the client certificates of those who may ask (default: anybody may; API servers show none unless they are configured to)")
	clientNames := flags.String("client-names", "", "common `names` of those certificates, with commas between them (default: any)")
	flags.StringVar(&o.healthAddress, "health-bind-address", ":8081", "`address` for /healthz, /readyz and /metrics; 0 for none")
	flags.DurationVar(&o.shutdownDelay, "shutdown-delay", 10*time.Second, "go on answering for this `time` when asked to end, while that gets around")
	flags.StringVar(&o.logFormat, "log-format", "json", "`format` of the log: json or text")
	flags.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "`level` of the log: debug, info, warn or error")
	flags.BoolVar(&o.version, "version", false, "print the version")

	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage.Print(stderr, "webhook refuses changes that would weaken the protected objects, and audits what is stored.\nTo look at what is stored once, for evidence: webhook audit --help.", flags, groups()...)
		return options{}, err
	case err != nil:
		return options{}, err
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("argument %q: only flags are taken", flags.Arg(0))
	case o.version, o.prove:
		return o, nil
	case o.certDir == "":
		return options{}, errors.New("--cert-dir is not set")
	}
	if *names != "" {
		o.servingNames = strings.Split(*names, ",")
	}
	if *clientNames != "" {
		o.clientNames = strings.Split(*clientNames, ",")
	}
	if len(o.clientNames) > 0 && o.clientCA == "" {
		return options{}, errors.New("--client-names needs --client-ca")
	}
	var err error
	if o.tlsMinVersion, err = tlsserver.ParseVersion(*minVersion); err != nil {
		return options{}, fmt.Errorf("--tls-min-version: %w", err)
	}
	if o.ownSecret != "" && (len(o.servingNames) == 0 || slices.Contains(o.servingNames, "") || o.namespace == "") {
		return options{}, errors.New("--self-managed-cert needs --serving-names and --namespace")
	}
	if o.gate != "" && (o.account == "" || o.namespace == "") {
		return options{}, errors.New("--activate needs --namespace and POD_SERVICE_ACCOUNT")
	}
	_, port, err := net.SplitHostPort(o.address)
	if err != nil {
		return options{}, fmt.Errorf("--bind-address: %w", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return options{}, fmt.Errorf("--bind-address: port %q is not between 0 and 65535", port)
	}
	if o.shutdownDelay < 0 || o.shutdownDelay > time.Minute {
		return options{}, fmt.Errorf("--shutdown-delay %s is not between 0 and a minute", o.shutdownDelay)
	}
	if o.guardPatience < 0 {
		return options{}, fmt.Errorf("--guard-patience %s is less than nothing", o.guardPatience)
	}
	return o, nil
}

// groups are the flags as --help shows them.
func groups() []usage.Group {
	return []usage.Group{
		{Title: "What it protects", Flags: []string{"config"}},
		{Title: "How it is reached", Flags: []string{"bind-address", "tls-min-version", "client-ca", "client-names", "shutdown-delay"}},
		{Title: "Its certificate", Flags: []string{"cert-dir", "self-managed-cert", "serving-names", "webhook-configuration"}},
		{Title: "When it is asked", Flags: []string{"activate", "deployment"}},
		{Title: "The audit", Flags: []string{"audit", "guard", "guard-patience", "namespace", "lease"}},
		{Title: "Whom it tells", Flags: []string{"kubeconfig", "health-bind-address", "log-format", "log-level"}},
		{Title: "Instead of serving", Flags: []string{"prove", "prove-patience", "version"}},
	}
}

// fileConfig is the configuration file.
type fileConfig struct {
	APIVersion       string            `yaml:"apiVersion"`
	Kind             string            `yaml:"kind"`
	ProtectedSecrets []protectedSecret `yaml:"protectedSecrets"`
	// OverridesAction is what is done about overrides of the kube-apiserver's
	// configuration that weaken the control.
	OverridesAction admit.Action `yaml:"overridesAction,omitempty"`
	// ExpiringFraction as in [check.Expectation]; nil for the default.
	ExpiringFraction *float64 `yaml:"expiringFraction,omitempty"`
}

// protectedSecret is one Secret that is protected, and what it should be.
type protectedSecret struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	// Type is kubernetes.io/tls if it is not set.
	Type string `yaml:"type,omitempty"`
	// Usage is serverAuth or clientAuth.
	Usage    string   `yaml:"usage"`
	DNSNames []string `yaml:"dnsNames,omitempty"`
	// CABundleFile has the CAs to one of which the certificate must lead.
	CABundleFile string `yaml:"caBundleFile,omitempty"`
	// CABundleConfigMap has them in the cluster, where they may change.
	CABundleConfigMap *bundleRef `yaml:"caBundleConfigMap,omitempty"`
	// ManagedBy is service-ca, cert-rotation or empty.
	ManagedBy string `yaml:"managedBy,omitempty"`
	Service   string `yaml:"service,omitempty"`
	// RenewedBy are the users that renew it. They are left out where the
	// webhook is registered, by matchConditions, so that neither an outage nor
	// a bug here can stop a renewal; a DELETE of theirs still comes here.
	RenewedBy []string `yaml:"renewedBy,omitempty"`
	// Action is what is done about a request that would break the control.
	Action admit.Action `yaml:"action,omitempty"`
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
				// All signers that have not expired yet (cluster-kube-apiserver-operator
				// pkg/operator/certrotationcontroller).
				CABundleConfigMap: &bundleRef{Namespace: "openshift-kube-apiserver-operator", Name: "kube-apiserver-to-kubelet-client-ca", Key: "ca-bundle.crt"},
				ManagedBy:         check.ManagedByCertRotation,
				RenewedBy: []string{
					"system:serviceaccount:openshift-kube-apiserver-operator:kube-apiserver-operator",
					// The static pod's own controller, after an outage.
					"system:serviceaccount:openshift-kube-apiserver:localhost-recovery-client",
				},
			},
		},
	}
}

// config is a configuration that was read and validated.
type config struct {
	protected []admit.Protected
	// bundles say in which ConfigMap the roots of each of them are, if in one.
	bundles         []*bundleRef
	overridesAction admit.Action
	// guard is what registers the guard, as it was installed.
	guard []*unstructured.Unstructured
	// digest is of all that was read: another one means another configuration.
	digest [sha256.Size]byte
}

// protectedNow are the protected Secrets, with the CA bundles of now.
func (c config) protectedNow(b *bundles) []admit.Protected {
	protected := slices.Clone(c.protected)
	for i, ref := range c.bundles {
		if ref != nil {
			protected[i].Roots = b.roots(*ref)
		}
	}
	return protected
}

// subject is what is audited by this configuration.
func (c config) subject(guardPatience time.Duration) audit.Subject {
	subject := audit.Subject{Guard: c.guard, GuardPatience: guardPatience}
	for i, p := range c.protected {
		secret := audit.Secret{SecretExpectation: p.SecretExpectation}
		if ref := c.bundles[i]; ref != nil {
			secret.Bundle = &audit.Bundle{Namespace: ref.Namespace, Name: ref.Name, Key: ref.Key}
		}
		subject.Secrets = append(subject.Secrets, secret)
	}
	return subject
}

// loadConfig reads the configuration file, or takes the default without one,
// and the file with what registers the guard, if there is one.
func loadConfig(path, guardPath string) (config, error) {
	loaded, err := loadProtected(path)
	if err != nil || guardPath == "" {
		return loaded, err
	}
	data, err := readBounded(guardPath)
	if err != nil {
		return config{}, fmt.Errorf("read what registers the guard: %w", err)
	}
	if loaded.guard, err = parseGuard(data); err != nil {
		return config{}, fmt.Errorf("%s: %w", guardPath, err)
	}
	loaded.digest = sha256.Sum256(append(loaded.digest[:], data...))
	return loaded, nil
}

// guardGroups are the API groups of what registers the guard: the webhook
// configuration and the policies, and the right by which the webhook is asked.
var guardGroups = []string{"admissionregistration.k8s.io", "rbac.authorization.k8s.io"}

// parseGuard reads manifests of what registers an admission webhook or policy.
func parseGuard(data []byte) ([]*unstructured.Unstructured, error) {
	var guard []*unstructured.Unstructured
	reader := kubeyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return guard, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := kubeyaml.ToJSON(document)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
			continue // nothing but comments
		}
		object, err := kuberuntime.Decode(unstructured.UnstructuredJSONScheme, text)
		if err != nil {
			return nil, err
		}
		manifest, ok := object.(*unstructured.Unstructured)
		if !ok || !slices.Contains(guardGroups, manifest.GroupVersionKind().Group) || manifest.GetName() == "" || manifest.GetNamespace() != "" {
			return nil, fmt.Errorf("it has a %q of %q, not only named objects without a namespace of "+strings.Join(guardGroups, " and "), object.GetObjectKind().GroupVersionKind().Kind, object.GetObjectKind().GroupVersionKind().GroupVersion())
		}
		guard = append(guard, manifest)
	}
}

// readConfig reads the configuration file and nothing that it names, or takes
// the default without one.
func readConfig(path string) (file fileConfig, data []byte, err error) {
	if path == "" {
		return defaultConfig(), nil, nil
	}
	if data, err = readBounded(path); err != nil {
		return fileConfig{}, nil, fmt.Errorf("read the configuration: %w", err)
	}
	if file, err = parseConfig(data); err != nil {
		return fileConfig{}, nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return file, data, nil
}

// loadProtected reads the configuration file alone.
func loadProtected(path string) (config, error) {
	file, data, err := readConfig(path)
	if err != nil {
		return config{}, err
	}
	loaded, err := file.validated()
	if path == "" {
		return loaded, err
	}
	if err != nil {
		return config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	loaded.digest = sha256.Sum256(fmt.Appendf(data, "%x", loaded.digest))
	return loaded, nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxConfigBytes)
	}
	return data, nil
}

// parseConfig reads YAML or JSON strictly: a misspelt field would otherwise
// leave something unprotected, unseen. The error says in which line.
func parseConfig(data []byte) (fileConfig, error) {
	var file fileConfig
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return fileConfig{}, plainly(err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fileConfig{}, errors.New("it has more than one YAML document")
	}
	if file.APIVersion != configAPIVersion || file.Kind != configKind {
		return fileConfig{}, fmt.Errorf("it is a %q of %q, not a %s of %s", file.Kind, file.APIVersion, configKind, configAPIVersion)
	}
	return file, nil
}

// goTypes are what the decoder says of types of this package, which no reader
// of its error knows.
var goTypes = regexp.MustCompile(` (in|into) (type )?\S*main\.\w+`)

// plainly is a decoder's error in one line, without the names of Go.
func plainly(err error) error {
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return errors.New(goTypes.ReplaceAllString(strings.Join(wrong.Errors, "; "), ""))
}

// validated says what is wrong with the configuration, or gives what the
// webhook goes by. The files that it names are read.
func (c fileConfig) validated() (config, error) {
	fraction := check.DefaultExpiringFraction
	if c.ExpiringFraction != nil {
		fraction = *c.ExpiringFraction
	}
	if !(fraction >= 0 && fraction < 1) { // NaN too
		return config{}, fmt.Errorf("expiringFraction %v is not at least 0 and below 1", fraction)
	}
	if len(c.ProtectedSecrets) == 0 {
		return config{}, errors.New("protectedSecrets is empty, so nothing would be protected")
	}
	valid := config{overridesAction: c.OverridesAction}
	if err := known(c.OverridesAction); err != nil {
		return config{}, fmt.Errorf("overridesAction %w", err)
	}
	seen := map[string]bool{}
	for i, s := range c.ProtectedSecrets {
		id := s.Namespace + "/" + s.Name
		if seen[id] {
			return config{}, fmt.Errorf("protectedSecrets[%d]: %s is there twice", i, id)
		}
		seen[id] = true
		protected, err := s.validated()
		if err != nil {
			return config{}, fmt.Errorf("protectedSecrets[%d] %s: %w", i, id, err)
		}
		for _, root := range protected.Roots {
			valid.digest = sha256.Sum256(append(valid.digest[:], root.Raw...))
		}
		protected.ExpiringFraction = fraction
		valid.protected = append(valid.protected, protected)
		valid.bundles = append(valid.bundles, s.CABundleConfigMap)
	}
	return valid, nil
}

func (s protectedSecret) validated() (admit.Protected, error) {
	protected := admit.Protected{
		SecretExpectation: check.SecretExpectation{
			Namespace: s.Namespace, Name: s.Name, Type: s.Type, DNSNames: s.DNSNames, ManagedBy: s.ManagedBy, Service: s.Service,
		},
		Action: s.Action,
	}
	if len(validation.IsDNS1123Label(s.Namespace)) > 0 || len(validation.IsDNS1123Subdomain(s.Name)) > 0 {
		return protected, fmt.Errorf("namespace %q and name %q must be those of a Secret", s.Namespace, s.Name)
	}
	switch {
	case s.ManagedBy != "" && s.ManagedBy != check.ManagedByServiceCA && s.ManagedBy != check.ManagedByCertRotation:
		return protected, fmt.Errorf("managedBy %q is neither %s nor %s", s.ManagedBy, check.ManagedByServiceCA, check.ManagedByCertRotation)
	case s.Service != "" && s.ManagedBy != check.ManagedByServiceCA:
		return protected, fmt.Errorf("service is of use only with managedBy: %s", check.ManagedByServiceCA)
	}
	if err := known(s.Action); err != nil {
		return protected, fmt.Errorf("action %w", err)
	}
	switch s.Usage {
	case "serverAuth":
		protected.Usage = x509.ExtKeyUsageServerAuth
	case "clientAuth":
		protected.Usage = x509.ExtKeyUsageClientAuth
	default:
		return protected, fmt.Errorf("usage %q is neither serverAuth nor clientAuth", s.Usage)
	}
	if ref := s.CABundleConfigMap; ref != nil {
		switch {
		case s.CABundleFile != "":
			return protected, errors.New("caBundleFile and caBundleConfigMap are both set")
		case len(validation.IsDNS1123Label(ref.Namespace)) > 0 || len(validation.IsDNS1123Subdomain(ref.Name)) > 0 || ref.Key == "":
			return protected, fmt.Errorf("caBundleConfigMap: namespace %q, name %q and key %q must be those of a ConfigMap", ref.Namespace, ref.Name, ref.Key)
		}
	}
	if s.CABundleFile == "" {
		return protected, nil
	}
	bundle, err := readBounded(s.CABundleFile)
	if err != nil {
		return protected, fmt.Errorf("caBundleFile: %w", err)
	}
	if protected.Roots, err = pki.ParseBundle(bundle); err != nil {
		return protected, fmt.Errorf("caBundleFile %s %w", s.CABundleFile, err)
	}
	return protected, nil
}

func known(action admit.Action) error {
	switch action {
	case "", admit.Deny, admit.Warn, admit.Audit:
		return nil
	}
	return fmt.Errorf("%q is not %s, %s or %s", action, admit.Deny, admit.Warn, admit.Audit)
}

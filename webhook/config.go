// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/whocan"
)

const (
	configAPIVersion = "kubelet-https-guard.io/v1alpha1"
	configKind       = "WebhookConfiguration"
	// maxConfigBytes bounds the configuration file, which comes from a ConfigMap.
	maxConfigBytes = 1 << 20
)

// fileConfig is the configuration file.
type fileConfig struct {
	APIVersion       string                  `yaml:"apiVersion"`
	Kind             string                  `yaml:"kind"`
	ProtectedSecrets []protectedSecretConfig `yaml:"protectedSecrets"`
	// Decoy is the Secret for the audit's dry runs; nil: no dry runs.
	Decoy *decoy `yaml:"decoy,omitempty"`
	// OverridesAction is what admission does with overrides of the kube-apiserver's
	// configuration that break the control.
	OverridesAction admit.Action `yaml:"overridesAction,omitempty"`
	// ExpiringFraction as in [check.SecretExpectation]; nil for the default.
	ExpiringFraction *float64 `yaml:"expiringFraction,omitempty"`
	// StaticPolicies: each API server is expected to have the policies of webhook policy --static for this configuration.
	// Then the dry runs on the decoy also test whether they are in force.
	StaticPolicies *staticConfig `yaml:"staticPolicies,omitempty"`
}

// staticConfig says which static policies are expected.
type staticConfig struct {
	// NamePrefix is the prefix of their names: the chart's full name.
	NamePrefix string `yaml:"namePrefix"`
}

// decoy names a Secret.
type decoy struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
}

// protectedSecretConfig is an entry of protectedSecrets.
type protectedSecretConfig struct {
	// Namespace of the Secret, or NamespaceSelector: then each namespace with such labels has
	// a protected Secret of the name.
	Namespace         string         `yaml:"namespace,omitempty"`
	NamespaceSelector *labelSelector `yaml:"namespaceSelector,omitempty"`
	Name              string         `yaml:"name"`
	// Type defaults to kubernetes.io/tls.
	Type string `yaml:"type,omitempty"`
	// Usage is serverAuth or clientAuth.
	Usage    string   `yaml:"usage"`
	DNSNames []string `yaml:"dnsNames,omitempty"`
	// Identity is the subject of the certificate.
	Identity *identity `yaml:"identity,omitempty"`
	// ExpiringFraction overrides that of the configuration.
	ExpiringFraction *float64 `yaml:"expiringFraction,omitempty"`
	// CABundleConfigMap has the CAs, one of which must have signed the certificate. Without a
	// namespace it is in the namespace of the Secret.
	CABundleConfigMap *admit.CABundle `yaml:"caBundleConfigMap,omitempty"`
	// ManagedBy is service-ca, cert-rotation or empty.
	ManagedBy string `yaml:"managedBy,omitempty"`
	Service   string `yaml:"service,omitempty"`
	// Owners are those that the platform sets.
	Owners []allowedOwner `yaml:"owners,omitempty"`
	// RenewedBy are the users that renew the Secret. The registration excludes their
	// creates and updates by matchConditions, so that neither an outage nor a bug of the
	// webhook can block a renewal. API servers still ask about their deletes.
	RenewedBy []string `yaml:"renewedBy,omitempty"`
	// RenewedByServiceAccounts are the same, as names of ServiceAccounts in the namespace of
	// the Secret.
	RenewedByServiceAccounts []string `yaml:"renewedByServiceAccounts,omitempty"`
	// KeyPolicy restricts the certificate's key.
	KeyPolicy keyPolicy `yaml:"keyPolicy,omitempty"`
	// Action is what admission does with a change that breaks the control.
	Action admit.Action `yaml:"action,omitempty"`
}

// labelSelector is a [metav1.LabelSelector].
type labelSelector struct {
	MatchLabels      map[string]string  `yaml:"matchLabels,omitempty"`
	MatchExpressions []labelRequirement `yaml:"matchExpressions,omitempty"`
}

// labelRequirement is a [metav1.LabelSelectorRequirement].
type labelRequirement struct {
	Key      string   `yaml:"key"`
	Operator string   `yaml:"operator"`
	Values   []string `yaml:"values,omitempty"`
}

// validated returns the selector as API servers use it, or an error; path is its path in the file. An empty
// one would select every namespace.
func (l labelSelector) validated(path string) (*metav1.LabelSelector, error) {
	selector := &metav1.LabelSelector{MatchLabels: l.MatchLabels}
	for _, r := range l.MatchExpressions {
		selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: r.Key, Operator: metav1.LabelSelectorOperator(r.Operator), Values: r.Values,
		})
	}
	if len(l.MatchLabels)+len(l.MatchExpressions) == 0 {
		return nil, fmt.Errorf("%s: must not be empty, or it selects every namespace", path)
	}
	if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return selector, nil
}

// identity is a [layout.Identity]. Without an organization, any is accepted.
type identity struct {
	CommonName   string `yaml:"commonName"`
	Organization string `yaml:"organization,omitempty"`
}

// keyPolicy is a [check.KeyPolicy]. Outcome is Warn, the default, or Fail.
type keyPolicy struct {
	MinimumRSABits    int      `yaml:"minimumRSABits,omitempty"`
	AllowedAlgorithms []string `yaml:"allowedAlgorithms,omitempty"`
	Outcome           string   `yaml:"outcome,omitempty"`
}

// validated returns the policy, or an error; path is its path in the file, with a dot at the end.
func (k keyPolicy) validated(path string) (check.KeyPolicy, error) {
	policy := check.KeyPolicy{
		MinimumRSABits: k.MinimumRSABits, AllowedAlgorithms: k.AllowedAlgorithms, Fails: k.Outcome == "Fail",
	}
	if err := check.CheckMinimumRSABits(k.MinimumRSABits); err != nil {
		return policy, fmt.Errorf("%sminimumRSABits %d: %w", path, k.MinimumRSABits, err)
	}
	if err := check.CheckAllowedAlgorithms(k.AllowedAlgorithms); err != nil {
		return policy, fmt.Errorf("%sallowedAlgorithms: %w", path, err)
	}
	if !slices.Contains([]string{"", "Warn", "Fail"}, k.Outcome) {
		return policy, fmt.Errorf("%soutcome %q: must be Warn or Fail", path, k.Outcome)
	}
	return policy, nil
}

// allowedOwner is an owner that a protected Secret may have, as in [check.AllowedOwner].
type allowedOwner struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Name       string `yaml:"name,omitempty"`
}

// defaultSecrets are the Secrets that are protected by default, here and in the chart.
//
//go:embed protected-secrets.yaml
var defaultSecrets []byte

// The ConfigMap with OpenShift's service CA, which exists in every namespace, and its key.
const serviceCAConfigMap, serviceCAKey = "openshift-service-ca.crt", "service-ca.crt"

// defaultConfig protects the Secrets of OpenShift: the one that the control names, and the one
// from which the nodes' files are written. The service CA is read from namespace; if that is
// empty, from the namespace of each Secret.
func defaultConfig(namespace string) (fileConfig, error) {
	file := fileConfig{APIVersion: configAPIVersion, Kind: configKind}
	decoder := yaml.NewDecoder(bytes.NewReader(defaultSecrets))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file.ProtectedSecrets); err != nil {
		return fileConfig{}, fmt.Errorf("read the default list of protected Secrets: %w", err)
	}
	for i, s := range file.ProtectedSecrets {
		if s.ManagedBy == check.ManagedByServiceCA && s.CABundleConfigMap == nil {
			file.ProtectedSecrets[i].CABundleConfigMap = &admit.CABundle{
				Namespace: cmp.Or(namespace, s.Namespace), Name: serviceCAConfigMap, Key: serviceCAKey,
			}
		}
	}
	return file, nil
}

// config is a configuration that was read and validated.
type config struct {
	protected []admit.ProtectedSecret
	decoy     *admit.ProtectedSecret
	// index has the protected Secrets and the decoy.
	index admit.Index
	// overridesAction is for overrides of the kube-apiserver's configuration.
	overridesAction admit.Action
	// staticProof and staticWords are those of [prove.Guard]; empty if no static policies are expected.
	staticProof, staticWords string
	// guard are the manifests of the objects that register the guard.
	guard []*unstructured.Unstructured
	// renewers are the users that renew a protected Secret, sorted. That of a ServiceAccount in each selected namespace
	// has the namespace "*".
	renewers []string
	// digest is a hash of the files; it changes if the configuration changes.
	digest [sha256.Size]byte
}

// withDecoy returns the protected Secrets and the decoy.
func (c config) withDecoy() []admit.ProtectedSecret {
	if c.decoy == nil {
		return slices.Clone(c.protected)
	}
	return append(slices.Clone(c.protected), *c.decoy)
}

// find returns the protected Secret of a name, or the decoy, with its current CA bundle; ok is false if no entry
// protects it.
func (c config) find(b *bundles, namespace, name string) (p admit.ProtectedSecret, ok bool) {
	p, ok = c.index.Find(namespace, name)
	if ok && p.Bundle != nil {
		bundle := b.roots(*p.Bundle)
		p.Roots, p.RootsUnusable = bundle.CAs, bundle.Unusable
	}
	return p, ok
}

// subject returns what the audit checks by this configuration.
func (c config) subject(guardPatience time.Duration) audit.Subject {
	return audit.Subject{
		Secrets: c.protected, Guard: c.guard, GuardPatience: guardPatience, OverridesAction: c.overridesAction,
	}
}

// source says where a configuration comes from.
type source struct {
	// path is the configuration file; empty: the default configuration. guardManifest is the
	// file with the guard's manifests; empty: no manifests.
	path, guardManifest string
	// namespace is where the default configuration reads the service CA.
	namespace string
}

// loadConfig reads the configuration file, or returns the default without one, and reads
// the guard's manifests if there are any.
func loadConfig(from source) (config, error) {
	loaded, err := loadProtected(from)
	if err != nil || from.guardManifest == "" {
		return loaded, err
	}
	data, err := readBounded(from.guardManifest)
	if err == nil {
		loaded.guard, err = parseGuard(data)
	}
	if err != nil {
		return config{}, command.FileError("--guard-manifest", from.guardManifest, err)
	}
	loaded.digest = sha256.Sum256(append(loaded.digest[:], data...))
	return loaded, nil
}

// digest returns the digest of the files, which is the digest of a configuration that is loaded from them.
func (s source) digest() (sum [sha256.Size]byte, err error) {
	if s.path != "" {
		data, err := readBounded(s.path)
		if err != nil {
			return sum, err
		}
		sum = sha256.Sum256(data)
	}
	if s.guardManifest != "" {
		data, err := readBounded(s.guardManifest)
		if err != nil {
			return sum, err
		}
		sum = sha256.Sum256(append(sum[:], data...))
	}
	return sum, nil
}

// guardGroups are the API groups of the objects that register the guard: the webhook
// configuration and the policies, and the RBAC objects that activate the webhook.
var guardGroups = []string{"admissionregistration.k8s.io", "rbac.authorization.k8s.io"}

// parseGuard parses the manifests of the objects that register the guard.
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
		manifest, err := parseManifest(document)
		if err != nil {
			return nil, err
		}
		if manifest == nil {
			continue
		}
		guard = append(guard, manifest)
	}
}

// errNotManifest is the error about a file that has no manifests.
var errNotManifest = errors.New("not a Kubernetes manifest: expected objects with apiVersion and kind, " +
	"as the chart writes them into key " + guardKey + " of its ConfigMap")

// parseManifest parses one document; nil if it has nothing but comments.
func parseManifest(document []byte) (*unstructured.Unstructured, error) {
	text, err := kubeyaml.ToJSON(document)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", errNotManifest, strings.TrimPrefix(plainyaml.Explain(err).Error(), "yaml: "))
	}
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
		return nil, nil //nolint:nilnil // see above
	}
	manifest := &unstructured.Unstructured{}
	switch err := plainyaml.UnmarshalJSON(text, &manifest.Object); {
	case errors.Is(err, plainyaml.ErrShape):
		return nil, errNotManifest
	case err != nil:
		return nil, err
	case manifest.GetKind() == "" || manifest.GetAPIVersion() == "":
		return nil, errNotManifest
	}
	known := slices.Contains(guardGroups, manifest.GroupVersionKind().Group)
	if !known || manifest.GetName() == "" || manifest.GetNamespace() != "" || manifest.IsList() {
		return nil, fmt.Errorf("kind %q of %q: expected objects with a name and without a namespace, of the API groups %s",
			manifest.GetKind(), manifest.GetAPIVersion(), strings.Join(guardGroups, " and "))
	}
	return manifest, nil
}

// readConfig reads the configuration file, or returns the default without one.
func readConfig(from source) (file fileConfig, data []byte, err error) {
	if from.path == "" {
		file, err = defaultConfig(from.namespace)
		return file, nil, err
	}
	if data, err = readBounded(from.path); err == nil {
		file, err = parseConfig(data)
	}
	if err != nil {
		return fileConfig{}, nil, command.FileError("--config", from.path, err)
	}
	return file, data, nil
}

// loadProtected loads the configuration without the guard's manifests.
func loadProtected(from source) (config, error) {
	file, data, err := readConfig(from)
	if err != nil {
		return config{}, err
	}
	loaded, err := file.validated()
	if from.path == "" {
		return loaded, err
	}
	if err != nil {
		return config{}, command.FileError("--config", from.path, err)
	}
	loaded.digest = sha256.Sum256(data)
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
		return nil, fmt.Errorf("larger than %d bytes", maxConfigBytes)
	}
	return data, nil
}

// errNotConfig is the error about a file that is no configuration.
var errNotConfig = errors.New("not a configuration of the guard: expected YAML or JSON of kind " + configKind +
	" and apiVersion " + configAPIVersion)

// parseConfig parses YAML or JSON strictly: otherwise a misspelt field could leave a Secret
// unprotected without an error. The error names the line.
func parseConfig(data []byte) (fileConfig, error) {
	var file fileConfig
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return fileConfig{}, fmt.Errorf("%w (%s)", errNotConfig, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(document.Content) > 0 && document.Content[0].Kind != yaml.MappingNode {
		return fileConfig{}, errNotConfig
	}
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return fileConfig{}, plainyaml.Explain(err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fileConfig{}, errors.New("must be one YAML document, not several")
	}
	if file.APIVersion != configAPIVersion || file.Kind != configKind {
		return fileConfig{}, fmt.Errorf(
			"kind %q of apiVersion %q: must be %s of %s", file.Kind, file.APIVersion, configKind, configAPIVersion,
		)
	}
	return file, nil
}

// validated returns the configuration, or an error that names the path of an invalid field.
func (c fileConfig) validated() (config, error) {
	fraction := check.DefaultExpiringFraction
	if c.ExpiringFraction != nil {
		fraction = *c.ExpiringFraction
	}
	if err := checkFraction("", fraction); err != nil {
		return config{}, err
	}
	if len(c.ProtectedSecrets) == 0 {
		return config{}, errors.New("protectedSecrets: must list at least one Secret, or nothing is protected")
	}
	switch {
	case c.StaticPolicies != nil && c.Decoy == nil:
		return config{}, errors.New("staticPolicies: requires decoy: without it, no dry run can test them")
	case c.StaticPolicies != nil && len(validation.IsDNS1123Subdomain(c.StaticPolicies.NamePrefix)) > 0:
		return config{}, fmt.Errorf("staticPolicies.namePrefix %q: must be lower-case letters, digits, '-' and '.'",
			c.StaticPolicies.NamePrefix)
	}
	valid := config{overridesAction: c.OverridesAction}
	if err := checkAction("overridesAction", c.OverridesAction); err != nil {
		return config{}, err
	}
	seen := map[string]bool{}
	for i, s := range c.ProtectedSecrets {
		id := s.Namespace + "/" + s.Name
		if seen[id] {
			if s.Namespace == "" {
				return config{}, fmt.Errorf("protectedSecrets[%d]: %s is listed twice with a namespaceSelector", i, s.Name)
			}
			return config{}, fmt.Errorf("protectedSecrets[%d]: %s is listed twice", i, id)
		}
		seen[id] = true
		protected, err := s.validated(fmt.Sprintf("protectedSecrets[%d].", i), fraction)
		if err != nil {
			return config{}, err
		}
		valid.protected = append(valid.protected, protected)
		valid.renewers = append(valid.renewers, s.renewers()...)
	}
	slices.Sort(valid.renewers)
	valid.renewers = slices.Compact(valid.renewers)
	if c.Decoy != nil {
		decoy, err := c.Decoy.validated()
		if err == nil && seen[decoy.Namespace+"/"+decoy.Name] {
			err = fmt.Errorf("decoy: %s/%s is also in protectedSecrets: remove it there, or choose another Secret as the decoy",
				decoy.Namespace, decoy.Name)
		}
		if err != nil {
			return config{}, err
		}
		valid.decoy = &decoy
	}
	valid.exceptNamed()
	valid.index = admit.NewIndex(valid.withDecoy())
	if c.StaticPolicies != nil {
		guard := policy.NewGuard(c.StaticPolicies.NamePrefix, valid.decoy.Namespace, valid.withDecoy())
		var err error
		if valid.staticProof, valid.staticWords, err = policy.StaticProof(guard, valid.withDecoy()); err != nil {
			return config{}, fmt.Errorf("staticPolicies: %w", err)
		}
	}
	return valid, nil
}

// renewers returns the users of RenewedBy and RenewedByServiceAccounts.
func (s protectedSecretConfig) renewers() []string {
	users := slices.Clone(s.RenewedBy)
	for _, account := range s.RenewedByServiceAccounts {
		users = append(users, serviceAccountPrefix+cmp.Or(s.Namespace, whocan.AnyNamespace)+":"+account)
	}
	return users
}

// exceptNamed makes entries with a selector leave out the namespaces of which another entry, or the decoy, protects
// the Secret of the name.
func (c config) exceptNamed() {
	for i, s := range c.protected {
		if s.Selector == nil {
			continue
		}
		for _, named := range c.withDecoy() {
			if named.Selector == nil && named.Name == s.Name {
				c.protected[i].Except = append(c.protected[i].Except, named.Namespace)
			}
		}
		slices.Sort(c.protected[i].Except)
	}
}

// validated returns the decoy as a protected Secret: of the same type as the others, and its
// changes are always refused.
func (d decoy) validated() (admit.ProtectedSecret, error) {
	return admit.ProtectedSecret{
		SecretExpectation: check.SecretExpectation{Namespace: d.Namespace, Name: d.Name, Usage: x509.ExtKeyUsageServerAuth},
		Decoy:             true,
	}, checkNames("decoy.", d.Namespace, d.Name)
}

// validated returns the Secret, or an error; path is its path in the file, with a dot at the end. fraction is the
// default of ExpiringFraction.
func (s protectedSecretConfig) validated(path string, fraction float64) (admit.ProtectedSecret, error) {
	protected := admit.ProtectedSecret{
		SecretExpectation: check.SecretExpectation{
			Namespace: s.Namespace, Name: s.Name, Type: s.Type, DNSNames: s.DNSNames, ManagedBy: s.ManagedBy, Service: s.Service,
		},
		Action: s.Action,
	}
	if err := s.selects(path, &protected); err != nil {
		return protected, err
	}
	protected.ExpiringFraction = fraction
	if s.ExpiringFraction != nil {
		protected.ExpiringFraction = *s.ExpiringFraction
	}
	if err := checkFraction(path, protected.ExpiringFraction); err != nil {
		return protected, err
	}
	if s.Identity != nil {
		if s.Identity.CommonName == "" {
			return protected, fmt.Errorf("%sidentity.commonName: must not be empty", path)
		}
		protected.Identity = layout.Identity(*s.Identity)
	}
	for i, name := range s.RenewedByServiceAccounts {
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			return protected, fmt.Errorf("%srenewedByServiceAccounts[%d] %q: must be the name of a ServiceAccount",
				path, i, name)
		}
	}
	switch {
	case s.ManagedBy != "" && s.ManagedBy != check.ManagedByServiceCA && s.ManagedBy != check.ManagedByCertRotation:
		return protected, fmt.Errorf("%smanagedBy %q: must be %s, %s or empty", path, s.ManagedBy, check.ManagedByServiceCA,
			check.ManagedByCertRotation)
	case s.Service != "" && s.ManagedBy != check.ManagedByServiceCA:
		return protected, fmt.Errorf("%sservice %q: requires managedBy: %s", path, s.Service, check.ManagedByServiceCA)
	}
	for i, o := range s.Owners {
		switch {
		case o.APIVersion == "":
			return protected, fmt.Errorf("%sowners[%d].apiVersion: must not be empty", path, i)
		case o.Kind == "":
			return protected, fmt.Errorf("%sowners[%d].kind: must not be empty", path, i)
		}
		protected.Owners = append(protected.Owners, check.AllowedOwner(o))
	}
	if err := checkAction(path+"action", s.Action); err != nil {
		return protected, err
	}
	var err error
	if protected.KeyPolicy, err = s.KeyPolicy.validated(path + "keyPolicy."); err != nil {
		return protected, err
	}
	switch s.Usage {
	case "serverAuth":
		protected.Usage = x509.ExtKeyUsageServerAuth
	case "clientAuth":
		protected.Usage = x509.ExtKeyUsageClientAuth
	default:
		return protected, fmt.Errorf("%susage %q: must be serverAuth or clientAuth", path, s.Usage)
	}
	if s.CABundleConfigMap != nil {
		ref := *s.CABundleConfigMap
		ref.Namespace = cmp.Or(ref.Namespace, s.Namespace)
		protected.Bundle = &ref
		path += "caBundleConfigMap."
		if err := checkNames(path, cmp.Or(ref.Namespace, anyNamespace), ref.Name); err != nil {
			return protected, err
		}
		if ref.Key == "" {
			return protected, fmt.Errorf("%skey: must not be empty", path)
		}
	}
	return protected, nil
}

// anyNamespace is a valid name of a namespace, where none is given.
const anyNamespace = "any"

// selects validates the namespace or the selector, and sets the selector.
func (s protectedSecretConfig) selects(path string, protected *admit.ProtectedSecret) error {
	if s.NamespaceSelector == nil {
		return checkNames(path, s.Namespace, s.Name)
	}
	switch {
	case s.Namespace != "":
		return fmt.Errorf("%snamespaceSelector: cannot be used with namespace", path)
	case s.ManagedBy == check.ManagedByServiceCA:
		return fmt.Errorf("%snamespaceSelector: cannot be used with managedBy: %s", path, check.ManagedByServiceCA)
	}
	if err := checkNames(path, anyNamespace, s.Name); err != nil {
		return err
	}
	var err error
	protected.Selector, err = s.NamespaceSelector.validated(path + "namespaceSelector")
	return err
}

// checkFraction returns an error unless it is a fraction of a lifetime; path is that of the field, without its name.
func checkFraction(path string, fraction float64) error {
	if fraction >= 0 && fraction < 1 { // false for NaN
		return nil
	}
	return fmt.Errorf("%sexpiringFraction %v: must be at least 0 and below 1", path, fraction)
}

// checkNames returns an error unless an object can have this namespace and name.
func checkNames(path, namespace, name string) error {
	switch {
	case len(validation.IsDNS1123Label(namespace)) > 0:
		return fmt.Errorf("%snamespace %q: must be the name of a namespace", path, namespace)
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		return fmt.Errorf("%sname %q: must be the name of an object: lower-case letters, digits, '-' and '.'", path, name)
	}
	return nil
}

func checkAction(path string, action admit.Action) error {
	switch action {
	case "", admit.Deny, admit.Warn, admit.Audit:
		return nil
	}
	return fmt.Errorf("%s %q: must be %s, %s or %s", path, action, admit.Deny, admit.Warn, admit.Audit)
}

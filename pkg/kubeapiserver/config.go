// SPDX-License-Identifier: Apache-2.0

// Package kubeapiserver reads the configuration of a kube-apiserver in all its formats: OpenShift's KubeAPIServerConfig
// with apiServerArguments (from 4.6 on) or kubeletClientInfo (until 4.5), as compact JSON or as YAML, and command-line
// flags (kubeadm).
//
// It returns what is configured. Package check evaluates it.
package kubeapiserver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

// The arguments of this control, as kube-apiserver names them.
const (
	KubeletClientCertificate    = "kubelet-client-certificate"
	KubeletClientKey            = "kubelet-client-key"
	KubeletCertificateAuthority = "kubelet-certificate-authority"
	KubeletHTTPS                = "kubelet-https"
	KubeletReadOnlyPort         = "kubelet-read-only-port"
	// KubeletPreferredAddressTypes accepts several values, see [Config.List].
	KubeletPreferredAddressTypes = "kubelet-preferred-address-types"
)

// DefaultKubeletAddressTypes returns the kubelet-preferred-address-types of a kube-apiserver that has none, in its
// order (Kubernetes cmd/kube-apiserver/app/options, NewServerRunOptions).
func DefaultKubeletAddressTypes() []string {
	return []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}
}

const (
	// OpenShiftConfigFlag names the file with the configuration on OpenShift.
	OpenShiftConfigFlag = "openshift-config"

	// MaxConfigBytes is the limit for a configuration: it comes from a ConfigMap, which may
	// contain 1 MiB. A real one has about 15 KiB.
	MaxConfigBytes = 1 << 20

	configKind = "KubeAPIServerConfig"
)

// Config has the arguments of one kube-apiserver. The zero value has none.
type Config struct {
	arguments map[string][]string
	admission admissionConfig

	// undecided says for single arguments why the value is not known, allUndecided for all
	// arguments except the decided ones.
	undecided    map[string]string
	allUndecided string
	decided      []string
	// configFlagLast: OpenShiftConfigFlag is after the words that are not known.
	configFlagLast bool
}

// Value returns the effective value of an argument: the last one, as for kube-apiserver's own flags. set is
// false if the argument is not set, has an empty list, or is not known ([Config.Undecided]).
func (c Config) Value(name string) (value string, set bool) {
	values := c.arguments[name]
	if len(values) == 0 || c.Undecided(name) != "" {
		return "", false
	}
	return values[len(values)-1], true
}

// List returns the values of an argument that accepts several: each occurrence may have several values, separated by
// commas, and all occurrences count (pflag's StringSlice).
func (c Config) List(name string) []string {
	var all []string
	for _, value := range c.arguments[name] {
		if value != "" {
			all = append(all, strings.Split(value, ",")...)
		}
	}
	return all
}

// Under returns the configuration merged with over. If an argument accepts one value, the one of over counts, also if
// this configuration's value is not known. Arguments that accept several, such as disable-admission-plugins, have the
// values of both: OpenShift's kube-apiserver parses its command line and then the flags made of its configuration with
// the same flag set (openshift/kubernetes cmd/kube-apiserver/app/server.go).
func (c Config) Under(over Config) Config {
	arguments := maps.Clone(c.arguments)
	if arguments == nil {
		arguments = map[string][]string{}
	}
	for name, values := range over.arguments {
		arguments[name] = slices.Concat(arguments[name], values)
	}
	merged := Config{
		arguments: arguments, admission: c.admission.mergedWith(over.admission),
		undecided: maps.Clone(c.undecided), allUndecided: c.allUndecided, configFlagLast: c.configFlagLast,
	}
	for _, name := range slices.Sorted(maps.Keys(over.arguments)) {
		if len(over.arguments[name]) > 0 && !accumulates(name) {
			delete(merged.undecided, name)
			merged.decided = append(merged.decided, name)
		}
	}
	return merged
}

// configFile has the fields of a KubeAPIServerConfig that are read.
type configFile struct {
	Kind               string         `json:"kind"`
	APIServerArguments map[string]any `json:"apiServerArguments"`
	KubeletClientInfo  *clientInfo    `json:"kubeletClientInfo"`
	Admission          admissionField `json:"admission"`
}

// clientInfo named the files until OpenShift 4.5.
type clientInfo struct {
	CA       string `json:"ca"`
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
}

// ParseConfig reads a KubeAPIServerConfig, JSON or YAML. It ignores other fields. It returns an error if the
// data are too large, are not JSON or YAML, have another kind, or if an argument is neither a value nor a list
// of values.
func ParseConfig(data []byte) (Config, error) {
	if len(data) > MaxConfigBytes {
		return Config{}, fmt.Errorf("it is too large: %d bytes, limit %d", len(data), MaxConfigBytes)
	}
	if strings.TrimSpace(string(data)) == "" {
		return Config{}, errors.New("it is empty")
	}
	var file configFile
	if err := plainyaml.Unmarshal(data, &file); err != nil {
		return Config{}, fmt.Errorf("it is not a valid %s: %w", configKind, err)
	}
	if file.Kind != "" && file.Kind != configKind {
		return Config{}, fmt.Errorf("kind is %s, expected %s", quoteType(file.Kind), configKind)
	}

	config := Config{arguments: map[string][]string{}, admission: file.Admission.config()}
	if info := file.KubeletClientInfo; info != nil {
		config.set(KubeletCertificateAuthority, info.CA)
		config.set(KubeletClientCertificate, info.CertFile)
		config.set(KubeletClientKey, info.KeyFile)
	}
	if err := config.add(file.APIServerArguments); err != nil {
		return Config{}, err
	}
	return config, nil
}

// add adds apiServerArguments. OpenShift's kube-apiserver makes a flag "--name=value" of each value, in the
// order of the arguments' names (openshift/kubernetes openshift-kube-apiserver/openshiftkubeapiserver,
// ConfigToFlags). So text after "=" in a name becomes part of the value.
func (c Config) add(arguments map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(arguments)) {
		values, err := listOf(arguments[key])
		if err != nil {
			return fmt.Errorf("apiServerArguments.%s: %w", quoteKey(key), err)
		}
		name := argumentName(key)
		_, tail, cut := strings.Cut(key, "=")
		for _, value := range values {
			if cut {
				value = tail + "=" + value
			}
			c.arguments[name] = append(c.arguments[name], value)
		}
	}
	return nil
}

// Override is an override of one of the kubelet arguments of the platform's configuration.
type Override struct {
	Argument string
	// Field that sets it. Releases from 4.6 on read apiServerArguments only, earlier ones
	// kubeletClientInfo, too. So a valid value in one field does not make up for an invalid
	// one in the other.
	Field string
	// Values are empty if the override removes the platform's value.
	Values []string
}

// ParseOverrides reads spec.unsupportedConfigOverrides of KubeAPIServer "cluster" (JSON; null or empty if there are no
// overrides). The operator merges them into the platform's configuration map by map. Any other value in the place of a
// map, such as null, removes the whole map (library-go pkg/operator/resource/resourcemerge, mergeConfig). Limits and
// errors are those of [ParseConfig].
func ParseOverrides(data []byte) ([]Override, error) {
	file, err := parseOverrides(data)
	if err != nil {
		return nil, err
	}
	var overrides []Override
	for _, field := range []struct {
		name string
		// arguments by their names in the field. It is nil if the names are the same.
		arguments map[string]string
	}{
		{name: "apiServerArguments"},
		{name: "kubeletClientInfo", arguments: map[string]string{
			"ca": KubeletCertificateAuthority, "certFile": KubeletClientCertificate, "keyFile": KubeletClientKey,
		}},
	} {
		value, given := file[field.name]
		if !given {
			continue
		}
		inside, isMap := value.(map[string]any)
		if !isMap {
			for _, argument := range platformArguments() {
				overrides = append(overrides, Override{Argument: argument, Field: field.name})
			}
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(inside)) {
			argument := field.arguments[key]
			if field.arguments == nil {
				argument = argumentName(key)
			}
			if !slices.Contains(kubeletArguments(), argument) {
				continue
			}
			values, err := listOf(inside[key])
			if err != nil {
				return nil, fmt.Errorf("%s.%s: %w", field.name, quoteKey(key), err)
			}
			if _, tail, cut := strings.Cut(key, "="); cut {
				values = []string{tail}
			}
			overrides = append(overrides, Override{Argument: argument, Field: field.name, Values: values})
		}
	}
	return overrides, nil
}

func parseOverrides(data []byte) (map[string]any, error) {
	if len(data) > MaxConfigBytes {
		return nil, fmt.Errorf("it is too large: %d bytes, limit %d", len(data), MaxConfigBytes)
	}
	if len(data) == 0 {
		return nil, nil
	}
	var file map[string]any
	if err := plainyaml.UnmarshalJSON(data, &file); err != nil {
		return nil, errors.New("it is not a JSON object")
	}
	return file, nil
}

// platformArguments returns the arguments that the platform sets, which an override can remove.
func platformArguments() []string {
	return []string{KubeletClientCertificate, KubeletClientKey, KubeletCertificateAuthority}
}

func kubeletArguments() []string {
	return []string{
		KubeletClientCertificate, KubeletClientKey, KubeletCertificateAuthority, KubeletHTTPS, KubeletReadOnlyPort,
	}
}

// flagName returns the name of a flag: kube-apiserver treats "_" as "-"
// (k8s.io/component-base/cli/flag, WordSepNormalizeFunc).
func flagName(name string) string { return strings.ReplaceAll(name, "_", "-") }

// argumentName returns the name of the flag that a key of apiServerArguments becomes.
func argumentName(key string) string {
	name, _, _ := strings.Cut(key, "=")
	return flagName(name)
}

// set sets an argument if the value is not empty.
func (c Config) set(name, value string) {
	if value != "" {
		c.arguments[name] = []string{value}
	}
}

// listOf returns the values of an argument: a list of strings, as the platform writes, or of numbers and booleans, or a
// single value instead of a list.
func listOf(value any) ([]string, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case bool:
		return []string{strconv.FormatBool(v)}, nil
	case int64:
		return []string{strconv.FormatInt(v, 10)}, nil
	case float64:
		return []string{strconv.FormatFloat(v, 'f', -1, 64)}, nil
	case []any:
		var values []string
		for _, item := range v {
			if _, nested := item.([]any); nested {
				return nil, errors.New("a list in a list is not supported")
			}
			one, err := listOf(item)
			if err != nil {
				return nil, err
			}
			values = append(values, one...)
		}
		return values, nil
	}
	return nil, errors.New("expected a value or a list of values")
}

// maxKey is the limit for a key in an error, in bytes.
const maxKey = 64

// quoteKey quotes the name of an argument, without "=" and a value after it, which may contain anything.
func quoteKey(key string) string {
	name, _, _ := strings.Cut(key, "=")
	return strconv.QuoteToASCII(name[:min(len(name), maxKey)])
}

// SPDX-License-Identifier: Apache-2.0

// Package kubeapiserver reads the configuration of a kube-apiserver in the
// shapes that it has had: OpenShift's KubeAPIServerConfig with
// apiServerArguments (4.6 on) or kubeletClientInfo (until 4.5), as compact JSON
// or as YAML, and command-line flags (kubeadm).
//
// It only says what is configured; what that means is for package check.
package kubeapiserver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/plainyaml"
)

// The arguments that this control is about, as kube-apiserver names them.
const (
	KubeletClientCertificate    = "kubelet-client-certificate"
	KubeletClientKey            = "kubelet-client-key"
	KubeletCertificateAuthority = "kubelet-certificate-authority"
	KubeletHTTPS                = "kubelet-https"
	KubeletReadOnlyPort         = "kubelet-read-only-port"
)

const (
	// OpenShiftConfigFlag names the file with the configuration on OpenShift.
	OpenShiftConfigFlag = "openshift-config"

	// MaxConfigBytes bounds a configuration: it comes out of a ConfigMap,
	// which may hold 1 MiB. A real one has about 15 KiB.
	MaxConfigBytes = 1 << 20

	configKind = "KubeAPIServerConfig"
)

// Config holds the arguments of one kube-apiserver. The zero value has none.
type Config struct {
	arguments map[string][]string
}

// Value is the value of an argument that counts: of several the last, as
// kube-apiserver's own flags take them. set is false where the argument is not
// there or has an empty list.
func (c Config) Value(name string) (value string, set bool) {
	values := c.arguments[name]
	if len(values) == 0 {
		return "", false
	}
	return values[len(values)-1], true
}

// Under returns the configuration with another one laid over it: what the
// other sets, counts.
func (c Config) Under(over Config) Config {
	arguments := maps.Clone(c.arguments)
	if arguments == nil {
		arguments = map[string][]string{}
	}
	maps.Copy(arguments, over.arguments)
	return Config{arguments}
}

// configFile is the little of a KubeAPIServerConfig that is looked at.
type configFile struct {
	Kind               string         `json:"kind"`
	APIServerArguments map[string]any `json:"apiServerArguments"`
	KubeletClientInfo  *clientInfo    `json:"kubeletClientInfo"`
}

// clientInfo is what had the files until OpenShift 4.5.
type clientInfo struct {
	CA       string `json:"ca"`
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
}

// ParseConfig reads a KubeAPIServerConfig, JSON or YAML. Unknown fields are
// left alone, since a configuration holds far more than is looked at here.
// Errors: too large, no JSON or YAML, another kind of object, an argument that
// is neither a value nor a list of values.
func ParseConfig(data []byte) (Config, error) {
	if len(data) > MaxConfigBytes {
		return Config{}, fmt.Errorf("it has %d bytes, more than %d", len(data), MaxConfigBytes)
	}
	if strings.TrimSpace(string(data)) == "" {
		return Config{}, errors.New("it is empty")
	}
	var file configFile
	if err := plainyaml.Unmarshal(data, &file); err != nil {
		return Config{}, fmt.Errorf("parse as %s: %w", configKind, err)
	}
	if file.Kind != "" && file.Kind != configKind {
		return Config{}, fmt.Errorf("its kind is another one than %s", configKind)
	}

	config := Config{arguments: map[string][]string{}}
	if info := file.KubeletClientInfo; info != nil {
		config.set(KubeletCertificateAuthority, info.CA)
		config.set(KubeletClientCertificate, info.CertFile)
		config.set(KubeletClientKey, info.KeyFile)
	}
	// OpenShift's kube-apiserver makes a flag of each value, argument by
	// argument in the order of their names (openshift/kubernetes
	// openshift-kube-apiserver/openshiftkubeapiserver, ConfigToFlags).
	for _, name := range slices.Sorted(maps.Keys(file.APIServerArguments)) {
		values, err := listOf(file.APIServerArguments[name])
		if err != nil {
			return Config{}, fmt.Errorf("apiServerArguments.%s: %w", name, err)
		}
		if len(values) > 0 {
			config.arguments[flagName(name)] = values
		}
	}
	return config, nil
}

// Override is one of the kubelet's arguments in a piece of configuration that
// is laid over the platform's.
type Override struct {
	Argument string
	// Field that gives it. Releases from 4.6 on read apiServerArguments alone,
	// earlier ones kubeletClientInfo too, so what one of them gives is no excuse
	// for the other.
	Field string
	// Values are empty where the override takes the platform's away.
	Values []string
}

// ParseOverrides reads spec.unsupportedConfigOverrides of KubeAPIServer
// "cluster" (JSON; null or nothing at all for none). They are merged into the
// platform's configuration map by map; whatever else stands in a map's place
// takes it away whole, null too (library-go pkg/operator/resource/
// resourcemerge, mergeConfig). The bounds and errors are those of
// [ParseConfig].
func ParseOverrides(data []byte) ([]Override, error) {
	if len(data) > MaxConfigBytes {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), MaxConfigBytes)
	}
	if len(data) == 0 {
		return nil, nil
	}
	var file map[string]any
	if err := plainyaml.UnmarshalJSON(data, &file); err != nil {
		return nil, errors.New("it is no JSON object")
	}
	var overrides []Override
	for _, field := range []struct {
		name string
		// arguments by their names in the field; nil where they are called the
		// same.
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
				// What stands behind "=" becomes part of the value.
				name, _, _ := strings.Cut(key, "=")
				argument = flagName(name)
			}
			if !slices.Contains(kubeletArguments(), argument) {
				continue
			}
			values, err := listOf(inside[key])
			if err != nil {
				return nil, fmt.Errorf("%s.%.64s: %w", field.name, key, err)
			}
			if _, tail, cut := strings.Cut(key, "="); cut {
				values = []string{tail}
			}
			overrides = append(overrides, Override{Argument: argument, Field: field.name, Values: values})
		}
	}
	return overrides, nil
}

// platformArguments are those that the platform gives values, which an override
// can take away.
func platformArguments() []string {
	return []string{KubeletClientCertificate, KubeletClientKey, KubeletCertificateAuthority}
}

func kubeletArguments() []string {
	return []string{KubeletClientCertificate, KubeletClientKey, KubeletCertificateAuthority, KubeletHTTPS, KubeletReadOnlyPort}
}

// flagName is the name as flags have it: kube-apiserver takes "_" for "-"
// (k8s.io/component-base/cli/flag, WordSepNormalizeFunc).
func flagName(name string) string { return strings.ReplaceAll(name, "_", "-") }

// set sets an argument unless it is empty.
func (c Config) set(name, value string) {
	if value != "" {
		c.arguments[name] = []string{value}
	}
}

// listOf takes what people write: a list of strings, as the platform does, or
// numbers and truth values in it, or a single value instead of a list.
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
				return nil, errors.New("a list in a list")
			}
			one, err := listOf(item)
			if err != nil {
				return nil, err
			}
			values = append(values, one...)
		}
		return values, nil
	}
	return nil, errors.New("neither a value nor a list of values")
}

// ParseFlags reads the words of a command line: "--name=value" and
// "--name value". Words may stand anywhere, since
// OpenShift starts kube-apiserver in a shell script; whatever is no flag is
// passed over.
func ParseFlags(words []string) Config {
	config := Config{arguments: map[string][]string{}}
	for i, word := range words {
		flag, found := strings.CutPrefix(word, "--")
		if !found {
			continue
		}
		name, value, hasValue := strings.Cut(flag, "=")
		name = flagName(name)
		switch {
		case hasValue:
		case name == KubeletHTTPS: // a truth value, which takes no second word
			value = "true"
		case i+1 < len(words) && !strings.HasPrefix(words[i+1], "-"):
			value = words[i+1]
		}
		config.arguments[name] = append(config.arguments[name], value)
	}
	return config
}

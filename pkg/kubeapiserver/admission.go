// SPDX-License-Identifier: Apache-2.0

package kubeapiserver

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

// The admission plugins that the guard needs. Both are enabled by default in every release that the guard supports
// (kubernetes pkg/kubeapiserver/options/plugins.go, DefaultOffAdmissionPlugins).
const (
	ValidatingAdmissionWebhook = "ValidatingAdmissionWebhook"
	ValidatingAdmissionPolicy  = "ValidatingAdmissionPolicy"
)

// The arguments that configure which admission plugins run, and how.
const (
	DisableAdmissionPlugins    = "disable-admission-plugins"
	AdmissionControl           = "admission-control"
	AdmissionControlConfigFile = "admission-control-config-file"
	RuntimeConfig              = "runtime-config"
	FeatureGates               = "feature-gates"
)

// The fields of a KubeAPIServerConfig for the same purpose (openshift/api config/v1/types.go, AdmissionConfig).
const (
	DisabledPluginsField = "admission.disabledPlugins"
	PluginConfigField    = "admission.pluginConfig"
)

// The API that the plugins need.
const (
	admissionAPI     = "admissionregistration.k8s.io/v1"
	webhooksResource = admissionAPI + "/validatingwebhookconfigurations"
	policiesResource = admissionAPI + "/validatingadmissionpolicies"
	bindingsResource = admissionAPI + "/validatingadmissionpolicybindings"
)

// MaxAdmissionFileBytes is the limit for an admission configuration file. A real one has a few KiB.
const MaxAdmissionFileBytes = 1 << 20

// ErrNotExamined is matched by an error if the file exceeds the limits of this package, so that it is not known
// whether kube-apiserver accepts it. Every other error of [ParseAdmissionFile], [ParseAdmissionPlugin] and
// [Config.AdmissionPlugins] means that kube-apiserver does not start with the file.
var ErrNotExamined = errors.New("it exceeds a limit")

// notExaminedError is an [ErrNotExamined] with its own text.
type notExaminedError string

func (e notExaminedError) Error() string { return string(e) }

// Is makes it an ErrNotExamined.
func (notExaminedError) Is(target error) bool { return target == ErrNotExamined }

// AdmissionSetting is a setting that disables an admission plugin of the guard, or the API that the plugin needs.
type AdmissionSetting struct {
	// Argument is the kube-apiserver argument with the setting, or one of
	// [DisabledPluginsField] and [PluginConfigField].
	Argument string
	// Setting is the relevant part of the argument's value: a plugin's name, or "name=value"
	// of an API or a feature gate. It is empty if the whole value is relevant
	// (admission-control, admission-control-config-file). It contains no free text.
	Setting string
	// Plugins are the disabled plugins, sorted by name.
	Plugins []string
}

// DisabledAdmission returns the settings that disable the guard's admission plugins, in a fixed order. kube-apiserver
// may not start with some of them, such as a plugin that is both enabled and disabled.
//
// The file of [AdmissionControlConfigFile] cannot disable a plugin: kube-apiserver reads the list of plugins from its
// arguments only, and the file only for the configuration of these plugins (k8s.io/apiserver
// pkg/server/options/admission.go, ApplyTo). So the file is not reported here.
//
// The result has no settings of an argument whose values are not all known; see [Config.AdmissionUndecided].
func (c Config) DisabledAdmission() []AdmissionSetting {
	return slices.DeleteFunc(slices.Concat(
		disabledByName(DisableAdmissionPlugins, c.arguments[DisableAdmissionPlugins]),
		c.disabledByExactList(),
		c.disabledByRuntimeConfig(),
		c.disabledByFeatureGate(),
		// OpenShift made flags of this field until 4.5 and has not read it since
		// (openshift/kubernetes openshift-kube-apiserver/openshiftkubeapiserver/flags.go,
		// admissionFlags). It is reported in any release: the platform never sets it, and it
		// has only this purpose.
		disabledByName(DisabledPluginsField, c.admission.disabledPlugins),
	), func(s AdmissionSetting) bool {
		return s.Argument != DisabledPluginsField && c.Undecided(s.Argument) != ""
	})
}

// AdmissionUndecided returns the first argument that affects whether the guard's plugins run and whose value is not
// known, and why. Both are empty if all values are known.
func (c Config) AdmissionUndecided() (argument, why string) {
	for _, argument := range admissionArguments() {
		if why := c.Undecided(argument); why != "" {
			return argument, why
		}
	}
	return "", ""
}

func guardPlugins() []string { return []string{ValidatingAdmissionPolicy, ValidatingAdmissionWebhook} }

// disabledByName looks for the plugins in the values of disable-admission-plugins. All occurrences of the argument
// count. kube-apiserver does not start if a plugin is in enable-admission-plugins as well (k8s.io/apiserver
// pkg/server/options/admission.go, Validate: "overlapped"); the setting is reported nevertheless, because it does not
// keep the plugin enabled. enable-admission-plugins alone disables nothing.
func disabledByName(argument string, values []string) []AdmissionSetting {
	var off []AdmissionSetting
	names := commaSeparated(values)
	for _, plugin := range guardPlugins() {
		if slices.Contains(names, plugin) {
			off = append(off, AdmissionSetting{Argument: argument, Setting: plugin, Plugins: []string{plugin}})
		}
	}
	return off
}

// disabledByExactList reads admission-control, which is deprecated since 1.10 and still exists in 1.37. It is an exact
// list, which disables all plugins that it does not name (kubernetes pkg/kubeapiserver/options/admission.go,
// computePluginNames). An empty value is a list, too. kube-apiserver does not start if enable- or
// disable-admission-plugins is set as well.
func (c Config) disabledByExactList() []AdmissionSetting {
	values, set := c.arguments[AdmissionControl]
	if !set {
		return nil
	}
	names := commaSeparated(values)
	missing := slices.DeleteFunc(guardPlugins(), func(plugin string) bool { return slices.Contains(names, plugin) })
	if len(missing) == 0 {
		return nil
	}
	return []AdmissionSetting{{Argument: AdmissionControl, Plugins: missing}}
}

// commaSeparated reads the values of a flag as pflag's StringSlice does: it reads the first line of each value as CSV,
// and all values count (github.com/spf13/pflag string_slice.go, readAsCSV).
func commaSeparated(values []string) []string {
	var all []string
	for _, value := range values {
		fields, err := csv.NewReader(strings.NewReader(value)).Read()
		if err != nil && value != "" {
			// kube-apiserver does not start with it; report the names that it was meant to have.
			fields = strings.Split(value, ",")
		}
		all = append(all, fields...)
	}
	return all
}

// disabledByRuntimeConfig returns the settings of runtime-config that remove API resources of the guard. Then the
// informers of the plugins never sync, and the plugins refuse every request as "not yet ready", whatever the policies
// and webhooks decide (k8s.io/apiserver pkg/admission/plugin/webhook/generic/webhook.go, Dispatch).
//
// The last value of a key counts. Keys are applied from general to specific, whatever their order: api/all,
// api/ga, the version, the resource (k8s.io/apiserver pkg/server/resourceconfig/helpers.go,
// MergeAPIResourceConfigs). kube-apiserver does not start with a value that is not a boolean; such a value is
// skipped here.
func (c Config) disabledByRuntimeConfig() []AdmissionSetting {
	given := pairs(c.arguments[RuntimeConfig])
	var off []AdmissionSetting
	for _, resource := range []struct{ name, plugin string }{
		{policiesResource, ValidatingAdmissionPolicy},
		{bindingsResource, ValidatingAdmissionPolicy},
		{webhooksResource, ValidatingAdmissionWebhook},
	} {
		disabled := ""
		for _, key := range []string{"api/all", "api/ga", admissionAPI, resource.name} {
			value, set := given[key]
			if !set {
				continue
			}
			if enabled, valid := runtimeConfigValue(key, value); valid && enabled {
				disabled = ""
			} else if valid {
				disabled = key + "=" + value
			}
		}
		if disabled == "" {
			continue
		}
		i := slices.IndexFunc(off, func(s AdmissionSetting) bool { return s.Setting == disabled })
		switch {
		case i < 0:
			off = append(off, AdmissionSetting{Argument: RuntimeConfig, Setting: disabled, Plugins: []string{resource.plugin}})
		case !slices.Contains(off[i].Plugins, resource.plugin):
			off[i].Plugins = append(off[i].Plugins, resource.plugin)
		}
	}
	return off
}

// runtimeConfigValue reads a value of runtime-config: exactly "true" or "false" for a group of APIs, any
// boolean for one API. An empty value for one API is true.
func runtimeConfigValue(key, value string) (enabled, valid bool) {
	switch {
	case strings.HasPrefix(key, "api/"):
		return value == "true", value == "true" || value == "false"
	case value == "":
		return true, true
	}
	enabled, err := strconv.ParseBool(value)
	return enabled, err == nil
}

// disabledByFeatureGate looks for the gate ValidatingAdmissionPolicy. In upstream Kubernetes the gate has no effect in
// the releases that the guard supports: in 1.30 and 1.31 it is GA and locked, so kube-apiserver does not start with
// "false"; from 1.32 on it does not exist (kubernetes pkg/features/kube_features.go of 1.30). OpenShift skips unknown
// gates (openshift/library-go pkg/features/features.go, setFeatureGates). It is reported because it has only this
// purpose. From 1.31 on a gate may have the prefix "kube:" (k8s.io/component-base compatibility/registry.go).
func (c Config) disabledByFeatureGate() []AdmissionSetting {
	given := pairs(c.arguments[FeatureGates])
	for _, gate := range []string{ValidatingAdmissionPolicy, "kube:" + ValidatingAdmissionPolicy} {
		if enabled, err := strconv.ParseBool(given[gate]); err == nil && !enabled {
			return []AdmissionSetting{{
				Argument: FeatureGates, Setting: gate + "=" + given[gate], Plugins: []string{ValidatingAdmissionPolicy},
			}}
		}
	}
	return nil
}

// pairs reads the values of a flag as "key=value,…". The last value of a key counts, and spaces around key and
// value are ignored (k8s.io/component-base cli/flag, ConfigurationMap and MapStringBool).
func pairs(values []string) map[string]string {
	all := map[string]string{}
	for _, value := range values {
		for pair := range strings.SplitSeq(value, ",") {
			key, value, _ := strings.Cut(pair, "=")
			all[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return all
}

// admissionConfig has the settings of a KubeAPIServerConfig, other than arguments, for the guard's admission plugins.
type admissionConfig struct {
	disabledPlugins []string
	// pluginConfig has the guard's plugins only.
	pluginConfig map[string]pluginConfig
}

// admissionField is the field "admission" of a KubeAPIServerConfig.
type admissionField struct {
	DisabledPlugins []string                `json:"disabledPlugins"`
	PluginConfig    map[string]pluginConfig `json:"pluginConfig"`
}

type pluginConfig struct {
	Location      string `json:"location"`
	Configuration any    `json:"configuration"`
}

func (f admissionField) config() admissionConfig {
	config := admissionConfig{disabledPlugins: f.DisabledPlugins}
	for _, plugin := range guardPlugins() {
		if entry, given := f.PluginConfig[plugin]; given {
			if config.pluginConfig == nil {
				config.pluginConfig = map[string]pluginConfig{}
			}
			config.pluginConfig[plugin] = entry
		}
	}
	return config
}

// mergedWith returns the settings with those of over, which have precedence.
func (a admissionConfig) mergedWith(over admissionConfig) admissionConfig {
	merged := admissionConfig{disabledPlugins: slices.Concat(a.disabledPlugins, over.disabledPlugins)}
	if len(a.pluginConfig)+len(over.pluginConfig) > 0 {
		merged.pluginConfig = map[string]pluginConfig{}
		maps.Copy(merged.pluginConfig, a.pluginConfig)
		maps.Copy(merged.pluginConfig, over.pluginConfig)
	}
	return merged
}

// ParseAdmissionOverrides reads spec.unsupportedConfigOverrides of KubeAPIServer "cluster" as [ParseOverrides]
// does, and returns the settings for the guard's admission plugins: those that [Config.DisabledAdmission]
// returns, a file for admission-control-config-file, which would replace the platform's, and entries of
// admission.pluginConfig, which the platform does not set for these plugins.
//
// The operator merges the lists of disable-admission-plugins with the platform's, and replaces the platform's
// values for all others (cluster-kube-apiserver-operator pkg/operator/targetconfigcontroller,
// manageKubeAPIServerConfig, specialMergeRules). An override that removes all arguments or all of admission,
// such as null, disables nothing: both plugins are enabled by default.
func ParseAdmissionOverrides(data []byte) ([]AdmissionSetting, error) {
	file, err := parseOverrides(data)
	if err != nil {
		return nil, err
	}
	arguments, _ := file["apiServerArguments"].(map[string]any)
	relevant := map[string]any{}
	for key, value := range arguments {
		if slices.Contains(admissionArguments(), argumentName(key)) {
			relevant[key] = value
		}
	}
	config := Config{arguments: map[string][]string{}}
	if err := config.add(relevant); err != nil {
		return nil, err
	}
	admission, _ := file["admission"].(map[string]any)
	if config.admission.disabledPlugins, err = listOf(admission["disabledPlugins"]); err != nil {
		return nil, fmt.Errorf("%s: %w", DisabledPluginsField, err)
	}

	settings := config.DisabledAdmission()
	if _, set := config.Value(AdmissionControlConfigFile); set {
		settings = append(settings, AdmissionSetting{Argument: AdmissionControlConfigFile, Plugins: guardPlugins()})
	}
	entries, _ := admission["pluginConfig"].(map[string]any)
	for _, plugin := range guardPlugins() {
		if _, given := entries[plugin]; given {
			setting := AdmissionSetting{Argument: PluginConfigField, Setting: plugin, Plugins: []string{plugin}}
			settings = append(settings, setting)
		}
	}
	return settings, nil
}

func admissionArguments() []string {
	return []string{DisableAdmissionPlugins, AdmissionControl, AdmissionControlConfigFile, RuntimeConfig, FeatureGates}
}

// AdmissionFile is the configuration of the guard's admission plugins: at most one entry for each. It cannot disable a
// plugin; see [Config.DisabledAdmission].
type AdmissionFile struct {
	Plugins []AdmissionPlugin
}

// AdmissionPlugin is the configuration of one of the guard's admission plugins.
type AdmissionPlugin struct {
	Name string
	// Path of the file with the configuration, for [ParseAdmissionPlugin]. A relative path
	// starts at the directory of the file that names it. If it is set, the fields below are
	// empty.
	Path string
	// KubeConfigFile has the credentials that kube-apiserver sends to webhooks.
	KubeConfigFile string
	// StaticManifestsDir has webhooks or policies that are not in the API (alpha in 1.36,
	// enabled by default in 1.37).
	StaticManifestsDir string
}

// AdmissionPlugins returns the entries of admission.pluginConfig of a KubeAPIServerConfig for the guard's
// plugins. It is empty if [AdmissionControlConfigFile] is set, which kube-apiserver uses instead
// (openshift/kubernetes openshift-kube-apiserver/openshiftkubeapiserver/flags.go, ConfigToFlags).
func (c Config) AdmissionPlugins() (AdmissionFile, error) {
	if _, set := c.Value(AdmissionControlConfigFile); set {
		return AdmissionFile{}, nil
	}
	var file AdmissionFile
	for _, name := range slices.Sorted(maps.Keys(c.admission.pluginConfig)) {
		entry := c.admission.pluginConfig[name]
		configuration, err := json.Marshal(entry.Configuration)
		if err != nil {
			return AdmissionFile{}, fmt.Errorf("%s.%s: %w", PluginConfigField, name, err)
		}
		plugin, err := admissionPlugin(name, entry.Location, configuration)
		if err != nil {
			return AdmissionFile{}, fmt.Errorf("%s.%w", PluginConfigField, err)
		}
		file.Plugins = append(file.Plugins, plugin)
	}
	return file, nil
}

// ParseAdmissionFile reads the file of [AdmissionControlConfigFile] as kube-apiserver does when it starts: an
// AdmissionConfiguration, JSON or YAML, without unknown fields (k8s.io/apiserver pkg/admission/config.go,
// ReadAdmissionConfiguration). It reads the entries of the guard's plugins only. It does not check whether the
// files and directories in them exist.
//
// For the meaning of an error see [ErrNotExamined].
func ParseAdmissionFile(data []byte) (AdmissionFile, error) {
	const kind = "AdmissionConfiguration"
	var header map[string]any
	if err := decode(data, &header, plainyaml.Unmarshal); err != nil {
		return AdmissionFile{}, invalidAdmission(kind, err)
	}
	got := typeOf(header)
	if got != (typeMeta{"apiserver.config.k8s.io/v1", kind}) && got != (typeMeta{"apiserver.k8s.io/v1alpha1", kind}) {
		// kube-apiserver still accepts an older format for two old plugins. A file in that
		// format has no configuration for other plugins.
		for _, key := range []string{"imagePolicy", "podNodeSelectorPluginConfig"} {
			if _, legacy := header[key]; legacy {
				return AdmissionFile{}, nil
			}
		}
		return AdmissionFile{}, fmt.Errorf("%s, expected %s of a known version", got, kind)
	}

	var object admissionObject
	if err := decode(data, &object, plainyaml.UnmarshalStrict); err != nil {
		return AdmissionFile{}, invalidAdmission(kind, err)
	}
	var file AdmissionFile
	for _, entry := range object.Plugins {
		known := slices.ContainsFunc(file.Plugins, func(p AdmissionPlugin) bool { return p.Name == entry.Name })
		if known || !slices.Contains(guardPlugins(), entry.Name) {
			continue // the first of several entries for a plugin counts
		}
		plugin, err := admissionPlugin(entry.Name, entry.Path, entry.Configuration)
		if err != nil {
			return AdmissionFile{}, err
		}
		file.Plugins = append(file.Plugins, plugin)
	}
	return file, nil
}

// admissionPlugin reads an entry. Its own configuration has precedence over a file.
func admissionPlugin(name, file string, configuration []byte) (AdmissionPlugin, error) {
	if len(configuration) == 0 || string(configuration) == "null" {
		return AdmissionPlugin{Name: name, Path: file}, nil
	}
	plugin, err := ParseAdmissionPlugin(name, configuration)
	if err != nil {
		return AdmissionPlugin{}, fmt.Errorf("%s: %w", name, err)
	}
	return plugin, nil
}

// ParseAdmissionPlugin reads the configuration of one of the guard's plugins, JSON or YAML, as kube-apiserver does when
// it starts: a WebhookAdmissionConfiguration (k8s.io/apiserver pkg/admission/plugin/webhook/config/kubeconfig.go,
// LoadConfig) or a ValidatingAdmissionPolicyConfiguration (pkg/admission/plugin/policy/config/config.go; before 1.36
// that plugin accepts any configuration). It also accepts WebhookAdmission, v1alpha1, of earlier releases.
//
// For the meaning of an error see [ErrNotExamined].
func ParseAdmissionPlugin(name string, data []byte) (AdmissionPlugin, error) {
	var header map[string]any
	if err := decode(data, &header, plainyaml.Unmarshal); err != nil {
		return AdmissionPlugin{}, err
	}
	unsupportedField := ""
	type of struct {
		plugin string
		typeMeta
	}
	switch (of{name, typeOf(header)}) {
	case of{ValidatingAdmissionWebhook, typeMeta{"apiserver.config.k8s.io/v1", "WebhookAdmissionConfiguration"}}:
	case of{ValidatingAdmissionWebhook, typeMeta{"apiserver.config.k8s.io/v1alpha1", "WebhookAdmission"}}:
		unsupportedField = "staticManifestsDir"
	case of{ValidatingAdmissionPolicy, typeMeta{"apiserver.config.k8s.io/v1", "ValidatingAdmissionPolicyConfiguration"}}:
		unsupportedField = "kubeConfigFile"
	default:
		return AdmissionPlugin{}, fmt.Errorf("%s, expected a configuration of this plugin", typeOf(header))
	}
	if _, given := header[unsupportedField]; given {
		return AdmissionPlugin{}, fmt.Errorf("kind %s has no field %s", typeOf(header).Kind, unsupportedField)
	}
	var object pluginObject
	if err := decode(data, &object, plainyaml.UnmarshalStrict); err != nil {
		return AdmissionPlugin{}, err
	}
	plugin := AdmissionPlugin{
		Name: name, KubeConfigFile: object.KubeConfigFile, StaticManifestsDir: object.StaticManifestsDir,
	}
	for _, named := range []struct{ field, path string }{
		{"kubeConfigFile", plugin.KubeConfigFile}, {"staticManifestsDir", plugin.StaticManifestsDir},
	} {
		if named.path != "" && !path.IsAbs(named.path) {
			return AdmissionPlugin{}, fmt.Errorf("%s: the path is not absolute", named.field)
		}
	}
	return plugin, nil
}

// typeMeta is the type of an object.
type typeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// String returns the type for an error.
func (m typeMeta) String() string {
	return "apiVersion is " + quoteType(m.APIVersion) + " and kind is " + quoteType(m.Kind)
}

// quoteType quotes an apiVersion or a kind for an error. A text that cannot be one is not quoted: it may contain
// anything.
func quoteType(text string) string {
	valid := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '/'
	}
	if len(text) > maxKey || strings.ContainsFunc(text, func(r rune) bool { return !valid(r) }) {
		return "(invalid)"
	}
	return strconv.Quote(text)
}

// admissionObject is an AdmissionConfiguration.
type admissionObject struct {
	typeMeta
	Plugins []admissionEntry `json:"plugins"`
}

type admissionEntry struct {
	Name          string          `json:"name"`
	Path          string          `json:"path"`
	Configuration json.RawMessage `json:"configuration"`
}

// pluginObject has the fields of the configurations of all plugins.
type pluginObject struct {
	typeMeta
	KubeConfigFile     string `json:"kubeConfigFile"`
	StaticManifestsDir string `json:"staticManifestsDir"`
}

func typeOf(object map[string]any) typeMeta {
	version, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	return typeMeta{version, kind}
}

// decode decodes within limits. The error is an [ErrNotExamined] if the data exceed them.
func decode(data []byte, into any, unmarshal func([]byte, any) error) error {
	if len(data) > MaxAdmissionFileBytes {
		return notExaminedError(fmt.Sprintf("it is too large: %d bytes, limit %d", len(data), MaxAdmissionFileBytes))
	}
	err := unmarshal(data, into)
	if errors.Is(err, plainyaml.ErrLimit) {
		return notExaminedError(err.Error())
	}
	return err
}

// invalidAdmission returns the error for data that are not an object of a kind, or not examined.
func invalidAdmission(kind string, err error) error {
	if errors.Is(err, ErrNotExamined) {
		return err
	}
	return fmt.Errorf("it is not a valid %s: %w", kind, err)
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configAdmission: the API server calls admission webhooks and evaluates policies. It does so
// unless an argument disables the plugins or their API (package kubeapiserver,
// [kubeapiserver.Config.DisabledAdmission]).
//
// An admission configuration file is legitimate: it has client credentials for webhooks, or
// static policies, and cannot disable a plugin. The kube-apiserver does not start with a file
// that it cannot parse.
func configAdmission(c Configuration, _ time.Time) []finding.Result {
	results := admissionDisabled(c.Config.DisabledAdmission(), c.argument,
		"remove the setting (on OpenShift: from spec.unsupportedConfigOverrides of kubeapiserver/cluster), "+
			"so that the guard takes effect again")
	if results != nil {
		return results
	}
	if argument, _ := c.Config.AdmissionUndecided(); argument != "" {
		return c.undecided(argument)
	}
	if _, err := c.Config.AdmissionPlugins(); err != nil {
		return admissionUnparsable(c.argument(kubeapiserver.PluginConfigField), err)
	}
	// The audit of a cluster does not read the files of a node. The node's agent checks them.
	if c.AdmissionFile.Path != "" || c.AdmissionFile.WhyUnknown != nil {
		if results := admissionFile(c.AdmissionFile, func(data []byte) error {
			_, err := kubeapiserver.ParseAdmissionFile(data)
			return err
		}); results != nil {
			return results
		}
	}
	for _, plugin := range slices.Sorted(maps.Keys(c.PluginFiles)) {
		if results := admissionFile(c.PluginFiles[plugin], func(data []byte) error {
			_, err := kubeapiserver.ParseAdmissionPlugin(plugin, data)
			return err
		}); results != nil {
			return results
		}
	}
	return nil
}

// PluginPaths returns the configuration files of the guard's plugins, by plugin. The paths are
// those of the kube-apiserver. A file is missing where what names it cannot be parsed.
func (c Configuration) PluginPaths() map[string]string {
	inConfig, _ := c.Config.AdmissionPlugins()                          // an error is a result of Check
	inFile, _ := kubeapiserver.ParseAdmissionFile(c.AdmissionFile.Data) // likewise
	paths := map[string]string{}
	for _, plugin := range slices.Concat(inConfig.Plugins, inFile.Plugins) {
		if plugin.Path != "" {
			paths[plugin.Name] = plugin.Path
		}
	}
	return paths
}

// admissionFile checks a file that kube-apiserver reads when it starts.
func admissionFile(file File, parse func([]byte) error) []finding.Result {
	at := finding.File(file.Path)
	switch problem := file.problem(); {
	case problem != nil:
		return []finding.Result{Unknown(*problem)}
	case file.missing():
		return unreadable(at, "the configuration of admission plugins", file.Err)
	}
	if err := parse(file.Data); err != nil {
		return admissionUnparsable(at, err)
	}
	return nil
}

// admissionDisabled reports settings that disable a plugin of the guard, or replace its
// configuration.
func admissionDisabled(
	settings []kubeapiserver.AdmissionSetting, at func(argument string) finding.Subject, remedy string,
) []finding.Result {
	var results []finding.Result
	for _, s := range settings {
		setting := s.Argument
		if s.Setting != "" {
			setting += " (" + s.Setting + ")"
		}
		// One result for each plugin: disabling a second plugin is a new finding.
		for _, plugin := range s.Plugins {
			message := setting + " disables " + plugin + ", so this part of the guard has no effect"
			if s.Argument == kubeapiserver.AdmissionControlConfigFile || s.Argument == kubeapiserver.PluginConfigField {
				message = setting + " replaces OpenShift's configuration of " + plugin
			}
			results = append(results, single(finding.AdmissionDisabled, at(s.Argument).Part(plugin), message, remedy)...)
		}
	}
	return results
}

// admissionUnparsable: kube-apiserver does not start with a configuration that it cannot parse.
// The result is unknown for one that exceeds the limits of this program.
func admissionUnparsable(at finding.Subject, err error) []finding.Result {
	if errors.Is(err, kubeapiserver.ErrNotExamined) {
		return single(finding.Unreadable, at,
			"cannot check the configuration of admission plugins: "+oneLine(err), "check it manually")
	}
	return single(finding.AdmissionDisabled, at,
		"cannot parse the configuration of admission plugins, so the kube-apiserver does not start with it: "+oneLine(err),
		"restore a valid AdmissionConfiguration")
}

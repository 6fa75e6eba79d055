// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// Configuration is the configuration of a kube-apiserver as it was read.
type Configuration struct {
	// At is its location: a file on the host, or a ConfigMap.
	At finding.Subject
	// WhyUnknown says why its location is not known, WhyNotApplicable why there is nothing to
	// check. No other field is set then.
	WhyUnknown       *finding.Result
	WhyNotApplicable string
	// Process is the program that runs the kube-apiserver in its own process, so that there is no configuration on disk;
	// empty if there can be one. Connection is what the kube-apiserver answered about its connection to the kubelet, nil
	// if it was not asked. No other field than At is set then.
	Process    string
	Connection *ConnectionAnswer
	// Missing: the configuration does not exist.
	Missing bool
	// ReadErr says why it could not be read.
	ReadErr error
	// Err says why it could not be parsed.
	Err error
	// Config is set if all fields above but At are zero.
	Config kubeapiserver.Config
	// CommandLineAt is the location of the command line that the configuration is merged
	// with. The zero value means the location of the configuration.
	CommandLineAt finding.Subject
	// AdmissionFile is the file that admission-control-config-file names.
	AdmissionFile File
	// PluginFiles are the configuration files of the guard's plugins, by plugin.
	PluginFiles map[string]File
}

// Check answers the requirements of a configuration.
func (c Configuration) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	if c.Process != "" {
		return c.inProcess(), time.Time{}
	}
	return runChecks(finding.Config, configurationChecks(), c, now), time.Time{}
}

func configurationChecks() []check[Configuration] {
	readable := []finding.Aspect{finding.Readable}
	argument := func(name string) func(Configuration) finding.Subject {
		return func(c Configuration) finding.Subject { return c.argument(name) }
	}
	return []check[Configuration]{
		{
			finding.Readable, nil,
			[]finding.Reason{
				finding.Unreadable, finding.StaleMount, finding.NotMounted, finding.ConfigMissing, finding.ConfigUnparsable,
				finding.NotChecked,
			},
			func(c Configuration) finding.Subject { return c.At }, configReadable,
		},
		{
			finding.ClientCertificate, readable, []finding.Reason{finding.ClientCertificateNotConfigured, finding.Unreadable},
			argument(kubeapiserver.KubeletClientCertificate), configClientCertificate,
		},
		{
			finding.ClientKey, readable, []finding.Reason{finding.ClientKeyNotConfigured, finding.Unreadable},
			argument(kubeapiserver.KubeletClientKey), configClientKey,
		},
		{
			finding.HTTPS, readable, []finding.Reason{finding.KubeletHTTPSDisabled, finding.Unreadable},
			argument(kubeapiserver.KubeletHTTPS), configHTTPS,
		},
		{
			finding.CertificateAuthority, readable, []finding.Reason{finding.KubeletCANotConfigured, finding.Unreadable},
			argument(kubeapiserver.KubeletCertificateAuthority), configKubeletCA,
		},
		{
			finding.ReadOnlyPort, readable, []finding.Reason{finding.ReadOnlyPortConfigured, finding.Unreadable},
			argument(kubeapiserver.KubeletReadOnlyPort), configReadOnlyPort,
		},
		{
			finding.Admission, readable, []finding.Reason{finding.AdmissionDisabled, finding.Unreadable, finding.StaleMount,
				finding.NotMounted},
			func(c Configuration) finding.Subject { return c.At }, configAdmission,
		},
	}
}

// configReadable: the configuration exists, in a format that kube-apiserver reads (see package kubeapiserver).
// Without it nothing shows that the kube-apiserver connects to kubelets over verified TLS.
func configReadable(c Configuration, _ time.Time) []finding.Result {
	switch {
	case c.WhyNotApplicable != "":
		return notApplicable(c.WhyNotApplicable)
	case c.WhyUnknown != nil:
		return []finding.Result{Unknown(*c.WhyUnknown)}
	case c.Missing:
		return single(finding.ConfigMissing, c.At,
			"the kube-apiserver's configuration does not exist",
			"find out why the kube-apiserver operator did not write it")
	case c.ReadErr != nil:
		return unreadable(c.At, "the kube-apiserver's configuration", c.ReadErr)
	case c.Err != nil:
		return single(finding.ConfigUnparsable, c.At,
			"cannot parse the kube-apiserver's configuration: "+oneLine(c.Err),
			"undo manual edits, and find out why the kube-apiserver operator did not overwrite them")
	}
	return nil
}

// argument locates one argument in the configuration.
func (c Configuration) argument(name string) finding.Subject { return c.At.Part(name) }

// undecided returns an unknown result if the value of an argument depends on something outside the manifest
// (package cmdline). It returns nil if the value is known.
func (c Configuration) undecided(argument string) []finding.Result {
	why := c.Config.Undecided(argument)
	if why == "" {
		return nil
	}
	at := c.CommandLineAt
	if at == (finding.Subject{}) {
		at = c.At
	}
	if why == c.Config.AllUndecided() {
		return single(finding.Unreadable, at,
			"the kube-apiserver's flags are not known: "+why,
			"write each argument literally in the manifest, or check the running process manually")
	}
	return single(finding.Unreadable, at.Part(argument),
		"the value of --"+argument+" is not known: "+why,
		"write the value literally in the manifest, or check the running process manually")
}

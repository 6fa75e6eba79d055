// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// Configuration is a kube-apiserver's configuration as it was found.
type Configuration struct {
	// At is where it stands: a file on the host, a ConfigMap.
	At finding.Location
	// Missing: there is none.
	Missing bool
	// ReadErr says why what is there could not be read.
	ReadErr error
	// Err says why what is there could not be parsed.
	Err error
	// Config holds where neither of the above does.
	Config kubeapiserver.Config
}

// ConfigurationFindings checks a configuration.
func ConfigurationFindings(c Configuration, now time.Time) []finding.Finding {
	return runAll(configurationChecks(), c, now)
}

// LookedFor are the reasons for which [ConfigurationFindings] could look.
func (c Configuration) LookedFor() []finding.Reason { return lookedFor(configurationChecks(), c) }

func configurationChecks() []check[Configuration] {
	return []check[Configuration]{
		{[]finding.Reason{finding.Unreadable, finding.StaleMount}, nil, configReadable},
		{[]finding.Reason{finding.ConfigMissing}, Configuration.seen, configExists},
		{[]finding.Reason{finding.ConfigUnparsable}, Configuration.wasRead, configParsable},
		{[]finding.Reason{finding.ClientCertificateNotConfigured, finding.ClientKeyNotConfigured}, Configuration.parsed, configClientPair},
		{[]finding.Reason{finding.KubeletHTTPSDisabled}, Configuration.parsed, configHTTPS},
		{[]finding.Reason{finding.KubeletCANotConfigured}, Configuration.parsed, configKubeletCA},
		{[]finding.Reason{finding.ReadOnlyPortConfigured}, Configuration.parsed, configReadOnlyPort},
	}
}

// seen: it is there or is not. wasRead: it is there.
func (c Configuration) seen() bool    { return c.Missing || c.ReadErr == nil }
func (c Configuration) wasRead() bool { return !c.Missing && c.ReadErr == nil }
func (c Configuration) parsed() bool  { return c.wasRead() && c.Err == nil }

// argument locates one argument in the configuration.
func (c Configuration) argument(name string) finding.Location {
	return c.At + finding.Location(" "+name)
}

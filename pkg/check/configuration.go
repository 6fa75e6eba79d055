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
	if c.Missing || c.ReadErr != nil || c.Err != nil {
		// Nothing more can be said of it.
		return runAll(configurationChecks()[:1], c, now)
	}
	return runAll(configurationChecks(), c, now)
}

func configurationChecks() []check[Configuration] {
	return []check[Configuration]{
		{[]finding.Reason{finding.ConfigMissing, finding.ConfigUnparsable, finding.Unreadable, finding.StaleMount}, configReadable},
		{[]finding.Reason{finding.ClientCertificateNotConfigured, finding.ClientKeyNotConfigured}, configClientPair},
		{[]finding.Reason{finding.KubeletHTTPSDisabled}, configHTTPS},
		{[]finding.Reason{finding.KubeletCANotConfigured}, configKubeletCA},
		{[]finding.Reason{finding.ReadOnlyPortConfigured}, configReadOnlyPort},
	}
}

// argument locates one argument in the configuration.
func (c Configuration) argument(name string) finding.Location {
	return c.At + finding.Location(" "+name)
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configReadOnlyPort: kubelet-read-only-port is not set, or is 0, as OpenShift sets it (cluster-kube-apiserver-operator
// bindata/assets/config/defaultconfig.yaml). The port is plain HTTP.
func configReadOnlyPort(c Configuration, _ time.Time) []finding.Result {
	if results := c.undecided(kubeapiserver.KubeletReadOnlyPort); results != nil {
		return results
	}
	value, set := c.Config.Value(kubeapiserver.KubeletReadOnlyPort)
	if !set || value == "0" {
		return nil
	}
	return single(finding.ReadOnlyPortConfigured, c.argument(kubeapiserver.KubeletReadOnlyPort),
		"kubelet-read-only-port is "+quoteName(value)+", a port without TLS",
		"set kubelet-read-only-port to 0")
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strconv"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configHTTPS: kubelet-https, an argument of OpenShift 4.6 to 4.8 that is true
// by default, is not false. kube-apiserver has no such argument from 4.9 on.
func configHTTPS(c Configuration, _ time.Time) []finding.Result {
	if results := c.undecided(kubeapiserver.KubeletHTTPS); results != nil {
		return results
	}
	value, set := c.Config.Value(kubeapiserver.KubeletHTTPS)
	if !set {
		return nil
	}
	if on, err := strconv.ParseBool(value); err == nil && on {
		return nil
	}
	return single(finding.KubeletHTTPSDisabled, c.argument(kubeapiserver.KubeletHTTPS),
		"kubelet-https is "+quoteName(value)+", so the kube-apiserver connects to kubelets without TLS",
		"remove kubelet-https")
}

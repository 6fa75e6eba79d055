// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strconv"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// configHTTPS: kubelet-https, an argument of OpenShift 4.6 to 4.8 that is true
// by default, is not turned off. From 4.9 on kube-apiserver knows it no more.
func configHTTPS(c Configuration, _ time.Time) []finding.Finding {
	value, set := c.Config.Value(kubeapiserver.KubeletHTTPS)
	if !set {
		return nil
	}
	if on, err := strconv.ParseBool(value); err == nil && on {
		return nil
	}
	return one(finding.KubeletHTTPSDisabled, c.argument(kubeapiserver.KubeletHTTPS),
		"kubelet-https is "+quoteName(value)+", so kubelets are spoken to without TLS",
		"remove kubelet-https")
}

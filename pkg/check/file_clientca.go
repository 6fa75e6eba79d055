// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// clientRoots returns the kubelet's client CAs, or why they are not known. The kubelet loads the bundle as a
// whole or not at all (Kubernetes staging/src/k8s.io/client-go/util/cert, NewPool); on OpenShift it is
// /etc/kubernetes/kubelet-ca.crt (machine-config-operator
// templates/master/01-master-kubelet/_base/files/kubelet.yaml).
func clientRoots(ca File) (pki.Bundle, *finding.Result) {
	var why string
	switch {
	case ca.WhyUnknown != nil:
		problem := Unknown(*ca.WhyUnknown)
		return pki.Bundle{}, &problem
	case ca.hidden():
		return pki.Bundle{}, ca.problem()
	case ca.Path == "":
		why = "is not configured"
	case ca.Err != nil:
		why = "cannot be read: " + oneLine(ca.Err)
	case !ca.Mode.IsRegular():
		why = "is " + kindOfFile(ca.Mode)
	case ca.Size > MaxFileBytes:
		why = fmt.Sprintf("is too large: %d bytes, limit %d", ca.Size, MaxFileBytes)
	default:
		roots, err := pki.ParseBundle(ca.Data)
		if err == nil {
			return roots, nil
		}
		why = oneLine(err)
	}
	at := finding.File(ca.Path)
	if ca.Path == "" {
		at.Name = "kubelet client CA bundle" // so that people know which file
	}
	return pki.Bundle{}, &single(finding.ClientCAUnavailable, at,
		"the certificate's issuer is not verified, because the kubelet's client CA bundle "+why,
		"restore the file (on OpenShift the machine-config-operator writes it), "+
			"or name another file with --kubelet-ca (chart: nodeagent.kubeletCA)")[0]
}

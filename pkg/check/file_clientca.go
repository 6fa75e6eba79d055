// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// fileClientCA: the CA bundle that the certificate is measured against can be
// read. The kubelet loads it as a whole or not at all (Kubernetes
// staging/src/k8s.io/client-go/util/cert, NewPool); on OpenShift it is
// /etc/kubernetes/kubelet-ca.crt (machine-config-operator
// templates/master/01-master-kubelet/_base/files/kubelet.yaml).
func fileClientCA(c ClientFiles, _ time.Time) []finding.Finding {
	ca := c.clientCA
	var why string
	switch {
	case ca.Err != nil:
		why = "it cannot be read: " + oneLine(ca.Err)
	case !ca.Mode.IsRegular():
		why = "it is " + kindOfFile(ca.Mode)
	case !ca.readable():
		why = "it is too large"
	case c.clientErr != nil:
		why = "it " + oneLine(c.clientErr)
	default:
		return nil
	}
	return one(finding.ClientCAUnavailable, finding.Location(ca.Path),
		"the kubelet's client CA is not to be had, so who issued the certificate was not checked: "+why,
		"restore the file; on OpenShift the machine-config-operator writes it")
}

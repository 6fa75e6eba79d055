// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// identity is the subject of a certificate by which kubelets recognise the kube-apiserver.
type identity struct{ commonName, organization string }

// identities returns the subjects that OpenShift (cluster-kube-apiserver-operator
// pkg/operator/certrotationcontroller) and kubeadm (cmd/kubeadm/app/phases/
// certs/certlist.go; system:masters until 1.28) issue.
func identities() []identity {
	return []identity{
		{"system:kube-apiserver", "kube-master"},
		{"kube-apiserver-kubelet-client", "kubeadm:cluster-admins"},
		{"kube-apiserver-kubelet-client", "system:masters"},
	}
}

// fileIdentity: the certificate identifies a kube-apiserver, and not another client that the
// kubelet may accept as well, or refuse as not authorized.
func fileIdentity(c ClientFiles, _ time.Time) []finding.Result {
	leaf := c.pair.Leaf()
	for _, known := range identities() {
		if leaf.Subject.CommonName == known.commonName && slices.Contains(leaf.Subject.Organization, known.organization) {
			return nil
		}
	}
	return single(finding.UnexpectedIdentity, c.pair.certificate.At,
		"the certificate identifies CN="+quoteName(leaf.Subject.CommonName)+
			", O="+quoteName(strings.Join(leaf.Subject.Organization, ", "))+", which is not a kube-apiserver",
		"find out who wrote it; OpenShift issues CN=system:kube-apiserver, O=kube-master")
}

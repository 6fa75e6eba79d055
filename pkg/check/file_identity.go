// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// identity is a subject that kubelets know as their kube-apiserver.
type identity struct{ commonName, organization string }

// identities are those that OpenShift (cluster-kube-apiserver-operator
// pkg/operator/certrotationcontroller) and kubeadm (cmd/kubeadm/app/phases/
// certs/certlist.go; system:masters until 1.28) issue.
func identities() []identity {
	return []identity{
		{"system:kube-apiserver", "kube-master"},
		{"kube-apiserver-kubelet-client", "kubeadm:cluster-admins"},
		{"kube-apiserver-kubelet-client", "system:masters"},
	}
}

// fileIdentity: the certificate is that of a kube-apiserver, not some other
// client's that the kubelet would also let in, or refuse as not authorised.
func fileIdentity(c ClientFiles, _ time.Time) []finding.Finding {
	leaf := c.pair.Leaf()
	for _, known := range identities() {
		if leaf.Subject.CommonName == known.commonName && slices.Contains(leaf.Subject.Organization, known.organization) {
			return nil
		}
	}
	return one(finding.UnexpectedIdentity, finding.Location(c.certificate.Path),
		"the certificate is that of CN="+quoteName(leaf.Subject.CommonName)+", O="+quoteName(strings.Join(leaf.Subject.Organization, ", "))+", not of a kube-apiserver",
		"find out who wrote it; OpenShift issues CN=system:kube-apiserver, O=kube-master")
}

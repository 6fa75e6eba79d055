// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// fileIdentity: the certificate identifies a kube-apiserver, and not another client that the
// kubelet may accept as well, or refuse as not authorized. Package layout has the subjects.
func fileIdentity(c ClientFiles, _ time.Time) []finding.Result {
	leaf := c.pair.Leaf()
	var names []string
	for _, known := range c.identities {
		if leaf.Subject.CommonName == known.CommonName && slices.Contains(leaf.Subject.Organization, known.Organization) {
			return nil
		}
		names = append(names, "CN="+known.CommonName+", O="+known.Organization)
	}
	return single(finding.UnexpectedIdentity, c.pair.certificate.At,
		"the certificate identifies CN="+quoteName(leaf.Subject.CommonName)+
			", O="+quoteName(strings.Join(leaf.Subject.Organization, ", "))+", which is not a kube-apiserver",
		"find out who wrote it; expected: "+strings.Join(names, "; or "))
}

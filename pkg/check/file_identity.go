// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// fileIdentity: the certificate identifies a kube-apiserver, and not another client that the
// kubelet may accept as well, or refuse as not authorized. Package layout has the subjects.
func fileIdentity(c ClientFiles, _ time.Time) []finding.Result {
	return identifies(c.pair, c.identities, "which is not a kube-apiserver")
}

// identifies: the certificate has one of the subjects; an empty organization means any. More organizations do not
// matter: a kubelet authorizes the user by any of them. what completes the message about another subject.
func identifies(pair KeyPair, identities []layout.Identity, what string) []finding.Result {
	leaf := pair.Leaf()
	var names []string
	for _, known := range identities {
		anyOf := known.Organization == ""
		if leaf.Subject.CommonName == known.CommonName &&
			(anyOf || slices.Contains(leaf.Subject.Organization, known.Organization)) {
			return nil
		}
		name := "CN=" + known.CommonName
		if !anyOf {
			name += ", O=" + known.Organization
		}
		names = append(names, name)
	}
	return single(finding.UnexpectedIdentity, pair.certificate.At,
		"the certificate identifies CN="+quoteName(leaf.Subject.CommonName)+
			", O="+quoteName(strings.Join(leaf.Subject.Organization, ", "))+", "+what,
		"find out who wrote it; expected: "+strings.Join(names, "; or "))
}

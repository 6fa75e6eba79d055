// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// secretDNSNames: the certificate holds for the names that clients call the
// server by, as TLS clients match them (RFC 6125, crypto/x509
// Certificate.VerifyHostname). The API aggregator calls openshift-apiserver as
// api.openshift-apiserver.svc.
func secretDNSNames(s protectedSecret, _ time.Time) []finding.Finding {
	leaf := s.pair.Leaf()
	var missing []string
	for _, name := range s.want.DNSNames {
		if leaf.VerifyHostname(name) != nil {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	names := strings.Join(missing, ", ")
	return one(finding.DNSNameMissing, s.want.at("tls.crt"),
		"the certificate does not hold for "+names,
		"issue it with the subject alternative name "+names)
}

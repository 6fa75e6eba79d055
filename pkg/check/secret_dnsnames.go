// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// secretDNSNames: the certificate is valid for the names that clients connect to, as TLS
// clients match them (RFC 6125, crypto/x509 Certificate.VerifyHostname). The API aggregator
// connects to openshift-apiserver as api.openshift-apiserver.svc.
func secretDNSNames(s secretFacts, _ time.Time) []finding.Result {
	if len(s.want.DNSNames) == 0 {
		return s.want.notConfigured(finding.ServingCert, s.want.at("tls.crt"),
			"no DNS name is configured for the certificate (dnsNames)")
	}
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
	return single(finding.DNSNameMissing, s.want.at("tls.crt"),
		"the certificate is not valid for "+names,
		"issue a certificate with the subject alternative name "+names)
}

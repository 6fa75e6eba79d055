// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// parsable: both halves are what crypto/tls.X509KeyPair loads, which is how
// kube-apiserver and openshift-apiserver read them: the first CERTIFICATE block
// is the leaf, encrypted keys are refused. Blocks behind the leaf are sent on
// unseen, and the other end gives up at one that is no certificate.
func parsable(p KeyPair, _ time.Time) []finding.Finding {
	var findings []finding.Finding
	if err := p.chainErr; err != nil && !errors.Is(err, pki.ErrEmpty) && !p.certificate.Hidden {
		findings = append(findings, finding.Finding{
			Reason: finding.CertificateUnparsable, Location: p.certificate.At,
			Message: "it " + err.Error(),
			Remedy:  "put a PEM certificate there, the server's or client's own first",
		})
	}
	if err := p.publicErr; err != nil && !errors.Is(err, pki.ErrEmpty) && !p.key.Hidden {
		findings = append(findings, finding.Finding{
			Reason: finding.KeyUnparsable, Location: p.key.At,
			Message: "it " + err.Error(),
			Remedy:  "put the unencrypted PEM private key of the certificate there",
		})
	}
	if err := p.chain.RestErr; err != nil {
		findings = append(findings, finding.Finding{
			Reason: finding.ChainUnparsable, Location: p.certificate.At,
			Message: oneLine(err),
			Remedy:  "write the certificate and its chain anew, without other text",
		})
	}
	if err := p.chain.Doubt; err != nil {
		findings = append(findings, finding.Finding{
			Reason: finding.ChainDoubtful, Location: p.certificate.At,
			Message: oneLine(err),
			Remedy:  "write the certificate and its chain anew, without other text",
		})
	}
	return findings
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// certificateParsable and keyParsable: each half is what crypto/tls.X509KeyPair
// loads, which is how kube-apiserver and openshift-apiserver read them: the first
// CERTIFICATE block is the leaf, encrypted keys are refused.
func certificateParsable(p KeyPair, _ time.Time) []finding.Finding {
	if p.chainErr == nil {
		return nil
	}
	return one(finding.CertificateUnparsable, p.certificate.At,
		"it "+p.chainErr.Error(),
		"put a PEM certificate there, the server's or client's own first")
}

func keyParsable(p KeyPair, _ time.Time) []finding.Finding {
	if p.publicErr == nil {
		return nil
	}
	return one(finding.KeyUnparsable, p.key.At,
		"it "+p.publicErr.Error(),
		"put the unencrypted PEM private key of the certificate there")
}

// chainParsable: blocks behind the leaf are sent on unseen, and the other end
// gives up at one that is no certificate.
func chainParsable(p KeyPair, _ time.Time) []finding.Finding {
	const remedy = "write the certificate and its chain anew, without other text"
	var findings []finding.Finding
	if err := p.chain.RestErr; err != nil {
		findings = append(findings, one(finding.ChainUnparsable, p.certificate.At, oneLine(err), remedy)...)
	}
	if err := p.chain.Doubt; err != nil {
		findings = append(findings, one(finding.ChainDoubtful, p.certificate.At, oneLine(err), remedy)...)
	}
	return findings
}

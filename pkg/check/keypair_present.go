// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// present: both halves are there and hold something.
//
// CIS OpenShift 1.2.4 (1.2.2 from v1.9) asks for the files and for both keys
// of the Secret. The API server asks of a Secret of type kubernetes.io/tls
// only that the keys exist; their values may be empty (Kubernetes
// pkg/apis/core/validation/validation.go, ValidateSecret).
func present(p KeyPair, _ time.Time) []finding.Finding {
	var findings []finding.Finding
	if !p.certificate.Hidden && errors.Is(p.chainErr, pki.ErrEmpty) {
		findings = append(findings, finding.Finding{
			Reason: finding.CertificateMissing, Location: p.certificate.At,
			Message: "there is no certificate, or it is empty",
			Remedy:  "put a PEM certificate and its key there together",
		})
	}
	if !p.key.Hidden && errors.Is(p.publicErr, pki.ErrEmpty) {
		findings = append(findings, finding.Finding{
			Reason: finding.KeyMissing, Location: p.key.At,
			Message: "there is no private key, or it is empty",
			Remedy:  "put the PEM private key of the certificate there",
		})
	}
	return findings
}

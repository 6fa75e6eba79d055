// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// certificatePresent and keyPresent: each half is there and holds something.
//
// CIS OpenShift 1.2.4 (1.2.2 from v1.9) asks for the files and for both keys
// of the Secret. The API server asks of a Secret of type kubernetes.io/tls
// only that the keys exist; their values may be empty (Kubernetes
// pkg/apis/core/validation/validation.go, ValidateSecret).
func certificatePresent(p KeyPair, _ time.Time) []finding.Finding {
	if p.hasCertificate() {
		return nil
	}
	return one(finding.CertificateMissing, p.certificate.At,
		"there is no certificate, or it is empty",
		"put a PEM certificate and its key there together")
}

func keyPresent(p KeyPair, _ time.Time) []finding.Finding {
	if p.hasKey() {
		return nil
	}
	return one(finding.KeyMissing, p.key.At,
		"there is no private key, or it is empty",
		"put the PEM private key of the certificate there")
}

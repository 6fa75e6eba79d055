// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// certificateOnly: the certificate file has no private key. Programs skip the block (crypto/tls.X509KeyPair),
// so nothing fails. But people print, copy and mail certificates, and kubeadm writes them with mode 0644 and
// keys with 0600 (client-go util/cert and util/keyutil).
//
// If one file is configured for both certificate and key, as for the kubelet's own (Kubernetes client-go
// util/certificate, certificate_store.go), the key belongs there. fileMode checks the mode of that file.
func certificateOnly(p KeyPair, now time.Time) []finding.Result {
	switch {
	case p.certificate.Problem != nil:
		return []finding.Result{Unknown(*p.certificate.Problem)}
	case len(p.certificate.Data) == 0, errors.Is(p.chainErr, pki.ErrEmpty):
		return []finding.Result{Unknown(certificateParses(p, now)[0])}
	case p.certificate.At == p.key.At, !pki.ContainsPrivateKey(p.certificate.Data):
		return nil
	}
	return single(finding.KeyInCertificateFile, p.certificate.At,
		"it contains a private key, but certificates are not protected like keys",
		"remove the PRIVATE KEY block; renew certificate and key if somebody could have read the key")
}

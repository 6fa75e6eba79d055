// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// certificateParses and keyParses: each half exists, and crypto/tls.X509KeyPair loads it, as kube-apiserver and
// openshift-apiserver do: the first CERTIFICATE block is the leaf, and encrypted keys are refused.
//
// The benchmark requires the files and both keys of the Secret. The API server requires only that a Secret of type
// kubernetes.io/tls has the keys; their values may be empty (Kubernetes pkg/apis/core/validation/validation.go,
// ValidateSecret).
func certificateParses(p KeyPair, _ time.Time) []finding.Result {
	switch {
	case p.certificate.Problem != nil:
		return []finding.Result{*p.certificate.Problem}
	case len(p.certificate.Data) == 0, errors.Is(p.chainErr, pki.ErrEmpty):
		return single(finding.CertificateMissing, p.certificate.At,
			"the certificate is missing or empty",
			p.want.remedy("store a PEM certificate and its key together"))
	case p.chainErr != nil:
		return p.unlessMLDSA(p.chainErr, single(finding.CertificateUnparsable, p.certificate.At,
			"it "+p.chainErr.Error(),
			"store a PEM certificate there, with the server's or client's own certificate first"))
	}
	return nil
}

func keyParses(p KeyPair, _ time.Time) []finding.Result {
	switch {
	case p.key.Problem != nil:
		return []finding.Result{*p.key.Problem}
	case len(p.key.Data) == 0, errors.Is(p.publicErr, pki.ErrEmpty):
		return single(finding.KeyMissing, p.key.At,
			"the private key is missing or empty",
			p.want.remedy("add the PEM private key that belongs to the certificate"))
	case p.publicErr != nil:
		return p.unlessMLDSA(p.publicErr, single(finding.KeyUnparsable, p.key.At,
			"it "+p.publicErr.Error(),
			"replace it with the unencrypted PEM private key that belongs to the certificate"))
	}
	return nil
}

// unlessMLDSA makes the result about a half that cannot be parsed unknown if only this program cannot: it has an ML-DSA
// key, and it is not known that the API server cannot use such keys.
func (p KeyPair) unlessMLDSA(err error, results []finding.Result) []finding.Result {
	supports, known := pki.GoSupportsMLDSA(p.want.GoVersion)
	if _, isMLDSA := errors.AsType[*pki.MLDSAError](err); isMLDSA && (supports || !known) {
		return []finding.Result{Unknown(results[0])}
	}
	return results
}

// chainParses: TLS programs send the blocks after the leaf without parsing them, and the
// peer ends the handshake if one of them is not a certificate.
func chainParses(p KeyPair, _ time.Time) []finding.Result {
	const remedy = "rewrite the certificate and its chain, without other text"
	var results []finding.Result
	if err := p.chain.RestErr; err != nil {
		results = append(results, single(finding.ChainUnparsable, p.certificate.At, oneLine(err), remedy)...)
	}
	if err := p.chain.SkippedErr; err != nil {
		results = append(results, single(finding.ChainDoubtful, p.certificate.At, oneLine(err), remedy)...)
	}
	return results
}

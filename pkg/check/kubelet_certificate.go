// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// kubeletCAReadable: the CA bundle by which the kube-apiserver knows kubelets can
// be looked at. That it is missing is of the kubelet's certificate.
func kubeletCAReadable(k Kubelet, _ time.Time) []finding.Finding {
	if k.measurable() {
		return nil
	}
	return unreadable(finding.Location(k.ca.Path), "the CA bundle by which the kube-apiserver knows kubelets", k.ca.Err)
}

// kubeletTrusted: the kube-apiserver, verifying as it is configured to, takes
// the kubelet's certificate: it leads to a CA of kubelet-certificate-authority,
// is for a server, holds now, and for the address that the node is called by
// (Kubernetes pkg/kubelet/client, over client-go transport). Without that
// argument nothing is verified, for which there is KubeletCANotConfigured.
func kubeletTrusted(k Kubelet, now time.Time) []finding.Finding {
	if k.roots == nil {
		return one(finding.KubeletCertificateUntrusted, k.answer.At,
			"the kube-apiserver can trust no kubelet: its CA bundle for them, "+k.ca.Path+", is missing or holds no certificate",
			"restore that file; on OpenShift the installer pod writes it at each new revision of the kube-apiserver")
	}
	leaf, intermediates := k.answer.Certificates[0], x509.NewCertPool()
	for _, certificate := range k.answer.Certificates[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: k.roots, Intermediates: intermediates, CurrentTime: now, DNSName: k.answer.Host,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err == nil {
		return nil
	}
	why := oneLine(err)
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		// Without the moment of the look, which would be another each time.
		why = "it, or a CA on the way, has expired or is not valid yet (it is valid from " + at(leaf.NotBefore) + " to " + at(leaf.NotAfter) + ")"
	} else if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		why = "it was issued by " + quoteName(leaf.Issuer.CommonName) + ", which leads to no CA of " + k.ca.Path
	}
	return one(finding.KubeletCertificateUntrusted, k.answer.At,
		"the kube-apiserver does not trust the kubelet's certificate: "+why,
		"approve the kubelet's pending certificate signing request (oc get csr), or bring the CA bundle up to date")
}

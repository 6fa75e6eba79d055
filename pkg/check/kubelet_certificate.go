// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// kubeletTrusted: the kube-apiserver, as it is configured, accepts the kubelet's certificate: a CA of
// kubelet-certificate-authority signed it, it is for a server, and it is valid now and for the address that the
// kube-apiserver connects to (Kubernetes pkg/kubelet/client, over client-go transport; see kubeletAddress). Without
// that argument the kube-apiserver verifies nothing, which KubeletCANotConfigured reports.
func kubeletTrusted(k Kubelet, now time.Time) []finding.Result {
	if unsupported := kubeletAlgorithm(k.answer, k.known.GoVersion); unsupported != nil {
		return unsupported
	}
	switch problem := k.ca.problem(); {
	case k.ca.WhyUnknown != nil:
		return []finding.Result{Unknown(*k.ca.WhyUnknown)}
	case k.ca.Path == "":
		return notApplicable("kubelet-certificate-authority is not set, so the kube-apiserver does not verify kubelets")
	case problem != nil && problem.Outcome == finding.Unknown:
		return unreadable(finding.File(k.ca.Path), "the kube-apiserver's CA bundle for kubelets", k.ca.Err)
	case k.roots == nil:
		return single(finding.KubeletCertificateUntrusted, k.answer.At,
			"the kube-apiserver cannot verify any kubelet: its CA bundle "+k.ca.Path+" is missing or contains no certificate",
			"restore that file; on OpenShift the installer Pod writes it for each new revision of the kube-apiserver")
	}
	why, unknownIssuer := whyDistrusted(k.answer.Certificates, k.roots, now)
	switch issuer := k.answer.Certificates[0].Issuer.CommonName; {
	case unknownIssuer && k.unusable != nil:
		return maySignUnusable(k.answer.At, "the kubelet's certificate", k.ca.Path, k.unusable)
	case unknownIssuer:
		return k.untrusted("it was issued by " + quoteName(issuer) + " and is not signed by a CA in " + k.ca.Path)
	case why != "":
		return k.untrusted(why)
	}
	return k.validForAddress(k.answer.Certificates[0])
}

// kubeletAlgorithm: the API server can use the algorithms of the kubelet's certificate, which it must even if it does
// not verify it.
func kubeletAlgorithm(answer *KubeletAnswer, goVersion string) []finding.Result {
	for _, certificate := range answer.Certificates {
		if algorithm := pki.MLDSAOf(certificate); algorithm != "" {
			return mldsaSupported(answer.At, "the kubelet's certificate", algorithm, goVersion)
		}
	}
	return nil
}

// whyDistrusted says why a kubelet's certificates, its own first, do not lead to one of the roots, for a server. It is
// empty if they do, or if unknownIssuer is true: none of the roots signed it. It quotes nothing of the certificates.
func whyDistrusted(
	certificates []*x509.Certificate, roots *x509.CertPool, now time.Time,
) (why string, unknownIssuer bool) {
	leaf, intermediates := certificates[0], x509.NewCertPool()
	for _, certificate := range certificates[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err == nil {
		return "", false
	}
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case isInvalid && invalid.Reason == x509.Expired:
		// Without the time of the check, which differs each time.
		return "it, or a CA in its chain, has expired or is not yet valid (it is valid from " + timestamp(leaf.NotBefore) +
			" to " + timestamp(leaf.NotAfter) + ")", false
	case isUnknown:
		return "", true
	case isInvalid && invalid.Reason == x509.IncompatibleUsage:
		return "its extended key usage does not include serverAuth, so it is not for a server", false
	}
	return "it cannot be verified: a CA in its chain may not issue it, or it has an extension that is not known", false
}

func (k Kubelet) untrusted(why string) []finding.Result {
	return single(finding.KubeletCertificateUntrusted, k.answer.At,
		"the kube-apiserver does not trust the kubelet's certificate: "+why,
		"approve the kubelet's pending certificate signing request (oc get csr), or update the CA bundle")
}

// validForAddress: the certificate is valid for the address that the kube-apiserver connects to.
func (k Kubelet) validForAddress(leaf *x509.Certificate) []finding.Result {
	address, assumption, why := k.kubeletAddress()
	if why != "" {
		return single(finding.NotChecked, k.answer.At,
			"cannot check the address in the kubelet's certificate: "+
				"it is not known which address the kube-apiserver connects to: "+why,
			"set --node-name, set --kubelet-address to an IP address, "+
				"or put InternalIP first in kubelet-preferred-address-types")
	}
	if err := leaf.VerifyHostname(address); err != nil {
		return k.untrusted(oneLine(err) + " (kubelet-preferred-address-types begins with " + k.addressType() + ")")
	}
	if assumption != "" {
		return []finding.Result{{Subject: k.answer.At, Outcome: finding.Pass, Message: Assuming(assumption)}}
	}
	return nil
}

// The types of node addresses (Kubernetes core/v1, NodeAddressType).
const (
	addressHostname   = "Hostname"
	addressInternalIP = "InternalIP"
)

// addressType returns the first of the kube-apiserver's kubelet-preferred-address-types.
func (k Kubelet) addressType() string {
	if len(k.known.AddressTypes) == 0 {
		return kubeapiserver.DefaultKubeletAddressTypes()[0]
	}
	return k.known.AddressTypes[0]
}

// kubeletAddress returns the address that the kube-apiserver connects to: the first preferred type that the Node has
// (Kubernetes pkg/util/node, GetPreferredNodeAddress). Each Node has a Hostname, which normally is its name
// (pkg/kubelet/nodestatus/setters.go), and an InternalIP, which the agent gets by a flag. It is not known whether the
// Node has addresses of other types. why says why the address is not known.
func (k Kubelet) kubeletAddress() (address, assumption, why string) {
	if unknown := k.known.WhyAddressTypesUnknown; unknown != "" {
		return "", "", "the value of --kubelet-preferred-address-types is not known: " + unknown
	}
	switch first := k.addressType(); first {
	case addressHostname:
		if k.known.NodeName == "" {
			return "", "", "kubelet-preferred-address-types begins with Hostname, and the node's name is not configured"
		}
		return k.known.NodeName, "the Hostname address of the node is its name, " + quoteName(k.known.NodeName), ""
	case addressInternalIP:
		if net.ParseIP(k.answer.Host) == nil {
			return "", "", "kubelet-preferred-address-types begins with InternalIP, and --kubelet-address is not an IP address"
		}
		return k.answer.Host, "", ""
	default:
		return "", "", "kubelet-preferred-address-types begins with " + quoteName(first) +
			", and it is not known whether the node has such an address"
	}
}

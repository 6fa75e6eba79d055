// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// nodeKubeletTrusted: the kube-apiserver accepts the kubelet's certificate, as in kubeletTrusted. The address that the
// kube-apiserver connects to is known from the Node.
func nodeKubeletTrusted(k NodeKubelet, now time.Time) []finding.Result {
	switch {
	case k.CA.NotConfigured:
		return notApplicable("kubelet-certificate-authority is not set, so the kube-apiserver does not verify kubelets")
	case k.CA.WhyUnknown != nil:
		return []finding.Result{Unknown(*k.CA.WhyUnknown)}
	case k.CA.Roots == nil:
		return single(finding.NotChecked, k.at(),
			"it is not known with which CAs the kube-apiserver verifies kubelets",
			"run the node agent, which reads them from the kube-apiserver's configuration on each control-plane node")
	}
	why := whyDistrusted(k.Answer.Certificates, k.CA.Roots, k.CA.At, now)
	if leaf := k.Answer.Certificates[0]; why == "" && leaf.VerifyHostname(k.Answer.Host) != nil {
		why = "it is not valid for " + quoteName(k.Answer.Host) +
			", the address that the kube-apiserver connects to, but for " + subjectAltNames(leaf)
	}
	if why == "" {
		return nil
	}
	return single(finding.KubeletCertificateUntrusted, k.at(),
		"the kube-apiserver does not trust the kubelet's certificate: "+why+k.because(),
		"approve the kubelet's pending certificate signing request (oc get csr), or update the CA bundle")
}

// maxNamesInMessage is the limit for the number of names of a certificate in a message.
const maxNamesInMessage = 3

// subjectAltNames returns the names and addresses of a certificate, with a limit.
func subjectAltNames(leaf *x509.Certificate) string {
	var names []string
	for _, ip := range leaf.IPAddresses {
		if address, ok := netip.AddrFromSlice(ip); ok {
			names = append(names, address.Unmap().String())
		}
	}
	for _, name := range leaf.DNSNames {
		names = append(names, quoteName(name))
	}
	switch more := len(names) - maxNamesInMessage; {
	case len(names) == 0:
		return "no name or address"
	case more > 0:
		return strings.Join(names[:maxNamesInMessage], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

// The identity of a kubelet's serving certificate. The signer kubernetes.io/kubelet-serving requires it (Kubernetes
// pkg/apis/certificates/helpers.go, ValidateKubeletServingCSR).
const nodeUserPrefix, nodesGroup = "system:node:", "system:nodes"

// nodeKubeletIdentity: the certificate identifies the kubelet of this Node, and not another server. It is a warning: a
// kubelet without a signed certificate makes its own with another name (Kubernetes pkg/kubelet/certificate/bootstrap
// and cmd/kubelet/app/server.go, InitializeTLS), as kubeadm leaves it by default, and no kube-apiserver up to 1.37
// looks at the name.
func nodeKubeletIdentity(k NodeKubelet, _ time.Time) []finding.Result {
	subject, want := k.Answer.Certificates[0].Subject, nodeUserPrefix+k.Node
	var problem string
	switch {
	case subject.CommonName != want:
		problem = "its common name is " + quoteName(subject.CommonName) + ", want " + quoteName(want)
	case !slices.Contains(subject.Organization, nodesGroup):
		problem = "its organizations do not include " + quoteName(nodesGroup)
	default:
		return nil
	}
	return single(finding.KubeletIdentityUnexpected, k.at(),
		"the certificate does not identify the kubelet of this Node: "+problem,
		"set serverTLSBootstrap: true in the kubelet's configuration and approve its certificate signing requests; "+
			"if the kubelet has a signed certificate, check who wrote the Node's address")
}

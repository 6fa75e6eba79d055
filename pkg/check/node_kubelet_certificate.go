// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// nodeKubeletTrusted: the kube-apiserver accepts the kubelet's certificate, as in kubeletTrusted. The address that the
// kube-apiserver connects to is known from the Node. The server at that address may be anything, so no message quotes a
// name of its certificate.
func nodeKubeletTrusted(k NodeKubelet, now time.Time) []finding.Result {
	tls := nodeKubeletTLS(k, now)
	for i := range tls {
		tls[i].Requirement = finding.NodeKubelet.Requires(finding.TLS)
	}
	withoutTLS := missingNeed(finding.NodeKubelet, []finding.Aspect{finding.TLS}, tls)
	if withoutTLS == nil {
		if unsupported := kubeletAlgorithm(k.Answer, k.GoVersion); unsupported != nil {
			return unsupported
		}
	}
	switch {
	case k.CA.NotConfigured:
		return notApplicable("kubelet-certificate-authority is not set, so the kube-apiserver does not verify kubelets")
	case withoutTLS != nil:
		return withoutTLS
	case k.CA.WhyUnknown != nil:
		return []finding.Result{Unknown(*k.CA.WhyUnknown)}
	case k.CA.Roots == nil:
		return single(finding.NotChecked, k.at(),
			"it is not known with which CAs the kube-apiserver verifies kubelets",
			"run the node agent, which reads them from the kube-apiserver's configuration on each control-plane node")
	}
	why, unknownIssuer := whyDistrusted(k.Answer.Certificates, k.CA.Roots, now)
	leaf := k.Answer.Certificates[0]
	switch {
	case unknownIssuer && k.CA.Unusable != nil:
		return maySignUnusable(k.at(), "the kubelet's certificate", k.CA.At, k.CA.Unusable)
	case unknownIssuer:
		why = "it is not signed by a CA in " + k.CA.At
	case why == "" && leaf.VerifyHostname(k.Answer.Host) != nil && len(leaf.IPAddresses)+len(leaf.DNSNames) == 0:
		why = "it is not valid for any name or address"
	case why == "" && leaf.VerifyHostname(k.Answer.Host) != nil:
		why = "it is not valid for " + quoteName(k.Answer.Host) + ", the address that the kube-apiserver connects to, " +
			"but for other names or addresses"
	}
	if why == "" {
		return nil
	}
	return single(finding.KubeletCertificateUntrusted, k.at(),
		"the kube-apiserver does not trust the kubelet's certificate: "+why+k.because(),
		"approve the kubelet's pending certificate signing request (oc get csr), or update the CA bundle")
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
		problem = "its common name is not " + quoteName(want)
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

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// NodeKubelet has the response of the kubelet of a Node, as seen from the control plane, and what it is compared with.
// Unlike [Kubelet] it needs no file of the Node.
type NodeKubelet struct {
	// Node is the name of the Node.
	Node string
	// Answer is the response. It is nil if the kubelet was not asked because its address cannot be used; NotAsked says
	// why. Its Host is the address that the kube-apiserver connects to.
	Answer   *KubeletAnswer
	NotAsked string
	// Excuse says why the kubelet may be unreachable: "the Node is not ready". It is empty if it should be reachable.
	Excuse string
	// ReadOnlyFiltered: a firewall on the way blocks the read-only port.
	ReadOnlyFiltered bool
	// Request describes a certificate signing request of the kubelet that was not signed. It is empty if all
	// are signed, or if that is not known.
	Request string
	CA      KubeletCA
	// GoVersion of the API server, as in [Expectation].
	GoVersion string
}

// KubeletCA has the CAs that the kube-apiserver verifies kubelets with. The zero value is not known.
type KubeletCA struct {
	// At is where they are from, in words.
	At    string
	Roots *x509.CertPool
	// Unusable says what of the CA bundle is not in Roots; see [pki.Bundle].
	Unusable error
	// NotConfigured: the kube-apiserver does not verify kubelets.
	NotConfigured bool
	// WhyUnknown says why they are not known. It is nil if they are, or if they are not configured.
	WhyUnknown *finding.Result
}

// Check answers the requirements of the Node's kubelet. next is always zero: the kubelet is asked again before a
// result can change by time alone.
func (k NodeKubelet) Check(now time.Time) (results []finding.Result, next time.Time) {
	if k.Answer != nil {
		answer := *k.Answer
		answer.At, answer.ReadOnlyAt = k.at(), k.at()
		k.Answer = &answer
	}
	return runChecks(finding.NodeKubelet, nodeKubeletChecks(), k, now), time.Time{}
}

// NodeKubeletRequirements returns the requirements that [NodeKubelet.Check] answers, in its order.
func NodeKubeletRequirements() []finding.Requirement {
	var all []finding.Requirement
	for _, c := range nodeKubeletChecks() {
		all = append(all, finding.NodeKubelet.Requires(c.aspect))
	}
	return all
}

// NodeKubeletCanFail reports whether one of [NodeKubeletRequirements] can fail; others have warnings only.
func NodeKubeletCanFail(requirement finding.Requirement) bool {
	return slices.ContainsFunc(tables()[requirement], func(r finding.Reason) bool { return r.Outcome() == finding.Fail })
}

func (k NodeKubelet) at() finding.Subject {
	return finding.Subject{Kind: finding.KindNode, Name: k.Node}
}

func nodeKubeletChecks() []check[NodeKubelet] {
	overTLS := []finding.Aspect{finding.TLS}
	return []check[NodeKubelet]{
		{
			finding.TLS, nil,
			[]finding.Reason{
				finding.KubeletNotTLS, finding.KubeletHasNoCertificate, finding.KubeletRefusesHandshake,
				finding.KubeletUnreachable, finding.NodeAddressUnusable,
			},
			NodeKubelet.at, nodeKubeletTLS,
		},
		{
			// If the kube-apiserver does not verify kubelets, that is known of Nodes that do not answer, too.
			finding.ServingTrusted, nil,
			[]finding.Reason{
				finding.KubeletCertificateUntrusted, finding.AlgorithmUnsupported, finding.CAUnusable, finding.NotChecked,
			},
			NodeKubelet.at, nodeKubeletTrusted,
		},
		{
			finding.ClientRequested, overTLS, []finding.Reason{finding.ClientCertificateNotAccepted},
			NodeKubelet.at, nodeKubeletRequestsClient,
		},
		{
			finding.Identity, overTLS, []finding.Reason{finding.KubeletIdentityUnexpected},
			NodeKubelet.at, nodeKubeletIdentity,
		},
		{
			finding.ReadOnlyPort, nil,
			[]finding.Reason{finding.ReadOnlyPortOpen, finding.KubeletUnreachable, finding.NotChecked},
			NodeKubelet.at, nodeKubeletReadOnlyPort,
		},
	}
}

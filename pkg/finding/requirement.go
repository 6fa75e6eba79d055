// SPDX-License-Identifier: Apache-2.0

package finding

import "strings"

// Family is a group of requirements of one kind of subject. The kubelet client pair on a node and each protected Secret
// have the same aspects; the family distinguishes them.
type Family string

// The families.
const (
	// Platform: where the control plane of the cluster runs.
	Platform Family = "platform"
	// Manifest is the kube-apiserver's static pod manifest on a node.
	Manifest Family = "manifest"
	// Config is the kube-apiserver's configuration: on a node, or in the cluster, where
	// OpenShift's operator writes it.
	Config Family = "config"
	// ClientFiles are the files of the kubelet client pair on a node.
	ClientFiles Family = "client-files"
	// Kubelet is a node's kubelet, observed by a TLS handshake.
	Kubelet Family = "kubelet"
	// NodeKubelet is the kubelet of any Node, observed by a TLS handshake from the control plane.
	NodeKubelet Family = "node-kubelet"
	// ServingCert is Secret openshift-apiserver/serving-cert.
	ServingCert Family = "serving-cert"
	// KubeletClient is Secret openshift-kube-apiserver/kubelet-client.
	KubeletClient Family = "kubelet-client"
	// AddedSecret is any other Secret that is configured as protected.
	AddedSecret Family = "protected-secret"
	// Overrides are settings that people set over OpenShift's configuration.
	Overrides Family = "overrides"
	// Guard is the guard itself.
	Guard Family = "guard"
)

// Aspect is one property that is required of a family's subject.
type Aspect string

// The aspects of several families.
const (
	ControlPlane Aspect = "control-plane" // is in this cluster
	Readable     Aspect = "readable"      // exists, can be read and has a valid format
)

// The aspects of a manifest.
const (
	Single Aspect = "single" // no other manifest defines the same Pod
)

// The aspects of a configuration.
const (
	ClientCertificate    Aspect = "client-certificate"    // kubelet-client-certificate is set
	ClientKey            Aspect = "client-key"            // kubelet-client-key is set
	HTTPS                Aspect = "https"                 // kubelet-https is not false
	CertificateAuthority Aspect = "certificate-authority" // kubelet-certificate-authority is set
	ReadOnlyPort         Aspect = "read-only-port"        // is closed
	Admission            Aspect = "admission"             // the plugins that the guard needs are enabled
)

// The aspects of a pair.
const (
	Certificate Aspect = "certificate" // exists, and can be parsed
	Key         Aspect = "key"         // exists, and can be parsed
	Chain       Aspect = "chain"       // what follows the certificate can be parsed
	Pair        Aspect = "pair"        // the key matches the certificate
	Validity    Aspect = "validity"    // the certificate is valid, and does not expire soon
	Usage       Aspect = "usage"       // its extended key usage includes the required one
	Strength    Aspect = "strength"    // key size and signature algorithm
	Issuer      Aspect = "issuer"      // it is signed by a known CA
	// CertificateOnly: the certificate's file, or tls.crt, contains no private key.
	CertificateOnly Aspect = "certificate-only"
)

// The aspects of files.
const (
	KeyFileMode Aspect = "key-file-mode" // only root can read the key
	Identity    Aspect = "identity"      // the certificate identifies a kube-apiserver, or a Node's kubelet
)

// The aspects of a Secret.
const (
	Exists   Aspect = "exists"
	Type     Aspect = "type"
	DNSNames Aspect = "dns-names" // the certificate is valid for the names that clients use
	Renewal  Aspect = "renewal"   // its controller keeps renewing it
	Service  Aspect = "service"   // service-ca still issues for the Service
	Served   Aspect = "served"    // the endpoints of the Service serve the stored certificate
	Selected Aspect = "selected"  // its namespace has the labels that select it
	// ConfiguredKey: the certificate's key is the one that OpenShift's PKI object configures.
	ConfiguredKey Aspect = "configured-key"
)

// The aspects of a kubelet.
const (
	TLS            Aspect = "tls"             // it speaks TLS
	ServingTrusted Aspect = "serving-trusted" // the kube-apiserver trusts its certificate
	ClientAccepted Aspect = "client-accepted" // it accepts the kube-apiserver's certificate
	Connection     Aspect = "connection"      // the running kube-apiserver connects to it
	// ClientRequested: it requests client certificates. Whether it accepts the kube-apiserver's is not known.
	ClientRequested Aspect = "client-requested"
)

// The aspects of overrides.
const (
	KubeletArguments Aspect = "kubelet-arguments" // nothing weakens the connection to kubelets
)

// The aspects of the guard.
const (
	Installed     Aspect = "installed"      // its objects are in the API as they were installed
	Action        Aspect = "action"         // changes that break the rule are refused, not only recorded
	PolicyRefuses Aspect = "policy-refuses" // observed: each API server refuses by the policy
	WebhookAsked  Aspect = "webhook-asked"  // observed: each API server refuses by the webhook
)

// Requires returns the requirement for an aspect of the family.
func (f Family) Requires(a Aspect) Requirement { return Requirement(string(f) + "/" + string(a)) }

// Family returns the family of the requirement.
func (r Requirement) Family() Family {
	family, _, _ := strings.Cut(string(r), "/")
	return Family(family)
}

// Aspect returns the aspect of the requirement.
func (r Requirement) Aspect() Aspect {
	_, aspect, _ := strings.Cut(string(r), "/")
	return Aspect(aspect)
}

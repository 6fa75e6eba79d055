// SPDX-License-Identifier: Apache-2.0

package control

import (
	"slices"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// IDs of the controls.
const (
	UseHTTPS         = "use-https"
	ClientPair       = "client-pair"
	KubeletCA        = "kubelet-ca"
	KeyFileMode      = "key-file-mode"
	GuardInForce     = "guard-in-force"
	ProtectedSecrets = "protected-secrets"
	AdmissionEnabled = "admission-enabled"
)

// Table returns all controls, the product's own first.
func Table() []Control {
	return []Control{
		useHTTPS(),
		guardInForce(),
		admissionEnabled(),
		protectedSecrets(),
		clientPair(),
		kubeletCA(),
		keyFileMode(),
	}
}

// ByID returns the control with one of the IDs above. It panics for any other ID.
func ByID(id string) Control {
	all := Table()
	return all[slices.IndexFunc(all, func(c Control) bool { return c.ID == id })]
}

// cis returns the numbers of a control in the CIS benchmark for OpenShift: until17 up to v1.7,
// from18 from v1.8 on. ComplianceAsCode ships 1.7.0, 1.9.0 and 2.0.0
// (controls/cis_ocp*, profiles of Compliance Operator 1.10), kube-bench 1.8
// (cfg/rh-1.8).
func cis(until17, from18 string) []Ref {
	refs := []Ref{{"CIS OpenShift", "cis-ocp", "1.7", until17}}
	for _, version := range []string{"1.8", "1.9", "2.0"} {
		refs = append(refs, Ref{"CIS OpenShift", "cis-ocp", version, from18})
	}
	return refs
}

// requires returns requirements of one family in some scopes.
func requires(family finding.Family, scopes []Scope, aspects ...finding.Aspect) []Required {
	var all []Required
	for _, aspect := range aspects {
		all = append(all, Required{Requirement: family.Requires(aspect), Scopes: scopes})
	}
	return all
}

// optional makes requirements optional.
func optional(all []Required) []Required {
	for i := range all {
		all[i].Optional = true
	}
	return all
}

// supplementary makes requirements supplementary, and optional.
func supplementary(all []Required) []Required {
	for i := range all {
		all[i].Supplementary = true
	}
	return optional(all)
}

// observedOnce makes requirements supplementary, but to be observed for one subject.
func observedOnce(all []Required) []Required {
	for i := range all {
		all[i].ObservedOnce = true
	}
	return supplementary(all)
}

// strict makes requirements strict.
func strict(all []Required) []Required {
	for i := range all {
		all[i].Strict = true
	}
	return all
}

var (
	onNode    = []Scope{Node}
	inCluster = []Scope{Cluster}
	both      = []Scope{Node, Cluster}
)

// pairAspects returns the aspects of every pair, in files or in a Secret.
func pairAspects() []finding.Aspect {
	return []finding.Aspect{
		finding.Certificate, finding.Key, finding.Chain, finding.Pair,
		finding.Validity, finding.Usage, finding.Strength, finding.CertificateOnly,
	}
}

// secretAspects returns the aspects of every protected Secret, without its issuer.
func secretAspects() []finding.Aspect {
	return slices.Concat([]finding.Aspect{finding.Exists, finding.Type}, pairAspects(),
		[]finding.Aspect{finding.DNSNames, finding.Identity, finding.Renewal, finding.Service})
}

func useHTTPS() Control {
	return Control{
		ID: UseHTTPS, Title: "Use https for kubelet connections",
		Refs: cis("1.2.4", "1.2.2"),
		Mappings: []Mapping{
			{"NIST SP 800-53", []string{"SC-8", "SC-8(1)", "CM-6"}},
			{"PCI-DSS 4.0", []string{"2.2.7", "2.2.5"}},
			{"BSI IT-Grundschutz", []string{"APP.4.4.A17"}},
			{"NERC-CIP", []string{"CIP-003-8 R4.2", "CIP-003-8 R6", "CIP-004-6 R3", "CIP-007-3 R5.1", "CIP-007-3 R6.1"}},
			{"CIS Controls v8", []string{"3.10"}},
			{"CIS Controls v7", []string{"14.4"}},
		},
		Platform: finding.Platform.Requires(finding.ControlPlane),
		Requirements: slices.Concat(
			requires(finding.Platform, inCluster, finding.ControlPlane),
			requires(finding.Manifest, onNode, finding.Readable, finding.Single),
			requires(finding.Config, both, finding.Readable, finding.ClientCertificate, finding.ClientKey, finding.HTTPS,
				finding.CertificateAuthority, finding.ReadOnlyPort),
			requires(finding.ClientFiles, onNode, pairAspects()...),
			requires(finding.ClientFiles, onNode, finding.Issuer, finding.Identity, finding.KeyFileMode),
			optional(
				requires(finding.Kubelet, onNode, finding.TLS, finding.ServingTrusted, finding.ClientAccepted, finding.Connection,
					finding.ReadOnlyPort),
			),
			observedOnce(
				requires(
					finding.NodeKubelet, inCluster, finding.TLS, finding.ServingTrusted, finding.ClientRequested, finding.Identity,
					finding.ReadOnlyPort,
				),
			),
			requires(finding.ServingCert, inCluster, secretAspects()...),
			optional(requires(finding.ServingCert, inCluster, finding.Issuer)),
			supplementary(requires(finding.ServingCert, inCluster, finding.Served, finding.ConfiguredKey)),
			requires(finding.KubeletClient, inCluster, secretAspects()...),
			optional(requires(finding.KubeletClient, inCluster, finding.Issuer)),
			supplementary(requires(finding.KubeletClient, inCluster, finding.ConfiguredKey)),
			requires(finding.Overrides, inCluster, finding.KubeletArguments),
		),
		Automated: "Everything in the control's audit procedure: the arguments in the configuration, the files on each " +
			"node, and the Secret's type and both values. In addition: certificate and key match, the certificate" +
			" is valid and signed by the right CA, and the kubelet speaks TLS. From the control plane, where that is enabled:" +
			" TLS, certificate, request for a client certificate and read-only port of each Node's kubelet, and whether the " +
			"endpoints of the Secret's Service serve the certificate that is stored. Where OpenShift's PKI object configures " +
			"keys, whether the certificates of both Secrets have them.",
		LeftToTheAuditor: "Whether the agent ran on every control-plane node and the audit ran on the cluster (there is a " +
			"document of each, or the alert KubeletHTTPSAgentMissing), and who can disable the guard " +
			"(SECURITY.md).",
	}
}

func clientPair() Control {
	return Control{
		ID: ClientPair, Title: "Client certificate and key for connections to kubelets", Neighbour: true,
		Refs:     cis("1.2.5", "1.2.3"),
		Platform: finding.Platform.Requires(finding.ControlPlane),
		Requirements: slices.Concat(
			requires(finding.Platform, inCluster, finding.ControlPlane),
			requires(finding.Manifest, onNode, finding.Readable, finding.Single),
			requires(finding.Config, both, finding.Readable, finding.ClientCertificate, finding.ClientKey),
			requires(finding.ClientFiles, onNode, finding.Certificate, finding.Key, finding.Pair, finding.Validity,
				finding.Identity),
			optional(requires(finding.Kubelet, onNode, finding.ClientAccepted)),
		),
		Automated: "Both arguments are set, the files exist, certificate and key match, and the kubelet accepts " +
			"certificates of that issuer.",
		LeftToTheAuditor: "What the kubelet authorizes the certificate's user to do. That is another control.",
	}
}

func kubeletCA() Control {
	return Control{
		ID: KubeletCA, Title: "Verify that the kubelet certificate authority is set", Neighbour: true,
		Refs:     cis("1.2.6", "1.2.4"),
		Platform: finding.Platform.Requires(finding.ControlPlane),
		Requirements: slices.Concat(
			requires(finding.Platform, inCluster, finding.ControlPlane),
			requires(finding.Manifest, onNode, finding.Readable, finding.Single),
			requires(finding.Config, both, finding.Readable),
			strict(requires(finding.Config, both, finding.CertificateAuthority)),
			optional(requires(finding.Kubelet, onNode, finding.ServingTrusted)),
		),
		Automated:        "The argument is set, and the kubelet's certificate is signed by a CA in the bundle that it names.",
		LeftToTheAuditor: "Whether the bundle has CAs that do not belong there.",
	}
}

func keyFileMode() Control {
	return Control{
		ID: KeyFileMode, Title: "OpenShift PKI key file permissions", Neighbour: true,
		Refs: []Ref{{"CIS OpenShift", "cis-ocp", "1.7", "1.1.21"}},
		Requirements: slices.Concat(
			requires(finding.Manifest, onNode, finding.Readable, finding.Single),
			strict(requires(finding.ClientFiles, onNode, finding.KeyFileMode)),
		),
		Automated:        "Mode and owner of the key file of the kubelet connection.",
		LeftToTheAuditor: "All other key files of the PKI.",
	}
}

// guardInForce is the product's own control: a disabled guard is never compliant.
func guardInForce() Control {
	return Control{
		ID: GuardInForce, Title: "The guard is in force",
		Requirements: slices.Concat(
			requires(finding.Guard, inCluster, finding.Installed, finding.Action),
			requires(finding.Overrides, inCluster, finding.Admission),
			requires(finding.Config, inCluster, finding.Admission),
			optional(requires(finding.Guard, inCluster, finding.PolicyRefuses, finding.WebhookAsked)),
		),
		Automated: "The objects that register the guard are as they were installed, no configuration disables its " +
			"admission plugins, and each API server refuses test changes by the policy and by the webhook.",
		LeftToTheAuditor: "Who can change these objects (SECURITY.md).",
	}
}

// admissionEnabled is the product's own control: the configuration of one node does not disable
// the guard, whether or not the guard is installed.
func admissionEnabled() Control {
	return Control{
		ID: AdmissionEnabled, Title: "The kube-apiserver runs with its admission plugins",
		Requirements: slices.Concat(
			requires(finding.Manifest, onNode, finding.Readable, finding.Single),
			requires(finding.Config, onNode, finding.Readable, finding.Admission),
		),
		Automated: "No argument of this node's kube-apiserver disables the plugins that call webhooks and evaluate " +
			"policies.",
		LeftToTheAuditor: "All other settings of the kube-apiserver.",
	}
}

// protectedSecrets is the product's own control, for added Secrets: they have the same
// requirements as the others, and are not part of a benchmark.
func protectedSecrets() Control {
	return Control{
		ID: ProtectedSecrets, Title: "Protected Secrets that were added are valid",
		Requirements: slices.Concat(
			requires(finding.AddedSecret, inCluster, secretAspects()...),
			requires(finding.AddedSecret, inCluster, finding.Selected),
			optional(requires(finding.AddedSecret, inCluster, finding.Issuer)),
			supplementary(requires(finding.AddedSecret, inCluster, finding.Served, finding.ConfiguredKey)),
		),
		Automated: "Type, values, pair, validity, usage, names, identity, renewal and, where a CA is configured, the " +
			"issuer of each of them; where that is enabled, whether the endpoints of its Service serve the stored " +
			"certificate; where OpenShift's PKI object configures keys, whether it has such a key; whether each namespace " +
			"with such a Secret has the labels that select it.",
		LeftToTheAuditor: "Whether the right Secrets are configured.",
	}
}

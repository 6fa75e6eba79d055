// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"maps"
	"slices"
	"strings"
)

// Reason is a CamelCase word that names what is wrong. It is the same in log
// messages, Events, metrics and refusals. It is a contract: a reason is never
// renamed, and its meaning never changes.
type Reason string

// A certificate and its key, wherever they are.
const (
	CertificateMissing      Reason = "CertificateMissing"
	KeyMissing              Reason = "KeyMissing"
	CertificateUnparsable   Reason = "CertificateUnparsable"
	KeyUnparsable           Reason = "KeyUnparsable"
	KeyMismatch             Reason = "KeyMismatch"
	CertificateExpired      Reason = "CertificateExpired"
	CertificateNotYetValid  Reason = "CertificateNotYetValid"
	CertificateExpiringSoon Reason = "CertificateExpiringSoon"
	WrongKeyUsage           Reason = "WrongKeyUsage"
	UntrustedIssuer         Reason = "UntrustedIssuer"
	CAUnusable              Reason = "CAUnusable"
	ChainUnparsable         Reason = "ChainUnparsable"
	ChainDoubtful           Reason = "ChainDoubtful"
	WeakKey                 Reason = "WeakKey"
	WeakSignature           Reason = "WeakSignature"
	AlgorithmUnsupported    Reason = "AlgorithmUnsupported"
	KeyNotAllowed           Reason = "KeyNotAllowed"
	KeyInCertificateFile    Reason = "KeyInCertificateFile"
)

// A protected Secret.
const (
	SecretMissing    Reason = "SecretMissing"
	WrongSecretType  Reason = "WrongSecretType"
	DNSNameMissing   Reason = "DNSNameMissing"
	RotationDetached Reason = "RotationDetached"
	RotationFailing  Reason = "RotationFailing"
	RotationStuck    Reason = "RotationStuck"
	// KeyNotAsConfigured: the certificate's key is not the one that the cluster's PKI object configures.
	KeyNotAsConfigured Reason = "KeyNotAsConfigured"
	// PKIConfigUnknown: it is not known which keys the cluster's PKI object configures.
	PKIConfigUnknown Reason = "PKIConfigUnknown"
	// NamespaceNotSelected: the labels of its namespace do not match the selector that protects it.
	NamespaceNotSelected Reason = "NamespaceNotSelected"
)

// The certificate that the endpoints of a protected Secret's Service serve, observed by a TLS handshake.
const (
	// ServedCertificateStale: an endpoint serves another certificate than the stored one.
	ServedCertificateStale Reason = "ServedCertificateStale"
	// ServedCertificateInvalid: that other certificate has expired, is not yet valid, or is not valid for the names.
	ServedCertificateInvalid Reason = "ServedCertificateInvalid"
	// ServedCertificateUnknown: an endpoint does not answer, or the Service has no endpoint.
	ServedCertificateUnknown Reason = "ServedCertificateUnknown"
)

// The files of the kubelet client certificate on a node.
const (
	UnexpectedIdentity Reason = "UnexpectedIdentity"
	KeyFileExposed     Reason = "KeyFileExposed"
	NotRegularFile     Reason = "NotRegularFile"
	FileTooLarge       Reason = "FileTooLarge"
	Unreadable         Reason = "Unreadable"
	StaleMount         Reason = "StaleMount"
	// NotMounted: the path is not mounted in the agent's Pod. It may exist on the host.
	NotMounted          Reason = "NotMounted"
	ClientCAUnavailable Reason = "ClientCAUnavailable"
)

// The kube-apiserver's configuration.
const (
	ConfigMissing                  Reason = "ConfigMissing"
	ConfigUnparsable               Reason = "ConfigUnparsable"
	ClientCertificateNotConfigured Reason = "ClientCertificateNotConfigured"
	ClientKeyNotConfigured         Reason = "ClientKeyNotConfigured"
	KubeletHTTPSDisabled           Reason = "KubeletHTTPSDisabled"
	KubeletCANotConfigured         Reason = "KubeletCANotConfigured"
	ReadOnlyPortConfigured         Reason = "ReadOnlyPortConfigured"
	OverrideWeakensKubeletTLS      Reason = "OverrideWeakensKubeletTLS"
	ManifestMissing                Reason = "ManifestMissing"
	ManifestUnparsable             Reason = "ManifestUnparsable"
	// DuplicateStaticPod: more than one file defines the kube-apiserver's static Pod.
	DuplicateStaticPod Reason = "DuplicateStaticPod"
)

// The kubelet itself, observed by a TLS handshake.
const (
	KubeletNotTLS      Reason = "KubeletNotTLS"
	KubeletUnreachable Reason = "KubeletUnreachable"
	// KubeletHasNoCertificate: it ends each handshake with an alert before it sends a certificate.
	KubeletHasNoCertificate Reason = "KubeletHasNoCertificate"
	// KubeletRefusesHandshake: it ends the handshake with an alert for another reason.
	KubeletRefusesHandshake      Reason = "KubeletRefusesHandshake"
	KubeletCertificateUntrusted  Reason = "KubeletCertificateUntrusted"
	ClientCertificateNotAccepted Reason = "ClientCertificateNotAccepted"
	// ClientAcceptanceUnknown: neither its list of accepted CAs nor a connection shows whether it
	// accepts the kube-apiserver's certificate.
	ClientAcceptanceUnknown Reason = "ClientAcceptanceUnknown"
	ReadOnlyPortOpen        Reason = "ReadOnlyPortOpen"
	// KubeletIdentityUnexpected: its certificate does not identify the kubelet of its Node.
	KubeletIdentityUnexpected Reason = "KubeletIdentityUnexpected"
	// NodeAddressUnusable: its Node has no address, or one that must not be connected to.
	NodeAddressUnusable Reason = "NodeAddressUnusable"
	// KubeletConfigUnknown: its configuration cannot be determined from its files.
	KubeletConfigUnknown Reason = "KubeletConfigUnknown"
	// LayoutUnknown: a node matches several layouts, so it is not known where its files are.
	LayoutUnknown Reason = "LayoutUnknown"
)

// The connection of the running kube-apiserver to the kubelet.
const (
	// ClientNotAuthorized: the kubelet accepts the certificate, and its user may not do what the
	// kube-apiserver must do.
	ClientNotAuthorized Reason = "ClientNotAuthorized"
	// ClientCertificateUnusable: the kube-apiserver cannot load the certificate or its key.
	ClientCertificateUnusable Reason = "ClientCertificateUnusable"
	// ConnectionUnknown: the kube-apiserver's answer does not show whether it can connect.
	ConnectionUnknown Reason = "ConnectionUnknown"
)

// The guard itself: the objects that register it with the API server.
const (
	GuardMissing  Reason = "GuardMissing"
	GuardWeakened Reason = "GuardWeakened"
	// GuardIneffective: it exists, and does not refuse what it must refuse.
	GuardIneffective Reason = "GuardIneffective"
	// AdmissionDisabled: the configuration of the API server disables it.
	AdmissionDisabled Reason = "AdmissionDisabled"
)

// What was not observed.
const (
	// NotChecked: no flag or value configures that it is checked.
	NotChecked Reason = "NotChecked"
	// NotObserved: it is configured to be checked, and was not observed yet.
	NotObserved Reason = "NotObserved"
)

// outcomes is the table of all reasons. It has the outcome that a reason gives its
// requirement. A control may be stricter (package control).
var outcomes = map[Reason]Outcome{
	CertificateMissing:      Fail,
	KeyMissing:              Fail,
	CertificateUnparsable:   Fail,
	KeyUnparsable:           Fail,
	KeyMismatch:             Fail,
	CertificateExpired:      Fail,
	CertificateNotYetValid:  Fail,
	CertificateExpiringSoon: Warn,
	WrongKeyUsage:           Fail,
	UntrustedIssuer:         Fail,
	CAUnusable:              Unknown,
	ChainUnparsable:         Fail,
	ChainDoubtful:           Warn,
	WeakKey:                 Warn,
	WeakSignature:           Fail,
	AlgorithmUnsupported:    Fail,
	KeyNotAllowed:           Fail,
	KeyInCertificateFile:    Warn,

	SecretMissing:    Fail,
	WrongSecretType:  Fail,
	DNSNameMissing:   Fail,
	RotationDetached: Fail,
	RotationFailing:  Warn,
	RotationStuck:    Warn,

	KeyNotAsConfigured:   Warn,
	PKIConfigUnknown:     Unknown,
	NamespaceNotSelected: Fail,

	ServedCertificateStale:   Warn,
	ServedCertificateInvalid: Fail,
	ServedCertificateUnknown: Unknown,

	UnexpectedIdentity:  Warn,
	KeyFileExposed:      Warn,
	NotRegularFile:      Fail,
	FileTooLarge:        Fail,
	Unreadable:          Unknown,
	StaleMount:          Unknown,
	NotMounted:          Unknown,
	ClientCAUnavailable: Unknown,

	ConfigMissing:                  Fail,
	ConfigUnparsable:               Fail,
	ClientCertificateNotConfigured: Fail,
	ClientKeyNotConfigured:         Fail,
	KubeletHTTPSDisabled:           Fail,
	KubeletCANotConfigured:         Warn,
	ReadOnlyPortConfigured:         Warn,
	OverrideWeakensKubeletTLS:      Fail,
	ManifestMissing:                Unknown,
	ManifestUnparsable:             Unknown,
	DuplicateStaticPod:             Fail,

	KubeletNotTLS:                Fail,
	KubeletUnreachable:           Unknown,
	KubeletHasNoCertificate:      Fail,
	KubeletRefusesHandshake:      Unknown,
	KubeletCertificateUntrusted:  Fail,
	ClientCertificateNotAccepted: Fail,
	ClientAcceptanceUnknown:      Unknown,
	ReadOnlyPortOpen:             Warn,
	KubeletIdentityUnexpected:    Warn,
	NodeAddressUnusable:          Unknown,
	KubeletConfigUnknown:         Unknown,
	LayoutUnknown:                Unknown,

	ClientNotAuthorized:       Fail,
	ClientCertificateUnusable: Fail,
	ConnectionUnknown:         Unknown,

	GuardMissing:      Fail,
	GuardWeakened:     Warn,
	GuardIneffective:  Fail,
	AdmissionDisabled: Fail,

	NotChecked:  Unknown,
	NotObserved: Unknown,
}

// Outcome returns the outcome of a result with the reason. It is [Unknown] for a reason that is
// not in the table.
func (r Reason) Outcome() Outcome { return outcomes[r] }

// Severity returns the severity of the reason's outcome.
func (r Reason) Severity() string { return r.Outcome().Severity() }

// runbook has a section for each reason. Its anchor is the reason in lower case.
const runbook = "https://github.com/kubelet-https-guard/kubelet-https-guard/blob/main/docs/runbook.md"

// HelpURI returns the address of the runbook's section about the reason.
func (r Reason) HelpURI() string { return runbook + "#" + strings.ToLower(string(r)) }

// Reasons returns all reasons, sorted.
func Reasons() []Reason { return slices.Sorted(maps.Keys(outcomes)) }

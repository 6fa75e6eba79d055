// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"maps"
	"slices"
	"strings"
)

// Reason is one CamelCase word that names what is wrong. It is the same in a
// log line, an Event, a metric and a refusal, and a contract: a reason is
// never renamed, and its meaning never changes.
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
	ChainUnparsable         Reason = "ChainUnparsable"
	ChainDoubtful           Reason = "ChainDoubtful"
	WeakKey                 Reason = "WeakKey"
	WeakSignature           Reason = "WeakSignature"
)

// A protected Secret.
const (
	SecretMissing    Reason = "SecretMissing"
	WrongSecretType  Reason = "WrongSecretType"
	DNSNameMissing   Reason = "DNSNameMissing"
	RotationDetached Reason = "RotationDetached"
	RotationFailing  Reason = "RotationFailing"
	RotationStuck    Reason = "RotationStuck"
)

// The files of the kubelet client certificate on a node.
const (
	UnexpectedIdentity  Reason = "UnexpectedIdentity"
	KeyFileExposed      Reason = "KeyFileExposed"
	NotRegularFile      Reason = "NotRegularFile"
	FileTooLarge        Reason = "FileTooLarge"
	Unreadable          Reason = "Unreadable"
	StaleMount          Reason = "StaleMount"
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
)

// The kubelet itself, as a TLS handshake shows it.
const (
	KubeletNotTLS                Reason = "KubeletNotTLS"
	KubeletUnreachable           Reason = "KubeletUnreachable"
	KubeletCertificateUntrusted  Reason = "KubeletCertificateUntrusted"
	ClientCertificateNotAccepted Reason = "ClientCertificateNotAccepted"
	ReadOnlyPortOpen             Reason = "ReadOnlyPortOpen"
)

// The guard itself: what registers it with the API server.
const (
	GuardMissing  Reason = "GuardMissing"
	GuardWeakened Reason = "GuardWeakened"
)

// severities is the one table of reasons.
var severities = map[Reason]Severity{
	CertificateMissing:      Violation,
	KeyMissing:              Violation,
	CertificateUnparsable:   Violation,
	KeyUnparsable:           Violation,
	KeyMismatch:             Violation,
	CertificateExpired:      Violation,
	CertificateNotYetValid:  Violation,
	CertificateExpiringSoon: Warning,
	WrongKeyUsage:           Violation,
	UntrustedIssuer:         Violation,
	ChainUnparsable:         Violation,
	ChainDoubtful:           Warning,
	WeakKey:                 Warning,
	WeakSignature:           Violation,

	SecretMissing:    Violation,
	WrongSecretType:  Violation,
	DNSNameMissing:   Violation,
	RotationDetached: Violation,
	RotationFailing:  Warning,
	RotationStuck:    Warning,

	UnexpectedIdentity:  Warning,
	KeyFileExposed:      Warning,
	NotRegularFile:      Violation,
	FileTooLarge:        Violation,
	Unreadable:          Unverified,
	StaleMount:          Unverified,
	ClientCAUnavailable: Unverified,

	ConfigMissing:                  Violation,
	ConfigUnparsable:               Violation,
	ClientCertificateNotConfigured: Violation,
	ClientKeyNotConfigured:         Violation,
	KubeletHTTPSDisabled:           Violation,
	KubeletCANotConfigured:         Warning,
	ReadOnlyPortConfigured:         Warning,
	OverrideWeakensKubeletTLS:      Violation,
	ManifestMissing:                Unverified,
	ManifestUnparsable:             Unverified,

	KubeletNotTLS:                Violation,
	KubeletUnreachable:           Unverified,
	KubeletCertificateUntrusted:  Violation,
	ClientCertificateNotAccepted: Violation,
	GuardMissing:                 Violation,
	GuardWeakened:                Warning,
	ReadOnlyPortOpen:             Warning,
}

// Severity of the reason; [Unverified] for one that the table does not know.
func (r Reason) Severity() Severity { return severities[r] }

// runbook has a section for each reason, which a forge gives an anchor by its
// title in small letters.
const runbook = "https://github.com/kubelet-https-guard/kubelet-https-guard/blob/main/docs/runbook.md"

// HelpURI is where the runbook says what the reason means, how to be sure of it,
// and what to do.
func (r Reason) HelpURI() string { return runbook + "#" + strings.ToLower(string(r)) }

// Reasons returns all reasons, sorted.
func Reasons() []Reason { return slices.Sorted(maps.Keys(severities)) }

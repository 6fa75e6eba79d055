// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Values of [SecretExpectation.ManagedBy].
const (
	// ManagedByServiceCA: OpenShift's service-ca issues and renews the Secret.
	ManagedByServiceCA = "service-ca"
	// ManagedByCertRotation: an operator does, by library-go's
	// pkg/operator/certrotation.
	ManagedByCertRotation = "cert-rotation"
)

// SecretExpectation is what a protected Secret is measured against.
type SecretExpectation struct {
	// Namespace and Name of the Secret.
	Namespace, Name string
	// Type of the Secret; kubernetes.io/tls if it is empty.
	Type string
	// Usage, Roots and ExpiringFraction as in [Expectation].
	Usage            x509.ExtKeyUsage
	Roots            []*x509.Certificate
	ExpiringFraction float64
	// DNSNames that the certificate must hold for.
	DNSNames []string
	// ManagedBy says who renews the Secret: one of the constants above, or empty
	// where nobody does or it is not known how.
	ManagedBy string
	// Service that service-ca issues the Secret for; empty where any will do.
	Service string
	// ServiceUID is that Service's, as far as it is known: the audit reads it
	// from the Service, admission takes the one that the stored Secret is
	// attached to. Empty where it is not known.
	ServiceUID string
	// IgnoreNotes: the annotations in which who renews noted a certificate's
	// validity are of no account.
	IgnoreNotes bool
}

// Secret is a Secret reduced to what the checks look at.
type Secret struct {
	Type        string
	Certificate []byte // data["tls.crt"]
	Key         []byte // data["tls.key"]
	Immutable   bool
	Annotations map[string]string
	Owners      []Owner
}

// Owner is one entry of metadata.ownerReferences.
type Owner struct{ APIVersion, Kind, Name, UID string }

// protectedSecret is a Secret together with what it should be: the facts of
// the checks on Secrets.
type protectedSecret struct {
	want   SecretExpectation
	stored *Secret
	pair   KeyPair
}

// SecretVerdict is what is to be said of a Secret at one moment.
type SecretVerdict struct {
	Findings []finding.Finding
	// Leaf is the certificate in it, nil where none can be read.
	Leaf *x509.Certificate
	// Until is the next moment from which the findings may differ although the
	// Secret is the same; zero where they will not.
	Until time.Time

	facts protectedSecret
}

// LookedFor are the reasons for which [JudgeSecret] could look.
func (v SecretVerdict) LookedFor() []finding.Reason {
	reasons := lookedFor(secretChecks(), v.facts)
	if v.facts.exists() {
		reasons = append(reasons, v.facts.pair.LookedFor()...)
	}
	return reasons
}

// JudgeSecret checks a Secret; nil means that it does not exist, so that
// create, update and delete are all the difference between two calls.
func JudgeSecret(want SecretExpectation, stored *Secret, now time.Time) SecretVerdict {
	facts := protectedSecret{want: want, stored: stored}
	if !facts.exists() {
		return SecretVerdict{Findings: runAll(secretChecks(), facts, now), facts: facts}
	}
	facts.pair = NewKeyPair(
		Source{At: want.at("tls.crt"), Data: stored.Certificate},
		Source{At: want.at("tls.key"), Data: stored.Key},
		Expectation{Usage: want.Usage, Roots: want.Roots, ExpiringFraction: want.ExpiringFraction},
	)
	verdict := SecretVerdict{
		Findings: finding.Sort(append(runAll(secretChecks(), facts, now), facts.pair.Findings(now)...)),
		Leaf:     facts.pair.Leaf(),
		facts:    facts,
	}
	verdict.Until, _ = facts.pair.NextChange(now)
	return verdict
}

// SecretFindings are those of [JudgeSecret].
func SecretFindings(want SecretExpectation, stored *Secret, now time.Time) []finding.Finding {
	return JudgeSecret(want, stored, now).Findings
}

func secretChecks() []check[protectedSecret] {
	return []check[protectedSecret]{
		{[]finding.Reason{finding.SecretMissing}, nil, secretExists},
		{[]finding.Reason{finding.WrongSecretType}, protectedSecret.exists, secretType},
		{[]finding.Reason{finding.DNSNameMissing}, protectedSecret.hasLeaf, secretDNSNames},
		{[]finding.Reason{finding.RotationDetached}, protectedSecret.isRenewed, secretRotation},
	}
}

func (s protectedSecret) exists() bool    { return s.stored != nil }
func (s protectedSecret) hasLeaf() bool   { return s.exists() && s.pair.hasLeaf() }
func (s protectedSecret) isRenewed() bool { return s.exists() && s.want.ManagedBy != "" }

// at locates a part of the Secret.
func (w SecretExpectation) at(part string) finding.Location {
	location := "Secret " + w.Namespace + "/" + w.Name
	if part != "" {
		location += " " + part
	}
	return finding.Location(location)
}

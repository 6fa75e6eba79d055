// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// Values of [SecretExpectation.ManagedBy].
const (
	// ManagedByServiceCA: OpenShift's service-ca issues and renews the Secret.
	ManagedByServiceCA = "service-ca"
	// ManagedByCertRotation: an operator does, with library-go's
	// pkg/operator/certrotation.
	ManagedByCertRotation = "cert-rotation"
)

// SecretExpectation is what a protected Secret must satisfy.
type SecretExpectation struct {
	// Namespace and Name of the Secret.
	Namespace, Name string
	// Type of the Secret. Empty means kubernetes.io/tls.
	Type string
	// Usage, Roots, RootsUnusable, RootsProblem and ExpiringFraction as in [Expectation].
	Usage            x509.ExtKeyUsage
	Roots            []*x509.Certificate
	RootsUnusable    error
	RootsProblem     *finding.Result
	ExpiringFraction float64
	// KeyPolicy and GoVersion as in [Expectation].
	KeyPolicy KeyPolicy
	GoVersion string
	// Identity is the subject that the certificate must have. Its zero value means any.
	Identity layout.Identity
	// DNSNames that the certificate must be valid for.
	DNSNames []string
	// ManagedBy says which controller renews the Secret: one of the constants above, or
	// empty if none does or it is not known.
	ManagedBy string
	// Service that service-ca issues the Secret for. Empty means any.
	Service string
	// Owners that the Secret may have in addition to that Service: those that its platform
	// sets. Any other owner is a [finding.RotationDetached].
	Owners []AllowedOwner
	// OwnedBefore are the owners of the stored Secret, if known, as in admission. If the
	// Secret already has an owner that matches an [AllowedOwner], a different owner that
	// matches it is not allowed: if that owner does not exist, the garbage collector deletes
	// the Secret.
	OwnedBefore []Owner
	// ServiceUID is the UID of that Service, empty if not known. The audit reads it from the
	// Service; admission uses the one that the stored Secret is attached to.
	ServiceUID string
	// IgnoreValidityAnnotations: do not check the annotations with the certificate's validity that the
	// renewing controller wrote.
	IgnoreValidityAnnotations bool
}

// Secret has the parts of a Secret that are checked.
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

// AllowedOwner says which owners a Secret may have.
type AllowedOwner struct {
	// APIVersion is group/version, or the group alone for any of its versions. It is v1 for
	// the core group.
	APIVersion string
	Kind       string
	// Name of the owner. Empty means any.
	Name string
}

// allowed reports whether the platform sets the owner, as far as that is known.
func (w SecretExpectation) allowed(owner Owner) bool {
	return slices.ContainsFunc(w.Owners, func(a AllowedOwner) bool {
		var hadOne, sameUID bool
		for _, before := range w.OwnedBefore {
			if a.matches(before) {
				hadOne, sameUID = true, sameUID || before.UID == owner.UID
			}
		}
		return a.matches(owner) && (!hadOne || sameUID)
	})
}

// matches reports whether the owner fits the description.
func (a AllowedOwner) matches(owner Owner) bool {
	return (owner.APIVersion == a.APIVersion || strings.HasPrefix(owner.APIVersion, a.APIVersion+"/")) &&
		owner.Kind == a.Kind && (a.Name == "" || owner.Name == a.Name)
}

// secretFacts is a Secret together with its expectation: the facts of the checks on Secrets.
type secretFacts struct {
	want   SecretExpectation
	stored *Secret
	pair   KeyPair
}

// notConfigured returns the result if the configuration does not say what is required. A Secret of the family requires
// it, so the result is unknown. For Secrets of other families it is optional, so the result is not applicable.
func (w SecretExpectation) notConfigured(family finding.Family, at finding.Subject, why string) []finding.Result {
	if w.Family() != family {
		return notApplicable(why)
	}
	return single(finding.NotChecked, at, why, "configure it as in the chart's default values")
}

// Family returns the family of the Secret's requirements. The two Secrets that the control
// names have one each; all others share one.
func (w SecretExpectation) Family() finding.Family {
	switch (namespacedName{w.Namespace, w.Name}) {
	case namespacedName{openShiftAPIServerNamespace, "serving-cert"}:
		return finding.ServingCert
	case namespacedName{KubeAPIServerNamespace, "kubelet-client"}:
		return finding.KubeletClient
	}
	return finding.AddedSecret
}

// namespacedName identifies an object of one kind.
type namespacedName struct{ namespace, name string }

// SecretResults has the results of the checks of a Secret at one time.
type SecretResults struct {
	Results []finding.Result
	// Leaf is the certificate in the Secret, nil if none could be parsed.
	Leaf *x509.Certificate
	// NextChange is the next time at which the results may change although the Secret is the
	// same. It is zero if they will not.
	NextChange time.Time
}

// CheckSecret checks a Secret. If stored is nil, the Secret does not exist, so that a caller can
// compare the results before and after a create, an update or a delete. The Service has its
// own checks ([Service]).
func CheckSecret(want SecretExpectation, stored *Secret, now time.Time) SecretResults {
	family := want.Family()
	facts := secretFacts{want: want, stored: stored}
	source := func(key string, data []byte) Source { return Source{At: want.at(key), Data: data} }
	if stored == nil {
		missing := secretExists(facts, now)[0]
		source = func(key string, _ []byte) Source {
			problem := Unknown(missing)
			return Source{At: want.at(key), Problem: &problem}
		}
		stored = &Secret{}
	}
	facts.pair = NewKeyPair(source("tls.crt", stored.Certificate), source("tls.key", stored.Key), Expectation{
		Usage: want.Usage, Roots: want.Roots, RootsUnusable: want.RootsUnusable, RootsProblem: want.RootsProblem,
		ExpiringFraction: want.ExpiringFraction, KeyPolicy: want.KeyPolicy, GoVersion: want.GoVersion,
	})
	results := runChecks(family, secretChecks(), facts, now)
	pair, nextChange := facts.pair.Check(family, now)
	results = append(results, pair...)
	results = append(results, runChecks(family, secretPairChecks(family), facts, now, results...)...)
	return SecretResults{Results: results, Leaf: facts.pair.Leaf(), NextChange: nextChange}
}

// secretChecks are the checks of the Secret alone, secretPairChecks those that need its certificate, too.
func secretChecks() []check[secretFacts] {
	return []check[secretFacts]{
		{finding.Exists, nil, []finding.Reason{finding.SecretMissing}, atKey(""), secretExists},
		{
			finding.Type, []finding.Aspect{finding.Exists}, []finding.Reason{finding.WrongSecretType},
			atKey("type"), secretType,
		},
	}
}

func secretPairChecks(family finding.Family) []check[secretFacts] {
	names, renewal := []finding.Reason{finding.DNSNameMissing}, []finding.Reason{finding.RotationDetached}
	if family == finding.ServingCert {
		names = append(names, finding.NotChecked)
	}
	if family != finding.AddedSecret {
		renewal = append(renewal, finding.NotChecked)
	}
	return []check[secretFacts]{
		{finding.DNSNames, []finding.Aspect{finding.Certificate}, names, atKey("tls.crt"), secretDNSNames},
		{finding.Renewal, []finding.Aspect{finding.Exists}, renewal, atKey("metadata"), secretRotation},
		{
			finding.Identity, []finding.Aspect{finding.Certificate}, []finding.Reason{finding.UnexpectedIdentity},
			atKey("tls.crt"), secretIdentity,
		},
	}
}

// secretExists: the benchmark reads the Secret. Without it the server that uses it has no
// certificate when it starts again.
func secretExists(s secretFacts, _ time.Time) []finding.Result {
	if s.stored != nil {
		return nil
	}
	return single(finding.SecretMissing, s.want.at(""),
		"the Secret does not exist",
		"check that the controller that renews it recreates it")
}

func atKey(key string) func(secretFacts) finding.Subject {
	return func(s secretFacts) finding.Subject { return s.want.at(key) }
}

// at returns the subject of a part of the Secret.
func (w SecretExpectation) at(key string) finding.Subject {
	return finding.Subject{Kind: "Secret", Namespace: w.Namespace, Name: w.Name, Key: key}
}

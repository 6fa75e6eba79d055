// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// Modes of a PKI object (openshift/api config/v1alpha1 types_pki.go, PKICertificateManagementMode).
const (
	// PKIUnmanaged: each component chooses keys as it did before the object existed.
	PKIUnmanaged = "Unmanaged"
	// PKIDefault: each release of OpenShift chooses the keys.
	PKIDefault = "Default"
	// PKICustom: the object has the algorithms and sizes of the keys.
	PKICustom = "Custom"
)

// PKI is what OpenShift's object PKI "cluster" (config.openshift.io/v1alpha1) configures. It exists only where the
// feature gate ConfigurablePKI is enabled.
type PKI struct {
	// WhyUnknown says why the object could not be read. No other field is set then.
	WhyUnknown *finding.Result
	// Missing: the object does not exist, or the API server has no such API.
	Missing bool
	// Err says why it is not known what the object configures. Mode and keys are not set then.
	Err error
	// Mode is one of the constants above.
	Mode string
	// ServingKey and ClientKey are the algorithm and size of keys in mode Custom, as [pki.KeyOf] returns them.
	ServingKey, ClientKey string
}

// PKISubject is the object that configures which keys OpenShift's components generate.
func PKISubject() finding.Subject { return finding.Subject{Kind: "PKI", Name: "cluster"} }

// ConfiguredKey has the certificate in a Secret, and what the cluster's PKI object configures.
type ConfiguredKey struct {
	Secret SecretExpectation
	// Leaf is the certificate in the Secret.
	Leaf *x509.Certificate
	PKI  PKI
}

// Check answers the requirement about the configured key, as part of the Secret's family. secret are the results about
// the same Secret, from [CheckSecret].
func (k ConfiguredKey) Check(secret []finding.Result, now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(k.Secret.Family(), configuredKeyChecks(), k, now, secret...), time.Time{}
}

func (k ConfiguredKey) at() finding.Subject { return k.Secret.at("tls.crt") }

func configuredKeyChecks() []check[ConfiguredKey] {
	return []check[ConfiguredKey]{{
		finding.ConfiguredKey, []finding.Aspect{finding.Exists, finding.Certificate},
		[]finding.Reason{
			finding.KeyNotAsConfigured, finding.PKIConfigUnknown, finding.Unreadable, finding.NotObserved,
		},
		ConfiguredKey.at, configuredKey,
	}}
}

// configuredKey: the key has the algorithm and size that the PKI object configures for certificates of its kind. It is
// compared only in mode Custom: in the others, the object names no key. In mode Default, the key depends on the release
// of the operator (library-go pkg/pki/profile.go, DefaultPKIProfile, has had RSA 2048 and ECDSA P-256).
//
// After a change of the object, operators use it for new keys only (library-go pkg/operator/certrotation, service-ca
// pkg/controller/servingcert). Until its renewal, a certificate keeps its key, which is as valid as before. So a
// different key is a warning.
func configuredKey(k ConfiguredKey, _ time.Time) []finding.Result {
	var renew string
	switch k.Secret.ManagedBy {
	case ManagedByServiceCA:
		renew = "remove both of its annotations service.alpha.openshift.io/expiry and service.beta.openshift.io/expiry"
	case ManagedByCertRotation:
		renew = "remove its annotation auth.openshift.io/certificate-not-after"
	default:
		return notApplicable("no controller that uses OpenShift's PKI object renews the Secret (managedBy)")
	}
	switch {
	case k.PKI.WhyUnknown != nil:
		return []finding.Result{Unknown(*k.PKI.WhyUnknown)}
	case k.PKI.Missing:
		return notApplicable("this cluster has no PKI object, which configures keys")
	case k.PKI.Err != nil:
		return k.unknown(k.PKI.Err.Error())
	case k.PKI.Mode == PKIUnmanaged || k.PKI.Mode == PKIDefault:
		return notApplicable("the PKI object configures no key (mode " + k.PKI.Mode + ")")
	}
	var want, kind string
	switch k.Secret.Usage {
	case x509.ExtKeyUsageServerAuth:
		want, kind = k.PKI.ServingKey, "serving"
	case x509.ExtKeyUsageClientAuth:
		want, kind = k.PKI.ClientKey, "client"
	default:
		return notApplicable("the usage of the certificate is not configured (usage), so it is not known which key the PKI " +
			"object configures for it")
	}
	switch got := pki.KeyOf(k.Leaf); {
	case want == "": // a zero value is never a pass
		return k.unknown("it has no key for " + kind + " certificates")
	case got != want:
		return single(finding.KeyNotAsConfigured, k.at(),
			fmt.Sprintf("the certificate's key (%s) is not the one that object PKI cluster configures for %s certificates "+
				"(%s); a certificate keeps its key until it is renewed", got, kind, want),
			"wait for the next renewal, or have the Secret renewed now: "+renew)
	}
	return nil
}

func (k ConfiguredKey) unknown(why string) []finding.Result {
	return single(finding.PKIConfigUnknown, PKISubject(),
		"it is not known which keys it configures, so keys are not compared with it: "+why,
		"upgrade this program to a release that knows it, and compare the keys by hand until then")
}

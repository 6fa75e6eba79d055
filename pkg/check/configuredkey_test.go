// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/x509"
	"errors"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

func configuredKeyFixtures() map[string]fixture {
	now := pkitest.Now()
	ca := pkitest.NewCA("service-ca")
	request := pkitest.ServingCert()
	request.Key = pkitest.RSA
	rsa := ca.Issue(request)
	p256 := ca.Issue(pkitest.ServingCert())
	custom := check.PKI{Mode: check.PKICustom, ServingKey: "RSA 2048", ClientKey: "ECDSA P-384"}
	type results = func(finding.Family) []finding.Result
	given := func(secret *check.Secret, pair pkitest.Pair, change func(*check.ConfiguredKey)) results {
		return func(family finding.Family) []finding.Result {
			k := check.ConfiguredKey{Secret: expected(family), Leaf: pair.Leaf, PKI: custom}
			change(&k)
			results, _ := k.Check(check.CheckSecret(k.Secret, secret, now).Results, now)
			return results
		}
	}
	with := func(change func(*check.ConfiguredKey)) results {
		return given(stored(rsa), rsa, change)
	}
	pki := func(p check.PKI) results {
		return with(func(k *check.ConfiguredKey) { k.PKI = p })
	}
	const (
		differs       = "configured-key warn KeyNotAsConfigured @ Secret tls.crt"
		unknown       = "configured-key unknown PKIConfigUnknown @ PKI cluster"
		notApplicable = "configured-key notApplicable  @ Secret tls.crt"
	)
	unparsable := stored(rsa)
	unparsable.Certificate = []byte("garbage")
	return map[string]fixture{
		"RSA as configured": {results: with(func(*check.ConfiguredKey) {})},
		"ECDSA as configured": {
			results: given(stored(p256), p256, func(k *check.ConfiguredKey) { k.PKI.ServingKey = "ECDSA P-256" }),
		},
		"another algorithm": {
			results: given(stored(p256), p256, func(*check.ConfiguredKey) {}), want: []string{differs},
			mentions: "(ECDSA P-256) is not the one that object PKI cluster configures for serving certificates (RSA 2048)",
		},
		"a smaller size": {
			results: with(func(k *check.ConfiguredKey) { k.PKI.ServingKey = "RSA 4096" }), want: []string{differs},
		},
		"a larger curve": {
			results: given(stored(p256), p256, func(k *check.ConfiguredKey) { k.PKI.ServingKey = "ECDSA P-521" }),
			want:    []string{differs},
		},
		"a client certificate is compared with the key for clients": {
			results: with(func(k *check.ConfiguredKey) {
				k.Secret.Usage, k.Secret.ManagedBy = x509.ExtKeyUsageClientAuth, check.ManagedByCertRotation
			}),
			want: []string{differs}, mentions: "client certificates (ECDSA P-384)",
		},
		"mode Unmanaged": {
			results: pki(check.PKI{Mode: check.PKIUnmanaged}), want: []string{notApplicable}, mentions: "mode Unmanaged",
		},
		"mode Default": {
			results: pki(check.PKI{Mode: check.PKIDefault}), want: []string{notApplicable}, mentions: "mode Default",
		},
		"no object": {results: pki(check.PKI{Missing: true}), want: []string{notApplicable}},
		"not understood": {
			results: pki(check.PKI{Err: errors.New(`spec: unknown field "x"`)}), want: []string{unknown},
			mentions: "unknown field",
		},
		"no facts": {results: pki(check.PKI{}), want: []string{unknown}},
		"not readable": {
			results: pki(check.PKI{WhyUnknown: because(finding.Unreadable)}),
			want:    []string{"configured-key unknown Unreadable @ /why"},
		},
		"not read yet": {
			results: pki(check.PKI{WhyUnknown: because(finding.NotObserved)}),
			want:    []string{"configured-key unknown NotObserved @ /why"},
		},
		"renewed by no controller": {
			results: with(func(k *check.ConfiguredKey) { k.Secret.ManagedBy = "" }), want: []string{notApplicable},
			mentions: "managedBy",
		},
		"no usage": {
			results: with(func(k *check.ConfiguredKey) { k.Secret.Usage = x509.ExtKeyUsageAny }),
			want:    []string{notApplicable}, mentions: "usage",
		},
		"no certificate": {
			results: given(unparsable, pkitest.Pair{}, func(*check.ConfiguredKey) {}),
			want:    []string{"configured-key unknown CertificateUnparsable @ Secret tls.crt"},
		},
		"no Secret": {
			results: given(nil, pkitest.Pair{}, func(*check.ConfiguredKey) {}),
			want:    []string{"configured-key unknown SecretMissing @ Secret"},
		},
	}
}

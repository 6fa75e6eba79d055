// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

func pairFixtures() map[string]fixture {
	now := pkitest.Now()
	ca, foreign := pkitest.NewCA("signer"), pkitest.NewCA("foreign")
	good := ca.Issue(pkitest.KubeletClient())
	other := ca.Issue(pkitest.KubeletClient())
	rsaRequest := pkitest.KubeletClient()
	rsaRequest.Key = pkitest.RSA
	rsaPair := ca.Issue(rsaRequest)
	weakRequest := pkitest.KubeletClient()
	weakRequest.Key = pkitest.RSA1024
	sha1Request := pkitest.KubeletClient()
	sha1Request.SignWith = x509.ECDSAWithSHA1
	bare := pkitest.KubeletClient()
	bare.Usages = nil
	anyUse := pkitest.KubeletClient()
	anyUse.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	longIssuer := pkitest.NewCA("openshift-kube-apiserver-operator_kube-apiserver-to-kubelet-signer@1795000000")
	newCA := pkitest.NewCA("signer")
	ofNewCA := newCA.Issue(pkitest.KubeletClient())
	expiredCA := pkitest.NewCAAround("old", now.AddDate(-6, 0, 0))
	ofExpiredCA := expiredCA.Issue(pkitest.KubeletClient())
	forServers := pkitest.NewCAFor("signer", x509.ExtKeyUsageServerAuth)
	ofServers := forServers.Issue(pkitest.KubeletClient())
	encrypted, _ := pkitest.EncryptedKeys()
	unusual, slhdsa := pkitest.Algorithms(), "2.16.840.1.101.3.4.3.20"
	signedWith := good.SignedWith(slhdsa)

	want := check.Expectation{
		Usage:            x509.ExtKeyUsageClientAuth,
		Roots:            []*x509.Certificate{ca.Certificate},
		ExpiringFraction: check.DefaultExpiringFraction,
	}
	of := func(when time.Time, want check.Expectation, certificate,
		key check.Source) func(finding.Family) []finding.Result {
		return func(family finding.Family) []finding.Result {
			certificate.At, key.At = finding.File("/crt"), finding.File("/key")
			results, _ := check.NewKeyPair(certificate, key, want).Check(family, when)
			return results
		}
	}
	at := func(when time.Time, want check.Expectation, certificate, key []byte) func(finding.Family) []finding.Result {
		return of(when, want, check.Source{Data: certificate}, check.Source{Data: key})
	}
	pair := func(certificate, key []byte) func(finding.Family) []finding.Result {
		return at(now, want, certificate, key)
	}
	issued := func(ca *pkitest.CA, r pkitest.Request) func(finding.Family) []finding.Result {
		p := ca.Issue(r)
		return pair(p.Certificate, p.Key)
	}
	rooted := func(roots ...*x509.Certificate) check.Expectation {
		return check.Expectation{Usage: x509.ExtKeyUsageClientAuth, Roots: roots}
	}
	policy := func(keys check.KeyPolicy, p pkitest.Pair) func(finding.Family) []finding.Result {
		want := rooted()
		want.KeyPolicy = keys
		return at(now, want, p.Certificate, p.Key)
	}
	const mldsa65 = "2.16.840.1.101.3.4.3.18"
	withGo := func(version string) check.Expectation {
		return check.Expectation{
			Usage: x509.ExtKeyUsageClientAuth, GoVersion: version, RootsProblem: because(finding.ClientCAUnavailable),
		}
	}
	const mldsaIssuer = "issuer unknown ClientCAUnavailable @ /why"
	partly := func(ca *pkitest.CA) check.Expectation {
		bundle, err := pki.ParseBundle(slices.Concat(ca.PEM(), unusual["Ed448"].Certificate(slhdsa)))
		if err != nil {
			panic(err)
		}
		want := rooted(bundle.CAs...)
		want.RootsUnusable = bundle.Unusable
		return want
	}
	problem := func(reason finding.Reason) check.Source {
		// The data of a file that was read in part.
		return check.Source{Problem: because(reason), Data: good.Certificate}
	}
	day := 24 * time.Hour
	// A certificate of 100 days expires soon in its last 15 days.
	hundredDays := ca.Issue(pkitest.KubeletClient().Valid(now, now.Add(100*day)))
	hundred := func(when time.Time) func(finding.Family) []finding.Result {
		return at(when, want, hundredDays.Certificate, hundredDays.Key)
	}
	const (
		ofParsed      = "chain pair validity usage strength issuer"
		ofCertificate = ofParsed + " certificate-only"
		holdsKey      = "certificate-only warn KeyInCertificateFile @ /crt"
		untrusted     = "issuer fail UntrustedIssuer @ /crt"
		mismatch      = "pair fail KeyMismatch @ /key"
		unchecked     = "issuer unknown NotChecked @ /crt"
		expiring      = "validity warn CertificateExpiringSoon @ /crt"
	)
	noCertificate := func(reason string) []string {
		return append(unknown(ofCertificate, reason+" @ /crt"), "certificate fail "+reason+" @ /crt")
	}
	unparsable := append(unknown(ofParsed, "CertificateUnparsable @ /crt"),
		"certificate fail CertificateUnparsable @ /crt")
	noKey := func(reason string) []string {
		return []string{"key fail " + reason + " @ /key", "pair unknown " + reason + " @ /key"}
	}

	fixtures := map[string]fixture{
		"good":                         {results: pair(good.Certificate, good.Key)},
		"good, RSA":                    {results: pair(rsaPair.Certificate, rsaPair.Key)},
		"good, RSA key in PKCS #1":     {results: pair(rsaPair.Certificate, rsaPair.LegacyKey())},
		"good, with its CA":            {results: pair(good.ChainWith(ca.PEM()), good.Key)},
		"good, lives two hours":        {results: issued(ca, pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.Add(time.Hour)))},
		"good, no extended key usage":  {results: issued(ca, bare)},
		"good, any extended key usage": {results: issued(ca, anyUse)},
		"good, over a bridge":          {results: pair(ofNewCA.ChainWith(ca.CrossSign(newCA)), ofNewCA.Key)},
		"CA not known, and no key": {
			results: at(now, rooted(), foreign.Issue(pkitest.KubeletClient()).Certificate, nil),
			want:    append(noKey("KeyMissing"), unchecked),
		},
		"CA not known": {
			results: at(now, rooted(), good.Certificate, good.Key),
			want:    []string{unchecked},
		},
		"CA cannot be read": {
			results: at(now, check.Expectation{Usage: x509.ExtKeyUsageClientAuth, RootsProblem: because(finding.ClientCAUnavailable)}, good.Certificate, good.Key),
			want:    []string{"issuer unknown ClientCAUnavailable @ /why"},
		},
		"CA bundle without a CA":                  {results: at(now, rooted([]*x509.Certificate{}...), good.Certificate, good.Key), want: []string{untrusted}},
		"CA bundle with a CA that cannot be used": {results: at(now, partly(ca), good.Certificate, good.Key)},
		"issued by no CA of a bundle that can be used": {
			results: at(now, partly(foreign), good.Certificate, good.Key), want: []string{"issuer unknown CAUnusable @ /crt"},
			mentions: "certificate 2 of the bundle has a key that Go's TLS does not support: Ed448",
		},
		"issued by a CA for servers, in such a bundle": { // the issuer is known
			results: at(now, partly(forServers), ofServers.Certificate, ofServers.Key), want: []string{untrusted},
		},
		"nothing at all": {
			results: pair(nil, nil),
			want:    append(noCertificate("CertificateMissing"), "key fail KeyMissing @ /key"),
		},
		"white space":         {results: pair([]byte("\n"), good.Key), want: noCertificate("CertificateMissing")},
		"certificate garbage": {results: pair([]byte("garbage"), good.Key), want: unparsable},
		"key garbage":         {results: pair(good.Certificate, []byte("garbage")), want: noKey("KeyUnparsable")},
		"key encrypted":       {results: pair(good.Certificate, encrypted), want: noKey("KeyUnparsable")},
		"chain with a damaged block": {
			results: pair(good.ChainWith([]byte("-----BEGIN CERTIFICATE-----\n!AAA\n-----END CERTIFICATE-----\n")), good.Key),
			want:    []string{"chain warn ChainDoubtful @ /crt"},
		},
		"of a CA that is for servers": {
			results: at(now, rooted(forServers.Certificate), ofServers.Certificate, ofServers.Key), want: []string{untrusted},
		},
		"chain garbage": {
			results: pair(good.ChainWith([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), good.Key),
			want:    []string{"chain fail ChainUnparsable @ /crt"},
		},
		"key of another pair": {
			results: pair(good.Certificate, other.Key), want: []string{mismatch},
		},
		"key of another kind": {
			results: pair(good.Certificate, rsaPair.Key), want: []string{mismatch},
		},
		"CA before the leaf": {
			results: at(now, check.Expectation{}, append(slices.Clone(ca.PEM()), good.Certificate...), good.Key), want: []string{mismatch, unchecked},
			mentions: "certificate 2",
		},
		"leaf after two CAs": {
			results: at(now, check.Expectation{}, slices.Concat(ca.PEM(), foreign.PEM(), rsaPair.Certificate), rsaPair.Key), want: []string{mismatch, unchecked},
			mentions: "certificate 3",
		},
		"CA before another leaf": {
			results: at(now, check.Expectation{}, append(slices.Clone(ca.PEM()), good.Certificate...), other.Key), want: []string{mismatch, unchecked},
		},
		"key after the certificate": {
			results: pair(good.ChainWith(good.Key), good.Key), want: []string{holdsKey},
		},
		"key before the certificate":   {results: pair(append(slices.Clone(good.Key), good.Certificate...), good.Key), want: []string{holdsKey}},
		"key of another pair after it": {results: pair(good.ChainWith(rsaPair.LegacyKey()), good.Key), want: []string{holdsKey}},
		"encrypted key after it":       {results: pair(good.ChainWith(encrypted), good.Key), want: []string{holdsKey}},
		"part of a key after it": {
			results: pair(good.ChainWith(good.Key[:80]), good.Key), want: []string{holdsKey, "chain warn ChainDoubtful @ /crt"},
		},
		"key instead of the certificate": {results: pair(good.Key, good.Key), want: append(slices.Clone(unparsable), holdsKey)},
		"certificate and key in one file": {results: func(family finding.Family) []finding.Result {
			source := check.Source{At: finding.File("/crt"), Data: good.ChainWith(good.Key)}
			results, _ := check.NewKeyPair(source, source, want).Check(family, now)
			return results
		}},
		"key RSASSA-PSS": {
			results: pair(unusual["RSASSA-PSS 2048"].Certificate(slhdsa), good.Key), want: unparsable,
			mentions: "RSASSA-PSS 2048",
		},
		"key on a curve that is not known": {
			results: pair(unusual["ECDSA brainpoolP256r1"].Certificate(slhdsa), good.Key), want: unparsable,
			mentions: "brainpoolP256r1",
		},
		"private key of an algorithm that is not known": {
			results: pair(good.Certificate, unusual["Ed448"].PrivateKey([]byte("secret"))), want: noKey("KeyUnparsable"),
			mentions: "Ed448",
		},
		"signed with an algorithm that is not known": {
			results: pair(signedWith, good.Key), want: []string{untrusted},
			mentions: "SLH-DSA-SHA2-128s",
		},
		"signed with ML-DSA, API server of Go 1.26": {
			results: at(now, withGo("go1.26.8"), good.SignedWith(mldsa65), good.Key),
			want:    []string{mldsaIssuer, "strength fail AlgorithmUnsupported @ /crt"}, mentions: "ML-DSA-65",
		},
		"signed with ML-DSA, Go release of the API server not known": {
			results: at(now, withGo(""), good.SignedWith(mldsa65), good.Key),
			want:    []string{mldsaIssuer, "strength unknown AlgorithmUnsupported @ /crt"}, mentions: "ML-DSA-65",
		},
		"CA signed with ML-DSA, API server of Go 1.26": {
			results: at(now, withGo("go1.26.8"), good.ChainWith(other.SignedWith(mldsa65)), good.Key),
			want:    []string{mldsaIssuer, "strength fail AlgorithmUnsupported @ /crt"}, mentions: "ML-DSA-65",
		},
		"signed with ML-DSA, API server of Go 1.27": {
			results: at(now, withGo("go1.27.4"), good.SignedWith(mldsa65), good.Key), want: []string{mldsaIssuer},
		},
		"first valid time": {results: hundred(now)},
		"a nanosecond too early": {
			results: hundred(now.Add(-time.Nanosecond)), want: []string{"validity fail CertificateNotYetValid @ /crt"},
			mentions: "2026-11-22T12:00:00Z",
		},
		"after 85 days": {results: hundred(now.Add(85 * day))},
		"after more than 85 days": {
			results: hundred(now.Add(85*day + time.Nanosecond)), want: []string{expiring},
			mentions: "2027-03-02T12:00:00Z",
		},
		"last valid time": {results: hundred(now.Add(100 * day)), want: []string{expiring}},
		"a nanosecond too late": {
			results: hundred(now.Add(100*day + time.Nanosecond)), want: []string{"validity fail CertificateExpired @ /crt"},
			mentions: "2027-03-02T12:00:00Z",
		},
		"ends before it begins": {
			results: issued(ca, pkitest.KubeletClient().Valid(now.Add(day), now.Add(-day))),
			want:    []string{"validity fail CertificateExpired @ /crt", "issuer unknown CertificateExpired @ /crt"}, mentions: "never valid",
		},
		"RSA 2048, policy with 3072": {
			results: policy(check.KeyPolicy{MinimumRSABits: 3072}, rsaPair),
			want:    []string{unchecked, "strength warn WeakKey @ /crt"}, mentions: "at least 3072 bits",
		},
		"RSA 2048, policy with 3072 that fails": {
			results: policy(check.KeyPolicy{MinimumRSABits: 3072, Fails: true}, rsaPair),
			want:    []string{unchecked, "strength fail KeyNotAllowed @ /crt"}, mentions: "RSA 2048",
		},
		"RSA 2048, policy with 2048": {
			results: policy(check.KeyPolicy{MinimumRSABits: 2048, Fails: true}, rsaPair), want: []string{unchecked},
		},
		"ECDSA P-256, policy with RSA 3072": {
			results: policy(check.KeyPolicy{MinimumRSABits: 3072, Fails: true}, good), want: []string{unchecked},
		},
		"ECDSA P-256, policy with others": {
			results: policy(check.KeyPolicy{AllowedAlgorithms: []string{"RSA", "ECDSA P-384"}, Fails: true}, good),
			want:    []string{unchecked, "strength fail KeyNotAllowed @ /crt"}, mentions: "one of RSA, ECDSA P-384",
		},
		"ECDSA P-256, policy with P-256": {
			results: policy(check.KeyPolicy{AllowedAlgorithms: []string{"RSA", "ECDSA P-256"}, Fails: true}, good),
			want:    []string{unchecked},
		},
		"RSA 1024, policy with 3072": {
			results: policy(check.KeyPolicy{MinimumRSABits: 3072}, ca.Issue(weakRequest)),
			want:    []string{unchecked, "strength warn WeakKey @ /crt"}, mentions: "at least 3072 bits",
		},
		"certificate of a server": {
			results: issued(ca, pkitest.ServingCert()), want: []string{"usage fail WrongKeyUsage @ /crt"},
			mentions: "clientAuth",
		},
		"issued by a foreign CA": {
			results: issued(foreign, pkitest.KubeletClient()), want: []string{untrusted},
			mentions: `"foreign"`,
		},
		"issued by a CA of the same name": {results: issued(newCA, pkitest.KubeletClient()), want: []string{untrusted}},
		"name of the issuer over 64 bytes": {
			results: issued(longIssuer, pkitest.KubeletClient()), want: []string{untrusted},
			mentions: "signer@1795000000",
		},
		"expired and foreign": {
			results: issued(foreign, pkitest.KubeletClient().Valid(now.Add(-2*day), now.Add(-day))),
			want:    []string{"validity fail CertificateExpired @ /crt", untrusted},
		},
		"the CA has expired": {
			results: at(now, rooted(expiredCA.Certificate), ofExpiredCA.Certificate, ofExpiredCA.Key), want: []string{untrusted},
			mentions: `"old"`,
		},
		"RSA 1024": {
			results: issued(ca, weakRequest), want: []string{"strength warn WeakKey @ /crt"},
			mentions: "RSA 1024",
		},
		"RSA 1024, foreign": {results: issued(foreign, weakRequest), want: []string{"strength warn WeakKey @ /crt", untrusted}},
		"SHA-1": {
			results: issued(ca, sha1Request), want: []string{"strength fail WeakSignature @ /crt", "issuer unknown WeakSignature @ /crt"},
			mentions: "ECDSA-SHA1",
		},
		"SHA-1, foreign": {results: issued(foreign, sha1Request), want: []string{"strength fail WeakSignature @ /crt", "issuer unknown WeakSignature @ /crt"}},
	}
	for _, reason := range []finding.Reason{finding.Unreadable, finding.StaleMount, finding.NotMounted,
		finding.NotRegularFile, finding.FileTooLarge} {
		why, outcome := string(reason)+" @ /why", reason.Outcome().String()+" "
		fixtures["certificate: "+string(reason)] = fixture{
			results: of(now, want, problem(reason), check.Source{Data: good.Key}),
			want:    append(unknown(ofCertificate, why), "certificate "+outcome+why),
		}
		fixtures["key: "+string(reason)] = fixture{
			results: of(now, want, check.Source{Data: good.Certificate}, problem(reason)),
			want:    []string{"key " + outcome + why, "pair unknown " + why},
		}
		fixtures["both: "+string(reason)] = fixture{
			results: of(now, want, problem(reason), problem(reason)),
			want:    append(unknown(ofCertificate, why), "certificate "+outcome+why, "key "+outcome+why),
		}
	}
	return fixtures
}

// TestLoads: a pair does not load if a half could not be read completely.
func TestLoads(t *testing.T) {
	p := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	other := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	cases := map[string]struct {
		certificate, key check.Source
		loads, leaf      bool
	}{
		"good":           {check.Source{Data: p.Certificate}, check.Source{Data: p.Key}, true, true},
		"another key":    {check.Source{Data: p.Certificate}, check.Source{Data: other.Key}, false, true},
		"nothing":        {},
		"not known":      {check.Source{Data: p.Certificate, Problem: because(finding.FileTooLarge)}, check.Source{Data: p.Key}, false, false},
		"key not known":  {check.Source{Data: p.Certificate}, check.Source{Data: p.Key, Problem: because(finding.FileTooLarge)}, false, true},
		"no certificate": {check.Source{}, check.Source{Data: p.Key}, false, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pair := check.NewKeyPair(c.certificate, c.key, check.Expectation{})
			if pair.Loads() != c.loads || (pair.Leaf() != nil) != c.leaf {
				t.Errorf("Loads() = %t, Leaf() = %v", pair.Loads(), pair.Leaf() != nil)
			}
		})
	}
	if (check.KeyPair{}).Loads() {
		t.Error("the zero value loads")
	}
}

// TestNextChange: nothing changes before the next time that it returns, and something changes
// at that time.
func TestNextChange(t *testing.T) {
	now := pkitest.Now()
	day := 24 * time.Hour
	p := pkitest.NewCA("signer").Issue(pkitest.KubeletClient().Valid(now, now.Add(100*day)))
	pair := check.NewKeyPair(
		check.Source{At: finding.File("/crt"), Data: p.Certificate}, check.Source{At: finding.File("/key"), Data: p.Key},
		check.Expectation{Usage: x509.ExtKeyUsageClientAuth, ExpiringFraction: check.DefaultExpiringFraction})
	look := func(at time.Time) ([]string, time.Time) {
		results, next := pair.Check(finding.ClientFiles, at)
		return lines(finding.Findings(results), finding.ClientFiles), next
	}

	var seen []string
	for at := now.Add(-day); !at.IsZero(); {
		findings, next := look(at)
		seen = append(seen, fmt.Sprint(at.Sub(now).Truncate(time.Hour), " ", findings))
		if before, _ := look(next.Add(-time.Nanosecond)); !next.IsZero() {
			if d := cmp.Diff(findings, before); d != "" {
				t.Errorf("the findings change before %s, the next moment named (-at +before it):\n%s", next, d)
			}
		}
		at = next
	}
	want := []string{
		"-24h0m0s [validity fail CertificateNotYetValid @ /crt]",
		"0s []",
		"2040h0m0s [validity warn CertificateExpiringSoon @ /crt]",
		"2400h0m0s [validity fail CertificateExpired @ /crt]",
	}
	if d := cmp.Diff(want, seen); d != "" {
		t.Errorf("moments and findings (-want +got):\n%s", d)
	}
}

// TestNextChangeOfCAs: a CA that expires during the certificate's lifetime changes the result
// about the issuer.
func TestNextChangeOfCAs(t *testing.T) {
	now := pkitest.Now()
	ca := pkitest.NewCAAround("signer", now.AddDate(-5, 0, 1)) // expires tomorrow
	p := ca.Issue(pkitest.KubeletClient())
	pair := check.NewKeyPair(
		check.Source{At: finding.File("/crt"), Data: p.Certificate}, check.Source{At: finding.File("/key"), Data: p.Key},
		check.Expectation{Usage: x509.ExtKeyUsageClientAuth, Roots: []*x509.Certificate{ca.Certificate}})
	results, next := pair.Check(finding.ClientFiles, now)
	if got := finding.Findings(results); got != nil || !next.Equal(ca.Certificate.NotAfter.Add(time.Nanosecond)) {
		t.Errorf("now: %v, next change at %s, want none, and one just after %s", got, next, ca.Certificate.NotAfter)
	}
	results, _ = pair.Check(finding.ClientFiles, next)
	if d := cmp.Diff([]string{"issuer fail UntrustedIssuer @ /crt"},
		lines(finding.Findings(results), finding.ClientFiles)); d != "" {
		t.Errorf("then (-want +got):\n%s", d)
	}
}

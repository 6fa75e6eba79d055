// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

// fixture is something to be checked and all that must be found in it, each as
// "Reason location: message". An empty list is a passing fixture.
type fixture struct {
	findings []finding.Finding
	want     []string
}

// TestCatalogue runs every fixture, and demands that each reason of the
// catalogue is found in one at least, and that one of each kind passes all
// checks.
func TestCatalogue(t *testing.T) {
	found := map[finding.Reason]bool{}
	for kind, fixtures := range map[string]map[string]fixture{
		"pair": pairFixtures(), "secret": secretFixtures(), "file": fileFixtures(),
		"service": serviceFixtures(), "guard": guardFixtures(), "override": overrideFixtures(), "manifest": manifestFixtures(), "config": configFixtures(), "kubelet": kubeletFixtures(),
	} {
		passing := false
		for name, f := range fixtures {
			t.Run(kind+"/"+name, func(t *testing.T) {
				if d := cmp.Diff(f.want, lines(f.findings)); d != "" {
					t.Errorf("findings (-want +got):\n%s", d)
				}
				for _, found := range f.findings {
					if found.Remedy == "" || strings.ContainsAny(found.Message+found.Remedy, "\n\r") {
						t.Errorf("%s: message and remedy must be one line each, and there: %q, %q", found.Reason, found.Message, found.Remedy)
					}
				}
			})
			passing = passing || len(f.findings) == 0
			for _, one := range f.findings {
				found[one.Reason] = true
			}
		}
		if !passing {
			t.Errorf("%s: no passing fixture", kind)
		}
	}
	for _, reason := range check.Reasons() {
		if !found[reason] {
			t.Errorf("%s: no failing fixture", reason)
		}
		if !slices.Contains(finding.Reasons(), reason) {
			t.Errorf("%s: not in the table of reasons", reason)
		}
	}
	for _, reason := range finding.Reasons() {
		if !slices.Contains(check.Reasons(), reason) {
			t.Errorf("%s: no check gives this reason", reason)
		}
	}
}

// TestLookedFor: of a kubelet that says little, little is known. (What is known of
// half a pair is tested where evidence is written.)
func TestLookedFor(t *testing.T) {
	serving, signer := pkitest.NewCA("csr-signer"), pkitest.NewCA("signer")
	leaf, client := serving.Issue(pkitest.ServingCert()).Leaf, signer.Issue(pkitest.KubeletClient())
	good := check.NewKeyPair(check.Source{Data: client.Certificate}, check.Source{Data: client.Key}, check.Expectation{})
	none := check.NewKeyPair(check.Source{}, check.Source{}, check.Expectation{})
	ca, away := file("/ca.crt", serving.PEM()), check.File{Path: "/ca.crt", Err: fs.ErrPermission}
	answers := check.KubeletAnswer{Certificates: []*x509.Certificate{leaf}, AsksClients: true}
	cases := map[string]struct {
		answer check.KubeletAnswer
		client check.KeyPair
		ca     check.File
		want   string
	}{
		"all there":        {answers, good, ca, "KubeletUnreachable KubeletNotTLS Unreadable StaleMount KubeletCertificateUntrusted ClientCertificateNotAccepted ReadOnlyPortOpen"},
		"no certificate":   {answers, none, ca, "KubeletUnreachable KubeletNotTLS Unreadable StaleMount KubeletCertificateUntrusted ReadOnlyPortOpen"},
		"no CA configured": {answers, good, check.File{}, "KubeletUnreachable KubeletNotTLS ClientCertificateNotAccepted ReadOnlyPortOpen"},
		"no CA readable":   {answers, good, away, "KubeletUnreachable KubeletNotTLS Unreadable StaleMount ClientCertificateNotAccepted ReadOnlyPortOpen"},
		"no TLS":           {check.KubeletAnswer{NotTLS: true, Err: errors.New("no TLS record")}, good, ca, "KubeletUnreachable KubeletNotTLS ReadOnlyPortOpen"},
		"no answer":        {check.KubeletAnswer{Err: errors.New("connection refused")}, good, ca, "KubeletUnreachable"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, reason := range check.NewKubelet(c.answer, c.client, c.ca).LookedFor() {
				got = append(got, string(reason))
			}
			if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func lines(findings []finding.Finding) []string {
	var lines []string
	for _, f := range findings {
		lines = append(lines, fmt.Sprintf("%s %s: %s", f.Reason, f.Location, f.Message))
	}
	return lines
}

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
	expiredCA := pkitest.NewCAAround("old", now.AddDate(-6, 0, 0))
	ofExpiredCA := expiredCA.Issue(pkitest.KubeletClient())
	forServers := pkitest.NewCAFor("signer", x509.ExtKeyUsageServerAuth)
	ofServers := forServers.Issue(pkitest.KubeletClient())
	encrypted, _ := pkitest.EncryptedKeys()

	want := check.Expectation{Usage: x509.ExtKeyUsageClientAuth, Roots: []*x509.Certificate{ca.Certificate}, ExpiringFraction: check.DefaultExpiringFraction}
	at := func(when time.Time, want check.Expectation, certificate, key []byte) []finding.Finding {
		return check.NewKeyPair(check.Source{At: "crt", Data: certificate}, check.Source{At: "key", Data: key}, want).Findings(when)
	}
	pair := func(certificate, key []byte) []finding.Finding { return at(now, want, certificate, key) }
	issued := func(ca *pkitest.CA, r pkitest.Request) []finding.Finding {
		p := ca.Issue(r)
		return pair(p.Certificate, p.Key)
	}
	day := 24 * time.Hour
	// Of 100 days the last 15 are the fraction in which it expires soon.
	hundredDays := ca.Issue(pkitest.KubeletClient().Valid(now, now.Add(100*day)))
	hundred := func(when time.Time) []finding.Finding {
		return at(when, want, hundredDays.Certificate, hundredDays.Key)
	}

	return map[string]fixture{
		"good":                         {findings: pair(good.Certificate, good.Key)},
		"good, RSA":                    {findings: pair(rsaPair.Certificate, rsaPair.Key)},
		"good, RSA key in PKCS #1":     {findings: pair(rsaPair.Certificate, rsaPair.LegacyKey())},
		"good, with its CA":            {findings: pair(good.ChainWith(ca.PEM()), good.Key)},
		"good, lives two hours":        {findings: issued(ca, pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.Add(time.Hour)))},
		"good, no extended key usage":  {findings: issued(ca, bare)},
		"good, any extended key usage": {findings: issued(ca, anyUse)},
		"good, CA not known":           {findings: at(now, check.Expectation{Usage: x509.ExtKeyUsageClientAuth}, foreign.Issue(pkitest.KubeletClient()).Certificate, nil), want: []string{"KeyMissing key: there is no private key, or it is empty"}},
		"good, over a bridge": {findings: func() []finding.Finding {
			p := newCA.Issue(pkitest.KubeletClient())
			return pair(p.ChainWith(ca.CrossSign(newCA)), p.Key)
		}()},
		"nothing at all":                  {findings: pair(nil, nil), want: []string{"CertificateMissing crt: there is no certificate, or it is empty", "KeyMissing key: there is no private key, or it is empty"}},
		"white space":                     {findings: pair([]byte("\n"), good.Key), want: []string{"CertificateMissing crt: there is no certificate, or it is empty"}},
		"hidden halves are not spoken of": {findings: check.NewKeyPair(check.Source{At: "crt", Hidden: true}, check.Source{At: "key", Hidden: true}, want).Findings(now)},
		"certificate garbage":             {findings: pair([]byte("garbage"), good.Key), want: []string{"CertificateUnparsable crt: it holds no PEM block of type CERTIFICATE"}},
		"key garbage":                     {findings: pair(good.Certificate, []byte("garbage")), want: []string{"KeyUnparsable key: it holds no PEM block of a private key"}},
		"key encrypted":                   {findings: pair(good.Certificate, encrypted), want: []string{"KeyUnparsable key: it holds an encrypted private key, which no server here can open"}},
		"chain with a damaged block":      {findings: pair(good.ChainWith([]byte("-----BEGIN CERTIFICATE-----\n!AAA\n-----END CERTIFICATE-----\n")), good.Key), want: []string{"ChainDoubtful crt: holds 2 PEM blocks of which 1 are damaged"}},
		"of a CA that is for servers": {
			findings: at(now, check.Expectation{Usage: x509.ExtKeyUsageClientAuth, Roots: []*x509.Certificate{forServers.Certificate}}, ofServers.Certificate, ofServers.Key),
			want:     []string{`UntrustedIssuer crt: the certificate, issued by "signer", does not lead to a CA that is trusted for it: x509: certificate specifies an incompatible key usage`},
		},
		"chain garbage":                    {findings: pair(good.ChainWith([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), good.Key), want: []string{"ChainUnparsable crt: certificate 2 of the chain is no X.509 certificate: x509: malformed certificate"}},
		"key of another pair":              {findings: pair(good.Certificate, other.Key), want: []string{"KeyMismatch key: the private key (ECDSA P-256) is not that of the certificate (ECDSA P-256)"}},
		"key of another kind":              {findings: pair(good.Certificate, rsaPair.Key), want: []string{"KeyMismatch key: the private key (RSA 2048) is not that of the certificate (ECDSA P-256)"}},
		"CA in front of the leaf":          {findings: at(now, check.Expectation{}, append(slices.Clone(ca.PEM()), good.Certificate...), good.Key), want: []string{"KeyMismatch key: the private key (ECDSA P-256) is not that of the certificate (ECDSA P-256)"}},
		"first moment":                     {findings: hundred(now)},
		"a moment too early":               {findings: hundred(now.Add(-time.Nanosecond)), want: []string{"CertificateNotYetValid crt: the certificate is not valid before 2026-11-22T12:00:00Z"}},
		"85 days are gone":                 {findings: hundred(now.Add(85 * day))},
		"more than 85 days are gone":       {findings: hundred(now.Add(85*day + time.Nanosecond)), want: []string{"CertificateExpiringSoon crt: the certificate expires at 2027-03-02T12:00:00Z, less than 15 % of its lifetime is left"}},
		"last moment":                      {findings: hundred(now.Add(100 * day)), want: []string{"CertificateExpiringSoon crt: the certificate expires at 2027-03-02T12:00:00Z, less than 15 % of its lifetime is left"}},
		"a moment too late":                {findings: hundred(now.Add(100*day + time.Nanosecond)), want: []string{"CertificateExpired crt: the certificate expired at 2027-03-02T12:00:00Z"}},
		"certificate of a server":          {findings: issued(ca, pkitest.ServingCert()), want: []string{"WrongKeyUsage crt: the certificate's extended key usage lacks clientAuth"}},
		"issued by a foreign CA":           {findings: issued(foreign, pkitest.KubeletClient()), want: []string{`UntrustedIssuer crt: the certificate, issued by "foreign", does not lead to a CA that is trusted for it`}},
		"issued by a CA of the same name":  {findings: issued(newCA, pkitest.KubeletClient()), want: []string{`UntrustedIssuer crt: the certificate, issued by "signer", does not lead to a CA that is trusted for it`}},
		"name of the issuer over 64 bytes": {findings: issued(longIssuer, pkitest.KubeletClient()), want: []string{`UntrustedIssuer crt: the certificate, issued by "openshift-kube-apiserver-operator_kube-apiserver-to-kubelet-signer@1795000000", does not lead to a CA that is trusted for it`}},
		"expired and foreign": {
			findings: issued(foreign, pkitest.KubeletClient().Valid(now.Add(-2*day), now.Add(-day))),
			want: []string{
				"CertificateExpired crt: the certificate expired at 2026-11-21T12:00:00Z",
				`UntrustedIssuer crt: the certificate, issued by "foreign", does not lead to a CA that is trusted for it`,
			},
		},
		"the CA has expired": {
			findings: at(pkitest.Now(), check.Expectation{Usage: x509.ExtKeyUsageClientAuth, Roots: []*x509.Certificate{expiredCA.Certificate}}, ofExpiredCA.Certificate, ofExpiredCA.Key),
			want:     []string{`UntrustedIssuer crt: the certificate, issued by "old", does not lead to a CA that is trusted for it: a CA on the way has expired, or is not valid yet`},
		},
		"RSA 1024":       {findings: issued(ca, weakRequest), want: []string{"WeakKey crt: the certificate's key is only RSA 1024"}},
		"SHA-1":          {findings: issued(ca, sha1Request), want: []string{"WeakSignature crt: the certificate is signed with ECDSA-SHA1, which TLS peers here refuse"}},
		"SHA-1, foreign": {findings: issued(foreign, sha1Request), want: []string{"WeakSignature crt: the certificate is signed with ECDSA-SHA1, which TLS peers here refuse"}},
	}
}

// secretBy makes the Secret that service-ca issues, then changes it.
func secretBy(p pkitest.Pair, change func(*check.Secret)) *check.Secret {
	s := &check.Secret{
		Type: "kubernetes.io/tls", Certificate: p.Certificate, Key: p.Key,
		Annotations: map[string]string{
			"service.alpha.openshift.io/originating-service-name": "api",
			"service.alpha.openshift.io/originating-service-uid":  "uid-1",
		},
		Owners: []check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-1"}},
	}
	if change != nil {
		change(s)
	}
	return s
}

func servingCert() check.SecretExpectation {
	return check.SecretExpectation{
		Namespace: "openshift-apiserver", Name: "serving-cert", Usage: x509.ExtKeyUsageServerAuth,
		DNSNames: []string{"api.openshift-apiserver.svc"}, ManagedBy: check.ManagedByServiceCA, Service: "api",
		ExpiringFraction: check.DefaultExpiringFraction,
	}
}

func secretFixtures() map[string]fixture {
	const at = "Secret openshift-apiserver/serving-cert "
	detached := "RotationDetached " + at + `metadata: owner reference and originating-service annotations do not name the Service "api" together, so service-ca would stop renewing it`
	ca := pkitest.NewCA("openshift-service-serving-signer@1795000000")
	good := ca.Issue(pkitest.ServingCert())
	wildcard := pkitest.ServingCert()
	wildcard.DNSNames = []string{"*.openshift-apiserver.svc"}
	elsewhere := pkitest.ServingCert()
	elsewhere.DNSNames = []string{"api.elsewhere.svc"}

	secret := func(change func(*check.Secret)) []finding.Finding {
		return check.SecretFindings(servingCert(), secretBy(good, change), pkitest.Now())
	}
	with := func(p pkitest.Pair, want check.SecretExpectation) []finding.Finding {
		return check.SecretFindings(want, secretBy(p, nil), pkitest.Now())
	}
	knownUID := servingCert()
	knownUID.ServiceUID = "uid-2"
	unmanaged := servingCert()
	unmanaged.ManagedBy = ""
	client := ca.Issue(pkitest.KubeletClient())
	rotated := func(change func(*check.Secret)) []finding.Finding {
		stored := &check.Secret{Type: "kubernetes.io/tls", Certificate: client.Certificate, Key: client.Key, Annotations: map[string]string{
			"auth.openshift.io/certificate-not-before": client.Leaf.NotBefore.Format(time.RFC3339),
			"auth.openshift.io/certificate-not-after":  client.Leaf.NotAfter.Format(time.RFC3339),
		}}
		if change != nil {
			change(stored)
		}
		return check.SecretFindings(check.SecretExpectation{
			Namespace: "openshift-kube-apiserver", Name: "kubelet-client", Usage: x509.ExtKeyUsageClientAuth, ManagedBy: check.ManagedByCertRotation,
		}, stored, pkitest.Now())
	}

	return map[string]fixture{
		"as service-ca writes it": {findings: secret(nil)},
		"with its CA":             {findings: secret(func(s *check.Secret) { s.Certificate = good.ChainWith(ca.PEM()) })},
		"annotations in beta": {findings: secret(func(s *check.Secret) {
			s.Annotations = map[string]string{
				"service.beta.openshift.io/originating-service-name": "api",
				"service.beta.openshift.io/originating-service-uid":  "uid-1",
			}
		})},
		"another beta UID beside is harmless": {findings: secret(func(s *check.Secret) { s.Annotations["service.beta.openshift.io/originating-service-uid"] = "uid-9" })},
		"unmanaged and without owner":         {findings: check.SecretFindings(unmanaged, secretBy(good, func(s *check.Secret) { s.Owners, s.Annotations, s.Immutable = nil, nil, true }), pkitest.Now())},
		"wildcard":                            {findings: with(ca.Issue(wildcard), servingCert())},
		"not there":                           {findings: check.SecretFindings(servingCert(), nil, pkitest.Now()), want: []string{"SecretMissing Secret openshift-apiserver/serving-cert: there is no such Secret"}},
		"Opaque":                              {findings: secret(func(s *check.Secret) { s.Type = "Opaque" }), want: []string{"WrongSecretType " + at + `type: the type is "Opaque" instead of kubernetes.io/tls`}},
		"empty certificate":                   {findings: secret(func(s *check.Secret) { s.Certificate = nil }), want: []string{"CertificateMissing " + at + "tls.crt: there is no certificate, or it is empty"}},
		"for another name":                    {findings: with(ca.Issue(elsewhere), servingCert()), want: []string{"DNSNameMissing " + at + "tls.crt: the certificate does not hold for api.openshift-apiserver.svc"}},
		"immutable":                           {findings: secret(func(s *check.Secret) { s.Immutable = true }), want: []string{"RotationDetached " + at + "immutable: an immutable Secret cannot be renewed"}},
		"expiry as in the certificate": {findings: secret(func(s *check.Secret) {
			s.Annotations["service.alpha.openshift.io/expiry"] = good.Leaf.NotAfter.Format(time.RFC3339)
		})},
		"expiry put off": {findings: secret(func(s *check.Secret) { s.Annotations["service.beta.openshift.io/expiry"] = "2099-01-01T00:00:00+01:00" }), want: []string{
			"RotationDetached " + at + "metadata.annotations service.beta.openshift.io/expiry: the annotation says 2098-12-31T23:00:00Z, the certificate 2026-12-22T11:00:00Z, so it would be renewed too late",
		}},
		"expiry that is no time": {findings: secret(func(s *check.Secret) { s.Annotations["service.alpha.openshift.io/expiry"] = "never" })},
		"another manager's annotation": {findings: secret(func(s *check.Secret) {
			s.Annotations["auth.openshift.io/certificate-not-after"] = "2099-01-01T00:00:00Z"
		})},
		"cert-rotation: as it writes it": {findings: rotated(nil)},
		"cert-rotation: not after is put off": {findings: rotated(func(s *check.Secret) {
			s.Annotations["auth.openshift.io/certificate-not-after"] = "2099-01-01T00:00:00Z"
		}), want: []string{
			"RotationDetached Secret openshift-kube-apiserver/kubelet-client metadata.annotations auth.openshift.io/certificate-not-after: the annotation says 2099-01-01T00:00:00Z, the certificate 2026-12-22T11:00:00Z, so it would be renewed too late",
		}},
		"cert-rotation: not before is put off": {findings: rotated(func(s *check.Secret) {
			s.Annotations["auth.openshift.io/certificate-not-before"] = "2026-12-01T00:00:00Z"
		}), want: []string{
			"RotationDetached Secret openshift-kube-apiserver/kubelet-client metadata.annotations auth.openshift.io/certificate-not-before: the annotation says 2026-12-01T00:00:00Z, the certificate 2026-11-22T11:00:00Z, so it would be renewed too late",
		}},
		"cert-rotation: immutable": {findings: rotated(func(s *check.Secret) { s.Immutable = true }), want: []string{
			"RotationDetached Secret openshift-kube-apiserver/kubelet-client immutable: an immutable Secret cannot be renewed",
		}},
		"cert-rotation: an owner": {findings: rotated(func(s *check.Secret) {
			s.Owners = []check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "u"}}
		}), want: []string{
			`RotationDetached Secret openshift-kube-apiserver/kubelet-client metadata.ownerReferences Service "api" "u": Service "api" as an owner lets the garbage collector take the Secret`,
		}},
		"no owner":                         {findings: secret(func(s *check.Secret) { s.Owners = nil }), want: []string{detached}},
		"owner without the annotations":    {findings: secret(func(s *check.Secret) { s.Annotations = nil }), want: []string{detached}},
		"name stripped":                    {findings: secret(func(s *check.Secret) { delete(s.Annotations, "service.alpha.openshift.io/originating-service-name") }), want: []string{detached}},
		"UID changed":                      {findings: secret(func(s *check.Secret) { s.Annotations["service.alpha.openshift.io/originating-service-uid"] = "uid-9" }), want: []string{detached}},
		"beta name wins over alpha":        {findings: secret(func(s *check.Secret) { s.Annotations["service.beta.openshift.io/originating-service-name"] = "other" }), want: []string{detached}},
		"for another Service of known UID": {findings: with(good, knownUID), want: []string{detached, "RotationDetached " + at + `metadata.ownerReferences Service "api" "uid-1": Service "api" as an owner lets the garbage collector take the Secret`}},
		"foreign owner beside": {
			findings: secret(func(s *check.Secret) {
				s.Owners = append(s.Owners, check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "x"})
			}),
			want: []string{"RotationDetached " + at + `metadata.ownerReferences ConfigMap "absent" "x": ConfigMap "absent" as an owner lets the garbage collector take the Secret`},
		},
	}
}

func guardFixtures() map[string]fixture {
	const at = "ValidatingWebhookConfiguration guard"
	object := func(change func(webhook map[string]any)) map[string]any {
		webhook := map[string]any{
			"name": "secrets.example.com", "failurePolicy": "Fail", "timeoutSeconds": int64(3),
			"rules":        []any{map[string]any{"operations": []any{"CREATE", "UPDATE", "DELETE"}}},
			"clientConfig": map[string]any{"url": "https://127.0.0.1/validate"},
		}
		change(webhook)
		return map[string]any{"metadata": map[string]any{"name": "guard"}, "webhooks": []any{webhook}}
	}
	installed := object(func(map[string]any) {})
	live := func(change func(webhook map[string]any)) []finding.Finding {
		return check.GuardFindings(check.Guard{At: at, Installed: installed, Live: object(change)}, pkitest.Now())
	}
	weakened := func(what string) []string {
		return []string{"GuardWeakened " + at + ": it is not as it was installed: " + what}
	}
	// The binding by which the webhook is asked.
	binding := func(subjects ...any) map[string]any {
		b := map[string]any{"roleRef": map[string]any{"kind": "ClusterRole", "name": "answers"}}
		if len(subjects) > 0 {
			b["subjects"] = subjects
		}
		return b
	}
	bound := func(live map[string]any) []finding.Finding {
		return check.GuardFindings(check.Guard{At: at, Installed: binding(map[string]any{"kind": "ServiceAccount", "name": "webhook"}), Live: live}, pkitest.Now())
	}
	return map[string]fixture{
		"as installed":       {findings: live(func(map[string]any) {})},
		"bound":              {findings: bound(binding(map[string]any{"kind": "ServiceAccount", "name": "webhook"}))},
		"bound to nobody":    {findings: bound(binding()), want: weakened("subjects is another")},
		"to somebody else's": {findings: bound(binding(map[string]any{"kind": "ServiceAccount", "name": "other"})), want: weakened(`subjects[0].name is "other" instead of "webhook"`)},
		"with the API server's defaults and a CA": {findings: live(func(w map[string]any) {
			w["objectSelector"], w["namespaceSelector"] = map[string]any{}, map[string]any{}
			w["clientConfig"] = map[string]any{"url": "https://127.0.0.1/validate", "caBundle": "eA=="}
		})},
		"another number type": {findings: live(func(w map[string]any) { w["timeoutSeconds"] = float64(3) })},
		"gone": {
			findings: check.GuardFindings(check.Guard{At: at, Installed: installed}, pkitest.Now()),
			want:     []string{"GuardMissing " + at + ": it is gone, so what it refused is let through"},
		},
		"failing open":     {findings: live(func(w map[string]any) { w["failurePolicy"] = "Ignore" }), want: weakened(`webhooks[0].failurePolicy is "Ignore" instead of "Fail"`)},
		"without a policy": {findings: live(func(w map[string]any) { delete(w, "failurePolicy") }), want: weakened("webhooks[0].failurePolicy is another")},
		"not at a delete":  {findings: live(func(w map[string]any) { w["rules"] = []any{map[string]any{"operations": []any{"CREATE", "UPDATE"}}} }), want: weakened("webhooks[0].rules[0].operations is another")},
		"a selector more":  {findings: live(func(w map[string]any) { w["objectSelector"] = map[string]any{"matchLabels": map[string]any{"a": "b"}} }), want: weakened("webhooks[0].objectSelector was added")},
		"a condition more": {findings: live(func(w map[string]any) {
			w["matchConditions"] = []any{map[string]any{"name": "never", "expression": "false"}}
		}), want: weakened("webhooks[0].matchConditions was added")},
		"to somebody else":  {findings: live(func(w map[string]any) { w["clientConfig"] = map[string]any{"url": "https://elsewhere/"} }), want: weakened(`webhooks[0].clientConfig.url is "https://elsewhere/" instead of "https://127.0.0.1/validate"`)},
		"without a webhook": {findings: check.GuardFindings(check.Guard{At: at, Installed: installed, Live: map[string]any{}}, pkitest.Now()), want: weakened("webhooks is another")},
		"all of it different": {findings: live(func(w map[string]any) {
			for key := range w {
				w[key] = nil
			}
			w["a"], w["b"] = "x", "y"
		}), want: weakened("webhooks[0].clientConfig is another; webhooks[0].failurePolicy is another; webhooks[0].name is another; webhooks[0].rules is another; webhooks[0].timeoutSeconds is another; …")},
	}
}

func serviceFixtures() map[string]fixture {
	const at = "Service openshift-apiserver/api"
	counter := func(alpha, beta string) []finding.Finding {
		return check.ServiceFindings(check.Service{Namespace: "openshift-apiserver", Name: "api", Annotations: map[string]string{
			"service.alpha.openshift.io/serving-cert-generation-error-num": alpha,
			"service.beta.openshift.io/serving-cert-generation-error-num":  beta,
		}}, pkitest.Now())
	}
	failing := func(n string) []string {
		return []string{"RotationFailing " + at + ": service-ca has failed " + n + " times in a row to write the Secret that it issues for the Service"}
	}
	stuck := []string{"RotationStuck " + at + ": service-ca has failed 10 times and gave up: the Secret that it issues for the Service will not be renewed"}
	return map[string]fixture{
		"no error":             {findings: check.ServiceFindings(check.Service{}, pkitest.Now())},
		"counter at 0":         {findings: counter("0", "0")},
		"counter at 1":         {findings: counter("1", ""), want: failing("1")},
		"the flavours differ":  {findings: counter("2", "9"), want: failing("9")},
		"counter at 10":        {findings: counter("10", "10"), want: stuck},
		"counter of beta only": {findings: counter("", "10"), want: stuck},
		"counter of rubbish":   {findings: counter("many", "-3")},
	}
}

func overrideFixtures() map[string]fixture {
	const at = "KubeAPIServer cluster spec.unsupportedConfigOverrides"
	of := func(text string) []finding.Finding {
		overrides, err := kubeapiserver.ParseOverrides([]byte(text))
		return check.OverrideFindings(check.Override{At: at, Overrides: overrides, Err: err}, pkitest.Now())
	}
	argument := func(name, value string) []finding.Finding {
		return of(`{"apiServerArguments":{"` + name + `":` + value + `}}`)
	}
	without := func(argument string) []string {
		return []string{"OverrideWeakensKubeletTLS " + at + ".apiServerArguments " + argument + ": the override leaves " + argument + " without a value"}
	}
	foreignIn := func(field, argument, value, own string) []string {
		return []string{fmt.Sprintf("OverrideWeakensKubeletTLS %s.%s %s: the override sets %s to %q, which is not the platform's (%s)", at, field, argument, argument, value, own)}
	}
	foreign := func(argument, value, own string) []string {
		return foreignIn("apiServerArguments", argument, value, own)
	}
	allTaken := func(field string) (want []string) {
		for _, argument := range []string{"kubelet-certificate-authority", "kubelet-client-certificate", "kubelet-client-key"} {
			want = append(want, "OverrideWeakensKubeletTLS "+at+"."+field+" "+argument+": the override leaves "+argument+" without a value")
		}
		return want
	}
	const (
		resources = "/etc/kubernetes/static-pod-resources"
		certs     = "/etc/kubernetes/static-pod-certs"
		keys      = resources + "/secrets/kubelet-client/tls.key or " + certs + "/secrets/kubelet-client/tls.key"
		crts      = resources + "/secrets/kubelet-client/tls.crt or " + certs + "/secrets/kubelet-client/tls.crt"
	)
	return map[string]fixture{
		"nothing":                       {findings: of("")},
		"null":                          {findings: of("null")},
		"an empty object":               {findings: of("{}")},
		"other arguments":               {findings: argument("event-ttl", `["3h"]`)},
		"the platform's, 4.9 and later": {findings: argument("kubelet-client-key", `["`+certs+`/secrets/kubelet-client/tls.key"]`)},
		"the platform's, until 4.8":     {findings: argument("kubelet-client-key", `["`+resources+`/secrets/kubelet-client/tls.key"]`)},
		"the platform's, 4.5": {findings: of(`{"kubeletClientInfo":{"ca":"` + resources + `/configmaps/kubelet-serving-ca/ca-bundle.crt","certFile":"` +
			resources + `/secrets/kubelet-client/tls.crt","keyFile":"` + resources + `/secrets/kubelet-client/tls.key","port":10250}}`)},
		"https on, as a truth value":    {findings: argument("kubelet-https", `true`)},
		"port 0, as a number":           {findings: argument("kubelet-read-only-port", `[0]`)},
		"https off":                     {findings: argument("kubelet-https", `["false"]`), want: foreign("kubelet-https", "false", "true")},
		"https off, no list":            {findings: argument("kubelet-https", `false`), want: foreign("kubelet-https", "false", "true")},
		"https off, in another writing": {findings: argument("kubelet_https", `["false"]`), want: foreign("kubelet-https", "false", "true")},
		"on, then off":                  {findings: argument("kubelet-https", `["true","false"]`), want: foreign("kubelet-https", "false", "true")},
		"another port":                  {findings: argument("kubelet-read-only-port", `["10255"]`), want: foreign("kubelet-read-only-port", "10255", "0")},
		"another key":                   {findings: argument("kubelet-client-key", `["/tmp/key"]`), want: foreign("kubelet-client-key", "/tmp/key", keys)},
		"the key for a certificate":     {findings: argument("kubelet-client-certificate", `["`+certs+`/secrets/kubelet-client/tls.key"]`), want: foreign("kubelet-client-certificate", certs+"/secrets/kubelet-client/tls.key", crts)},
		"no CA":                         {findings: argument("kubelet-certificate-authority", `[]`), want: without("kubelet-certificate-authority")},
		"a null CA":                     {findings: argument("kubelet-certificate-authority", `null`), want: without("kubelet-certificate-authority")},
		"an empty CA":                   {findings: argument("kubelet-certificate-authority", `""`), want: foreign("kubelet-certificate-authority", "", resources+"/configmaps/kubelet-serving-ca/ca-bundle.crt")},
		"another key, 4.5":              {findings: of(`{"kubeletClientInfo":{"keyFile":"/tmp/key"}}`), want: foreignIn("kubeletClientInfo", "kubelet-client-key", "/tmp/key", keys)},
		"taken away, and given where nobody looks": {
			findings: of(`{"apiServerArguments":{"kubelet-client-key":[]},"kubeletClientInfo":{"keyFile":"` + certs + `/secrets/kubelet-client/tls.key"}}`),
			want:     without("kubelet-client-key"),
		},
		"all arguments taken away":                           {findings: of(`{"apiServerArguments":null}`), want: allTaken("apiServerArguments")},
		"a list for arguments":                               {findings: of(`{"apiServerArguments":[]}`), want: allTaken("apiServerArguments")},
		"all taken away, 4.5":                                {findings: of(`{"kubeletClientInfo":null}`), want: allTaken("kubeletClientInfo")},
		"a value in an argument's name":                      {findings: argument("kubelet-https=false", `["x"]`), want: foreign("kubelet-https", "false", "true")},
		"another spelling, which the operator does not read": {findings: of(`{"APIServerArguments":null}`)},
		"a list for all": {findings: of(`[]`), want: []string{
			"OverrideWeakensKubeletTLS " + at + ": what it does to the kubelet's arguments cannot be told: it is no JSON object",
		}},
		"an object for a value": {findings: argument("kubelet-https", `{}`), want: []string{
			"OverrideWeakensKubeletTLS " + at + ": what it does to the kubelet's arguments cannot be told: apiServerArguments.kubelet-https: neither a value nor a list of values",
		}},
	}
}

func file(path string, data []byte) check.File {
	return check.File{Path: path, Mode: 0o600, Size: int64(len(data)), Data: data}
}

func fileFixtures() map[string]fixture {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	good := ca.Issue(pkitest.KubeletClient())
	kubeadm := pkitest.KubeletClient()
	kubeadm.CommonName, kubeadm.Organization = "kube-apiserver-kubelet-client", "kubeadm:cluster-admins"
	stranger := pkitest.KubeletClient()
	stranger.CommonName, stranger.Organization = "mallory", "system:masters"

	files := func(p pkitest.Pair, change func(certificate, key, clientCA *check.File)) []finding.Finding {
		certificate, key, clientCA := file("/c/tls.crt", p.Certificate), file("/c/tls.key", p.Key), file("/ca.crt", ca.PEM())
		if change != nil {
			change(&certificate, &key, &clientCA)
		}
		return check.NewClientFiles(certificate, key, clientCA, check.DefaultExpiringFraction).Findings(pkitest.Now())
	}
	changed := func(change func(certificate, key, clientCA *check.File)) []finding.Finding {
		return files(good, change)
	}
	kind := func(mode fs.FileMode) []finding.Finding {
		return changed(func(certificate, _, _ *check.File) { *certificate = check.File{Path: "/c/tls.crt", Mode: mode} })
	}
	noCA := "the kubelet's client CA is not to be had, so who issued the certificate was not checked: "

	return map[string]fixture{
		"good":            {findings: files(good, nil)},
		"good, kubeadm's": {findings: files(ca.Issue(kubeadm), nil)},
		"CA not known":    {findings: changed(func(_, _, clientCA *check.File) { *clientCA = check.File{} })},
		"not configured":  {findings: changed(func(certificate, key, _ *check.File) { *certificate, *key = check.File{}, check.File{} })},
		"certificate gone": {findings: changed(func(certificate, _, _ *check.File) {
			*certificate = check.File{Path: "/c/tls.crt", Err: fs.ErrNotExist}
		}), want: []string{"CertificateMissing /c/tls.crt: there is no certificate, or it is empty"}},
		"key gone": {findings: changed(func(_, key, _ *check.File) { *key = check.File{Path: "/c/tls.key", Err: fs.ErrNotExist} }), want: []string{"KeyMissing /c/tls.key: there is no private key, or it is empty"}},
		"certificate may not be read": {
			findings: changed(func(certificate, _, _ *check.File) {
				*certificate = check.File{Path: "/c/tls.crt", Err: fs.ErrPermission}
			}),
			want: []string{"Unreadable /c/tls.crt: it cannot be read: permission denied"},
		},
		"in a directory that the host replaced": {
			findings: changed(func(certificate, key, _ *check.File) {
				stale := &fs.PathError{Op: "open", Path: "/c", Err: syscall.ESTALE}
				*certificate, *key = check.File{Path: "/c/tls.crt", Err: stale}, check.File{Path: "/c/tls.key", Err: stale}
			}),
			want: []string{
				"StaleMount /c/tls.crt: it cannot be looked at: the directory was replaced on the host, and what is mounted here is the deleted one",
				"StaleMount /c/tls.key: it cannot be looked at: the directory was replaced on the host, and what is mounted here is the deleted one",
			},
		},
		"a directory":                 {findings: kind(fs.ModeDir | 0o755), want: []string{"NotRegularFile /c/tls.crt: it is a directory, not a regular file"}},
		"a FIFO":                      {findings: kind(fs.ModeNamedPipe), want: []string{"NotRegularFile /c/tls.crt: it is a FIFO, not a regular file"}},
		"a socket":                    {findings: kind(fs.ModeSocket), want: []string{"NotRegularFile /c/tls.crt: it is a socket, not a regular file"}},
		"a device":                    {findings: kind(fs.ModeDevice | fs.ModeCharDevice), want: []string{"NotRegularFile /c/tls.crt: it is a device, not a regular file"}},
		"too large":                   {findings: changed(func(certificate, _, _ *check.File) { *certificate = check.File{Path: "/c/tls.crt", Size: 2 << 20} }), want: []string{"FileTooLarge /c/tls.crt: it has 2097152 bytes, more than the 1048576 that a Secret can hold"}},
		"key readable by all":         {findings: changed(func(_, key, _ *check.File) { key.Mode = 0o644 }), want: []string{"KeyFileExposed /c/tls.key: the private key's file has mode 0644"}},
		"key readable by the group":   {findings: changed(func(_, key, _ *check.File) { key.Mode = 0o640 }), want: []string{"KeyFileExposed /c/tls.key: the private key's file has mode 0640"}},
		"key of mode 0400":            {findings: changed(func(_, key, _ *check.File) { key.Mode = 0o400 })},
		"key of somebody":             {findings: changed(func(_, key, _ *check.File) { key.ForeignOwner = true }), want: []string{"KeyFileExposed /c/tls.key: the private key's file does not belong to root"}},
		"certificate readable by all": {findings: changed(func(certificate, _, _ *check.File) { certificate.Mode = 0o644 })},
		"somebody else's certificate": {findings: files(ca.Issue(stranger), nil), want: []string{`UnexpectedIdentity /c/tls.crt: the certificate is that of CN="mallory", O="system:masters", not of a kube-apiserver`}},
		"client CA gone":              {findings: changed(func(_, _, clientCA *check.File) { *clientCA = check.File{Path: "/ca.crt", Err: fs.ErrNotExist} }), want: []string{"ClientCAUnavailable /ca.crt: " + noCA + "it cannot be read: file does not exist"}},
		"client CA garbage":           {findings: changed(func(_, _, clientCA *check.File) { *clientCA = file("/ca.crt", []byte("garbage")) }), want: []string{"ClientCAUnavailable /ca.crt: " + noCA + "it holds no PEM block of type CERTIFICATE"}},
		"client CA a directory":       {findings: changed(func(_, _, clientCA *check.File) { *clientCA = check.File{Path: "/ca.crt", Mode: fs.ModeDir} }), want: []string{"ClientCAUnavailable /ca.crt: " + noCA + "it is a directory"}},
		"client CA too large":         {findings: changed(func(_, _, clientCA *check.File) { clientCA.Size = 2 << 20 }), want: []string{"ClientCAUnavailable /ca.crt: " + noCA + "it is too large"}},
	}
}

func manifestFixtures() map[string]fixture {
	const at = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"
	manifest := func(m check.Manifest) []finding.Finding {
		m.At = at
		return check.ManifestFindings(m, pkitest.Now())
	}
	return map[string]fixture{
		"read":        {findings: manifest(check.Manifest{})},
		"not there":   {findings: manifest(check.Manifest{ReadErr: fs.ErrNotExist}), want: []string{"ManifestMissing " + at + ": there is no static pod manifest of a kube-apiserver, so it is not known which files are used"}},
		"forbidden":   {findings: manifest(check.Manifest{ReadErr: fs.ErrPermission}), want: []string{"Unreadable " + at + ": the kube-apiserver's manifest cannot be read: permission denied"}},
		"another pod": {findings: manifest(check.Manifest{ParseErr: errors.New("it has no container named kube-apiserver")}), want: []string{"ManifestUnparsable " + at + ": the kube-apiserver's manifest cannot be used: it has no container named kube-apiserver"}},
	}
}

func kubeletFixtures() map[string]fixture {
	const kubelet, readOnly = "kubelet 192.0.2.7:10250", "kubelet 192.0.2.7:10255"
	now := pkitest.Now()
	servingCA, clientCA, foreign := pkitest.NewCA("csr-signer"), pkitest.NewCA("signer"), pkitest.NewCA("foreign")
	serving := pkitest.Request{
		CommonName: "system:node:master-0", Organization: "system:nodes",
		IPs: []net.IP{net.ParseIP("192.0.2.7")}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	own := servingCA.Issue(serving)
	client := clientCA.Issue(pkitest.KubeletClient())
	bridged := pkitest.NewCA("new signer")
	ofBridged := bridged.Issue(pkitest.KubeletClient())
	ofBridged.Certificate = ofBridged.ChainWith(clientCA.CrossSign(bridged))

	type facts struct {
		answer check.KubeletAnswer
		client pkitest.Pair
		ca     check.File
		now    time.Time
	}
	asked := func(change func(f *facts)) []finding.Finding {
		f := facts{
			answer: check.KubeletAnswer{
				At: kubelet, Host: "192.0.2.7", Certificates: []*x509.Certificate{own.Leaf},
				AsksClients: true, AcceptedCAs: [][]byte{foreign.Certificate.RawSubject, clientCA.Certificate.RawSubject},
				ReadOnlyAt: readOnly,
			},
			client: client, ca: file("/ca.crt", servingCA.PEM()), now: now,
		}
		change(&f)
		pair := check.NewKeyPair(check.Source{Data: f.client.Certificate}, check.Source{Data: f.client.Key}, check.Expectation{})
		return check.NewKubelet(f.answer, pair, f.ca).Findings(f.now)
	}
	shows := func(p pkitest.Pair) []finding.Finding {
		return asked(func(f *facts) { f.answer.Certificates = []*x509.Certificate{p.Leaf} })
	}
	otherAddress, ofClient := serving, serving
	otherAddress.IPs = []net.IP{net.ParseIP("192.0.2.8")}
	ofClient.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	const distrust = "KubeletCertificateUntrusted " + kubelet + ": the kube-apiserver does not trust the kubelet's certificate: "

	return map[string]fixture{
		"good":                        {findings: asked(func(*facts) {})},
		"good, takes any client's CA": {findings: asked(func(f *facts) { f.answer.AcceptedCAs = nil })},
		"good, takes the bridge's CA": {findings: asked(func(f *facts) { f.client = ofBridged })},
		"no CA configured, any server": {findings: asked(func(f *facts) {
			f.ca, f.answer.Certificates = check.File{}, []*x509.Certificate{foreign.Issue(serving).Leaf}
		})},
		"no client certificate": {findings: asked(func(f *facts) { f.client = pkitest.Pair{} })},
		"no TLS": {
			findings: asked(func(f *facts) {
				f.answer = check.KubeletAnswer{At: kubelet, NotTLS: true, Err: errors.New("no TLS record")}
			}),
			want: []string{"KubeletNotTLS " + kubelet + ": what answers there does not speak TLS"},
		},
		"nothing answers": {
			findings: asked(func(f *facts) {
				f.answer = check.KubeletAnswer{At: kubelet, Err: errors.New("connection refused"), ReadOnlyAt: readOnly, ReadOnlyOpen: true}
			}),
			want: []string{
				"KubeletUnreachable " + kubelet + ": no TLS handshake with the kubelet came about: connection refused",
				"ReadOnlyPortOpen " + readOnly + ": the port takes connections: it is that of the kubelet's read-only server, which knows neither TLS nor authentication",
			},
		},
		"certificate of a foreign CA": {findings: shows(foreign.Issue(serving)), want: []string{distrust + `it was issued by "foreign", which leads to no CA of /ca.crt`}},
		"certificate expired": {
			findings: shows(servingCA.Issue(serving.Valid(now.Add(-2*time.Hour), now.Add(-time.Hour)))),
			want: []string{fmt.Sprintf("%sit, or a CA on the way, has expired or is not valid yet (it is valid from %s to %s)", distrust,
				now.Add(-2*time.Hour).Format(time.RFC3339), now.Add(-time.Hour).Format(time.RFC3339))},
		},
		"certificate of another node":  {findings: shows(servingCA.Issue(otherAddress)), want: []string{distrust + "x509: certificate is valid for 192.0.2.8, not 192.0.2.7"}},
		"certificate not for a server": {findings: shows(servingCA.Issue(ofClient)), want: []string{distrust + "x509: certificate specifies an incompatible key usage"}},
		"over an intermediate": {findings: asked(func(f *facts) {
			intermediate := pkitest.NewCA("intermediate")
			block, _ := pem.Decode(servingCA.CrossSign(intermediate))
			bridge, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				panic(err)
			}
			f.answer.Certificates = []*x509.Certificate{intermediate.Issue(serving).Leaf, bridge}
		})},
		"CA bundle gone": {
			findings: asked(func(f *facts) { f.ca = check.File{Path: "/ca.crt", Err: fs.ErrNotExist} }),
			want:     []string{"KubeletCertificateUntrusted " + kubelet + ": the kube-apiserver can trust no kubelet: its CA bundle for them, /ca.crt, is missing or holds no certificate"},
		},
		"CA bundle garbage": {
			findings: asked(func(f *facts) { f.ca = file("/ca.crt", []byte("garbage")) }),
			want:     []string{"KubeletCertificateUntrusted " + kubelet + ": the kube-apiserver can trust no kubelet: its CA bundle for them, /ca.crt, is missing or holds no certificate"},
		},
		"CA bundle forbidden": {
			findings: asked(func(f *facts) { f.ca = check.File{Path: "/ca.crt", Err: fs.ErrPermission} }),
			want:     []string{"Unreadable /ca.crt: the CA bundle by which the kube-apiserver knows kubelets cannot be read: permission denied"},
		},
		"asks no client": {
			findings: asked(func(f *facts) { f.answer.AsksClients = false }),
			want:     []string{"ClientCertificateNotAccepted " + kubelet + ": the kubelet asks its clients for no certificate, so the kube-apiserver's does not count"},
		},
		"knows another client CA": {
			findings: asked(func(f *facts) { f.answer.AcceptedCAs = [][]byte{foreign.Certificate.RawSubject} }),
			want:     []string{"ClientCertificateNotAccepted " + kubelet + `: the kubelet does not accept certificates of "signer", which issued the kube-apiserver's`},
		},
	}
}

// TestKubeletNextChange: the moments at which the verdict on a kubelet's
// certificate changes by the clock.
func TestKubeletNextChange(t *testing.T) {
	now := pkitest.Now()
	leaf := pkitest.NewCA("csr-signer").Issue(pkitest.ServingCert().Valid(now, now.Add(time.Hour))).Leaf
	answer := check.KubeletAnswer{Certificates: []*x509.Certificate{leaf}}
	cases := map[string]struct {
		ca   check.File
		now  time.Time
		want time.Time // zero: none
	}{
		"before it is valid":    {file("/ca.crt", nil), now.Add(-time.Hour), leaf.NotBefore},
		"while it is valid":     {file("/ca.crt", nil), now, leaf.NotAfter.Add(1)},
		"after it has expired":  {file("/ca.crt", nil), now.Add(2 * time.Hour), time.Time{}},
		"nobody looks at dates": {check.File{}, now, time.Time{}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := check.NewKubelet(answer, check.KeyPair{}, c.ca).NextChange(c.now)
			if !got.Equal(c.want) || ok == c.want.IsZero() {
				t.Errorf("NextChange(%s): got %s, %t, want %s", c.now, got, ok, c.want)
			}
		})
	}
}

func configFixtures() map[string]fixture {
	const at = "config.yaml"
	flags := func(words ...string) []finding.Finding {
		return check.ConfigurationFindings(check.Configuration{At: at, Config: kubeapiserver.ParseFlags(words)}, pkitest.Now())
	}
	good := []string{"--kubelet-client-certificate=/c/tls.crt", "--kubelet-client-key=/c/tls.key", "--kubelet-certificate-authority=/c/ca.crt"}
	with := func(word string) []finding.Finding { return flags(append(slices.Clone(good), word)...) }
	return map[string]fixture{
		"good":                     {findings: flags(good...)},
		"https asked for":          {findings: with("--kubelet-https=true")},
		"https asked for, bare":    {findings: with("--kubelet-https")},
		"read-only port closed":    {findings: with("--kubelet-read-only-port=0")},
		"https turned off":         {findings: with("--kubelet-https=false"), want: []string{`KubeletHTTPSDisabled config.yaml kubelet-https: kubelet-https is "false", so kubelets are spoken to without TLS`}},
		"https neither on nor off": {findings: with("--kubelet-https=maybe"), want: []string{`KubeletHTTPSDisabled config.yaml kubelet-https: kubelet-https is "maybe", so kubelets are spoken to without TLS`}},
		"read-only port open":      {findings: with("--kubelet-read-only-port=10255"), want: []string{`ReadOnlyPortConfigured config.yaml kubelet-read-only-port: kubelet-read-only-port is "10255", a port without TLS`}},
		"nothing set": {findings: flags(), want: []string{
			"ClientCertificateNotConfigured config.yaml kubelet-client-certificate: kubelet-client-certificate is not set",
			"ClientKeyNotConfigured config.yaml kubelet-client-key: kubelet-client-key is not set",
			"KubeletCANotConfigured config.yaml kubelet-certificate-authority: kubelet-certificate-authority is not set, so the kubelets' own certificates are not verified",
		}},
		"set to nothing": {findings: flags("--kubelet-client-certificate=", "--kubelet-client-key=/c/tls.key", "--kubelet-certificate-authority=/c/ca.crt"), want: []string{
			"ClientCertificateNotConfigured config.yaml kubelet-client-certificate: kubelet-client-certificate is not set",
		}},
		"not there": {
			findings: check.ConfigurationFindings(check.Configuration{At: at, Missing: true}, pkitest.Now()),
			want:     []string{"ConfigMissing config.yaml: the kube-apiserver's configuration is not there"},
		},
		"not readable": {
			findings: check.ConfigurationFindings(check.Configuration{At: at, ReadErr: fs.ErrPermission}, pkitest.Now()),
			want:     []string{"Unreadable config.yaml: the kube-apiserver's configuration cannot be read: permission denied"},
		},
		"not parsable": {
			findings: check.ConfigurationFindings(check.Configuration{At: at, Err: errors.New("it is\nempty")}, pkitest.Now()),
			want:     []string{"ConfigUnparsable config.yaml: the kube-apiserver's configuration cannot be parsed: it is empty"},
		},
	}
}

// TestNextChange: between one moment and the next that it names, nothing
// changes, and at that one something does.
func TestNextChange(t *testing.T) {
	now := pkitest.Now()
	day := 24 * time.Hour
	p := pkitest.NewCA("signer").Issue(pkitest.KubeletClient().Valid(now, now.Add(100*day)))
	pair := check.NewKeyPair(check.Source{At: "crt", Data: p.Certificate}, check.Source{At: "key", Data: p.Key},
		check.Expectation{Usage: x509.ExtKeyUsageClientAuth, ExpiringFraction: check.DefaultExpiringFraction})

	var seen []string
	for at, ok := now.Add(-day), true; ok; at, ok = pair.NextChange(at) {
		seen = append(seen, fmt.Sprint(at.Sub(now).Truncate(time.Hour), " ", lines(pair.Findings(at))))
		if next, ok := pair.NextChange(at); ok {
			if d := cmp.Diff(lines(pair.Findings(at)), lines(pair.Findings(next.Add(-time.Nanosecond)))); d != "" {
				t.Errorf("the findings change before %s, the next moment named (-at +before it):\n%s", next, d)
			}
		}
	}
	want := []string{
		"-24h0m0s [CertificateNotYetValid crt: the certificate is not valid before 2026-11-22T12:00:00Z]",
		"0s []",
		"2040h0m0s [CertificateExpiringSoon crt: the certificate expires at 2027-03-02T12:00:00Z, less than 15 % of its lifetime is left]",
		"2400h0m0s [CertificateExpired crt: the certificate expired at 2027-03-02T12:00:00Z]",
	}
	if d := cmp.Diff(want, seen); d != "" {
		t.Errorf("moments and findings (-want +got):\n%s", d)
	}
}

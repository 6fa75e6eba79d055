// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// expected returns the expectation of service-ca's Secret of a family, without its CA.
func expected(family finding.Family) check.SecretExpectation {
	want := check.SecretExpectation{
		Namespace: "openshift-apiserver", Name: "serving-cert", Usage: x509.ExtKeyUsageServerAuth,
		DNSNames: []string{"api.openshift-apiserver.svc"}, ManagedBy: check.ManagedByServiceCA, Service: "api",
		ExpiringFraction: check.DefaultExpiringFraction, Identity: layout.Identity{CommonName: "api.openshift-apiserver.svc"},
	}
	switch family {
	case finding.KubeletClient:
		want.Namespace, want.Name = "openshift-kube-apiserver", "kubelet-client"
	case finding.AddedSecret:
		want.Namespace, want.Name = "team", "shop"
	default: // as it is
	}
	return want
}

// stored returns the Secret that service-ca issues.
func stored(p pkitest.Pair) *check.Secret {
	return &check.Secret{
		Type: "kubernetes.io/tls", Certificate: p.Certificate, Key: p.Key,
		Annotations: map[string]string{
			"service.alpha.openshift.io/originating-service-name": "api",
			"service.alpha.openshift.io/originating-service-uid":  "uid-1",
		},
		Owners: []check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-1"}},
	}
}

const ofSecret = "type certificate key chain pair validity usage strength certificate-only issuer dns-names renewal " +
	"identity"

func secretFixtures() map[string]fixture {
	const (
		detached = "renewal fail RotationDetached @ Secret metadata"
		owner    = "renewal fail RotationDetached @ Secret metadata.ownerReferences "
		note     = "renewal fail RotationDetached @ Secret metadata.annotations "
	)
	ca := pkitest.NewCA("openshift-service-serving-signer@1795000000")
	good := ca.Issue(pkitest.ServingCert())
	wildcard := pkitest.ServingCert()
	wildcard.DNSNames = []string{"*.openshift-apiserver.svc"}
	elsewhere := pkitest.ServingCert()
	elsewhere.DNSNames = []string{"api.elsewhere.svc"}

	judged := func(secret *check.Secret, change func(*check.SecretExpectation)) func(finding.Family) []finding.Result {
		return func(family finding.Family) []finding.Result {
			want := expected(family)
			want.Roots = []*x509.Certificate{ca.Certificate}
			if change != nil {
				change(&want)
			}
			return check.CheckSecret(want, secret, pkitest.Now()).Results
		}
	}
	secret := func(change func(*check.Secret)) func(finding.Family) []finding.Result {
		s := stored(good)
		if change != nil {
			change(s)
		}
		return judged(s, nil)
	}
	annotated := func(key, value string) func(finding.Family) []finding.Result {
		return secret(func(s *check.Secret) { s.Annotations[key] = value })
	}
	owned := func(owners ...check.Owner) func(finding.Family) []finding.Result {
		return secret(func(s *check.Secret) { s.Owners = append(s.Owners, owners...) })
	}
	// managedBy is required for the control's own two Secrets.
	leftOut := func(want ...string) map[finding.Family][]string {
		want = append(want, "renewal unknown NotChecked @ Secret metadata")
		return map[finding.Family][]string{finding.ServingCert: want, finding.KubeletClient: want}
	}
	unmanaged := func(w *check.SecretExpectation) { w.ManagedBy, w.Service = "", "" }
	ownersNamed := func(w *check.SecretExpectation) {
		unmanaged(w)
		w.Owners = []check.AllowedOwner{
			{APIVersion: "hypershift.openshift.io", Kind: "HostedControlPlane"},
			{APIVersion: "v1", Kind: "ConfigMap", Name: "mine"},
		}
	}
	withOwners := func(owners ...check.Owner) *check.Secret {
		s := stored(good)
		s.Owners, s.Annotations = owners, nil
		return s
	}
	bare := stored(good)
	bare.Owners, bare.Annotations = nil, nil
	immutable := stored(good)
	immutable.Owners, immutable.Annotations, immutable.Immutable = nil, nil, true
	foreign := check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "x"}
	hosted := func(name, uid string) check.Owner {
		return check.Owner{APIVersion: "hypershift.openshift.io/v1beta1", Kind: "HostedControlPlane", Name: name, UID: uid}
	}
	replaced := func(before ...check.Owner) func(*check.SecretExpectation) {
		return func(w *check.SecretExpectation) {
			ownersNamed(w)
			w.OwnedBefore = before
		}
	}
	var many []check.Owner
	for i := range 12 {
		many = append(many, check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: fmt.Sprint(i)})
	}
	var tenOfThem []string
	for i := range 10 {
		tenOfThem = append(tenOfThem, fmt.Sprintf(`%sConfigMap "absent" "%d"`, owner, i))
	}
	more := func(owners ...check.Owner) string {
		return fmt.Sprintf("%s%x", owner, sha256.Sum256(fmt.Appendf(nil, "%q", owners)))
	}
	noCertificate := func(outcome string) []string {
		return append(
			unknown("chain pair validity usage strength certificate-only issuer dns-names identity",
				"CertificateMissing @ Secret tls.crt"),
			"certificate "+outcome,
		)
	}

	return map[string]fixture{
		"as service-ca writes it": {results: secret(nil)},
		"with its CA":             {results: secret(func(s *check.Secret) { s.Certificate = good.ChainWith(ca.PEM()) })},
		"annotations in beta": {results: secret(func(s *check.Secret) {
			s.Annotations = map[string]string{
				"service.beta.openshift.io/originating-service-name": "api",
				"service.beta.openshift.io/originating-service-uid":  "uid-1",
			}
		})},
		"another beta UID beside is harmless": {results: annotated("service.beta.openshift.io/originating-service-uid", "uid-9")},
		"unmanaged and without owner":         {results: judged(bare, unmanaged), wantOf: leftOut()},
		// Nobody can update it.
		"unmanaged and immutable": {
			results: judged(immutable, unmanaged), want: []string{"renewal fail RotationDetached @ Secret immutable"},
			wantOf: leftOut("renewal fail RotationDetached @ Secret immutable"),
		},
		"unmanaged with an owner": {
			results: judged(stored(good), unmanaged), want: []string{owner + `Service "api" "uid-1"`},
			wantOf: leftOut(owner + `Service "api" "uid-1"`),
		},
		"owners that the platform sets": {results: judged(withOwners(
			check.Owner{APIVersion: "hypershift.openshift.io/v1beta1", Kind: "HostedControlPlane", Name: "any", UID: "u"},
			check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "mine", UID: "v"},
		), ownersNamed), wantOf: leftOut()},
		"owners like those that the platform sets": {
			results: judged(withOwners(
				check.Owner{
					APIVersion: "hypershift.openshift.io.example.com/v1", Kind: "HostedControlPlane", Name: "group", UID: "1",
				},
				check.Owner{APIVersion: "hypershift.openshift.io/v1", Kind: "NodePool", Name: "kind", UID: "2"},
				check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "name", UID: "3"},
			), ownersNamed),
			want:   []string{owner + `HostedControlPlane "group" "1"`, owner + `NodePool "kind" "2"`, owner + `ConfigMap "name" "3"`},
			wantOf: leftOut(owner+`HostedControlPlane "group" "1"`, owner+`NodePool "kind" "2"`, owner+`ConfigMap "name" "3"`),
		},
		"an owner of no possible kind": {
			results: judged(withOwners(check.Owner{APIVersion: "v1", Kind: "a kind\n", Name: "n", UID: "u"}), unmanaged),
			want:    []string{owner + `"a kind\n" "n" "u"`}, wantOf: leftOut(owner + `"a kind\n" "n" "u"`),
		},
		"the owner that the platform set, as it was": {
			results: judged(withOwners(hosted("any", "u")), replaced(hosted("any", "u"))), wantOf: leftOut(),
		},
		"the owner that the platform set, in another version of its API": {
			results: judged(withOwners(hosted("any", "u")), replaced(check.Owner{
				APIVersion: "hypershift.openshift.io/v1alpha1", Kind: "HostedControlPlane", Name: "any", UID: "u",
			})), wantOf: leftOut(),
		},
		"the platform sets the first owner": {
			results: judged(withOwners(hosted("any", "u")), replaced(foreign)), wantOf: leftOut(),
		},
		"another owner instead of the one that the platform set": {
			results: judged(withOwners(hosted("nobody", "0")), replaced(hosted("any", "u"))),
			want:    []string{owner + `HostedControlPlane "nobody" "0"`}, wantOf: leftOut(owner + `HostedControlPlane "nobody" "0"`),
		},
		"another owner beside the one that the platform set": {
			results: judged(withOwners(hosted("any", "u"), hosted("any", "0")), replaced(hosted("any", "u"))),
			want:    []string{owner + `HostedControlPlane "any" "0"`}, wantOf: leftOut(owner + `HostedControlPlane "any" "0"`),
		},
		"wildcard": {results: judged(stored(ca.Issue(wildcard)), nil)},
		"no name asked for": {
			results: judged(stored(ca.Issue(elsewhere)), func(w *check.SecretExpectation) { w.DNSNames = nil }),
			want:    []string{"dns-names notApplicable  @ Secret tls.crt"},
			wantOf:  map[finding.Family][]string{finding.ServingCert: {"dns-names unknown NotChecked @ Secret tls.crt"}},
		},
		"CA not configured": {
			results: judged(stored(good), func(w *check.SecretExpectation) { w.Roots = nil }),
			want:    []string{"issuer unknown NotChecked @ Secret tls.crt"},
		},
		"CA cannot be read": {
			results: judged(stored(good), func(w *check.SecretExpectation) { w.Roots, w.RootsProblem = nil, because(finding.Unreadable) }),
			want:    []string{"issuer unknown Unreadable @ /why"},
		},
		"of a foreign CA": {
			results: judged(stored(pkitest.NewCA("foreign").Issue(pkitest.ServingCert())), nil), want: []string{"issuer fail UntrustedIssuer @ Secret tls.crt"},
		},
		"not there": {
			results: judged(nil, nil),
			want:    append(unknown(ofSecret, "SecretMissing @ Secret"), "exists fail SecretMissing @ Secret"),
		},
		"Opaque": {
			results: secret(func(s *check.Secret) { s.Type = "Opaque" }),
			want:    []string{"type fail WrongSecretType @ Secret type"}, mentions: `"Opaque"`,
		},
		"Opaque, as expected": {results: judged(
			&check.Secret{Type: "Opaque", Certificate: good.Certificate, Key: good.Key},
			func(w *check.SecretExpectation) { w.ManagedBy, w.Type = "", "Opaque" },
		), wantOf: leftOut("type fail WrongSecretType @ Secret type")},
		"empty certificate": {
			results: secret(func(s *check.Secret) { s.Certificate = nil }), want: noCertificate("fail CertificateMissing @ Secret tls.crt"),
		},
		"for another name": {
			results: judged(stored(ca.Issue(elsewhere)), nil), want: []string{"dns-names fail DNSNameMissing @ Secret tls.crt"},
			mentions: "api.openshift-apiserver.svc",
		},
		"immutable": {
			results: secret(func(s *check.Secret) { s.Immutable = true }),
			want:    []string{"renewal fail RotationDetached @ Secret immutable"},
		},
		"another common name": {
			results: judged(stored(good), func(w *check.SecretExpectation) { w.Identity.CommonName = "system:kube-apiserver" }),
			want:    []string{"identity warn UnexpectedIdentity @ Secret tls.crt"}, mentions: "api.openshift-apiserver.svc",
		},
		"another organization": {
			results: judged(stored(good), func(w *check.SecretExpectation) { w.Identity.Organization = "kubernetes" }),
			want:    []string{"identity warn UnexpectedIdentity @ Secret tls.crt"},
		},
		"no identity asked for": {
			results: judged(stored(good), func(w *check.SecretExpectation) { w.Identity = layout.Identity{} }),
			want:    []string{"identity notApplicable  @ Secret tls.crt"},
		},
		"expiry as in the certificate": {results: annotated("service.alpha.openshift.io/expiry", good.Leaf.NotAfter.Format(time.RFC3339))},
		"expiry postponed": {
			results:  annotated("service.beta.openshift.io/expiry", "2099-01-01T00:00:00+01:00"),
			want:     []string{note + "service.beta.openshift.io/expiry"},
			mentions: "2098-12-31T23:00:00Z",
		},
		"expiry postponed, notes ignored": {results: judged(
			func() *check.Secret {
				s := stored(good)
				s.Annotations["service.beta.openshift.io/expiry"] = "2099-01-01T00:00:00+01:00"
				return s
			}(), func(w *check.SecretExpectation) { w.IgnoreValidityAnnotations = true },
		)},
		"expiry postponed, no certificate": {
			results: secret(func(s *check.Secret) {
				s.Certificate, s.Annotations["service.beta.openshift.io/expiry"] = nil, "2099-01-01T00:00:00Z"
			}),
			want: noCertificate("fail CertificateMissing @ Secret tls.crt"),
		},
		"expiry is not a time":         {results: annotated("service.alpha.openshift.io/expiry", "never")},
		"another manager's annotation": {results: annotated("auth.openshift.io/certificate-not-after", "2099-01-01T00:00:00Z")},
		"no owner": {
			results: secret(func(s *check.Secret) { s.Owners = nil }), want: []string{detached},
			mentions: `"api"`,
		},
		"no owner, of any Service": {
			results: judged(bare, func(w *check.SecretExpectation) { w.Service = "" }), want: []string{detached},
		},
		"owner without the annotations": {results: secret(func(s *check.Secret) { s.Annotations = nil }), want: []string{detached}},
		"name stripped":                 {results: annotated("service.alpha.openshift.io/originating-service-name", ""), want: []string{detached}},
		"UID changed":                   {results: annotated("service.alpha.openshift.io/originating-service-uid", "uid-9"), want: []string{detached}},
		"beta name wins over alpha":     {results: annotated("service.beta.openshift.io/originating-service-name", "other"), want: []string{detached}},
		"for another Service of known UID": {
			results: judged(stored(good), func(w *check.SecretExpectation) { w.ServiceUID = "uid-2" }),
			want:    []string{detached, owner + `Service "api" "uid-1"`},
		},
		"foreign owner beside": {
			results: owned(foreign), want: []string{owner + `ConfigMap "absent" "x"`},
			mentions: `ConfigMap "absent"`,
		},
		"ten foreign owners":    {results: owned(many[:10]...), want: tenOfThem},
		"twelve foreign owners": {results: owned(many...), want: append(slices.Clone(tenOfThem), more(many[10:]...))},
		"another eleventh owner": {
			results: owned(append(slices.Clone(many[:10]), foreign)...), want: append(slices.Clone(tenOfThem), more(foreign)),
		},
	}
}

// rotatedFixtures have a Secret that library-go's rotation renews.
func rotatedFixtures() map[string]fixture {
	client := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	rotated := func(change func(*check.Secret)) func(finding.Family) []finding.Result {
		secret := &check.Secret{
			Type:        "kubernetes.io/tls",
			Certificate: client.Certificate,
			Key:         client.Key,
			Annotations: map[string]string{
				"auth.openshift.io/certificate-not-before": client.Leaf.NotBefore.Format(time.RFC3339),
				"auth.openshift.io/certificate-not-after":  client.Leaf.NotAfter.Format(time.RFC3339),
			},
		}
		if change != nil {
			change(secret)
		}
		return func(finding.Family) []finding.Result {
			return check.CheckSecret(check.SecretExpectation{
				Namespace: "openshift-kube-apiserver", Name: "kubelet-client", Usage: x509.ExtKeyUsageClientAuth,
				ManagedBy: check.ManagedByCertRotation,
			}, secret, pkitest.Now()).Results
		}
	}
	annotated := func(key, value string) func(finding.Family) []finding.Result {
		return rotated(func(s *check.Secret) { s.Annotations["auth.openshift.io/"+key] = value })
	}
	const note = "renewal fail RotationDetached @ Secret metadata.annotations auth.openshift.io/"
	want := func(more ...string) []string {
		return append(more, "issuer unknown NotChecked @ Secret tls.crt", "dns-names notApplicable  @ Secret tls.crt",
			"identity notApplicable  @ Secret tls.crt")
	}
	return map[string]fixture{
		"as it writes it":      {results: rotated(nil), want: want()},
		"regeneration forced":  {results: annotated("certificate-not-after", "force-regeneration"), want: want()},
		"without the note":     {results: annotated("certificate-not-after", ""), want: want()},
		"not after postponed":  {results: annotated("certificate-not-after", "2099-01-01T00:00:00Z"), want: want(note + "certificate-not-after")},
		"not before postponed": {results: annotated("certificate-not-before", "2026-12-01T00:00:00Z"), want: want(note + "certificate-not-before")},
		"immutable":            {results: rotated(func(s *check.Secret) { s.Immutable = true }), want: want("renewal fail RotationDetached @ Secret immutable")},
		"an owner": {
			results: rotated(func(s *check.Secret) {
				s.Owners = []check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "u"}}
			}),
			want: want(`renewal fail RotationDetached @ Secret metadata.ownerReferences Service "api" "u"`),
		},
	}
}

// TestResultsAreTheSameEachTime: the order of two findings about annotations is stable.
func TestResultsAreTheSameEachTime(t *testing.T) {
	secret := stored(pkitest.NewCA("signer").Issue(pkitest.ServingCert()))
	for _, flavour := range []string{"alpha", "beta"} {
		secret.Annotations["service."+flavour+".openshift.io/expiry"] = "2099-01-01T00:00:00Z"
	}
	first := check.CheckSecret(expected(finding.ServingCert), secret, pkitest.Now()).Results
	for range 20 {
		if d := cmp.Diff(first, check.CheckSecret(expected(finding.ServingCert), secret, pkitest.Now()).Results); d != "" {
			t.Fatalf("the results differ:\n%s", d)
		}
	}
}

// TestSecretVerdict: leaf and next change come from the pair.
func TestSecretVerdict(t *testing.T) {
	p := pkitest.NewCA("signer").Issue(pkitest.ServingCert())
	verdict := check.CheckSecret(expected(finding.ServingCert), stored(p), pkitest.Now())
	if verdict.Leaf == nil || !verdict.Leaf.Equal(p.Leaf) || !verdict.NextChange.After(pkitest.Now()) ||
		verdict.NextChange.After(p.Leaf.NotAfter) {
		t.Errorf("of a Secret: leaf %v, until %s", verdict.Leaf != nil, verdict.NextChange)
	}
	verdict = check.CheckSecret(expected(finding.ServingCert), nil, pkitest.Now())
	if verdict.Leaf != nil || !verdict.NextChange.IsZero() {
		t.Errorf("of none: leaf %v, until %s", verdict.Leaf != nil, verdict.NextChange)
	}
}

func serviceFixtures() map[string]fixture {
	const (
		alpha, beta = "service.alpha.openshift.io/", "service.beta.openshift.io/"
		secretName  = "serving-cert-secret-name"
		errorNumber = "serving-cert-generation-error-num"
	)
	// ASKED is replaced by the name of the Secret.
	service := func(change func(*check.Service), annotations ...string) func(finding.Family) []finding.Result {
		return func(family finding.Family) []finding.Result {
			s := check.Service{Secret: expected(family), Annotations: map[string]string{}}
			for pair := range slices.Chunk(annotations, 2) {
				s.Annotations[pair[0]] = pair[1]
				if pair[1] == "ASKED" {
					s.Annotations[pair[0]] = s.Secret.Name
				}
			}
			if change != nil {
				change(&s)
			}
			results, _ := s.Check(pkitest.Now())
			return results
		}
	}
	counter := func(ofAlpha, ofBeta string) func(finding.Family) []finding.Result {
		return service(nil, beta+secretName, "ASKED", alpha+errorNumber, ofAlpha, beta+errorNumber, ofBeta)
	}
	const (
		failing    = "service warn RotationFailing @ Service api"
		stuck      = "service warn RotationStuck @ Service api"
		detached   = "service fail RotationDetached @ Service api"
		notApplied = "service notApplicable  @ Service api"
	)
	leftOut := map[finding.Family][]string{finding.ServingCert: {"service unknown NotChecked @ Secret"}}
	return map[string]fixture{
		"requests it":               {results: service(nil, beta+secretName, "ASKED")},
		"requests it in alpha":      {results: service(nil, alpha+secretName, "ASKED")},
		"requests it in both":       {results: service(nil, alpha+secretName, "ASKED", beta+secretName, "ASKED")},
		"beta wins, and is right":   {results: service(nil, alpha+secretName, "other", beta+secretName, "ASKED")},
		"beta wins, and is wrong":   {results: service(nil, alpha+secretName, "ASKED", beta+secretName, "other"), want: []string{detached + " " + beta + secretName}},
		"requests another in alpha": {results: service(nil, alpha+secretName, "other"), want: []string{detached + " " + alpha + secretName}},
		"requests none":             {results: service(nil), want: []string{detached + " " + beta + secretName}},
		"does not exist":            {results: service(func(s *check.Service) { s.Missing = true }), want: []string{detached}},
		"is not known":              {results: service(func(s *check.Service) { s.WhyUnknown = because(finding.Unreadable) }), want: []string{"service unknown Unreadable @ /why"}},
		"requests none, and fails": {
			results: service(nil, alpha+errorNumber, "3"), want: []string{detached + " " + beta + secretName, failing},
		},
		"not managed": {
			results: service(func(s *check.Service) { s.Secret.ManagedBy = "" }), want: []string{notApplied},
			wantOf: leftOut,
		},
		"managed by rotation": {results: service(func(s *check.Service) { s.Secret.ManagedBy = check.ManagedByCertRotation }), want: []string{notApplied}, wantOf: leftOut},
		"no Service configured": {
			results: service(func(s *check.Service) { s.Secret.Service = "" }),
			want:    []string{"service notApplicable  @ Secret"}, wantOf: leftOut,
		},
		"counter at 0":         {results: counter("0", "0")},
		"counter of rubbish":   {results: counter("many", "-3")},
		"counter of beta only": {results: counter("", "10"), want: []string{stuck}},
		"the flavours differ":  {results: counter("2", "9"), want: []string{failing}},
		"counter at 1": {
			results: counter("1", ""), want: []string{failing},
			mentions: "1",
		},
		"counter at 10": {
			results: counter("10", "10"), want: []string{stuck},
			mentions: "10",
		},
	}
}

// TestServiceNamesTheSecret: the message about a Service has the name of the Secret that
// depends on it.
func TestServiceNamesTheSecret(t *testing.T) {
	cases := map[string]check.Service{
		"no annotation":  {},
		"another Secret": {Annotations: map[string]string{"service.beta.openshift.io/serving-cert-secret-name": "other"}},
		"no Service":     {Missing: true},
	}
	for name, service := range cases {
		t.Run(name, func(t *testing.T) {
			service.Secret = expected(finding.ServingCert)
			results, _ := service.Check(pkitest.Now())
			if len(results) != 1 || !strings.Contains(results[0].Message, "serving-cert") {
				t.Errorf("got %q, want one message with serving-cert", texts(results))
			}
		})
	}
}

// TestAttachedTo: the UID of the Service that service-ca renews a Secret for.
func TestAttachedTo(t *testing.T) {
	unmanaged := expected(finding.ServingCert)
	unmanaged.ManagedBy = ""
	good, detached := stored(pkitest.Pair{}), stored(pkitest.Pair{})
	detached.Owners = nil
	cases := map[string]struct {
		want   check.SecretExpectation
		stored *check.Secret
		uid    string
	}{
		"attached":      {expected(finding.ServingCert), good, "uid-1"},
		"without one":   {expected(finding.ServingCert), detached, ""},
		"no Secret":     {expected(finding.ServingCert), nil, ""},
		"of no manager": {unmanaged, good, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := check.AttachedTo(c.want, c.stored); got != c.uid {
				t.Errorf("got %q, want %q", got, c.uid)
			}
		})
	}
}

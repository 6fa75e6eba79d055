// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
)

func servingCert() check.SecretExpectation {
	return check.SecretExpectation{
		Namespace: "openshift-apiserver", Name: "serving-cert", Usage: x509.ExtKeyUsageServerAuth,
		DNSNames: []string{"api.openshift-apiserver.svc"}, ManagedBy: check.ManagedByServiceCA, Service: "api",
		ExpiringFraction: check.DefaultExpiringFraction,
	}
}

const (
	administrator = "system:admin"
	collector     = "system:serviceaccount:kube-system:generic-garbage-collector"
	nsController  = "system:serviceaccount:kube-system:namespace-controller"
	serviceCA     = "system:serviceaccount:openshift-service-ca:service-ca"
)

// TestDecide is the table of allowed and refused changes of a protected Secret. All follow
// from one rule, so no case here has code of its own.
func TestDecide(t *testing.T) {
	page := messages.Record(t, "allowed requests with a message or a warning")
	now := pkitest.Now()
	ca := pkitest.NewCA("service-ca")
	first, second := ca.Issue(pkitest.ServingCert()), ca.Issue(pkitest.ServingCert())
	expired := ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-2, 0, 0), now.Add(-time.Hour)))
	expiring := ca.Issue(pkitest.ServingCert().Valid(now.Add(-90*time.Minute), now.Add(10*time.Minute)))
	future := ca.Issue(pkitest.ServingCert().Valid(now.Add(time.Hour), now.AddDate(1, 0, 0)))
	client := ca.Issue(pkitest.KubeletClient())
	rsaRequest := pkitest.ServingCert()
	rsaRequest.Key = pkitest.RSA
	rsaPair := ca.Issue(rsaRequest)

	secret := func(p pkitest.Pair, changes ...func(*check.Secret)) *check.Secret {
		s := &check.Secret{
			Type: "kubernetes.io/tls", Certificate: p.Certificate, Key: p.Key,
			Annotations: map[string]string{
				"service.alpha.openshift.io/originating-service-name": "api",
				"service.alpha.openshift.io/originating-service-uid":  "uid-1",
			},
			Owners: []check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-1"}},
		}
		for _, change := range changes {
			change(s)
		}
		return s
	}
	emptyCertificate := func(s *check.Secret) { s.Certificate = nil }
	emptyKey := func(s *check.Secret) { s.Key = nil }
	garbageKey := func(s *check.Secret) { s.Key = []byte("garbage") }
	opaque := func(s *check.Secret) { s.Type = "Opaque" }
	bare := func(s *check.Secret) { s.Annotations, s.Owners = nil, nil }
	immutable := func(s *check.Secret) { s.Immutable = true }
	attachedTo := func(uid string) func(*check.Secret) {
		return func(s *check.Secret) {
			s.Annotations["service.alpha.openshift.io/originating-service-uid"], s.Owners[0].UID = uid, uid
		}
	}
	allowUntil := func(text string) func(*check.Secret) {
		return func(s *check.Secret) { s.Annotations[admit.AllowDeleteUntil] = text }
	}
	inMinutes := func(minutes int) string { return now.Add(time.Duration(minutes) * time.Minute).Format(time.RFC3339) }

	service := check.Owner{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-1"}
	dangling := check.Owner{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-0"}
	owned := func(owners ...check.Owner) func(*check.Secret) {
		return func(s *check.Secret) { s.Owners = owners }
	}
	annotated := func(name, value string) func(*check.Secret) {
		return func(s *check.Secret) { s.Annotations[name] = value }
	}

	cases := map[string]struct {
		user     string
		old, new *check.Secret
		want     string
	}{
		"create a valid one":                    {new: secret(first), want: "allow []"},
		"rotate":                                {old: secret(first), new: secret(second), want: "allow []"},
		"rotate to another algorithm":           {old: secret(rsaPair), new: secret(second), want: "allow []"},
		"grow the chain":                        {old: secret(first), new: secret(first, func(s *check.Secret) { s.Certificate = first.ChainWith(ca.PEM()) }), want: "allow []"},
		"write the same again":                  {old: secret(first), new: secret(first), want: "allow []"},
		"write the same invalid one again":      {old: secret(expired), new: secret(expired), want: "allow []"},
		"write the same empty one again":        {old: secret(first, emptyCertificate, emptyKey, opaque), new: secret(first, emptyCertificate, emptyKey, opaque), want: "allow []"},
		"repair an empty one":                   {old: secret(first, emptyCertificate), new: secret(second), want: "allow []"},
		"repair an expired one":                 {old: secret(expired), new: secret(second), want: "allow []"},
		"repair one of two values":              {old: secret(first, emptyCertificate, emptyKey), new: secret(first, emptyKey), want: "allow []"},
		"re-attach a detached one":              {old: secret(first, bare), new: secret(first), want: "allow []"},
		"change an invalid one, no new problem": {old: secret(expired), new: secret(expired, allowUntil(inMinutes(10))), want: "allow []"},
		"change the annotations from alpha to beta": {old: secret(first), new: secret(first, func(s *check.Secret) {
			s.Annotations = map[string]string{
				"service.beta.openshift.io/originating-service-name": "api",
				"service.beta.openshift.io/originating-service-uid":  "uid-1",
			}
		}), want: "allow []"},
		"store one that expires soon": {old: secret(first), new: secret(expiring), want: "allow [CertificateExpiringSoon] with a warning"},
		"add the key to the certificate": {
			old: secret(first), new: secret(first, func(s *check.Secret) { s.Certificate = first.ChainWith(first.Key) }),
			want: "allow [KeyInCertificateFile] with a warning",
		},
		"remove the key from the certificate": {
			old: secret(first, func(s *check.Secret) { s.Certificate = first.ChainWith(first.Key) }), new: secret(first), want: "allow []",
		},
		"the CA in front of the certificate": {
			old: secret(first), new: secret(second, func(s *check.Secret) { s.Certificate = append(slices.Clone(ca.PEM()), second.Certificate...) }),
			want: "refuse [DNSNameMissing KeyMismatch]",
		},
		"a key of an unknown algorithm": {
			old: secret(first), new: secret(first, func(s *check.Secret) {
				s.Certificate = pkitest.Algorithms()["Ed448"].Certificate("1.3.101.113")
			}),
			want: "refuse [CertificateUnparsable]",
		},
		"empty the certificate":                       {old: secret(first), new: secret(first, emptyCertificate), want: "refuse [CertificateMissing]"},
		"empty the key":                               {old: secret(first), new: secret(first, emptyKey), want: "refuse [KeyMissing]"},
		"empty both":                                  {old: secret(first), new: secret(first, emptyCertificate, emptyKey), want: "refuse [CertificateMissing KeyMissing]"},
		"garbage as the key":                          {old: secret(first), new: secret(first, garbageKey), want: "refuse [KeyUnparsable]"},
		"a new problem in an invalid one":             {old: secret(expired), new: secret(expired, garbageKey), want: "refuse [KeyUnparsable]"},
		"the key of another pair":                     {old: secret(first), new: secret(first, func(s *check.Secret) { s.Key = second.Key }), want: "refuse [KeyMismatch]"},
		"an expired certificate":                      {old: secret(first), new: secret(expired), want: "refuse [CertificateExpired]"},
		"a certificate that is not yet valid":         {old: secret(first), new: secret(future), want: "refuse [CertificateNotYetValid]"},
		"a client certificate":                        {old: secret(first), new: secret(client), want: "refuse [DNSNameMissing WrongKeyUsage]"},
		"make it immutable":                           {old: secret(first), new: secret(first, immutable), want: "refuse [RotationDetached]"},
		"detach it":                                   {old: secret(first), new: secret(first, bare), want: "refuse [RotationDetached]"},
		"move it to another Service of the same name": {old: secret(first), new: secret(second, attachedTo("uid-2")), want: "refuse [RotationDetached RotationDetached]"},
		"attach it to the current Service":            {old: secret(first, attachedTo("uid-1"), bare), new: secret(second, attachedTo("uid-2")), want: "allow []"},
		"a foreign owner": {
			old: secret(first), new: secret(first, func(s *check.Secret) {
				s.Owners = append(s.Owners, check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "x"})
			}), want: "refuse [RotationDetached]",
		},
		"another Service as a second owner, to replace it later": {
			old: secret(first), new: secret(first, func(s *check.Secret) {
				s.Owners = append([]check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-2"}}, s.Owners...)
				s.Annotations["service.beta.openshift.io/originating-service-uid"] = "uid-2"
			}), want: "refuse [RotationDetached]",
		},
		"create it as Opaque":       {new: secret(first, opaque), want: "refuse [WrongSecretType]"},
		"create it detached":        {new: secret(first, bare), want: "refuse [RotationDetached]"},
		"create it empty":           {new: &check.Secret{Type: "kubernetes.io/tls"}, want: "refuse [CertificateMissing KeyMissing RotationDetached]"},
		"service-ca writes garbage": {user: serviceCA, old: secret(first), new: secret(first, garbageKey), want: "refuse [KeyUnparsable]"},

		"delete":                                              {old: secret(first), want: "refuse [SecretMissing]"},
		"delete an invalid one":                               {old: secret(expired, emptyKey), want: "refuse [SecretMissing]"},
		"the garbage collector deletes":                       {user: collector, old: secret(first), want: "allow [SecretMissing]"},
		"the namespace controller deletes":                    {user: nsController, old: secret(first), want: "allow [SecretMissing]"},
		"the garbage collector orphans it":                    {user: collector, old: secret(first), new: secret(first, owned()), want: "allow [RotationDetached]"},
		"it removes one of two owners, which does not exist":  {user: collector, old: secret(first, owned(dangling, service)), new: secret(first), want: "allow []"},
		"it removes the owner for which service-ca renews it": {user: collector, old: secret(first, owned(dangling, service)), new: secret(first, owned(dangling)), want: "allow [RotationDetached]"},
		"another user removes the owner":                      {user: nsController, old: secret(first), new: secret(first, owned()), want: "refuse [RotationDetached]"},
		"the garbage collector adds an owner":                 {user: collector, old: secret(first), new: secret(first, owned(service, check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "x"})), want: "refuse [RotationDetached]"},
		"it replaces the owner":                               {user: collector, old: secret(first), new: secret(first, owned(dangling)), want: "refuse [RotationDetached RotationDetached]"},
		"it removes the owner and the key":                    {user: collector, old: secret(first), new: secret(first, owned(), emptyKey), want: "refuse [KeyMissing RotationDetached]"},
		"it removes the owner and makes it immutable":         {user: collector, old: secret(first), new: secret(first, owned(), immutable), want: "refuse [RotationDetached RotationDetached]"},
		"it removes the owner and an annotation":              {user: collector, old: secret(first), new: secret(first, bare), want: "refuse [RotationDetached]"},
		"it creates one without owners":                       {user: collector, new: secret(first, bare), want: "refuse [RotationDetached]"},
		"renew it, by removing both expiry annotations": {
			old: secret(first, annotated("service.alpha.openshift.io/expiry", "2027-01-01T00:00:00Z"), annotated("service.beta.openshift.io/expiry", "2027-01-01T00:00:00Z")),
			new: secret(first), want: "allow []",
		},
		"the garbage collector writes garbage":                {user: collector, old: secret(first), new: secret(first, garbageKey), want: "refuse [KeyUnparsable]"},
		"delete, allowed for ten minutes":                     {old: secret(first, allowUntil(inMinutes(10))), want: "allow [SecretMissing] by break-glass"},
		"delete, allowed for an hour":                         {old: secret(first, allowUntil(inMinutes(60))), want: "allow [SecretMissing] by break-glass"},
		"delete, allowed in another time zone":                {old: secret(first, allowUntil(now.Add(10*time.Minute).In(time.FixedZone("", -5*3600)).Format(time.RFC3339))), want: "allow [SecretMissing] by break-glass"},
		"delete an invalid one, allowed":                      {old: secret(first, emptyKey, allowUntil(inMinutes(10))), want: "allow [SecretMissing] by break-glass"},
		"delete, allowed until now":                           {old: secret(first, allowUntil(inMinutes(0))), want: "refuse [SecretMissing]"},
		"delete, allowed until a minute ago":                  {old: secret(first, allowUntil(inMinutes(-1))), want: "refuse [SecretMissing]"},
		"delete, allowed for too long":                        {old: secret(first, allowUntil(inMinutes(61))), want: "refuse [SecretMissing]"},
		"delete, with an invalid annotation":                  {old: secret(first, allowUntil("yes")), want: "refuse [SecretMissing]"},
		"the annotation allows deletes only":                  {old: secret(first, allowUntil(inMinutes(10))), new: secret(first, garbageKey, allowUntil(inMinutes(10))), want: "refuse [KeyUnparsable]"},
		"allow a delete":                                      {old: secret(first), new: secret(first, allowUntil(inMinutes(10))), want: "allow []"},
		"set an invalid annotation":                           {old: secret(first), new: secret(first, allowUntil("yes")), want: "allow [] with a warning"},
		"set an annotation too far ahead":                     {old: secret(first), new: secret(first, allowUntil(inMinutes(61))), want: "allow [] with a warning"},
		"no warning about an annotation that does not change": {old: secret(first, allowUntil("yes")), new: secret(second, allowUntil("yes")), want: "allow []"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			user := c.user
			if user == "" {
				user = administrator
			}
			d := admit.Decide(servingCert(), admit.Change{User: user, Old: c.old, New: c.new}, now)
			got := "refuse"
			if d.Allowed { // TestMessages records refusals
				record(page, name, d)
			}
			if d.Allowed {
				got = "allow"
			}
			reasons := []string{}
			for _, f := range d.Introduced {
				reasons = append(reasons, string(f.Reason))
			}
			got += fmt.Sprintf(" %v", reasons)
			if d.BreakGlass {
				got += " by break-glass"
			}
			if len(d.Warnings) > 0 {
				got += " with a warning"
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Decide (-want +got):\n%s", d)
			}
			if !d.Allowed && d.Message == "" {
				t.Error("a refusal without a message")
			}
		})
	}
}

// TestDecideOwners: which changes of owners are allowed if the platform owns the Secret.
func TestDecideOwners(t *testing.T) {
	pair := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	want := check.SecretExpectation{
		Namespace: "hcp", Name: "kas", Type: "Opaque", Usage: x509.ExtKeyUsageClientAuth,
		Owners: []check.AllowedOwner{{APIVersion: "hypershift.openshift.io", Kind: "HostedControlPlane"}},
	}
	hosted := func(name, uid string) check.Owner {
		return check.Owner{APIVersion: "hypershift.openshift.io/v1beta1", Kind: "HostedControlPlane", Name: name, UID: uid}
	}
	foreign := check.Owner{APIVersion: "x/v1", Kind: "K", Name: "n", UID: "u"}
	newer, hostedNewer := foreign, hosted("hcp", "real")
	newer.APIVersion, hostedNewer.APIVersion = "x/v2", "hypershift.openshift.io/v1"
	var ten []check.Owner
	for i := range 10 {
		ten = append(ten, check.Owner{APIVersion: "x/v1", Kind: "K", Name: "n", UID: fmt.Sprint(i)})
	}
	type owners = []check.Owner
	cases := map[string]struct {
		old, new owners
		allowed  bool
	}{
		"the platform's owner stays":                                  {owners{hosted("hcp", "real")}, owners{hosted("hcp", "real")}, true},
		"the platform sets its owner":                                 {nil, owners{hosted("hcp", "real")}, true},
		"the platform's owner is removed":                             {owners{hosted("hcp", "real")}, nil, true},
		"the platform's owner is replaced by one that does not exist": {owners{hosted("hcp", "real")}, owners{hosted("nobody", "bogus")}, false},
		"the UID of the platform's owner is replaced":                 {owners{hosted("hcp", "real")}, owners{hosted("hcp", "bogus")}, false},
		"the platform's owner, and one that does not exist":           {owners{hosted("hcp", "real")}, owners{hosted("hcp", "real"), hosted("nobody", "bogus")}, false},
		"another API version of the platform's owner":                 {owners{hosted("hcp", "real")}, owners{hostedNewer}, true},
		"another API version of a foreign owner":                      {owners{foreign}, owners{newer}, true},
		"a tenth foreign owner":                                       {ten[:9], ten, false},
		"an eleventh foreign owner":                                   {ten, append(slices.Clone(ten), foreign), false},
		"eleven foreign owners stay":                                  {append(slices.Clone(ten), foreign), append(slices.Clone(ten), foreign), true},
		"the eleventh foreign owner is replaced":                      {append(slices.Clone(ten), foreign), append(slices.Clone(ten), hosted("hcp", "real"), check.Owner{APIVersion: "v1", Kind: "Evil", Name: "z", UID: "z"}), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			secret := func(owners []check.Owner) *check.Secret {
				return &check.Secret{Type: "Opaque", Certificate: pair.Certificate, Key: pair.Key, Owners: owners}
			}
			d := admit.Decide(want, admit.Change{User: administrator, Old: secret(c.old), New: secret(c.new)}, pkitest.Now())
			if d.Allowed != c.allowed {
				t.Errorf("allowed: %t, want %t (%s)", d.Allowed, c.allowed, d.Message)
			}
		})
	}
}

// TestOverridesIntroduce: each disabled plugin is a finding of its own, and messages do not
// quote the name of an argument.
func TestOverridesIntroduce(t *testing.T) {
	results := func(overrides string) []finding.Result {
		var k facts.KubeAPIServer
		k.Spec.Overrides = []byte(overrides)
		results, _ := facts.Override(k).Check(pkitest.Now())
		return results
	}
	const policy, webhook = "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"
	cases := map[string]struct {
		before, after string
		want          []string // plugins
	}{
		"by the API": {
			`{"apiServerArguments":{"runtime-config":["api/all=false,admissionregistration.k8s.io/v1/validatingwebhookconfigurations=true"]}}`,
			`{"apiServerArguments":{"runtime-config":["api/all=false"]}}`, []string{webhook},
		},
		"by the list of all plugins": {
			`{"apiServerArguments":{"admission-control":["ValidatingAdmissionWebhook"]}}`,
			`{"apiServerArguments":{"admission-control":["NodeRestriction"]}}`, []string{webhook},
		},
		"the same plugins in another way": {
			`{"apiServerArguments":{"runtime-config":["api/all=false"]}}`,
			`{"apiServerArguments":{"runtime-config":["api/all=false","admissionregistration.k8s.io/v1=false"]}}`, nil,
		},
		"both": {`{}`, `{"apiServerArguments":{"runtime-config":["api/all=false"]}}`, []string{policy, webhook}},
		"one plugin is enabled again": {
			`{"apiServerArguments":{"admission-control":["NodeRestriction"]}}`,
			`{"apiServerArguments":{"admission-control":["ValidatingAdmissionWebhook"]}}`, nil,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, r := range finding.Introduced(results(c.before), results(c.after)) {
				if r.Reason != finding.AdmissionDisabled {
					t.Errorf("it introduces %s", r.Reason)
				}
				got = append(got, r.Subject.String()[strings.LastIndex(r.Subject.String(), " ")+1:])
			}
			slices.Sort(got)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("plugins (-want +got):\n%s", d)
			}
		})
	}
	t.Run("secret text in an argument's name", func(t *testing.T) {
		key := "disable-admission-plugins=-----BEGIN RSA PRIVATE KEY-----" + strings.Repeat("A", 5000)
		failed := finding.WithOutcome(results(`{"apiServerArguments":{"`+key+`":{"a":1}}}`), finding.Fail)
		if len(failed) != 1 {
			t.Fatalf("findings: %+v", failed)
		}
		if text := fmt.Sprint(failed[0]); strings.Contains(text, "BEGIN") || strings.Contains(text, "AAAA") {
			t.Errorf("the text is in the finding: %.300s", text)
		}
	})
}

// TestMessages: what a refusal mentions, and the annotation that people copy.
func TestMessages(t *testing.T) {
	page := messages.Record(t, "refusals")
	now := pkitest.Now()
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	good := check.Secret{
		Type: "kubernetes.io/tls", Certificate: pair.Certificate, Key: pair.Key,
		Annotations: map[string]string{
			"service.alpha.openshift.io/originating-service-name": "api",
			"service.alpha.openshift.io/originating-service-uid":  "uid-1",
		},
		Owners: []check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-1"}},
	}
	empty := good
	empty.Certificate, empty.Key = nil, nil
	allowed := good
	allowed.Annotations = map[string]string{admit.AllowDeleteUntil: "2026-11-22T12:30:00Z"}
	late := good
	late.Annotations = map[string]string{admit.AllowDeleteUntil: "2026-11-22T11:30:00Z"}

	const (
		secret = "openshift-apiserver/serving-cert"
		number = "CIS OpenShift 1.2.4 (1.2.2 from v1.8)"
		// maxDelete is the length of the answer to a delete, without an invalid annotation.
		maxDelete = 340
	)
	refused := []string{
		"DELETE of Secret " + secret, "SecretMissing", number, admit.Marker,
		"Fix: to renew it, remove annotations service.{alpha,beta}.openshift.io/expiry; to delete it, set annotation ",
		"kubelet-https-guard.io/allow-delete-until=2026-11-22T12:30:00Z",
	}
	cases := map[string]struct {
		change    admit.Change
		managedBy string // of the Secret, if it is not service-ca
		mentions  []string
	}{
		"both values emptied": {
			admit.Change{Old: &good, New: &empty}, "",
			[]string{
				"UPDATE of Secret " + secret,
				"tls.crt: ", "(CertificateMissing)", "tls.key: ", "(KeyMissing)", number, admit.Marker,
			},
		},
		"deleted": {admit.Change{Old: &good}, "", refused},
		"deleted, of an operator": {
			admit.Change{Old: &good}, check.ManagedByCertRotation,
			[]string{
				"Fix: to renew it, remove annotation auth.openshift.io/certificate-not-after; to delete it, set annotation ",
			},
		},
		"deleted, of no known manager": {
			admit.Change{Old: &good}, "none", []string{"Fix: to renew it, see docs/runbook.md; to delete it, set annotation "},
		},
		"deleted too late":   {admit.Change{Old: &late}, "", append(slices.Clone(refused), `"2026-11-22T11:30:00Z"`)},
		"deleted on purpose": {admit.Change{Old: &allowed}, "", []string{secret, admit.AllowDeleteUntil, "2026-11-22T12:30:00Z"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := servingCert()
			if c.managedBy != "" {
				want.ManagedBy = c.managedBy
			}
			decision := admit.Decide(want, c.change, now)
			record(page, name, decision)
			if name == "deleted" && len(decision.Message) > maxDelete {
				t.Errorf("%d characters, more than %d: %s", len(decision.Message), maxDelete, decision.Message)
			}
			for _, mentioned := range c.mentions {
				if !strings.Contains(decision.Message, mentioned) {
					t.Errorf("the message does not mention %q: %s", mentioned, decision.Message)
				}
			}
		})
	}
}

// TestIntroduced: for all pairs of Secrets, a change introduces the findings of the new one that the old one does not
// have, although a new one without findings is not compared.
func TestIntroduced(t *testing.T) {
	ca := pkitest.NewCA("service-ca")
	now := pkitest.Now()
	pair, other := ca.Issue(pkitest.ServingCert()), ca.Issue(pkitest.ServingCert())
	expiring := ca.Issue(pkitest.ServingCert().Valid(now.Add(-99*time.Hour), now.Add(time.Hour)))
	secret := func(certificate, key []byte, change func(*check.Secret)) *check.Secret {
		s := reduced(*openshift.ServingCert("uid-1", certificate, key))
		change(s)
		return s
	}
	asItIs := func(*check.Secret) {}
	later := func(s *check.Secret) { s.Annotations["service.alpha.openshift.io/expiry"] = "2099-01-01T00:00:00Z" }
	secrets := map[string]*check.Secret{
		"none":                    nil,
		"valid":                   secret(pair.Certificate, pair.Key, asItIs),
		"other, valid":            secret(other.Certificate, other.Key, asItIs),
		"expiring":                secret(expiring.Certificate, expiring.Key, asItIs),
		"mismatch":                secret(pair.Certificate, other.Key, asItIs),
		"garbage":                 secret([]byte("garbage"), pair.Key, asItIs),
		"garbage, later expiry":   secret([]byte("garbage"), pair.Key, later),
		"later expiry":            secret(pair.Certificate, pair.Key, later),
		"expiring, later expiry":  secret(expiring.Certificate, expiring.Key, later),
		"wrong type":              secret(pair.Certificate, pair.Key, func(s *check.Secret) { s.Type = "Opaque" }),
		"no owner":                secret(pair.Certificate, pair.Key, func(s *check.Secret) { s.Owners = nil }),
		"immutable and no values": secret(nil, nil, func(s *check.Secret) { s.Immutable = true }),
	}
	for roots, want := range map[string]check.SecretExpectation{"not known": servingCert(), "known": servingCert()} {
		if roots == "known" {
			want.Roots = []*x509.Certificate{ca.Certificate}
		}
		for name, before := range secrets {
			for newName, after := range secrets {
				defined := want
				defined.ServiceUID = check.AttachedTo(want, before)
				if before != nil {
					defined.OwnedBefore = before.Owners
				}
				was := check.CheckSecret(defined, before, now)
				defined.IgnoreValidityAnnotations = before != nil && was.Leaf == nil
				expected := finding.Introduced(was.Results, check.CheckSecret(defined, after, now).Results)
				got := admit.Decide(want, admit.Change{User: administrator, Old: before, New: after}, now).Introduced
				if d := cmp.Diff(expected, got, cmpopts.EquateEmpty()); d != "" {
					t.Errorf("roots %s, %s → %s (-defined +got):\n%s", roots, name, newName, d)
				}
			}
		}
	}
}

// TestZeroDecisionRefuses: the zero value of a decision refuses.
func TestZeroDecisionRefuses(t *testing.T) {
	var d admit.Decision
	if d.Allowed {
		t.Error("the zero value allows")
	}
}

// record adds what a decision says to the user.
func record(page *messages.Part, title string, d admit.Decision) {
	page.Text(title, d.Message)
	for _, warning := range d.Warnings {
		page.Text(title, "Warning: "+warning)
	}
}

// TestDecideIssuers: a certificate of no CA in the bundle is refused, unless the bundle has a CA that cannot be used.
func TestDecideIssuers(t *testing.T) {
	ca, foreign := pkitest.NewCA("service-ca"), pkitest.NewCA("foreign")
	own, other := ca.Issue(pkitest.KubeletClient()), foreign.Issue(pkitest.KubeletClient())
	unusable := pkitest.Algorithms()["Ed448"].Certificate("1.3.101.113")
	for name, c := range map[string]struct {
		bundle []byte
		new    pkitest.Pair
		want   string
	}{
		"signed":                         {ca.PEM(), own, "true []"},
		"foreign":                        {ca.PEM(), other, "false [UntrustedIssuer]"},
		"signed, a CA not usable":        {slices.Concat(unusable, ca.PEM()), own, "true []"},
		"foreign, a CA not usable":       {slices.Concat(unusable, ca.PEM()), other, "true [CAUnusable]"},
		"foreign, one CA of two damaged": {slices.Concat(ca.PEM(), ca.PEM()[:100], ca.PEM()), other, "true [CAUnusable]"},
	} {
		t.Run(name, func(t *testing.T) {
			bundle, err := pki.ParseBundle(c.bundle)
			if err != nil {
				t.Fatal(err)
			}
			want := check.SecretExpectation{
				Namespace: "ns", Name: "s", Usage: x509.ExtKeyUsageClientAuth,
				Roots: bundle.CAs, RootsUnusable: bundle.Unusable,
			}
			secret := func(p pkitest.Pair) *check.Secret {
				return &check.Secret{Type: "kubernetes.io/tls", Certificate: p.Certificate, Key: p.Key}
			}
			d := admit.Decide(want, admit.Change{Old: secret(own), New: secret(c.new)}, pkitest.Now())
			reasons := []string{}
			for _, f := range d.Introduced {
				reasons = append(reasons, string(f.Reason))
			}
			if got := fmt.Sprint(d.Allowed, " ", reasons); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestDecideMLDSA: the API server's Go release decides whether an ML-DSA certificate is refused.
func TestDecideMLDSA(t *testing.T) {
	own := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	for version, want := range map[string]string{
		"go1.26.8": "false [AlgorithmUnsupported]", "go1.27.4": "true []", "": "true [AlgorithmUnsupported]",
	} {
		t.Run(version, func(t *testing.T) {
			d := admit.Decide(check.SecretExpectation{
				Namespace: "ns", Name: "s", Usage: x509.ExtKeyUsageClientAuth, GoVersion: version,
			}, admit.Change{
				Old: &check.Secret{Type: "kubernetes.io/tls", Certificate: own.Certificate, Key: own.Key},
				New: &check.Secret{
					Type: "kubernetes.io/tls", Certificate: own.SignedWith("2.16.840.1.101.3.4.3.18"), Key: own.Key,
				},
			}, pkitest.Now())
			reasons := []string{}
			for _, f := range d.Introduced {
				if f.Reason != finding.CAUnusable { // Go 1.26 cannot verify the signature
					reasons = append(reasons, string(f.Reason))
				}
			}
			if got := fmt.Sprint(d.Allowed, " ", reasons); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

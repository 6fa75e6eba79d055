// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
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

// TestDecide is the table of what may be done to a protected Secret: by the
// one rule, so that nothing here is a case of its own in the code.
func TestDecide(t *testing.T) {
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

	cases := map[string]struct {
		user     string
		old, new *check.Secret
		want     string
	}{
		"create a good one":                        {new: secret(first), want: "allow []"},
		"rotate":                                   {old: secret(first), new: secret(second), want: "allow []"},
		"rotate to another algorithm":              {old: secret(rsaPair), new: secret(second), want: "allow []"},
		"grow the chain":                           {old: secret(first), new: secret(first, func(s *check.Secret) { s.Certificate = first.ChainWith(ca.PEM()) }), want: "allow []"},
		"write the same again":                     {old: secret(first), new: secret(first), want: "allow []"},
		"write the same bad one again":             {old: secret(expired), new: secret(expired), want: "allow []"},
		"write the same very bad one again":        {old: secret(first, emptyCertificate, emptyKey, opaque), new: secret(first, emptyCertificate, emptyKey, opaque), want: "allow []"},
		"repair an empty one":                      {old: secret(first, emptyCertificate), new: secret(second), want: "allow []"},
		"repair an expired one":                    {old: secret(expired), new: secret(second), want: "allow []"},
		"repair one half of two":                   {old: secret(first, emptyCertificate, emptyKey), new: secret(first, emptyKey), want: "allow []"},
		"re-attach a detached one":                 {old: secret(first, bare), new: secret(first), want: "allow []"},
		"change a bad one without making it worse": {old: secret(expired), new: secret(expired, allowUntil(inMinutes(10))), want: "allow []"},
		"change the annotations from alpha to beta": {old: secret(first), new: secret(first, func(s *check.Secret) {
			s.Annotations = map[string]string{"service.beta.openshift.io/originating-service-name": "api", "service.beta.openshift.io/originating-service-uid": "uid-1"}
		}), want: "allow []"},
		"store one that expires soon":                 {old: secret(first), new: secret(expiring), want: "allow [CertificateExpiringSoon] with a warning"},
		"empty the certificate":                       {old: secret(first), new: secret(first, emptyCertificate), want: "refuse [CertificateMissing]"},
		"empty the key":                               {old: secret(first), new: secret(first, emptyKey), want: "refuse [KeyMissing]"},
		"empty both":                                  {old: secret(first), new: secret(first, emptyCertificate, emptyKey), want: "refuse [CertificateMissing KeyMissing]"},
		"garbage for a key":                           {old: secret(first), new: secret(first, garbageKey), want: "refuse [KeyUnparsable]"},
		"make a bad one worse":                        {old: secret(expired), new: secret(expired, garbageKey), want: "refuse [KeyUnparsable]"},
		"the key of another pair":                     {old: secret(first), new: secret(first, func(s *check.Secret) { s.Key = second.Key }), want: "refuse [KeyMismatch]"},
		"an expired certificate":                      {old: secret(first), new: secret(expired), want: "refuse [CertificateExpired]"},
		"a certificate of tomorrow":                   {old: secret(first), new: secret(future), want: "refuse [CertificateNotYetValid]"},
		"a client's certificate":                      {old: secret(first), new: secret(client), want: "refuse [DNSNameMissing WrongKeyUsage]"},
		"make it immutable":                           {old: secret(first), new: secret(first, immutable), want: "refuse [RotationDetached]"},
		"detach it":                                   {old: secret(first), new: secret(first, bare), want: "refuse [RotationDetached]"},
		"move it to another Service of the same name": {old: secret(first), new: secret(second, attachedTo("uid-2")), want: "refuse [RotationDetached RotationDetached]"},
		"attach it to the Service that is there now":  {old: secret(first, attachedTo("uid-1"), bare), new: secret(second, attachedTo("uid-2")), want: "allow []"},
		"a foreign owner": {
			old: secret(first), new: secret(first, func(s *check.Secret) {
				s.Owners = append(s.Owners, check.Owner{APIVersion: "v1", Kind: "ConfigMap", Name: "absent", UID: "x"})
			}), want: "refuse [RotationDetached]",
		},
		"another Service beside, to take its place later": {
			old: secret(first), new: secret(first, func(s *check.Secret) {
				s.Owners = append([]check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-2"}}, s.Owners...)
				s.Annotations["service.beta.openshift.io/originating-service-uid"] = "uid-2"
			}), want: "refuse [RotationDetached]",
		},
		"create it as Opaque":                        {new: secret(first, opaque), want: "refuse [WrongSecretType]"},
		"create it by hand, detached":                {new: secret(first, bare), want: "refuse [RotationDetached]"},
		"create it empty":                            {new: &check.Secret{Type: "kubernetes.io/tls"}, want: "refuse [CertificateMissing KeyMissing RotationDetached]"},
		"service-ca has no right to spoil it either": {user: serviceCA, old: secret(first), new: secret(first, garbageKey), want: "refuse [KeyUnparsable]"},

		"delete":                                     {old: secret(first), want: "refuse [SecretMissing]"},
		"delete a bad one":                           {old: secret(expired, emptyKey), want: "refuse [SecretMissing]"},
		"the garbage collector deletes":              {user: collector, old: secret(first), want: "allow [SecretMissing]"},
		"the namespace controller deletes":           {user: nsController, old: secret(first), want: "allow [SecretMissing]"},
		"the garbage collector spoils it":            {user: collector, old: secret(first), new: secret(first, garbageKey), want: "refuse [KeyUnparsable]"},
		"delete, allowed for ten minutes":            {old: secret(first, allowUntil(inMinutes(10))), want: "allow [SecretMissing] by break-glass"},
		"delete, allowed for an hour":                {old: secret(first, allowUntil(inMinutes(60))), want: "allow [SecretMissing] by break-glass"},
		"delete, allowed in another time zone":       {old: secret(first, allowUntil(now.Add(10*time.Minute).In(time.FixedZone("", -5*3600)).Format(time.RFC3339))), want: "allow [SecretMissing] by break-glass"},
		"delete a bad one, allowed":                  {old: secret(first, emptyKey, allowUntil(inMinutes(10))), want: "allow [SecretMissing] by break-glass"},
		"delete, allowed until now":                  {old: secret(first, allowUntil(inMinutes(0))), want: "refuse [SecretMissing]"},
		"delete, allowed until a moment ago":         {old: secret(first, allowUntil(inMinutes(-1))), want: "refuse [SecretMissing]"},
		"delete, allowed too far ahead":              {old: secret(first, allowUntil(inMinutes(61))), want: "refuse [SecretMissing]"},
		"delete, allowed by rubbish":                 {old: secret(first, allowUntil("yes")), want: "refuse [SecretMissing]"},
		"the break-glass is for deletes only":        {old: secret(first, allowUntil(inMinutes(10))), new: secret(first, garbageKey, allowUntil(inMinutes(10))), want: "refuse [KeyUnparsable]"},
		"allow a delete":                             {old: secret(first), new: secret(first, allowUntil(inMinutes(10))), want: "allow []"},
		"allow a delete by rubbish: told at once":    {old: secret(first), new: secret(first, allowUntil("yes")), want: "allow [] with a warning"},
		"allow a delete in vain: told at once":       {old: secret(first), new: secret(first, allowUntil(inMinutes(61))), want: "allow [] with a warning"},
		"an old allowance is not told of every time": {old: secret(first, allowUntil("yes")), new: secret(second, allowUntil("yes")), want: "allow []"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			user := c.user
			if user == "" {
				user = administrator
			}
			d := admit.Decide(check.JudgeSecret, servingCert(), admit.Change{User: user, Old: c.old, New: c.new}, now)
			got := "refuse"
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

// TestMessages: what a person reads, to the letter.
func TestMessages(t *testing.T) {
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

	const howTo = "To have it issued anew on purpose, run within 10 minutes: kubectl -n openshift-apiserver annotate secret serving-cert --overwrite kubelet-https-guard.io/allow-delete-until=2026-11-22T12:10:00Z && kubectl -n openshift-apiserver delete secret serving-cert"
	cases := map[string]struct {
		change admit.Change
		want   string
	}{
		"spoilt": {
			admit.Change{Old: &good, New: &empty},
			"Secret openshift-apiserver/serving-cert may not be stored like this: CertificateMissing (tls.crt): there is no certificate, or it is empty; KeyMissing (tls.key): there is no private key, or it is empty. It would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9). To do: put a PEM certificate and its key there together; put the PEM private key of the certificate there",
		},
		"deleted": {
			admit.Change{Old: &good},
			"SecretMissing: deleting Secret openshift-apiserver/serving-cert would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9) (no annotation kubelet-https-guard.io/allow-delete-until allows it). " + howTo,
		},
		"deleted too late": {
			admit.Change{Old: &late},
			`SecretMissing: deleting Secret openshift-apiserver/serving-cert would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9) (annotation kubelet-https-guard.io/allow-delete-until allowed it until "2026-11-22T11:30:00Z", which is over). ` + howTo,
		},
		"deleted on purpose": {
			admit.Change{Old: &allowed},
			"deleting Secret openshift-apiserver/serving-cert is allowed by its annotation kubelet-https-guard.io/allow-delete-until until 2026-11-22T12:30:00Z",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, admit.Decide(check.JudgeSecret, servingCert(), c.change, now).Message); d != "" {
				t.Errorf("message (-want +got):\n%s", d)
			}
		})
	}
}

func TestZeroDecisionRefuses(t *testing.T) {
	var d admit.Decision
	if d.Allowed {
		t.Error("a decision that nobody made allows")
	}
}

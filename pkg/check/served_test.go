// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// servedFamilies are the families of Secrets that a server can use.
var servedFamilies = []finding.Family{finding.ServingCert, finding.AddedSecret}

// endpoint is the answer of the endpoint with this number.
func endpoint(n int, leaf *x509.Certificate) check.EndpointAnswer {
	return check.EndpointAnswer{Name: fmt.Sprintf("Pod apiserver-%d (10.128.0.%d:8443)", n, n), Leaf: leaf}
}

// silent is the answer of an endpoint that shows no certificate.
func silent(n int, why string) check.EndpointAnswer {
	answer := endpoint(n, nil)
	answer.Why = why
	return answer
}

func servedFixtures() map[string]fixture {
	now := pkitest.Now()
	ca := pkitest.NewCA("service-ca")
	pair := ca.Issue(pkitest.ServingCert())
	older := ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-1, 0, 0), now.AddDate(0, 0, 7))).Leaf
	expired := ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-2, 0, 0), now.AddDate(0, 0, -1))).Leaf
	early := ca.Issue(pkitest.ServingCert().Valid(now.AddDate(0, 0, 1), now.AddDate(1, 0, 0))).Leaf
	otherName := pkitest.ServingCert()
	otherName.DNSNames = []string{"other.svc"}
	foreign := pkitest.NewCA("foreign").Issue(otherName).Leaf
	serving := func(leafs ...*x509.Certificate) (all []check.EndpointAnswer) {
		for i, leaf := range leafs {
			all = append(all, endpoint(i+1, leaf))
		}
		return all
	}
	given := func(secret *check.Secret, change func(*check.Served)) func(finding.Family) []finding.Result {
		return func(family finding.Family) []finding.Result {
			s := check.Served{
				Secret: expected(family), Stored: pair.Leaf,
				Answers: &check.ServedAnswers{Endpoints: serving(pair.Leaf, pair.Leaf)},
			}
			change(&s)
			results, _ := s.Check(check.CheckSecret(s.Secret, secret, now).Results, now)
			return results
		}
	}
	with := func(change func(*check.Served)) func(finding.Family) []finding.Result {
		return given(stored(pair), change)
	}
	answers := func(endpoints ...check.EndpointAnswer) func(finding.Family) []finding.Result {
		return with(func(s *check.Served) { s.Answers.Endpoints = endpoints })
	}
	const (
		stale   = "served warn ServedCertificateStale @ Secret"
		invalid = "served fail ServedCertificateInvalid @ Secret"
		notSeen = "served unknown ServedCertificateUnknown @ Secret"
		notYet  = "served unknown NotObserved @ Secret"
	)
	mismatched := stored(pair)
	mismatched.Key = ca.Issue(pkitest.ServingCert()).Key
	long := pkitest.ServingCert().Valid(now.AddDate(-2, 0, 0), now.AddDate(0, 0, -1))
	return map[string]fixture{
		"all serve it": {results: with(func(*check.Served) {})},
		"one serves another": {
			results: answers(serving(pair.Leaf, older)...), want: []string{stale}, mentions: "1 of 2 endpoints of Service api serves",
		},
		"all serve another":      {results: answers(serving(older, older)...), want: []string{stale}, mentions: "2 of 2 endpoints"},
		"the only one":           {results: answers(serving(older)...), want: []string{stale}, mentions: "1 of 1 endpoint of Service api"},
		"one serves an expired":  {results: answers(serving(pair.Leaf, expired)...), want: []string{invalid}, mentions: "Pod apiserver-2"},
		"one not valid yet":      {results: answers(serving(early)...), want: []string{invalid}, mentions: "not valid before"},
		"one for other names":    {results: answers(serving(foreign)...), want: []string{invalid}, mentions: "not valid for api.openshift-apiserver.svc"},
		"stale, and expired":     {results: answers(serving(older, expired)...), want: []string{invalid, stale}},
		"stale, and unreachable": {results: answers(endpoint(1, older), silent(2, "no answer within 3s")), want: []string{stale, notSeen}},
		"one unreachable": {
			results: answers(endpoint(1, pair.Leaf), silent(2, "no answer within 3s")), want: []string{notSeen}, mentions: "no answer within 3s",
		},
		"one not ready":  {results: answers(silent(1, "it is not ready")), want: []string{notSeen}},
		"no TLS":         {results: answers(silent(1, "it does not speak TLS")), want: []string{notSeen}},
		"no endpoint":    {results: answers(), want: []string{notSeen}, mentions: "no endpoint"},
		"many are stale": {results: answers(serving(older, older, older, older, older, older, older)...), want: []string{stale}, mentions: "and 2 more"},
		"some not asked": {results: with(func(s *check.Served) { s.Answers.Omitted = 7 }), want: []string{notSeen}, mentions: "7 of 9 endpoints"},
		"one dead, others not asked": {
			results: with(func(s *check.Served) {
				s.Answers.Endpoints = append(s.Answers.Endpoints, silent(3, "no answer within 3s"))
				s.Answers.Omitted = 7
			}), want: []string{notSeen}, mentions: "8 of 10 endpoints",
		},
		"endpoints not known": {
			results: with(func(s *check.Served) { s.Answers = &check.ServedAnswers{WhyUnknown: because(finding.Unreadable)} }),
			want:    []string{"served unknown Unreadable @ /why"},
		},
		"Service not known": {
			results: with(func(s *check.Served) { s.WhyUnknown = because(finding.Unreadable) }),
			want:    []string{"served unknown Unreadable @ /why"},
		},
		"not asked yet": {results: with(func(s *check.Served) { s.Answers = nil }), want: []string{notYet}},
		"not configured": {
			results: with(func(s *check.Served) { s.NotConfigured, s.Answers = true, nil }),
			want:    []string{"served unknown NotChecked @ Secret"},
		},
		"no Service": {
			results: with(func(s *check.Served) { s.Secret.Service = "" }), want: []string{"served notApplicable  @ Secret"},
			wantOf: map[finding.Family][]string{finding.ServingCert: {"served unknown NotChecked @ Secret"}},
		},
		"no names": {results: with(func(s *check.Served) {
			s.Secret.DNSNames, s.Answers.Endpoints = nil, serving(foreign)
		}), want: []string{stale}},
		"just issued, within the grace": {
			results: with(func(s *check.Served) {
				s.Grace, s.Answers.Endpoints = time.Hour+time.Second, serving(pair.Leaf, older)
			}),
			want: []string{notYet},
		},
		"after the grace": {
			results: with(func(s *check.Served) { s.Grace, s.Answers.Endpoints = time.Hour, serving(pair.Leaf, older) }),
			want:    []string{stale},
		},
		"expired, within the grace": {
			results: with(func(s *check.Served) { s.Grace, s.Answers.Endpoints = 2*time.Hour, serving(expired) }),
			want:    []string{invalid},
		},
		"the stored pair does not match": {
			results: given(mismatched, func(s *check.Served) { s.Answers.Endpoints = serving(older) }),
			want:    []string{"served unknown KeyMismatch @ Secret tls.key"},
		},
		"the stored one expired": {
			results: given(stored(ca.Issue(long)), func(*check.Served) {}),
			want:    []string{"served unknown CertificateExpired @ Secret tls.crt"},
		},
		"no Secret": {results: given(nil, func(*check.Served) {}), want: []string{"served unknown SecretMissing @ Secret"}},
	}
}

// TestServedClientCertificate: nothing serves a client certificate, so there is no result about it.
func TestServedClientCertificate(t *testing.T) {
	s := check.Served{Secret: expected(finding.KubeletClient)}
	if results, next := s.Check(nil, pkitest.Now()); len(results) > 0 || !next.IsZero() {
		t.Errorf("got %+v at %s", results, next)
	}
}

// TestServedNextChange: a certificate that is served expires, or becomes valid, without another answer.
func TestServedNextChange(t *testing.T) {
	now := pkitest.Now()
	ca := pkitest.NewCA("service-ca")
	valid := func(from, to time.Time) check.EndpointAnswer {
		return endpoint(1, ca.Issue(pkitest.ServingCert().Valid(from, to)).Leaf)
	}
	hour := time.Hour
	for name, c := range map[string]struct {
		endpoints []check.EndpointAnswer
		want      time.Time
	}{
		"none":    {nil, time.Time{}},
		"silent":  {[]check.EndpointAnswer{silent(1, "why")}, time.Time{}},
		"expires": {[]check.EndpointAnswer{valid(now.Add(-hour), now.Add(2*hour)), valid(now.Add(-hour), now.Add(hour))}, now.Add(hour + 1)},
		"early":   {[]check.EndpointAnswer{valid(now.Add(hour), now.Add(2*hour))}, now.Add(hour)},
		"over":    {[]check.EndpointAnswer{valid(now.Add(-2*hour), now.Add(-hour))}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := check.Served{Secret: expected(finding.ServingCert), Answers: &check.ServedAnswers{Endpoints: c.endpoints}}
			if _, next := s.Check(nil, now); !next.Equal(c.want) {
				t.Errorf("got %s, want %s", next, c.want)
			}
		})
	}
}

// TestServerName: the first name that clients use, or that of the Service.
func TestServerName(t *testing.T) {
	want := expected(finding.AddedSecret)
	got := []string{want.ServerName()}
	want.DNSNames = nil
	got = append(got, want.ServerName())
	if d := cmp.Diff([]string{"api.openshift-apiserver.svc", "api.team.svc"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

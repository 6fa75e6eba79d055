// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/served"
)

// servedRig is a cluster whose Service has a port, and certificates of its Secret.
type servedRig struct {
	subject Subject
	states  map[follow.Object]follow.State
	ca      *pkitest.CA
}

func newServedRig(t *testing.T) *servedRig {
	t.Helper()
	subject, states := observable(t)
	r := &servedRig{subject: subject, states: states, ca: pkitest.NewCA("service-ca")}
	for i := range r.subject.Secrets {
		r.subject.Secrets[i].Bundle = nil
	}
	for _, o := range []follow.Object{service, addedService, clientService} {
		r.ports(t, o, 443)
	}
	return r
}

func (r *servedRig) ports(t *testing.T, o follow.Object, numbers ...int64) {
	t.Helper()
	var ports []any
	for _, n := range numbers {
		ports = append(ports, map[string]any{"name": "https", "port": n})
	}
	set(t, r.states[o], ports, "spec", "ports")
}

// issue returns a new certificate.
func (r *servedRig) issue() pkitest.Pair { return r.ca.Issue(pkitest.ServingCert()) }

// store stores a pair in the Secret, as service-ca does.
func (r *servedRig) store(t *testing.T, pair pkitest.Pair, version string) {
	t.Helper()
	secret := openshift.ServingCert("uid-1", pair.Certificate, pair.Key)
	secret.ResourceVersion = version
	r.states[servingCert] = follow.State{Known: true, Live: live(t, secret)}
}

// serves returns answers by which one endpoint serves the certificate, for each target of an observation.
func serves(leaf *x509.Certificate, targets []served.Target) *servedAnswers {
	answers := &servedAnswers{of: map[served.Target]check.ServedAnswers{}, patience: ServedPatience}
	for _, target := range targets {
		answers.of[target] = check.ServedAnswers{Endpoints: []check.EndpointAnswer{{Name: "Pod a", Leaf: leaf}}}
	}
	return answers
}

// outcome returns outcome and reason of what endpoints of serving-cert's Service serve.
func (seen observation) outcome() string {
	text := ""
	for _, r := range seen.results() {
		if r.Requirement == finding.ServingCert.Requires(finding.Served) {
			text += r.Outcome.String() + " " + string(r.Reason) + " "
		}
	}
	return text
}

// TestServed: what is asked, and what each state of the objects gives.
func TestServed(t *testing.T) {
	page := messages.Record(t, "findings of what endpoints serve")
	gone := follow.State{Known: true}
	cases := map[string]struct {
		change func(t *testing.T, r *servedRig)
		want   string
		asked  bool
		status control.Status
	}{
		"serves it":           {func(*testing.T, *servedRig) {}, "pass  ", true, control.Compliant},
		"two ports, none 443": {func(t *testing.T, r *servedRig) { r.ports(t, service, 1, 2) }, "unknown ServedCertificateUnknown ", false, control.Compliant},
		"no Service":          {func(_ *testing.T, r *servedRig) { r.states[service] = gone }, "unknown ServedCertificateUnknown ", false, control.NotCompliant},
		"Service not read yet": {
			func(_ *testing.T, r *servedRig) { r.states[service] = follow.State{} }, "unknown NotObserved ", false,
			control.CouldNotVerify,
		},
		"Service forbidden": {
			func(_ *testing.T, r *servedRig) { r.states[service] = follow.State{Err: forbidden} }, "unknown Unreadable ",
			false, control.CouldNotVerify,
		},
		"Service no longer readable": {func(_ *testing.T, r *servedRig) {
			r.states[service] = follow.State{Known: true, Live: r.states[service].Live, Err: errors.New("no answer")}
		}, "unknown Unreadable ", true, control.CouldNotVerify},
		"no Secret": {func(_ *testing.T, r *servedRig) { r.states[servingCert] = gone }, "unknown SecretMissing ", false, control.NotCompliant},
		"Secret forbidden": {
			func(_ *testing.T, r *servedRig) { r.states[servingCert] = follow.State{Err: forbidden} }, "unknown Unreadable ",
			false, control.CouldNotVerify,
		},
		"a broken key": {func(t *testing.T, r *servedRig) {
			set(t, r.states[servingCert], "eA==", "data", "tls.key")
		}, "unknown KeyUnparsable ", true, control.NotCompliant},
		"not OpenShift": {func(_ *testing.T, r *servedRig) {
			noAPI := follow.State{Known: true, NoAPI: true}
			r.states[infrastructure], r.states[operator] = noAPI, noAPI
			r.states[servingSpace], r.states[clientSpace] = gone, gone
			r.states[servingCert], r.states[kubeletClient], r.states[configMap], r.states[service] = gone, gone, gone, gone
		}, "notApplicable  ", false, control.NotApplicable},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newServedRig(t)
			pair := r.issue()
			r.store(t, pair, "1")
			c.change(t, r)
			first := observe(r.subject, r.states, effective(), nil, serves(nil, nil), pkitest.Now())
			var got []string
			for _, target := range first.targets {
				got = append(got, target.Namespace)
			}
			want := []string{"mine"} // never the client certificate
			if c.asked {
				want = []string{"openshift-apiserver", "mine"}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("asked (-want +got):\n%s", d)
			}
			seen := observe(r.subject, r.states, effective(), nil, serves(pair.Leaf, first.targets), pkitest.Now())
			if got := seen.outcome(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			verdict := control.ByID(control.UseHTTPS).Judge(control.Cluster, seen.results())
			if verdict.Status != c.status {
				t.Errorf("the control is %s, want %s: %+v", verdict.Status, c.status, verdict.Unmet())
			}
			for _, result := range seen.results() {
				if result.Reason == finding.ServedCertificateUnknown {
					page.Finding(result)
				}
			}
		})
	}
	t.Run("the target", func(t *testing.T) {
		r := newServedRig(t)
		pair := r.issue()
		r.store(t, pair, "1")
		seen := observe(r.subject, r.states, effective(), nil, serves(nil, nil), pkitest.Now())
		want := served.Target{
			Namespace: "openshift-apiserver", Service: "api", Port: "https", ServerName: "api.openshift-apiserver.svc",
			Stored: sha256.Sum256(pair.Leaf.Raw),
		}
		if d := cmp.Diff(want, seen.targets[0]); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
	t.Run("disabled", func(t *testing.T) {
		r := newServedRig(t)
		seen := observe(r.subject, r.states, effective(), nil, nil, pkitest.Now())
		if got := seen.outcome(); got != "unknown NotChecked " || len(seen.targets) > 0 {
			t.Errorf("got %q, asked %v", got, seen.targets)
		}
	})
}

// TestServedEdges: what is reported while a certificate is renewed and loaded, or not loaded.
func TestServedEdges(t *testing.T) {
	type step struct {
		stored  int // which of the certificates
		served  int // which of the certificates an endpoint serves; none: it does not answer
		minutes int
		want    []string
	}
	const none = 3 // no certificate
	const (
		active, resolved = string(report.FindingActive) + " ", string(report.FindingResolved) + " "
		stale, silent    = "ServedCertificateStale", "ServedCertificateUnknown"
		invalid          = "ServedCertificateInvalid"
	)
	for name, steps := range map[string][]step{
		// What is pending does not delay the verdict, which it cannot change.
		"unreachable from the beginning": {{0, none, 1, nil}},
		"loaded in time":                 {{0, 0, 5, nil}, {1, 0, 9, nil}, {1, 1, 30, nil}},
		"loaded late":                    {{0, 0, 5, nil}, {1, 0, 12, []string{active + stale}}, {1, 1, 1, []string{resolved + stale}}},
		"renewed twice, never late":      {{0, 0, 5, nil}, {1, 0, 8, nil}, {2, 1, 8, nil}, {2, 2, 20, nil}},
		"renewed while it is stale":      {{0, 0, 5, nil}, {1, 0, 12, []string{active + stale}}, {2, 0, 30, nil}, {2, 2, 1, []string{resolved + stale}}},
		"unreachable for a moment":       {{0, 0, 5, nil}, {0, none, 9, nil}, {0, 0, 5, nil}},
		"unreachable":                    {{0, 0, 5, nil}, {0, none, 12, []string{active + silent}}, {0, 0, 1, []string{resolved + silent}}},
		"stale, then unreachable": {
			{0, 0, 5, nil}, {1, 0, 12, []string{active + stale}}, {1, none, 30, []string{active + silent}},
			{1, 0, 20, []string{resolved + silent}}, {1, 1, 1, []string{resolved + stale}},
		},
		"an expired one appears": {
			{0, 0, 5, nil}, {0, 4, 9, nil}, {0, 4, 3, []string{active + invalid, "not compliant"}},
			{0, 0, 1, []string{resolved + invalid, "compliant"}},
		},
		// It expires by time alone, 13 minutes after the beginning.
		"one expires": {
			{0, 0, 1, nil}, {0, 5, 11, []string{active + stale}},
			{0, 5, 2, []string{active + invalid, resolved + stale, "not compliant"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newServedRig(t)
			now := pkitest.Now()
			pairs := []pkitest.Pair{r.issue(), r.issue(), r.issue(), {}}
			pairs = append(pairs,
				r.ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-1, 0, 0), now.AddDate(0, 0, -1))),
				r.ca.Issue(pkitest.ServingCert().Valid(now.AddDate(-1, 0, 0), now.Add(13*time.Minute))))
			// The added Secret's Service is not observed here.
			r.subject.Secrets = r.subject.Secrets[:2]
			tracked := tracker.New(storedPatience)
			var answers *servedAnswers
			at, compliant := now, false
			for i, s := range steps {
				r.store(t, pairs[s.stored], string(rune('1'+s.stored)))
				var got []string
				for second := 0; second < 60*s.minutes; second += 10 {
					if answers == nil {
						answers = serves(nil, nil)
					}
					seen := observe(r.subject, r.states, effective(), nil, answers, at)
					for _, n := range tracked.Observe(seen.Observation).Notices {
						switch {
						case n.Type == report.FindingActive || n.Type == report.FindingResolved:
							got = append(got, string(n.Type)+" "+string(n.Finding.Reason))
						case n.Control.ID == control.UseHTTPS && n.Type == report.Compliant && compliant:
							got = append(got, "compliant")
						case n.Control.ID == control.UseHTTPS && n.Type == report.Compliant:
							compliant = true // at the beginning
						case n.Control.ID == control.UseHTTPS && n.Type == report.NotCompliant:
							got = append(got, "not compliant")
						}
					}
					answers = serves(pairs[s.served].Leaf, seen.targets)
					if s.served == none {
						answers.of[seen.targets[0]] = check.ServedAnswers{
							Endpoints: []check.EndpointAnswer{{Name: "Pod a", Why: "no answer within 3s"}},
						}
					}
					at = at.Add(10 * time.Second)
				}
				if d := cmp.Diff(s.want, got); d != "" {
					t.Errorf("step %d (-want +got):\n%s", i, d)
				}
			}
			if !compliant {
				t.Error("never compliant")
			}
		})
	}
}

// TestServedOnce: the endpoints are asked once for each certificate, and one that was just issued may not be loaded
// yet.
func TestServedOnce(t *testing.T) {
	cases := map[string]struct {
		issued time.Duration // ago
		serves bool
		want   string
		asks   int
	}{
		"serves it":                   {time.Hour, true, "pass  ", 1},
		"serves another":              {time.Hour, false, "warn ServedCertificateStale ", 1},
		"serves another, just issued": {time.Minute, false, "unknown NotObserved ", 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, now := newServedRig(t), pkitest.Now()
				pair := r.ca.Issue(pkitest.ServingCert().Valid(now.Add(-c.issued), now.AddDate(1, 0, 0)))
				r.store(t, pair, "1")
				leaf, asks := r.issue().Leaf, 0
				if c.serves {
					leaf = pair.Leaf
				}
				ask := func(_ context.Context, targets []served.Target) map[served.Target]check.ServedAnswers {
					asks++
					return serves(leaf, targets).of
				}
				readAll := func() map[follow.Object]follow.State { return r.states }
				result, err := once(t.Context(), readAll, r.subject, nil, ask, pkitest.Now)
				if err != nil {
					t.Fatal(err)
				}
				seen := observation{Observation: tracker.Observation{Sources: []tracker.Source{{Results: result.Results}}}}
				if got := seen.outcome(); got != c.want || asks != c.asks {
					t.Errorf("got %q after %d rounds, want %q after %d", got, asks, c.want, c.asks)
				}
			})
		})
	}
}

// fakeServed remembers the targets.
type fakeServed struct{ targets chan []served.Target }

func (f fakeServed) Ask(targets []served.Target) {
	select {
	case f.targets <- targets:
	default:
	}
}

func (f fakeServed) Answers() map[served.Target]check.ServedAnswers { return nil }

// TestAuditorAsks: the audit names the Services whose endpoints must be asked.
func TestAuditorAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newServedRig(t)
		asker := fakeServed{make(chan []served.Target, 1000)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		auditor := Auditor{
			Client: newServer(r.states), Subject: func() Subject { return r.subject }, Reporter: &recorder{}, Meter: noMeter{},
			Now: now(t), Log: slog.New(slog.DiscardHandler), Served: asker,
		}
		go func() {
			defer close(ended)
			auditor.Run(ctx)
		}()
		<-time.After(time.Minute)
		cancel()
		<-ended
		var last []served.Target
		for len(asker.targets) > 0 {
			last = <-asker.targets
		}
		if len(last) == 0 || last[0].Service != "api" {
			t.Errorf("asked %+v", last)
		}
	})
}

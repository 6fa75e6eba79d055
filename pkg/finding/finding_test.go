// SPDX-License-Identifier: Apache-2.0

package finding_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	validity = finding.Requirement("serving-cert/validity")
	pair     = finding.Requirement("serving-cert/pair")
	usage    = finding.Requirement("serving-cert/usage")
)

func secret(key string) finding.Subject {
	return finding.Subject{Kind: "Secret", Namespace: "openshift-apiserver", Name: "serving-cert", Key: key}
}

func TestFindings(t *testing.T) {
	expired := finding.Result{
		Requirement: validity, Subject: secret("tls.crt"), Outcome: finding.Fail, Reason: finding.CertificateExpired,
	}
	expiredElsewhere := expired
	expiredElsewhere.Subject.Name = "zzz"
	weak := finding.Result{Requirement: usage, Subject: secret("tls.crt"), Outcome: finding.Warn, Reason: finding.WeakKey}
	missing := finding.Result{
		Requirement: "serving-cert/certificate",
		Subject:     secret("tls.crt"),
		Outcome:     finding.Fail,
		Reason:      finding.CertificateMissing,
	}
	unseenWithoutIt := finding.Result{
		Requirement: validity,
		Subject:     secret("tls.crt"),
		Reason:      finding.CertificateMissing,
	}
	unread := finding.Result{Requirement: pair, Subject: secret(""), Reason: finding.Unreadable, Message: "forbidden"}
	unreadToo := finding.Result{
		Requirement: usage, Subject: secret(""), Reason: finding.Unreadable, Message: "forbidden as well",
	}
	cases := map[string]struct {
		results, want []finding.Result
	}{
		"nothing": {},
		"pass, not applicable and not checked are not findings": {results: []finding.Result{
			{Requirement: pair, Outcome: finding.Pass}, {Requirement: pair, Outcome: finding.NotApplicable}, {Requirement: pair, Reason: finding.NotChecked},
		}},
		"not observed is a finding": {
			results: []finding.Result{{Requirement: pair, Reason: finding.NotObserved}}, want: []finding.Result{{Requirement: pair, Reason: finding.NotObserved}},
		},
		"the zero value is a finding": {results: []finding.Result{{}}, want: []finding.Result{{}}},
		"worst first: failures, unknown, warnings": {
			results: []finding.Result{weak, unread, expired}, want: []finding.Result{expired, unread, weak},
		},
		"sorted by reason and subject": {
			results: []finding.Result{missing, expiredElsewhere, expired}, want: []finding.Result{expired, expiredElsewhere, missing},
		},
		"unknown for one reason is one finding, the first": {results: []finding.Result{unread, unreadToo}, want: []finding.Result{unread}},
		"a failure replaces the unknown results that it causes": {
			results: []finding.Result{unseenWithoutIt, missing}, want: []finding.Result{missing},
		},
		"a failure stays": {results: []finding.Result{missing, unseenWithoutIt}, want: []finding.Result{missing}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := append([]finding.Result{}, c.results...)
			if d := cmp.Diff(c.want, finding.Findings(c.results)); d != "" {
				t.Errorf("Findings (-want +got):\n%s", d)
			}
			if d := cmp.Diff(before, append([]finding.Result{}, c.results...)); d != "" {
				t.Errorf("it changes its argument (-before +after):\n%s", d)
			}
		})
	}
}

func TestIntroduced(t *testing.T) {
	expired := finding.Result{
		Requirement: validity, Subject: secret("tls.crt"), Outcome: finding.Fail, Reason: finding.CertificateExpired,
		Message: "since Monday",
	}
	expiredLater := expired
	expiredLater.Message = "since Tuesday"
	expiredElsewhere := expired
	expiredElsewhere.Subject.Name = "zzz"
	mismatch := finding.Result{
		Requirement: pair, Subject: secret("tls.key"), Outcome: finding.Fail, Reason: finding.KeyMismatch,
	}
	weak := finding.Result{
		Requirement: "serving-cert/strength", Subject: secret("tls.crt"), Outcome: finding.Warn,
		Reason: finding.WeakKey,
	}
	good := finding.Result{Requirement: pair, Subject: secret("tls.key"), Outcome: finding.Pass}
	unasked := finding.Result{Requirement: usage, Subject: secret("tls.crt"), Reason: finding.NotChecked}
	cases := map[string]struct {
		before, after, want []finding.Result
	}{
		"nothing and nothing":                         {},
		"all without earlier findings":                {after: []finding.Result{mismatch}, want: []finding.Result{mismatch}},
		"nothing if all pass":                         {before: []finding.Result{mismatch}, after: []finding.Result{good}},
		"the same bad state introduces nothing":       {before: []finding.Result{expired}, after: []finding.Result{expired}},
		"another message is the same finding":         {before: []finding.Result{expired}, after: []finding.Result{expiredLater}},
		"the same reason elsewhere is a new one":      {before: []finding.Result{expired}, after: []finding.Result{expired, expiredElsewhere}, want: []finding.Result{expiredElsewhere}},
		"one finding replaced by another":             {before: []finding.Result{expired}, after: []finding.Result{mismatch}, want: []finding.Result{mismatch}},
		"a pass that became a failure":                {before: []finding.Result{good}, after: []finding.Result{mismatch}, want: []finding.Result{mismatch}},
		"results that are not findings are never new": {after: []finding.Result{good, unasked}},
		"worst first, once each": {
			after: []finding.Result{weak, mismatch, expired, weak}, want: []finding.Result{expired, mismatch, weak},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, finding.Introduced(c.before, c.after), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("Introduced (-want +got):\n%s", d)
			}
		})
	}
}

// TestZeroValues: zero values never pass.
func TestZeroValues(t *testing.T) {
	var r finding.Result
	if r.Outcome != finding.Unknown || r.Observed() || !r.IsFinding() {
		t.Errorf("the zero result: outcome %v, observed %v, finding %v", r.Outcome, r.Observed(), r.IsFinding())
	}
	if got := finding.Reason("NobodyKnows").Outcome(); got != finding.Unknown {
		t.Errorf("a reason that is not in the table is %v", got)
	}
}

// TestWords: the words of outcomes and severities are contracts.
func TestWords(t *testing.T) {
	want := map[finding.Outcome][2]string{
		0:                     {"unknown", "Unverified"},
		finding.Pass:          {"pass", ""},
		finding.Warn:          {"warn", "Warning"},
		finding.Fail:          {"fail", "Violation"},
		finding.NotApplicable: {"notApplicable", ""},
		99:                    {"unknown", "Unverified"},
	}
	for o, want := range want {
		if got := [2]string{o.String(), o.Severity()}; got != want {
			t.Errorf("%d: got %q, want %q", int(o), got, want)
		}
	}
	for _, reason := range finding.Reasons() {
		if reason.Severity() == "" {
			t.Errorf("%s is no finding: its outcome is %s", reason, reason.Outcome())
		}
	}
}

func TestSubject(t *testing.T) {
	cases := map[string]struct {
		subject finding.Subject
		want    string
	}{
		"a file without a known path": {
			finding.Subject{Kind: finding.KindFile, Name: "static Pod manifest"}, "File static Pod manifest",
		},
		"a key of a Secret": {secret("tls.crt"), "Secret openshift-apiserver/serving-cert tls.crt"},
		"an object without a namespace": {
			finding.Subject{Kind: "KubeAPIServer", Name: "cluster"}.Part("spec.unsupportedConfigOverrides"),
			"KubeAPIServer cluster spec.unsupportedConfigOverrides",
		},
		"a part of a part":      {secret("data").Part("tls.crt"), "Secret openshift-apiserver/serving-cert data tls.crt"},
		"the whole of a part":   {secret("tls.crt").Whole(), "Secret openshift-apiserver/serving-cert"},
		"a file":                {finding.File("/etc/kubernetes/tls.crt"), "/etc/kubernetes/tls.crt"},
		"an argument in a file": {finding.File("/etc/config.yaml").Part("kubelet-https"), "/etc/config.yaml kubelet-https"},
		"a kubelet":             {finding.Subject{Kind: finding.KindKubelet, Name: "10.0.0.1:10250"}, "Kubelet 10.0.0.1:10250"},
		"a kind alone":          {finding.Subject{Kind: "Cluster"}, "Cluster"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := c.subject.String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRequirement(t *testing.T) {
	r := finding.ClientFiles.Requires(finding.Pair)
	if r != "client-files/pair" || r.Family() != finding.ClientFiles || r.Aspect() != finding.Pair {
		t.Errorf("got %q of %q and %q", r, r.Family(), r.Aspect())
	}
}

// SPDX-License-Identifier: Apache-2.0

package finding_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

func TestDiff(t *testing.T) {
	expired := finding.Finding{Reason: finding.CertificateExpired, Location: "crt", Message: "since Monday"}
	expiredLater := finding.Finding{Reason: finding.CertificateExpired, Location: "crt", Message: "since Tuesday"}
	expiredElsewhere := finding.Finding{Reason: finding.CertificateExpired, Location: "other"}
	mismatch := finding.Finding{Reason: finding.KeyMismatch, Location: "key"}
	weak := finding.Finding{Reason: finding.WeakKey, Location: "crt"}

	type diff struct{ Raised, Cleared []finding.Finding }
	cases := map[string]struct {
		before, after []finding.Finding
		want          diff
	}{
		"nothing and nothing":                    {},
		"all is raised where nothing was":        {after: []finding.Finding{mismatch}, want: diff{Raised: []finding.Finding{mismatch}}},
		"all is cleared where nothing is left":   {before: []finding.Finding{mismatch}, want: diff{Cleared: []finding.Finding{mismatch}}},
		"the same bad state introduces nothing":  {before: []finding.Finding{expired}, after: []finding.Finding{expired}},
		"another message is the same finding":    {before: []finding.Finding{expired}, after: []finding.Finding{expiredLater}},
		"the same reason elsewhere is a new one": {before: []finding.Finding{expired}, after: []finding.Finding{expired, expiredElsewhere}, want: diff{Raised: []finding.Finding{expiredElsewhere}}},
		"one fault exchanged for another": {
			before: []finding.Finding{expired}, after: []finding.Finding{mismatch},
			want: diff{Raised: []finding.Finding{mismatch}, Cleared: []finding.Finding{expired}},
		},
		"worst first, once each": {
			after: []finding.Finding{weak, mismatch, expired, weak},
			want:  diff{Raised: []finding.Finding{expired, mismatch, weak}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			raised, cleared := finding.Diff(c.before, c.after)
			if d := cmp.Diff(c.want, diff{raised, cleared}); d != "" {
				t.Errorf("Diff (-want +got):\n%s", d)
			}
		})
	}
}

func TestVerdictOf(t *testing.T) {
	violation := finding.Finding{Reason: finding.KeyMissing}
	warning := finding.Finding{Reason: finding.WeakKey}
	unverified := finding.Finding{Reason: finding.Unreadable}
	unknown := finding.Finding{Reason: "NobodyKnows"}

	cases := map[string]struct {
		findings []finding.Finding
		want     finding.Verdict
	}{
		"nothing found":                        {want: finding.Compliant},
		"a warning leaves it compliant":        {findings: []finding.Finding{warning}, want: finding.Compliant},
		"unverified is not fine":               {findings: []finding.Finding{warning, unverified}, want: finding.CouldNotVerify},
		"a violation outweighs unverified":     {findings: []finding.Finding{unverified, violation}, want: finding.NotCompliant},
		"a reason that nobody knows is not ok": {findings: []finding.Finding{unknown}, want: finding.CouldNotVerify},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := finding.VerdictOf(c.findings); got != c.want {
				t.Errorf("VerdictOf: got %q, want %q", got, c.want)
			}
		})
	}
}

func TestZeroValuesAreNeverFine(t *testing.T) {
	var severity finding.Severity
	var verdict finding.Verdict
	if severity != finding.Unverified || verdict != finding.CouldNotVerify {
		t.Errorf("zero values: got %v and %v, want %v and %v", severity, verdict, finding.Unverified, finding.CouldNotVerify)
	}
}

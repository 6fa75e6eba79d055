// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// seen is one look: when, what was read, what was found.
type seen struct {
	at       time.Duration
	contents string
	findings string // reasons
	leaf     string // name of the certificate; "" for none
	kubelet  string // reasons that its answer gives; "?" where there is none yet
}

// lookedFor: without CAs it is not known who issued a certificate; whatever else is
// Unverified leaves nothing to look at.
func (s seen) lookedFor(id finding.ID) bool {
	reasons := s.findings
	if id.Location == "kubelet" {
		reasons = s.kubelet
	}
	for reason := range strings.FieldsSeq(reasons) {
		switch r := finding.Reason(reason); {
		case r == "?", r.Severity() == finding.Unverified && r != finding.ClientCAUnavailable, r == finding.ClientCAUnavailable && id.Reason == finding.UntrustedIssuer:
			return false
		}
	}
	return true
}

func TestLedger(t *testing.T) {
	const settle, patience = time.Second, 10 * time.Second
	ms := time.Millisecond
	cases := map[string]struct {
		looks []seen
		// want is what is told at each look, and when it wants to look again.
		want []string
	}{
		"good from the start": {
			looks: []seen{{0, "1", "", "a", ""}, {30 * time.Second, "1", "", "a", ""}},
			want:  []string{"Verified", ""},
		},
		"bad from the start: nothing is said before it has settled": {
			looks: []seen{{0, "1", "KeyMissing", "", ""}, {settle, "1", "KeyMissing", "", ""}},
			want:  []string{"again at 1s", "raised KeyMissing, Not verified"},
		},
		"a half-written pair is never told": {
			looks: []seen{{0, "1", "", "a", ""}, {10 * ms, "2", "KeyMismatch", "b", ""}, {20 * ms, "3", "", "b", ""}, {2 * settle, "3", "", "b", ""}},
			want:  []string{"Verified", "again at 1.01s", "rotated to b", ""},
		},
		"a fault that lasts is told after settle": {
			looks: []seen{{0, "1", "", "a", ""}, {10 * ms, "2", "KeyMismatch", "b", ""}, {10*ms + settle, "2", "KeyMismatch", "b", ""}},
			want:  []string{"Verified", "again at 1.01s", "raised KeyMismatch, Not verified"},
		},
		"a fault that lasts through other changes is told too": {
			looks: []seen{{0, "1", "", "a", ""}, {10 * ms, "2", "KeyMismatch", "b", ""}, {500 * ms, "3", "KeyMismatch", "c", ""}, {10*ms + settle, "4", "KeyMismatch", "d", ""}},
			want:  []string{"Verified", "again at 1.01s", "again at 1.01s", "raised KeyMismatch, Not verified"},
		},
		"faults that take turns are each settled for themselves": {
			looks: []seen{{0, "1", "", "a", ""}, {10 * ms, "2", "KeyMismatch", "b", ""}, {900 * ms, "3", "KeyMissing", "b", ""}, {1100 * ms, "4", "KeyMissing", "b", ""}},
			want:  []string{"Verified", "again at 1.01s", "again at 1.9s", "again at 1.9s"},
		},
		"the clock alone is told at once": {
			looks: []seen{{0, "1", "", "a", ""}, {time.Hour, "1", "CertificateExpired", "a", ""}},
			want:  []string{"Verified", "raised CertificateExpired, Not verified"},
		},
		"one fault of the clock takes the place of another": {
			looks: []seen{{0, "1", "", "a", ""}, {time.Hour, "1", "CertificateExpiringSoon", "a", ""}, {2 * time.Hour, "1", "CertificateExpired", "a", ""}},
			want:  []string{"Verified", "raised CertificateExpiringSoon", "raised CertificateExpired, cleared CertificateExpiringSoon, Not verified"},
		},
		"recovery is told at once": {
			looks: []seen{{0, "1", "KeyMissing", "", ""}, {settle, "1", "KeyMissing", "", ""}, {2 * settle, "2", "", "a", ""}},
			want:  []string{"again at 1s", "raised KeyMissing, Not verified", "cleared KeyMissing, Verified"},
		},
		"no recovery is told while something else is settling": {
			looks: []seen{
				{0, "1", "KeyMissing", "", ""}, {settle, "1", "KeyMissing", "", ""},
				{2 * settle, "2", "KeyUnparsable", "a", ""}, {2*settle + 10*ms, "3", "KeyMissing", "a", ""},
			},
			want: []string{"again at 1s", "raised KeyMissing, Not verified", "again at 3s", ""},
		},
		"one fault becomes another for good": {
			looks: []seen{
				{0, "1", "KeyMissing", "", ""}, {settle, "1", "KeyMissing", "", ""},
				{2 * settle, "2", "KeyUnparsable", "", ""}, {3 * settle, "2", "KeyUnparsable", "", ""},
			},
			want: []string{"again at 1s", "raised KeyMissing, Not verified", "again at 3s", "raised KeyUnparsable, cleared KeyMissing"},
		},
		"a verdict that becomes unverified is told": {
			looks: []seen{{0, "1", "", "a", ""}, {settle, "2", "Unreadable", "", ""}, {2 * settle, "2", "Unreadable", "", ""}},
			want:  []string{"Verified", "again at 2s", "raised Unreadable, Not verified"},
		},
		"identical content is no rotation": {
			looks: []seen{{0, "1", "", "a", ""}, {settle, "2", "", "a", ""}},
			want:  []string{"Verified", ""},
		},
		"a rotation is told when the pair is sound": {
			looks: []seen{{0, "1", "", "a", ""}, {settle, "2", "KeyMismatch", "b", ""}, {settle + 10*ms, "3", "", "b", ""}, {2 * settle, "4", "", "a", ""}},
			want:  []string{"Verified", "again at 2s", "rotated to b", "rotated to a"},
		},
		"a finding that stands is told of once more each hour": {
			looks: []seen{
				{0, "1", "KeyMissing", "", ""}, {settle, "1", "KeyMissing", "", ""}, {time.Hour, "1", "KeyMissing", "", ""},
				{time.Hour + settle, "1", "KeyMissing", "", ""}, {time.Hour + 2*settle, "1", "KeyMissing", "", ""}, {3 * time.Hour, "1", "KeyMissing", "", ""},
			},
			want: []string{"again at 1s", "raised KeyMissing, Not verified", "", "stands KeyMissing", "", "stands KeyMissing"},
		},
		"what cannot be looked at any more is not cleared": {
			looks: []seen{
				{0, "1", "CertificateExpired WeakKey", "a", ""}, {settle, "1", "CertificateExpired WeakKey", "a", ""},
				{2 * settle, "2", "ManifestMissing", "", ""}, {3 * settle, "2", "ManifestMissing", "", ""},
				{4 * settle, "3", "Unreadable", "", ""}, {5 * settle, "3", "Unreadable", "", ""},
				{6 * settle, "4", "WeakKey", "b", ""},
			},
			want: []string{
				"again at 1s", "raised CertificateExpired, raised WeakKey, Not verified", "again at 3s", "raised ManifestMissing",
				"again at 5s", "raised Unreadable, cleared ManifestMissing", "cleared CertificateExpired, cleared Unreadable, Verified",
			},
		},
		"what goes away while something else cannot be looked at is cleared": {
			looks: []seen{
				{0, "1", "KeyMissing ClientCAUnavailable", "", ""}, {settle, "1", "KeyMissing ClientCAUnavailable", "", ""},
				{2 * settle, "2", "ClientCAUnavailable", "a", ""},
			},
			want: []string{"again at 1s", "raised KeyMissing, raised ClientCAUnavailable, Not verified", "cleared KeyMissing, Not verified"},
		},
		"the first verdict waits for the kubelet": {
			looks: []seen{{0, "1", "", "a", "?"}, {settle, "1", "", "a", "?"}, {2 * settle, "2", "", "a", ""}},
			want:  []string{"", "", "Verified"},
		},
		"a violation need not wait for the kubelet": {
			looks: []seen{{0, "1", "KeyMissing", "", "?"}, {settle, "1", "KeyMissing", "", "?"}},
			want:  []string{"again at 1s", "raised KeyMissing, Not verified"},
		},
		"a kubelet has longer to come back": {
			looks: []seen{
				{0, "1", "", "a", ""}, {settle, "2", "", "a", "KubeletUnreachable"}, {2 * settle, "2", "", "a", "KubeletUnreachable"}, {3 * settle, "3", "", "a", ""},
				{4 * settle, "2", "", "a", "KubeletUnreachable"}, {4*settle + patience, "2", "", "a", "KubeletUnreachable"},
			},
			want: []string{"Verified", "again at 11s", "again at 11s", "", "again at 14s", "raised KubeletUnreachable, Not verified"},
		},
		"a fault of files is told while one of the kubelet is settling": {
			looks: []seen{
				{0, "1", "", "a", ""}, {settle, "2", "", "a", "KubeletNotTLS"}, {2 * settle, "3", "KeyMissing", "", "KubeletNotTLS"},
				{3 * settle, "3", "KeyMissing", "", "KubeletNotTLS"}, {settle + patience, "3", "KeyMissing", "", "KubeletNotTLS"},
			},
			want: []string{"Verified", "again at 11s", "again at 3s", "raised KeyMissing, Not verified, again at 11s", "raised KubeletNotTLS"},
		},
		"what a kubelet that is away cannot show is not cleared": {
			looks: []seen{
				{0, "1", "", "a", "KubeletCertificateUntrusted"}, {patience, "1", "", "a", "KubeletCertificateUntrusted"},
				{2 * patience, "2", "", "a", "KubeletUnreachable"}, {3 * patience, "2", "", "a", "KubeletUnreachable"}, {4 * patience, "3", "", "a", ""},
			},
			want: []string{
				"again at 10s", "raised KubeletCertificateUntrusted, Not verified", "again at 30s", "raised KubeletUnreachable",
				"cleared KubeletCertificateUntrusted, cleared KubeletUnreachable, Verified",
			},
		},
		"what a kubelet that is away cannot hide is cleared": {
			looks: []seen{
				{0, "1", "KeyMismatch", "", ""}, {settle, "1", "KeyMismatch", "", ""},
				{2 * settle, "2", "", "a", "KubeletUnreachable"}, {4 * settle, "2", "", "a", "KubeletUnreachable"}, {5 * settle, "3", "", "a", ""},
			},
			want: []string{"again at 1s", "raised KeyMismatch, Not verified", "again at 3s", "cleared KeyMismatch, again at 12s", "Verified"},
		},
		"all of a veil must be lifted": {
			looks: []seen{
				{0, "1", "UntrustedIssuer", "", ""}, {settle, "1", "UntrustedIssuer", "", ""},
				{2 * settle, "2", "Unreadable ClientCAUnavailable", "", ""}, {3 * settle, "2", "Unreadable ClientCAUnavailable", "", ""},
				{4 * settle, "3", "ClientCAUnavailable", "", ""}, {5 * settle, "3", "ClientCAUnavailable", "", ""}, {6 * settle, "4", "", "a", ""},
			},
			want: []string{
				"again at 1s", "raised UntrustedIssuer, Not verified", "again at 3s", "raised ClientCAUnavailable, raised Unreadable",
				"cleared Unreadable", "", "cleared UntrustedIssuer, cleared ClientCAUnavailable, Verified",
			},
		},
		"what hides a veiled finding and comes up later is a veil as well": {
			looks: []seen{
				{0, "1", "UntrustedIssuer", "", ""}, {settle, "1", "UntrustedIssuer", "", ""},
				{2 * settle, "2", "Unreadable", "", ""}, {3 * settle, "2", "Unreadable", "", ""},
				{4 * settle, "3", "Unreadable ClientCAUnavailable", "", ""}, {5 * settle, "3", "Unreadable ClientCAUnavailable", "", ""},
				{6 * settle, "4", "ClientCAUnavailable", "", ""}, {7 * settle, "5", "", "a", ""},
			},
			want: []string{
				"again at 1s", "raised UntrustedIssuer, Not verified", "again at 3s", "raised Unreadable", "again at 5s",
				"raised ClientCAUnavailable", "cleared Unreadable", "cleared UntrustedIssuer, cleared ClientCAUnavailable, Verified",
			},
		},
		"what has not been looked at yet is not gone": {
			looks: []seen{
				{0, "1", "", "a", "KubeletCertificateUntrusted"}, {patience, "1", "", "a", "KubeletCertificateUntrusted"},
				{2 * patience, "2", "", "a", "?"}, {3 * patience, "2", "", "a", "KubeletCertificateUntrusted"},
				{4 * patience, "3", "", "a", "?"}, {5 * patience, "3", "", "a", ""},
			},
			want: []string{"again at 10s", "raised KubeletCertificateUntrusted, Not verified", "", "", "", "cleared KubeletCertificateUntrusted, Verified"},
		},
		"all is well as soon as all has been looked at": {
			looks: []seen{
				{0, "1", "KeyMismatch", "", ""}, {settle, "1", "KeyMismatch", "", ""},
				{2 * settle, "2", "", "a", "?"}, {3 * settle, "2", "", "a", ""},
			},
			want: []string{"again at 1s", "raised KeyMismatch, Not verified", "cleared KeyMismatch", "Verified"},
		},
		"what came up while something was not looked at yet is a veil": {
			looks: []seen{
				{0, "1", "UntrustedIssuer", "", ""}, {settle, "1", "UntrustedIssuer", "", ""},
				{2 * settle, "2", "ClientCAUnavailable", "", "?"}, {3 * settle, "2", "ClientCAUnavailable", "", ""}, {4 * settle, "3", "", "a", ""},
			},
			want: []string{
				"again at 1s", "raised UntrustedIssuer, Not verified", "again at 3s", "raised ClientCAUnavailable",
				"cleared UntrustedIssuer, cleared ClientCAUnavailable, Verified",
			},
		},
		"what was looked for and is not found is gone, whatever else is hidden": {
			looks: []seen{
				{0, "1", "UntrustedIssuer", "", ""}, {settle, "1", "UntrustedIssuer", "", ""},
				{2 * settle, "2", "ClientCAUnavailable", "", ""}, {3 * settle, "2", "ClientCAUnavailable", "", ""},
				{4 * settle, "3", "", "a", "KubeletUnreachable"}, {20 * settle, "3", "", "a", "KubeletUnreachable"},
			},
			want: []string{
				"again at 1s", "raised UntrustedIssuer, Not verified", "again at 3s", "raised ClientCAUnavailable",
				"again at 5s", "raised KubeletUnreachable, cleared UntrustedIssuer, cleared ClientCAUnavailable, Not verified",
			},
		},
		"without CAs it is not known who issued, and all else is": {
			looks: []seen{
				{0, "1", "KeyMismatch UntrustedIssuer", "", ""}, {settle, "1", "KeyMismatch UntrustedIssuer", "", ""},
				{2 * settle, "2", "ClientCAUnavailable", "", ""}, {3 * settle, "2", "ClientCAUnavailable", "", ""}, {4 * settle, "3", "", "a", ""},
			},
			want: []string{
				"again at 1s", "raised KeyMismatch, raised UntrustedIssuer, Not verified", "again at 3s",
				"raised ClientCAUnavailable, cleared KeyMismatch", "cleared UntrustedIssuer, cleared ClientCAUnavailable, Verified",
			},
		},
		"a repair with a new certificate": {
			looks: []seen{{0, "1", "", "a", ""}, {settle, "2", "CertificateMissing", "", ""}, {2 * settle, "2", "CertificateMissing", "", ""}, {3 * settle, "3", "", "b", ""}},
			want:  []string{"Verified", "again at 2s", "raised CertificateMissing, Not verified", "cleared CertificateMissing, rotated to b, Verified"},
		},
	}
	ca := pkitest.NewCA("signer")
	leaves := map[string]pkitest.Pair{}
	for _, name := range []string{"a", "b", "c", "d", ""} {
		leaves[name] = ca.Issue(pkitest.Request{CommonName: name})
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ledger := report.NewLedger(settle)
			var got []string
			for _, look := range c.looks {
				files, answer := report.Source{Patience: settle}, report.Source{Patience: patience}
				for reason := range strings.FieldsSeq(look.findings) {
					files.Findings = append(files.Findings, finding.Finding{Reason: finding.Reason(reason), Location: "tls.key"})
				}
				waiting := look.kubelet == "?"
				if !waiting {
					for reason := range strings.FieldsSeq(look.kubelet) {
						answer.Findings = append(answer.Findings, finding.Finding{Reason: finding.Reason(reason), Location: "kubelet"})
					}
				}
				certificate := report.Certificate{Role: "kubelet-client"}
				if look.leaf != "" {
					certificate.Leaf = leaves[look.leaf].Leaf
					certificate.Sound = len(finding.OfSeverity(files.Findings, finding.Violation)) == 0
				}
				observed := ledger.Observe(report.Look{
					At: pkitest.Now().Add(look.at), Contents: sha256.Sum256([]byte(look.contents)),
					Sources: []report.Source{files, answer}, Certificates: []report.Certificate{certificate}, Waiting: waiting, LookedFor: look.lookedFor,
				})
				var told []string
				for _, n := range observed.Notices {
					told = append(told, words(n))
				}
				if !observed.Again.IsZero() {
					told = append(told, fmt.Sprint("again at ", observed.Again.Sub(pkitest.Now())))
				}
				got = append(got, strings.Join(told, ", "))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("told at each look (-want +got):\n%s", d)
			}
		})
	}
}

func words(n report.Notice) string {
	switch n.What {
	case report.FindingRaised:
		return "raised " + string(n.Finding.Reason)
	case report.FindingCleared:
		return "cleared " + string(n.Finding.Reason)
	case report.FindingStands:
		return "stands " + string(n.Finding.Reason)
	case report.CertificateRotated:
		return "rotated to " + n.Certificate.Subject.CommonName
	default:
		return string(n.What)
	}
}

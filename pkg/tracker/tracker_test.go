// SPDX-License-Identifier: Apache-2.0

package tracker_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
)

// step is one observation, its notices, and the states after it.
type step struct {
	at       time.Duration
	contents string
	// saw are the results that do not pass; see parse.
	saw    string
	leaf   string // name of the certificate; "" for none
	want   string
	states string
}

const (
	settle, patience = time.Second, 10 * time.Second
	ms               = time.Millisecond

	// The requirements that are unknown if a directory cannot be read, and if the kubelet
	// does not answer.
	files   = "certificate,key,pair,validity,strength,issuer"
	kubelet = "tls,serving-trusted"
)

// required are the requirements of the control in these tests, with their subjects.
func required() map[finding.Requirement]finding.Subject {
	certificate, key, kubelet := finding.File("tls.crt"), finding.File("tls.key"), finding.Subject{
		Kind: finding.KindKubelet,
	}
	return map[finding.Requirement]finding.Subject{
		"client-files/certificate": certificate, "client-files/validity": certificate,
		"client-files/strength": certificate, "client-files/issuer": certificate,
		"client-files/key": key, "client-files/pair": key,
		"kubelet/tls": kubelet, "kubelet/serving-trusted": kubelet,
	}
}

func watched() control.Control {
	c := control.Control{ID: "watched"}
	for r := range required() {
		c.Requirements = append(c.Requirements,
			control.Required{Requirement: r, Scopes: []control.Scope{control.Node}, Optional: r.Family() == finding.Kubelet})
	}
	return c
}

// parse reads the results of an observation, by family. Each word is "aspects=Reason", with
// the outcome of the reason, "aspects?Reason" for Unknown, or "aspects+" for Pass. "@path"
// at the end names another subject. A requirement that no word names passes.
func parse(text string) map[finding.Family][]finding.Result {
	results := map[finding.Family][]finding.Result{}
	named := map[finding.Requirement]bool{}
	add := func(r finding.Result) {
		named[r.Requirement] = true
		results[r.Requirement.Family()] = append(results[r.Requirement.Family()], r)
	}
	for word := range strings.FieldsSeq(text) {
		word, path, elsewhere := strings.Cut(word, "@")
		i := strings.IndexAny(word, "=?+")
		reason := finding.Reason(word[i+1:])
		outcome := map[byte]finding.Outcome{'=': reason.Outcome(), '?': finding.Unknown, '+': finding.Pass}[word[i]]
		for aspect := range strings.SplitSeq(word[:i], ",") {
			for requirement, subject := range required() {
				if requirement.Aspect() != finding.Aspect(aspect) {
					continue
				}
				if elsewhere {
					subject = finding.File(path)
				}
				add(finding.Result{Requirement: requirement, Subject: subject, Outcome: outcome, Reason: reason})
			}
		}
	}
	for requirement, subject := range required() {
		if !named[requirement] {
			add(finding.Result{Requirement: requirement, Subject: subject, Outcome: finding.Pass})
		}
	}
	return results
}

func TestTracker(t *testing.T) {
	const (
		unreadable     = files + "?Unreadable@dir"
		noManifest     = files + "?ManifestMissing@dir"
		kubeletAway    = kubelet + "?KubeletUnreachable"
		kubeletNotSeen = kubelet + "?NotObserved"
	)
	cases := map[string][]step{
		"compliant from the start": {
			{0, "1", "", "a", "Compliant", ""},
			{30 * time.Second, "1", "", "a", "", ""},
		},
		"not compliant from the start: reported after it has settled": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle, "1", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
		},
		"a half-written pair is never reported": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "pair=KeyMismatch", "b", "again at 1.01s", "KeyMismatch pending"},
			{20 * ms, "3", "", "b", "rotated to b", ""},
			{2 * settle, "3", "", "b", "", ""},
		},
		"a pending finding that becomes unknown is forgotten": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "pair=KeyMismatch", "b", "again at 1.01s", "KeyMismatch pending"},
			{20 * ms, "3", unreadable, "", "again at 1.02s", "Unreadable pending"},
			{30 * ms, "4", "", "b", "rotated to b", ""},
		},
		"a finding that lasts is reported after its patience": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "pair=KeyMismatch", "b", "again at 1.01s", "KeyMismatch pending"},
			{10*ms + settle, "2", "pair=KeyMismatch", "b", "active KeyMismatch, Not compliant", "KeyMismatch active"},
		},
		"a finding that lasts is reported in spite of other changes": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "pair=KeyMismatch", "b", "again at 1.01s", "KeyMismatch pending"},
			{500 * ms, "3", "pair=KeyMismatch", "c", "again at 1.01s", "KeyMismatch pending"},
			{10*ms + settle, "4", "pair=KeyMismatch", "d", "active KeyMismatch, Not compliant", "KeyMismatch active"},
		},
		"alternating findings settle one by one": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "pair=KeyMismatch", "b", "again at 1.01s", "KeyMismatch pending"},
			{900 * ms, "3", "key=KeyMissing", "b", "again at 1.9s", "KeyMissing pending"},
			{1100 * ms, "4", "key=KeyMissing", "b", "again at 1.9s", "KeyMissing pending"},
		},
		"alternating reasons of one requirement count as one finding that lasts": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "key=KeyMissing", "", "again at 1.01s", "KeyMissing pending"},
			{900 * ms, "3", "key=KeyUnparsable", "", "again at 1.01s", "KeyUnparsable pending"},
			{1010 * ms, "4", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
		},
		"reasons of one requirement settle one by one if it is met in between": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "key=KeyMissing", "", "again at 1.01s", "KeyMissing pending"},
			{500 * ms, "3", "", "a", "", ""},
			{900 * ms, "4", "key=KeyUnparsable", "", "again at 1.9s", "KeyUnparsable pending"},
			{1010 * ms, "5", "key=KeyMissing", "", "again at 1.9s", "KeyMissing pending"},
		},
		"findings of one requirement for two subjects settle one by one": {
			{0, "1", "", "a", "Compliant", ""},
			{10 * ms, "2", "key=KeyMissing@old", "", "again at 1.01s", "KeyMissing@old pending"},
			{900 * ms, "3", "key=KeyUnparsable@new", "", "again at 1.9s", "KeyUnparsable@new pending"},
		},
		"time in which a requirement is unknown does not count as unmet": {
			{0, "1", "key?NotObserved", "", "again at 1m0s", "NotObserved pending"},
			{settle, "2", "key=KeyUnparsable", "", "again at 2s", "KeyUnparsable pending"},
		},
		"what time alone causes is reported at once": {
			{0, "1", "", "a", "Compliant", ""},
			{time.Hour, "1", "validity=CertificateExpired", "a", "active CertificateExpired, Not compliant", "CertificateExpired active"},
		},
		"one finding caused by time replaces another": {
			{0, "1", "", "a", "Compliant", ""},
			{time.Hour, "1", "validity=CertificateExpiringSoon", "a", "active CertificateExpiringSoon", "CertificateExpiringSoon active"},
			{
				2 * time.Hour, "1", "validity=CertificateExpired", "a",
				"active CertificateExpired, resolved CertificateExpiringSoon, Not compliant", "CertificateExpired active",
			},
		},
		"a repair is reported at once": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle, "1", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
			{2 * settle, "2", "", "a", "resolved KeyMissing, Compliant", ""},
		},
		"another reason of the same requirement waits, and the first one stays active until then": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle, "1", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
			{2 * settle, "2", "key=KeyUnparsable", "", "again at 3s", "KeyMissing resolving, KeyUnparsable pending"},
			{3 * settle, "2", "key=KeyUnparsable", "", "active KeyUnparsable, resolved KeyMissing", "KeyUnparsable active"},
		},
		"another reason of the same requirement during a repair": {
			{0, "1", "key=KeyUnparsable", "", "again at 1s", "KeyUnparsable pending"},
			{settle, "1", "key=KeyUnparsable", "", "active KeyUnparsable, Not compliant", "KeyUnparsable active"},
			{9 * settle, "2", "key=KeyMissing", "", "again at 10s", "KeyMissing pending, KeyUnparsable resolving"},
			{9*settle + 10*ms, "3", "", "a", "resolved KeyUnparsable, Compliant", ""},
		},
		"alternating reasons of one requirement are reported after its patience": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle / 2, "2", "key=KeyUnparsable", "", "again at 1s", "KeyUnparsable pending"},
			{settle, "3", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
		},
		"no repair is reported while something else is pending": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle, "1", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
			{2 * settle, "2", "pair=KeyMismatch", "a", "again at 3s", "KeyMismatch pending, KeyMissing resolving"},
			{2*settle + 10*ms, "3", "key=KeyMissing", "a", "", "KeyMissing active"},
		},
		"one finding becomes another one and stays": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle, "1", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
			{2 * settle, "2", "pair=KeyMismatch", "", "again at 3s", "KeyMismatch pending, KeyMissing resolving"},
			{3 * settle, "2", "pair=KeyMismatch", "", "active KeyMismatch, resolved KeyMissing", "KeyMismatch active"},
		},
		"a resolving finding is not hidden": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle, "1", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
			{2 * settle, "2", "pair=KeyMismatch", "", "again at 3s", "KeyMismatch pending, KeyMissing resolving"},
			{2*settle + 500*ms, "3", unreadable, "", "again at 3s", "KeyMissing resolving, Unreadable pending"},
			{3 * settle, "3", unreadable, "", "resolved KeyMissing, again at 3.5s", "Unreadable pending"},
			{4 * settle, "3", unreadable, "", "active Unreadable, Could not verify", "Unreadable active"},
		},
		"a verdict that changes to could not verify is reported": {
			{0, "1", "", "a", "Compliant", ""},
			{settle, "2", unreadable, "", "again at 2s", "Unreadable pending"},
			{2 * settle, "2", unreadable, "", "active Unreadable, Could not verify", "Unreadable active"},
			{3 * settle, "3", "", "a", "resolved Unreadable, Compliant", ""},
		},
		"identical content is not a rotation": {
			{0, "1", "", "a", "Compliant", ""},
			{settle, "2", "", "a", "", ""},
		},
		"a rotation is reported when the pair is valid": {
			{0, "1", "", "a", "Compliant", ""},
			{settle, "2", "pair=KeyMismatch", "b", "again at 2s", "KeyMismatch pending"},
			{settle + 10*ms, "3", "", "b", "rotated to b", ""},
			{2 * settle, "4", "", "a", "rotated to a", ""},
		},
		"an active finding is reported again each hour": {
			{0, "1", "key=KeyMissing", "", "again at 1s", "KeyMissing pending"},
			{settle, "1", "key=KeyMissing", "", "active KeyMissing, Not compliant", "KeyMissing active"},
			{time.Hour, "1", "key=KeyMissing", "", "", "KeyMissing active"},
			{time.Hour + settle, "1", "key=KeyMissing", "", "still active KeyMissing", "KeyMissing active"},
			{time.Hour + 2*settle, "1", "key=KeyMissing", "", "", "KeyMissing active"},
			{3 * time.Hour, "1", "key=KeyMissing", "", "still active KeyMissing", "KeyMissing active"},
		},
		"a hidden finding is reported again each hour": {
			{0, "1", "", "a", "Compliant", ""},
			{time.Minute, "1", "validity=CertificateExpired", "a", "active CertificateExpired, Not compliant", "CertificateExpired active"},
			{2 * time.Minute, "1", unreadable, "", "active Unreadable", "CertificateExpired hidden, Unreadable active"},
			{62 * time.Minute, "1", unreadable, "", "still active CertificateExpired, still active Unreadable", "CertificateExpired hidden, Unreadable active"},
		},
		"a finding that can no longer be observed is not resolved": {
			{0, "1", "validity=CertificateExpired strength=WeakKey", "a", "again at 1s", "CertificateExpired pending, WeakKey pending"},
			{
				settle, "1", "validity=CertificateExpired strength=WeakKey", "a",
				"active CertificateExpired, active WeakKey, Not compliant", "CertificateExpired active, WeakKey active",
			},
			{2 * settle, "2", noManifest, "", "again at 3s", "CertificateExpired hidden, ManifestMissing pending, WeakKey hidden"},
			{3 * settle, "2", noManifest, "", "active ManifestMissing", "CertificateExpired hidden, ManifestMissing active, WeakKey hidden"},
			{
				4 * settle, "3", unreadable, "",
				"again at 5s", "CertificateExpired hidden, ManifestMissing resolving, Unreadable pending, WeakKey hidden",
			},
			{6 * settle, "4", "strength=WeakKey", "b", "resolved CertificateExpired, resolved ManifestMissing, Compliant", "WeakKey active"},
		},
		"a hidden finding that is seen again is not reported again": {
			{0, "1", "validity=CertificateExpired", "a", "again at 1s", "CertificateExpired pending"},
			{settle, "1", "validity=CertificateExpired", "a", "active CertificateExpired, Not compliant", "CertificateExpired active"},
			{2 * settle, "2", "validity?Unreadable", "", "again at 3s", "CertificateExpired hidden, Unreadable pending"},
			{2*settle + 10*ms, "1", "validity=CertificateExpired", "a", "", "CertificateExpired active"},
		},
		"a finding is resolved while something else cannot be observed": {
			{0, "1", "key=KeyMissing issuer?ClientCAUnavailable", "", "again at 1s", "ClientCAUnavailable pending, KeyMissing pending"},
			{
				settle, "1", "key=KeyMissing issuer?ClientCAUnavailable", "",
				"active KeyMissing, active ClientCAUnavailable, Not compliant", "ClientCAUnavailable active, KeyMissing active",
			},
			{2 * settle, "2", "issuer?ClientCAUnavailable", "a", "resolved KeyMissing, Could not verify", "ClientCAUnavailable active"},
		},
		"the first verdict waits for the kubelet": {
			{0, "1", kubeletNotSeen, "a", "again at 1m0s", "NotObserved pending"},
			{settle, "1", kubeletNotSeen, "a", "again at 1m0s", "NotObserved pending"},
			{2 * settle, "2", "", "a", "Compliant", ""},
		},
		"a kubelet that was not observed for a minute is a finding, and the verdict no longer waits": {
			{0, "1", kubeletNotSeen, "a", "again at 1m0s", "NotObserved pending"},
			{59 * time.Second, "1", kubeletNotSeen, "a", "again at 1m0s", "NotObserved pending"},
			{time.Minute, "1", kubeletNotSeen, "a", "active NotObserved, Could not verify", "NotObserved active"},
			{2 * time.Minute, "2", "", "a", "resolved NotObserved, Compliant", ""},
		},
		"a compliant verdict does not last if nothing is observed any more": {
			{0, "1", "", "a", "Compliant", ""},
			{settle, "2", kubeletNotSeen, "a", "again at 1m1s", "NotObserved pending"},
			{settle + time.Minute, "2", kubeletNotSeen, "a", "active NotObserved, Could not verify", "NotObserved active"},
		},
		"a failure does not wait for the kubelet": {
			{0, "1", "key=KeyMissing " + kubeletNotSeen, "", "again at 1s", "KeyMissing pending, NotObserved pending"},
			{settle, "1", "key=KeyMissing " + kubeletNotSeen, "", "active KeyMissing, Not compliant, again at 1m0s", "KeyMissing active, NotObserved pending"},
		},
		"a finding of the kubelet has a longer patience": {
			{0, "1", "", "a", "Compliant", ""},
			{settle, "2", kubeletAway, "a", "again at 11s", "KubeletUnreachable pending"},
			{2 * settle, "2", kubeletAway, "a", "again at 11s", "KubeletUnreachable pending"},
			{3 * settle, "3", "", "a", "", ""},
			{4 * settle, "2", kubeletAway, "a", "again at 14s", "KubeletUnreachable pending"},
			{4*settle + patience, "2", kubeletAway, "a", "active KubeletUnreachable, Could not verify", "KubeletUnreachable active"},
		},
		"a finding of files is reported while one of the kubelet is pending": {
			{0, "1", "", "a", "Compliant", ""},
			{settle, "2", "tls=KubeletNotTLS serving-trusted?KubeletNotTLS", "a", "again at 11s", "KubeletNotTLS pending"},
			{2 * settle, "3", "key=KeyMissing tls=KubeletNotTLS", "", "again at 3s", "KeyMissing pending, KubeletNotTLS pending"},
			{
				3 * settle, "3", "key=KeyMissing tls=KubeletNotTLS", "",
				"active KeyMissing, Not compliant, again at 11s", "KeyMissing active, KubeletNotTLS pending",
			},
			{settle + patience, "3", "key=KeyMissing tls=KubeletNotTLS", "", "active KubeletNotTLS", "KeyMissing active, KubeletNotTLS active"},
		},
		"an unavailable kubelet does not resolve its findings": {
			{0, "1", "serving-trusted=KubeletCertificateUntrusted", "a", "again at 10s", "KubeletCertificateUntrusted pending"},
			{
				patience, "1", "serving-trusted=KubeletCertificateUntrusted", "a",
				"active KubeletCertificateUntrusted, Not compliant", "KubeletCertificateUntrusted active",
			},
			{2 * patience, "2", kubeletAway, "a", "again at 30s", "KubeletCertificateUntrusted hidden, KubeletUnreachable pending"},
			{3 * patience, "2", kubeletAway, "a", "active KubeletUnreachable", "KubeletCertificateUntrusted hidden, KubeletUnreachable active"},
			{4 * patience, "3", "", "a", "resolved KubeletCertificateUntrusted, resolved KubeletUnreachable, Compliant", ""},
		},
		"a finding of files is resolved while the kubelet is unavailable": {
			{0, "1", "pair=KeyMismatch", "", "again at 1s", "KeyMismatch pending"},
			{settle, "1", "pair=KeyMismatch", "", "active KeyMismatch, Not compliant", "KeyMismatch active"},
			{2 * settle, "2", kubeletAway, "a", "again at 3s", "KeyMismatch resolving, KubeletUnreachable pending"},
			{4 * settle, "2", kubeletAway, "a", "resolved KeyMismatch, again at 12s", "KubeletUnreachable pending"},
			{5 * settle, "3", "", "a", "Compliant", ""},
		},
		"a finding is hidden while anything hides it": {
			{0, "1", "issuer=UntrustedIssuer", "", "again at 1s", "UntrustedIssuer pending"},
			{settle, "1", "issuer=UntrustedIssuer", "", "active UntrustedIssuer, Not compliant", "UntrustedIssuer active"},
			{2 * settle, "2", unreadable, "", "again at 3s", "Unreadable pending, UntrustedIssuer hidden"},
			{3 * settle, "2", unreadable, "", "active Unreadable", "Unreadable active, UntrustedIssuer hidden"},
			{4 * settle, "3", "issuer?ClientCAUnavailable", "", "again at 5s", "ClientCAUnavailable pending, Unreadable resolving, UntrustedIssuer hidden"},
			{5 * settle, "3", "issuer?ClientCAUnavailable", "", "active ClientCAUnavailable, resolved Unreadable", "ClientCAUnavailable active, UntrustedIssuer hidden"},
			{6 * settle, "4", "", "a", "resolved UntrustedIssuer, resolved ClientCAUnavailable, Compliant", ""},
		},
		"a finding that was not observed yet is not resolved": {
			{0, "1", "serving-trusted=KubeletCertificateUntrusted", "a", "again at 10s", "KubeletCertificateUntrusted pending"},
			{
				patience, "1", "serving-trusted=KubeletCertificateUntrusted", "a",
				"active KubeletCertificateUntrusted, Not compliant", "KubeletCertificateUntrusted active",
			},
			{2 * patience, "2", kubeletNotSeen, "a", "again at 1m20s", "KubeletCertificateUntrusted hidden, NotObserved pending"},
			{3 * patience, "2", "serving-trusted=KubeletCertificateUntrusted", "a", "", "KubeletCertificateUntrusted active"},
			{4 * patience, "3", kubeletNotSeen, "a", "again at 1m40s", "KubeletCertificateUntrusted hidden, NotObserved pending"},
			{5 * patience, "3", "", "a", "resolved KubeletCertificateUntrusted, Compliant", ""},
		},
		"a repair is compliant as soon as everything was observed": {
			{0, "1", "pair=KeyMismatch", "", "again at 1s", "KeyMismatch pending"},
			{settle, "1", "pair=KeyMismatch", "", "active KeyMismatch, Not compliant", "KeyMismatch active"},
			{2 * settle, "2", kubeletNotSeen, "a", "again at 3s", "KeyMismatch resolving, NotObserved pending"},
			{3 * settle, "2", kubeletNotSeen, "a", "resolved KeyMismatch, again at 1m2s", "NotObserved pending"},
			{4 * settle, "2", "", "a", "Compliant", ""},
		},
		"a finding is resolved if its requirement was observed, whatever else is unknown": {
			{0, "1", "issuer=UntrustedIssuer", "", "again at 1s", "UntrustedIssuer pending"},
			{settle, "1", "issuer=UntrustedIssuer", "", "active UntrustedIssuer, Not compliant", "UntrustedIssuer active"},
			{2 * settle, "2", "issuer?ClientCAUnavailable", "", "again at 3s", "ClientCAUnavailable pending, UntrustedIssuer hidden"},
			{3 * settle, "2", "issuer?ClientCAUnavailable", "", "active ClientCAUnavailable", "ClientCAUnavailable active, UntrustedIssuer hidden"},
			{4 * settle, "3", kubeletAway, "a", "again at 5s", "ClientCAUnavailable resolving, KubeletUnreachable pending, UntrustedIssuer resolving"},
			{
				20 * settle, "3", kubeletAway, "a",
				"active KubeletUnreachable, resolved UntrustedIssuer, resolved ClientCAUnavailable, Could not verify",
				"KubeletUnreachable active",
			},
		},
		"without CAs only the issuer is unknown": {
			{0, "1", "pair=KeyMismatch issuer=UntrustedIssuer", "", "again at 1s", "KeyMismatch pending, UntrustedIssuer pending"},
			{
				settle, "1", "pair=KeyMismatch issuer=UntrustedIssuer", "",
				"active KeyMismatch, active UntrustedIssuer, Not compliant", "KeyMismatch active, UntrustedIssuer active",
			},
			{
				2 * settle, "2", "issuer?ClientCAUnavailable", "",
				"again at 3s", "ClientCAUnavailable pending, KeyMismatch resolving, UntrustedIssuer hidden",
			},
			{
				3 * settle, "2", "issuer?ClientCAUnavailable", "",
				"active ClientCAUnavailable, resolved KeyMismatch", "ClientCAUnavailable active, UntrustedIssuer hidden",
			},
			{4 * settle, "3", "", "a", "resolved UntrustedIssuer, resolved ClientCAUnavailable, Compliant", ""},
		},
		"a repair with a new certificate": {
			{0, "1", "", "a", "Compliant", ""},
			{settle, "2", "certificate=CertificateMissing", "", "again at 2s", "CertificateMissing pending"},
			{2 * settle, "2", "certificate=CertificateMissing", "", "active CertificateMissing, Not compliant", "CertificateMissing active"},
			{3 * settle, "3", "", "b", "resolved CertificateMissing, rotated to b, Compliant", ""},
		},
		"hidden by an unknown of the same requirement for another subject": {
			{0, "1", "validity=CertificateExpired@old", "a", "again at 1s", "CertificateExpired@old pending"},
			{settle, "1", "validity=CertificateExpired@old", "a", "active CertificateExpired@old, Not compliant", "CertificateExpired@old active"},
			{2 * settle, "2", "validity?Unreadable@new", "", "again at 3s", "CertificateExpired@old hidden, Unreadable@new pending"},
			{3 * settle, "2", "validity?Unreadable@new", "", "active Unreadable@new", "CertificateExpired@old hidden, Unreadable@new active"},
			{4 * settle, "3", "validity+@new", "b", "resolved CertificateExpired@old, resolved Unreadable@new, Compliant", ""},
		},
		"not hidden by another subject if its own was observed": {
			{0, "1", "validity=CertificateExpired@one validity+@two", "a", "again at 1s", "CertificateExpired@one pending"},
			{settle, "1", "validity=CertificateExpired@one validity+@two", "a", "active CertificateExpired@one, Not compliant", "CertificateExpired@one active"},
			{2 * settle, "2", "validity+@one validity?Unreadable@two", "", "again at 3s", "CertificateExpired@one resolving, Unreadable@two pending"},
			{
				3 * settle, "2", "validity+@one validity?Unreadable@two", "",
				"active Unreadable@two, resolved CertificateExpired@one, Could not verify", "Unreadable@two active",
			},
		},
		"resolved when the path changed and the new one was observed": {
			{0, "1", "key=KeyMissing@old pair?KeyMissing@old", "", "again at 1s", "KeyMissing@old pending"},
			{settle, "1", "key=KeyMissing@old pair?KeyMissing@old", "", "active KeyMissing@old, Not compliant", "KeyMissing@old active"},
			{2 * settle, "2", "key+@new pair+@new", "a", "resolved KeyMissing@old, Compliant", ""},
		},
		"NotChecked hides nothing": {
			{0, "1", "serving-trusted=KubeletCertificateUntrusted", "a", "again at 10s", "KubeletCertificateUntrusted pending"},
			{
				patience, "1", "serving-trusted=KubeletCertificateUntrusted", "a",
				"active KubeletCertificateUntrusted, Not compliant", "KubeletCertificateUntrusted active",
			},
			{2 * patience, "2", kubelet + "?NotChecked", "a", "resolved KubeletCertificateUntrusted unchecked, Compliant", ""},
		},
		"one of two requirements is no longer checked": {
			{0, "1", "tls,serving-trusted?KubeletUnreachable", "a", "again at 10s", "KubeletUnreachable pending"},
			{patience, "1", "tls,serving-trusted?KubeletUnreachable", "a", "active KubeletUnreachable, Could not verify", "KubeletUnreachable active"},
			{2 * patience, "2", "serving-trusted?NotChecked", "a", "resolved KubeletUnreachable, Compliant", ""},
		},
		"an unknown finding is never hidden": {
			{0, "1", "issuer?ClientCAUnavailable", "a", "again at 1s", "ClientCAUnavailable pending"},
			{settle, "1", "issuer?ClientCAUnavailable", "a", "active ClientCAUnavailable, Could not verify", "ClientCAUnavailable active"},
			{2 * settle, "1", "issuer?Unreadable", "", "active Unreadable, resolved ClientCAUnavailable", "Unreadable active"},
		},
		"another outcome of the same finding": {
			{0, "1", "validity?CertificateMissing", "", "again at 1s", "CertificateMissing pending"},
			{settle, "1", "validity?CertificateMissing", "", "active CertificateMissing as Unverified, Could not verify", "CertificateMissing active"},
			{
				2 * settle, "2", "certificate=CertificateMissing validity?CertificateMissing", "",
				"resolved CertificateMissing as Unverified, active CertificateMissing, Not compliant", "CertificateMissing active",
			},
			{2*settle + time.Hour, "2", "certificate=CertificateMissing", "", "still active CertificateMissing", "CertificateMissing active"},
			{3 * time.Hour, "3", "", "a", "resolved CertificateMissing, Compliant", ""},
		},
		"another outcome while it is pending": {
			{0, "1", "validity?CertificateMissing", "", "again at 1s", "CertificateMissing pending"},
			{500 * ms, "2", "certificate=CertificateMissing", "", "again at 1s", "CertificateMissing pending"},
			{settle, "2", "certificate=CertificateMissing", "", "active CertificateMissing, Not compliant", "CertificateMissing active"},
		},
	}
	ca := pkitest.NewCA("signer")
	leaves := map[string]pkitest.Pair{}
	for _, name := range []string{"a", "b", "c", "d", ""} {
		leaves[name] = ca.Issue(pkitest.Request{CommonName: name})
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			tracked := tracker.New(settle)
			for i, s := range steps {
				results := parse(s.saw)
				certificate := tracker.Certificate{Role: "kubelet-client", At: finding.File("tls.crt")}
				if s.leaf != "" {
					certificate.Leaf = leaves[s.leaf].Leaf
					certificate.Valid = len(finding.WithOutcome(results[finding.ClientFiles], finding.Fail)) == 0
				}
				observed := tracked.Observe(tracker.Observation{
					At: pkitest.Now().Add(s.at), Contents: sha256.Sum256([]byte(s.contents)),
					Sources: []tracker.Source{
						{Results: results[finding.ClientFiles], Patience: settle},
						{Results: results[finding.Kubelet], Patience: patience},
					},
					Scope: control.Node, Controls: []control.Control{watched()}, Certificates: []tracker.Certificate{certificate},
				})
				if d := cmp.Diff(s.want, reported(observed)); d != "" {
					t.Errorf("reported at step %d, %s (-want +got):\n%s", i, s.at, d)
				}
				if d := cmp.Diff(s.states, states(tracked)); d != "" {
					t.Errorf("states after step %d, %s (-want +got):\n%s", i, s.at, d)
				}
			}
		})
	}
}

// TestTrackerSources: Pending has a value for each source, and a finding of two sources has
// the shorter patience.
func TestTrackerSources(t *testing.T) {
	tracked := tracker.New(settle)
	both := finding.Result{Requirement: "client-files/issuer", Reason: finding.Unreadable, Subject: finding.File("ca.crt")}
	away := finding.Result{
		Requirement: "kubelet/tls",
		Reason:      finding.KubeletUnreachable,
		Subject:     finding.Subject{Kind: finding.KindKubelet},
	}
	look := tracker.Observation{At: pkitest.Now(), Sources: []tracker.Source{
		{Results: []finding.Result{both, away}, Patience: patience},
		{Results: []finding.Result{both}, Patience: settle},
		{Results: []finding.Result{{Requirement: "client-files/key", Outcome: finding.Pass}}, Patience: settle},
	}}
	for _, want := range []struct {
		at       time.Duration
		settling []bool
		reported string
	}{
		{0, []bool{true, true, false}, "again at 1s"},
		{settle, []bool{true, false, false}, "active Unreadable@ca.crt, again at 10s"},
		{patience, []bool{false, false, false}, "active KubeletUnreachable"},
	} {
		look.At = pkitest.Now().Add(want.at)
		observed := tracked.Observe(look)
		if d := cmp.Diff(want.settling, observed.Pending); d != "" {
			t.Errorf("pending at %s (-want +got):\n%s", want.at, d)
		}
		if d := cmp.Diff(want.reported, reported(observed)); d != "" {
			t.Errorf("reported at %s (-want +got):\n%s", want.at, d)
		}
	}
}

// TestVerdicts: each control has its own verdict, from the same results.
func TestVerdicts(t *testing.T) {
	guardMissing := finding.Result{Requirement: "guard/installed", Outcome: finding.Fail, Reason: finding.GuardMissing}
	noCA := finding.Result{
		Requirement: "config/certificate-authority",
		Outcome:     finding.Warn,
		Reason:      finding.KubeletCANotConfigured,
	}
	noAdded := func() (results []finding.Result) {
		for _, required := range control.ByID(control.ProtectedSecrets).Requirements {
			results = append(results, finding.Result{Requirement: required.Requirement, Outcome: finding.NotApplicable})
		}
		return results
	}
	type look struct {
		except   []finding.Result // all else passes
		want     string
		verdicts string
		series   string
	}
	const (
		allVerified  = "use-https Compliant, guard-in-force Compliant, protected-secrets Compliant"
		allCompliant = "use-https compliant, guard-in-force compliant, protected-secrets compliant, kubelet-ca compliant"
		allOne       = "compliant protected-secrets = 1\ncompliant use-https = 1\nin_force = 1\n"
	)
	healthy := look{nil, allVerified, allCompliant, allOne}
	cases := map[string][]look{
		"all is healthy, and reported once": {healthy, {nil, "", allCompliant, allOne}},
		"two controls with different verdicts": {
			healthy,
			{
				[]finding.Result{guardMissing},
				"active GuardMissing, guard-in-force Not compliant",
				"use-https compliant, guard-in-force not compliant, protected-secrets compliant, kubelet-ca compliant",
				"compliant protected-secrets = 1\ncompliant use-https = 1\nfinding  GuardMissing Violation = 1\nin_force = 0\n",
			},
			{nil, "resolved GuardMissing, guard-in-force Compliant", allCompliant, allOne},
		},
		"the guard is not known to be in force": {
			{
				[]finding.Result{{Requirement: "overrides/admission", Reason: finding.Unreadable}},
				"active Unreadable, use-https Compliant, guard-in-force Could not verify, protected-secrets Compliant",
				"use-https compliant, guard-in-force could not verify, protected-secrets compliant, kubelet-ca compliant",
				"compliant protected-secrets = 1\ncompliant use-https = 1\nfinding  Unreadable Unverified = 1\nin_force = 0\n",
			},
		},
		"no series of the guard before its first verdict": {
			{
				[]finding.Result{{Requirement: "guard/policy-refuses", Reason: finding.NotObserved}},
				"use-https Compliant, protected-secrets Compliant, again at 1m0s",
				"use-https compliant, protected-secrets compliant, kubelet-ca compliant",
				"compliant protected-secrets = 1\ncompliant use-https = 1\n",
			},
			{nil, "guard-in-force Compliant", allCompliant, allOne},
		},
		"a neighbour fails by a warning, and gives no notice": {
			healthy,
			{
				[]finding.Result{noCA},
				"active KubeletCANotConfigured",
				"use-https compliant, guard-in-force compliant, protected-secrets compliant, kubelet-ca not compliant",
				"compliant protected-secrets = 1\ncompliant use-https = 1\nfinding  KubeletCANotConfigured Warning = " +
					"1\nin_force = 1\n",
			},
		},
		"a control plane elsewhere": {
			healthy,
			{
				[]finding.Result{{Requirement: "platform/control-plane", Outcome: finding.NotApplicable}},
				"use-https Not applicable",
				"use-https not applicable, guard-in-force compliant, protected-secrets compliant, kubelet-ca not applicable",
				"compliant protected-secrets = 1\nin_force = 1\n",
			},
			{nil, "use-https Compliant", allCompliant, allOne},
		},
		"no Secret was added": {
			{
				noAdded(),
				"use-https Compliant, guard-in-force Compliant, protected-secrets Not applicable",
				"use-https compliant, guard-in-force compliant, protected-secrets not applicable, kubelet-ca compliant",
				"compliant use-https = 1\nin_force = 1\n",
			},
		},
		"an added Secret is no part of the benchmark's control": {
			healthy,
			{
				[]finding.Result{{Requirement: "protected-secret/pair", Outcome: finding.Fail, Reason: finding.KeyMismatch}},
				"active KeyMismatch, protected-secrets Not compliant",
				"use-https compliant, guard-in-force compliant, protected-secrets not compliant, kubelet-ca compliant",
				"compliant protected-secrets = 0\ncompliant use-https = 1\nfinding  KeyMismatch Violation = 1\nin_force = 1\n",
			},
		},
		"another outcome of the same finding has another series": {
			{
				[]finding.Result{{Requirement: "protected-secret/validity", Reason: finding.SecretMissing}},
				"active SecretMissing as Unverified, use-https Compliant, guard-in-force Compliant, protected-secrets Could not " +
					"verify",
				"use-https compliant, guard-in-force compliant, protected-secrets could not verify, kubelet-ca compliant",
				"compliant protected-secrets = 0\ncompliant use-https = 1\nfinding  SecretMissing Unverified = 1\nin_force = 1\n",
			},
			{
				[]finding.Result{{Requirement: "protected-secret/exists", Outcome: finding.Fail, Reason: finding.SecretMissing}},
				"resolved SecretMissing as Unverified, active SecretMissing, protected-secrets Not compliant",
				"use-https compliant, guard-in-force compliant, protected-secrets not compliant, kubelet-ca compliant",
				"compliant protected-secrets = 0\ncompliant use-https = 1\nfinding  SecretMissing Violation = 1\nin_force = 1\n",
			},
			{nil, "resolved SecretMissing, protected-secrets Compliant", allCompliant, allOne},
		},
	}
	controls := []control.Control{
		control.ByID(control.UseHTTPS), control.ByID(control.GuardInForce),
		control.ByID(control.ProtectedSecrets), control.ByID(control.KubeletCA),
	}
	for name, looks := range cases {
		t.Run(name, func(t *testing.T) {
			tracked := tracker.New(settle)
			registry := prometheus.NewPedanticRegistry()
			metrics := report.NewMetrics(registry)
			for i, l := range looks {
				results := slices.Clone(l.except)
				for _, c := range controls {
					for _, required := range c.Requirements {
						if !slices.ContainsFunc(l.except, func(r finding.Result) bool { return r.Requirement == required.Requirement }) {
							results = append(results, finding.Result{Requirement: required.Requirement, Outcome: finding.Pass})
						}
					}
				}
				observed := tracked.Observe(tracker.Observation{
					At: pkitest.Now().Add(time.Duration(i) * time.Second), Contents: sha256.Sum256([]byte{byte(i)}),
					Sources: []tracker.Source{{Results: results}}, Scope: control.Cluster, Controls: controls,
				})
				for _, n := range observed.Notices {
					metrics.Report(t.Context(), n)
				}
				if d := cmp.Diff(l.want, reported(observed)); d != "" {
					t.Errorf("reported at step %d (-want +got):\n%s", i, d)
				}
				var verdicts []string
				for _, v := range observed.Verdicts {
					verdicts = append(verdicts, v.Control.ID+" "+v.Status.String())
				}
				if d := cmp.Diff(l.verdicts, strings.Join(verdicts, ", ")); d != "" {
					t.Errorf("verdicts after step %d (-want +got):\n%s", i, d)
				}
				if d := cmp.Diff(l.series, series(t, registry)); d != "" {
					t.Errorf("metrics after step %d (-want +got):\n%s", i, d)
				}
			}
		})
	}
}

// TestRetire: the verdict on a control that is no longer judged is reported as not
// applicable, once. That on a neighbour, or one that did not apply, is removed silently.
func TestRetire(t *testing.T) {
	all := []control.Control{
		control.ByID(control.GuardInForce),
		control.ByID(control.ProtectedSecrets),
		control.ByID(control.KubeletCA),
	}
	results := func(outcome finding.Outcome) (results []finding.Result) {
		for _, c := range all {
			for _, required := range c.Requirements {
				results = append(results, finding.Result{Requirement: required.Requirement, Outcome: outcome})
			}
		}
		return results
	}
	type look struct {
		controls     []control.Control
		outcome      finding.Outcome
		want, series string
	}
	const allOne = "compliant protected-secrets = 1\nin_force = 1\n"
	cases := map[string][]look{
		"not judged any more": {
			{all, finding.Pass, "guard-in-force Compliant, protected-secrets Compliant", allOne},
			{all[1:2], finding.Pass, "guard-in-force Not applicable", "compliant protected-secrets = 1\n"},
			{all[1:2], finding.Pass, "", "compliant protected-secrets = 1\n"},
			{nil, finding.Pass, "protected-secrets Not applicable", ""},
			{all, finding.Pass, "guard-in-force Compliant, protected-secrets Compliant", allOne},
		},
		"did not apply": {
			{all, finding.NotApplicable, "guard-in-force Not applicable, protected-secrets Not applicable", ""},
			{nil, finding.NotApplicable, "", ""},
		},
	}
	for name, looks := range cases {
		t.Run(name, func(t *testing.T) {
			tracked := tracker.New(settle)
			registry := prometheus.NewPedanticRegistry()
			metrics := report.NewMetrics(registry)
			for i, l := range looks {
				observed := tracked.Observe(tracker.Observation{
					At: pkitest.Now().Add(time.Duration(i) * time.Second), Contents: sha256.Sum256([]byte{byte(i)}),
					Sources: []tracker.Source{{Results: results(l.outcome)}}, Scope: control.Cluster, Controls: l.controls,
				})
				for _, n := range observed.Notices {
					metrics.Report(t.Context(), n)
				}
				if d := cmp.Diff(l.want, reported(observed)); d != "" {
					t.Errorf("reported at step %d (-want +got):\n%s", i, d)
				}
				if d := cmp.Diff(l.series, series(t, registry)); d != "" {
					t.Errorf("metrics after step %d (-want +got):\n%s", i, d)
				}
				if len(observed.Verdicts) != len(l.controls) {
					t.Errorf("%d verdicts after step %d, of %d controls", len(observed.Verdicts), i, len(l.controls))
				}
			}
		})
	}
}

// TestVerdictsWait: a verdict waits only for the findings of its control.
func TestVerdictsWait(t *testing.T) {
	require := func(scope control.Scope, all ...finding.Requirement) (required []control.Required) {
		for _, r := range all {
			required = append(required, control.Required{Requirement: r, Scopes: []control.Scope{scope}})
		}
		return required
	}
	controls := []control.Control{
		{ID: "keys", Requirements: require(control.Node, "client-files/key", "client-files/pair")},
		{ID: "issuers", Requirements: require(control.Node, "client-files/issuer")},
		{ID: "kubelets", Requirements: require(control.Node, "kubelet/tls")},
		{ID: "others", Requirements: append(require(control.Node, "client-files/usage"), require(control.Cluster, "client-files/key")...)},
	}
	type look struct {
		at        time.Duration
		saw, want string
	}
	const all = "keys Compliant, issuers Compliant, kubelets Compliant, others Compliant"
	cases := map[string][]look{
		"for a pending one": {
			{0, "key=KeyMissing pair?KeyMissing", "issuers Compliant, kubelets Compliant, others Compliant, again at 1s"},
			{settle, "key=KeyMissing pair?KeyMissing", "active KeyMissing, keys Not compliant"},
		},
		"for each requirement of a pending one": {
			{0, "", all},
			{settle, "key,issuer?Unreadable@dir", "again at 2s"},
			{2 * settle, "key,issuer?Unreadable@dir", "active Unreadable, keys Could not verify, issuers Could not verify"},
		},
		"for a resolving one": {
			{0, "", all},
			{settle, "pair=KeyMismatch", "again at 2s"},
			{2 * settle, "pair=KeyMismatch", "active KeyMismatch, keys Not compliant"},
			{3 * settle, "tls?KubeletUnreachable", "again at 4s"},
			{4 * settle, "tls?KubeletUnreachable", "resolved KeyMismatch, keys Compliant, again at 13s"},
			{3*settle + patience, "tls?KubeletUnreachable", "active KubeletUnreachable, kubelets Could not verify"},
		},
		"for each requirement of a resolving one": {
			{0, "", all},
			{settle, "key,issuer?Unreadable@dir", "again at 2s"},
			{2 * settle, "key,issuer?Unreadable@dir", "active Unreadable, keys Could not verify, issuers Could not verify"},
			{3 * settle, "tls?KubeletUnreachable", "again at 4s"},
			{4 * settle, "tls?KubeletUnreachable", "resolved Unreadable, keys Compliant, issuers Compliant, again at 13s"},
		},
	}
	for name, looks := range cases {
		t.Run(name, func(t *testing.T) {
			tracked := tracker.New(settle)
			for i, l := range looks {
				results := parse(l.saw)
				observed := tracked.Observe(tracker.Observation{
					At: pkitest.Now().Add(l.at), Contents: sha256.Sum256([]byte{byte(i)}), Scope: control.Node, Controls: controls,
					Sources: []tracker.Source{
						{Results: append(results[finding.ClientFiles], finding.Result{Requirement: "client-files/usage", Outcome: finding.Pass}), Patience: settle},
						{Results: results[finding.Kubelet], Patience: patience},
					},
				})
				if d := cmp.Diff(l.want, reported(observed)); d != "" {
					t.Errorf("reported at step %d, %s (-want +got):\n%s", i, l.at, d)
				}
			}
		})
	}
}

// TestAtStart: what another process may have reported before is marked, and nothing else.
func TestAtStart(t *testing.T) {
	const (
		unreadable          = files + "?Unreadable@dir"
		notAnswered, notTLS = kubelet + "?NotObserved", kubelet + "=KubeletNotTLS"
	)
	cases := map[string]struct {
		saw  []string // one observation every 2 seconds, each with other contents
		want string
	}{
		"compliant": {[]string{"", ""}, "Compliant at start"},
		"active at start": {
			[]string{"key=KeyMissing", "key=KeyMissing"}, "active KeyMissing at start, Not compliant at start",
		},
		"active later": {
			[]string{"", "key=KeyMissing", "key=KeyMissing"}, "Compliant at start, active KeyMissing, Not compliant",
		},
		"met before it is reported": {
			[]string{"key=KeyMissing", "", "key=KeyMissing", "key=KeyMissing"},
			"Compliant at start, active KeyMissing, Not compliant",
		},
		"another reason next": {
			[]string{"key=KeyMissing", "key=KeyMissing", "key=KeyUnparsable", "key=KeyUnparsable"},
			"active KeyMissing at start, Not compliant at start, active KeyUnparsable, resolved KeyMissing",
		},
		"another reason before it is reported": {
			[]string{notTLS, kubelet + "=KubeletHasNoCertificate", notTLS, notTLS, notTLS, notTLS},
			"active KubeletNotTLS at start, Not compliant at start",
		},
		"unknown at first, then active": {
			[]string{notAnswered, notAnswered, notTLS, notTLS, notTLS, notTLS, notTLS, notTLS},
			"active KubeletNotTLS at start, Not compliant at start",
		},
		"unknown at first, then met, then active": {
			[]string{notAnswered, "", notTLS, notTLS, notTLS, notTLS, notTLS, notTLS},
			"Compliant at start, active KubeletNotTLS, Not compliant",
		},
		"unknown and reported, then active": {
			[]string{unreadable, unreadable, "key=KeyMissing", "key=KeyMissing"},
			"active Unreadable at start, Could not verify at start, active KeyMissing at start, resolved Unreadable, " +
				"Not compliant",
		},
		"unknown later": {[]string{"", unreadable, unreadable}, "Compliant at start, active Unreadable, Could not verify"},
		"two at start, of one requirement and subject": {
			[]string{"key=KeyMissing key=KeyUnparsable", "key=KeyMissing key=KeyUnparsable"},
			"active KeyMissing at start, active KeyUnparsable at start, Not compliant at start",
		},
		"of a subject that came later": {
			[]string{"", "key+ key=KeyMissing@new", "key+ key=KeyMissing@new"},
			"Compliant at start, active KeyMissing@new, Not compliant",
		},
		"unknown for one subject, met for another": {
			[]string{"key+ key?Unreadable@other", "key+ key=KeyMissing@other", "key+ key=KeyMissing@other"},
			"active KeyMissing@other at start, Not compliant at start",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tracked := tracker.New(settle)
			var got []string
			for i, saw := range c.saw {
				results := parse(saw)
				for _, n := range tracked.Observe(tracker.Observation{
					At: pkitest.Now().Add(time.Duration(i) * 2 * time.Second), Contents: sha256.Sum256([]byte{byte(i)}),
					Scope: control.Node, Controls: []control.Control{watched()}, Sources: []tracker.Source{
						{Results: results[finding.ClientFiles], Patience: settle},
						{Results: results[finding.Kubelet], Patience: patience},
					},
				}).Notices {
					text := textOf(n)
					if n.AtStart {
						text += " at start"
					}
					got = append(got, text)
				}
			}
			if d := cmp.Diff(c.want, strings.Join(got, ", ")); d != "" {
				t.Errorf("notices (-want +got):\n%s", d)
			}
		})
	}
}

// TestTrackerCertificates: a verdict and a rotation name their certificate and its control.
func TestTrackerCertificates(t *testing.T) {
	ca := pkitest.NewCA("signer")
	secret := func(name string) finding.Subject {
		return finding.Subject{Kind: "Secret", Namespace: "shop", Name: name, Key: "tls.crt"}
	}
	certificates := func(name string) []tracker.Certificate {
		return []tracker.Certificate{
			{Role: "serving-cert", At: secret("serving-cert"), Leaf: ca.Issue(pkitest.Request{CommonName: name}).Leaf, Valid: true},
			{Role: "added", At: secret("added"), Leaf: ca.Issue(pkitest.Request{CommonName: name}).Leaf, Valid: true},
			{Role: "other", At: secret("other"), Leaf: ca.Issue(pkitest.Request{CommonName: name}).Leaf, Valid: true},
		}
	}
	judged := func(id string, r finding.Requirement) control.Control {
		return control.Control{
			ID:           id,
			Requirements: []control.Required{{Requirement: r, Scopes: []control.Scope{control.Cluster}}},
		}
	}
	look := tracker.Observation{
		At: pkitest.Now(), Scope: control.Cluster, Certificates: certificates("first"),
		Sources: []tracker.Source{{Results: []finding.Result{
			{Requirement: "serving-cert/pair", Subject: secret("serving-cert").Whole().Part("tls.key"), Outcome: finding.Pass},
			{Requirement: "protected-secret/pair", Subject: secret("added"), Outcome: finding.Pass},
			{Requirement: "guard/installed", Outcome: finding.Pass},
		}}},
		Controls: []control.Control{judged("a", "serving-cert/pair"), judged("b", "protected-secret/pair"), judged("c", "guard/installed")},
	}
	tracked := tracker.New(settle)
	got := tracked.Observe(look).Notices
	look.Certificates = certificates("second")
	got = append(got, tracked.Observe(look).Notices...)
	var texts []string
	for _, n := range got {
		texts = append(texts, fmt.Sprintf("%s %s: %s", n.Type, n.Control.ID, n.CertificateAt))
	}
	want := []string{
		"Compliant a: Secret shop/serving-cert tls.crt", "Compliant b: Secret shop/added tls.crt", "Compliant c: ",
		"Certificate rotated use-https: Secret shop/serving-cert tls.crt", "Certificate rotated protected-secrets: Secret " +
			"shop/added tls.crt",
		"Certificate rotated : Secret shop/other tls.crt",
	}
	if d := cmp.Diff(want, texts); d != "" {
		t.Errorf("notices (-want +got):\n%s", d)
	}
}

// reported returns the notices of an observation as text, and the time of the next one.
func reported(o tracker.Changes) string {
	var texts []string
	for _, n := range o.Notices {
		texts = append(texts, textOf(n))
	}
	if !o.NextChange.IsZero() {
		texts = append(texts, fmt.Sprint("again at ", o.NextChange.Sub(pkitest.Now())))
	}
	return strings.Join(texts, ", ")
}

func textOf(n report.Notice) string {
	name := nameOf(n.Finding.ID())
	if o := n.Finding.Outcome; o != n.Finding.Reason.Outcome() {
		name += " as " + o.Severity()
	}
	switch n.Type {
	case report.FindingActive:
		return "active " + name
	case report.FindingResolved:
		if n.Unchecked {
			name += " unchecked"
		}
		return "resolved " + name
	case report.FindingStillActive:
		return "still active " + name
	case report.CertificateRotated:
		return "rotated to " + n.Certificate.Subject.CommonName
	default:
		return strings.TrimPrefix(n.Control.ID+" "+string(n.Type), "watched ")
	}
}

// nameOf returns the reason, with the subject if it is not the usual one.
func nameOf(id finding.ID) string {
	if id.Subject == finding.File("dir") || id.Subject == (finding.Subject{}) {
		return string(id.Reason)
	}
	for _, usual := range required() {
		if id.Subject == usual {
			return string(id.Reason)
		}
	}
	return string(id.Reason) + "@" + id.Subject.String()
}

func states(tracked *tracker.Tracker) string {
	var all []string
	for id, state := range tracked.States() {
		all = append(all, nameOf(id)+" "+state)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// series returns all series except build_info, without the prefix of their names.
func series(t *testing.T, registry prometheus.Gatherer) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, family := range families {
		if family.GetName() == "kubelet_https_guard_build_info" {
			continue
		}
		for _, metric := range family.GetMetric() {
			text.WriteString(strings.TrimPrefix(family.GetName(), "kubelet_https_guard_"))
			for _, label := range metric.GetLabel() {
				text.WriteString(" " + label.GetValue())
			}
			fmt.Fprintln(&text, " =", metric.GetGauge().GetValue()+metric.GetCounter().GetValue())
		}
	}
	return text.String()
}

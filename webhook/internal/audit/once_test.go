// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// TestOnce: whatever several observations find, each finding that lasts and each object that
// cannot be read is reported, and a finding that does not last is not.
func TestOnce(t *testing.T) {
	type states = map[follow.Object]follow.State
	with := func(o follow.Object, s follow.State) states {
		all := healthy(t)
		all[o] = s
		return all
	}
	good := healthy(t)
	missing := with(servingCert, follow.State{Known: true})
	unknown := with(servingCert, follow.State{Err: errors.New("connection refused")})
	garbage := with(servingCert, healthy(t)[servingCert])
	set(t, garbage[servingCert], "eA==", "data", "tls.key")
	otherMissing := with(kubeletClient, follow.State{Known: true})
	const at = " Secret openshift-apiserver/serving-cert"
	cases := map[string]struct {
		seen     []states // by one observation after the other; the last one is repeated
		want     []string
		wantTook time.Duration
	}{
		"nothing is wrong":    {seen: []states{good}},
		"corrected meanwhile": {seen: []states{missing, good}, wantTook: storedPatience},
		"missing": {seen: []states{missing}, want: []string{"SecretMissing" + at},
			wantTook: storedPatience},
		"not readable": {seen: []states{unknown}, want: []string{"Unreadable" + at},
			wantTook: storedPatience},
		"missing, then not readable": {seen: []states{missing, unknown}, want: []string{"Unreadable" + at},
			wantTook: 2 * storedPatience},
		"not readable, then missing": {seen: []states{unknown, missing}, want: []string{"SecretMissing" + at},
			wantTook: 2 * storedPatience},
		"missing, then stored unparsable": {seen: []states{missing, garbage},
			want: []string{"KeyUnparsable" + at + " tls.key"}, wantTook: 2 * storedPatience},
		"never the same twice": {
			seen:     []states{missing, unknown, garbage, otherMissing, good},
			want:     []string{"SecretMissing Secret openshift-kube-apiserver/kubelet-client"},
			wantTook: (maxObservations - 1) * storedPatience,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, reads := time.Now(), 0
				readAll := func() states {
					reads++
					return c.seen[min(reads, len(c.seen))-1]
				}
				result, err := once(t.Context(), readAll, subject(), nil, nil, pkitest.Now)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, f := range finding.Findings(result.Results) {
					got = append(got, string(f.Reason)+" "+f.Subject.String())
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if took := time.Since(start); took != c.wantTook {
					t.Errorf("it took %s, want %s", took, c.wantTook)
				}
			})
		})
	}
}

// TestChecked: what depends on an object that cannot be read is not listed as checked.
func TestChecked(t *testing.T) {
	unreadable, gone := follow.State{Err: errors.New("connection refused")}, follow.State{Known: true}
	const (
		inSecrets  = "SecretMissing WrongSecretType KeyMismatch "
		inGuard    = "GuardMissing GuardWeakened "
		inConfig   = "ConfigMissing ConfigUnparsable ClientKeyNotConfigured "
		inService  = "RotationStuck "
		inOverride = "OverrideWeakensKubeletTLS "
	)
	cases := map[string]struct {
		state   follow.State
		objects []follow.Object
		want    string // the reasons that were checked
	}{
		"nothing is wrong": {want: inSecrets + inService + inGuard + inOverride + inConfig},

		"one of two Secrets cannot be read": {unreadable, []follow.Object{kubeletClient},
			inService + inGuard + inOverride + inConfig},
		"the Service cannot be read": {unreadable, []follow.Object{service},
			inSecrets + inGuard + inOverride + inConfig},
		"the configuration cannot be read": {unreadable, []follow.Object{configMap},
			inSecrets + inService + inGuard + inOverride},
		"whether it is OpenShift cannot be read": {unreadable, []follow.Object{operator}, inSecrets + inService + inGuard},
		"the guard cannot be read": {unreadable, []follow.Object{policy},
			inSecrets + inService + inOverride + inConfig},
		"nothing can be read": {unreadable, slices.Collect(maps.Keys(healthy(t))), ""},

		"one of two Secrets is missing": {gone, []follow.Object{kubeletClient},
			"SecretMissing " + inService + inGuard + inOverride + inConfig},
		"the Service is missing":       {gone, []follow.Object{service}, inSecrets + inGuard + inOverride + inConfig},
		"the configuration is missing": {gone, []follow.Object{configMap}, inSecrets + inService + inGuard + inOverride},
		"the guard is missing":         {gone, []follow.Object{policy}, inSecrets + inService + inOverride + inConfig},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			states := healthy(t)
			for _, o := range c.objects {
				states[o] = c.state
			}
			seen := observe(subject(), states, nil, nil, nil, pkitest.Now())
			checked := check.CheckedReasons(seen.results())
			var got strings.Builder
			for _, reason := range []finding.Reason{
				finding.Unreadable, finding.SecretMissing, finding.WrongSecretType, finding.KeyMismatch, finding.UntrustedIssuer,
				finding.RotationStuck, finding.GuardMissing, finding.GuardWeakened,
				finding.OverrideWeakensKubeletTLS, finding.ConfigMissing, finding.ConfigUnparsable, finding.ClientKeyNotConfigured,
			} {
				if slices.Contains(checked, reason) {
					got.WriteString(string(reason) + " ")
				}
			}
			if diff := cmp.Diff(c.want, got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestRoles: each object has the role that says why it was read.
func TestRoles(t *testing.T) {
	core := schema.GroupVersion{Version: "v1"}
	for _, c := range []struct {
		object follow.Object
		want   string
	}{
		{operatorObject(), "overrides"},
		{configObject(), "configuration"},
		{infrastructureObject(), "platform"},
		{pkiObject(), "pki"},
		{pkiDefinitionObject(), "pki"},
		{follow.Named(core, "Namespace", "", "a"), "platform"},
		{follow.Named(core, "Secret", "a", "b"), "secret"},
		{follow.Named(core, "Service", "a", "b"), "service"},
		{follow.Named(core, "ConfigMap", "a", "b"), "ca-bundle"},
		{
			follow.Named(schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"},
				"ValidatingWebhookConfiguration", "", "a"), "guard",
		},
	} {
		if got := roleOf(c.object); got != c.want {
			t.Errorf("%v: got %s, want %s", c.object.Subject(), got, c.want)
		}
	}
}

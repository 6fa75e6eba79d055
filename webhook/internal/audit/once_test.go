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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// TestOnce: whatever one look after the other sees, nothing that stands or cannot
// be told is left out, and nothing is told that did not last.
func TestOnce(t *testing.T) {
	type states = map[follow.Object]follow.State
	with := func(o follow.Object, s follow.State) states {
		all := sound(t)
		all[o] = s
		return all
	}
	well := sound(t)
	missing := with(servingCert, follow.State{Known: true})
	unknown := with(servingCert, follow.State{Err: errors.New("connection refused")})
	garbage := with(servingCert, sound(t)[servingCert])
	set(t, garbage[servingCert], "eA==", "data", "tls.key")
	otherMissing := with(kubeletClient, follow.State{Known: true})
	const at = " Secret openshift-apiserver/serving-cert"
	cases := map[string]struct {
		looks    []states // the last one again and again
		want     []string
		wantTook time.Duration
	}{
		"well":                           {looks: []states{well}},
		"mended meanwhile":               {looks: []states{missing, well}, wantTook: settle},
		"missing":                        {looks: []states{missing}, want: []string{"SecretMissing" + at}, wantTook: settle},
		"not readable":                   {looks: []states{unknown}, want: []string{"Unreadable" + at}, wantTook: settle},
		"missing, then not readable":     {looks: []states{missing, unknown}, want: []string{"Unreadable" + at}, wantTook: 2 * settle},
		"not readable, then missing":     {looks: []states{unknown, missing}, want: []string{"SecretMissing" + at}, wantTook: 2 * settle},
		"missing, then made again wrong": {looks: []states{missing, garbage}, want: []string{"KeyUnparsable" + at + " tls.key"}, wantTook: 2 * settle},
		"never the same twice": {
			looks: []states{missing, unknown, garbage, otherMissing, well},
			want:  []string{"SecretMissing Secret openshift-kube-apiserver/kubelet-client"}, wantTook: (maxLooks - 1) * settle,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, looks := time.Now(), 0
				lookAll := func() states {
					looks++
					return c.looks[min(looks, len(c.looks))-1]
				}
				result, err := once(t.Context(), lookAll, subject(), pkitest.Now)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, f := range result.Findings {
					got = append(got, string(f.Reason)+" "+string(f.Location))
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if took := time.Since(start); took != c.wantTook {
					t.Errorf("it took %s, not %s", took, c.wantTook)
				}
			})
		})
	}
}

// TestChecked: what could not be looked at is not said to have been checked.
func TestChecked(t *testing.T) {
	away, gone := follow.State{Err: errors.New("connection refused")}, follow.State{Known: true}
	const (
		inSecrets = "SecretMissing WrongSecretType KeyMismatch "
		inGuard   = "GuardMissing GuardWeakened "
		inConfig  = "ConfigMissing ConfigUnparsable ClientKeyNotConfigured "
	)
	cases := map[string]struct {
		state   follow.State
		objects []follow.Object
		want    string // of those that are looked for
	}{
		"all there": {want: "Unreadable " + inSecrets + "RotationStuck " + inGuard + "OverrideWeakensKubeletTLS " + inConfig},

		"one of two Secrets cannot be looked at":      {away, []follow.Object{kubeletClient}, "Unreadable RotationStuck " + inGuard + "OverrideWeakensKubeletTLS " + inConfig},
		"the Service cannot be looked at":             {away, []follow.Object{service}, "Unreadable " + inSecrets + inGuard + "OverrideWeakensKubeletTLS " + inConfig},
		"the configuration cannot be looked at":       {away, []follow.Object{configMap}, "Unreadable " + inSecrets + "RotationStuck " + inGuard + "OverrideWeakensKubeletTLS "},
		"whether it is OpenShift cannot be looked at": {away, []follow.Object{operator}, "Unreadable " + inSecrets + "RotationStuck " + inGuard},
		"the guard cannot be looked at":               {away, []follow.Object{policy}, "Unreadable " + inSecrets + "RotationStuck OverrideWeakensKubeletTLS " + inConfig},
		"nothing can be looked at":                    {away, slices.Collect(maps.Keys(sound(t))), "Unreadable "},

		"one of two Secrets is gone": {gone, []follow.Object{kubeletClient}, "Unreadable SecretMissing RotationStuck " + inGuard + "OverrideWeakensKubeletTLS " + inConfig},
		"the Service is gone":        {gone, []follow.Object{service}, "Unreadable " + inSecrets + inGuard + "OverrideWeakensKubeletTLS " + inConfig},
		"the configuration is gone":  {gone, []follow.Object{configMap}, "Unreadable " + inSecrets + "RotationStuck " + inGuard + "OverrideWeakensKubeletTLS ConfigMissing "},
		"the guard is gone":          {gone, []follow.Object{policy}, "Unreadable " + inSecrets + "RotationStuck GuardMissing OverrideWeakensKubeletTLS " + inConfig},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			states := sound(t)
			for _, o := range c.objects {
				states[o] = c.state
			}
			seen := look(subject(), states, pkitest.Now())
			checked := seen.everywhere()
			var got strings.Builder
			for _, reason := range []finding.Reason{
				finding.Unreadable, finding.StaleMount, finding.SecretMissing, finding.WrongSecretType, finding.KeyMismatch, finding.UntrustedIssuer,
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

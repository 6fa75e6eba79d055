// SPDX-License-Identifier: Apache-2.0

package tlsprofile_test

import (
	"crypto/fips140"
	"crypto/tls"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
)

func TestOf(t *testing.T) {
	standard := tlsprofile.Profile{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}}
	custom := func(minVersion, ciphers string) string {
		return `{"tlsSecurityProfile":{"type":"Custom","custom":{"minTLSVersion":"` + minVersion + `","ciphers":` +
			ciphers + `}}}`
	}
	groups := func(groups string) string {
		return `{"tlsSecurityProfile":{"type":"Custom","custom":{"minTLSVersion":"VersionTLS13","groups":` + groups + `}}}`
	}
	cases := map[string]struct {
		spec  string // empty: the object does not exist
		want  tlsprofile.Profile
		fault string
	}{
		"no object":        {},
		"no profile":       {spec: `{}`, want: standard},
		"an empty profile": {spec: `{"tlsSecurityProfile":{}}`, want: standard},
		"Intermediate":     {spec: `{"tlsSecurityProfile":{"type":"Intermediate","intermediate":{}}}`, want: standard},
		"Old": {spec: `{"tlsSecurityProfile":{"type":"Old","old":{}}}`,
			want: tlsprofile.Profile{MinVersion: tls.VersionTLS12}},
		"Modern": {spec: `{"tlsSecurityProfile":{"type":"Modern","modern":{}}}`,
			want: tlsprofile.Profile{MinVersion: tls.VersionTLS13}},
		"Custom": {spec: custom("VersionTLS12", `["DHE-RSA-AES128-GCM-SHA256","ECDHE-RSA-AES128-GCM-SHA256"]`),
			want: tlsprofile.Profile{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}},
		"Custom, too old": {spec: custom("VersionTLS10", `["ECDHE-RSA-AES256-SHA"]`),
			want: tlsprofile.Profile{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA}}},
		"Custom, TLS 1.3": {spec: custom("VersionTLS13", `["TLS_AES_128_GCM_SHA256"]`),
			want: tlsprofile.Profile{MinVersion: tls.VersionTLS13}},
		"Custom, no cipher": {spec: custom("VersionTLS12", `["AES128-SHA"]`), want: tlsprofile.Profile{MinVersion: tls.VersionTLS12},
			fault: "spec.tlsSecurityProfile.custom.ciphers [AES128-SHA]: "},
		"Custom, no version": {spec: `{"tlsSecurityProfile":{"type":"Custom","custom":{}}}`,
			fault: `spec.tlsSecurityProfile.custom.minTLSVersion ""`},
		"Custom, garbage": {spec: custom("VersionTLS12", `7`), want: tlsprofile.Profile{MinVersion: tls.VersionTLS12},
			fault: "spec.tlsSecurityProfile.custom.ciphers: "},
		"Custom, groups": {spec: groups(`["secp384r1","X25519MLKEM768"]`),
			want: tlsprofile.Profile{MinVersion: tls.VersionTLS13, Groups: []tls.CurveID{tls.CurveP384, tls.X25519MLKEM768}}},
		"Custom, all groups": {spec: groups(`["secp256r1","secp384r1","secp521r1"]`), want: tlsprofile.Profile{
			MinVersion: tls.VersionTLS13, Groups: []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521},
		}},
		"Custom, an unknown group": {spec: groups(`["secp256r1","brainpool"]`),
			want:  tlsprofile.Profile{MinVersion: tls.VersionTLS13, Groups: []tls.CurveID{tls.CurveP256}},
			fault: "spec.tlsSecurityProfile.custom.groups: [brainpool] "},
		"Custom, no known group": {spec: groups(`["brainpool"]`), want: tlsprofile.Profile{MinVersion: tls.VersionTLS13},
			fault: "spec.tlsSecurityProfile.custom.groups [brainpool]: none "},
		"Custom, groups are garbage": {spec: groups(`7`), want: tlsprofile.Profile{MinVersion: tls.VersionTLS13},
			fault: "spec.tlsSecurityProfile.custom.groups: "},
		"an unknown profile": {spec: `{"tlsSecurityProfile":{"type":"PostQuantum"}}`,
			fault: `spec.tlsSecurityProfile.type "PostQuantum"`},
		"garbage": {spec: `{"tlsSecurityProfile":7}`, fault: "spec.tlsSecurityProfile: "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var object *unstructured.Unstructured
			if c.spec != "" {
				object = &unstructured.Unstructured{}
				if err := json.Unmarshal([]byte(`{"spec":`+c.spec+`}`), &object.Object); err != nil {
					t.Fatal(err)
				}
			}
			got, err := tlsprofile.Of(object)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (err == nil) != (c.fault == "") || err != nil && !strings.HasPrefix(err.Error(), c.fault) {
				t.Errorf("error %v, want %q", err, c.fault)
			}
		})
	}
}

// TestX25519: it is used unless Go refuses it, which its FIPS 140-3 mode does.
func TestX25519(t *testing.T) {
	profile := map[string]any{
		"type": "Custom", "custom": map[string]any{"minTLSVersion": "VersionTLS13", "groups": []any{"X25519"}},
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"tlsSecurityProfile": profile}}}
	want := []tls.CurveID{tls.X25519}
	if fips140.Enabled() {
		want = nil
	}
	got, err := tlsprofile.Of(object)
	if diff := cmp.Diff(want, got.Groups); diff != "" || (err != nil) != fips140.Enabled() {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
}

// TestAdherence: with each value of spec.tlsAdherence, also one of a later release, the servers follow the profile.
func TestAdherence(t *testing.T) {
	for _, value := range []string{"", "LegacyAdheringComponentsOnly", "StrictAllComponents", "SomethingNew"} {
		t.Run(value, func(t *testing.T) {
			got, err := tlsprofile.Of(&unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
				"tlsAdherence": value, "tlsSecurityProfile": map[string]any{"type": "Modern"},
			}}})
			if diff := cmp.Diff(tlsprofile.Profile{MinVersion: tls.VersionTLS13}, got); diff != "" || err != nil {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package facts_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
)

// TestPKI: what an object configures. What is not known of version v1alpha1 is an error.
func TestPKI(t *testing.T) {
	const (
		rsa   = `{"key":{"algorithm":"RSA","rsa":{"keySize":4096}}}`
		p256  = `{"key":{"algorithm":"ECDSA","ecdsa":{"curve":"P256"}}}`
		p384  = `{"key":{"algorithm":"ECDSA","ecdsa":{"curve":"P384"}}}`
		p521  = `{"key":{"algorithm":"ECDSA","ecdsa":{"curve":"P521"}}}`
		mldsa = `{"key":{"algorithm":"ML-DSA"}}`
	)
	custom := func(fields string) string {
		return `{"certificateManagement":{"mode":"Custom","custom":{` + fields + `}}}`
	}
	both := func(serving, client string) check.PKI {
		return check.PKI{Mode: check.PKICustom, ServingKey: serving, ClientKey: client}
	}
	for name, c := range map[string]struct {
		spec string
		want check.PKI
		err  string
	}{
		"Unmanaged": {spec: `{"certificateManagement":{"mode":"Unmanaged"}}`, want: check.PKI{Mode: check.PKIUnmanaged}},
		"Default":   {spec: `{"certificateManagement":{"mode":"Default"}}`, want: check.PKI{Mode: check.PKIDefault}},
		"defaults":  {spec: custom(`"defaults":` + rsa), want: both("RSA 4096", "RSA 4096")},
		"categories override the defaults": {
			spec: custom(`"defaults":` + rsa + `,"signerCertificates":` + p384 + `,"servingCertificates":` + p256 +
				`,"clientCertificates":` + p521),
			want: both("ECDSA P-256", "ECDSA P-521"),
		},
		"a category without a key": {
			spec: custom(`"defaults":` + p384 + `,"servingCertificates":{}`), want: both("ECDSA P-384", "ECDSA P-384"),
		},
		"a category, no defaults": {spec: custom(`"clientCertificates":` + p384), err: `unknown key algorithm ""`},
		"no spec":                 {spec: `null`, err: `unknown mode ""`},
		"another mode":            {spec: `{"certificateManagement":{"mode":"Strict"}}`, err: `unknown mode "Strict"`},
		"another algorithm":       {spec: custom(`"defaults":` + mldsa), err: `unknown key algorithm "ML-DSA"`},
		"another algorithm of clients": {
			spec: custom(`"defaults":` + p256 + `,"clientCertificates":` + mldsa), err: `unknown key algorithm "ML-DSA"`,
		},
		"another curve": {
			spec: custom(`"defaults":` + strings.Replace(p256, "P256", "X448", 1)), err: `unknown curve "X448"`,
		},
		"no size": {spec: custom(`"defaults":{"key":{"algorithm":"RSA"}}`), err: "the size 0"},
		"a size that is text": {
			spec: custom(`"defaults":` + strings.Replace(rsa, "4096", `"4096"`, 1)), err: "keySize is a string",
		},
		"overrides by name, as in a draft of the API": {
			spec: custom(`"defaults":` + p256 + `,"overrides":[{"certificateName":"kubelet-client","certificate":` + rsa + `}]`),
			err:  `unknown field "certificateManagement.custom.overrides"`,
		},
		"another parameter of a key": {
			spec: custom(`"defaults":` + strings.Replace(rsa, `"keySize"`, `"exponent":3,"keySize"`, 1)), err: "unknown field",
		},
		"another field of the spec": {
			spec: `{"certificateManagement":{"mode":"Default"},"kubeletCertificates":{}}`,
			err:  `unknown field "kubeletCertificates"`,
		},
		"a list": {spec: `[]`, err: "a list"},
	} {
		t.Run(name, func(t *testing.T) {
			var object map[string]any
			if err := json.Unmarshal([]byte(`{"spec":`+c.spec+`}`), &object); err != nil {
				t.Fatal(err)
			}
			got := facts.PKI(object)
			if d := cmp.Diff(c.want, got, cmpopts.IgnoreFields(check.PKI{}, "Err")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if c.err == "" && got.Err != nil || c.err != "" && (got.Err == nil || !strings.Contains(got.Err.Error(), c.err)) {
				t.Errorf("error %v, want one that mentions %q", got.Err, c.err)
			}
		})
	}
}

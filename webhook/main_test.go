// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

func noEnvironment(string) string { return "" }

// TestUsage: what is wrong with a command line is said in one line that names
// it, and the exit code is 64.
func TestUsage(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"no certificate": {nil, "--cert-dir is not set"},
		"unknown flag":   {[]string{"--frobnicate"}, "flag provided but not defined: -frobnicate"},
		"an argument":    {[]string{"--cert-dir", "d", "serve"}, `argument "serve": only flags are taken`},
		"no port":        {[]string{"--cert-dir", "d", "--bind-address", "localhost"}, "--bind-address: address localhost: missing port in address"},
		"port too large": {[]string{"--cert-dir", "d", "--bind-address", ":65536"}, `--bind-address: port "65536" is not between 0 and 65535`},
		"port no number": {[]string{"--cert-dir", "d", "--bind-address", ":https"}, `--bind-address: port "https" is not between 0 and 65535`},
		"delay too long": {[]string{"--cert-dir", "d", "--shutdown-delay", "61s"}, "--shutdown-delay 1m1s is not between 0 and a minute"},
		"no names":       {[]string{"--cert-dir", "d", "--self-managed-cert", "s", "--namespace", "n"}, "--self-managed-cert needs --serving-names and --namespace"},
		"whom to bind":   {[]string{"--cert-dir", "d", "--namespace", "n", "--activate", "b"}, "--activate needs --namespace and POD_SERVICE_ACCOUNT"},
		"TLS too old":    {[]string{"--cert-dir", "d", "--tls-min-version", "VersionTLS11"}, `--tls-min-version: "VersionTLS11" is neither VersionTLS12 nor VersionTLS13`},
		"names of whom":  {[]string{"--cert-dir", "d", "--client-names", "a"}, "--client-names needs --client-ca"},
		"log format":     {[]string{"--cert-dir", "d", "--log-format", "xml"}, `--log-format: log format "xml" is neither json nor text`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), c.args, noEnvironment, &stdout, &stderr)
			line, _, _ := strings.Cut(stderr.String(), "\n")
			if code != exitUsage || line != "webhook: "+c.want {
				t.Errorf("got exit code %d and %q, want %d and %q", code, line, exitUsage, "webhook: "+c.want)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"audit", "--help"}, {"--version"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, noEnvironment, &stdout, &stderr); code != 0 || stdout.Len()+stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, said %q", args, code, stdout.String()+stderr.String())
		}
		if strings.Contains(stderr.String(), "\nOthers:\n") {
			t.Errorf("%v: a flag is in no group:\n%s", args, &stderr)
		}
	}
}

func TestLoadConfig(t *testing.T) {
	const head = "apiVersion: kubelet-https-guard.io/v1alpha1\nkind: WebhookConfiguration\n"
	const one = head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth}\n"
	cases := map[string]struct {
		file    string
		want    int // protected Secrets
		wantErr string
	}{
		"one Secret":         {file: one, want: 1},
		"as JSON":            {file: `{"apiVersion":"kubelet-https-guard.io/v1alpha1","kind":"WebhookConfiguration","protectedSecrets":[{"namespace":"ns","name":"s","usage":"clientAuth"}]}`, want: 1},
		"nothing":            {file: "", wantErr: `it is a "" of "", not a WebhookConfiguration of kubelet-https-guard.io/v1alpha1`},
		"another kind":       {file: "apiVersion: v1\nkind: ConfigMap\n", wantErr: `it is a "ConfigMap" of "v1", not a WebhookConfiguration of kubelet-https-guard.io/v1alpha1`},
		"no Secret":          {file: head, wantErr: "protectedSecrets is empty, so nothing would be protected"},
		"a misspelt field":   {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, dnsName: x}\n", wantErr: "line 4: field dnsName not found"},
		"an unknown field":   {file: one + "protected: []\n", wantErr: "line 5: field protected not found"},
		"no name":            {file: head + "protectedSecrets:\n- {namespace: ns, usage: serverAuth}\n", wantErr: `protectedSecrets[0] ns/: namespace "ns" and name "" must be those of a Secret`},
		"twice the same":     {file: one + "- {namespace: ns, name: s, usage: serverAuth}\n", wantErr: "protectedSecrets[1]: ns/s is there twice"},
		"an unknown usage":   {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: server}\n", wantErr: `protectedSecrets[0] ns/s: usage "server" is neither serverAuth nor clientAuth`},
		"no usage":           {file: head + "protectedSecrets:\n- {namespace: ns, name: s}\n", wantErr: `protectedSecrets[0] ns/s: usage "" is neither serverAuth nor clientAuth`},
		"an unknown manager": {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, managedBy: me}\n", wantErr: `protectedSecrets[0] ns/s: managedBy "me" is neither service-ca nor cert-rotation`},
		"a useless service":  {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, service: api}\n", wantErr: "protectedSecrets[0] ns/s: service is of use only with managedBy: service-ca"},
		"a fraction of 1":    {file: one + "expiringFraction: 1\n", wantErr: "expiringFraction 1 is not at least 0 and below 1"},
		"all there is":       {file: head + "overridesAction: Warn\nprotectedSecrets:\n- {namespace: ns, name: s, type: Opaque, usage: serverAuth, dnsNames: [a], managedBy: service-ca, service: api, renewedBy: [x], action: Audit}\n", want: 1},
		"an unknown action":  {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, action: deny}\n", wantErr: `protectedSecrets[0] ns/s: action "deny" is not Deny, Warn or Audit`},
		"unknown, overrides": {file: one + "overridesAction: Refuse\n", wantErr: `overridesAction "Refuse" is not Deny, Warn or Audit`},
		"a CA not there":     {file: head + "protectedSecrets:\n- {namespace: ns, name: s, usage: serverAuth, caBundleFile: /does/not/exist}\n", wantErr: "protectedSecrets[0] ns/s: caBundleFile: open /does/not/exist: no such file or directory"},
		"a key twice":        {file: one + "kind: WebhookConfiguration\n", wantErr: `line 5: mapping key "kind" already defined at line 2`},
		"two documents":      {file: one + "---\n" + one, wantErr: "it has more than one YAML document"},
		"a list for a name":  {file: head + "protectedSecrets:\n- {namespace: ns, name: [], usage: serverAuth}\n", wantErr: "line 4: cannot unmarshal !!seq into string"},
		"no YAML":            {file: "a: b: c", wantErr: "mapping values are not allowed in this context"},
		"too large":          {file: one + strings.Repeat("#", 1<<20), wantErr: "is larger than 1048576 bytes"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			protected, err := loadConfig(path, "")
			switch {
			case c.wantErr == "" && err != nil, c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)):
				t.Errorf("loadConfig: error %v, want one with %q", err, c.wantErr)
			case len(protected.protected) != c.want:
				t.Errorf("loadConfig: %d Secrets, want %d", len(protected.protected), c.want)
			}
			if err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name the file: %v", err)
			}
		})
	}
	if _, err := loadConfig("/does/not/exist", ""); err == nil || err.Error() != "read the configuration: open /does/not/exist: no such file or directory" {
		t.Errorf("loadConfig of a file that is not there: %v", err)
	}
	if protected, err := loadConfig("", ""); err != nil || len(protected.protected) != 2 {
		t.Errorf("loadConfig without a file: %v, %v", protected, err)
	}
}

// TestParseGuard: only what registers the guard is compared, and all of it has
// a name.
func TestParseGuard(t *testing.T) {
	const policy = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: p}\n"
	const binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: b}\n"
	const refusal = ", not only named objects without a namespace of admissionregistration.k8s.io and rbac.authorization.k8s.io"
	cases := map[string]struct {
		text    string
		want    []string
		wantErr string
	}{
		"nothing":          {text: "# a comment\n---\n"},
		"two":              {text: policy + "---\n" + binding, want: []string{"p", "b"}},
		"another group":    {text: policy + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n", wantErr: `it has a "Secret" of "v1"` + refusal},
		"without a name":   {text: strings.ReplaceAll(policy, "p}", `""}`), wantErr: `it has a "ValidatingAdmissionPolicy" of "admissionregistration.k8s.io/v1"` + refusal},
		"with a namespace": {text: strings.ReplaceAll(binding, "b}", "b, namespace: there}"), wantErr: `it has a "ClusterRoleBinding" of "rbac.authorization.k8s.io/v1"` + refusal},
		"no YAML":          {text: "a: b: c", wantErr: "mapping values are not allowed in this context"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			guard, err := parseGuard([]byte(c.text))
			if c.wantErr == "" && err != nil || c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)) {
				t.Errorf("error %v, want one with %q", err, c.wantErr)
			}
			var names []string
			for _, o := range guard {
				names = append(names, o.GetName())
			}
			if d := cmp.Diff(c.want, names); d != "" && c.wantErr == "" {
				t.Errorf("objects (-want +got):\n%s", d)
			}
		})
	}
}

// TestChartProtectsTheSame: what is protected by default stands in the code
// and in the chart's values.
func TestChartProtectsTheSame(t *testing.T) {
	data, err := os.ReadFile("../charts/kubelet-https-guard/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		ExpiringFraction float64 `yaml:"expiringFraction"`
		Webhook          struct {
			ProtectedSecrets []protectedSecret `yaml:"protectedSecrets"`
		} `yaml:"webhook"`
	}
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(defaultConfig().ProtectedSecrets, values.Webhook.ProtectedSecrets); d != "" {
		t.Errorf("protected Secrets (-code +chart):\n%s", d)
	}
	if values.ExpiringFraction != check.DefaultExpiringFraction {
		t.Errorf("expiring fraction: %v in the chart, %v in the code", values.ExpiringFraction, check.DefaultExpiringFraction)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
)

// TestAuditUsage: as TestUsage, of webhook audit.
func TestAuditUsage(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"not once":          {nil, "webhook audit needs --once"},
		"an argument":       {[]string{"--once", "now"}, `argument "now": only flags are taken`},
		"unknown flag":      {[]string{"--once", "--all"}, "flag provided but not defined: -all"},
		"unknown format":    {[]string{"--once", "-o", "yaml"}, `invalid value "yaml" for flag -o: "yaml" is not table, json, junit, sarif or openreports`},
		"two sources":       {[]string{"--once", "--installed", "a/b", "--config", "c"}, "--installed takes the place of --config and --guard: leave them out"},
		"no name":           {[]string{"--once", "--installed", "a"}, `--installed "a" is no namespace/name`},
		"too little time":   {[]string{"--once", "--timeout", "1s"}, "--timeout 1s is not between 5s and 10m0s"},
		"nobody to ask":     {[]string{"--once"}, "no API server is known: set --kubeconfig or KUBECONFIG"},
		"no such file":      {[]string{"--once", "--kubeconfig", "/does/not/exist"}, "read the kubeconfig (--kubeconfig): stat /does/not/exist"},
		"a name and a file": {[]string{"--once", "--installed", "a/b", "--guard", "g"}, "--installed takes the place of --config and --guard: leave them out"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"audit"}, c.args...), noEnvironment, &stdout, &stderr)
			line, _, _ := strings.Cut(stderr.String(), "\n")
			if code != exitUsage || !strings.Contains(line, "webhook audit: ") || !strings.Contains(line, c.want) {
				t.Errorf("got exit code %d and %q, want %d and %q", code, line, exitUsage, c.want)
			}
		})
	}
}

// TestAuditClient: the API server is found as kubectl finds it.
func TestAuditClient(t *testing.T) {
	home := t.TempDir()
	write := func(path, server string) string {
		t.Helper()
		path = filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		text := "apiVersion: v1\nkind: Config\n"
		if server != "" {
			text += "clusters: [{name: c, cluster: {server: '" + server + "'}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: t}}]\ncurrent-context: x\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(".kube/config", "https://home.example.com")
	noScheme := write("no-scheme", "user:password@plain.example.com:6443")
	empty, second, flag := write("empty", ""), write("second", "https://user:password@second.example.com:6443"), write("flag", "https://flag.example.com")
	cases := map[string]struct {
		flag string
		env  map[string]string
		want string
	}{
		"the flag":                      {flag: flag, env: map[string]string{"KUBECONFIG": second, "HOME": home}, want: "https://flag.example.com"},
		"files of KUBECONFIG":           {env: map[string]string{"KUBECONFIG": "/does/not/exist:" + empty + ":" + second, "HOME": home}, want: "https://second.example.com:6443"},
		"in the home folder":            {env: map[string]string{"HOME": home}, want: "https://home.example.com"},
		"an empty file that was named":  {flag: empty, env: map[string]string{"KUBECONFIG": second, "HOME": home}, want: "read the kubeconfig (--kubeconfig): no context and cluster to use is in it"},
		"nothing where KUBECONFIG says": {env: map[string]string{"KUBECONFIG": "/does/not/exist", "HOME": home}, want: "read the kubeconfig (KUBECONFIG): no context and cluster to use is in it"},
		"a server without a scheme":     {flag: noScheme, want: "http://plain.example.com:6443"},
		"nothing of all these":          {env: map[string]string{"HOME": "/does/not/exist"}, want: report.ErrNoAPIServer.Error()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client, err := auditOptions{kubeconfig: c.flag}.client(func(key string) string { return c.env[key] })
			var got string
			if err != nil {
				got = err.Error()
			} else {
				got = address(client)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestInstalledConfig: the chart's ConfigMap says what to look at, wherever that is
// done.
func TestInstalledConfig(t *testing.T) {
	const file = `apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
- {namespace: a, name: serving, usage: serverAuth, caBundleFile: /etc/service-ca/service-ca.crt}
- {namespace: a, name: client, usage: clientAuth, caBundleConfigMap: {namespace: b, name: ca, key: k}}
- {namespace: a, name: plain, usage: clientAuth}
`
	const guard = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: g}\n"
	configMap := func(config, guard string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "guard", Name: "c"}, Data: map[string]string{"config.yaml": config, "guard.yaml": guard}}
	}
	loaded, err := installedConfig(configMap(file, guard))
	if err != nil {
		t.Fatal(err)
	}
	subject := loaded.subject(0)
	var bundles []*audit.Bundle
	for _, s := range subject.Secrets {
		bundles = append(bundles, s.Bundle)
	}
	want := []*audit.Bundle{{Namespace: "guard", Name: "openshift-service-ca.crt", Key: "service-ca.crt"}, {Namespace: "b", Name: "ca", Key: "k"}, nil}
	if d := cmp.Diff(want, bundles); d != "" || len(subject.Guard) != 1 {
		t.Errorf("guard %d, bundles (-want +got):\n%s", len(subject.Guard), d)
	}
	for name, bad := range map[string]*corev1.ConfigMap{
		"config.yaml":             configMap("protected: []", guard),
		"no guard.yaml":           configMap(file, ""),
		"guard.yaml":              configMap(file, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"),
		"protectedSecrets[0] a/b": configMap(strings.ReplaceAll(file, "name: serving, usage: serverAuth", "name: b, usage: none"), guard),
	} {
		if _, err := installedConfig(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

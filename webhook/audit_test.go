// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// TestAuditClient: the API server is found in the same way as kubectl does.
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
			text += "clusters: [{name: c, cluster: {server: '" + server + "'}}]\ncontexts: [{name: x, context: {cluster: c, " +
				"user: u}}]\nusers: [{name: u, user: {token: t}}]\ncurrent-context: x\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(".kube/config", "https://home.example.com")
	noScheme := write("no-scheme", "user:password@plain.example.com:6443")
	empty, second, flag := write("empty", ""), write("second",
		"https://user:password@second.example.com:6443"), write("flag", "https://flag.example.com")
	cases := map[string]struct {
		flag string
		env  map[string]string
		want string
	}{
		"--kubeconfig": {flag: flag, env: map[string]string{"KUBECONFIG": second, "HOME": home},
			want: "https://flag.example.com"},
		"files of KUBECONFIG": {env: map[string]string{"KUBECONFIG": "/does/not/exist:" + empty + ":" + second,
			"HOME": home}, want: "https://second.example.com:6443"},
		"in the home folder": {env: map[string]string{"HOME": home}, want: "https://home.example.com"},
		"an empty --kubeconfig": {flag: empty, env: map[string]string{"KUBECONFIG": second, "HOME": home},
			want: "--kubeconfig " + empty + ": it has no clusters or contexts"},
		"KUBECONFIG does not exist": {env: map[string]string{"KUBECONFIG": "/does/not/exist", "HOME": home},
			want: "KUBECONFIG /does/not/exist: no such file"},
		"a server without a scheme": {flag: noScheme, want: "http://plain.example.com:6443"},
		"nothing is configured": {env: map[string]string{"HOME": "/does/not/exist"},
			want: "no API server is configured: set --kubeconfig or KUBECONFIG"},
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

// TestInstalledConfig: the configuration and the manifests are read from the chart's ConfigMap.
func TestInstalledConfig(t *testing.T) {
	const file = `apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
- {namespace: a, name: serving, usage: serverAuth, managedBy: service-ca, caBundleConfigMap: {namespace: guard, name: openshift-service-ca.crt, key: service-ca.crt}}
- {namespace: a, name: client, usage: clientAuth, caBundleConfigMap: {namespace: b, name: ca, key: k}}
- {namespace: a, name: plain, usage: clientAuth}
`
	const guard = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: " +
		"g}\n"
	configMap := func(config, guard string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "guard", Name: "c"},
			Data:       map[string]string{"config.yaml": config, "guard.yaml": guard},
		}
	}
	loaded, err := installedConfig(configMap(file, guard))
	if err != nil {
		t.Fatal(err)
	}
	subject := loaded.subject(0)
	var bundles []*admit.CABundle
	for _, s := range subject.Secrets {
		bundles = append(bundles, s.Bundle)
	}
	want := []*admit.CABundle{
		{Namespace: "guard", Name: "openshift-service-ca.crt", Key: "service-ca.crt"},
		{Namespace: "b", Name: "ca", Key: "k"},
		nil,
	}
	if d := cmp.Diff(want, bundles); d != "" || len(subject.Guard) != 1 {
		t.Errorf("guard %d, bundles (-want +got):\n%s", len(subject.Guard), d)
	}
	if empty, err := installedConfig(configMap(file, "")); err != nil || len(empty.guard) != 0 {
		t.Errorf("no manifests: %d objects, error %v", len(empty.guard), err)
	}
	old := configMap(file, "")
	delete(old.Data, "guard.yaml")
	for name, bad := range map[string]*corev1.ConfigMap{
		"config.yaml":               configMap("protected: []", guard),
		"guard.yaml is missing":     old,
		"guard.yaml":                configMap(file, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"),
		"protectedSecrets[0].usage": configMap(strings.ReplaceAll(file, "name: serving, usage: serverAuth", "name: b, usage: none"), guard),
	} {
		if _, err := installedConfig(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

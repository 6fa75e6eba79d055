// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// TestValidValues: each of testdata/schema/valid renders.
func TestValidValues(t *testing.T) {
	for name, file := range fixtures(t, "valid") {
		t.Run(name, func(t *testing.T) {
			needs(t, "HELM")
			if _, err := chart.Render(t.Context(), "--values", file); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInvalidValues: each of testdata/schema/invalid is refused, and what is said
// of it contains every line of NAME.expect.txt.
func TestInvalidValues(t *testing.T) {
	for name, file := range fixtures(t, "invalid") {
		t.Run(name, func(t *testing.T) {
			expected, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".expect.txt")
			if err != nil {
				t.Fatal(err)
			}
			refused(t, strings.Split(strings.TrimSpace(string(expected)), "\n"), "--values", file)
		})
	}
	// One that belongs to nothing is a test that nobody runs.
	expectations, err := filepath.Glob("testdata/schema/*/*.expect.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, expectation := range expectations {
		if _, err := os.Stat(strings.TrimSuffix(expectation, ".expect.txt") + ".yaml"); err != nil || strings.Contains(expectation, "/valid/") {
			t.Errorf("%s belongs to no invalid fixture", expectation)
		}
	}
}

// fixtures are the files of a folder of testdata/schema, by their names.
func fixtures(t *testing.T, folder string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "schema", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no fixtures in %s: %v", folder, err)
	}
	all := map[string]string{}
	for _, file := range files {
		all[strings.TrimSuffix(filepath.Base(file), ".yaml")] = file
	}
	return all
}

// refused fails the test unless Helm refuses to render, and says so in words of
// which all that is wanted are part.
func refused(t *testing.T, want []string, args ...string) {
	t.Helper()
	needs(t, "HELM")
	var refusal *chart.RenderError
	switch _, err := chart.Render(t.Context(), args...); {
	case err == nil:
		t.Error("it was rendered")
	case !errors.As(err, &refusal):
		t.Error(err)
	default:
		for _, text := range want {
			if !strings.Contains(refusal.Said, text) {
				t.Errorf("nothing like\n\t%s\nwas said, but\n\t%s", text, refusal.Said)
			}
		}
	}
}

// TestContradictions: what does not fit together, or not to the cluster, is
// refused in a sentence that says what to change.
func TestContradictions(t *testing.T) {
	mode := func(name string, more ...string) []string {
		args := []string{"--set", "webhook.certificate.mode=" + name}
		for _, set := range more {
			args = append(args, "--set", set)
		}
		return args
	}
	cases := map[string]struct {
		args []string
		want string
	}{
		"service-ca where it is not":              {mode("service-ca"), "webhook.certificate.mode is service-ca, but nothing says that this is OpenShift: set it to auto, cert-manager, self-managed or provided."},
		"cert-manager where it is not":            {mode("cert-manager"), "webhook.certificate.mode is cert-manager, but this cluster has no cert-manager.io/v1: install cert-manager first, or set the mode to auto or self-managed."},
		"provided without a CA":                   {mode("provided", "webhook.certificate.secretName=s"), "webhook.certificate.mode is provided: set webhook.certificate.caBundle to the base64 of the CA's PEM."},
		"provided without a Secret":               {mode("provided", "webhook.certificate.caBundle=Q0E="), "webhook.certificate.mode is provided: set webhook.certificate.secretName to the Secret with tls.crt and tls.key."},
		"a CA where the webhook registers it":     {mode("self-managed", "webhook.certificate.caBundle=Q0E="), "webhook.certificate.caBundle is set, but by mode self-managed the CA is registered by somebody else: leave it empty, or set webhook.certificate.mode to provided."},
		"a CA in the mode auto":                   {mode("auto", "webhook.certificate.caBundle=Q0E="), "webhook.certificate.caBundle is set, but by mode self-managed"},
		"an Issuer where nobody issues":           {mode("self-managed", "webhook.certificate.issuerRef.name=i"), "webhook.certificate.issuerRef is set, but by mode self-managed cert-manager issues nothing: leave it empty, or set webhook.certificate.mode to cert-manager."},
		"client names without their CA":           {[]string{"--set", "webhook.tls.clientNames={a}"}, "webhook.tls.clientNames is set, but no certificate is asked for: set webhook.tls.clientCA to the PEM of its CA, too, or leave both empty."},
		"TLS 1.1":                                 {[]string{"--set", "webhook.tls.minVersion=VersionTLS11"}, "at '/webhook/tls/minVersion': value must be one of 'VersionTLS12', 'VersionTLS13'"},
		"a client CA that is no PEM":              {[]string{"--set", "webhook.tls.clientCA=Q0E="}, "at '/webhook/tls/clientCA'"},
		"a webhook elsewhere, without its CA":     {[]string{"--set", "webhook.url=https://127.0.0.1:1"}, "webhook.url names a webhook outside the cluster, whose certificate is yours: set webhook.certificate.mode to provided."},
		"alerts where nobody raises them":         {[]string{"--set", "monitoring.prometheusRule=true"}, "monitoring.prometheusRule is true, but this cluster has no monitoring.coreos.com/v1: install the Prometheus operator first, or set it to false."},
		"a PodMonitor where nobody monitors":      {[]string{"--set", "monitoring.podMonitor=true"}, "monitoring.podMonitor is true, but this cluster has no monitoring.coreos.com/v1: install the Prometheus operator first, or set it to false."},
		"an agent that looks too seldom":          {[]string{"--set", "nodeagent.resync=15m"}, "at '/nodeagent/resync'"},
		"nothing to install":                      {[]string{"--set", "webhook.enabled=false,nodeagent.enabled=false,policy.enabled=false"}, "webhook.enabled, nodeagent.enabled and policy.enabled are all false, so nothing would be installed: set one of them to true."},
		"an old Kubernetes":                       {[]string{"--kube-version", "1.29.9"}, "chart requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.9"},
		"a value of a chart that was before this": {[]string{"--set", "webhook.serviceCA=true"}, "webhook.serviceCA is of chart 0.1: set webhook.certificate.mode (true: auto), instead."},
		"a group of values that is taken away":    {[]string{"--set", "webhook=null"}, "at '': missing property 'webhook'"},
		"a value that is taken away":              {[]string{"--set", "webhook.failurePolicy=null"}, "at '/webhook': missing property 'failurePolicy'"},
		"an unknown mode":                         {mode("letsencrypt"), "at '/webhook/certificate/mode': value must be one of 'auto', 'service-ca', 'cert-manager', 'self-managed', 'provided'"},
		"no base64":                               {mode("provided", "webhook.certificate.caBundle=PEM!"), "at '/webhook/certificate/caBundle'"},
		"a kind of Issuer without its name":       {mode("auto", "webhook.certificate.issuerRef.kind=Issuer"), "at '/webhook/certificate/issuerRef'"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { refused(t, []string{tc.want}, tc.args...) })
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	chart = "../../charts/kubelet-https-guard"
	helm  = "../../.tools/helm"
)

// TestSameAsHelm compares with helm template.
func TestSameAsHelm(t *testing.T) {
	if _, err := os.Stat(helm); err != nil {
		t.Skipf("no helm to compare with: run make tools: %v", err)
	}
	render := filepath.Join(t.TempDir(), "render") // built: a test binary has other capabilities
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", render, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, output)
	}
	values := filepath.Join(t.TempDir(), "values.yaml")
	text := "webhook:\n  replicas: 3\nprotectedSecrets:\n  - namespace: a\n    name: b\n    renewedBy: []\n"
	if err := os.WriteFile(values, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	openshift := []string{"--namespace", "kubelet-https-guard", "--api-versions", "security.openshift.io/v1"}
	rig := append(openshift, "--set", "webhook.url=https://127.0.0.1:20001", "--set", "webhook.certificate.mode=provided",
		"--set", "webhook.certificate.caBundle=eA==")
	for name, arguments := range map[string][]string{
		"Defaults":        nil,
		"OpenShift":       openshift,
		"Rig":             rig,
		"RigRegistration": append(rig, "--show-only", "templates/webhook/validatingwebhookconfiguration.yaml"),
		"RigSeveralTemplates": append(rig, "--show-only", "templates/audit/decoy.yaml",
			"--show-only", "templates/configmap.yaml", "--show-only", "templates/policy.yaml"),
		"ValuesFile":      append(openshift, "--values", values, "--show-only", "templates/policy.yaml"),
		"FileAndSetting":  append(openshift, "--values", values, "--set", "webhook.replicas=4"),
		"UnknownValue":    {"--set", "nonsense=1"},
		"UnknownTemplate": {"--show-only", "templates/nonsense.yaml"},
		"ChartRefuses":    {"--set", "webhook.certificate.mode=service-ca"},
	} {
		t.Run(name, func(t *testing.T) {
			arguments = append(arguments, "guard", chart)
			got, gotErr := output(t, render, arguments...)
			want, wantErr := output(t, helm, append([]string{"template", "--skip-tests"}, arguments...)...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("helm template and render differ:\n%s", diff)
			}
			if (gotErr == nil) != (wantErr == nil) {
				t.Errorf("got error %v, helm template %v", gotErr, wantErr)
			}
		})
	}
}

// output returns what a program prints.
func output(t *testing.T, program string, arguments ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, arguments...).Output()
	return strings.TrimSpace(string(out)), err
}

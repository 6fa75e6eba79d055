// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// policyTemplate is the chart's template of the policies.
const policyTemplate = "charts/kubelet-https-guard/templates/policy.yaml"

// placeholders is a configuration whose values are replaced in the output of the program.
const placeholders = `apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
  - namespace: the-namespace
    name: the-name
    type: the/type
    usage: serverAuth
    managedBy: service-ca
    service: the-service
    owners: [{apiVersion: the.group, kind: TheKind, name: the-owner}]
`

// policyHeader says which control requires a Secret, as package control does.
func policyHeader() string {
	var known []string
	for _, s := range []check.SecretExpectation{
		{Namespace: "openshift-apiserver", Name: "serving-cert"}, {Namespace: "openshift-kube-apiserver", Name: "kubelet-client"},
	} {
		known = append(known, fmt.Sprintf("%q %q", s.Namespace+"/"+s.Name, controlOf(s)))
	}
	return fmt.Sprintf(policyHeaderFormat, strings.Join(known, " "), controlOf(check.SecretExpectation{}))
}

// controlOf is the text of [admit.ControlOf] for a Secret.
func controlOf(s check.SecretExpectation) string {
	c, _ := control.Of(s.Family().Requires(finding.Exists))
	if len(c.Refs) == 0 {
		return "control " + c.ID + " of kubelet-https-guard"
	}
	return c.String()
}

const policyHeaderFormat = `{{- /*
Generated from webhook/internal/policy by make generate: do not edit. It is what webhook policy prints, for each protected Secret.
The floor: what CEL can see of the webhook's rule, refused by the API server itself, with no Pod of the guard running.
*/}}
{{- if .Values.policy.enabled }}
{{- $secrets := .Values.protectedSecrets }}
{{- if .Values.audit.enabled }}
{{- $secrets = append $secrets (dict "namespace" .Release.Namespace "name" (include "kubelet-https-guard.decoyName" .) "decoy" true) }}
{{- end }}
{{- range $secrets }}
{{- $except := include "kubelet-https-guard.exceptNamespaces" (list $ .) | fromJsonArray }}
{{- $control := get (dict %s) (printf "%%s/%%s" (.namespace | default "") .name) | default %q }}
{{- $action := .action | default "Deny" }}
{{- $want := dict "action" $action "control" $control "managedBy" (.managedBy | default "") "name" .name "namespace" (.namespace | default "") "service" (.service | default "") "type" (.type | default "kubernetes.io/tls") }}
{{- $owners := list }}
{{- range .owners }}
{{- $owners = append $owners (dict "apiVersion" .apiVersion "kind" .kind "name" (.name | default "")) }}
{{- end }}
`

const policyFooter = `{{- end }}
{{- end }}
`

// generatePolicies writes the chart's template of the policies.
func generatePolicies(ctx context.Context, bin string) error {
	config := filepath.Join(bin, "placeholders.yaml")
	if err := os.WriteFile(config, []byte(placeholders), 0o600); err != nil {
		return err
	}
	printed, err := exec.CommandContext(ctx, filepath.Join(bin, "webhook"), "policy",
		"--config", config, "--name-prefix", "the-prefix", "--labels", "the-label=x").Output()
	if err != nil {
		return fmt.Errorf("webhook policy: %w", err)
	}
	template, err := asTemplate(string(printed))
	if err != nil {
		return fmt.Errorf("make %s: %w", policyTemplate, err)
	}
	return os.WriteFile(policyTemplate, []byte(template), 0o644)
}

// selfProtectionTemplate is the chart's template of the policy that protects the guard.
const selfProtectionTemplate = "charts/kubelet-https-guard/templates/selfprotection.yaml"

const selfProtectionHeader = `{{- /*
Generated from webhook/internal/policy by make generate: do not edit. It is what webhook policy --self-protection prints.
*/}}
{{- if dig "selfProtection" "enabled" false .Values.policy }}
`

// generateSelfProtection writes the chart's template of the policy that protects the guard.
func generateSelfProtection(ctx context.Context, bin string) error {
	printed, err := exec.CommandContext(ctx, filepath.Join(bin, "webhook"), "policy", "--self-protection",
		"--name-prefix", "the-prefix", "--namespace", "the-namespace", "--labels", "the-label=x",
		"--allowed-users", "the-user").Output()
	if err != nil {
		return fmt.Errorf("webhook policy --self-protection: %w", err)
	}
	template, err := replaced(string(printed), []replacement{
		{"  - expression: '!(request.userInfo.?username.orValue(\"\") in [\"the-user\"])'\n    name: not-an-allowed-user\n",
			"  {{- with .Values.policy.selfProtection.allowedUsers }}\n  - expression: {{ printf \"!(request.userInfo." +
				"?username.orValue(\\\"\\\") in %s)\" (toJson .) | quote }}\n    name: not-an-allowed-user\n  {{- end }}\n", 1},
		{"    the-label: x\n", "    {{- include \"kubelet-https-guard.labels\" . | nindent 4 }}\n", 2},
		{"the-prefix", "{{ include \"kubelet-https-guard.fullname\" . }}", 0},
		{"the-namespace", "{{ .Release.Namespace }}", 0},
	})
	if err != nil {
		return fmt.Errorf("make %s: %w", selfProtectionTemplate, err)
	}
	return os.WriteFile(selfProtectionTemplate, []byte(selfProtectionHeader+template+"{{- end }}\n"), 0o644)
}

// replacement of a placeholder. times is how often it occurs, 0: any number but 0.
type replacement struct {
	old, new string
	times    int
}

// replaced replaces placeholders. The error names one that is not where it is expected.
func replaced(printed string, all []replacement) (string, error) {
	if strings.Contains(printed, "{{") {
		return "", fmt.Errorf("the output contains %q, which starts an action of Helm", "{{")
	}
	for _, r := range all {
		if times := strings.Count(printed, r.old); times == 0 || r.times != 0 && times != r.times {
			return "", fmt.Errorf("%q occurs %d times, want %d", r.old, times, r.times)
		}
		printed = strings.ReplaceAll(printed, r.old, r.new)
	}
	for _, left := range []string{"the-", "the/", "the.", "TheKind"} {
		if strings.Contains(printed, left) {
			return "", fmt.Errorf("a placeholder %q is left", left)
		}
	}
	return printed, nil
}

// quotedJSON is a JSON string, quotedYAML a YAML string in single quotes.
func quotedJSON(text string) string {
	quoted, _ := json.Marshal(text) // cannot fail for a string
	return string(quoted)
}

func quotedYAML(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// createsAndDeletes is the rule that the policy of the decoy does not have.
const createsAndDeletes = `    - apiGroups:
      - ""
      apiVersions:
      - v1
      operations:
      - CREATE
      - DELETE
      resources:
      - secrets
      scope: Namespaced
`

// asTemplate replaces the placeholders in the output by Helm's template actions. The error names a
// placeholder that is not where it is expected.
func asTemplate(printed string) (string, error) {
	printed, err := replaced(printed, []replacement{
		{quotedYAML(`{"action":"Deny","control":` + quotedJSON(controlOf(check.SecretExpectation{})) +
			`,"managedBy":"service-ca","name":"the-name","namespace":"the-namespace","service":"the-service","type":"the/type"}`), `{{ $want | toJson | toJson }}`, 1},
		{`'[{"apiVersion":"the.group","kind":"TheKind","name":"the-owner"}]'`, `{{ $owners | toJson | toJson }}`, 1},
		// A namespace may look like a number.
		{"      matchLabels:\n        kubernetes.io/metadata.name: the-namespace\n",
			"      {{- if .namespaceSelector }}\n      {{- toYaml .namespaceSelector | nindent 6 }}\n      {{- else }}\n" +
				"      matchLabels:\n        kubernetes.io/metadata.name: {{ .namespace | quote }}\n      {{- end }}\n", 1},
		{"    name: protected\n", "    name: protected\n  {{- with $except }}\n  - expression: {{ printf \"!(request.namespace in " +
			"%s)\" (toJson .) | quote }}\n    name: not-of-another-entry\n  {{- end }}\n", 1},
		{"    the-label: x\n", "    {{- include \"kubelet-https-guard.labels\" $ | nindent 4 }}\n", 2},
		{"  validationActions:\n  - Deny\n  - Audit\n", "  validationActions: {{ eq $action \"Audit\" | ternary (list \"Audit\") (list $action \"Audit\") | toJson }}\n", 1},
		{createsAndDeletes, "    {{- if not .decoy }}\n" + createsAndDeletes + "    {{- end }}\n", 1},
		{"the-prefix.the-namespace.the-name", `{{ include "kubelet-https-guard.policyName" (list $ .) }}`, 3},
		// So may a name.
		{"      - the-name\n", "      - {{ .name | quote }}\n", 1},
		{"the-namespace", `{{ .namespace | default "<namespace>" }}`, 2},
		{"the-name", "{{ .name }}", 0},
	})
	return policyHeader() + printed + policyFooter, err
}

{{/* Start of all names; 52 characters leave room for "-nodeagent" in a label of 63. */}}
{{- define "kubelet-https-guard.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Labels that select; each file adds app.kubernetes.io/component. */}}
{{- define "kubelet-https-guard.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "kubelet-https-guard.labels" -}}
{{ include "kubelet-https-guard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- define "kubelet-https-guard.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* Not empty on OpenShift. */}}
{{- define "kubelet-https-guard.openshift" -}}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}true{{- end -}}
{{- end -}}

{{/* Not empty if service-ca issues the webhook's certificate: a CA or a URL that was given wins. */}}
{{- define "kubelet-https-guard.serviceCA" -}}
{{- with .Values.webhook -}}
{{- if and .serviceCA (not .caBundle) (not .url) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Who may delete a protected Secret: the garbage collector and the namespace controller, as a JSON array. */}}
{{- define "kubelet-https-guard.deletingControllers" -}}
{{- list "system:serviceaccount:kube-system:generic-garbage-collector" "system:serviceaccount:kube-system:namespace-controller" | toJson -}}
{{- end -}}

{{/* The namespaces of the protected Secrets, each once, as a JSON array. */}}
{{- define "kubelet-https-guard.protectedNamespaces" -}}
{{- $namespaces := list -}}
{{- range .Values.webhook.protectedSecrets -}}
{{- $namespaces = append $namespaces .namespace -}}
{{- end -}}
{{- $namespaces | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Name of the policy for a protected Secret, and of its binding; arguments: the root, the Secret. */}}
{{- define "kubelet-https-guard.policyName" -}}
{{- $secret := index . 1 -}}
{{ include "kubelet-https-guard.fullname" (index . 0) }}.{{ $secret.namespace }}.{{ $secret.name }}
{{- end -}}

{{/* How the API server reaches the webhook. */}}
{{- define "kubelet-https-guard.clientConfig" -}}
{{- with .Values.webhook.url -}}
url: {{ printf "%s/validate" (trimSuffix "/" .) | quote }}
{{- else -}}
service:
  name: {{ include "kubelet-https-guard.fullname" . }}-webhook
  namespace: {{ .Release.Namespace }}
  path: /validate
  port: 443
{{- end }}
{{- with .Values.webhook.caBundle }}
caBundle: {{ . }}
{{- end }}
{{- end -}}

{{/* Start of all names, which a Service takes without dots; 52 characters leave room for "-nodeagent" in a label of 63. */}}
{{- define "kubelet-https-guard.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | replace "." "-" | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" (.Release.Name | replace "." "-") .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Labels that select; each file adds app.kubernetes.io/component. */}}
{{- define "kubelet-https-guard.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
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
{{- if eq (toString .Values.openshift) "auto" | ternary (.Capabilities.APIVersions.Has "security.openshift.io/v1") (eq (toString .Values.openshift) "true") -}}true{{- end -}}
{{- end -}}

{{/* Name of everything that belongs to the webhook. */}}
{{- define "kubelet-https-guard.webhookName" -}}
{{ include "kubelet-https-guard.fullname" . }}-webhook
{{- end -}}

{{/* Name of the webhook as API servers ask for it. */}}
{{- define "kubelet-https-guard.serverName" -}}
{{ include "kubelet-https-guard.webhookName" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Who issues the webhook's certificate: webhook.certificate.mode with auto resolved. Fails where that does not fit. */}}
{{- define "kubelet-https-guard.certificateMode" -}}
{{- $certificate := .Values.webhook.certificate -}}
{{- /* What these values were called by chart 0.1. */}}
{{- range $old, $new := dict "serviceCA" "certificate.mode (true: auto)" "caBundle" "certificate.caBundle, with webhook.certificate.mode provided" "servingCertSecret" "certificate.secretName, with webhook.certificate.mode provided" -}}
{{- if hasKey $.Values.webhook $old -}}
{{- fail (printf "webhook.%s is of chart 0.1: set webhook.%s, instead." $old $new) -}}
{{- end -}}
{{- end -}}
{{- $certManager := .Capabilities.APIVersions.Has "cert-manager.io/v1" -}}
{{- $mode := $certificate.mode -}}
{{- if eq $mode "auto" -}}
{{- /* Who issues does not change because something else was installed, where the cluster can be asked. */}}
{{- $own := lookup "v1" "Secret" .Release.Namespace (printf "%s-self-managed" (include "kubelet-https-guard.webhookName" .)) | empty | not -}}
{{- $mode = include "kubelet-https-guard.openshift" . | empty | ternary (and $certManager (not $own) | ternary "cert-manager" "self-managed") "service-ca" -}}
{{- end -}}
{{- if and (eq $mode "service-ca") (not (include "kubelet-https-guard.openshift" .)) -}}
{{- fail "webhook.certificate.mode is service-ca, but nothing says that this is OpenShift: set it to auto, cert-manager, self-managed or provided. If it is OpenShift and is not asked (helm template), set openshift to true." -}}
{{- else if and (eq $mode "cert-manager") (not $certManager) -}}
{{- fail "webhook.certificate.mode is cert-manager, but this cluster has no cert-manager.io/v1: install cert-manager first, or set the mode to auto or self-managed. If the cluster is not asked (helm template), add --api-versions cert-manager.io/v1." -}}
{{- else if and .Values.webhook.url (ne $mode "provided") -}}
{{- fail "webhook.url names a webhook outside the cluster, whose certificate is yours: set webhook.certificate.mode to provided." -}}
{{- else if and (eq $mode "provided") (not $certificate.caBundle) -}}
{{- fail "webhook.certificate.mode is provided: set webhook.certificate.caBundle to the base64 of the CA's PEM." -}}
{{- else if and (eq $mode "provided") (not .Values.webhook.url) (not $certificate.secretName) -}}
{{- fail "webhook.certificate.mode is provided: set webhook.certificate.secretName to the Secret with tls.crt and tls.key." -}}
{{- else if and $certificate.caBundle (ne $mode "provided") -}}
{{- fail (printf "webhook.certificate.caBundle is set, but by mode %s the CA is registered by somebody else: leave it empty, or set webhook.certificate.mode to provided." $mode) -}}
{{- else if and $certificate.issuerRef (ne $mode "cert-manager") -}}
{{- fail (printf "webhook.certificate.issuerRef is set, but by mode %s cert-manager issues nothing: leave it empty, or set webhook.certificate.mode to cert-manager." $mode) -}}
{{- end -}}
{{ $mode }}
{{- end -}}

{{/* Secret with the webhook's certificate: another one for each who issues, since none takes over what another has made. */}}
{{- define "kubelet-https-guard.servingSecret" -}}
{{ .Values.webhook.certificate.secretName | default (printf "%s-%s" (include "kubelet-https-guard.webhookName" .) (include "kubelet-https-guard.certificateMode" .)) }}
{{- end -}}

{{/*
By what API servers ask the webhook; argument: the root and, as the second, the subjects. A registration that fails closed
refuses from the moment at which it is stored, at an install before there is anybody to ask. So each webhook's conditions
end with the question whether the webhook's ServiceAccount may "answer", which means nothing else. The webhook binds that
right to itself when a replica is available and API servers trust its certificate. Here it is bound to nobody, and a field
that is not here is nothing to restore for whoever applies this manifest again.
*/}}
{{- define "kubelet-https-guard.answers" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-answers" (include "kubelet-https-guard.fullname" $root) -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels:
    {{- include "kubelet-https-guard.labels" $root | nindent 4 }}
    app.kubernetes.io/component: webhook
rules:
  - apiGroups: [kubelet-https-guard.io]
    resources: [admissions]
    verbs: [answer]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "kubelet-https-guard.labels" $root | nindent 4 }}
    app.kubernetes.io/component: webhook
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
{{- with index . 1 }}
subjects:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The condition that asks for it. */}}
{{- define "kubelet-https-guard.answersCondition" -}}
{{- if not .Values.webhook.url }}
# Nobody is asked before a replica can answer (see ClusterRole {{ include "kubelet-https-guard.fullname" . }}-answers). An authorizer that fails closes nothing.
- name: a-replica-answers
  expression: >-
    authorizer.serviceAccount({{ .Release.Namespace | toJson }}, {{ include "kubelet-https-guard.webhookName" . | toJson }})
    .group("kubelet-https-guard.io").resource("admissions").check("answer").allowed() ||
    authorizer.serviceAccount({{ .Release.Namespace | toJson }}, {{ include "kubelet-https-guard.webhookName" . | toJson }})
    .group("kubelet-https-guard.io").resource("admissions").check("answer").errored()
{{- end }}
{{- end -}}

{{/* Fails where a CRD of the Prometheus operator is asked for and not there; arguments: the root, the value's name. */}}
{{- define "kubelet-https-guard.needsPrometheusOperator" -}}
{{- if not ((index . 0).Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- fail (printf "monitoring.%s is true, but this cluster has no monitoring.coreos.com/v1: install the Prometheus operator first, or set it to false. If the cluster is not asked (helm template), add --api-versions monitoring.coreos.com/v1." (index . 1)) -}}
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
  name: {{ include "kubelet-https-guard.webhookName" . }}
  namespace: {{ .Release.Namespace | quote }}
  path: /validate
  port: 443
{{- end }}
{{- with .Values.webhook.certificate.caBundle }}
caBundle: {{ . }}
{{- end }}
{{- end -}}

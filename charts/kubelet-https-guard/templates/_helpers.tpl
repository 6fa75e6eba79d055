{{/*
Prefix of all names. Without dots, which a Service name cannot have. 52 characters leave room for "-nodeagent" in a label
of 63.
*/}}
{{- define "kubelet-https-guard.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | replace "." "-" | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" (.Release.Name | replace "." "-") .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Labels for selectors; each file adds app.kubernetes.io/component. */}}
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

{{/* "true" on OpenShift, else empty. */}}
{{- define "kubelet-https-guard.openshift" -}}
{{- if eq (toString .Values.openshift) "auto" | ternary (.Capabilities.APIVersions.Has "security.openshift.io/v1") (eq (toString .Values.openshift) "true") -}}true{{- end -}}
{{- end -}}

{{/* Fails if a value of an earlier chart is set, and names its replacement. */}}
{{- define "kubelet-https-guard.refuseOldValues" -}}
{{- range $old, $new := dict "serviceCA" "webhook.certificate.mode (true: auto)" "caBundle" "webhook.certificate.caBundle, with webhook.certificate.mode provided" "servingCertSecret" "webhook.certificate.secretName, with webhook.certificate.mode provided" -}}
{{- if hasKey $.Values.webhook $old -}}
{{- fail (printf "webhook.%s was removed after chart 0.1: set %s instead." $old $new) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.webhook "protectedSecrets" -}}
{{- fail "webhook.protectedSecrets was moved after chart 0.2: set protectedSecrets instead. (helm upgrade --reuse-values keeps the defaults of the old chart: use --reset-then-reuse-values.)" -}}
{{- end -}}
{{- end -}}

{{/* Fails if protectedSecrets lists a Secret twice, or the decoy. */}}
{{- define "kubelet-https-guard.refuseDuplicates" -}}
{{- $seen := dict -}}
{{- range .Values.protectedSecrets -}}
{{- $id := printf "%s/%s" (.namespace | default "<namespaceSelector>") .name -}}
{{- if hasKey $seen $id -}}
{{- fail (printf "protectedSecrets lists %s twice: remove one of the entries." $id) -}}
{{- else if and $.Values.audit.enabled (eq $id (printf "%s/%s" $.Release.Namespace (include "kubelet-https-guard.decoyName" $))) -}}
{{- fail (printf "protectedSecrets lists %s, which is the decoy Secret of the audit: remove this entry." $id) -}}
{{- end -}}
{{- $_ := set $seen $id true -}}
{{- end -}}
{{- end -}}

{{/* Name of the audit objects. */}}
{{- define "kubelet-https-guard.auditName" -}}
{{ include "kubelet-https-guard.fullname" . }}-audit
{{- end -}}

{{/* Name of the ConfigMap that the webhook and the audit share. */}}
{{- define "kubelet-https-guard.configName" -}}
{{ include "kubelet-https-guard.fullname" . }}-config
{{- end -}}

{{/*
The protected Secrets as the programs and roles use them, as JSON in "secrets". A CA bundle without a namespace is in that
of the Secret. On OpenShift, the service CA must have
signed the certificates that service-ca manages. OpenShift writes its bundle into every namespace. The chart uses the one
in the release namespace: a user who can write a protected Secret might also be able to write ConfigMaps in its namespace.
*/}}
{{- define "kubelet-https-guard.protectedSecrets" -}}
{{- $secrets := list -}}
{{- range .Values.protectedSecrets -}}
{{- $secret := . -}}
{{- if and .caBundleConfigMap .namespace -}}
{{- $bundle := merge (deepCopy .caBundleConfigMap) (dict "namespace" .namespace) -}}
{{- $secret = merge (dict "caBundleConfigMap" $bundle) . -}}
{{- end -}}
{{- if and (include "kubelet-https-guard.openshift" $) (eq (.managedBy | default "") "service-ca") (not .caBundleConfigMap) -}}
{{- $secret = merge (dict "caBundleConfigMap" (dict "namespace" $.Release.Namespace "name" "openshift-service-ca.crt" "key" "service-ca.crt")) . -}}
{{- end -}}
{{- $secrets = append $secrets $secret -}}
{{- end -}}
{{- dict "secrets" $secrets | toJson -}}
{{- end -}}

{{/*
Fails if a namespace does not exist and Helm can query the cluster, so that an install does not stop halfway.
Arguments: the root, the namespaces.
*/}}
{{- define "kubelet-https-guard.needsNamespaces" -}}
{{- $root := index . 0 -}}
{{- if lookup "v1" "Namespace" "" "default" -}}
{{- range index . 1 -}}
{{- if and (ne . $root.Release.Namespace) (not (lookup "v1" "Namespace" "" .)) -}}
{{- fail (printf "namespace %s does not exist, but protectedSecrets names an object in it (its default is for OpenShift): set protectedSecrets to Secrets of this cluster, or create the namespace first." .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of the webhook objects. */}}
{{- define "kubelet-https-guard.webhookName" -}}
{{ include "kubelet-https-guard.fullname" . }}-webhook
{{- end -}}

{{/* DNS name under which API servers call the webhook. */}}
{{- define "kubelet-https-guard.serverName" -}}
{{ include "kubelet-https-guard.webhookName" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* webhook.certificate.mode with auto resolved. Fails if the mode does not fit the cluster or the other values. */}}
{{- define "kubelet-https-guard.certificateMode" -}}
{{- $certificate := .Values.webhook.certificate -}}
{{- $certManager := .Capabilities.APIVersions.Has "cert-manager.io/v1" -}}
{{- $mode := $certificate.mode -}}
{{- if eq $mode "auto" -}}
{{- /* Keep self-managed when cert-manager is installed later. Works only if Helm can query the cluster. */}}
{{- $own := lookup "v1" "Secret" .Release.Namespace (printf "%s-self-managed" (include "kubelet-https-guard.webhookName" .)) | empty | not -}}
{{- $mode = include "kubelet-https-guard.openshift" . | empty | ternary (and $certManager (not $own) | ternary "cert-manager" "self-managed") "service-ca" -}}
{{- end -}}
{{- if and (eq $mode "service-ca") (not (include "kubelet-https-guard.openshift" .)) -}}
{{- fail "webhook.certificate.mode is service-ca, but this cluster is not known to be OpenShift: set the mode to auto, cert-manager, self-managed or provided. On OpenShift without access to the cluster (helm template), set openshift to true." -}}
{{- else if and (eq $mode "cert-manager") (not $certManager) -}}
{{- fail "webhook.certificate.mode is cert-manager, but this cluster does not serve cert-manager.io/v1: install cert-manager first, or set the mode to auto or self-managed. Without access to the cluster (helm template), add --api-versions cert-manager.io/v1." -}}
{{- else if and .Values.webhook.url (ne $mode "provided") -}}
{{- fail (printf "webhook.url is %s, but webhook.certificate.mode is %s: for a webhook outside the cluster, set the mode to provided." .Values.webhook.url $certificate.mode) -}}
{{- else if and (eq $mode "provided") (not $certificate.caBundle) -}}
{{- fail "webhook.certificate.mode is provided, but webhook.certificate.caBundle is empty: set it to the CA certificate, as base64 of its PEM." -}}
{{- else if and (eq $mode "provided") (not .Values.webhook.url) (not $certificate.secretName) -}}
{{- fail "webhook.certificate.mode is provided, but webhook.certificate.secretName is empty: set it to the Secret with tls.crt and tls.key." -}}
{{- else if and $certificate.caBundle (ne $mode "provided") -}}
{{- fail (printf "webhook.certificate.caBundle is set, but in mode %s the CA is registered automatically: leave caBundle empty, or set webhook.certificate.mode to provided." $mode) -}}
{{- else if and $certificate.issuerRef (ne $mode "cert-manager") -}}
{{- fail (printf "webhook.certificate.issuerRef is set, but in mode %s it is not used: leave issuerRef empty, or set webhook.certificate.mode to cert-manager." $mode) -}}
{{- end -}}
{{ $mode }}
{{- end -}}

{{/* Secret with the serving certificate. Its name contains the mode: no issuer takes over the Secret of another one. */}}
{{- define "kubelet-https-guard.servingSecret" -}}
{{ .Values.webhook.certificate.secretName | default (printf "%s-%s" (include "kubelet-https-guard.webhookName" .) (include "kubelet-https-guard.certificateMode" .)) }}
{{- end -}}

{{/*
ClusterRole and ClusterRoleBinding that activate the webhook. Arguments: the root, the subjects. A registration that fails
closed refuses requests as soon as it is stored, at an install before any replica runs. So the end of each webhook's match
condition checks whether the ServiceAccount of the webhook has the permission "answer", which has no other use. The webhook
adds itself as the subject when a replica is available and API servers trust its certificate. The manifest contains no
subjects field, so applying it again does not remove the subject.

The name ends in -answers, after the verb, and must stay: Helm would create a binding of another name without subjects, and
delete the old one, so the webhook would be inactive until a Pod of the new version activates it.
*/}}
{{- define "kubelet-https-guard.activation" -}}
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

{{/* The end of a match condition, in CEL: checks this permission. */}}
{{- define "kubelet-https-guard.whenActive" -}}
{{- if not .Values.webhook.url }}
{{- $check := printf "authorizer.serviceAccount(%s, %s).group(\"kubelet-https-guard.io\").resource(\"admissions\").check(\"answer\")" (.Release.Namespace | toJson) (include "kubelet-https-guard.webhookName" . | toJson) -}}
// API servers call the webhook only when a replica is ready
// (see ClusterRole {{ include "kubelet-https-guard.fullname" . }}-answers).
// If the authorizer fails, they call it.
&& ({{ $check }}.allowed()
  || {{ $check }}.errored())
{{- end }}
{{- end -}}

{{/* "true" if metrics are served over HTTPS, else empty. Fails if nothing provides the certificate. */}}
{{- define "kubelet-https-guard.metricsTLS" -}}
{{- $openshift := include "kubelet-https-guard.openshift" . -}}
{{- $tls := toString .Values.metrics.tls -}}
{{- if or (eq $tls "true") (and (eq $tls "auto") $openshift) -}}
{{- if not (or $openshift .Values.metrics.secretName) -}}
{{- fail "metrics.tls is true, but metrics.secretName is empty: set it to a Secret with tls.crt, tls.key and ca.crt. Only on OpenShift the chart gets a certificate itself." -}}
{{- else if and .Values.nodeagent.enabled (eq (int .Values.nodeagent.metricsPort) 8443) -}}
{{- fail "nodeagent.metricsPort is 8443, the port of metrics over HTTPS: set another port, or set metrics.tls to false." -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{/* Name of the objects for metrics over HTTPS. */}}
{{- define "kubelet-https-guard.metricsName" -}}
{{ include "kubelet-https-guard.fullname" . }}-metrics
{{- end -}}

{{/* Secret with the certificate for metrics. */}}
{{- define "kubelet-https-guard.metricsSecret" -}}
{{ .Values.metrics.secretName | default (include "kubelet-https-guard.metricsName" .) }}
{{- end -}}

{{/* ServiceAccounts of the Pods that serve metrics over HTTPS, as a JSON array. */}}
{{- define "kubelet-https-guard.metricsAccounts" -}}
{{- $accounts := list -}}
{{- if include "kubelet-https-guard.metricsTLS" . -}}
{{- if and .Values.webhook.enabled (not .Values.webhook.url) -}}
{{- $accounts = append $accounts (include "kubelet-https-guard.webhookName" .) -}}
{{- end -}}
{{- if .Values.audit.enabled -}}
{{- $accounts = append $accounts (include "kubelet-https-guard.auditName" .) -}}
{{- end -}}
{{- if .Values.nodeagent.enabled -}}
{{- $accounts = append $accounts (printf "%s-nodeagent" (include "kubelet-https-guard.fullname" .)) -}}
{{- end -}}
{{- end -}}
{{ $accounts | toJson }}
{{- end -}}

{{/* Arguments for metrics over HTTPS. */}}
{{- define "kubelet-https-guard.metricsArgs" -}}
- --metrics-cert-dir=/var/run/secrets/kubelet-https-guard/metrics-cert
- --metrics-tls-bind-address=:8443
{{- if include "kubelet-https-guard.openshift" . }}
# The client certificate of the platform's Prometheus has this name (openshift/enhancements CONVENTIONS.md, Metrics).
- --metrics-allowed-users=system:serviceaccount:openshift-monitoring:prometheus-k8s
{{- end }}
{{- end -}}

{{/* Port for metrics over HTTPS. */}}
{{- define "kubelet-https-guard.metricsContainerPort" -}}
- name: https-metrics
  containerPort: 8443
{{- end -}}

{{/* Mount of the certificate for metrics. */}}
{{- define "kubelet-https-guard.metricsMount" -}}
- name: metrics-cert
  mountPath: /var/run/secrets/kubelet-https-guard/metrics-cert
  readOnly: true
{{- end -}}

{{/* Volume with the certificate for metrics. The Pod also starts without it, and uses it when it is there. */}}
{{- define "kubelet-https-guard.metricsVolume" -}}
- name: metrics-cert
  secret:
    secretName: {{ include "kubelet-https-guard.metricsSecret" . }}
    optional: true
{{- end -}}

{{/* Fails if the cluster has no Prometheus operator. Arguments: the root, the name of the value that needs it. */}}
{{- define "kubelet-https-guard.needsPrometheusOperator" -}}
{{- if not ((index . 0).Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- fail (printf "monitoring.%s is true, but this cluster does not serve monitoring.coreos.com/v1: install the Prometheus operator first, or set the value to false. Without access to the cluster (helm template), add --api-versions monitoring.coreos.com/v1." (index . 1)) -}}
{{- end -}}
{{- end -}}

{{/* The controllers that can delete a protected Secret, as a JSON array. */}}
{{- define "kubelet-https-guard.deletingControllers" -}}
{{- list "system:serviceaccount:kube-system:generic-garbage-collector" "system:serviceaccount:kube-system:namespace-controller" | toJson -}}
{{- end -}}

{{/* The namespaces of the protected Secrets and of the decoy, without duplicates, as a JSON array. */}}
{{- define "kubelet-https-guard.protectedNamespaces" -}}
{{- $namespaces := list -}}
{{- range .Values.protectedSecrets -}}
{{- if .namespace -}}
{{- $namespaces = append $namespaces .namespace -}}
{{- end -}}
{{- end -}}
{{- if .Values.audit.enabled -}}
{{- $namespaces = append $namespaces .Release.Namespace -}}
{{- end -}}
{{- $namespaces | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Name of the decoy Secret, to which the audit sends its dry-run requests. */}}
{{- define "kubelet-https-guard.decoyName" -}}
{{ include "kubelet-https-guard.fullname" . }}-decoy
{{- end -}}

{{/* Name of the policy for a protected Secret and of its binding. Arguments: the root, the Secret. */}}
{{- define "kubelet-https-guard.policyName" -}}
{{- $secret := index . 1 -}}
{{ include "kubelet-https-guard.fullname" (index . 0) }}{{ with $secret.namespace }}.{{ . }}{{ else }}-selected-namespaces{{ end }}.{{ $secret.name }}
{{- end -}}

{{/*
The namespaces that an entry with a namespaceSelector leaves out, as a JSON array: another entry, or the decoy, is the
Secret of the name there. Arguments: the root, the entry.
*/}}
{{- define "kubelet-https-guard.exceptNamespaces" -}}
{{- $root := index . 0 -}}
{{- $secret := index . 1 -}}
{{- $namespaces := list -}}
{{- if $secret.namespaceSelector -}}
{{- range $root.Values.protectedSecrets -}}
{{- if and .namespace (eq .name $secret.name) -}}
{{- $namespaces = append $namespaces .namespace -}}
{{- end -}}
{{- end -}}
{{- if and $root.Values.audit.enabled (eq $secret.name (include "kubelet-https-guard.decoyName" $root)) -}}
{{- $namespaces = append $namespaces $root.Release.Namespace -}}
{{- end -}}
{{- end -}}
{{- $namespaces | sortAlpha | toJson -}}
{{- end -}}

{{/* The Secrets in all namespaces, by name, and the ConfigMaps with their CAs, that entries with a namespaceSelector need, as JSON. */}}
{{- define "kubelet-https-guard.inSelectedNamespaces" -}}
{{- $secrets := list -}}
{{- $configMaps := list -}}
{{- range (include "kubelet-https-guard.protectedSecrets" . | fromJson).secrets -}}
{{- if .namespaceSelector -}}
{{- $secrets = append $secrets .name -}}
{{- with .caBundleConfigMap -}}
{{- if not .namespace -}}
{{- $configMaps = append $configMaps .name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "secrets" (uniq $secrets | sortAlpha) "configMaps" (uniq $configMaps | sortAlpha) | toJson -}}
{{- end -}}

{{/* The clientConfig of the webhooks. */}}
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

{{/* Fails if a host path is already mounted, or would give the agent access to tokens or keys. */}}
{{- define "kubelet-https-guard.refuseHostPaths" -}}
{{- $agent := .Values.nodeagent -}}
{{- $secret := dict
  "/var/lib/kubelet" "contains the tokens of all Pods of the node and the key of the kubelet: list kubelet configuration files in nodeagent.kubeletFiles instead"
  "/var/lib/etcd" "contains all Secrets of the cluster: list other directories instead"
  "/run" "contains sockets and credentials of running programs: list other directories instead"
  "/var/run" "contains sockets and credentials of running programs: list other directories instead"
  "/proc" "does not contain regular files: list other directories instead"
  "/sys" "does not contain regular files: list other directories instead"
  "/dev" "does not contain regular files: list other directories instead"
  "/sysroot" "contains the whole host, including the tokens of all Pods: list directories by their usual paths instead"
  "/ostree" "contains the whole host, including the tokens of all Pods: list directories by their usual paths instead"
-}}
{{- range $path := $agent.hostPaths -}}
{{- if has $path (list "/" "/var" "/var/lib") -}}
{{- fail (printf "nodeagent.hostPaths lists %s, which contains /var/lib/kubelet with the tokens of all Pods of the node: list only the directories that the agent needs." $path) -}}
{{- end -}}
{{- range $directory, $why := $secret -}}
{{- if hasPrefix (printf "%s/" $directory) (printf "%s/" $path) -}}
{{- fail (printf "nodeagent.hostPaths lists %s, but %s %s." $path $directory $why) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $path := $agent.kubeletFiles -}}
{{- range $directory := list "/var/lib/kubelet/pods" "/var/lib/kubelet/pki" "/var/lib/kubelet/plugins" "/var/lib/etcd" "/run" "/var/run" "/proc" "/sys" "/dev" "/sysroot" "/ostree" -}}
{{- if hasPrefix (printf "%s/" $directory) (printf "%s/" $path) -}}
{{- fail (printf "nodeagent.kubeletFiles lists %s, but %s contains no kubelet configuration and can contain tokens or keys: list kubelet configuration files only." $path $directory) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $path := $agent.hostPaths -}}
{{- if has $path ($agent.kubeletFiles | default list) -}}
{{- fail (printf "nodeagent.hostPaths and nodeagent.kubeletFiles both list %s: leave it in hostPaths if it is a directory, or in kubeletFiles if it is a file." $path) -}}
{{- end -}}
{{- end -}}
{{- $layout := include "kubelet-https-guard.layoutPaths" . | fromJson -}}
{{- range $path := concat ($agent.hostPaths | default list) ($agent.kubeletFiles | default list) -}}
{{- range $directory := concat $layout.directories $layout.files -}}
{{- if hasPrefix (printf "%s/" $directory) (printf "%s/" $path) -}}
{{- fail (printf "nodeagent.hostPaths or nodeagent.kubeletFiles lists %s, but the agent can already read all of %s: remove this entry." $path $directory) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne (empty $agent.clientCertificate) (empty $agent.clientKey) -}}
{{- fail "Only one of nodeagent.clientCertificate and nodeagent.clientKey is set: set both or neither." -}}
{{- end -}}
{{- if and $agent.clientDirectory $agent.clientCertificate -}}
{{- fail "nodeagent.clientDirectory and nodeagent.clientCertificate are both set: set only one of them." -}}
{{- end -}}
{{- end -}}

{{- /* Whether the agent reads its own log through the kube-apiserver: "true" or empty. Values of an earlier chart do not have it. */}}
{{- define "kubelet-https-guard.connection" -}}
{{- if dig "connection" true .Values.nodeagent }}true{{ end }}
{{- end }}

{{- /* Whether the audit connects to the kubelets of all Nodes: "true" or empty. Values of an earlier chart do not have it. */}}
{{- define "kubelet-https-guard.kubelets" -}}
{{- if dig "kubelets" "enabled" true .Values.webhook }}true{{ end }}
{{- end }}

{{- /* The ConfigMap with the CAs of kubelets, as JSON: empty if none is configured, or if kubelets are not checked. */}}
{{- define "kubelet-https-guard.kubeletCA" -}}
{{- if include "kubelet-https-guard.kubelets" . }}{{ dig "kubelets" "caBundleConfigMap" dict .Values.webhook | toJson }}
{{- else }}{}{{ end }}
{{- end }}

{{- /* Whether the audit connects to the endpoints of protected Secrets' Services: "true" or empty. Values of an earlier chart do not have it. */}}
{{- define "kubelet-https-guard.servedCertificates" -}}
{{- if dig "servedCertificates" "enabled" true .Values.webhook }}true{{ end }}
{{- end }}

{{- /* A node selector, as YAML. k3s and RKE2 label control-plane nodes with the value true, others with an empty one. Takes a list of the context and the selector. */}}
{{- define "kubelet-https-guard.nodeSelector" -}}
{{- $selector := deepCopy (index . 1) -}}
{{- $role := "node-role.kubernetes.io/control-plane" -}}
{{- if and (has (include "kubelet-https-guard.layout" (index . 0)) (list "k3s" "rke2")) (hasKey $selector $role) (eq (get $selector $role) "") -}}
{{- $_ := set $selector $role "true" -}}
{{- end -}}
{{- toYaml $selector -}}
{{- end }}

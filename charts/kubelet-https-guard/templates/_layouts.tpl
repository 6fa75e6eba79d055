{{- /* Generated from pkg/layout by make generate: do not edit. */}}

{{- /* The layout of the control-plane nodes: the value, or what the version of the API server shows. */}}
{{- define "kubelet-https-guard.layout" -}}
{{- $value := dig "layout" "auto" .Values.nodeagent -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if ne $value "auto" }}{{ $value }}
{{- else if contains "+k3s" $version }}k3s
{{- else if contains "+rke2" $version }}rke2
{{- else }}auto
{{- end -}}
{{- end -}}

{{- /* The directories and files of the host that the agent of that layout reads, as JSON. */}}
{{- define "kubelet-https-guard.layoutPaths" -}}
{{- $layouts := dict
  "auto" (dict "directories" (list "/etc/kubernetes") "files" (list))
  "openshift" (dict "directories" (list "/etc/kubernetes") "files" (list))
  "kubeadm" (dict "directories" (list "/etc/kubernetes") "files" (list))
  "microshift" (dict "directories" (list "/var/lib/microshift/certs/kube-apiserver-to-kubelet-client-signer/kube-apiserver-to-kubelet-client" "/var/lib/microshift/certs/ca-bundle" "/var/lib/microshift/resources/kubelet/config") "files" (list "/var/lib/microshift/certs/kubelet-csr-signer-signer/csr-signer/ca-bundle.crt"))
  "k3s" (dict "directories" (list) "files" (list "/var/lib/rancher/k3s/server/tls/client-kube-apiserver.crt" "/var/lib/rancher/k3s/server/tls/client-kube-apiserver.key" "/var/lib/rancher/k3s/server/tls/server-ca.crt" "/var/lib/rancher/k3s/agent/client-ca.crt"))
  "rke2" (dict "directories" (list "/var/lib/rancher/rke2/agent/pod-manifests") "files" (list "/var/lib/rancher/rke2/server/tls/client-kube-apiserver.crt" "/var/lib/rancher/rke2/server/tls/client-kube-apiserver.key" "/var/lib/rancher/rke2/server/tls/server-ca.crt" "/var/lib/rancher/rke2/agent/client-ca.crt" "/etc/rancher/rke2/rke2-pss.yaml"))
-}}
{{- get $layouts (include "kubelet-https-guard.layout" .) | toJson -}}
{{- end -}}

// SPDX-License-Identifier: Apache-2.0

package openshift

import "strings"

// KubeletFile is the file with the kubelet's configuration on the host.
func (t Tree) KubeletFile() string {
	switch t.Layout {
	case Kubeadm:
		return "/var/lib/kubelet/config.yaml"
	case MicroShift:
		return "/var/lib/microshift/resources/kubelet/config/config.yaml"
	case K3s:
		return "/" + k3s + "/agent/etc/kubelet.conf.d/00-k3s-defaults.conf"
	case RKE2:
		return "/" + rke2 + "/agent/etc/kubelet.conf.d/00-rke2-defaults.conf"
	case Current, Legacy, Oldest:
	}
	return "/etc/kubernetes/kubelet.conf"
}

// kubelet are the files that configure the kubelet, by their paths relative to the root, as the
// machine-config-operator (templates/master/01-master-kubelet), or kubeadm and its packages, write
// them.
func (t Tree) kubelet() map[string]File {
	switch t.Layout {
	case MicroShift:
		return map[string]File{t.KubeletFile()[1:]: {Data: []byte(microshiftConfiguration), Mode: 0o644}}
	case K3s:
		return map[string]File{t.KubeletFile()[1:]: {
			Data: []byte(strings.ReplaceAll(rke2Configuration, "rke2", "k3s")), Mode: 0o600,
		}}
	case RKE2:
		return map[string]File{t.KubeletFile()[1:]: {Data: []byte(rke2Configuration), Mode: 0o600}}
	case Kubeadm:
		return map[string]File{
			"var/lib/kubelet/config.yaml":                                {Data: []byte(kubeadmConfiguration), Mode: 0o644},
			"var/lib/kubelet/kubeadm-flags.env":                          {Data: []byte(kubeadmFlags), Mode: 0o644},
			"etc/kubernetes/kubelet.conf":                                {Data: []byte(kubeadmKubeconfig), Mode: 0o600},
			"usr/lib/systemd/system/kubelet.service":                     {Data: []byte(kubeadmUnit), Mode: 0o644},
			"usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf":   {Data: []byte(kubeadmDropIn), Mode: 0o644},
			"etc/systemd/system/multi-user.target.wants/kubelet.service": {Data: []byte(kubeadmUnit), Mode: 0o644},
		}
	case Current, Legacy, Oldest:
	}
	return map[string]File{
		"etc/kubernetes/kubelet.conf":                                {Data: []byte(openShiftConfiguration), Mode: 0o644},
		"etc/systemd/system/kubelet.service":                         {Data: []byte(openShiftUnit), Mode: 0o644},
		"etc/systemd/system/kubelet.service.d/10-mco-on-prem.conf":   {Data: []byte(openShiftDropIn), Mode: 0o644},
		"etc/systemd/system/kubelet.service.d/20-logging.conf":       {Data: []byte("[Service]\nEnvironment=\"KUBELET_LOG_LEVEL=2\"\n"), Mode: 0o644},
		"usr/lib/systemd/system/crio.service":                        {Data: []byte("[Service]\nExecStart=/usr/bin/crio\n"), Mode: 0o644},
		"etc/systemd/system/multi-user.target.wants/kubelet.service": {Data: []byte(openShiftUnit), Mode: 0o644},
	}
}

const openShiftConfiguration = `kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  x509:
    clientCAFile: /etc/kubernetes/kubelet-ca.crt
  anonymous:
    enabled: false
cgroupDriver: systemd
cgroupRoot: /
clusterDNS:
  - 172.30.0.10
clusterDomain: cluster.local
containerLogMaxSize: 50Mi
maxPods: 250
kubeAPIQPS: 50
kubeAPIBurst: 100
podPidsLimit: 4096
protectKernelDefaults: true
rotateCertificates: true
serializeImagePulls: false
staticPodPath: /etc/kubernetes/manifests
systemCgroups: /system.slice
featureGates:
  RotateKubeletServerCertificate: true
serverTLSBootstrap: true
tlsMinVersion: VersionTLS12
`

const openShiftUnit = `[Unit]
Description=Kubernetes Kubelet
Requires=crio.service kubelet-dependencies.target
After=kubelet-dependencies.target

[Service]
Type=notify
ExecStartPre=/bin/mkdir --parents /etc/kubernetes/manifests
ExecStartPre=-/usr/sbin/restorecon /usr/local/bin/kubenswrapper /usr/bin/kubensenter
EnvironmentFile=/etc/os-release
EnvironmentFile=-/etc/kubernetes/kubelet-workaround
EnvironmentFile=-/etc/kubernetes/kubelet-env
EnvironmentFile=/etc/node-sizing.env

ExecStart=/usr/local/bin/kubenswrapper \
    /usr/bin/kubelet \
      --config=/etc/kubernetes/kubelet.conf \
      --bootstrap-kubeconfig=/etc/kubernetes/kubeconfig \
      --kubeconfig=/var/lib/kubelet/kubeconfig \
      --container-runtime-endpoint=/var/run/crio/crio.sock \
      --runtime-cgroups=/system.slice/crio.service \
      --node-labels=node-role.kubernetes.io/control-plane,node-role.kubernetes.io/master,node.openshift.io/os_id=${ID} \
      --node-ip=${KUBELET_NODE_IP} \
      --minimum-container-ttl-duration=6m0s \
      --cloud-provider= \
      --volume-plugin-dir=/etc/kubernetes/kubelet-plugins/volume/exec \
      --hostname-override=${KUBELET_NODE_NAME} \
      --register-with-taints=node-role.kubernetes.io/master=:NoSchedule \
      --system-reserved=cpu=${SYSTEM_RESERVED_CPU},memory=${SYSTEM_RESERVED_MEMORY},ephemeral-storage=${SYSTEM_RESERVED_ES} \
      --v=${KUBELET_LOG_LEVEL}

Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
`

const openShiftDropIn = "[Service]\nEnvironment=\"KUBELET_NODE_IP=192.0.2.7\"\n"

const kubeadmConfiguration = `apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
kind: KubeletConfiguration
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
`

const kubeadmFlags = `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///var/run/containerd/containerd.sock --pod-infra-container-image=registry.k8s.io/pause:3.10"
`

const kubeadmKubeconfig = `apiVersion: v1
clusters:
- cluster:
    server: https://192.0.2.7:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: system:node:master-0
  name: system:node:master-0@kubernetes
current-context: system:node:master-0@kubernetes
kind: Config
users:
- name: system:node:master-0
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
`

const kubeadmUnit = `[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
`

const kubeadmDropIn = `# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime, populating the KUBELET_KUBEADM_ARGS variable dynamically
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# This is a file that the user can use for overrides of the kubelet args as a last resort.
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
`

// microshiftConfiguration has what matters of the file that microshift writes at its start (microshift
// pkg/node/kubelet.go).
const microshiftConfiguration = `kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  x509:
    clientCAFile: /var/lib/microshift/certs/ca-bundle/kubelet-ca.crt
  anonymous:
    enabled: false
cgroupDriver: "systemd"
failSwapOn: false
maxPods: 250
`

// rke2Configuration has what matters of the drop-in that rke2 writes at its start (k3s pkg/daemons/agent).
const rke2Configuration = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: /var/lib/rancher/rke2/agent/client-ca.crt
authorization:
  mode: Webhook
staticPodPath: /var/lib/rancher/rke2/agent/pod-manifests
`

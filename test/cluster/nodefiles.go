// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

const (
	nodeName = "node-0"

	// nodeAddress is in the network namespace of the node, so it cannot collide with
	// addresses of the machine.
	nodeAddress    = "172.30.0.1"
	nodeNetwork    = nodeAddress + "/24"
	nodeDevice     = "node0"
	podRange       = "10.244.0.0/16"
	serviceAddress = "10.96.0.1" // Service kubernetes, the first address in serviceRange
	nodeEtcdPort   = 2379
	nodeServerPort = 6443

	// pauseImage is the usual name of the sandbox image.
	pauseImage = "registry.k8s.io/pause:3.6"

	// insideContainerd is the directory with containerd's state and socket, inside the node.
	// Outside it is clusterDirectory.containerdRun.
	insideContainerd = "/run/containerd"
	insideSocket     = insideContainerd + "/containerd.sock"
)

// The files of a node, in addition to those of a control plane.

// nodeLog is the log of the processes that run the node.
func (f clusterDirectory) nodeLog() string { return f.path("node.log") }

// nodePID contains the PID of process 1 of the node, for entering its namespaces.
func (f clusterDirectory) nodePID() string { return f.path("node-pid") }

// kubeletConfig is polled: the kubelet restarts if the content changes.
func (f clusterDirectory) kubeletConfig() string { return f.path("kubelet.yaml") }

// etcKubernetes is /etc/kubernetes of the node. It is a normal directory: changes from
// outside are visible inside.
func (f clusterDirectory) etcKubernetes() string { return f.path("host/etc/kubernetes") }

func (f clusterDirectory) kubeletRoot() string             { return f.path("kubelet") }
func (f clusterDirectory) kubeletVolumes() string          { return f.path("volume-plugins") }
func (f clusterDirectory) resolvConf() string              { return f.path("resolv.conf") }
func (f clusterDirectory) podLogs() string                 { return f.path("log/pods") }
func (f clusterDirectory) containerLogs() string           { return f.path("log/containers") }
func (f clusterDirectory) containerdConfig() string        { return f.path("containerd.toml") }
func (f clusterDirectory) containerdData() string          { return f.path("containerd") }
func (f clusterDirectory) containerdExtras() string        { return f.path("containerd-extras") }
func (f clusterDirectory) containerdRun() string           { return f.path("run") }
func (f clusterDirectory) containerdSocket() string        { return f.path("run/containerd.sock") }
func (f clusterDirectory) networkConfig() string           { return f.path("cni/net.d") }
func (f clusterDirectory) networkAddresses() string        { return f.path("cni/addresses") }
func (f clusterDirectory) networkState() string            { return f.path("cni/state") }
func (f clusterDirectory) pauseArchive() string            { return f.path("pause.tar") }
func (f clusterDirectory) logOf(name string) string        { return f.path(name + ".log") }
func (f clusterDirectory) kubeconfigOf(name string) string { return f.path(name + ".kubeconfig") }

// cgroup is the name of the node's cgroup. It depends on the directory, since a machine can
// run several nodes.
func (f clusterDirectory) cgroup() string {
	return "kubelet-https-guard-node-" + cacheKey(string(f))[:8]
}

func nodeAPIServerArguments(f clusterDirectory) []string {
	return append(commonAPIServerArguments(f, nodeServerPort, nodeEtcdPort),
		// All addresses in the network namespace of the node. Others may use the same port of another address.
		"--bind-address=0.0.0.0",
		"--permit-port-sharing=true",
		"--advertise-address="+nodeAddress,
		"--enable-admission-plugins=NodeRestriction",
	)
}

func controllerManagerArguments(f clusterDirectory) []string {
	return []string{
		"--kubeconfig=" + f.kubeconfigOf(controllerManagerName),
		"--bind-address=" + loopback,
		"--controllers=*",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + f.serviceAccountKey(),
		"--root-ca-file=" + f.certificate(authorityName),
		"--flex-volume-plugin-dir=" + f.kubeletVolumes(),
	}
}

func schedulerArguments(f clusterDirectory) []string {
	return []string{
		"--kubeconfig=" + f.kubeconfigOf(schedulerName),
		"--bind-address=" + loopback,
		"--leader-elect=false",
	}
}

func proxyArguments(f clusterDirectory) []string {
	return []string{
		"--kubeconfig=" + f.kubeconfigOf(proxyName),
		"--hostname-override=" + nodeName,
		"--proxy-mode=nftables",
		"--cluster-cidr=" + podRange,
		"--healthz-bind-address=" + loopback,
		"--metrics-bind-address=" + loopback,
		// 0: do not change the conntrack settings of the kernel. Some of them apply to the
		// whole machine.
		"--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s",
		"--oom-score-adj=0",
	}
}

func kubeletArguments(f clusterDirectory) []string {
	return []string{
		"--config=" + f.kubeletConfig(),
		"--kubeconfig=" + f.kubeconfigOf(nodeClientName),
		"--hostname-override=" + nodeName,
		"--node-ip=" + nodeAddress,
		// The default is /var/lib/kubelet, which is a mount inside the node (see
		// nodeMounts).
	}
}

// kubeletConfiguration complies with the control that this project guards.
func kubeletConfiguration(f clusterDirectory) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: %[1]q
authorization:
  mode: Webhook
tlsCertFile: %[2]q
tlsPrivateKeyFile: %[3]q
readOnlyPort: 0

containerRuntimeEndpoint: "unix://%[4]s"
cgroupDriver: cgroupfs
cgroupRoot: "/%[5]s"
failCgroupV1: false
failSwapOn: false
# Changing the score of a process is not allowed on every machine.
oomScoreAdj: 0
# The chains are those of iptables, and kube-proxy uses nftables.
makeIPTablesUtilChains: false
resolvConf: %[6]q
volumePluginDir: %[7]q
registerWithTaints:
- key: node-role.kubernetes.io/control-plane
  effect: NoSchedule

# A full disk is the machine's business: no pod is evicted and no image removed,
# since none can be pulled again.
evictionHard:
  imagefs.available: 0%%
  imagefs.inodesFree: 0%%
  memory.available: 1Mi
  nodefs.available: 0%%
  nodefs.inodesFree: 0%%
imageGCHighThresholdPercent: 100
`,
		f.certificate(authorityName),
		f.certificate(kubeletServingName),
		f.privateKey(kubeletServingName),
		insideSocket,
		f.cgroup(),
		f.resolvConf(),
		f.kubeletVolumes(),
	)
}

// containerdConfiguration disables AppArmor, since its profiles would be loaded into the
// kernel of the machine.
func containerdConfiguration(f clusterDirectory, runc, plugins string) string {
	return fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q

[grpc]
  address = %[3]q

[plugins."io.containerd.internal.v1.opt"]
  path = %[4]q

[plugins."io.containerd.grpc.v1.cri"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  sandbox_image = %[5]q
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %[6]q
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = %[7]q
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[8]q
    conf_dir = %[9]q
`,
		f.containerdData(),
		insideContainerd,
		insideSocket,
		f.containerdExtras(),
		pauseImage,
		snapshotter,
		runc,
		plugins,
		f.networkConfig(),
	)
}

// networkConfiguration gives each pod a separate link to the node. With a bridge,
// responses to requests through a Service would go directly from pod to pod and bypass
// the address translation of the node.
func networkConfiguration(f clusterDirectory) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "node",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "dataDir": %q,
        "ranges": [[{"subnet": %q}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, f.networkAddresses(), podRange)
}

// kubeletAccess allows kube-apiserver, by the name in its client certificate, to use the
// kubelet for logs, exec and the node proxy.
const kubeletAccess = `{
  "apiVersion": "rbac.authorization.k8s.io/v1",
  "kind": "ClusterRoleBinding",
  "metadata": {"name": "kube-apiserver-kubelet-api-admin"},
  "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
  "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-apiserver"}]
}`

// nodeRoles are labels that a kubelet cannot set on its Node.
const nodeRoles = `{"metadata": {"labels": {
  "node-role.kubernetes.io/control-plane": "",
  "node-role.kubernetes.io/master": ""
}}}`

// clientKubeconfig is for a component of the cluster with a client certificate.
func clientKubeconfig(f clusterDirectory, name string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: kubelet-https-guard
  cluster:
    server: %s
    certificate-authority: %q
users:
- name: %[3]s
  user:
    client-certificate: %[4]q
    client-key: %[5]q
contexts:
- name: kubelet-https-guard
  context:
    cluster: kubelet-https-guard
    user: %[3]s
current-context: kubelet-https-guard
`, serverURL(nodeServerPort), f.certificate(authorityName), name, f.certificate(name), f.privateKey(name))
}

// nodeCanBeIn reports whether the directory would be visible inside the node.
func nodeCanBeIn(dir string) bool {
	return !strings.HasPrefix(dir+"/", "/run/") && !strings.HasPrefix(dir+"/", "/var/run/")
}

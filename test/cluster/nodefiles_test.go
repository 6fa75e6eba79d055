// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestNodeArguments(t *testing.T) {
	tests := map[string]struct{ got, want []string }{
		"KubeAPIServer": {
			got: nodeAPIServerArguments("/d")[len(commonAPIServerArguments("/d", nodeServerPort, nodeEtcdPort)):],
			want: []string{
				"--bind-address=0.0.0.0",
				"--permit-port-sharing=true",
				"--advertise-address=172.30.0.1",
				"--enable-admission-plugins=NodeRestriction",
			},
		},
		"KubeControllerManager": {
			got: controllerManagerArguments("/d"),
			want: []string{
				"--kubeconfig=/d/controller-manager.kubeconfig",
				"--bind-address=127.0.0.1",
				"--controllers=*",
				"--leader-elect=false",
				"--use-service-account-credentials=true",
				"--service-account-private-key-file=/d/pki/service-account.key",
				"--root-ca-file=/d/pki/ca.crt",
				"--flex-volume-plugin-dir=/d/volume-plugins",
			},
		},
		"KubeScheduler": {
			got:  schedulerArguments("/d"),
			want: []string{"--kubeconfig=/d/scheduler.kubeconfig", "--bind-address=127.0.0.1", "--leader-elect=false"},
		},
		"KubeProxy": {
			got: proxyArguments("/d"),
			want: []string{
				"--kubeconfig=/d/kube-proxy.kubeconfig",
				"--hostname-override=node-0",
				"--proxy-mode=nftables",
				"--cluster-cidr=10.244.0.0/16",
				"--healthz-bind-address=127.0.0.1",
				"--metrics-bind-address=127.0.0.1",
				"--conntrack-max-per-core=0",
				"--conntrack-tcp-timeout-established=0s",
				"--conntrack-tcp-timeout-close-wait=0s",
				"--oom-score-adj=0",
			},
		},
		"Kubelet": {
			got: kubeletArguments("/d"),
			want: []string{
				"--config=/d/kubelet.yaml",
				"--kubeconfig=/d/node-client.kubeconfig",
				"--hostname-override=node-0",
				"--node-ip=172.30.0.1",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if !slices.Equal(tt.got, tt.want) {
				t.Errorf("got  %q\nwant %q", tt.got, tt.want)
			}
		})
	}
}

// TestNode covers how the programs use their files. This test covers what tests in
// other packages change, and what a node must not do to the machine.
func TestNodeFiles(t *testing.T) {
	tests := map[string]struct {
		got  string
		want []string
	}{
		"Kubelet": {
			got: kubeletConfiguration("/d"),
			want: []string{
				"authentication:\n  anonymous:\n    enabled: false\n  webhook:\n    enabled: true\n  x509:\n    clientCAFile: " +
					"\"/d/pki/ca.crt\"\n",
				"authorization:\n  mode: Webhook\n",
				"tlsCertFile: \"/d/pki/kubelet.crt\"\ntlsPrivateKeyFile: \"/d/pki/kubelet.key\"\nreadOnlyPort: 0\n",
				"cgroupRoot: \"/" + clusterDirectory("/d").cgroup() + "\"\n",
				"  nodefs.available: 0%\n",
			},
		},
		"Containerd": {
			got: containerdConfiguration("/d", "/b/runc", "/usr/lib/cni"),
			want: []string{
				"version = 2\nroot = \"/d/containerd\"\n",
				"disable_apparmor = true\n",
				"BinaryName = \"/b/runc\"\n",
				"bin_dir = \"/usr/lib/cni\"\n",
				"conf_dir = \"/d/cni/net.d\"\n",
			},
		},
		"Client": {
			got: clientKubeconfig("/d e", schedulerName),
			want: []string{
				"    server: https://127.0.0.1:6443\n    certificate-authority: \"/d e/pki/ca.crt\"\n",
				"- name: scheduler\n  user:\n    client-certificate: \"/d e/pki/scheduler.crt\"\n    client-key: \"/d " +
					"e/pki/scheduler.key\"\n",
				"    user: scheduler\n",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, want := range tt.want {
				if !strings.Contains(tt.got, want) {
					t.Errorf("got\n%s\nwant in it\n%s", tt.got, want)
				}
			}
			if strings.Contains(tt.got, "%!") {
				t.Errorf("got\n%s", tt.got)
			}
		})
	}
	for name, text := range map[string]string{"Network": networkConfiguration("/d"), "KubeletAccess": kubeletAccess,
		"NodeRoles": nodeRoles} {
		if !json.Valid([]byte(text)) {
			t.Errorf("%s is no JSON: %s", name, text)
		}
	}
}

func TestNodeAddresses(t *testing.T) {
	_, services, err := net.ParseCIDR(serviceRange)
	if err != nil {
		t.Fatal(err)
	}
	_, pods, err := net.ParseCIDR(podRange)
	if err != nil {
		t.Fatal(err)
	}
	node := net.ParseIP(nodeAddress)
	if !services.Contains(net.ParseIP(serviceAddress)) || services.Contains(node) || pods.Contains(node) ||
		pods.Contains(services.IP) ||
		services.Contains(pods.IP) {
		t.Errorf("%s, %s and %s overlap", services, pods, node)
	}
}

func TestCgroupNames(t *testing.T) {
	a, b := clusterDirectory("/a").cgroup(), clusterDirectory("/b").cgroup()
	if a == b {
		t.Errorf("two nodes have the group %s", a)
	}
}

func TestNodeCanBeIn(t *testing.T) {
	for dir, want := range map[string]bool{
		"/run":             false,
		"/run/user/0/node": false,
		"/var/run/node":    false,
		"/runs/node":       true,
		"/var/lib/node":    true,
	} {
		if got := nodeCanBeIn(dir); got != want {
			t.Errorf("%s: got %t, want %t", dir, got, want)
		}
	}
}

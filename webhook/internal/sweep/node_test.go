// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubelettls"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// ready returns a Node that is ready, with addresses "type=address".
func ready(addresses ...string) *corev1.Node {
	n := &corev1.Node{}
	n.Name, n.UID = "worker-1", "uid-1"
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for _, a := range addresses {
		kind, value, _ := strings.Cut(a, "=")
		a := corev1.NodeAddress{Type: corev1.NodeAddressType(kind), Address: value}
		n.Status.Addresses = append(n.Status.Addresses, a)
	}
	return n
}

func TestNewNode(t *testing.T) {
	const internal, host = "InternalIP=192.0.2.7", "Hostname=worker-1"
	many := func(n int) (all []string) {
		for range n {
			all = append(all, internal)
		}
		return all
	}
	with := func(change func(n *corev1.Node)) *corev1.Node {
		n := ready(internal)
		change(n)
		return n
	}
	port := func(p int32) *corev1.Node {
		return with(func(n *corev1.Node) { n.Status.DaemonEndpoints.KubeletEndpoint.Port = p })
	}
	cases := map[string]struct {
		node  *corev1.Node
		types []string
		want  Node // without name and UID
	}{
		"InternalIP":            {node: ready(host, internal), want: Node{Host: "192.0.2.7", Port: 10250}},
		"in the order of types": {ready(host, internal), []string{"Hostname", "InternalIP"}, Node{Host: "worker-1", Port: 10250}},
		"no types configured: Hostname first": {
			ready(internal, "InternalDNS=worker-1.internal", host), kubeapiserver.DefaultKubeletAddressTypes(),
			Node{Host: "worker-1", Port: 10250},
		},
		"no types configured, no Hostname": {
			ready("ExternalIP=198.51.100.7", internal, "InternalDNS=worker-1.internal"),
			kubeapiserver.DefaultKubeletAddressTypes(), Node{Host: "worker-1.internal", Port: 10250},
		},
		"no types configured, addresses only": {
			ready("ExternalIP=198.51.100.7", internal), kubeapiserver.DefaultKubeletAddressTypes(),
			Node{Host: "192.0.2.7", Port: 10250},
		},
		"no types configured, external ones only": {
			ready("ExternalIP=198.51.100.7", "ExternalDNS=worker-1.example"), kubeapiserver.DefaultKubeletAddressTypes(),
			Node{Host: "worker-1.example", Port: 10250},
		},
		"IPv6": {node: ready("InternalIP=2001:db8::7"), want: Node{Host: "2001:db8::7", Port: 10250}},
		"dual stack, IPv6 first": {
			node: ready("InternalIP=2001:db8::7", internal), want: Node{Host: "2001:db8::7", Port: 10250},
		},
		"another port":     {node: port(10350), want: Node{Host: "192.0.2.7", Port: 10350}},
		"a negative port":  {node: port(-1), want: Node{Host: "192.0.2.7", Port: -1, Problem: "its port is -1"}},
		"too great a port": {node: port(65536), want: Node{Host: "192.0.2.7", Port: 65536, Problem: "its port is 65536"}},
		"no address":       {node: ready(), want: Node{Problem: "the Node has no address"}},
		"32 addresses":     {node: ready(many(32)...), want: Node{Host: "192.0.2.7", Port: 10250}},
		"50 addresses": {
			node: ready(many(50)...), want: Node{Problem: "the Node has 50 addresses, and at most 32 are considered"},
		},
		"no address of the type": {
			ready(host), []string{"InternalIP"}, Node{Problem: "the Node has no address of the types InternalIP"},
		},
		"not an address": {
			node: ready("InternalIP=http://192.0.2.7/MARKER"),
			want: Node{Problem: "the Node's InternalIP is neither an IP address nor a DNS name"},
		},
		"an empty address": {
			node: ready("InternalIP="), want: Node{Problem: "the Node's InternalIP is neither an IP address nor a DNS name"},
		},
		"too long a name": {
			ready("Hostname=" + strings.Repeat("a", 254)), []string{"Hostname"},
			Node{Problem: "the Node's Hostname is neither an IP address nor a DNS name"},
		},
		"not ready": {
			node: with(func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }),
			want: Node{Host: "192.0.2.7", Port: 10250, Excuse: "the Node is not ready"},
		},
		"no condition": {
			node: with(func(n *corev1.Node) { n.Status.Conditions = nil }),
			want: Node{Host: "192.0.2.7", Port: 10250, Excuse: "the Node is not ready"},
		},
		"drained": {
			node: with(func(n *corev1.Node) { n.Spec.Unschedulable = true }),
			want: Node{Host: "192.0.2.7", Port: 10250, Excuse: "the Node is unschedulable, as while it is drained"},
		},
		"virtual": {
			node: with(func(n *corev1.Node) { n.Labels = map[string]string{"type": "virtual-kubelet"} }),
			want: Node{Host: "192.0.2.7", Port: 10250, Excuse: "the Node is virtual"},
		},
		"being deleted": {
			node: with(func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{} }),
			want: Node{Host: "192.0.2.7", Port: 10250, Excuse: "the Node is being deleted"},
		},
		"Windows": {
			node: with(func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelOSStable: "windows"} }),
			want: Node{Host: "192.0.2.7", Port: 10250},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			types := c.types
			if types == nil {
				types = commonAddressTypes()
			}
			c.want.Name, c.want.UID = "worker-1", "uid-1"
			if d := cmp.Diff(c.want, NewNode(c.node, types)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestRefuse: in each refused range an address is refused, in every way to write it, and others are not.
func TestRefuse(t *testing.T) {
	services := []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("fd02::/112")}
	const metadata = "the metadata service of a cloud"
	for address, want := range map[string]string{
		"2001:1::7": "", "2003::7": "", "64:ff9b:2::7": "", "fe00::7": "",
		"192.0.2.7": "", "10.0.0.1": "", "2001:db8::7": "", "fd00::7": "", "100.64.0.1": "", "::ffff:192.0.2.7": "",
		"172.31.0.1": "", "192.0.0.193": "", "fd20:ce::253": "", "64:ff9b::c000:207": "",

		"127.0.0.1": "loopback", "127.255.1.2": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"64:ff9b::7f00:1": "loopback",
		"0.0.0.0":         "unspecified", "::": "unspecified", "::ffff:0.0.0.0": "unspecified", "0.1.2.3": "this network",
		"169.254.169.254": "link-local", "::ffff:169.254.169.254": "link-local", "fe80::1": "link-local",
		"fe80::1%eth0": "link-local", "64:ff9b::a9fe:a9fe": "link-local",
		"224.0.0.1": "multicast", "ff02::1": "multicast", "ff0e::1%eth0": "multicast", "255.255.255.255": "broadcast",
		"172.30.0.1": "Services of the cluster", "::ffff:172.30.255.255": "Services of the cluster",
		"fd02::1":         "Services of the cluster",
		"100.100.100.200": metadata, "::ffff:100.100.100.200": metadata, "192.0.0.192": metadata,
		"fd00:ec2::254": metadata, "fd00:ec2::23": metadata, "fd20:ce::254": metadata, "fd00:c1::a9fe:a9fe": metadata,
		"2002:a9fe:a9fe::1": "6to4", "2002:7f00:1::": "6to4", "64:ff9b:1::a9fe:a9fe": "local NAT64",
		"64:ff9b:1:ffff::1": "local NAT64", "::7f00:1": "IPv4-compatible", "::a9fe:a9fe": "IPv4-compatible",
		"::ffff:0:169.254.169.254": "IPv4-translated", "2001:0:a9fe:a9fe::1": "Teredo", "fec0::1": "site-local",
		"feff::1%eth0":  "site-local",
		"168.63.129.16": metadata, "fd00:42::42": metadata, "64:ff9b::6464:64c8": metadata,
	} {
		got := Refuse(netip.MustParseAddr(address), services)
		if refused := got != ""; refused != (want != "") || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	if Refuse(netip.Addr{}, nil) == "" {
		t.Error("the zero address is not refused")
	}
}

// TestControlOf: what is not an IP address is refused.
func TestControlOf(t *testing.T) {
	control := controlOf(func(address netip.Addr) string { return Refuse(address, nil) })
	for address, refused := range map[string]bool{
		"192.0.2.7:10250": false, "[2001:db8::7]:10250": false, "127.0.0.1:10250": true, "[::1]:10250": true,
		"[::ffff:127.0.0.1]:10250": true, "[fe80::1%eth0]:10250": true, "name:10250": true, "": true,
	} {
		err := control("tcp", address, nil)
		if _, ok := errors.AsType[*kubelettls.RefusedError](err); ok != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}

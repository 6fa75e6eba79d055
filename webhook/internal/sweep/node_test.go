// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// TestRefuse: a refused address is named in plain form, and others are not refused.
func TestRefuse(t *testing.T) {
	services := []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16")}
	for address, want := range map[string]string{
		"192.0.2.7":        "",
		"::ffff:127.0.0.1": "its address 127.0.0.1 is in a range in which no kubelet is: loopback",
		"172.30.0.1":       "its address 172.30.0.1 is in a range in which no kubelet is: Services of the cluster",
	} {
		if got := Refuse(netip.MustParseAddr(address), services); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	if got := Refuse(netip.Addr{}, nil); got != "the address is not valid" {
		t.Errorf("the zero address: %q", got)
	}
}

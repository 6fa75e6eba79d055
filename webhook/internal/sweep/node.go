// SPDX-License-Identifier: Apache-2.0

// Package sweep asks the kubelets of all Nodes for a TLS handshake, from the control plane, and checks the answers. It
// uses no private key, and sends and reads nothing else.
//
// Anyone who can write the status of a Node chooses the address that is dialed. So the address is checked at dial time,
// after name resolution, and no message quotes a text that the peer sent.
package sweep

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubelettls"
)

const (
	// maxAddresses bounds how many addresses of a Node are considered. A Node has two to ten.
	maxAddresses = 32
	// maxHost is the greatest length of a DNS name, in bytes (RFC 1035 2.3.4).
	maxHost = 253
)

// Node is what is needed of a Node. It is small: there may be thousands.
type Node struct {
	Name, UID string
	// Host is the address that the kube-apiserver connects to, an IP address or a DNS name, and Port the kubelet's port.
	Host string
	Port int
	// Problem says why the address cannot be used. It is empty if it can.
	Problem string
	// Excuse says why the kubelet may be unreachable. It is empty if it should be reachable.
	Excuse string
}

// NewNode returns what is needed of a Node. types are the kube-apiserver's kubelet-preferred-address-types.
func NewNode(n *corev1.Node, types []string) Node {
	node := Node{Name: n.Name, UID: string(n.UID), Excuse: excuse(n)}
	node.Host, node.Problem = address(n.Status.Addresses, types)
	if node.Problem != "" {
		return node
	}
	// The kube-apiserver takes its --kubelet-port, 10250 by default, if the Node has no port (Kubernetes
	// pkg/kubelet/client/kubelet_client.go, NodeConnectionInfoGetter).
	node.Port = int(n.Status.DaemonEndpoints.KubeletEndpoint.Port)
	switch {
	case node.Port == 0:
		node.Port = kubelettls.Port
	case node.Port < 0 || node.Port > 1<<16-1:
		node.Problem = "its port is " + strconv.Itoa(node.Port)
	}
	return node
}

// address returns the address that the kube-apiserver connects to: the first one of the first preferred type that the
// Node has (Kubernetes pkg/util/node, GetPreferredNodeAddress). problem says why it cannot be used.
func address(addresses []corev1.NodeAddress, types []string) (host, problem string) {
	switch n := len(addresses); {
	case n == 0:
		return "", "the Node has no address"
	case n > maxAddresses:
		return "", fmt.Sprintf("the Node has %d addresses, and at most %d are considered", n, maxAddresses)
	}
	for _, preferred := range types {
		i := slices.IndexFunc(addresses, func(a corev1.NodeAddress) bool { return string(a.Type) == preferred })
		if i < 0 {
			continue
		}
		host := addresses[i].Address
		if _, err := netip.ParseAddr(host); err != nil && !isName(host) {
			return "", "the Node's " + preferred + " is neither an IP address nor a DNS name"
		}
		return host, ""
	}
	return "", "the Node has no address of the types " + strings.Join(types, ", ")
}

// isName reports whether the text can be a DNS name.
func isName(host string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
	return host != "" && len(host) <= maxHost && strings.Trim(host, allowed) == ""
}

// excuse returns why the kubelet of a Node may be unreachable, the most specific reason first.
func excuse(n *corev1.Node) string {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	switch {
	case n.DeletionTimestamp != nil:
		return "the Node is being deleted"
	case n.Labels["type"] == "virtual-kubelet": // virtual-kubelet node/nodeutil sets it; there is no kubelet
		return "the Node is virtual"
	case !ready:
		return "the Node is not ready"
	case n.Spec.Unschedulable:
		return "the Node is unschedulable, as while it is drained"
	}
	return ""
}

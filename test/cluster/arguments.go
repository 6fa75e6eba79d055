// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"strconv"
)

const (
	loopback     = "127.0.0.1"
	serviceRange = "10.96.0.0/16"

	// etcdQuota is far more than tests store and far less than etcd's 2 GiB.
	etcdQuota = 256 << 20 // bytes
)

// auditPolicy is Metadata for everything: that has the annotations of admission,
// which tests read, and no bodies. Without RequestReceived there is one entry a
// request, and the entry is written before the client has its answer.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// address is a port of this machine's loopback.
func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// etcdArguments: plain HTTP, on loopback only. Whoever has an account on this
// machine can read and change what a test cluster stores.
func etcdArguments(f folder, port int) []string {
	client := "http://" + address(port)
	// A single member talks to no peer, yet etcd insists on a peer listener;
	// port 0 cannot collide.
	peer := "http://" + address(0)
	return []string{
		"--data-dir=" + f.etcdData(),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		// The data need not survive a crash of the machine.
		"--unsafe-no-fsync",
		fmt.Sprintf("--quota-backend-bytes=%d", etcdQuota),
		// A single member becomes leader when its election times out: with the
		// default of 1000 ms that is most of etcd's start.
		"--heartbeat-interval=20",
		"--election-timeout=200",
	}
}

// apiServerArguments of a control plane without a node: it serves this machine
// only.
func apiServerArguments(f folder, port, etcdPort int) []string {
	return append(commonAPIServerArguments(f, port, etcdPort),
		"--bind-address="+loopback,
		// Left alone, kube-apiserver looks for an address of the machine that
		// is not loopback and makes it an endpoint of Service kubernetes. A
		// loopback address is no valid endpoint, so there is none.
		"--advertise-address="+loopback,
		"--endpoint-reconciler-type=none",
	)
}

func commonAPIServerArguments(f folder, port, etcdPort int) []string {
	return []string{
		fmt.Sprintf("--etcd-servers=http://%s:%d", loopback, etcdPort),

		fmt.Sprintf("--secure-port=%d", port),
		"--cert-dir=" + f.pki(), // or it wants to write to /var/run
		"--tls-cert-file=" + f.certificate(servingName),
		"--tls-private-key-file=" + f.privateKey(servingName),

		"--service-cluster-ip-range=" + serviceRange,

		"--authorization-mode=RBAC,Node",
		"--token-auth-file=" + f.tokens(),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + f.serviceAccountPublicKey(),
		"--service-account-signing-key-file=" + f.serviceAccountKey(),
		"--allow-privileged=true",

		// To kubelets it talks as the control that this project guards demands:
		// with a client certificate, and only to those of its own authority.
		"--kubelet-client-certificate=" + f.certificate(kubeletClientName),
		"--kubelet-client-key=" + f.privateKey(kubeletClientName),
		"--kubelet-certificate-authority=" + f.certificate(authorityName),
		"--kubelet-preferred-address-types=InternalIP",

		"--audit-log-path=" + f.auditLog(),
		"--audit-policy-file=" + f.auditPolicy(),

		// Without it an open watch holds up the end for a whole minute.
		"--shutdown-watch-termination-grace-period=1s",
	}
}

// tokenFile makes the bearer of the token an administrator who may do anything,
// impersonation included.
func tokenFile(token string) string {
	return token + `,cluster-admin,cluster-admin,"system:masters"` + "\n"
}

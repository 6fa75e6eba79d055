// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

const (
	loopback     = "127.0.0.1"
	serviceRange = "10.96.0.0/16"

	// etcdQuota is far more than tests store and far less than etcd's default of 2 GiB.
	etcdQuota = 256 << 20 // bytes
)

// auditPolicy logs everything at level Metadata: this includes the admission
// annotations, which tests read, but no bodies. Without RequestReceived there is one
// entry for each request, which is written before the client gets its response.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// address is a port on the loopback address.
func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// etcdArguments: plain HTTP, on loopback only. Every user of this machine can read and
// change the data of a test cluster.
func etcdArguments(f clusterDirectory, port int) []string {
	client := "http://" + address(port)
	// A single member has no peers, but etcd requires a peer listener; port 0 cannot
	// collide.
	peer := "http://" + address(0)
	return []string{
		"--data-dir=" + f.etcdData(),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		// The data does not need to survive a crash of the machine.
		"--unsafe-no-fsync",
		fmt.Sprintf("--quota-backend-bytes=%d", etcdQuota),
		// A single member becomes the leader after the election timeout. The default of
		// 1000 ms would be most of etcd's start.
		"--heartbeat-interval=20",
		"--election-timeout=200",
	}
}

// apiServerArguments are the arguments for a control plane without a node. It serves
// this machine only.
func apiServerArguments(f clusterDirectory, port, etcdPort int) []string {
	return append(commonAPIServerArguments(f, port, etcdPort),
		"--bind-address="+loopback,
		// By default, kube-apiserver publishes a non-loopback address of the machine as
		// the endpoint of Service kubernetes. A loopback address is not a valid
		// endpoint, so no endpoint is published.
		"--advertise-address="+loopback,
		"--endpoint-reconciler-type=none",
	)
}

func commonAPIServerArguments(f clusterDirectory, port, etcdPort int) []string {
	return []string{
		fmt.Sprintf("--etcd-servers=http://%s:%d", loopback, etcdPort),

		fmt.Sprintf("--secure-port=%d", port),
		"--cert-dir=" + f.pki(), // the default is in /var/run
		"--tls-cert-file=" + f.certificate(servingName),
		"--tls-private-key-file=" + f.privateKey(servingName),

		"--service-cluster-ip-range=" + serviceRange,

		"--authorization-mode=RBAC,Node",
		"--token-auth-file=" + f.tokens(),
		"--client-ca-file=" + f.certificate(authorityName),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + f.serviceAccountPublicKey(),
		"--service-account-signing-key-file=" + f.serviceAccountKey(),
		"--allow-privileged=true",

		// It connects to kubelets as the control requires: with a client certificate, and
		// only to kubelets whose certificate its CA has signed.
		"--kubelet-client-certificate=" + f.certificate(kubeletClientName),
		"--kubelet-client-key=" + f.privateKey(kubeletClientName),
		"--kubelet-certificate-authority=" + f.certificate(authorityName),
		"--kubelet-preferred-address-types=InternalIP",

		"--audit-log-path=" + f.auditLog(),
		"--audit-policy-file=" + f.auditPolicy(),

		// Without this, an open watch delays the shutdown by a minute.
		"--shutdown-watch-termination-grace-period=1s",
	}
}

// tokenFile gives the token all permissions, including impersonation.
func tokenFile(token string) string {
	return token + `,cluster-admin,cluster-admin,"system:masters"` + "\n"
}

// administrator returns the token in such a file.
func administrator(file string) string {
	token, _, _ := strings.Cut(file, ",")
	return token
}

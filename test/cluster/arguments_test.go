// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"
)

func TestEtcdArguments(t *testing.T) {
	want := []string{
		"--data-dir=/d/etcd",
		"--listen-client-urls=http://127.0.0.1:23",
		"--advertise-client-urls=http://127.0.0.1:23",
		"--listen-peer-urls=http://127.0.0.1:0",
		"--initial-advertise-peer-urls=http://127.0.0.1:0",
		"--initial-cluster=default=http://127.0.0.1:0",
		"--unsafe-no-fsync",
		"--quota-backend-bytes=268435456",
		"--heartbeat-interval=20",
		"--election-timeout=200",
	}
	if got := etcdArguments("/d", 23); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestAPIServerArguments(t *testing.T) {
	want := []string{
		"--etcd-servers=http://127.0.0.1:23",
		"--secure-port=64",
		"--cert-dir=/d/pki",
		"--tls-cert-file=/d/pki/apiserver.crt",
		"--tls-private-key-file=/d/pki/apiserver.key",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC,Node",
		"--token-auth-file=/d/tokens.csv",
		"--client-ca-file=/d/pki/ca.crt",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=/d/pki/service-account.pub",
		"--service-account-signing-key-file=/d/pki/service-account.key",
		"--allow-privileged=true",
		"--kubelet-client-certificate=/d/pki/kubelet-client.crt",
		"--kubelet-client-key=/d/pki/kubelet-client.key",
		"--kubelet-certificate-authority=/d/pki/ca.crt",
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-log-path=/d/audit.log",
		"--audit-policy-file=/d/audit-policy.yaml",
		"--shutdown-watch-termination-grace-period=1s",
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
	}
	if got := apiServerArguments("/d", 64, 23); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestJoiningArguments(t *testing.T) {
	got := joiningArguments("/d", 64, 23, "/d/other.log", []string{"--etcd-prefix=/other"})
	want := append(apiServerArguments("/d", 64, 23), "--audit-log-path=/d/other.log", "--etcd-prefix=/other")
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTokenFile(t *testing.T) {
	got, err := csv.NewReader(strings.NewReader(tokenFile("secret"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	// Token, user name, user ID, groups.
	want := []string{"secret", "cluster-admin", "cluster-admin", "system:masters"}
	if len(got) != 1 || !slices.Equal(got[0], want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if token := administrator(tokenFile("secret")); token != "secret" {
		t.Errorf("read again it is %q", token)
	}
}

func TestKubeconfig(t *testing.T) {
	const want = `apiVersion: v1
kind: Config
clusters:
- name: kubelet-https-guard
  cluster:
    server: https://127.0.0.1:64
    certificate-authority-data: UEVN
users:
- name: cluster-admin
  user:
    token: secret
contexts:
- name: kubelet-https-guard
  context:
    cluster: kubelet-https-guard
    user: cluster-admin
current-context: kubelet-https-guard
`
	if got := kubeconfig("https://127.0.0.1:64", []byte("PEM"), "secret"); got != want {
		t.Errorf("got:\n%s", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

const (
	// AgentPod is the Pod of [Rig.MakeAgentPod].
	AgentPod = guardNamespace + "/nodeagent-0"
	// agentAccount, auditAccount and webhookAccount are the ServiceAccounts of the programs.
	agentAccount, auditAccount = guardNamespace + "-nodeagent", guardNamespace + "-audit"
	webhookAccount             = guardNamespace + "-webhook"
	// kubeAPIServer is the user that a kubelet authorizes to read logs.
	kubeAPIServer = "system:kube-apiserver"
	// headerTime bounds how long a client of a stand-in may take for its request.
	headerTime = 10 * time.Second
)

// Kubelet is a stand-in for a kubelet. It requests a client certificate, and serves logs to the kube-apiserver only,
// with the answers of a kubelet to others. Unlike a kubelet it closes each connection after one answer, so that each
// request needs a new handshake: a kube-apiserver keeps a connection for 90 s. It runs no Pods.
type Kubelet struct {
	// Address is where it listens.
	Address netip.AddrPort

	server  *http.Server
	clients atomic.Pointer[x509.CertPool]
}

// StartKubelet starts a stand-in for the kubelet of a node on a free port of an address of this machine. serving signs
// its certificate, and it accepts client certificates that clients signs. The caller must stop it.
func StartKubelet(
	ctx context.Context, node string, address netip.Addr, serving, clients *pkitest.CA,
) (*Kubelet, error) {
	now := time.Now()
	pair := serving.Issue(pkitest.Request{
		CommonName: "system:node:" + node, Organization: "system:nodes", DNSNames: []string{node},
		IPs: []net.IP{address.AsSlice()}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("load the certificate of the kubelet of %s: %w", node, err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		return nil, fmt.Errorf("start a kubelet for %s: %w", node, err)
	}
	listening, _ := listener.Addr().(*net.TCPAddr) // a TCP listener has no other
	k := &Kubelet{Address: netip.AddrPortFrom(address, listening.AddrPort().Port())}
	k.TrustClientsOf(clients)
	k.server = &http.Server{
		Handler: http.HandlerFunc(k.answer), ReadHeaderTimeout: headerTime,
		ErrorLog: log.New(io.Discard, "", 0), // the guard's handshakes end without a request
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return &tls.Config{
					Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, ClientCAs: k.clients.Load(),
					MinVersion: tls.VersionTLS12,
				}, nil
			},
		},
	}
	k.server.SetKeepAlivesEnabled(false)
	go func() { _ = k.server.ServeTLS(listener, "", "") }() // until Stop
	return k, nil
}

// TrustClientsOf makes the kubelet accept client certificates that this CA signed, and no others.
func (k *Kubelet) TrustClientsOf(ca *pkitest.CA) {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	k.clients.Store(pool)
}

// Stop closes the listener and all connections.
func (k *Kubelet) Stop() { _ = k.server.Close() }

// answer answers as a kubelet does (Kubernetes pkg/kubelet/server, InstallAuthFilter): 401 to a client whose
// certificate it cannot verify, 403 to one that may not read logs.
func (k *Kubelet) answer(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	client := r.TLS.PeerCertificates[0]
	if _, err := client.Verify(x509.VerifyOptions{
		Roots: k.clients.Load(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	if user := client.Subject.CommonName; user != kubeAPIServer {
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=get, resource=nodes, subresource(s)=[proxy])", user),
			http.StatusForbidden)
		return
	}
	_, _ = io.WriteString(w, "a line of the log\n") // the client may be gone
}

// OwnAddress is an IPv4 address of this machine other than a loopback address, to which the audit does not connect. ok
// is false if the machine has no other.
func OwnAddress() (address netip.Addr, ok bool) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, each := range interfaces {
		if each.Flags&net.FlagUp == 0 || each.Flags&net.FlagLoopback != 0 {
			continue
		}
		addresses, err := each.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
				return prefix.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// ClusterCA is the CA of the control plane. The kube-apiserver verifies kubelets with it. It also signed the
// kube-apiserver's client certificate.
func (r *Rig) ClusterCA() (*pkitest.CA, error) {
	certificate, err := os.ReadFile(r.Path("cluster", "pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(r.Path("cluster", "pki", "ca.key"))
	if err != nil {
		return nil, err
	}
	return pkitest.LoadCA(certificate, key)
}

// UseClientPair makes the kube-apiserver use the client certificate and key at these paths for its next connection to a
// kubelet, whatever they are then.
func (r *Rig) UseClientPair(certificate, key string) error {
	for name, path := range map[string]string{"kubelet-client.crt": certificate, "kubelet-client.key": key} {
		link := r.Path("cluster", "pki", name)
		if err := errors.Join(os.Remove(link), os.Symlink(path, link)); err != nil {
			return fmt.Errorf("link the kube-apiserver's client certificate and key: %w", err)
		}
	}
	return nil
}

// AnnounceKubelet makes this the kubelet of a Node, and creates the Node if it does not exist.
func (r *Rig) AnnounceKubelet(ctx context.Context, node string, kubelet netip.AddrPort) error {
	object := corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: node},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: kubelet.Addr().String()}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{
				KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(kubelet.Port())},
			},
		},
	}
	status, err := json.Marshal(map[string]any{"status": object.Status})
	if err != nil {
		return fmt.Errorf("announce the kubelet of Node %s: %w", node, err)
	}
	patched := r.KubectlCommand(ctx, "patch", "node", node, "--subresource=status", "--patch", string(status))
	if patched.Code == 0 {
		return nil
	}
	manifest, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("announce the kubelet of Node %s: %w", node, err)
	}
	if created := r.KubectlInput(ctx, string(manifest), "create", "-f", "-"); created.Code != 0 {
		return fmt.Errorf("announce the kubelet of Node %s: %s, and %s", node, patched.Output, created.Output)
	}
	return nil
}

// MakeAgentPod makes the Pod [AgentPod] on a node, as an object only. The agent of the rig runs outside of it, and asks
// for its log.
func (r *Rig) MakeAgentPod(ctx context.Context, node string) error {
	namespace, name, _ := strings.Cut(AgentPod, "/")
	pod, err := json.Marshal(corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: agentAccount,
			Containers: []corev1.Container{{Name: "nodeagent", Image: "none"}},
		},
	})
	if err != nil {
		return fmt.Errorf("make Pod %s: %w", AgentPod, err)
	}
	if made := r.KubectlInput(ctx, string(pod), "create", "-f", "-"); made.Code != 0 {
		return fmt.Errorf("make Pod %s: %s", AgentPod, made.Output)
	}
	return nil
}

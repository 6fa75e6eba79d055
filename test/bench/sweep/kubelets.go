// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// port is the port of the kubelets.
const port = 10250

// kubelets are simulated kubelets, one at each address. Some of them hang: they accept a connection and say nothing.
type kubelets struct {
	listener net.Listener
	ca       *pkitest.CA
	count    int
	hanging  map[string]bool
	configs  map[string]*tls.Config
	served   sync.WaitGroup

	mu          sync.Mutex
	first, last time.Time // the first connection, and the end of the last handshake
}

func newKubelets(count, hanging int) (*kubelets, error) {
	now := time.Now()
	k := &kubelets{
		ca: pkitest.NewCAAround("kubelet-signer", now), count: count, hanging: map[string]bool{},
		configs: map[string]*tls.Config{},
	}
	clients := x509.NewCertPool()
	for i := range 3 {
		clients.AddCert(pkitest.NewCAAround(fmt.Sprintf("client-signer@%d", i), now).Certificate)
	}
	for i := range count {
		address := addressOf(i).String()
		if hanging > 0 && i%(count/hanging) == 0 {
			k.hanging[address] = true
			continue
		}
		pair := k.ca.Issue(pkitest.Request{
			CommonName: "system:node:" + nameOf(i), Organization: "system:nodes", DNSNames: []string{nameOf(i)},
			IPs: []net.IP{net.ParseIP(address)}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
		certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			return nil, err
		}
		k.configs[address] = &tls.Config{
			Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, ClientCAs: clients,
			MinVersion: tls.VersionTLS12,
		}
	}
	var err error
	if k.listener, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: port}); err != nil {
		return nil, err
	}
	k.served.Go(k.serve)
	return k, nil
}

func nameOf(i int) string { return fmt.Sprintf("worker-%04d", i) }

func (k *kubelets) serve() {
	for {
		connection, err := k.listener.Accept()
		if err != nil {
			return
		}
		k.served.Go(func() {
			defer func() { _ = connection.Close() }()
			k.answer(connection)
		})
	}
}

func (k *kubelets) answer(connection net.Conn) {
	began := time.Now()
	address, _, _ := net.SplitHostPort(connection.LocalAddr().String())
	if k.hanging[address] {
		_, _ = io.Copy(io.Discard, connection) // until the client gives up
		return
	}
	server := tls.Server(connection, k.configs[address])
	if server.Handshake() != nil { //nolint:noctx // it ends with the client
		return
	}
	k.mu.Lock()
	if k.first.IsZero() {
		k.first = began
	}
	k.last = time.Now()
	k.mu.Unlock()
	_, _ = server.Read(make([]byte, 1)) // until the client closes
}

// others is the time from the first handshake to the end of the last one, of kubelets that do not hang.
func (k *kubelets) others() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last.Sub(k.first)
}

func (k *kubelets) close() {
	_ = k.listener.Close()
	k.served.Wait()
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// servers are what an agent connects to: an API server that accepts all Events, and a kubelet.
type servers struct {
	kubeconfig, kubelet string
	close               func()
}

func newServers(dir string, host *rotation.Host) (*servers, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/nodes/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":%q,"uid":"4b8c"}}`,
			r.PathValue("name"))
	})
	mux.HandleFunc("POST /apis/events.k8s.io/v1/namespaces/default/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, r.Body)
	})
	api := httptest.NewTLSServer(mux)

	now := time.Now()
	serving := host.CA.Issue(pkitest.Request{
		CommonName: "system:node:master-0", Organization: "system:nodes", IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	pair, err := tls.X509KeyPair(serving.Certificate, serving.Key)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AddCert(host.CA.Certificate)
	kubelet := httptest.NewUnstartedServer(http.NotFoundHandler())
	kubelet.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, ClientCAs: clients,
		MinVersion: tls.VersionTLS12,
	}
	kubelet.StartTLS()

	s := &servers{
		kubeconfig: filepath.Join(dir, "kubeconfig"), kubelet: kubelet.Listener.Addr().String(),
		close: func() {
			api.Close()
			kubelet.Close()
		},
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	return s, os.WriteFile(s.kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: bench, user: {token: none}}]
`, api.URL, base64.StdEncoding.EncodeToString(ca)), 0o600)
}

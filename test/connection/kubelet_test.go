// SPDX-License-Identifier: Apache-2.0

package connection_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// kubelet is the kubelet of the node. It has a client CA bundle and a serving pair of its own, which it loads again
// without a restart.
type kubelet struct {
	config                     string // its configuration file
	good                       []byte // the configuration that it starts with
	clientCA, certificate, key string
	log                        string
	mu                         sync.Mutex
	clients                    []*pkitest.CA
}

// newKubelet gives the kubelet its files, and so restarts it.
func newKubelet(s suite) (*kubelet, error) {
	k := &kubelet{
		config: s.rig.Path("cluster", "kubelet.yaml"), clientCA: s.rig.Path("cluster", "kubelet-client-ca.crt"),
		certificate: s.rig.Path("cluster", "kubelet-serving.crt"), key: s.rig.Path("cluster", "kubelet-serving.key"),
		log: s.rig.Path("cluster", "kubelet.log"),
	}
	if err := k.accept(s.ca); err != nil {
		return nil, err
	}
	if err := k.serve(s.ca, servingRequest()); err != nil {
		return nil, err
	}
	var err error
	if k.good, err = os.ReadFile(k.config); err != nil {
		return nil, err
	}
	err = k.configure(func(config map[string]any) {
		config["authentication"] = map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": k.clientCA},
		}
		config["tlsCertFile"], config["tlsPrivateKeyFile"] = k.certificate, k.key
	})
	if err != nil {
		return nil, err
	}
	k.good, err = os.ReadFile(k.config)
	return k, err
}

// servingRequest is a serving certificate as kubelets have it.
func servingRequest() pkitest.Request {
	now := time.Now()
	return pkitest.Request{
		CommonName: "system:node:" + rig.RealNode, Organization: "system:nodes", DNSNames: []string{rig.RealNode},
		IPs: []net.IP{net.ParseIP(nodeAddress)}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30))
}

// accept makes the kubelet accept client certificates of one more CA.
func (k *kubelet) accept(ca *pkitest.CA) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clients = append(k.clients, ca)
	return replaceFile(k.clientCA, bundle(k.clients...))
}

// refuse makes the kubelet refuse client certificates of a CA.
func (k *kubelet) refuse(ca *pkitest.CA) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var left []*pkitest.CA
	for _, other := range k.clients {
		if other != ca {
			left = append(left, other)
		}
	}
	k.clients = left
	return replaceFile(k.clientCA, bundle(k.clients...))
}

func bundle(cas ...*pkitest.CA) []byte {
	var all []byte
	for _, ca := range cas {
		all = append(all, ca.PEM()...)
	}
	return all
}

// serve gives the kubelet another serving pair.
func (k *kubelet) serve(ca *pkitest.CA, request pkitest.Request) error {
	pair := ca.Issue(request)
	if err := replaceFile(k.key, pair.Key); err != nil {
		return err
	}
	return replaceFile(k.certificate, pair.Certificate)
}

// configure changes the kubelet's configuration, from the one that it starts with. So it restarts.
func (k *kubelet) configure(change func(map[string]any)) error {
	config := map[string]any{}
	if err := yaml.Unmarshal(k.good, &config); err != nil {
		return err
	}
	change(config)
	data, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return replaceFile(k.config, data)
}

// stop stops the kubelet: it does not start with this configuration. start starts it again.
func (k *kubelet) stop() error  { return replaceFile(k.config, []byte("kind: Nothing\n")) }
func (k *kubelet) start() error { return replaceFile(k.config, k.good) }

// signal sends a signal to the kubelet's process.
func (k *kubelet) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pids {
		arguments, err := os.ReadFile(filepath.Join(path, "cmdline"))
		if err != nil || !strings.Contains(string(arguments), "--config="+k.config+"\x00") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(path), "%d", &pid); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no kubelet runs with the configuration %s", k.config)
}

// namedCAs are the common names of the CAs that the kubelet names in its request for a client certificate.
func (m *member) namedCAs() (names []string) {
	m.Helper()
	connection, err := shared.dial(m.Context(), "tcp", net.JoinHostPort(nodeAddress, "10250"))
	if err != nil {
		m.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	client := tls.Client(connection, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, // only what it requests counts
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			for _, der := range request.AcceptableCAs {
				var name pkix.RDNSequence
				if _, err := asn1.Unmarshal(der, &name); err != nil {
					return nil, err
				}
				var readable pkix.Name
				readable.FillFromRDNSequence(&name)
				names = append(names, readable.CommonName)
			}
			return &tls.Certificate{}, nil
		},
	})
	if err := client.HandshakeContext(m.Context()); err != nil {
		m.Fatal(err)
	}
	return names
}

// runInNode runs a program in the network namespace of the node.
func runInNode(t *testing.T, program string, args ...string) error {
	t.Helper()
	command := shared.command(program, args...)
	if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s in the node: %w: %s", program, err, out)
	}
	return nil
}

// replaceFile replaces a file in one step.
func replaceFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

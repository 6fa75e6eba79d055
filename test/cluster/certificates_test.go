// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

func TestCertificates(t *testing.T) {
	f := clusterDirectory(t.TempDir())
	now := time.Date(2030, time.January, 2, 3, 4, 5, 0, time.UTC)
	if err := writeCertificates(f, now, nodeLeaves()); err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(f.certificate(authorityName))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("the authority has no certificate")
	}

	tests := map[string]struct {
		name  string
		usage x509.ExtKeyUsage
		host  string
		now   time.Time
		valid bool
	}{
		"Serving": {
			name:  servingName,
			usage: x509.ExtKeyUsageServerAuth, host: loopback, now: now, valid: true,
		},
		"ServiceAddress": {
			name:  servingName,
			usage: x509.ExtKeyUsageServerAuth, host: "10.96.0.1", now: now, valid: true,
		},
		"ServiceName": {
			name:  servingName,
			usage: x509.ExtKeyUsageServerAuth, host: "kubernetes.default.svc", now: now, valid: true,
		},
		"NodeAddress": {
			name:  servingName,
			usage: x509.ExtKeyUsageServerAuth, host: nodeAddress, now: now, valid: true,
		},
		"Kubelet": {
			name:  kubeletServingName,
			usage: x509.ExtKeyUsageServerAuth, host: nodeAddress, now: now, valid: true,
		},
		"KubeletOtherHost":   {name: kubeletServingName, usage: x509.ExtKeyUsageServerAuth, host: loopback, now: now},
		"Node":               {name: nodeClientName, usage: x509.ExtKeyUsageClientAuth, now: now, valid: true},
		"OtherHost":          {name: servingName, usage: x509.ExtKeyUsageServerAuth, host: "192.0.2.1", now: now},
		"Client":             {name: kubeletClientName, usage: x509.ExtKeyUsageClientAuth, now: now, valid: true},
		"ClientDoesNotServe": {name: kubeletClientName, usage: x509.ExtKeyUsageServerAuth, now: now},
		"ClockBehind": {
			name:  kubeletClientName,
			usage: x509.ExtKeyUsageClientAuth, now: now.Add(-clockSlack), valid: true,
		},
		"Expired": {
			name:  kubeletClientName,
			usage: x509.ExtKeyUsageClientAuth, now: now.Add(certificateLifetime + time.Second),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pair, err := tls.LoadX509KeyPair(f.certificate(tt.name), f.privateKey(tt.name))
			if err != nil {
				t.Fatal(err)
			}
			_, err = pair.Leaf.Verify(x509.VerifyOptions{
				Roots: roots, CurrentTime: tt.now, DNSName: tt.host, KeyUsages: []x509.ExtKeyUsage{tt.usage},
			})
			if (err == nil) != tt.valid {
				t.Errorf("got %v, want valid: %t", err, tt.valid)
			}
		})
	}

	for name, want := range map[string]string{
		kubeletClientName:     "CN=system:kube-apiserver,O=kube-master",
		nodeClientName:        "CN=system:node:node-0,O=system:nodes",
		controllerManagerName: "CN=system:kube-controller-manager",
		schedulerName:         "CN=system:kube-scheduler",
		proxyName:             "CN=system:kube-proxy",
	} {
		pair, err := tls.LoadX509KeyPair(f.certificate(name), f.privateKey(name))
		if err != nil {
			t.Fatal(err)
		}
		if got := pair.Leaf.Subject.String(); got != want {
			t.Errorf("%s: servers would know it as %s, want %s", name, got, want)
		}
	}
}

// Without a node, the certificate must not contain its address.
func TestControlPlaneDoesNotServeAsNode(t *testing.T) {
	for _, l := range leaves {
		if slices.ContainsFunc(l.ips, net.ParseIP(nodeAddress).Equal) {
			t.Errorf("%s names %s", l.name, nodeAddress)
		}
	}
}

// The serving certificate contains the address of Service kubernetes.
func TestServiceAddress(t *testing.T) {
	_, network, err := net.ParseCIDR(serviceRange)
	if err != nil {
		t.Fatal(err)
	}
	first := slices.Clone(network.IP)
	first[len(first)-1]++
	if !slices.ContainsFunc(leaves[0].ips, first.Equal) {
		t.Errorf("got %s, want %s among them", leaves[0].ips, first)
	}
}

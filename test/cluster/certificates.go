// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"time"
)

const (
	// certificateLifetime is longer than any cluster runs.
	certificateLifetime = 365 * 24 * time.Hour

	// clockSlack is the tolerance for clocks that are behind.
	clockSlack = 5 * time.Minute
)

// Names of the key pairs in pki.
const (
	authorityName     = "ca"
	servingName       = "apiserver"
	kubeletClientName = "kubelet-client"

	// For a node. kubelet-client is for kube-apiserver as the client of the kubelet,
	// node-client is for the kubelet as the client of kube-apiserver.
	kubeletServingName    = "kubelet"
	nodeClientName        = "node-client"
	controllerManagerName = "controller-manager"
	schedulerName         = "scheduler"
	proxyName             = "kube-proxy"
)

// leaf is a certificate that the CA of the cluster signs.
type leaf struct {
	name         string
	commonName   string
	organization []string
	usage        x509.ExtKeyUsage
	dnsNames     []string
	ips          []net.IP
}

// leaves: one CA signs server and client certificates. kube-apiserver also uses it to
// verify kubelets, so a test with ca.key can create an accepted kubelet certificate.
var leaves = []leaf{
	{
		name:       servingName,
		commonName: "kube-apiserver",
		usage:      x509.ExtKeyUsageServerAuth,
		dnsNames:   []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		ips:        []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}, // the second is the first address of serviceRange
	},
	{
		name:         kubeletClientName,
		commonName:   "system:kube-apiserver",
		organization: []string{"kube-master"},
		usage:        x509.ExtKeyUsageClientAuth,
	},
}

// nodeLeaves are the certificates of a cluster with a node.
func nodeLeaves() []leaf {
	node := net.ParseIP(nodeAddress)
	of := slices.Clone(leaves)
	serving := slices.IndexFunc(of, func(l leaf) bool { return l.name == servingName })
	of[serving].ips = append(slices.Clone(of[serving].ips), node)
	client := func(name, commonName string, organization ...string) leaf {
		return leaf{name: name, commonName: commonName, organization: organization, usage: x509.ExtKeyUsageClientAuth}
	}
	return append(of,
		leaf{
			name:         kubeletServingName,
			commonName:   "system:node:" + nodeName,
			organization: []string{"system:nodes"},
			usage:        x509.ExtKeyUsageServerAuth,
			dnsNames:     []string{nodeName},
			ips:          []net.IP{node},
		},
		client(nodeClientName, "system:node:"+nodeName, "system:nodes"),
		client(controllerManagerName, "system:kube-controller-manager"),
		client(schedulerName, "system:kube-scheduler"),
		client(proxyName, "system:kube-proxy"),
	)
}

// writeCertificates writes the files in pki.
func writeCertificates(f clusterDirectory, now time.Time, leaves []leaf) error {
	if err := os.MkdirAll(f.pki(), 0o700); err != nil {
		return err
	}

	authorityKey, err := writeKey(f.privateKey(authorityName))
	if err != nil {
		return err
	}
	authority := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "kubelet-https-guard test cluster"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	authority, err = writeCertificate(f.certificate(authorityName), now, authority, authority, authorityKey.Public(),
		authorityKey)
	if err != nil {
		return err
	}

	for _, l := range leaves {
		key, err := writeKey(f.privateKey(l.name))
		if err != nil {
			return err
		}
		_, err = writeCertificate(f.certificate(l.name), now, &x509.Certificate{
			Subject:     pkix.Name{CommonName: l.commonName, Organization: l.organization},
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{l.usage},
			DNSNames:    l.dnsNames,
			IPAddresses: l.ips,
		}, authority, key.Public(), authorityKey)
		if err != nil {
			return err
		}
	}

	serviceAccountKey, err := writeKey(f.serviceAccountKey())
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(serviceAccountKey.Public())
	if err != nil {
		return err
	}
	return writePEM(f.serviceAccountPublicKey(), "PUBLIC KEY", public)
}

// writeCertificate completes the template, signs it and returns the result.
func writeCertificate(
	path string,
	now time.Time,
	template, parent *x509.Certificate,
	public crypto.PublicKey,
	signer crypto.Signer,
) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = now.Add(-clockSlack)
	template.NotAfter = now.Add(certificateLifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", path, err)
	}
	if err := writePEM(path, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func writeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, blockType string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}), 0o600)
}

// SPDX-License-Identifier: Apache-2.0

// Package pkitest creates certificates for tests: complete PKIs in code, at times that the test
// chooses. It is not part of the product.
package pkitest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Now is the fixed time of tests that do not choose their own.
func Now() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// KeyKind is a kind of private key.
type KeyKind string

// Kinds of keys. ECDSA is the default, because its keys are created fast. Only Go 1.27 can create those of ML-DSA.
const (
	ECDSA   KeyKind = "ECDSA P-256"
	RSA     KeyKind = "RSA 2048"
	RSA1024 KeyKind = "RSA 1024"
	Ed25519 KeyKind = "Ed25519"
	MLDSA44 KeyKind = "ML-DSA-44"
	MLDSA65 KeyKind = "ML-DSA-65"
	MLDSA87 KeyKind = "ML-DSA-87"
)

// Request describes a certificate. The zero value is a leaf without usages or names, valid from an
// hour before [Now] for 30 days.
type Request struct {
	CommonName, Organization string
	DNSNames                 []string
	IPs                      []net.IP
	Usages                   []x509.ExtKeyUsage
	NotBefore, NotAfter      time.Time
	Key                      KeyKind
	// SignWith overrides the signature algorithm.
	SignWith x509.SignatureAlgorithm
}

// KubeletClient is OpenShift's request for the kubelet client certificate
// (cluster-kube-apiserver-operator pkg/operator/certrotationcontroller).
func KubeletClient() Request {
	return Request{
		CommonName: "system:kube-apiserver", Organization: "kube-master",
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// ServingCert is service-ca's request for Secret openshift-apiserver/
// serving-cert.
func ServingCert() Request {
	return Request{
		CommonName: "api.openshift-apiserver.svc",
		DNSNames:   []string{"api.openshift-apiserver.svc", "api.openshift-apiserver.svc.cluster.local"},
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// Valid sets the validity of the certificate.
func (r Request) Valid(notBefore, notAfter time.Time) Request {
	r.NotBefore, r.NotAfter = notBefore, notAfter
	return r
}

// CA signs certificates.
type CA struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// NewCA creates a self-signed CA that is valid for ten years around [Now].
func NewCA(commonName string) *CA { return NewCAAround(commonName, Now()) }

// NewCAAround creates a self-signed CA that is valid for ten years around a time, for tests of
// programs that use the real clock.
func NewCAAround(commonName string, moment time.Time) *CA {
	return newCA(ECDSA, commonName, moment)
}

// NewRSACAAround creates one with an RSA key, as OpenShift does by default.
func NewRSACAAround(commonName string, moment time.Time) *CA {
	return newCA(RSA, commonName, moment)
}

// NewCAOf creates a CA like [NewCAAround] with a key of a kind.
func NewCAOf(kind KeyKind, commonName string, moment time.Time) *CA {
	return newCA(kind, commonName, moment)
}

// NewCAFor creates a CA like [NewCA] with restricted usages.
func NewCAFor(commonName string, uses ...x509.ExtKeyUsage) *CA {
	return newCA(ECDSA, commonName, Now(), uses...)
}

// LoadCA returns the CA with a certificate (PEM) and a key (PEM, PKCS #8).
func LoadCA(certificate, key []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("load a CA: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("load a CA: its key cannot sign")
	}
	return &CA{pair.Leaf, signer}, nil
}

func newCA(kind KeyKind, commonName string, moment time.Time, uses ...x509.ExtKeyUsage) *CA {
	key := newKey(kind)
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: commonName},
		NotBefore: moment.AddDate(-5, 0, 0), NotAfter: moment.AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, ExtKeyUsage: uses,
	}
	return &CA{sign(template, template, key.Public(), key), key}
}

// PEM is the CA's certificate.
func (ca *CA) PEM() []byte { return certificatePEM(ca.Certificate.Raw) }

// CrossSign creates a certificate for another CA's key that this CA signs, such as the bridge
// between two service CAs. It is restricted to usages if there are any.
func (ca *CA) CrossSign(other *CA, uses ...x509.ExtKeyUsage) []byte {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: other.Certificate.Subject, SubjectKeyId: other.Certificate.SubjectKeyId,
		NotBefore: other.Certificate.NotBefore, NotAfter: other.Certificate.NotAfter, ExtKeyUsage: uses,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	return certificatePEM(sign(template, ca.Certificate, other.key.Public(), ca.key).Raw)
}

// Pair is a certificate and its private key.
type Pair struct {
	Leaf *x509.Certificate
	// Certificate and Key are PEM; the key is in PKCS #8 form.
	Certificate, Key []byte
	private          crypto.Signer
}

// Issue creates a certificate with a new key.
func (ca *CA) Issue(r Request) Pair {
	key := newKey(r.Key)
	leaf := sign(r.template(), ca.Certificate, key.Public(), ca.key)
	return Pair{
		Leaf: leaf, Certificate: certificatePEM(leaf.Raw), private: key,
		Key: pem.EncodeToMemory(&pem.Block{
			Type:  "PRIVATE KEY",
			Bytes: unenforced(func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) }),
		}),
	}
}

// IssueKey creates a certificate (PEM) as requested for a public key.
func (ca *CA) IssueKey(r Request, public crypto.PublicKey) []byte {
	return certificatePEM(sign(r.template(), ca.Certificate, public, ca.key).Raw)
}

func (r Request) template() *x509.Certificate {
	if r.NotBefore.IsZero() {
		r.NotBefore, r.NotAfter = Now().Add(-time.Hour), Now().Add(30*24*time.Hour-time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: r.CommonName},
		NotBefore: r.NotBefore, NotAfter: r.NotAfter, DNSNames: r.DNSNames, IPAddresses: r.IPs,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: r.Usages, BasicConstraintsValid: true,
		SignatureAlgorithm: r.SignWith,
	}
	if r.Organization != "" {
		template.Subject.Organization = []string{r.Organization}
	}
	return template
}

// IssueFor creates a certificate (PEM) for a public key. The private key may not exist.
func (ca *CA) IssueFor(public crypto.PublicKey) []byte {
	template := &x509.Certificate{
		SerialNumber: serial(),
		NotBefore:    Now().Add(-time.Hour),
		NotAfter:     Now().AddDate(1, 0, 0),
	}
	return certificatePEM(sign(template, ca.Certificate, public, ca.key).Raw)
}

// ChainWith is the certificate followed by others (PEM).
func (p Pair) ChainWith(others ...[]byte) []byte {
	return bytes.Join(append([][]byte{p.Certificate}, others...), nil)
}

// LegacyKey is the key in the older form of its kind: PKCS #1 or SEC 1.
func (p Pair) LegacyKey() []byte {
	switch key := p.private.(type) {
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	case *ecdsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(key))})
	}
	return p.Key
}

// EncryptedKeys returns passphrase-encrypted keys in both forms. Only their headers are real.
func EncryptedKeys() (pkcs8, legacy []byte) {
	pkcs8 = pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("no key at all")})
	legacy = pem.EncodeToMemory(&pem.Block{
		Type:    "RSA PRIVATE KEY",
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00000000000000000000000000000000"},
		Bytes:   []byte("no key at all"),
	})
	return pkcs8, legacy
}

func newKey(kind KeyKind) crypto.Signer {
	switch kind {
	case RSA:
		return must(rsa.GenerateKey(rand.Reader, 2048))
	case RSA1024:
		// A test needs a weak key.
		return unenforced(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 1024) })
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	case ECDSA, "":
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case MLDSA44, MLDSA65, MLDSA87:
		return must(newMLDSA(kind))
	}
	panic(fmt.Sprintf("pkitest: no keys of kind %q", kind))
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	return must(x509.ParseCertificate(unenforced(func() ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	})))
}

func serial() *big.Int {
	return must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// unenforced allows what strict FIPS mode (GODEBUG=fips140=only) forbids, because other programs
// may still do it.
func unenforced[T any](issue func() (T, error)) (made T) {
	fips140.WithoutEnforcement(func() { made = must(issue()) })
	return made
}

// must panics on an error, which is an error of the test itself.
func must[T any](value T, err error) T {
	if err != nil {
		panic("pkitest: " + err.Error())
	}
	return value
}

// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

var mldsaKinds = []pkitest.KeyKind{pkitest.MLDSA44, pkitest.MLDSA65, pkitest.MLDSA87}

// TestMLDSA: pairs and CAs with ML-DSA keys are read as any other, as crypto/tls does.
func TestMLDSA(t *testing.T) {
	if !pki.SupportsMLDSA() {
		t.Logf("left out: %s with this FIPS module has no ML-DSA; TestMLDSANotSupported runs instead", runtime.Version())
		return
	}
	other := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	for _, kind := range mldsaKinds {
		t.Run(string(kind), func(t *testing.T) {
			ca, request := pkitest.NewCAOf(kind, "signer", pkitest.Now()), pkitest.KubeletClient()
			request.Key = kind
			pair := ca.Issue(request)
			chain, err := pki.ParseChain(pair.ChainWith(ca.PEM()))
			if err != nil || len(chain.Rest) != 1 || chain.RestErr != nil || chain.SkippedErr != nil {
				t.Fatalf("ParseChain: %v, %+v", err, chain)
			}
			key, err := pki.PublicKeyOf(pair.Key)
			if err != nil || !pki.SameKey(chain.Leaf.PublicKey, key) || pki.SameKey(other.Leaf.PublicKey, key) ||
				pki.SameKey(key, ca.Certificate.PublicKey) {
				t.Errorf("PublicKeyOf: %v, of another certificate, or not of its own", err)
			}
			names := []string{pki.Describe(key), pki.KeyOf(pair.Leaf), pki.SignatureOf(pair.Leaf), pki.MLDSAOf(pair.Leaf)}
			for _, name := range names {
				if name != string(kind) {
					t.Errorf("the names of the algorithm are %q", names)
				}
			}
			bundle, err := pki.ParseBundle(ca.PEM())
			if err != nil || bundle.Unusable != nil {
				t.Fatalf("ParseBundle: %v, %v", err, bundle.Unusable)
			}
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{
				Roots: bundle.Pool(), CurrentTime: pkitest.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			}); err != nil {
				t.Errorf("Verify: %v", err)
			}
			if _, err := tls.X509KeyPair(pair.Certificate, pair.Key); err != nil {
				t.Errorf("X509KeyPair: %v", err)
			}
		})
	}
}

// TestMLDSANotSupported: if this program cannot read an ML-DSA key, the error says that, and is of a type of its own.
func TestMLDSANotSupported(t *testing.T) {
	for _, kind := range mldsaKinds {
		t.Run(string(kind), func(t *testing.T) {
			algorithm := pkitest.Algorithms()[string(kind)]
			damaged := pkitest.Algorithm{OID: algorithm.OID, Key: []byte("too short")}
			for name, read := range map[string]func(pkitest.Algorithm) error{
				"certificate": func(a pkitest.Algorithm) error {
					_, err := pki.ParseChain(a.Certificate(slhdsa))
					return err
				},
				"private key": func(a pkitest.Algorithm) error {
					_, err := pki.PublicKeyOf(a.PrivateKey(a.Key))
					return err
				},
				"CA": func(a pkitest.Algorithm) error {
					_, err := pki.ParseBundle(a.Certificate(slhdsa))
					return err
				},
			} {
				err := read(damaged)
				if err == nil || !strings.Contains(err.Error(), string(kind)) {
					t.Errorf("%s, damaged: got %v", name, err)
				}
				if name == "CA" {
					continue // a bundle has more than one
				}
				mldsa, unsupported := errors.AsType[*pki.MLDSAError](err)
				if unsupported == pki.SupportsMLDSA() || unsupported && mldsa.Algorithm != string(kind) {
					t.Errorf("%s, damaged: got %T", name, err)
				}
			}
			block, _ := pem.Decode(algorithm.Certificate(slhdsa))
			if certificate, err := x509.ParseCertificate(block.Bytes); err == nil && pki.MLDSAOf(certificate) != string(kind) {
				t.Errorf("MLDSAOf: got %q", pki.MLDSAOf(certificate))
			}
		})
	}
}

// TestGoSupportsMLDSA: the versions that API servers report.
func TestGoSupportsMLDSA(t *testing.T) {
	for version, want := range map[string][2]bool{
		"go1.26.8": {false, true}, "go1.27": {true, true}, "go1.27.4": {true, true}, "go1.27rc1": {true, true}, "go1.101": {true, true},
		"go1.26.8 (Red Hat 1.26.8-1.el9) X:strictfipsruntime": {false, true}, "devel go1.28-abcdef": {true, true},
		"": {}, "go2.1": {}, "go1.": {}, "go1.x": {}, "1.27": {}, "go1.99999999999999999999": {},
	} {
		if supports, known := pki.GoSupportsMLDSA(version); supports != want[0] || known != want[1] {
			t.Errorf("%q: got %t, %t, want %v", version, supports, known, want)
		}
	}
	if supports, known := pki.GoSupportsMLDSA(runtime.Version()); known && pki.SupportsMLDSA() && !supports {
		t.Errorf("%s supports ML-DSA", runtime.Version())
	}
}

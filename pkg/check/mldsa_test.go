// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// TestMLDSA: the outcome for an ML-DSA pair depends on the API server's Go release.
func TestMLDSA(t *testing.T) {
	if !pki.SupportsMLDSA() {
		t.Logf("left out: %s with this FIPS module has no ML-DSA; TestMLDSANotSupported runs instead", runtime.Version())
		return
	}
	ecdsa := pkitest.NewCA("signer")
	for _, kind := range []pkitest.KeyKind{pkitest.MLDSA44, pkitest.MLDSA65, pkitest.MLDSA87} {
		ca, request := pkitest.NewCAOf(kind, "signer", pkitest.Now()), pkitest.KubeletClient()
		ofECDSAKey := ca.Issue(request)
		request.Key = kind
		own, other, ofECDSACA := ca.Issue(request), ca.Issue(request), ecdsa.Issue(request)
		const unsupported = "strength fail AlgorithmUnsupported @ /crt"
		for name, c := range map[string]struct {
			certificate, key []byte
			goVersion        string
			want             []string
		}{
			"Go 1.27":                {own.Certificate, own.Key, "go1.27.4", nil},
			"Go 1.27, with its CA":   {own.ChainWith(ca.PEM()), own.Key, "go1.27.4", nil},
			"Go 1.26":                {own.Certificate, own.Key, "go1.26.8", []string{unsupported}},
			"not known":              {own.Certificate, own.Key, "", []string{"strength unknown AlgorithmUnsupported @ /crt"}},
			"Go 1.27, another key":   {own.Certificate, other.Key, "go1.27.4", []string{"pair fail KeyMismatch @ /key"}},
			"Go 1.27, an ECDSA key":  {own.Certificate, ofECDSAKey.Key, "go1.27.4", []string{"pair fail KeyMismatch @ /key"}},
			"ECDSA of this CA, 1.27": {ofECDSAKey.Certificate, ofECDSAKey.Key, "go1.27.4", nil},
			"ECDSA of this CA, 1.26": {ofECDSAKey.Certificate, ofECDSAKey.Key, "go1.26.8", []string{unsupported}},
			"of an ECDSA CA, 1.26":   {ofECDSACA.Certificate, ofECDSACA.Key, "go1.26.8", []string{unsupported}},
			"of an ECDSA CA, 1.27":   {ofECDSACA.Certificate, ofECDSACA.Key, "go1.27.4", nil},
		} {
			t.Run(string(kind)+"/"+name, func(t *testing.T) {
				results, _ := check.NewKeyPair(
					check.Source{At: finding.File("/crt"), Data: c.certificate}, check.Source{At: finding.File("/key"), Data: c.key},
					check.Expectation{
						Usage: x509.ExtKeyUsageClientAuth, GoVersion: c.goVersion,
						Roots: []*x509.Certificate{ca.Certificate, ecdsa.Certificate},
					}).Check(finding.ClientFiles, pkitest.Now())
				if d := cmp.Diff(c.want, lines(finding.Findings(results), finding.ClientFiles)); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			})
		}
	}
}

// TestMLDSAClient: a kubelet that does not offer ML-DSA cannot verify a client certificate with such a key.
func TestMLDSAClient(t *testing.T) {
	if !pki.SupportsMLDSA() {
		t.Logf("left out: %s with this FIPS module has no ML-DSA, so no client certificate with such a key can be read",
			runtime.Version())
		return
	}
	request, serving := pkitest.KubeletClient(), pkitest.NewCA("csr-signer").Issue(pkitest.ServingCert())
	request.Key = pkitest.MLDSA65
	client := pkitest.NewCA("signer").Issue(request)
	pair := check.NewKeyPair(check.Source{Data: client.Certificate}, check.Source{Data: client.Key}, check.Expectation{})
	const refused = "client-accepted fail ClientCertificateNotAccepted @ Kubelet 192.0.2.7:10250"
	for name, c := range map[string]struct {
		schemes []tls.SignatureScheme
		refused bool
	}{
		"Go 1.26":   {[]tls.SignatureScheme{tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256, tls.Ed25519}, true},
		"Go 1.27":   {[]tls.SignatureScheme{tls.PSSWithSHA256, 0x0904, 0x0905, 0x0906}, false},
		"not known": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			results, _, _ := check.NewKubelet(&check.KubeletAnswer{
				At:           finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10250"},
				Certificates: []*x509.Certificate{serving.Leaf}, RequestsClientCertificate: true, SignatureSchemes: c.schemes,
			}, true, pair, check.File{}, check.KubeletSettings{}).Check(pkitest.Now())
			if got := slices.Contains(lines(finding.Findings(results), finding.Kubelet), refused); got != c.refused {
				t.Errorf("refused: %t, want %t; results %v", got, c.refused, results)
			}
		})
	}
}

// TestMLDSANotSupported: what this program cannot read is unknown, unless it is known that the API server cannot use it
// either.
func TestMLDSANotSupported(t *testing.T) {
	if pki.SupportsMLDSA() {
		t.Logf("left out: %s has ML-DSA; TestMLDSA runs instead", runtime.Version())
		return
	}
	algorithm := pkitest.Algorithms()["ML-DSA-65"]
	for goVersion, outcome := range map[string]string{"go1.26.8": "fail", "go1.27.4": "unknown", "": "unknown"} {
		t.Run(goVersion, func(t *testing.T) {
			results, _ := check.NewKeyPair(
				check.Source{At: finding.File("/crt"), Data: algorithm.Certificate("2.16.840.1.101.3.4.3.18")},
				check.Source{At: finding.File("/key"), Data: algorithm.PrivateKey(make([]byte, 34))},
				check.Expectation{Usage: x509.ExtKeyUsageClientAuth, GoVersion: goVersion},
			).Check(finding.ClientFiles, pkitest.Now())
			got := lines(finding.Findings(results), finding.ClientFiles)
			for _, want := range []string{
				"certificate " + outcome + " CertificateUnparsable @ /crt", "key " + outcome + " KeyUnparsable @ /key",
			} {
				if !slices.Contains(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}

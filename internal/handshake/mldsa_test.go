// SPDX-License-Identifier: Apache-2.0

package handshake

import (
	"runtime"
	"slices"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// TestMLDSA: a server with an ML-DSA certificate answers, and says that it verifies such client certificates.
func TestMLDSA(t *testing.T) {
	if !pki.SupportsMLDSA() {
		t.Logf("left out: %s with this FIPS module has no ML-DSA, so neither side can use it", runtime.Version())
		return
	}
	for kind, scheme := range map[pkitest.KeyKind]uint16{
		pkitest.MLDSA44: 0x0904, pkitest.MLDSA65: 0x0905, pkitest.MLDSA87: 0x0906,
	} {
		t.Run(string(kind), func(t *testing.T) {
			ca, request := pkitest.NewCAOf(kind, "signer", pkitest.Now()), pkitest.ServingCert()
			request.Key = kind
			pair := ca.Issue(request)
			address := server(t, [][]byte{ca.Certificate.Raw}, pair, "clients")
			answer := Dialer{}.Handshake(t.Context(), address, "127.0.0.1")
			if answer.Err != nil || len(answer.Certificates) != 2 || !answer.Certificates[0].Equal(pair.Leaf) ||
				!answer.RequestsClientCertificate {
				t.Errorf("error %v, %d certificates", answer.Err, len(answer.Certificates))
			}
			var schemes []uint16
			for _, s := range answer.SignatureSchemes {
				schemes = append(schemes, uint16(s))
			}
			if !slices.Contains(schemes, scheme) {
				t.Errorf("it verifies %x, which do not include %x", schemes, scheme)
			}
		})
	}
}

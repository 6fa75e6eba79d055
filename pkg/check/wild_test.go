// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// TestWild: for certificates as they come, the findings are what crypto/tls makes of the pair, at both ends.
func TestWild(t *testing.T) {
	for name, c := range pkitest.WildPairs() {
		t.Run(name, func(t *testing.T) {
			results, _ := wildResults(t, c)
			got := lines(finding.Findings(results), finding.ClientFiles)
			want := slices.Sorted(slices.Values(c.Findings))
			slices.Sort(got)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if fips140.Enabled() {
				return // which algorithms TLS uses in this mode is not the subject
			}
			if works := handshakes(t, c); works != c.Works {
				t.Errorf("handshakes: got %q, want %q", works, c.Works)
			}
			fails := len(finding.WithOutcome(results, finding.Fail)) > 0
			if works := strings.Contains(strings.Split(c.Works, ",")[0], "1.3"); works == fails {
				t.Errorf("a handshake works: %t, a finding is a violation: %t", works, fails)
			}
		})
	}
}

// wildResults checks a pair as one for clients.
func wildResults(t *testing.T, c pkitest.WildPair) (results []finding.Result, next time.Time) {
	t.Helper()
	bundle, err := pki.ParseBundle(c.Roots)
	if err != nil {
		t.Fatal(err)
	}
	return check.NewKeyPair(
		check.Source{At: finding.File("/crt"), Data: c.Certificate}, check.Source{At: finding.File("/key"), Data: c.Key},
		check.Expectation{
			Usage: x509.ExtKeyUsageClientAuth, Roots: bundle.CAs, ExpiringFraction: check.DefaultExpiringFraction,
		}).Check(finding.ClientFiles, pkitest.Now())
}

// handshakes returns the versions of TLS with which a handshake with the pair works.
func handshakes(t *testing.T, c pkitest.WildPair) string {
	t.Helper()
	peer := pkitest.NewCA("peer")
	request := pkitest.ServingCert()
	request.DNSNames = []string{pkitest.WildName}
	other := peer.Issue(request)
	otherPair, err := tls.X509KeyPair(other.Certificate, other.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots, peers := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Roots)
	peers.AddCert(peer.Certificate)
	pair, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return "client, server"
	}
	var works []string
	for _, end := range []string{"client", "server"} {
		versions := end
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			server := &tls.Config{
				Certificates: []tls.Certificate{otherPair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
				Time: pkitest.Now, MinVersion: version, MaxVersion: version,
			}
			client := &tls.Config{
				// Also if the server does not offer the algorithm of its key.
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
				RootCAs:              peers, ServerName: pkitest.WildName, Time: pkitest.Now, MinVersion: version, MaxVersion: version,
			}
			if end == "server" {
				server.Certificates, server.ClientAuth = []tls.Certificate{pair}, tls.NoClientCert
				client.RootCAs = roots
			}
			if handshake(t, client, server) == nil {
				versions += map[uint16]string{tls.VersionTLS12: " 1.2", tls.VersionTLS13: " 1.3"}[version]
			}
		}
		works = append(works, versions)
	}
	return strings.Join(works, ", ")
}

// handshake connects a client and a server, and returns the error of either. It does not use [net.Pipe]: both ends may
// write at the same time.
func handshake(t *testing.T, client, server *tls.Config) error {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	ended := make(chan error, 1)
	go func() {
		theirs, err := listener.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer func() { _ = theirs.Close() }()
		_ = theirs.SetDeadline(time.Now().Add(20 * time.Second))
		s := tls.Server(theirs, server)
		err = s.HandshakeContext(t.Context())
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		ended <- err
	}()
	ours, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(ours, client)
	err = c.HandshakeContext(t.Context())
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	_ = ours.Close()
	return errors.Join(err, <-ended)
}

// TestWildNextChange: nothing changes before the next time that is returned, also if it is centuries away.
func TestWildNextChange(t *testing.T) {
	now := pkitest.Now()
	ca := pkitest.NewCA("signer")
	for years, want := range map[int]time.Time{
		100: now.AddDate(100, 0, 0), 400: now.AddDate(400, 0, 0), 5000: now.AddDate(5000, 0, 0),
	} {
		pair := ca.Issue(pkitest.KubeletClient().Valid(now, want))
		results, next := wildResults(t, pkitest.WildPair{Certificate: pair.Certificate, Key: pair.Key, Roots: ca.PEM()})
		for _, f := range finding.Findings(results) {
			t.Errorf("%d years: %s", years, f.Reason)
		}
		// A CA expires first, and then a fraction of the lifetime is left.
		if !next.Equal(ca.Certificate.NotAfter.Add(time.Nanosecond)) {
			t.Errorf("%d years: next change at %s", years, next)
		}
		soon, _ := check.NewKeyPair(
			check.Source{At: finding.File("/crt"), Data: pair.Certificate},
			check.Source{At: finding.File("/key"), Data: pair.Key},
			check.Expectation{Usage: x509.ExtKeyUsageClientAuth, ExpiringFraction: check.DefaultExpiringFraction},
		).Check(finding.ClientFiles, now.AddDate(years*86/100, 0, 0))
		if got := lines(finding.Findings(soon), finding.ClientFiles); !slices.Contains(got,
			"validity warn CertificateExpiringSoon @ /crt") {
			t.Errorf("%d years, 14%% of the lifetime left: %q", years, got)
		}
	}
}

// TestNoPanic: no certificate, key or CA of the table makes the checks panic, in strict FIPS mode neither, where not
// every function of the standard library returns an error.
func TestNoPanic(t *testing.T) {
	pairs := pkitest.WildPairs()
	for name, algorithm := range pkitest.Algorithms() {
		certificate := algorithm.Certificate("2.16.840.1.101.3.4.3.18")
		pairs["algorithm "+name] = pkitest.WildPair{
			Certificate: certificate, Key: algorithm.PrivateKey([]byte("secret")), Roots: certificate,
		}
	}
	names := slices.Sorted(maps.Keys(pairs))
	now := pkitest.Now()
	for i, name := range names {
		c, next := pairs[name], pairs[names[(i+1)%len(names)]]
		for _, roots := range [][]byte{c.Certificate, bytes.Join([][]byte{c.Roots, next.Certificate}, nil)} {
			ca := check.File{Path: "/ca.crt", Data: roots}
			for _, key := range [][]byte{c.Key, next.Key} {
				certificate := check.File{Path: "/crt", Data: bytes.Join([][]byte{c.Certificate, next.Certificate}, nil)}
				keyFile := check.File{Path: "/key", Data: key}
				files := check.NewClientFiles(certificate, keyFile, ca, layout.Layout{}, check.KeyPolicy{}, "", 0.15)
				results, _ := files.Check(now)
				bundle, _ := pki.ParsePool(roots)
				secret := check.CheckSecret(check.SecretExpectation{
					Namespace: "ns", Name: "s", Usage: x509.ExtKeyUsageServerAuth, Roots: bundle.CAs, RootsUnusable: bundle.Unusable,
				}, &check.Secret{Type: "kubernetes.io/tls", Certificate: certificate.Data, Key: key}, now)
				answer := &check.KubeletAnswer{Host: "192.0.2.7", RequestsClientCertificate: true}
				for _, text := range [][]byte{c.Certificate, next.Certificate} {
					block, _ := pem.Decode(text)
					if parsed, err := x509.ParseCertificate(block.Bytes); err == nil {
						answer.Certificates = append(answer.Certificates, parsed)
					}
				}
				if len(answer.Certificates) == 0 {
					answer = nil
				}
				kubelet, _, _ := check.NewKubelet(answer, true, files.Pair(), ca, check.KubeletSettings{}).Check(now)
				node := check.NodeKubelet{
					Node: "n", Answer: answer, NotAsked: "why", CA: check.KubeletCA{At: "CA", Roots: bundle.Pool(), Unusable: bundle.Unusable},
				}
				swept, _ := node.Check(now)
				for _, r := range slices.Concat(results, secret.Results, kubelet, swept) {
					if strings.Contains(fmt.Sprint(r), "<nil>") {
						t.Errorf("%s: %v", name, r)
					}
				}
			}
		}
	}
}

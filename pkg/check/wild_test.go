// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
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

// wild is a pair as it may be found in a cluster.
type wild struct {
	certificate, key, roots []byte
	// want are the findings about the pair of a client; for a server they are the same.
	want []string
	// works are the TLS versions with which crypto/tls makes a handshake, for a client and for a server.
	works string
}

// wildName is the name that the certificates are valid for, as servers.
const wildName = "host.example"

func wildPairs(t testing.TB) map[string]wild {
	now := pkitest.Now()
	ca, root, middle := pkitest.NewCA("signer"), pkitest.NewCA("root"), pkitest.NewCA("middle")
	request := pkitest.Request{
		CommonName: wildName, DNSNames: []string{wildName},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	anyUse := request
	anyUse.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	good := ca.Issue(request)
	const (
		all         = "client 1.2 1.3, server 1.2 1.3"
		nothing     = "client, server"
		onlyServers = "client, server 1.2 1.3"
		untrusted   = "issuer fail UntrustedIssuer @ /crt"
		expired     = "validity fail CertificateExpired @ /crt"
	)
	unparsable, keyUnparsable := []string{"certificate fail CertificateUnparsable @ /crt"}, "key fail KeyUnparsable @ /key"
	issued := func(r pkitest.Request, works string, want ...string) wild {
		pair := ca.Issue(r)
		return wild{pair.Certificate, pair.Key, ca.PEM(), want, works}
	}
	rsa := func(bits, primes int, exponent int64, works string, want ...string) wild {
		public, key := pkitest.RSAKey(bits, primes, exponent)
		return wild{ca.IssueKey(request, public), key, ca.PEM(), want, works}
	}
	serial := func(works string, number []byte, want ...string) wild {
		return wild{ca.WithSerial(good, number), good.Key, ca.PEM(), want, works}
	}
	under := func(uses ...x509.ExtKeyUsage) pkitest.Pair {
		pair := middle.Issue(anyUse)
		pair.Certificate = pair.ChainWith(root.CrossSign(middle, uses...))
		return pair
	}
	forBoth, forServers := under(), under(x509.ExtKeyUsageServerAuth)
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) // RFC 5280 4.1.2.5
	const never = "strength warn WeakKey @ /crt"
	var p224 *ecdsa.PrivateKey
	var err error
	fips140.WithoutEnforcement(func() { p224, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader) })
	if err != nil {
		t.Fatal(err)
	}
	p224DER, err := x509.MarshalECPrivateKey(p224)
	if err != nil {
		t.Fatal(err)
	}

	pairs := map[string]wild{
		"good":                                 issued(request, all),
		"no expiry date":                       issued(request.Valid(now.Add(-time.Hour), far), all),
		"valid for 400 years, 100 have passed": issued(request.Valid(now.AddDate(-100, 0, 0), now.AddDate(300, 0, 0)), all),
		"valid for 400 years, 10 are left": issued(
			request.Valid(now.AddDate(-390, 0, 0), now.AddDate(10, 0, 0)), all, "validity warn CertificateExpiringSoon @ /crt"),
		"ends before it begins, now in between": issued(request.Valid(now.Add(time.Hour), now.Add(-time.Hour)), nothing,
			expired),
		"ends before it begins, now after both": issued(request.Valid(now.Add(-time.Hour), now.Add(-2*time.Hour)), nothing,
			expired),
		"ends before it begins, now before both": issued(request.Valid(now.Add(2*time.Hour), now.Add(time.Hour)), nothing,
			expired),

		"RSA with 3 primes":               rsa(2048, 3, 65537, all),
		"RSA, e = 3":                      rsa(2048, 2, 3, all),
		"RSA, e = 2^31-1":                 rsa(2048, 2, 1<<31-1, all),
		"RSA, e = 2^33+1":                 rsa(2048, 2, 1<<33+1, nothing, keyUnparsable),
		"RSA 1024":                        rsa(1024, 2, 65537, all, never),
		"RSA 512, which crypto/tls loads": rsa(512, 2, 65537, nothing, unparsable...),
		"ECDSA P-224, which crypto/tls loads": {
			ca.IssueKey(request, p224.Public()),
			pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: p224DER}), ca.PEM(),
			unparsable, "client 1.2, server 1.2",
		},

		"serial number 0":            serial(all, []byte{0}),
		"serial number of 21 octets": serial(all, append([]byte{0x7f}, make([]byte, 20)...)),
		"serial number -1":           serial(nothing, []byte{0xff}, unparsable...),

		"any usage, under a CA of any usage": {forBoth.Certificate, forBoth.Key, root.PEM(), nil, all},
		"any usage, under a CA for servers":  {forServers.Certificate, forServers.Key, root.PEM(), []string{untrusted}, onlyServers},
	}
	for _, name := range []string{
		"RSASSA-PSS 2048", "ECDSA with explicit curve parameters", "ECDSA brainpoolP256r1", "ECDSA secp256k1", "Ed448",
	} {
		algorithm := pkitest.Algorithms()[name]
		pairs[name] = wild{
			algorithm.Certificate("1.2.840.10045.4.3.2"), algorithm.PrivateKey([]byte("secret")), ca.PEM(),
			slices.Concat(unparsable, []string{keyUnparsable}), nothing,
		}
	}
	return pairs
}

// TestWild: for certificates as they come, the findings are what crypto/tls makes of the pair, at both ends.
func TestWild(t *testing.T) {
	for name, c := range wildPairs(t) {
		t.Run(name, func(t *testing.T) {
			results, _ := wildResults(t, c)
			got := lines(finding.Findings(results), finding.ClientFiles)
			want := slices.Sorted(slices.Values(c.want))
			slices.Sort(got)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if fips140.Enabled() {
				return // which algorithms TLS uses in this mode is not the subject
			}
			if works := handshakes(t, c); works != c.works {
				t.Errorf("handshakes: got %q, want %q", works, c.works)
			}
			fails := len(finding.WithOutcome(results, finding.Fail)) > 0
			if works := strings.Contains(strings.Split(c.works, ",")[0], "1.3"); works == fails {
				t.Errorf("a handshake works: %t, a finding is a violation: %t", works, fails)
			}
		})
	}
}

// wildResults checks a pair as one for clients.
func wildResults(t *testing.T, c wild) (results []finding.Result, next time.Time) {
	t.Helper()
	bundle, err := pki.ParseBundle(c.roots)
	if err != nil {
		t.Fatal(err)
	}
	return check.NewKeyPair(
		check.Source{At: finding.File("/crt"), Data: c.certificate}, check.Source{At: finding.File("/key"), Data: c.key},
		check.Expectation{
			Usage: x509.ExtKeyUsageClientAuth, Roots: bundle.CAs, ExpiringFraction: check.DefaultExpiringFraction,
		}).Check(finding.ClientFiles, pkitest.Now())
}

// handshakes returns the versions of TLS with which a handshake with the pair works.
func handshakes(t *testing.T, c wild) string {
	t.Helper()
	peer := pkitest.NewCA("peer")
	request := pkitest.ServingCert()
	request.DNSNames = []string{wildName}
	other := peer.Issue(request)
	otherPair, err := tls.X509KeyPair(other.Certificate, other.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots, peers := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(c.roots)
	peers.AddCert(peer.Certificate)
	pair, err := tls.X509KeyPair(c.certificate, c.key)
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
				RootCAs:              peers, ServerName: wildName, Time: pkitest.Now, MinVersion: version, MaxVersion: version,
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
		results, next := wildResults(t, wild{certificate: pair.Certificate, key: pair.Key, roots: ca.PEM()})
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
	pairs := wildPairs(t)
	for name, algorithm := range pkitest.Algorithms() {
		certificate := algorithm.Certificate("2.16.840.1.101.3.4.3.18")
		pairs["algorithm "+name] = wild{
			certificate: certificate, key: algorithm.PrivateKey([]byte("secret")), roots: certificate,
		}
	}
	names := slices.Sorted(maps.Keys(pairs))
	now := pkitest.Now()
	for i, name := range names {
		c, next := pairs[name], pairs[names[(i+1)%len(names)]]
		for _, roots := range [][]byte{c.certificate, bytes.Join([][]byte{c.roots, next.certificate}, nil)} {
			ca := check.File{Path: "/ca.crt", Data: roots}
			for _, key := range [][]byte{c.key, next.key} {
				certificate := check.File{Path: "/crt", Data: bytes.Join([][]byte{c.certificate, next.certificate}, nil)}
				keyFile := check.File{Path: "/key", Data: key}
				files := check.NewClientFiles(certificate, keyFile, ca, layout.Layout{}, check.KeyPolicy{}, "", 0.15)
				results, _ := files.Check(now)
				bundle, _ := pki.ParsePool(roots)
				secret := check.CheckSecret(check.SecretExpectation{
					Namespace: "ns", Name: "s", Usage: x509.ExtKeyUsageServerAuth, Roots: bundle.CAs, RootsUnusable: bundle.Unusable,
				}, &check.Secret{Type: "kubernetes.io/tls", Certificate: certificate.Data, Key: key}, now)
				answer := &check.KubeletAnswer{Host: "192.0.2.7", RequestsClientCertificate: true}
				for _, text := range [][]byte{c.certificate, next.certificate} {
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

// SPDX-License-Identifier: Apache-2.0

package pkitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// WildPair is a pair as it may be found in a cluster, and what programs make of it at [Now].
type WildPair struct {
	// Certificate, Key and Roots, the CAs to verify it with, are PEM.
	Certificate, Key, Roots []byte
	// Findings are those of package check about the pair of a client: "ASPECT OUTCOME REASON @ FILE". Those about a server
	// are the same.
	Findings []string
	// Works are the TLS versions with which crypto/tls makes a handshake, for a client and for a server.
	Works string
}

// WildName is the name that the certificates are valid for, as servers.
const WildName = "host.example"

// WildPairs returns pairs by what is unusual about them.
func WildPairs() map[string]WildPair {
	now := Now()
	ca, root, middle := NewCA("signer"), NewCA("root"), NewCA("middle")
	request := Request{
		CommonName: WildName, DNSNames: []string{WildName},
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
	issued := func(r Request, works string, want ...string) WildPair {
		pair := ca.Issue(r)
		return WildPair{pair.Certificate, pair.Key, ca.PEM(), want, works}
	}
	rsa := func(bits, primes int, exponent int64, works string, want ...string) WildPair {
		public, key := RSAKey(bits, primes, exponent)
		return WildPair{ca.IssueKey(request, public), key, ca.PEM(), want, works}
	}
	serial := func(works string, number []byte, want ...string) WildPair {
		return WildPair{ca.WithSerial(good, number), good.Key, ca.PEM(), want, works}
	}
	under := func(uses ...x509.ExtKeyUsage) Pair {
		pair := middle.Issue(anyUse)
		pair.Certificate = pair.ChainWith(root.CrossSign(middle, uses...))
		return pair
	}
	forBoth, forServers := under(), under(x509.ExtKeyUsageServerAuth)
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) // RFC 5280 4.1.2.5
	const never = "strength warn WeakKey @ /crt"
	p224 := unenforced(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P224(), rand.Reader) })
	p224DER := must(x509.MarshalECPrivateKey(p224))

	pairs := map[string]WildPair{
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
		"any usage, under a CA for servers": {
			forServers.Certificate, forServers.Key, root.PEM(), []string{untrusted}, onlyServers,
		},
	}
	for _, name := range []string{
		"RSASSA-PSS 2048", "ECDSA with explicit curve parameters", "ECDSA brainpoolP256r1", "ECDSA secp256k1", "Ed448",
	} {
		algorithm := Algorithms()[name]
		pairs[name] = WildPair{
			algorithm.Certificate("1.2.840.10045.4.3.2"), algorithm.PrivateKey([]byte("secret")), ca.PEM(),
			slices.Concat(unparsable, []string{keyUnparsable}), nothing,
		}
	}
	return pairs
}

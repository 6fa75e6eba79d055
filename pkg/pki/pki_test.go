// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// failed means any error. Its text is in docs/messages.md, under the name of the case.
const failed = "an error"

// outcome returns [failed], or an empty text without an error.
func outcome(err error) string {
	if err == nil {
		return ""
	}
	return failed
}

type chain struct {
	Certificates       int
	Rest, Skipped, Err string
}

type chainCase struct {
	data string
	want chain
}

// chainCases returns certificate files. The leaf of a valid one is the certificate of pair.
func chainCases(t testing.TB, ca *pkitest.CA, pair pkitest.Pair) map[string]chainCase {
	t.Helper()
	garbageBlock := "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
	p224Key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224 := p224Key.Public()
	damagedBlock := strings.Replace(string(ca.PEM()), "\nM", "\n!", 1)
	// The last byte of Ed25519's object identifier (RFC 8410 3) makes it X448.
	ed25519 := ca.Issue(pkitest.Request{Key: pkitest.Ed25519}).Leaf.Raw
	x448 := bytes.Replace(ed25519, []byte{0x06, 0x03, 0x2b, 0x65, 0x70}, []byte{0x06, 0x03, 0x2b, 0x65, 0x6f}, 1)

	large := ca.Issue(pkitest.Request{CommonName: strings.Repeat("x", 300<<10)}).Leaf

	return map[string]chainCase{
		"leaf alone":               {string(pair.Certificate), chain{Certificates: 1}},
		"leaf and CA":              {string(pair.ChainWith(ca.PEM())), chain{Certificates: 2}},
		"text before and after":    {"kubelet client\n" + string(pair.Certificate) + "\nthe end", chain{Certificates: 1}},
		"key in front is skipped":  {string(pair.Key) + string(pair.Certificate), chain{Certificates: 1}},
		"Windows line ends":        {strings.ReplaceAll(string(pair.Certificate), "\n", "\r\n"), chain{Certificates: 1}},
		"nothing":                  {"", chain{Err: failed}},
		"white space":              {" \n\t\n", chain{Err: failed}},
		"no PEM":                   {"rubbish", chain{Err: failed}},
		"key only":                 {string(pair.Key), chain{Err: failed}},
		"too large":                {strings.Repeat("x", pki.MaxBytes+1), chain{Err: failed}},
		"rubbish of the full size": {strings.Repeat("x", pki.MaxBytes), chain{Err: failed}},
		"no certificate in the block": {garbageBlock, chain{
			Err: failed,
		}},
		"garbage behind the leaf": {string(pair.ChainWith([]byte(garbageBlock))), chain{
			Certificates: 1, Rest: failed,
		}},
		"damaged block behind the leaf": {string(pair.ChainWith([]byte(damagedBlock))), chain{
			Certificates: 1, Skipped: failed,
		}},
		"too many": {string(pair.Certificate) + strings.Repeat(string(ca.PEM()), pki.MaxChain), chain{
			Certificates: pki.MaxChain, Skipped: failed,
		}},
		"an RSA key that is too large": {
			string(ca.IssueFor(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 9000), E: 65537})),
			chain{
				Err: failed,
			},
		},
		"an RSA key that is too small": {
			string(
				ca.IssueFor(&rsa.PublicKey{N: new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1)), E: 65537}),
			),
			chain{
				Err: failed,
			},
		},
		"a curve that TLS does not use": {string(ca.IssueFor(p224)), chain{
			Err: failed,
		}},
		"a curve that TLS does not use behind the leaf": {string(pair.ChainWith(ca.IssueFor(p224))), chain{Certificates: 2}},
		"an RSA key that is too large behind the leaf": {
			string(pair.ChainWith(ca.IssueFor(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 9000), E: 65537}))),
			chain{
				Certificates: 1, Skipped: failed,
			},
		},
		"a key of a kind that TLS does not use": {
			string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x448})),
			chain{
				Err: failed,
			},
		},
		"more than TLS reads": {
			string(pair.Certificate) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: large.Raw})),
			chain{
				Certificates: 2, Rest: failed,
			},
		},
		"far too many": {strings.Repeat(garbageBlock, 10_000), chain{
			Err: failed,
		}},
	}
}

// digits matches the size of certificates, which depends on their signatures.
var digits = regexp.MustCompile(`\d{6} bytes`)

func TestParseChain(t *testing.T) {
	page := messages.Record(t, "errors of certificates")
	ca := pkitest.NewCA("signer")
	pair := ca.Issue(pkitest.KubeletClient())
	for name, c := range chainCases(t, ca, pair) {
		t.Run(name, func(t *testing.T) {
			parsed, err := pki.ParseChain([]byte(c.data))
			page.Error(name, err)
			page.Text(name, digits.ReplaceAllString(text(parsed.RestErr), "<bytes> bytes"))
			page.Error(name, parsed.SkippedErr)
			got := chain{Err: outcome(err), Rest: outcome(parsed.RestErr), Skipped: outcome(parsed.SkippedErr)}
			if parsed.Leaf != nil {
				got.Certificates = 1 + len(parsed.Rest)
				if !parsed.Leaf.Equal(pair.Leaf) {
					t.Error("the leaf is not the first certificate")
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("ParseChain (-want +got):\n%s", d)
			}
		})
	}
}

func TestParseBundle(t *testing.T) {
	page := messages.Record(t, "errors of CA bundles")
	one, other := pkitest.NewCA("one"), pkitest.NewCA("other")
	damaged := strings.Replace(string(other.PEM()), "\nM", "\n!", 1)
	unknown, brainpool := pkitest.Algorithms()["Ed448"].Certificate(slhdsa),
		pkitest.Algorithms()["ECDSA brainpoolP256r1"].Certificate(slhdsa)
	cases := map[string]struct {
		data    string
		want    int
		wantErr string
		// unusable is a part of the text about what cannot be used. pool is the number of CAs for ParsePool if
		// ParseBundle fails, and poolErr whether ParsePool fails, too.
		unusable string
		pool     int
		poolErr  bool
	}{
		"two CAs":            {data: string(one.PEM()) + string(other.PEM()), want: 2},
		"nothing":            {wantErr: failed, poolErr: true},
		"one of two damaged": {data: string(one.PEM()) + damaged, want: 1, unusable: "1 of 2 PEM blocks is damaged"},
		"behind a byte-order mark": {
			data: "\ufeff" + string(one.PEM()) + string(other.PEM()), want: 1, unusable: "1 of 2 PEM blocks is damaged",
		},
		"PEM headers": {
			data: string(one.PEM()) + strings.Replace(string(other.PEM()), "\n", "\nA: b\n\n", 1), want: 1, unusable: "PEM headers",
		},
		"an algorithm that is not known": {
			data: string(unknown) + string(one.PEM()), want: 1, unusable: "certificate 1 of the bundle has a key that Go's TLS does not support: Ed448",
		},
		"an algorithm that is not known alone": {data: string(unknown), wantErr: failed, unusable: "Ed448"},
		"a curve that cannot be parsed": {
			data: string(one.PEM()) + string(brainpool), wantErr: failed, pool: 1, unusable: "certificate 2 of the bundle is refused by Go's crypto/x509 (key: ECDSA brainpoolP256r1",
		},
		"many of them": {
			data: string(one.PEM()) + strings.Repeat(string(unknown), 20), want: 1, unusable: "; 18 more cannot be used either",
		},
		"more than are read": {
			data: strings.Repeat(string(one.PEM()), pki.MaxBundle+1), want: pki.MaxBundle, unusable: "more than 1000 certificates",
		},
		"headers alone":   {data: strings.Replace(string(other.PEM()), "\n", "\nA: b\n\n", 1), wantErr: failed, poolErr: true},
		"a large RSA key": {data: string(one.PEM()) + string(one.IssueFor(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 9000), E: 65537})), want: 1, unusable: "9001 bits"},
		"a small key":     {data: string(one.PEM()) + string(one.IssueFor(&rsa.PublicKey{N: big.NewInt(1<<62 - 57), E: 65537})), want: 2},
		"garbage in one":  {data: string(one.PEM()) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", wantErr: failed, pool: 1, unusable: "certificate 2 of the bundle is not an X.509 certificate"},
		"no certificates": {data: "rubbish", wantErr: failed, poolErr: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bundle, err := pki.ParseBundle([]byte(c.data))
			page.Error(name, err)
			if len(bundle.CAs) != c.want || outcome(err) != c.wantErr {
				t.Errorf("ParseBundle: got %d certificates and error %v, want %d and %q", len(bundle.CAs), err, c.want, c.wantErr)
			}
			pool, err := pki.ParsePool([]byte(c.data))
			page.Error(name, pool.Unusable)
			if want := max(c.want, c.pool); len(pool.CAs) != want || (err != nil) != c.poolErr {
				t.Errorf("ParsePool: got %d certificates and error %v, want %d", len(pool.CAs), err, want)
			}
			got := text(pool.Unusable)
			if !strings.Contains(got, c.unusable) || (got == "") != (c.unusable == "") || len(got) > 900 {
				t.Errorf("unusable: got %q, want %q", got, c.unusable)
			}
			if c.wantErr == "" && text(bundle.Unusable) != text(pool.Unusable) {
				t.Errorf("ParseBundle: unusable: got %q", text(bundle.Unusable))
			}
		})
	}
}

// pairsOf returns a pair of each type of key.
func pairsOf(ca *pkitest.CA) map[pkitest.KeyKind]pkitest.Pair {
	request := pkitest.KubeletClient()
	pairs := map[pkitest.KeyKind]pkitest.Pair{}
	for _, kind := range []pkitest.KeyKind{pkitest.ECDSA, pkitest.RSA, pkitest.Ed25519} {
		request.Key = kind
		pairs[kind] = ca.Issue(request)
	}
	return pairs
}

type keyCase struct {
	data     []byte
	of       pkitest.KeyKind
	wantText string
}

// keyCases returns key files. The key of a valid one is the key of one of the pairs.
func keyCases(t testing.TB, ca *pkitest.CA, pairs map[pkitest.KeyKind]pkitest.Pair) map[string]keyCase {
	t.Helper()
	var x25519 []byte
	fips140.WithoutEnforcement(func() { // others make such keys
		agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if x25519, err = x509.MarshalPKCS8PrivateKey(agreement); err != nil {
			t.Fatal(err)
		}
	})
	encrypted, encryptedLegacy := pkitest.EncryptedKeys()

	return map[string]keyCase{
		"ECDSA, PKCS #8":               {data: pairs[pkitest.ECDSA].Key, of: pkitest.ECDSA, wantText: "ECDSA P-256"},
		"ECDSA, SEC 1":                 {data: pairs[pkitest.ECDSA].LegacyKey(), of: pkitest.ECDSA, wantText: "ECDSA P-256"},
		"RSA, PKCS #8":                 {data: pairs[pkitest.RSA].Key, of: pkitest.RSA, wantText: "RSA 2048"},
		"RSA, PKCS #1":                 {data: pairs[pkitest.RSA].LegacyKey(), of: pkitest.RSA, wantText: "RSA 2048"},
		"Ed25519":                      {data: pairs[pkitest.Ed25519].Key, of: pkitest.Ed25519, wantText: "Ed25519"},
		"certificate in front skipped": {data: bytes.Join([][]byte{ca.PEM(), pairs[pkitest.ECDSA].Key}, nil), of: pkitest.ECDSA, wantText: "ECDSA P-256"},
		"nothing":                      {wantText: failed},
		"no key":                       {data: ca.PEM(), wantText: failed},
		"encrypted, PKCS #8":           {data: encrypted, wantText: failed},
		"encrypted, legacy":            {data: encryptedLegacy, wantText: failed},
		"labelled as encrypted": {
			data: bytes.ReplaceAll(pairs[pkitest.ECDSA].Key, []byte(" PRIVATE KEY"), []byte(" ENCRYPTED PRIVATE KEY")),
			of:   pkitest.ECDSA, wantText: "ECDSA P-256",
		},
		"a block that is too large": {
			data:     []byte("-----BEGIN EC PRIVATE KEY-----\n" + strings.Repeat("AAAA", 4<<10) + "\n-----END EC PRIVATE KEY-----\n"),
			wantText: failed,
		},
		"garbage in the block": {
			data:     []byte("-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"),
			wantText: failed,
		},
		"a key that cannot sign": {
			data:     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: x25519}),
			wantText: failed,
		},
		"too large": {data: bytes.Repeat([]byte("x"), pki.MaxBytes+1), wantText: failed},
	}
}

func TestPublicKeyOf(t *testing.T) {
	page := messages.Record(t, "errors of private keys")
	ca := pkitest.NewCA("signer")
	pairs := pairsOf(ca)
	for name, c := range keyCases(t, ca, pairs) {
		t.Run(name, func(t *testing.T) {
			key, err := pki.PublicKeyOf(c.data)
			page.Error(name, err)
			got := outcome(err)
			if err == nil {
				got = pki.Describe(key)
			}
			if got != c.wantText {
				t.Errorf("PublicKeyOf: got %q, want %q", got, c.wantText)
			}
			for kind, pair := range pairs {
				if same := key != nil && pki.SameKey(pair.Leaf.PublicKey, key); same != (kind == c.of) {
					t.Errorf("SameKey with the %s certificate: got %v", kind, same)
				}
			}
		})
	}
}

func TestErrorsHoldNothingOfTheKey(t *testing.T) {
	const marker = "MARKER"
	for _, data := range []string{
		marker,
		"-----BEGIN RSA PRIVATE KEY-----\nTUFSS0VS\n-----END RSA PRIVATE KEY-----\n",
		"-----BEGIN PRIVATE KEY-----\n" + marker + "\n-----END PRIVATE KEY-----\n",
	} {
		_, err := pki.PublicKeyOf([]byte(data))
		if err == nil {
			t.Fatalf("PublicKeyOf(%q): no error", data)
		}
		if strings.Contains(err.Error(), marker) || strings.Contains(err.Error(), "TUFS") {
			t.Errorf("the error quotes what was read: %v", err)
		}
	}
}

// FuzzParse: no input makes a parser panic, and each parser returns a certificate or key, or an error.
func FuzzParse(f *testing.F) {
	ca := pkitest.NewCA("signer")
	for _, c := range chainCases(f, ca, ca.Issue(pkitest.KubeletClient())) {
		f.Add([]byte(c.data))
	}
	for _, c := range keyCases(f, ca, pairsOf(ca)) {
		f.Add(c.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if chain, err := pki.ParseChain(data); (err == nil) != (chain.Leaf != nil) {
			t.Errorf("ParseChain: leaf %v with error %v", chain.Leaf, err)
		}
		bundle, err := pki.ParseBundle(data)
		if (err == nil) != (len(bundle.CAs) > 0) {
			t.Errorf("ParseBundle: %d certificates with error %v", len(bundle.CAs), err)
		}
		if pool, poolErr := pki.ParsePool(data); poolErr == nil && len(pool.CAs) == 0 && pool.Unusable == nil ||
			len(pool.CAs) < len(bundle.CAs) {
			t.Errorf("ParsePool: %d certificates with error %v", len(pool.CAs), poolErr)
		}
		if key, err := pki.PublicKeyOf(data); (err == nil) != (key != nil) {
			t.Errorf("PublicKeyOf: key %T with error %v", key, err)
		} else if err == nil && !pki.SameKey(key, key) {
			t.Errorf("PublicKeyOf: %s is not the same as itself", pki.Describe(key))
		}
		if len(data) > pki.MaxBytes {
			if _, err := pki.ParseChain(data); !errors.Is(err, pki.ErrTooLarge) {
				t.Errorf("ParseChain of %d bytes: %v", len(data), err)
			}
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

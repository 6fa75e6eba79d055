// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"bytes"
	"crypto/dsa" //nolint:staticcheck // a key that TLS does not support
	"crypto/ecdh"
	"crypto/fips140"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// slhdsa is a signature algorithm that crypto/x509 does not support.
const slhdsa = "2.16.840.1.101.3.4.3.20"

// TestAlgorithms: every error about a key that TLS does not support has its algorithm, whether or not
// crypto/x509 parses its certificate. TestMLDSA has the algorithms that only Go 1.27 supports.
func TestAlgorithms(t *testing.T) {
	page := messages.Record(t, "errors of keys that TLS does not take")
	good := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	for name, algorithm := range pkitest.Algorithms() {
		if strings.HasPrefix(name, "ML-DSA") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			certificate := algorithm.Certificate(slhdsa)
			block, _ := pem.Decode(certificate)
			parsed, parserErr := x509.ParseCertificate(block.Bytes)
			named := []string{name}
			if parserErr != nil {
				named = []string{name, "SLH-DSA-SHA2-128s", parserErr.Error()}
			} else if got := [2]string{pki.KeyOf(parsed), pki.SignatureOf(parsed)}; got != [2]string{name, "SLH-DSA-SHA2-128s"} {
				t.Errorf("KeyOf and SignatureOf: got %q", got)
			}
			mentions := func(what string, err error, values ...string) {
				t.Helper()
				page.Text(what, strings.ReplaceAll(text(err), values[0], "<key>"))
				for _, value := range values {
					if !strings.Contains(text(err), value) {
						t.Errorf("%s: got %q, which does not mention %q", what, text(err), value)
					}
				}
			}
			_, err := pki.ParseChain(certificate)
			mentions("first", err, named...)
			chain, err := pki.ParseChain(good.ChainWith(certificate))
			if err != nil {
				t.Errorf("ParseChain, behind a leaf: %v", err)
			}
			mentions("second", errors.Join(chain.RestErr, chain.SkippedErr), named...)
			_, err = pki.ParseBundle(certificate)
			mentions("in a CA bundle", err, named...)

			// The size of a private key is not read, since it is in the private half.
			key := strings.TrimRight(name, " 0123456789")
			if !strings.HasPrefix(key, "RSA") {
				key = name
			}
			_, err = pki.PublicKeyOf(algorithm.PrivateKey([]byte("secret")))
			mentions("private key", err, key, `"PRIVATE KEY"`)
			if !strings.HasPrefix(name, "ECDSA") {
				return
			}
			_, err = pki.PublicKeyOf(algorithm.SEC1PrivateKey([]byte("secret")))
			mentions("private key", err, name, `"EC PRIVATE KEY"`)
		})
	}
}

// TestSignatureNames: the names of signature algorithms, which are those of crypto/x509 if it supports them.
func TestSignatureNames(t *testing.T) {
	cases := map[string]string{
		"1.2.840.113549.1.1.2":    "MD2-RSA",
		"1.2.840.113549.1.1.4":    "MD5-RSA",
		"1.2.840.113549.1.1.5":    "SHA1-RSA",
		"1.3.14.3.2.29":           "SHA1-RSA",
		"1.2.840.113549.1.1.10":   "RSASSA-PSS",
		"1.2.840.113549.1.1.11":   "SHA256-RSA",
		"1.2.840.10040.4.3":       "DSA-SHA1",
		"2.16.840.1.101.3.4.3.2":  "DSA-SHA256",
		"1.2.840.10045.4.1":       "ECDSA-SHA1",
		"1.2.840.10045.4.3.2":     "ECDSA-SHA256",
		"1.2.840.10045.4.3.4":     "ECDSA-SHA512",
		"2.16.840.1.101.3.4.3.10": "ECDSA-SHA3-256",
		"2.16.840.1.101.3.4.3.14": "SHA3-256-RSA",
		"1.3.101.112":             "Ed25519",
		"1.3.101.113":             "Ed448",
		"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
		"1.2.643.7.1.1.3.2":       "GOST R 34.10-2012 of 256 bits",
		"1.2.156.10197.1.501":     "SM2 with SM3",
		"1.2.3.4.5":               "OID 1.2.3.4.5",
	}
	for oid, want := range cases {
		t.Run(want, func(t *testing.T) {
			block, _ := pem.Decode(pkitest.Algorithms()["Ed448"].Certificate(oid))
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if got := pki.SignatureOf(certificate); got != want {
				t.Errorf("SignatureOf: got %q, want %q", got, want)
			}
			if certificate.SignatureAlgorithm != x509.UnknownSignatureAlgorithm &&
				certificate.SignatureAlgorithm.String() != want {
				t.Errorf("crypto/x509 calls it %s", certificate.SignatureAlgorithm)
			}
		})
	}
}

// TestDescribe: keys without a certificate, and values that are not keys.
func TestDescribe(t *testing.T) {
	var agreement *ecdh.PublicKey
	var err error
	fips140.WithoutEnforcement(func() { agreement, err = ecdh.X25519().NewPublicKey(bytes.Repeat([]byte{9}, 32)) })
	if err != nil {
		t.Fatal(err)
	}
	for want, key := range map[string]any{
		"X25519": agreement, "of an unknown algorithm": nil, "of an unknown  algorithm": &dsa.PublicKey{},
	} {
		if got := pki.Describe(key); got != strings.Join(strings.Fields(want), " ") {
			t.Errorf("Describe(%T): got %q, want %q", key, got, want)
		}
	}
	for kind, pair := range pairsOf(pkitest.NewCA("signer")) {
		if got := [2]string{pki.Describe(pair.Leaf.PublicKey), pki.KeyOf(pair.Leaf)}; got != [2]string{
			string(kind),
			string(kind),
		} {
			t.Errorf("Describe and KeyOf: got %q, want %q", got, kind)
		}
	}
	if key, signature := pki.KeyOf(&x509.Certificate{}), pki.SignatureOf(&x509.Certificate{}); key == "" ||
		key != signature {
		t.Errorf("of no certificate: %q and %q", key, signature)
	}
}

// TestUnreadableAlgorithms: a truncated structure, an invalid object identifier, and one that is too long.
func TestUnreadableAlgorithms(t *testing.T) {
	page := messages.Record(t, "errors of algorithms that cannot be read")
	ed448 := pkitest.Algorithms()["Ed448"].Certificate(slhdsa)
	block, _ := pem.Decode(ed448)
	der := func(of []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: of}) }
	id := []byte{0x06, 0x03, 0x2b, 0x65, 0x71}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"cut off":            {der(block.Bytes[:len(block.Bytes)-1]), "x509: malformed certificate"},
		"no OID":             {der(bytes.Replace(block.Bytes, id, []byte{0x04, 0x03, 0x2b, 0x65, 0x71}, 1)), "signature: SLH-DSA-SHA2-128s"},
		"OID without an end": {der(bytes.Replace(block.Bytes, id, []byte{0x06, 0x03, 0x2b, 0x65, 0xf1}, 1)), "signature: SLH-DSA-SHA2-128s"},
		"OID of 65 bytes":    {pkitest.Algorithm{OID: "1.2" + strings.Repeat(".3", 64)}.Certificate(slhdsa), ""},
		"OID of 64 bytes":    {pkitest.Algorithm{OID: "1.2" + strings.Repeat(".3", 63)}.Certificate(slhdsa), "OID 1.2" + strings.Repeat(".3", 63)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pki.ParseChain(c.data)
			page.Error(name, err)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that mentions %q", err, c.want)
			}
		})
	}
}

// TestNumberOf: the number of the certificate with a key, counting blocks that cannot be parsed.
func TestNumberOf(t *testing.T) {
	ca := pkitest.NewCA("signer")
	pair, other := ca.Issue(pkitest.KubeletClient()), ca.Issue(pkitest.KubeletClient())
	garbage := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")})
	files := func(of ...[]byte) []byte { return bytes.Join(of, nil) }
	for name, c := range map[string]struct {
		data []byte
		want int
	}{
		"leaf first":         {files(pair.Certificate, ca.PEM()), 1},
		"CA first":           {files(ca.PEM(), pair.Certificate), 2},
		"behind garbage":     {files(ca.PEM(), garbage, other.Certificate, pair.Certificate), 4},
		"of another pair":    {files(other.Certificate, ca.PEM()), 0},
		"twice":              {files(ca.PEM(), pair.Certificate, pair.Certificate), 2},
		"no certificate":     {nil, 0},
		"a key in between":   {files(ca.PEM(), pair.Key, pair.Certificate), 2},
		"garbage and no key": {files(ca.PEM(), garbage), 0},
	} {
		t.Run(name, func(t *testing.T) {
			chain, _ := pki.ParseChain(c.data)
			if got := chain.NumberOf(pair.Leaf.PublicKey); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestContainsPrivateKey(t *testing.T) {
	pair := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	encrypted, legacy := pkitest.EncryptedKeys()
	begin := func(label string) []byte { return []byte("-----BEGIN " + label + "-----\nAAAA\n") }
	for name, c := range map[string]struct {
		data []byte
		want bool
	}{
		"nothing":               {nil, false},
		"certificates":          {pair.ChainWith(pair.Certificate), false},
		"PKCS #8, behind":       {pair.ChainWith(pair.Key), true},
		"PKCS #8, in front":     {append(bytes.Clone(pair.Key), pair.Certificate...), true},
		"SEC 1":                 {pair.ChainWith(pair.LegacyKey()), true},
		"encrypted":             {encrypted, true},
		"encrypted, legacy":     {legacy, true},
		"of OpenSSH":            {begin("OPENSSH PRIVATE KEY"), true},
		"DSA, cut off":          {begin("DSA PRIVATE KEY"), true},
		"indented":              {append([]byte("  "), pair.Key...), true},
		"Windows line ends":     {bytes.ReplaceAll(pair.ChainWith(pair.Key), []byte("\n"), []byte("\r\n")), true},
		"behind a damaged one":  {append([]byte("-----BEGIN CERTIFICATE"), pair.Key...), true},
		"a public key":          {begin("PUBLIC KEY"), false},
		"parameters":            {begin("EC PARAMETERS"), false},
		"the words in a text":   {pair.ChainWith([]byte("the PRIVATE KEY is elsewhere\n")), false},
		"a label without end":   {[]byte("-----BEGIN PRIVATE KEY"), false},
		"begins in a row":       {bytes.Repeat([]byte("-----BEGIN "), 1000), false},
		"a label over two rows": {[]byte("-----BEGIN X\nPRIVATE KEY-----"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pki.ContainsPrivateKey(c.data); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
		})
	}
}

// FuzzAlgorithms: the algorithms of any certificate have a short name in one line.
func FuzzAlgorithms(f *testing.F) {
	for _, algorithm := range pkitest.Algorithms() {
		block, _ := pem.Decode(algorithm.Certificate(slhdsa))
		f.Add(block.Bytes)
		block, _ = pem.Decode(algorithm.PrivateKey([]byte("secret")))
		f.Add(block.Bytes)
		block, _ = pem.Decode(algorithm.SEC1PrivateKey([]byte("secret")))
		f.Add(block.Bytes)
	}
	for _, pair := range pairsOf(pkitest.NewCA("signer")) {
		f.Add(pair.Leaf.Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		certificate := &x509.Certificate{Raw: der, RawSubjectPublicKeyInfo: der}
		parsed, err := x509.ParseCertificate(der)
		if err == nil {
			certificate = parsed
			if parsed.PublicKeyAlgorithm == x509.RSA || parsed.PublicKeyAlgorithm == x509.ECDSA ||
				parsed.PublicKeyAlgorithm == x509.Ed25519 {
				if got, want := pki.KeyOf(parsed), pki.Describe(parsed.PublicKey); got != want {
					t.Errorf("KeyOf: got %q, want %q", got, want)
				}
			}
		}
		for _, name := range []string{pki.KeyOf(certificate), pki.SignatureOf(certificate)} {
			if len(name) == 0 || len(name) > 250 || strings.ContainsAny(name, "\n<>") {
				t.Errorf("the name %q", name)
			}
		}
		for _, kind := range []string{"CERTIFICATE", "PRIVATE KEY"} {
			file := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
			_, chainErr := pki.ParseChain(file)
			_, keyErr := pki.PublicKeyOf(file)
			if message := text(chainErr) + text(keyErr); strings.Contains(message, "<nil>") ||
				strings.Contains(message, "of a kind") {
				t.Errorf("an error without a name: %s", message)
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package pkitest

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	encoding "encoding/asn1"
	"encoding/pem"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Algorithm is a key algorithm. A test creates certificates and private keys with it that cannot
// be used: their structure is real, but their numbers are not.
type Algorithm struct {
	// OID of the algorithm, dotted.
	OID string
	// Parameters of the AlgorithmIdentifier (DER), nil for none.
	Parameters []byte
	// Key is the public key as the certificate's bits.
	Key []byte
}

// Algorithms returns algorithms that crypto/x509 or crypto/tls does not support, by the name that
// messages should have.
func Algorithms() map[string]Algorithm {
	const ec = "1.2.840.10045.2.1"
	null := []byte{5, 0}
	point := append([]byte{4}, make([]byte, 64)...)
	rsaKey := func(bits uint) []byte {
		n := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits), big.NewInt(1))
		return x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: n, E: 65537})
	}
	integers := func(values ...int64) []byte {
		return sequence(func(b *cryptobyte.Builder) {
			for _, value := range values {
				b.AddASN1Int64(value)
			}
		})
	}
	return map[string]Algorithm{
		"RSASSA-PSS 2048":                      {"1.2.840.113549.1.1.10", nil, rsaKey(2048)},
		"RSASSA-PSS 3072":                      {"1.2.840.113549.1.1.10", []byte{0x30, 0}, rsaKey(3072)},
		"RSAES-OAEP":                           {"1.2.840.113549.1.1.7", null, rsaKey(2048)},
		"RSA 2048":                             {"1.2.840.113549.1.1.1", nil, rsaKey(2048)}, // without the required NULL
		"X25519":                               {"1.3.101.110", nil, bytes.Repeat([]byte{9}, 32)},
		"X448":                                 {"1.3.101.111", nil, make([]byte, 56)},
		"Ed448":                                {"1.3.101.113", nil, make([]byte, 57)},
		"ML-DSA-44":                            {"2.16.840.1.101.3.4.3.17", nil, make([]byte, 1312)},
		"ML-DSA-65":                            {"2.16.840.1.101.3.4.3.18", nil, make([]byte, 1952)},
		"ML-DSA-87":                            {"2.16.840.1.101.3.4.3.19", nil, make([]byte, 2592)},
		"SLH-DSA-SHA2-128s":                    {"2.16.840.1.101.3.4.3.20", nil, make([]byte, 32)},
		"ML-KEM-768":                           {"2.16.840.1.101.3.4.4.2", nil, make([]byte, 1184)},
		"HSS/LMS":                              {"1.2.840.113549.1.9.16.3.17", nil, make([]byte, 60)},
		"DSA":                                  {"1.2.840.10040.4.1", integers(23, 11, 4), []byte{2, 1, 8}},
		"Diffie-Hellman":                       {"1.2.840.113549.1.3.1", integers(23, 5), []byte{2, 1, 8}},
		"GOST R 34.10-2001":                    {"1.2.643.2.2.19", null, make([]byte, 66)},
		"GOST R 34.10-2012 of 256 bits":        {"1.2.643.7.1.1.1.1", null, make([]byte, 66)},
		"GOST R 34.10-2012 of 512 bits":        {"1.2.643.7.1.1.1.2", null, make([]byte, 131)},
		"ECDSA brainpoolP256r1":                {ec, oid("1.3.36.3.3.2.8.1.1.7"), point},
		"ECDSA brainpoolP384r1":                {ec, oid("1.3.36.3.3.2.8.1.1.11"), point},
		"ECDSA brainpoolP512t1":                {ec, oid("1.3.36.3.3.2.8.1.1.14"), point},
		"ECDSA secp256k1":                      {ec, oid("1.3.132.0.10"), point},
		"ECDSA P-192":                          {ec, oid("1.2.840.10045.3.1.1"), point},
		"ECDSA SM2":                            {ec, oid("1.2.156.10197.1.301"), point},
		"ECDSA on curve 1.2.3.4":               {ec, oid("1.2.3.4"), point},
		"ECDSA with explicit curve parameters": {ec, integers(1, 2, 3), point},
		"ECDSA without a named curve":          {ec, null, point},
		"OID 1.3.6.1.4.1.99999.7":              {"1.3.6.1.4.1.99999.7", null, []byte{1}},
		// An arc of 128 bits, a UUID (ITU-T X.667).
		"OID 2.25.329800735698586629295641978511506172918": {"2.25.329800735698586629295641978511506172918", nil, []byte{1}},
	}
}

// Certificate returns a certificate (PEM) of a key of the algorithm, with the object identifier
// of a signature algorithm. Its signature is not valid.
func (a Algorithm) Certificate(signature string) []byte {
	subject := func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes(oid("2.5.4.3"))
					b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte("unusual")) })
				})
			})
		})
	}
	return certificatePEM(sequence(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
			b.AddASN1BigInt(serial())
			identifier(b, signature)
			subject(b)
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1UTCTime(Now().AddDate(0, 0, -1))
				b.AddASN1UTCTime(Now().AddDate(1, 0, 0))
			})
			subject(b)
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				a.identifier(b)
				b.AddASN1BitString(a.Key)
			})
		})
		identifier(b, signature)
		b.AddASN1BitString([]byte("no signature"))
	}))
}

// SignedWith returns the certificate (PEM) with another signature algorithm, so its signature is
// not valid.
func (p Pair) SignedWith(signature string) []byte {
	var certificate, tbs, version, number, bits cryptobyte.String
	input := cryptobyte.String(p.Leaf.Raw)
	if !input.ReadASN1(&certificate, asn1.SEQUENCE) || !certificate.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&version,
			asn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1Element(&number, asn1.INTEGER) ||
		!tbs.SkipASN1(
			asn1.SEQUENCE,
		) || !certificate.SkipASN1(asn1.SEQUENCE) || !certificate.ReadASN1Element(&bits, asn1.BIT_STRING) {
		panic("pkitest: no certificate")
	}
	return certificatePEM(sequence(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(version)
			b.AddBytes(number)
			identifier(b, signature)
			b.AddBytes(tbs) // the rest
		})
		identifier(b, signature)
		b.AddBytes(bits)
	}))
}

// PrivateKey returns a private key (PEM, PKCS #8) of the algorithm that contains the given bytes.
func (a Algorithm) PrivateKey(key []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: sequence(func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		a.identifier(b)
		b.AddASN1OctetString(key)
	})})
}

// SEC1PrivateKey returns a private key (PEM, SEC 1) of the algorithm, which must be one of
// curves, that contains the given bytes.
func (a Algorithm) SEC1PrivateKey(key []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sequence(func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1OctetString(key)
		b.AddASN1(asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(a.Parameters) })
	})})
}

func (a Algorithm) identifier(b *cryptobyte.Builder) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(oid(a.OID))
		b.AddBytes(a.Parameters)
	})
}

// identifier of an algorithm without parameters.
func identifier(b *cryptobyte.Builder, algorithm string) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(oid(algorithm)) })
}

// oid is an object identifier (DER).
func oid(dotted string) []byte {
	parsed := must(x509.ParseOID(dotted))
	return must(encoding.Marshal(encoding.RawValue{Tag: encoding.TagOID, Bytes: must(parsed.MarshalBinary())}))
}

func sequence(contents cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, contents)
	return must(b.Bytes())
}

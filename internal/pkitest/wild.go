// SPDX-License-Identifier: Apache-2.0

package pkitest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	encoding "encoding/asn1"
	"encoding/pem"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// RSAKey creates an RSA key of any size, with any odd public exponent and at least two primes, which crypto/rsa may
// refuse to create. It is in PKCS #1 form (PEM).
func RSAKey(bits, primes int, exponent int64) (*rsa.PublicKey, []byte) {
	one, e := big.NewInt(1), big.NewInt(exponent)
	for {
		n, phi, all := big.NewInt(1), big.NewInt(1), make([]*big.Int, primes)
		for i := range all {
			size := bits / primes
			if i == 0 {
				size = bits - (primes-1)*size
			}
			all[i] = unenforced(func() (*big.Int, error) { return rand.Prime(rand.Reader, size) })
			n.Mul(n, all[i])
			phi.Mul(phi, new(big.Int).Sub(all[i], one))
		}
		d := new(big.Int).ModInverse(e, phi)
		if d == nil || n.BitLen() != bits {
			continue
		}
		type factor struct{ Prime, Exponent, Coefficient *big.Int }
		key := struct {
			Version                   int
			N, E, D, P, Q, DP, DQ, QI *big.Int
			More                      []factor `asn1:"optional,omitempty"`
		}{
			N: n, E: e, D: d, P: all[0], Q: all[1],
			DP: new(big.Int).Mod(d, new(big.Int).Sub(all[0], one)), DQ: new(big.Int).Mod(d, new(big.Int).Sub(all[1], one)),
			QI: new(big.Int).ModInverse(all[1], all[0]),
		}
		product := new(big.Int).Mul(all[0], all[1])
		for _, prime := range all[2:] {
			key.Version = 1
			key.More = append(key.More, factor{
				prime, new(big.Int).Mod(d, new(big.Int).Sub(prime, one)), new(big.Int).ModInverse(product, prime),
			})
			product.Mul(product, prime)
		}
		return &rsa.PublicKey{N: n, E: int(exponent)},
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: must(encoding.Marshal(key))})
	}
}

// WithSerial returns the certificate of a pair (PEM) with the contents of another serial number, signed again by the
// CA, whose key must be ECDSA. crypto/x509 creates no certificate with a serial number that RFC 5280 forbids.
func (ca *CA) WithSerial(p Pair, number []byte) []byte {
	var certificate, tbs, version, algorithm cryptobyte.String
	input := cryptobyte.String(p.Leaf.Raw)
	if !input.ReadASN1(&certificate, asn1.SEQUENCE) || !certificate.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!certificate.ReadASN1Element(&algorithm, asn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&version, asn1.Tag(0).Constructed().ContextSpecific()) || !tbs.SkipASN1(asn1.INTEGER) {
		panic("pkitest: no certificate")
	}
	signed := sequence(func(b *cryptobyte.Builder) {
		b.AddBytes(version)
		b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(number) })
		b.AddBytes(tbs) // the rest
	})
	digest := sha256.Sum256(signed)
	signature := must(ca.key.Sign(rand.Reader, digest[:], crypto.SHA256))
	return certificatePEM(sequence(func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	}))
}

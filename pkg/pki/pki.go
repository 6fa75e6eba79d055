// SPDX-License-Identifier: Apache-2.0

// Package pki reads PEM as the programs do that will use it: kube-apiserver
// and openshift-apiserver load a pair with crypto/tls.X509KeyPair, so what
// that function ignores is ignored here and what it refuses is an error here.
//
// It does not judge: a certificate that has expired parses. It keeps no
// private key: of a key only the public half leaves [PublicKeyOf], and no
// error of this package holds bytes of what was read.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxBytes bounds every PEM text that is looked at: 1 MiB, the most that
	// a Secret may hold in all (k8s.io/api/core/v1.MaxSecretSize), so that a
	// file which came out of a Secret is never too large.
	MaxBytes = 1 << 20
	// MaxChain bounds the certificates of one chain. Chains here have 1 to 3;
	// crypto/tls refuses handshake messages over 64 KiB, which about 50
	// certificates of the usual size fill.
	MaxChain = 32
	// MaxChainDER bounds the certificates of a chain as they are sent, in bytes:
	// crypto/tls reads no longer certificate message (common.go,
	// maxHandshakeCertificateMsg), a little of which is not certificates.
	MaxChainDER = 256<<10 - 1<<10
	// MaxBundle bounds the certificates of one CA bundle. A kubelet's has
	// about ten; every signer that has not expired yet adds one.
	MaxBundle = 1000
	// MaxRSABits bounds RSA keys: crypto/tls refuses larger ones of its peer
	// (handshake_client.go, maxRSAKeySize), and the time to work with one
	// grows with the square of its size.
	MaxRSABits = 8192
	// minRSABits is what crypto/rsa signs with at the least (its package
	// documentation, "Minimum key size"), so that a smaller key loads and can
	// then do no handshake.
	minRSABits = 1024
	// maxKeyBytes bounds the DER of a private key: one of RSA 8192 has less
	// than 5 KiB.
	maxKeyBytes = 8 << 10
)

// parserWords is how much of the X.509 parser's own words is passed on: it
// quotes what it read, which may be long.
const parserWords = "%.200s"

// Errors that callers tell apart. All others mean that there is something,
// but not what was expected.
var (
	// ErrEmpty: not a byte, or white space only.
	ErrEmpty = errors.New("is empty")
	// ErrTooLarge: more than [MaxBytes].
	ErrTooLarge = fmt.Errorf("is larger than %d bytes", MaxBytes)
)

// Chain is what a PEM file with a leaf certificate holds.
type Chain struct {
	// Leaf is the first CERTIFICATE block; never nil without an error.
	Leaf *x509.Certificate
	// Rest are the certificates after it that could be parsed.
	Rest []*x509.Certificate
	// RestErr: a block behind the leaf is no certificate. TLS programs send it on
	// without looking at it, and crypto/tls at the other end gives the handshake
	// up (handshake_server.go, processCertsFromClient; handshake_client.go,
	// verifyServerCertificate).
	RestErr error
	// Doubt: something behind the leaf was passed over here that may be sent, or
	// was passed over by encoding/pem that was meant to be.
	Doubt error
}

// ParseChain reads one to [MaxChain] certificates, leaf first. Blocks of other
// types and text between blocks are skipped, as crypto/tls does. The error
// says why there is no leaf.
func ParseChain(data []byte) (Chain, error) {
	blocks, scanErr, err := certificateBlocks(data, MaxChain, func(*pem.Block) bool { return true })
	if err != nil {
		return Chain{}, err
	}
	leaf, err := x509.ParseCertificate(blocks[0])
	if err != nil {
		return Chain{}, fmt.Errorf("holds a CERTIFICATE block that is no X.509 certificate: "+parserWords, err)
	}
	if err := errors.Join(bearable(leaf), usable(leaf)); err != nil {
		return Chain{}, fmt.Errorf("holds a certificate %w", err)
	}
	chain := Chain{Leaf: leaf}
	for i, der := range blocks[1:] {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			chain.RestErr = fmt.Errorf("certificate %d of the chain is no X.509 certificate: "+parserWords, i+2, err)
			continue
		}
		if err := bearable(certificate); err != nil {
			chain.Doubt = fmt.Errorf("certificate %d of the chain is one %w", i+2, err)
			continue
		}
		chain.Rest = append(chain.Rest, certificate)
	}
	size := 0
	for _, der := range blocks {
		size += len(der)
	}
	if size > MaxChainDER && chain.RestErr == nil {
		chain.RestErr = fmt.Errorf("the certificates take %d bytes, more than TLS programs read", size)
	}
	chain.Doubt = errors.Join(chain.Doubt, scanErr)
	return chain, nil
}

// ParseBundle reads one to [MaxBundle] CA certificates, as the kubelet does
// (Kubernetes client-go/util/cert, ParseCertsPEM): blocks of other types and
// those with PEM headers are skipped, and so is what encoding/pem passes over;
// a certificate that does not parse fails the bundle. One with a key that
// nothing can be verified with is left out.
func ParseBundle(data []byte) ([]*x509.Certificate, error) {
	blocks, _, err := certificateBlocks(data, MaxBundle, func(b *pem.Block) bool { return len(b.Headers) == 0 })
	if err != nil {
		return nil, err
	}
	var bundle []*x509.Certificate
	for i, der := range blocks {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the bundle is no X.509 certificate: "+parserWords, i+1, err)
		}
		if bearable(certificate) == nil {
			bundle = append(bundle, certificate)
		}
	}
	if len(bundle) == 0 {
		return nil, errors.New("holds no certificate with a key that TLS can use")
	}
	return bundle, nil
}

// certificateBlocks returns the DER of the CERTIFICATE blocks in data, at
// least one without an error. scanErr tells of blocks that were left out: too
// many, or so damaged that encoding/pem passes over them silently.
func certificateBlocks(data []byte, most int, wanted func(*pem.Block) bool) (blocks [][]byte, scanErr, err error) {
	if err := bounded(data); err != nil {
		return nil, nil, err
	}
	announced, decoded := bytes.Count(data, []byte("-----BEGIN ")), 0
	for rest := data; len(blocks) < most; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		decoded++
		if block.Type == "CERTIFICATE" && wanted(block) {
			blocks = append(blocks, block.Bytes)
		}
	}
	switch {
	case len(blocks) == 0:
		return nil, nil, fmt.Errorf("holds no PEM block of type CERTIFICATE")
	case len(blocks) == most && decoded < announced:
		scanErr = fmt.Errorf("holds more than %d certificates; the others were not read", most)
	case decoded < announced:
		scanErr = fmt.Errorf("holds %d PEM blocks of which %d are damaged", announced, announced-decoded)
	}
	return blocks, scanErr, nil
}

// bearable says why nothing should be verified with the certificate's key, if
// so: it is of a kind that is not known here, or costs too much.
func bearable(certificate *x509.Certificate) error {
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits > MaxRSABits {
			return fmt.Errorf("with an RSA key of %d bits, more than the %d that TLS takes", bits, MaxRSABits)
		}
		return nil
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	}
	return errors.New("with a public key of a kind that TLS cannot use")
}

// usable says why the owner of the certificate can do no TLS handshake with
// its key, if so, although crypto/tls.X509KeyPair loads it. A CA is asked for
// no handshake.
func usable(certificate *x509.Certificate) error {
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("with an RSA key of %d bits, with which TLS cannot sign", bits)
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521(): // RFC 8446 4.2.3
		default:
			return fmt.Errorf("with an ECDSA key on curve %s, which TLS does not use", key.Params().Name)
		}
	}
	return nil
}

// PublicKeyOf returns the public half of the first private key in data (PEM;
// PKCS #1, PKCS #8 or SEC 1; RSA, ECDSA or Ed25519, unencrypted). The private
// half is dropped at once. Its errors never wrap those of the parsers, which
// may speak of the bytes they saw.
func PublicKeyOf(data []byte) (crypto.PublicKey, error) {
	if err := bounded(data); err != nil {
		return nil, err
	}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("holds no PEM block of a private key")
		}
		// The same test as in crypto/tls.X509KeyPair.
		if block.Type != "PRIVATE KEY" && !strings.HasSuffix(block.Type, " PRIVATE KEY") {
			continue
		}
		if len(block.Bytes) > maxKeyBytes {
			return nil, fmt.Errorf("holds a block %.32q of %d bytes, more than any private key has that TLS takes", block.Type, len(block.Bytes))
		}
		key, ok := parsePrivateKey(block.Bytes)
		if !ok {
			if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
				return nil, errors.New("holds an encrypted private key, which no server here can open")
			}
			return nil, fmt.Errorf("holds a block %.32q that is no private key in PKCS #1, PKCS #8 or SEC 1 form, or one of a kind or size that TLS here refuses", block.Type)
		}
		return key.Public(), nil
	}
}

// parsePrivateKey tries the forms in the order of crypto/tls and takes the
// kinds of key that it takes.
func parsePrivateKey(der []byte) (crypto.Signer, bool) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, true
	}
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		switch key := key.(type) {
		case *rsa.PrivateKey:
			return key, true
		case *ecdsa.PrivateKey:
			return key, true
		case ed25519.PrivateKey:
			return key, true
		}
		return nil, false
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, true
	}
	return nil, false
}

// SameKey reports whether two public keys are the same one. Keys of kinds
// that cannot be compared are not.
func SameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && key.Equal(b)
}

// Fingerprint is the SHA-256 of the certificate's DER in lowercase hex.
func Fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// Describe names a public key in a few words: "RSA 2048", "ECDSA P-256".
func Describe(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", key)
}

func bounded(data []byte) error {
	if len(data) > MaxBytes {
		return ErrTooLarge
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return ErrEmpty
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package pki reads PEM files as the programs that use them do: kube-apiserver and openshift-apiserver load a pair with
// crypto/tls.X509KeyPair, so this package ignores what that function ignores, and refuses what it refuses.
//
// It only parses: an expired certificate is no error. It keeps no private key: [PublicKeyOf] returns the public half
// only. Errors contain no bytes of the input except names of algorithms ([KeyOf]) and labels of PEM blocks.
package pki

import (
	"bytes"
	"cmp"
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
	// MaxBytes is the limit for each PEM text: 1 MiB, the limit for a whole Secret
	// (k8s.io/api/core/v1.MaxSecretSize), so that a file from a Secret is never too large.
	MaxBytes = 1 << 20
	// MaxChain is the limit for the certificates of a chain. Usual chains have 1 to 3.
	// crypto/tls refuses handshake messages over 64 KiB, which is about 50 certificates of
	// the usual size.
	MaxChain = 32
	// MaxChainDER is the limit for the certificates of a chain in bytes, as they are sent:
	// the limit of crypto/tls for a certificate message (common.go,
	// maxHandshakeCertificateMsg), less 1 KiB for the other parts of the message.
	MaxChainDER = 256<<10 - 1<<10
	// MaxBundle is the limit for the certificates of a CA bundle. A kubelet's has about ten:
	// one for each signer that has not expired.
	MaxBundle = 1000
	// MaxRSABits is the limit for RSA keys: crypto/tls refuses larger keys of its peer
	// (handshake_client.go, maxRSAKeySize), and the time for an operation grows with the
	// square of the size.
	MaxRSABits = 8192
	// minRSABits is the smallest key that crypto/rsa signs with (its package documentation,
	// "Minimum key size"). A smaller key loads, but every handshake with it fails.
	minRSABits = 1024
	// maxKeyBytes is the limit for the DER of a private key. RSA 8192 has less than 5 KiB.
	maxKeyBytes = 8 << 10
	// maxLabelBytes is the limit for the label of a PEM block.
	maxLabelBytes = 80
)

// parserText formats an error of the X.509 parser. It is truncated: the parser quotes its input, which may be long.
const parserText = "%.200s"

// Errors that callers distinguish. All other errors mean that the text is not what was expected.
var (
	// ErrEmpty: the text is empty, or white space only.
	ErrEmpty = errors.New("is empty")
	// ErrTooLarge: the text has more than [MaxBytes].
	ErrTooLarge = fmt.Errorf("is larger than %d bytes", MaxBytes)
)

// Chain has the certificates of a PEM file that begins with a leaf certificate.
type Chain struct {
	// Leaf is the first CERTIFICATE block. It is not nil unless there is an error.
	Leaf *x509.Certificate
	// Rest are the certificates after the leaf that could be parsed.
	Rest []*x509.Certificate
	// restNumbers are their numbers in the file. The leaf is number 1.
	restNumbers []int
	// RestErr: a block after the leaf is not a certificate. TLS programs send it without
	// parsing it, and crypto/tls at the other end fails the handshake (handshake_server.go,
	// processCertsFromClient; handshake_client.go, verifyServerCertificate).
	RestErr error
	// SkippedErr: a block after the leaf was skipped. Either TLS programs may send it, or it is
	// damaged, so that encoding/pem skips it.
	SkippedErr error
}

// ParseChain reads one to [MaxChain] certificates, the leaf first. It skips blocks of other types and text between
// blocks, as crypto/tls does. An error means that there is no usable leaf.
func ParseChain(data []byte) (Chain, error) {
	blocks, scanErr, err := certificateBlocks(data, MaxChain, func(*pem.Block) bool { return true })
	if err != nil {
		return Chain{}, err
	}
	leaf, err := x509.ParseCertificate(blocks[0])
	if err != nil {
		return Chain{}, parseError("contains a CERTIFICATE block that", blocks[0], err)
	}
	if err := cmp.Or(checkKey(leaf), checkLeafKey(leaf)); err != nil {
		return Chain{}, fmt.Errorf("contains a certificate with %w", err)
	}
	chain := Chain{Leaf: leaf}
	for i, der := range blocks[1:] {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			chain.RestErr = parseError(fmt.Sprintf("certificate %d of the chain", i+2), der, err)
			continue
		}
		if err := checkKey(certificate); err != nil {
			chain.SkippedErr = fmt.Errorf("certificate %d of the chain has %w", i+2, err)
			continue
		}
		chain.Rest, chain.restNumbers = append(chain.Rest, certificate), append(chain.restNumbers, i+2)
	}
	size := 0
	for _, der := range blocks {
		size += len(der)
	}
	if size > MaxChainDER && chain.RestErr == nil {
		chain.RestErr = fmt.Errorf("the certificates have %d bytes, more than TLS programs accept", size)
	}
	chain.SkippedErr = errors.Join(chain.SkippedErr, scanErr)
	return chain, nil
}

// Bundle has the certificates of a CA bundle.
type Bundle struct {
	// CAs are the certificates whose key can verify a signature.
	CAs []*x509.Certificate
	// Unusable says what else is in the bundle, at most [maxUnusable] certificates by their number and algorithm. It is
	// nil if every certificate can be used. A certificate that no CA of the bundle signed may be signed by one of these.
	Unusable error
}

// ParseBundle reads one to [MaxBundle] CA certificates, as the kubelet does (Kubernetes client-go/util/cert,
// ParseCertsPEM): it skips blocks of other types, blocks with PEM headers, and damaged blocks, which
// encoding/pem skips. A certificate that cannot be parsed is an error, and so is a bundle without any CA that can be
// used.
func ParseBundle(data []byte) (Bundle, error) {
	bundle, unparsable, err := parseBundle(data)
	switch {
	case err != nil:
		return Bundle{}, err
	case unparsable != nil:
		return Bundle{}, unparsable
	case len(bundle.CAs) == 0:
		return Bundle{}, fmt.Errorf("contains no CA that can be used: %w", bundle.Unusable)
	}
	return bundle, nil
}

// ParsePool reads a CA bundle as the kube-apiserver reads its CAs for kubelets
// ([x509.CertPool.AppendCertsFromPEM]): also a certificate that cannot be parsed is skipped. An error means that
// there is no certificate. The bundle may have no CA that can be used.
func ParsePool(data []byte) (Bundle, error) {
	bundle, _, err := parseBundle(data)
	return bundle, err
}

// Pool returns the CAs of the bundle as a pool.
func (b Bundle) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range b.CAs {
		pool.AddCert(ca)
	}
	return pool
}

// maxUnusable is the limit for the certificates that [Bundle.Unusable] names.
const maxUnusable = 2

// parseBundle reads a CA bundle. unparsable is the error for the first certificate that cannot be parsed.
func parseBundle(data []byte) (bundle Bundle, unparsable, err error) {
	withHeaders := 0
	blocks, scanErr, err := certificateBlocks(data, MaxBundle, func(b *pem.Block) bool {
		if len(b.Headers) > 0 {
			withHeaders++
		}
		return len(b.Headers) == 0
	})
	if err != nil {
		return Bundle{}, nil, err
	}
	var unusable []string
	for i, der := range blocks {
		what := fmt.Sprintf("certificate %d of the bundle", i+1)
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			err = parseError(what, der, err)
			unusable = append(unusable, err.Error())
			unparsable = cmp.Or(unparsable, err)
			continue
		}
		if err := checkKey(certificate); err != nil {
			unusable = append(unusable, what+" has "+err.Error())
			continue
		}
		bundle.CAs = append(bundle.CAs, certificate)
	}
	if more := len(unusable) - maxUnusable; more > 0 {
		unusable = append(unusable[:maxUnusable], fmt.Sprintf("%d more cannot be used either", more))
	}
	if withHeaders > 0 {
		unusable = append(unusable, fmt.Sprintf("blocks with PEM headers, which Kubernetes skips: %d", withHeaders))
	}
	if scanErr != nil {
		unusable = append(unusable, scanErr.Error())
	}
	if len(unusable) > 0 {
		bundle.Unusable = errors.New(strings.Join(unusable, "; "))
	}
	return bundle, unparsable, nil
}

// NumberOf returns the number in the file of the certificate with this public key: 1 for the leaf, 0 if no certificate
// has it.
func (c Chain) NumberOf(key crypto.PublicKey) int {
	if c.Leaf != nil && SameKey(c.Leaf.PublicKey, key) {
		return 1
	}
	for i, certificate := range c.Rest {
		if SameKey(certificate.PublicKey, key) {
			return c.restNumbers[i]
		}
	}
	return 0
}

// parseError returns the error for a block that crypto/x509 does not parse. If the block is a certificate nevertheless,
// the error has its algorithms, which the parser's error does not have.
func parseError(what string, der []byte, err error) error {
	key, signature, ok := algorithmsOf(der)
	if !ok {
		return fmt.Errorf("%s is not an X.509 certificate: "+parserText, what, err)
	}
	refused := fmt.Errorf("%s is refused by Go's crypto/x509 (key: %s; signature: %s): "+parserText,
		what, key, signature, err)
	if isMLDSA(key) && !SupportsMLDSA() {
		return &MLDSAError{Algorithm: key, err: refused}
	}
	return refused
}

// certificateBlocks returns the DER of the CERTIFICATE blocks in data, at least one without an error. scanErr says that
// blocks were skipped: too many, or so damaged that encoding/pem skips them silently.
func certificateBlocks(data []byte, limit int, wanted func(*pem.Block) bool) (blocks [][]byte, scanErr, err error) {
	if err := checkSize(data); err != nil {
		return nil, nil, err
	}
	begun, decoded := bytes.Count(data, pemBegin), 0
	for rest := data; len(blocks) < limit; {
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
		return nil, nil, errors.New("contains no PEM block of type CERTIFICATE")
	case len(blocks) == limit && decoded < begun:
		scanErr = fmt.Errorf("the PEM text has more than %d certificates; the others were not read", limit)
	case decoded < begun:
		scanErr = fmt.Errorf("%s damaged", ofBlocks(begun-decoded, begun))
	}
	return blocks, scanErr, nil
}

// ofBlocks is the subject of a sentence about some of the PEM blocks.
func ofBlocks(some, all int) string {
	if some == 1 {
		return fmt.Sprintf("1 of %d PEM blocks is", all)
	}
	return fmt.Sprintf("%d of %d PEM blocks are", some, all)
}

// checkKey returns an error that describes the certificate's key if it must not be used to verify a signature:
// crypto/tls does not support its algorithm, or it takes too much time.
func checkKey(certificate *x509.Certificate) error {
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits > MaxRSABits {
			return fmt.Errorf("an RSA key of %d bits, more than the %d that TLS accepts", bits, MaxRSABits)
		}
		return nil
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	}
	return unsupported(certificate.PublicKey, "a key that Go's TLS does not support: ", KeyOf(certificate))
}

// checkLeafKey returns an error that describes the key if TLS 1.3 handshakes with the certificate's key fail, although
// crypto/tls.X509KeyPair loads it. It is not for CAs, which do no handshakes.
func checkLeafKey(certificate *x509.Certificate) error {
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("an RSA key of %d bits, too small for TLS", bits)
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521(): // RFC 8446 4.2.3
		default:
			return fmt.Errorf("an ECDSA key on curve %s, which TLS 1.3 does not use", key.Params().Name)
		}
	}
	return nil
}

// PublicKeyOf returns the public half of the first private key in data (PEM; PKCS #1, PKCS #8 or SEC 1; RSA, ECDSA,
// Ed25519 or, with Go 1.27, ML-DSA, unencrypted). It does not keep the private half. Its errors never wrap errors of
// the parsers, which may contain bytes of the key.
func PublicKeyOf(data []byte) (crypto.PublicKey, error) {
	if err := checkSize(data); err != nil {
		return nil, err
	}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("contains no PEM block of a private key")
		}
		// The same test as in crypto/tls.X509KeyPair.
		if block.Type != "PRIVATE KEY" && !strings.HasSuffix(block.Type, " PRIVATE KEY") {
			continue
		}
		if len(block.Bytes) > maxKeyBytes {
			return nil, fmt.Errorf("contains a block %.32q of %d bytes, too large for a private key (limit %d)",
				block.Type, len(block.Bytes), maxKeyBytes)
		}
		key, ok := parsePrivateKey(block.Bytes)
		if !ok {
			if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
				return nil, errors.New("contains an encrypted private key, which Kubernetes components cannot decrypt")
			}
			if algorithm, ok := privateKeyName(block.Bytes); ok {
				return nil, unsupported(nil,
					fmt.Sprintf("contains a block %.32q with a private key that Go's TLS does not support: ", block.Type), algorithm)
			}
			return nil, fmt.Errorf("contains a block %.32q that is not a private key in PKCS #1, PKCS #8 or SEC 1 format",
				block.Type)
		}
		return key.Public(), nil
	}
}

// parsePrivateKey tries the formats in the order of crypto/tls and accepts the same types of keys.
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
		case crypto.Signer:
			return key, isMLDSA(Describe(key.Public()))
		}
		return nil, false
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, true
	}
	return nil, false
}

// SameKey reports whether two public keys are equal. It is false for keys of types that cannot be compared.
func SameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && key.Equal(b)
}

// Fingerprint returns the SHA-256 of the certificate's DER in lowercase hex.
func Fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// Describe returns the algorithm and size of a public key: "RSA 2048", "ECDSA P-256". It is for keys without a
// certificate; [KeyOf] returns the same for the key of a certificate.
func Describe(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	if der, err := x509.MarshalPKIXPublicKey(key); err == nil {
		return KeyOf(&x509.Certificate{RawSubjectPublicKeyInfo: der})
	}
	return "of an unknown algorithm"
}

// ContainsPrivateKey reports whether a PEM block of a private key begins in a text, even if it cannot be decoded:
// a part of a key may be enough for an attacker.
func ContainsPrivateKey(data []byte) bool {
	for _, begin, found := bytes.Cut(data, pemBegin); found; _, begin, found = bytes.Cut(begin, pemBegin) {
		label, _, ended := bytes.Cut(begin[:min(len(begin), maxLabelBytes)], []byte("-----"))
		if ended && bytes.Contains(label, []byte("PRIVATE KEY")) && !bytes.ContainsAny(label, "\r\n") {
			return true
		}
	}
	return false
}

// pemBegin is the start of the first line of a PEM block (RFC 7468 3).
var pemBegin = []byte("-----BEGIN ")

func checkSize(data []byte) error {
	if len(data) > MaxBytes {
		return ErrTooLarge
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return ErrEmpty
	}
	return nil
}

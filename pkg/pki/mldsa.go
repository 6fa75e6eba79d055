// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"strconv"
	"strings"
)

// ML-DSA (FIPS 204) is the post-quantum signature algorithm of TLS 1.3 and X.509. Go 1.27 is the first release that
// supports it, except with version v1.0.0 of its FIPS module. Whether the programs of a cluster can use such a
// certificate depends on their Go, not on this program's.

// mldsaGo is the first minor version of Go that supports ML-DSA.
const mldsaGo = 27

// MLDSAError: this program cannot read an ML-DSA key, because of the Go release or the FIPS module that it was built
// with.
type MLDSAError struct {
	// Algorithm is ML-DSA-44, ML-DSA-65 or ML-DSA-87.
	Algorithm string

	err error
}

// Error says why the key cannot be used.
func (e *MLDSAError) Error() string { return e.err.Error() }

// unsupported returns the error for a key of an algorithm, nil if it is an ML-DSA key that was parsed.
func unsupported(parsed crypto.PublicKey, text, algorithm string) error {
	err := errors.New(text + algorithm)
	switch {
	case !isMLDSA(algorithm):
		return err
	case parsed != nil:
		return nil
	case SupportsMLDSA():
		return err // the key is damaged
	}
	return &MLDSAError{Algorithm: algorithm, err: err}
}

// SupportsMLDSA reports whether this program can read ML-DSA keys: it parses one.
func SupportsMLDSA() bool {
	const keyBytes = 1312 // FIPS 204, table 2: ML-DSA-44. Any bytes are a key (RFC 9881 4).
	header := []byte{
		0x30, 0x82, 0x05, 0x32, 0x30, 0x0b,
		0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x11, // 2.16.840.1.101.3.4.3.17
		0x03, 0x82, 0x05, 0x21, 0x00,
	}
	_, err := x509.ParsePKIXPublicKey(append(header, make([]byte, keyBytes)...))
	return err == nil
}

// isMLDSA reports whether a name of this package is that of an ML-DSA algorithm.
func isMLDSA(algorithm string) bool { return strings.HasPrefix(algorithm, "ML-DSA-") }

// MLDSAOf returns the ML-DSA algorithm of the key or else of the signature of a certificate, empty if both are of other
// algorithms.
func MLDSAOf(certificate *x509.Certificate) string {
	for _, algorithm := range []string{KeyOf(certificate), SignatureOf(certificate)} {
		if isMLDSA(algorithm) {
			return algorithm
		}
	}
	return ""
}

// GoSupportsMLDSA reports whether programs built with a Go release support ML-DSA. The version is that of
// [runtime.Version], as an API server reports it: "go1.27.4", "go1.27.4 X:name" or "devel go1.28-abcdef". known is
// false for any other text.
func GoSupportsMLDSA(version string) (supports, known bool) {
	rest, found := strings.CutPrefix(strings.TrimPrefix(version, "devel "), "go1.")
	if !found {
		return false, false
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	minor, err := strconv.Atoi(rest[:digits])
	return err == nil && minor >= mldsaGo, err == nil
}

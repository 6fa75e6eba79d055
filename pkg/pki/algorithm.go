// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"cmp"
	"crypto/x509"
	"math/bits"
	"strconv"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxOIDBytes is the limit for object identifiers that are written in dotted form.
	// The longest in the tables below has 11 bytes.
	maxOIDBytes = 64
	// unreadable is the text for an algorithm that cannot be read.
	unreadable = "an unknown algorithm"
)

// Object identifiers of algorithms for which the code reads parameters.
const (
	oidRSA    = "1.2.840.113549.1.1.1"
	oidRSAPSS = "1.2.840.113549.1.1.10"
	oidEC     = "1.2.840.10045.2.1"
	oidDSA    = "1.2.840.10040.4.1"
)

// algorithmNames has the names of key and signature algorithms by object identifier. Signature
// algorithms that crypto/x509 supports have its names.
var algorithmNames = map[string]string{
	// RFC 8017 appendix C, RFC 3279, RFC 4055.
	oidRSA:                  "RSA",
	"1.2.840.113549.1.1.2":  "MD2-RSA",
	"1.2.840.113549.1.1.3":  "MD4-RSA",
	"1.2.840.113549.1.1.4":  "MD5-RSA",
	"1.2.840.113549.1.1.5":  "SHA1-RSA",
	"1.3.14.3.2.29":         "SHA1-RSA", // OIW, still in use
	"1.2.840.113549.1.1.7":  "RSAES-OAEP",
	oidRSAPSS:               "RSASSA-PSS",
	"1.2.840.113549.1.1.11": "SHA256-RSA",
	"1.2.840.113549.1.1.12": "SHA384-RSA",
	"1.2.840.113549.1.1.13": "SHA512-RSA",
	"1.2.840.113549.1.1.14": "SHA224-RSA",
	"1.2.840.113549.1.1.15": "SHA512/224-RSA",
	"1.2.840.113549.1.1.16": "SHA512/256-RSA",
	"1.3.36.3.3.1.2":        "RIPEMD160-RSA", // TeleTrusT
	// RFC 3279 2.3.2, 2.3.3: DSA and Diffie-Hellman; PKCS #3.
	oidDSA:                 "DSA",
	"1.2.840.10040.4.3":    "DSA-SHA1",
	"1.2.840.10046.2.1":    "Diffie-Hellman",
	"1.2.840.113549.1.3.1": "Diffie-Hellman",
	// RFC 5758: with SHA-2.
	"2.16.840.1.101.3.4.3.1": "DSA-SHA224",
	"2.16.840.1.101.3.4.3.2": "DSA-SHA256",
	"1.2.840.10045.4.3.1":    "ECDSA-SHA224",
	"1.2.840.10045.4.3.2":    "ECDSA-SHA256",
	"1.2.840.10045.4.3.3":    "ECDSA-SHA384",
	"1.2.840.10045.4.3.4":    "ECDSA-SHA512",
	// RFC 5480, RFC 3279: elliptic curves.
	oidEC:               "ECDSA",
	"1.3.132.1.12":      "ECDH",
	"1.3.132.1.13":      "ECMQV",
	"1.2.840.10045.4.1": "ECDSA-SHA1",
	// NIST Computer Security Objects Register: with SHA-2 and SHA-3.
	"2.16.840.1.101.3.4.3.3":  "DSA-SHA384",
	"2.16.840.1.101.3.4.3.4":  "DSA-SHA512",
	"2.16.840.1.101.3.4.3.5":  "DSA-SHA3-224",
	"2.16.840.1.101.3.4.3.6":  "DSA-SHA3-256",
	"2.16.840.1.101.3.4.3.7":  "DSA-SHA3-384",
	"2.16.840.1.101.3.4.3.8":  "DSA-SHA3-512",
	"2.16.840.1.101.3.4.3.9":  "ECDSA-SHA3-224",
	"2.16.840.1.101.3.4.3.10": "ECDSA-SHA3-256",
	"2.16.840.1.101.3.4.3.11": "ECDSA-SHA3-384",
	"2.16.840.1.101.3.4.3.12": "ECDSA-SHA3-512",
	"2.16.840.1.101.3.4.3.13": "SHA3-224-RSA",
	"2.16.840.1.101.3.4.3.14": "SHA3-256-RSA",
	"2.16.840.1.101.3.4.3.15": "SHA3-384-RSA",
	"2.16.840.1.101.3.4.3.16": "SHA3-512-RSA",
	// RFC 8692: with SHAKE.
	"1.3.6.1.5.5.7.6.30": "RSASSA-PSS-SHAKE128",
	"1.3.6.1.5.5.7.6.31": "RSASSA-PSS-SHAKE256",
	"1.3.6.1.5.5.7.6.32": "ECDSA-SHAKE128",
	"1.3.6.1.5.5.7.6.33": "ECDSA-SHAKE256",
	// RFC 8410 3.
	"1.3.101.110": "X25519",
	"1.3.101.111": "X448",
	"1.3.101.112": "Ed25519",
	"1.3.101.113": "Ed448",
	// RFC 9881: FIPS 204. The forms that sign a hash are in the NIST register.
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
	"2.16.840.1.101.3.4.3.32": "HashML-DSA-44-SHA512",
	"2.16.840.1.101.3.4.3.33": "HashML-DSA-65-SHA512",
	"2.16.840.1.101.3.4.3.34": "HashML-DSA-87-SHA512",
	// RFC 9909: FIPS 205.
	"2.16.840.1.101.3.4.3.20": "SLH-DSA-SHA2-128s",
	"2.16.840.1.101.3.4.3.21": "SLH-DSA-SHA2-128f",
	"2.16.840.1.101.3.4.3.22": "SLH-DSA-SHA2-192s",
	"2.16.840.1.101.3.4.3.23": "SLH-DSA-SHA2-192f",
	"2.16.840.1.101.3.4.3.24": "SLH-DSA-SHA2-256s",
	"2.16.840.1.101.3.4.3.25": "SLH-DSA-SHA2-256f",
	"2.16.840.1.101.3.4.3.26": "SLH-DSA-SHAKE-128s",
	"2.16.840.1.101.3.4.3.27": "SLH-DSA-SHAKE-128f",
	"2.16.840.1.101.3.4.3.28": "SLH-DSA-SHAKE-192s",
	"2.16.840.1.101.3.4.3.29": "SLH-DSA-SHAKE-192f",
	"2.16.840.1.101.3.4.3.30": "SLH-DSA-SHAKE-256s",
	"2.16.840.1.101.3.4.3.31": "SLH-DSA-SHAKE-256f",
	// RFC 9935: FIPS 203.
	"2.16.840.1.101.3.4.4.1": "ML-KEM-512",
	"2.16.840.1.101.3.4.4.2": "ML-KEM-768",
	"2.16.840.1.101.3.4.4.3": "ML-KEM-1024",
	// RFC 9802.
	"1.2.840.113549.1.9.16.3.17": "HSS/LMS",
	"1.3.6.1.5.5.7.6.34":         "XMSS",
	"1.3.6.1.5.5.7.6.35":         "XMSS^MT",
	// RFC 4491, RFC 9215.
	"1.2.643.2.2.20":    "GOST R 34.10-94",
	"1.2.643.2.2.19":    "GOST R 34.10-2001",
	"1.2.643.2.2.3":     "GOST R 34.10-2001 with GOST R 34.11-94",
	"1.2.643.7.1.1.1.1": "GOST R 34.10-2012 of 256 bits",
	"1.2.643.7.1.1.1.2": "GOST R 34.10-2012 of 512 bits",
	"1.2.643.7.1.1.3.2": "GOST R 34.10-2012 of 256 bits",
	"1.2.643.7.1.1.3.3": "GOST R 34.10-2012 of 512 bits",
	// GM/T 0006 (RFC 8998 uses it).
	"1.2.156.10197.1.501": "SM2 with SM3",
}

// curveNames has the names of curves by object identifier.
var curveNames = map[string]string{
	// RFC 5480 2.1.1.1, with the names of SEC 2, or of NIST if it has one.
	"1.2.840.10045.3.1.1": "P-192",
	"1.3.132.0.33":        "P-224",
	"1.2.840.10045.3.1.7": "P-256",
	"1.3.132.0.34":        "P-384",
	"1.3.132.0.35":        "P-521",
	"1.3.132.0.1":         "sect163k1",
	"1.3.132.0.15":        "sect163r2",
	"1.3.132.0.26":        "sect233k1",
	"1.3.132.0.27":        "sect233r1",
	"1.3.132.0.16":        "sect283k1",
	"1.3.132.0.17":        "sect283r1",
	"1.3.132.0.36":        "sect409k1",
	"1.3.132.0.37":        "sect409r1",
	"1.3.132.0.38":        "sect571k1",
	"1.3.132.0.39":        "sect571r1",
	// SEC 2 version 2.
	"1.3.132.0.31": "secp192k1",
	"1.3.132.0.32": "secp224k1",
	"1.3.132.0.10": "secp256k1",
	// RFC 5639 appendix A.
	"1.3.36.3.3.2.8.1.1.1":  "brainpoolP160r1",
	"1.3.36.3.3.2.8.1.1.2":  "brainpoolP160t1",
	"1.3.36.3.3.2.8.1.1.3":  "brainpoolP192r1",
	"1.3.36.3.3.2.8.1.1.4":  "brainpoolP192t1",
	"1.3.36.3.3.2.8.1.1.5":  "brainpoolP224r1",
	"1.3.36.3.3.2.8.1.1.6":  "brainpoolP224t1",
	"1.3.36.3.3.2.8.1.1.7":  "brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.8":  "brainpoolP256t1",
	"1.3.36.3.3.2.8.1.1.9":  "brainpoolP320r1",
	"1.3.36.3.3.2.8.1.1.10": "brainpoolP320t1",
	"1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.12": "brainpoolP384t1",
	"1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
	"1.3.36.3.3.2.8.1.1.14": "brainpoolP512t1",
	// ANSSI, JORF 0241 of 2011-10-16.
	"1.2.250.1.223.101.256.1": "FRP256v1",
	// GM/T 0006.
	"1.2.156.10197.1.301": "SM2",
}

// KeyOf returns the algorithm and size of a certificate's public key, also if crypto/x509 does not support it. An
// unknown algorithm is named by its object identifier.
func KeyOf(certificate *x509.Certificate) string {
	info := cryptobyte.String(certificate.RawSubjectPublicKeyInfo)
	if !info.ReadASN1(&info, asn1.SEQUENCE) {
		return unreadable
	}
	return publicKeyName(info)
}

// SignatureOf returns the signature algorithm of a certificate, in the same way.
func SignatureOf(certificate *x509.Certificate) string {
	_, signature, _ := algorithmsOf(certificate.Raw)
	return signature
}

// algorithmsOf returns the algorithms of a certificate (DER): of its public key and of its signature. It reads only the
// fields up to these (RFC 5280 4.1), so it works for certificates that crypto/x509 refuses. ok is false if the
// structure is not that of a certificate.
func algorithmsOf(der []byte) (key, signature string, ok bool) {
	var certificate, tbs, algorithm, info cryptobyte.String
	input := cryptobyte.String(der)
	ok = input.ReadASN1(&certificate, asn1.SEQUENCE) &&
		certificate.ReadASN1(&tbs, asn1.SEQUENCE) &&
		certificate.ReadASN1(&algorithm, asn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) && // version
		tbs.SkipASN1(asn1.INTEGER) && // serialNumber
		tbs.SkipASN1(asn1.SEQUENCE) && // signature
		tbs.SkipASN1(asn1.SEQUENCE) && // issuer
		tbs.SkipASN1(asn1.SEQUENCE) && // validity
		tbs.SkipASN1(asn1.SEQUENCE) && // subject
		tbs.ReadASN1(&info, asn1.SEQUENCE)
	if !ok {
		return unreadable, unreadable, false
	}
	return publicKeyName(info), algorithmName(readOID(&algorithm)), true
}

// publicKeyName returns the algorithm of the key in the contents of a SubjectPublicKeyInfo.
func publicKeyName(info cryptobyte.String) string {
	var algorithm, key cryptobyte.String
	var unused uint8
	if !info.ReadASN1(&algorithm, asn1.SEQUENCE) {
		return unreadable
	}
	if info.ReadASN1(&key, asn1.BIT_STRING) && key.ReadUint8(&unused) && unused == 0 {
		return keyName(algorithm, key)
	}
	return keyName(algorithm, nil)
}

// keyName returns the algorithm of a key from the contents of its AlgorithmIdentifier, with the size of a public RSA
// key, or with the curve. key may be nil.
func keyName(algorithm, key cryptobyte.String) string {
	oid := readOID(&algorithm)
	text := algorithmName(oid)
	switch oid {
	case oidRSA, oidRSAPSS:
		// RFC 8017 A.1.1: the modulus comes first.
		var modulus cryptobyte.String
		if key.ReadASN1(&key, asn1.SEQUENCE) && key.ReadASN1(&modulus, asn1.INTEGER) {
			text += " " + strconv.Itoa(bitLen(modulus))
		}
	case oidEC:
		text += " " + curveName(algorithm)
	}
	return text
}

// curveName returns the name of a curve from its ECParameters. They are the name of a curve, explicit parameters, or
// NULL for the curve of the issuer's certificate (RFC 3279 2.3.5; RFC 5480 forbids the last two).
func curveName(parameters cryptobyte.String) string {
	switch {
	case parameters.PeekASN1Tag(asn1.OBJECT_IDENTIFIER):
		oid := readOID(&parameters)
		if text, known := curveNames[oid]; known {
			return text
		}
		return "on curve " + cmp.Or(oid, "without a valid OID")
	case parameters.PeekASN1Tag(asn1.SEQUENCE):
		return "with explicit curve parameters"
	}
	return "without a named curve"
}

// privateKeyName returns the algorithm of a private key (DER; PKCS #8, SEC 1, PKCS #1 or OpenSSL's format for DSA). It
// does not read the private half. ok is false for any other structure.
func privateKeyName(der []byte) (text string, ok bool) {
	var outer, skipped cryptobyte.String
	var version uint
	input := cryptobyte.String(der)
	if !input.ReadASN1(&outer, asn1.SEQUENCE) || !outer.ReadASN1Integer(&version) {
		return "", false
	}
	switch {
	case outer.PeekASN1Tag(asn1.SEQUENCE): // RFC 5958
		var algorithm cryptobyte.String
		if !outer.ReadASN1(&algorithm, asn1.SEQUENCE) || !outer.PeekASN1Tag(asn1.OCTET_STRING) {
			return "", false
		}
		return keyName(algorithm, nil), true
	case outer.PeekASN1Tag(asn1.OCTET_STRING): // RFC 5915
		var parameters cryptobyte.String
		if !outer.SkipASN1(asn1.OCTET_STRING) ||
			!outer.ReadOptionalASN1(&parameters, nil, asn1.Tag(0).Constructed().ContextSpecific()) {
			return "", false
		}
		return algorithmName(oidEC) + " " + curveName(parameters), true
	}
	var modulus cryptobyte.String
	integers := 0
	for ; outer.ReadASN1(&skipped, asn1.INTEGER); integers++ {
		if integers == 0 {
			modulus = skipped
		}
	}
	switch {
	case integers == 5: // p, q, g, y, x
		return algorithmName(oidDSA), true
	case integers >= 8: // RFC 8017 A.1.2
		return algorithmName(oidRSA) + " " + strconv.Itoa(bitLen(modulus)), true
	}
	return "", false
}

// readOID reads an object identifier and returns it in dotted form, or an empty text if it is not valid. It accepts
// numbers of any size, which cryptobyte's own reader does not.
func readOID(s *cryptobyte.String) string {
	var der cryptobyte.String
	var oid x509.OID
	if !s.ReadASN1(&der, asn1.OBJECT_IDENTIFIER) || len(der) > maxOIDBytes || oid.UnmarshalBinary(der) != nil {
		return ""
	}
	return oid.String()
}

// algorithmName returns the name of an algorithm, or its object identifier.
func algorithmName(oid string) string {
	switch text, known := algorithmNames[oid]; {
	case known:
		return text
	case oid == "":
		return unreadable
	}
	return "OID " + oid
}

// bitLen returns the size in bits of the number in the contents of an INTEGER.
func bitLen(integer cryptobyte.String) int {
	for len(integer) > 0 && integer[0] == 0 {
		integer = integer[1:]
	}
	if len(integer) == 0 {
		return 0
	}
	return 8*(len(integer)-1) + bits.Len8(integer[0])
}

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# crypto/x509 parses a certificate without an error and gives it no public key.
#
# Version:  Go 1.26 standard library, certificate made with Debian's openssl 3.0
# Input:    A self-signed certificate whose public key has the algorithm RSASSA-PSS (RFC 4055),
#           as `openssl req -newkey rsa-pss` makes it, and its private key.
# Expected: An error from ParseCertificate that names the algorithm, or an *rsa.PublicKey: it is
#           an RSA key. TLS 1.3 knows such certificates (rsa_pss_pss_sha256).
# Seen:         ParseCertificate:     error <nil>, algorithm 0, public key <nil>
#               ParsePKIXPublicKey:   error x509: unknown public key algorithm
#               ParsePKCS8PrivateKey: error x509: PKCS#8 wrapping contained private key with unknown
#                                     algorithm: 1.2.840.113549.1.1.10
#               tls.X509KeyPair:      error tls: failed to parse private key
#           The certificate passes. The pair fails with a message that sounds as if the key file
#           was damaged; the text of ParsePKCS8PrivateKey, which says why, is dropped.
# Relates:  A kubelet serving certificate is checked here together with its key. The reason for
#           such a pair names the algorithm (fixtures: internal/pkitest/algorithm.go).
# Thread:   https://github.com/golang/go/issues/48314 (open); for X25519 keys
#           https://github.com/golang/go/issues/70667
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

openssl version
openssl req -x509 -newkey rsa-pss -pkeyopt rsa_keygen_bits:2048 -nodes -days 30 -subj /CN=node.example \
	-keyout tls.key -out tls.crt 2>openssl.log || { cat openssl.log >&2; exit 2; }
cat >main.go <<'GO'
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func read(name string) (text, der []byte) {
	text, err := os.ReadFile(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	block, _ := pem.Decode(text)
	return text, block.Bytes
}

func main() {
	certPEM, certDER := read("tls.crt")
	keyPEM, keyDER := read("tls.key")

	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		fmt.Println("ParseCertificate:", err, "The behavior changed.")
		os.Exit(1)
	}
	fmt.Printf("ParseCertificate:     error %v, algorithm %v, public key %v\n",
		err, cert.PublicKeyAlgorithm, cert.PublicKey)
	_, publicErr := x509.ParsePKIXPublicKey(cert.RawSubjectPublicKeyInfo)
	fmt.Println("ParsePKIXPublicKey:   error", publicErr)
	_, privateErr := x509.ParsePKCS8PrivateKey(keyDER)
	fmt.Println("ParsePKCS8PrivateKey: error", privateErr)
	_, pairErr := tls.X509KeyPair(certPEM, keyPEM)
	fmt.Println("tls.X509KeyPair:      error", pairErr)

	if cert.PublicKey != nil || cert.PublicKeyAlgorithm != x509.UnknownPublicKeyAlgorithm ||
		publicErr == nil || privateErr == nil || pairErr == nil || pairErr.Error() != "tls: failed to parse private key" {
		fmt.Println("The behavior changed.")
		os.Exit(1)
	}
}
GO
{ go mod init example.com/finding && go build -o finding .; } >install.log 2>&1 || { cat install.log >&2; exit 2; }
./finding

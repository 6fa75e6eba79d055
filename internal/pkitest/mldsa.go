// SPDX-License-Identifier: Apache-2.0

//go:build go1.27

package pkitest

import (
	"crypto"
	"crypto/mldsa"
)

func newMLDSA(kind KeyKind) (crypto.Signer, error) {
	return mldsa.GenerateKey(map[KeyKind]mldsa.Parameters{
		MLDSA44: mldsa.MLDSA44(), MLDSA65: mldsa.MLDSA65(), MLDSA87: mldsa.MLDSA87(),
	}[kind])
}

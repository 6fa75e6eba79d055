// SPDX-License-Identifier: Apache-2.0

//go:build !go1.27

package pkitest

import (
	"crypto"
	"fmt"
	"runtime"
)

func newMLDSA(kind KeyKind) (crypto.Signer, error) {
	return nil, fmt.Errorf("%s cannot create keys of kind %s", runtime.Version(), kind)
}

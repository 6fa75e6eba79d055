// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// maxKeyMode has the permissions that a key file may have. OpenShift from 4.8 on and
// kubeadm set them (library-go
// pkg/operator/staticpod/installerpod/cmd.go; CIS OpenShift 1.1.21).
const maxKeyMode = 0o600

// fileMode: only root can read the private key.
func fileMode(c ClientFiles, _ time.Time) []finding.Result {
	key := c.key
	switch {
	case !key.found():
		// Repeat the result about the key, so that both are one finding.
		return []finding.Result{Unknown(keyParses(c.pair, time.Time{})[0])}
	case key.Mode.Perm()&^maxKeyMode != 0:
		return single(finding.KeyFileExposed, finding.File(key.Path),
			fmt.Sprintf("the private key file has mode %04o; it must be %04o or stricter", key.Mode.Perm(), maxKeyMode),
			"set its mode to 0600; renew certificate and key if somebody could have read the key")
	case key.ForeignOwner:
		return single(finding.KeyFileExposed, finding.File(key.Path),
			"the private key file is not owned by root",
			"run chown root:root on it; renew certificate and key if somebody could have read the key")
	}
	return nil
}

// found reports whether a regular file exists, readable or not.
func (f File) found() bool {
	return f.WhyUnknown == nil && f.Path != "" && f.Err == nil && f.Mode.IsRegular()
}

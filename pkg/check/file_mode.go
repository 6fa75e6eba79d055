// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// maxKeyMode are the permissions that a key file may have. All writers of
// OpenShift from 4.8 on and kubeadm use them (library-go
// pkg/operator/staticpod/installerpod/cmd.go; CIS OpenShift 1.1.21).
const maxKeyMode = 0o600

// fileMode: nobody but root can read the private key.
func fileMode(c ClientFiles, _ time.Time) []finding.Finding {
	key := c.key
	switch {
	case key.Mode.Perm()&^maxKeyMode != 0:
		return one(finding.KeyFileExposed, finding.Location(key.Path),
			fmt.Sprintf("the private key's file has mode %04o", key.Mode.Perm()),
			"chmod 0600 the file, and renew the pair if somebody may have read the key")
	case key.ForeignOwner:
		return one(finding.KeyFileExposed, finding.Location(key.Path),
			"the private key's file does not belong to root",
			"chown root:root the file, and renew the pair if somebody may have read the key")
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// configExists: there is a configuration. Without one nothing says that kubelets
// are spoken to over verified TLS.
func configExists(c Configuration, _ time.Time) []finding.Finding {
	if !c.Missing {
		return nil
	}
	return one(finding.ConfigMissing, c.At,
		"the kube-apiserver's configuration is not there",
		"see why the kube-apiserver operator did not write it")
}

// configReadable: it can be looked at.
func configReadable(c Configuration, _ time.Time) []finding.Finding {
	if c.seen() {
		return nil
	}
	return unreadable(c.At, "the kube-apiserver's configuration", c.ReadErr)
}

// configParsable: it has a shape that kube-apiserver reads (see package
// kubeapiserver).
func configParsable(c Configuration, _ time.Time) []finding.Finding {
	if c.Err == nil {
		return nil
	}
	return one(finding.ConfigUnparsable, c.At,
		"the kube-apiserver's configuration cannot be parsed: "+oneLine(c.Err),
		"see why the kube-apiserver operator did not write it, and undo edits by hand")
}

// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Bundle is a CA bundle in the cluster that Secrets are held against.
type Bundle struct {
	// At names it.
	At finding.Location
	// Missing: there is none.
	Missing bool
	// Err says what is wrong with it, as [pki.ParseBundle] does.
	Err error
}

// BundleFindings checks a CA bundle.
func BundleFindings(b Bundle, now time.Time) []finding.Finding {
	return runAll(bundleChecks(), b, now)
}

// LookedFor are the reasons for which [BundleFindings] could look.
func (b Bundle) LookedFor() []finding.Reason { return lookedFor(bundleChecks(), b) }

func bundleChecks() []check[Bundle] {
	return []check[Bundle]{
		{[]finding.Reason{finding.ClientCAUnavailable}, nil, bundleUsable},
	}
}

// bundleUsable: somebody's certificate can be held against it. OpenShift's
// operators write theirs at every rotation of a signer (library-go
// pkg/operator/certrotation/cabundle.go), so one that is of no use was spoilt.
func bundleUsable(b Bundle, _ time.Time) []finding.Finding {
	why := "it does not exist"
	switch {
	case b.Missing:
	case b.Err != nil:
		why = "it " + oneLine(b.Err)
	default:
		return nil
	}
	return one(finding.ClientCAUnavailable, b.At,
		"the CA bundle is not to be had, so who issued the certificates that are held against it was not checked: "+why,
		"restore it; whoever rotates the signers writes it, on OpenShift the kube-apiserver operator")
}

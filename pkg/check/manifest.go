// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"io/fs"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Manifest is the kube-apiserver's static pod manifest as it was found.
type Manifest struct {
	// At is its path on the host, or where it was looked for.
	At finding.Location
	// ReadErr says why it could not be read; it wraps [fs.ErrNotExist] where
	// there is none.
	ReadErr error
	// ParseErr says why what was read is not such a manifest.
	ParseErr error
}

// ManifestFindings checks a manifest.
func ManifestFindings(m Manifest, now time.Time) []finding.Finding {
	return runAll(manifestChecks(), m, now)
}

// LookedFor are the reasons for which [ManifestFindings] could look.
func (m Manifest) LookedFor() []finding.Reason { return lookedFor(manifestChecks(), m) }

func manifestChecks() []check[Manifest] {
	return []check[Manifest]{
		{[]finding.Reason{finding.Unreadable, finding.StaleMount}, nil, manifestReadable},
		{[]finding.Reason{finding.ManifestMissing}, Manifest.seen, manifestExists},
		{[]finding.Reason{finding.ManifestUnparsable}, Manifest.wasRead, manifestParsable},
	}
}

// seen: it is there or is not. wasRead: it is there.
func (m Manifest) seen() bool    { return m.wasRead() || errors.Is(m.ReadErr, fs.ErrNotExist) }
func (m Manifest) wasRead() bool { return m.ReadErr == nil }

// manifestExists: the manifest says with which files the kube-apiserver of
// this node runs. Without it nobody knows whether what was found elsewhere is
// what is used, so nothing is verified. (On a node that is not of the control
// plane there is none, and no agent should run.)
func manifestExists(m Manifest, _ time.Time) []finding.Finding {
	if m.wasRead() {
		return nil
	}
	return one(finding.ManifestMissing, m.At,
		"there is no static pod manifest of a kube-apiserver, so it is not known which files are used",
		"run the agent on control-plane nodes only, or name the files with --kubelet-client-dir")
}

// manifestReadable: it can be looked at.
func manifestReadable(m Manifest, _ time.Time) []finding.Finding {
	if m.seen() {
		return nil
	}
	return unreadable(m.At, "the kube-apiserver's manifest", m.ReadErr)
}

// manifestParsable: it is that of a kube-apiserver's Pod.
func manifestParsable(m Manifest, _ time.Time) []finding.Finding {
	if m.ParseErr == nil {
		return nil
	}
	return one(finding.ManifestUnparsable, m.At,
		"the kube-apiserver's manifest cannot be used: "+oneLine(m.ParseErr),
		"see what wrote it; the kubelet cannot start a kube-apiserver from it either")
}

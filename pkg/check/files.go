// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"io/fs"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// MaxFileBytes bounds every file that is read, see [pki.MaxBytes].
const MaxFileBytes = pki.MaxBytes

// File is a file as it was found.
type File struct {
	// Path on the host, absolute. Empty: no file was looked for, because none
	// is configured.
	Path string
	// Err says why there are no data: it wraps [fs.ErrNotExist] where there
	// is no file. Nil for a file that was read, for one that is not regular
	// (Mode tells) and for one that is too large (Size tells).
	Err error
	// Mode, Size and ForeignOwner are set where the file could be looked at.
	Mode fs.FileMode
	Size int64
	// ForeignOwner: the file belongs to somebody else than root.
	ForeignOwner bool
	// Data, at most [MaxFileBytes].
	Data []byte
}

// readable: there is a file whose data were read.
func (f File) readable() bool {
	return f.named() && f.Err == nil && f.Mode.IsRegular() && f.Size <= MaxFileBytes
}

// source is the file as one half of a pair. A file that is not there is an
// empty half; what cannot be read otherwise has a finding of its own.
func (f File) source() Source {
	return Source{
		At: finding.Location(f.Path), Data: f.Data,
		Hidden: !f.readable() && !f.missing(),
	}
}

// ClientFiles are the files by which a kube-apiserver shows itself to the
// kubelets: the facts of the checks on files. [NewClientFiles] makes them.
type ClientFiles struct {
	certificate, key, clientCA File
	pair                       KeyPair
	clientErr                  error // why the client CA could not be parsed
}

// NewClientFiles parses what is in the files, once for all checks. clientCA is
// the bundle by which the node's kubelet knows its clients; with an empty path
// the CA is not known and nothing is measured by it. expiringFraction is as in
// [Expectation].
func NewClientFiles(certificate, key, clientCA File, expiringFraction float64) ClientFiles {
	files := ClientFiles{certificate: certificate, key: key, clientCA: clientCA}
	var roots []*x509.Certificate
	if clientCA.readable() {
		roots, files.clientErr = pki.ParseBundle(clientCA.Data)
	}
	files.pair = NewKeyPair(certificate.source(), key.source(),
		Expectation{Usage: x509.ExtKeyUsageClientAuth, Roots: roots, ExpiringFraction: expiringFraction})
	return files
}

// Pair is the certificate and the key in the files.
func (c ClientFiles) Pair() KeyPair { return c.pair }

// Findings runs the checks on the files and on the pair in them.
func (c ClientFiles) Findings(now time.Time) []finding.Finding {
	findings := c.pair.Findings(now)
	findings = append(findings, runAll(fileChecks(), c.certificate, now)...)
	findings = append(findings, runAll(fileChecks(), c.key, now)...)
	findings = append(findings, runAll(filesChecks(), c, now)...)
	return finding.Sort(findings)
}

// LookedFor are the reasons for which [ClientFiles.Findings] could look: of what
// a file can be itself, those that it could of both.
func (c ClientFiles) LookedFor() []finding.Reason {
	ofKey := lookedFor(fileChecks(), c.key)
	ofBoth := slices.DeleteFunc(lookedFor(fileChecks(), c.certificate), func(r finding.Reason) bool { return !slices.Contains(ofKey, r) })
	return slices.Concat(c.pair.LookedFor(), ofBoth, lookedFor(filesChecks(), c))
}

// fileChecks look at one file of the pair.
func fileChecks() []check[File] {
	return []check[File]{
		{[]finding.Reason{finding.Unreadable, finding.StaleMount}, File.named, fileReadable},
		{[]finding.Reason{finding.NotRegularFile, finding.FileTooLarge}, File.seen, fileRegular},
	}
}

// filesChecks look at all files together.
func filesChecks() []check[ClientFiles] {
	return []check[ClientFiles]{
		{[]finding.Reason{finding.KeyFileExposed}, ClientFiles.hasKeyFile, fileMode},
		{[]finding.Reason{finding.UnexpectedIdentity}, ClientFiles.hasLeaf, fileIdentity},
		{[]finding.Reason{finding.ClientCAUnavailable}, ClientFiles.namesClientCA, fileClientCA},
	}
}

// named: a file was looked for.
func (f File) named() bool { return f.Path != "" }

// seen: it is known what is there, be it nothing.
func (f File) seen() bool { return f.named() && (f.Err == nil || f.missing()) }

func (c ClientFiles) hasKeyFile() bool {
	return c.key.named() && c.key.Err == nil && c.key.Mode.IsRegular()
}
func (c ClientFiles) hasLeaf() bool       { return c.pair.hasLeaf() }
func (c ClientFiles) namesClientCA() bool { return c.clientCA.named() }

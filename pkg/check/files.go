// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// MaxFileBytes is the limit for each file that is read, see [pki.MaxBytes].
const MaxFileBytes = pki.MaxBytes

// File is a file as it was read.
type File struct {
	// Path on the host, absolute. It is empty if no file is configured, or if it is not
	// known which one is.
	Path string
	// WhyUnknown says why it is not known which file it is.
	WhyUnknown *finding.Result
	// Err says why there are no data. It wraps [fs.ErrNotExist] if the file does not exist,
	// and [NotMountedError] or ESTALE if that is not known. It is nil for a file that was
	// read, that is not regular (see Mode), or that is too large (see Size).
	Err error
	// Mode, Size and ForeignOwner are set if stat succeeded.
	Mode fs.FileMode
	Size int64
	// ForeignOwner: the owner of the file is not root.
	ForeignOwner bool
	// Data, at most [MaxFileBytes].
	Data []byte
}

// problem says why the content of the file is not known. It is nil for a file that was read,
// and for one that does not exist: that is a known, empty half of a pair.
func (f File) problem() *finding.Result {
	var results []finding.Result
	switch at := finding.File(f.Path); {
	case f.WhyUnknown != nil:
		results = []finding.Result{Unknown(*f.WhyUnknown)}
	case f.missing():
	case f.Err != nil:
		results = unreadable(at, "it", f.Err)
	case !f.Mode.IsRegular():
		results = single(finding.NotRegularFile, at,
			"it is "+kindOfFile(f.Mode)+", not a regular file",
			"remove it, so that the program that renews the certificate can write the file")
	case f.Size > MaxFileBytes:
		results = single(finding.FileTooLarge, at,
			fmt.Sprintf("it is too large: %d bytes; a Secret can contain at most %d", f.Size, MaxFileBytes),
			"replace it with a PEM file")
	}
	if results == nil {
		return nil
	}
	return &results[0]
}

// missing reports whether the file does not exist, as opposed to one that cannot be read.
func (f File) missing() bool { return errors.Is(f.Err, fs.ErrNotExist) }

// hidden reports whether the agent cannot see the host's file, because of its mounts.
func (f File) hidden() bool {
	_, notMounted := errors.AsType[*NotMountedError](f.Err)
	return notMounted || errors.Is(f.Err, syscall.ESTALE)
}

// read reports whether the file exists and was read.
func (f File) read() bool { return f.problem() == nil && !f.missing() }

// source returns the file as one half of a pair. name is what the file contains, for people: the
// subject has it if there is no path.
func (f File) source(name string) Source {
	source := Source{At: finding.File(f.Path), Problem: f.problem()}
	if f.Path == "" {
		source.At.Name = name
	}
	if f.found() {
		source.Data = f.Data
	}
	return source
}

// ClientFiles are the kubelet client certificate and key of a kube-apiserver: the facts of
// the checks on files. Create it with [NewClientFiles].
type ClientFiles struct {
	certificate, key File
	pair             KeyPair
	identities       []layout.Identity
}

// NewClientFiles parses the files once for all checks. clientCA is the client CA bundle of the
// node's kubelet. kind is the layout of the node, for the subjects that the certificate may have and the program that
// writes it; the zero value if it is not known. For keys, goVersion and expiringFraction see [Expectation].
func NewClientFiles(
	certificate, key, clientCA File, kind layout.Layout, keys KeyPolicy, goVersion string,
	expiringFraction float64,
) ClientFiles {
	roots, problem := clientRoots(clientCA)
	pair := NewKeyPair(certificate.source("kubelet client certificate"), key.source("kubelet client key"), Expectation{
		Usage: x509.ExtKeyUsageClientAuth, Roots: roots.CAs, RootsUnusable: roots.Unusable, RootsProblem: problem,
		ExpiringFraction: expiringFraction, KeyPolicy: keys, GoVersion: goVersion, Writer: kind.Writer,
	})
	identities := kind.Identities
	if kind.Name == "" {
		identities = layout.Identities("")
	}
	return ClientFiles{certificate: certificate, key: key, pair: pair, identities: identities}
}

// Pair returns the certificate and key in the files.
func (c ClientFiles) Pair() KeyPair { return c.pair }

// Check answers the requirements of the files.
func (c ClientFiles) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	results, nextChange = c.pair.Check(finding.ClientFiles, now)
	return append(results, runChecks(finding.ClientFiles, filesChecks(), c, now, results...)...), nextChange
}

// filesChecks are the checks that need more than the pair.
func filesChecks() []check[ClientFiles] {
	certificateAt := func(c ClientFiles) finding.Subject { return c.pair.certificate.At }
	keyAt := func(c ClientFiles) finding.Subject { return c.pair.key.At }
	return []check[ClientFiles]{
		{finding.KeyFileMode, nil, []finding.Reason{finding.KeyFileExposed}, keyAt, fileMode},
		{
			finding.Identity, []finding.Aspect{finding.Certificate}, []finding.Reason{finding.UnexpectedIdentity},
			certificateAt, fileIdentity,
		},
	}
}

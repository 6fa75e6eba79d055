// SPDX-License-Identifier: Apache-2.0

// Package servingpair reads a server's certificate and key from files that are replaced when they
// are renewed.
package servingpair

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync/atomic"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
)

// maxFile bounds each file, in bytes.
const maxFile = 1 << 20

// Reader reads the files tls.crt and tls.key of a directory.
type Reader struct {
	// Flag is the flag that names the directory, and Directory its value, for errors.
	Flag, Directory string
	// Files is the directory.
	Files fs.FS

	pair atomic.Pointer[tls.Certificate]
	// read are the contents of the files of pair.
	read [2][]byte
}

// Pair returns the last valid certificate with its key; nil until there was one. Callers must not
// change it. It can be called while [Reader.Read] runs.
func (r *Reader) Pair() *tls.Certificate { return r.pair.Load() }

// Read reads the files, and uses them if they have changed. Files that are missing or invalid, or
// only half written, change nothing: the error is a usage error that names the flag and the file,
// and no key. Only one Read may run at a time.
func (r *Reader) Read() (changed bool, err error) {
	var read [2][]byte
	for i, name := range []string{"tls.crt", "tls.key"} {
		if read[i], err = ReadFile(r.Files, name); err != nil {
			return false, command.FileInError(r.Flag, r.Directory, name, err)
		}
	}
	if r.pair.Load() != nil && slices.EqualFunc(read[:], r.read[:], bytes.Equal) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(read[0], read[1])
	if err != nil {
		return false, command.FileError(r.Flag, r.Directory, err)
	}
	r.read = read
	r.pair.Store(&pair)
	return true, nil
}

// ReadFile reads a file of at most 1 MiB.
func ReadFile(files fs.FS, name string) ([]byte, error) {
	file, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return data, err
}

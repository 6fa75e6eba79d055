// SPDX-License-Identifier: Apache-2.0

// Package hostfs shows the file system of a host, as it is mounted at some
// root, in the form of an [fs.FS].
//
// Symlinks, absolute ones too, are resolved as if the root were "/", so that
// nothing leads out of it. Opening never blocks, whatever lies there: a FIFO, a
// socket, a device or a directory can be looked at, but not read. What is read
// is bounded.
package hostfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// FS is a host's file system. Its names are those of [fs.FS]: no slash in
// front.
type FS struct {
	root     string
	maxBytes int64
	owner    uint32
}

// New returns the file system below root, of which no file larger than
// maxBytes is read. It fails where root is no directory.
func New(root string, maxBytes int64) (*FS, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("look at the host's root: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("the host's root %s is not a directory", root)
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	return &FS{root: root, maxBytes: maxBytes, owner: stat.Uid}, nil
}

// Owned reports whether a file belongs to the owner of the root directory:
// on a host that is root. Taking the root's owner for it makes the same rule
// hold for a tree that somebody without privileges made.
func (f *FS) Owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == f.owner
}

// Open opens a file for reading. What is not a regular file can only be asked
// for its Stat. The error of a file that is not there wraps [fs.ErrNotExist];
// where that says nothing of the host, since the directory in which it should
// be is a mount of one that the host has deleted, it wraps ESTALE instead.
func (f *FS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	// The handle is one of O_PATH, which nothing on the other side notices.
	handle, err := pathrs.OpenInRoot(f.root, name)
	if err != nil {
		return nil, f.pathError(name, err)
	}
	info, err := handle.Stat()
	if err != nil {
		_ = handle.Close()
		return nil, f.pathError(name, err)
	}
	if !info.Mode().IsRegular() {
		return handle, nil
	}
	file, err := pathrs.Reopen(handle, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	_ = handle.Close()
	if err != nil {
		return nil, f.pathError(name, err)
	}
	return file, nil
}

// ReadFile reads a whole file. It fails on one that is not regular or larger
// than the limit.
func (f *FS) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, f.pathError(name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: "/" + name, Err: errors.New("not a regular file")}
	}
	// One byte more than allowed tells that there is more.
	data, err := io.ReadAll(io.LimitReader(file, f.maxBytes+1))
	if err != nil {
		return nil, f.pathError(name, err)
	}
	if int64(len(data)) > f.maxBytes {
		return nil, &fs.PathError{Op: "read", Path: "/" + name, Err: fmt.Errorf("larger than %d bytes", f.maxBytes)}
	}
	return data, nil
}

// Stat looks at a file without opening it.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrInvalid}
	}
	handle, err := pathrs.OpenInRoot(f.root, name)
	if err != nil {
		return nil, f.pathError(name, err)
	}
	defer func() { _ = handle.Close() }()
	return handle.Stat()
}

// pathError says which path of the host it was, once. A path through a file
// that is no directory does not exist, like any other that is not there.
func (f *FS) pathError(name string, err error) error {
	if cause, ok := errors.AsType[syscall.Errno](err); ok {
		err = cause
	}
	if errors.Is(err, syscall.ENOTDIR) {
		err = fmt.Errorf("%w (%w)", fs.ErrNotExist, err)
	}
	if errors.Is(err, fs.ErrNotExist) && f.inDeleted(name) {
		err = syscall.ESTALE
	}
	return &fs.PathError{Op: "open", Path: "/" + name, Err: err}
}

// inDeleted: the way to a path ends in a directory without a name. Such a one
// can be come by only where it is mounted: the platform replaces directories by
// new ones (library-go pkg/operator/staticpod/internal/atomicdir), and a mount
// goes on showing the old one.
func (f *FS) inDeleted(name string) bool {
	chain := f.Chain(name)
	return len(chain) > 0 && chain[len(chain)-1].Deleted
}

const (
	// maxSymlinks is the kernel's own limit on the way to one file.
	maxSymlinks = 40
	// maxLookups bounds the names that are looked up on the way to one file.
	maxLookups = 256
)

// Directory is a directory as it is now, and a name that is looked up in it.
type Directory struct {
	// Path is where it can be opened, root included, free of symlinks.
	Path string
	// Device and Inode tell it from another one at the same path.
	Device, Inode uint64
	// Name is empty where the way ends here.
	Name string
	// Deleted: it has no name on its file system any more.
	Deleted bool
}

// Chain returns every lookup of a name in an existing directory on the way to
// a path of the host, from the root down, over symlinks and what they point
// to: something must happen to one of these names for the path to lead
// elsewhere. Where the path does not exist the chain ends with the name that is
// missing in its nearest existing ancestor, where it is a directory, with that.
func (f *FS) Chain(hostPath string) []Directory {
	var chain []Directory
	add := func(at, name string) bool {
		// The root alone may be a symlink; the others were found to be none.
		look := os.Lstat
		if at == "/" {
			look = os.Stat
		}
		info, err := look(path.Join(f.root, at))
		if err != nil || !info.IsDir() || len(chain) == maxLookups {
			return false
		}
		stat, _ := info.Sys().(*syscall.Stat_t)
		// Dev is narrower on some architectures.
		device := uint64(stat.Dev) //nolint:unconvert // see above
		chain = append(chain, Directory{path.Join(f.root, at), device, stat.Ino, name, stat.Nlink == 0})
		return true
	}
	at, rest, links := "/", elements(hostPath), 0
	for len(rest) > 0 {
		name := rest[0]
		next := path.Join(at, name)
		rest = rest[1:]
		if next == "/" { // never a link here, even if the root's own path is one
			at = next
			continue
		}
		if !add(at, name) {
			return chain
		}
		target, err := os.Readlink(path.Join(f.root, next))
		if err != nil {
			at = next
			continue
		}
		if links++; links > maxSymlinks {
			return chain
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(elements(target), rest...)
	}
	add(at, "")
	return chain
}

// elements splits a path; ".." stays, path.Join resolves it where it stands.
func elements(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

// SPDX-License-Identifier: Apache-2.0

// Package hostfs provides the file system of a host, mounted at a root directory, as an
// [fs.FS].
//
// In a Pod only a few directories of the host are mounted below the root, and the rest
// belongs to the container. For a path outside these mounts it is not known whether the
// host has a file, so it fails with a [check.NotMountedError] (the rule is in mounts.go).
//
// Symlinks, also absolute ones, are resolved as if the root were "/", so no path leads out
// of it. Open never blocks: a FIFO, a socket, a device or a directory has a Stat, but
// cannot be read. Reads are bounded.
package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

// FS is a host's file system. Names have no leading slash, as in [fs.FS].
type FS struct {
	root     string
	maxBytes int64
	owner    uint32
	// mountinfo is the path of the table that mounts was read from. mountsErr is the
	// error of reading it.
	mountinfo string
	mounts    mounts
	mountsErr error
}

// MountInfo is the kernel's table of this process's mounts (proc_pid_mountinfo(5)).
const MountInfo = "/proc/self/mountinfo"

// New returns the file system below root. ReadFile refuses files larger than maxBytes.
// mountinfo is the path of the table of mounts: [MountInfo], except in tests. New fails if
// root is not a directory.
func New(root string, maxBytes int64, mountinfo string) (*FS, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("find the host's root: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("the host's root %s is not a directory", root)
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	f := &FS{root: root, maxBytes: maxBytes, owner: stat.Uid, mountinfo: mountinfo}
	return f.WithCurrentMounts(), nil
}

// WithCurrentMounts returns the same file system with the present mounts. Each scan calls
// it, so that a scan sees mounts that were added or removed before. If the mounts cannot be
// read, all operations fail with that error.
func (f *FS) WithCurrentMounts() *FS {
	now := *f
	now.mounts, now.mountsErr = readMounts(f.root, f.mountinfo)
	return &now
}

// Owned reports whether a file belongs to the owner of the root directory. On a host this
// is root. So the same rule applies to a tree of files that an unprivileged user made.
func (f *FS) Owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == f.owner
}

// Open opens a file for reading. Anything but a regular file only has a Stat; see
// [FS.ReadDir] for directories. If the host does not have the file, the error wraps
// [fs.ErrNotExist]. If that is not known, it wraps another error: ESTALE if the host has
// deleted what is mounted there, [check.NotMountedError] outside of all mounts.
func (f *FS) Open(name string) (fs.File, error) {
	handle, err := f.handle("open", name)
	if err != nil {
		return nil, err
	}
	info, err := handle.Stat()
	if err != nil {
		_ = handle.Close()
		return nil, f.pathError(name, err)
	}
	if !info.Mode().IsRegular() {
		return handle, nil
	}
	file, err := reopen(handle, 0)
	_ = handle.Close()
	if err != nil {
		return nil, f.pathError(name, err)
	}
	return file, nil
}

// openInRoot opens a path with O_PATH, as pathrs does. On a kernel that has openat2 (5.6 and later) it takes three
// system calls; pathrs takes twenty, and a scan opens dozens of paths.
func openInRoot(root, name string) (*os.File, error) {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(at) }()
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), path.Join(root, name)), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, err
	}
	// For example, the kernel does not have openat2, or something was renamed meanwhile, so that it has to be repeated.
	return pathrs.OpenInRoot(root, name)
}

// reopen opens for reading what a handle with O_PATH is open on.
func reopen(handle *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(selfFD(handle), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), handle.Name()), nil
}

// selfFD returns a path to what a file is open on.
func selfFD(file *os.File) string {
	return "/proc/self/fd/" + strconv.FormatUint(uint64(file.Fd()), 10)
}

// handle opens a path of the host with O_PATH, which has no effect on a FIFO, socket or
// device. It fails on a path that does not belong to the host, or no longer.
func (f *FS) handle(op, name string) (*os.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if f.mountsErr != nil {
		return nil, &fs.PathError{Op: op, Path: "/" + name, Err: f.mountsErr}
	}
	handle, err := openInRoot(f.root, name)
	if err != nil {
		return nil, f.pathError(name, err)
	}
	if f.mounts.whole {
		return handle, nil
	}
	// The real path, after symlinks were followed, decides.
	at, err := os.Readlink(selfFD(handle))
	if err == nil {
		err = f.mounts.problem(f.mounts.hostPath(at))
	}
	if err != nil {
		_ = handle.Close()
		return nil, &fs.PathError{Op: op, Path: "/" + name, Err: err}
	}
	return handle, nil
}

// maxDirEntries bounds the entries of a directory that is listed.
const maxDirEntries = 10_000

// ReadDir lists a directory, sorted by name. It fails on one with more than 10,000
// entries, and as [FS.Open] does.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	handle, err := f.handle("open", name)
	if err != nil {
		return nil, err
	}
	info, err := handle.Stat()
	if err == nil && !info.IsDir() {
		_ = handle.Close()
		return nil, &fs.PathError{Op: "list", Path: "/" + name, Err: errors.New("not a directory")}
	}
	var directory *os.File
	if err == nil {
		directory, err = reopen(handle, unix.O_DIRECTORY)
	}
	_ = handle.Close()
	if err != nil {
		return nil, f.pathError(name, err)
	}
	defer func() { _ = directory.Close() }()
	entries, err := directory.ReadDir(maxDirEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, f.pathError(name, err)
	}
	if len(entries) == 0 && f.deleted(name) { // the host may have files there
		return nil, &fs.PathError{Op: "list", Path: "/" + name, Err: syscall.ESTALE}
	}
	if len(entries) > maxDirEntries {
		return nil, &fs.PathError{Op: "list", Path: "/" + name, Err: fmt.Errorf("more than %d entries", maxDirEntries)}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
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
	// One byte more than allowed shows that the file is too large.
	data := bytes.NewBuffer(make([]byte, 0, min(info.Size(), f.maxBytes)+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(file, f.maxBytes+1)); err != nil {
		return nil, f.pathError(name, err)
	}
	if int64(data.Len()) > f.maxBytes {
		return nil, &fs.PathError{Op: "read", Path: "/" + name, Err: fmt.Errorf("larger than %d bytes", f.maxBytes)}
	}
	return data.Bytes(), nil
}

// Stat returns the info of a file without opening it for reading.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	handle, err := f.handle("stat", name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	return handle.Stat()
}

// Lstat returns the info of a file, and does not follow a symlink.
func (f *FS) Lstat(name string) (info fs.FileInfo, err error) {
	err = f.withParent(name, func(at string) error {
		info, err = os.Lstat(at)
		return err
	})
	return info, err
}

// ReadLink returns the target of a symlink.
func (f *FS) ReadLink(name string) (target string, err error) {
	err = f.withParent(name, func(at string) error {
		target, err = os.Readlink(at)
		return err
	})
	return target, err
}

// withParent opens the parent directory of a name and calls a function with a path to the
// name in it, without following the name itself.
func (f *FS) withParent(name string, call func(at string) error) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrInvalid}
	}
	if f.mountsErr != nil {
		return &fs.PathError{Op: "lstat", Path: "/" + name, Err: f.mountsErr}
	}
	handle, err := openInRoot(f.root, path.Dir(name))
	if err != nil {
		return f.pathError(name, err)
	}
	defer func() { _ = handle.Close() }()
	directory := selfFD(handle)
	if err := call(path.Join(directory, path.Base(name))); err != nil {
		return f.pathError(name, err)
	}
	if f.mounts.whole {
		return nil
	}
	at, err := os.Readlink(directory)
	if err == nil {
		err = f.mounts.problem(path.Join(f.mounts.hostPath(at), path.Base(name)))
	}
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: "/" + name, Err: err}
	}
	return nil
}

// pathError returns an error that names the path of the host, once. A path through a file
// that is not a directory does not exist, like any other missing path.
func (f *FS) pathError(name string, err error) error {
	if cause, ok := errors.AsType[syscall.Errno](err); ok {
		err = cause
	}
	if errors.Is(err, syscall.ENOTDIR) {
		err = fmt.Errorf("%w (%w)", fs.ErrNotExist, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if problem := f.whyAbsenceUnknown(name); problem != nil {
			err = problem
		}
	}
	return &fs.PathError{Op: "open", Path: "/" + name, Err: err}
}

// whyAbsenceUnknown returns why it is not known whether the host has a missing path. It is
// nil if the host does not have it: the path is missing in a directory of the host.
//
// A deleted directory can still be reached through a mount: the platform replaces
// directories by new ones (library-go pkg/operator/staticpod/internal/atomicdir), and a
// mount keeps showing the old one.
func (f *FS) whyAbsenceUnknown(name string) error {
	chain, target := f.walk(name)
	if len(chain) == 0 { // the root itself is gone
		return &check.NotMountedError{Path: "/" + name}
	}
	last := chain[len(chain)-1]
	if last.Deleted {
		return syscall.ESTALE
	}
	inHost := strings.TrimPrefix(last.Path, path.Clean(f.root))
	err := f.mounts.problem(path.Join("/", inHost, last.Name))
	if _, ok := errors.AsType[*check.NotMountedError](err); ok {
		return &check.NotMountedError{Path: target}
	}
	return err
}

// deleted reports whether the last directory on a path was deleted.
func (f *FS) deleted(name string) bool {
	chain, _ := f.walk(name)
	return len(chain) > 0 && chain[len(chain)-1].Deleted
}

const (
	// maxSymlinks is the kernel's own limit for one path.
	maxSymlinks = 40
	// maxLookups bounds the names that are looked up for one path.
	maxLookups = 256
)

// Directory is a directory at this moment, and a name that is looked up in it.
type Directory struct {
	// Path of the directory, including the root and without symlinks.
	Path string
	// Device and Inode distinguish it from another directory at the same path.
	Device, Inode uint64
	// Name is empty if the path ends here.
	Name string
	// AnyName is true if changes of any name in it matter. [FS.Chains] leaves it false.
	AnyName bool
	// Deleted is true if it was deleted and has no name on its file system any more.
	Deleted bool
}

// Chains returns a function that returns, for a path of the host, every lookup of a name in
// an existing directory, from the root down, through symlinks and their targets. One of these
// names must change before the path can lead to another file. If the path does not exist, the
// chain ends with the name that is missing in its nearest existing ancestor. If it is a
// directory, the chain ends with that. Paths have most directories in common, so the function
// looks up each name once: use it for one pass only.
func (f *FS) Chains() func(hostPath string) []Directory {
	known := lookups{root: f.root, known: map[entry]lookup{}}
	return func(hostPath string) []Directory {
		chain, _ := known.walk(hostPath)
		return chain
	}
}

// walk returns the chain, and the target of the path as far as it could be followed.
func (f *FS) walk(hostPath string) (chain []Directory, target string) {
	known := lookups{root: f.root, known: map[entry]lookup{}}
	return known.walk(hostPath)
}

// lookups are the results of lookups of names in directories of the host.
type lookups struct {
	root  string
	known map[entry]lookup
}

// entry is a name in a directory, a path on the host. The root is the zero value.
type entry struct{ directory, name string }

// lookup is what a path on the host is: a symlink to a target, or a directory if isDir is true.
type lookup struct {
	path          string
	isLink, isDir bool
	target        string
	Directory
}

func (l lookups) look(at entry) lookup {
	if known, ok := l.known[at]; ok {
		return known
	}
	found := lookup{path: path.Join("/", at.directory, at.name)}
	// The root may be a symlink.
	stat, full := os.Lstat, path.Join(l.root, found.path)
	if found.path == "/" {
		stat = os.Stat
	}
	info, err := stat(full)
	switch {
	case err != nil:
	case info.Mode()&fs.ModeSymlink != 0:
		found.target, err = os.Readlink(full)
		found.isLink = err == nil
	case info.IsDir():
		system, _ := info.Sys().(*syscall.Stat_t)
		// Dev is narrower on some architectures.
		device := uint64(system.Dev) //nolint:unconvert // see above
		found.isDir = true
		found.Directory = Directory{Path: full, Device: device, Inode: system.Ino, Deleted: system.Nlink == 0}
	}
	l.known[at] = found
	return found
}

func (l lookups) walk(hostPath string) (chain []Directory, target string) {
	add := func(at lookup, name string) bool {
		if !at.isDir || len(chain) == maxLookups {
			return false
		}
		at.Name = name
		chain = append(chain, at.Directory)
		return true
	}
	root := l.look(entry{})
	at, rest, links := root, elements(hostPath), 0
	for len(rest) > 0 {
		next := l.look(entry{at.path, rest[0]})
		if next.path == "/" { // not a symlink here, even if the root's own path is one
			at, rest = root, rest[1:]
			continue
		}
		if !add(at, rest[0]) {
			return chain, path.Join(append([]string{next.path}, rest[1:]...)...)
		}
		rest = rest[1:]
		if !next.isLink {
			at = next
			continue
		}
		if links++; links > maxSymlinks {
			return chain, next.path
		}
		if path.IsAbs(next.target) {
			at = root
		}
		rest = append(elements(next.target), rest...)
	}
	add(at, "")
	return chain, at.path
}

// elements splits a path. It keeps "..", which path.Join resolves later.
func elements(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

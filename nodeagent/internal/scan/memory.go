// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
)

// Memory saves a scan the parsing of what has not changed: which files the kube-apiserver uses depends only on the
// answers of the host's file system. Each scan asks the file system all questions again. If each has the same answer as
// in the last scan, the result is the same. Otherwise, everything is parsed again.
//
// The zero value remembers nothing. It is not safe for concurrent use.
type Memory struct {
	given staticpod.Given
	asked []question
	found staticpod.Found
}

// discover is [staticpod.Discover]. The value nil of m remembers nothing.
func (m *Memory) discover(host fs.FS, given staticpod.Given) staticpod.Found {
	if m == nil {
		return staticpod.Discover(host, given)
	}
	if m.isCurrent(host, given) {
		return m.found
	}
	recorded := recorder{host: host}
	m.found = staticpod.Discover(&recorded, given)
	m.given, m.asked = given, recorded.asked
	return m.found
}

func (m *Memory) isCurrent(host fs.FS, given staticpod.Given) bool {
	if len(m.asked) == 0 || m.given != given {
		return false
	}
	for _, q := range m.asked {
		if q.kind.ask(host, q.name).sum() != q.sum {
			return false
		}
	}
	return true
}

// question is a question to a file system, with the checksum of its answer.
type question struct {
	kind kind
	name string
	sum  [sha256.Size]byte
}

type kind int

const (
	ofFile kind = iota // the content
	ofDirectory
	ofLink   // the target
	stat     // follows links
	lstat    // does not
	openStat // opens a file, which package hostfs treats differently, and then is stat
)

// answer to a question. It has all that may be used of it.
type answer struct {
	data    []byte
	entries []fs.DirEntry
	target  string
	info    fs.FileInfo
	err     error
}

func (k kind) ask(host fs.FS, name string) (a answer) {
	switch k {
	case ofFile:
		a.data, a.err = fs.ReadFile(host, name)
	case ofDirectory:
		a.entries, a.err = fs.ReadDir(host, name)
		for i, entry := range a.entries {
			a.entries[i] = named{base: entry.Name(), mode: entry.Type()}
		}
	case ofLink:
		a.target, a.err = fs.ReadLink(host, name)
	case stat:
		a.setInfo(fs.Stat(host, name))
	case lstat:
		a.setInfo(fs.Lstat(host, name))
	case openStat:
		var file fs.File
		if file, a.err = host.Open(name); a.err == nil {
			a.setInfo(file.Stat())
			_ = file.Close()
		}
	}
	return a
}

func (a *answer) setInfo(info fs.FileInfo, err error) {
	if a.err = err; err == nil {
		a.info = named{base: info.Name(), mode: info.Mode(), size: info.Size()}
	}
}

func (a answer) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	if a.err != nil {
		hashField(h, a.err.Error())
	}
	hashField(h, a.data)
	hashField(h, a.target)
	if a.info != nil {
		hashField(h, fmt.Sprint(a.info))
	}
	for _, entry := range a.entries {
		hashField(h, fmt.Sprint(entry))
	}
	h.Sum(sum[:0])
	return sum
}

// named is a file or an entry of a directory, with all that may be used of it.
type named struct {
	base string
	mode fs.FileMode
	size int64
}

var errNoInfo = errors.New("the information about an entry of a directory is not recorded")

func (n named) String() string             { return fmt.Sprintf("%s %v %d", n.base, n.mode, n.size) }
func (n named) Name() string               { return n.base }
func (n named) Mode() fs.FileMode          { return n.mode }
func (n named) Type() fs.FileMode          { return n.mode.Type() }
func (n named) IsDir() bool                { return n.mode.IsDir() }
func (n named) Size() int64                { return n.size }
func (n named) ModTime() time.Time         { return time.Time{} }
func (n named) Sys() any                   { return nil }
func (n named) Info() (fs.FileInfo, error) { return nil, errNoInfo }

// recorder is a file system that records what it is asked.
type recorder struct {
	host  fs.FS
	asked []question
}

func (r *recorder) ask(k kind, name string) answer {
	a := k.ask(r.host, name)
	r.asked = append(r.asked, question{k, name, a.sum()})
	return a
}

// ReadFile implements [fs.ReadFileFS].
func (r *recorder) ReadFile(name string) ([]byte, error) {
	a := r.ask(ofFile, name)
	return a.data, a.err
}

// ReadDir implements [fs.ReadDirFS].
func (r *recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	a := r.ask(ofDirectory, name)
	return a.entries, a.err
}

// ReadLink implements [fs.ReadLinkFS].
func (r *recorder) ReadLink(name string) (string, error) {
	a := r.ask(ofLink, name)
	return a.target, a.err
}

// Stat implements [fs.StatFS].
func (r *recorder) Stat(name string) (fs.FileInfo, error) {
	a := r.ask(stat, name)
	return a.info, a.err
}

// Lstat implements [fs.ReadLinkFS].
func (r *recorder) Lstat(name string) (fs.FileInfo, error) {
	a := r.ask(lstat, name)
	return a.info, a.err
}

// Open implements [fs.FS]. The file only has a Stat; use ReadFile to read it.
func (r *recorder) Open(name string) (fs.File, error) {
	a := r.ask(openStat, name)
	return opened{a.info}, a.err
}

type opened struct{ info fs.FileInfo }

var errNotRecorded = errors.New("reading an open file is not recorded")

func (o opened) Stat() (fs.FileInfo, error) { return o.info, nil }
func (o opened) Read([]byte) (int, error)   { return 0, errNotRecorded }
func (o opened) Close() error               { return nil }

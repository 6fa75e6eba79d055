// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// Host is a control-plane node's tree of files.
type Host struct {
	Tree openshift.Tree
	CA   *pkitest.CA
	// Random decides on orders.
	Random *rand.Rand
	// Pause is called between two steps of a writer.
	Pause func()

	// pair is the pair that was written last.
	pair pkitest.Pair
	made int // counts generated names
	// shortLived are the fingerprints of pairs that existed only for a moment. The agent may report them.
	shortLived map[string]bool
}

// NewHost lays out a host of OpenShift 4.9 or later with a valid pair.
func NewHost(root string, random *rand.Rand, pause func()) (*Host, error) {
	return NewHostOf(openshift.Current, root, random, pause)
}

// NewHostOf lays out a host of any layout with a valid pair.
func NewHostOf(layout openshift.Layout, root string, random *rand.Rand, pause func()) (*Host, error) {
	h := &Host{CA: pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", time.Now()), Random: random, Pause: pause,
		shortLived: map[string]bool{}, Tree: openshift.Tree{Layout: layout}}
	h.pair = h.Pair()
	tree, err := openshift.Write(root, layout, h.files())
	h.Tree = tree
	return h, err
}

// Pair makes a valid pair.
func (h *Host) Pair() pkitest.Pair {
	now := time.Now()
	return h.Issue(h.Tree.Layout.ClientRequest().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
}

// Issue makes a pair that the node's CA signs.
func (h *Host) Issue(r pkitest.Request) pkitest.Pair { return padded(h.CA.Issue(r)) }

// fileBytes is the size of every file that is written, so that no change can be detected by the size.
const fileBytes = 2 << 10

func padded(p pkitest.Pair) pkitest.Pair {
	p.Certificate, p.Key = pad(p.Certificate), pad(p.Key)
	return p
}

func pad(text []byte) []byte {
	return append(bytes.Clone(text), bytes.Repeat([]byte("\n"), max(0, fileBytes-len(text)))...)
}

func (h *Host) files() openshift.Files {
	return openshift.Files{
		Certificate: h.pair.Certificate, Key: h.pair.Key, ClientCA: h.CA.PEM(), Revision: h.Tree.Revision,
	}
}

// contents are the contents of the pair by file name, one map for each file, in random order.
func (h *Host) contents(p pkitest.Pair) []map[string][]byte {
	both := []map[string][]byte{
		{filepath.Base(h.Tree.Certificate()): p.Certificate},
		{filepath.Base(h.Tree.Key()): p.Key},
	}
	h.Random.Shuffle(len(both), func(i, j int) { both[i], both[j] = both[j], both[i] })
	return both
}

func (h *Host) together(p pkitest.Pair) map[string][]byte {
	return map[string][]byte{filepath.Base(h.Tree.Certificate()): p.Certificate, filepath.Base(h.Tree.Key()): p.Key}
}

// Writer is one way of writing a pair.
type Writer struct {
	Name  string
	write func(h *Host, p pkitest.Pair) error
}

// Write writes a pair and pauses in between.
func (w Writer) Write(h *Host, p pkitest.Pair) error {
	if err := os.MkdirAll(h.Tree.Directory(), 0o755); err != nil {
		return err
	}
	if err := w.write(h, p); err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	h.pair = p
	return nil
}

// Writers are all ways.
func Writers() []Writer {
	return []Writer{
		{"in place", func(h *Host, p pkitest.Pair) error { return h.each(p, openshift.WriteInPlace) }},
		{"file by file, by rename", func(h *Host, p pkitest.Pair) error { return h.each(p, openshift.WriteAtomically) }},
		{"in place, same size and mtime", func(h *Host, p pkitest.Pair) error { return h.each(p, sameTime) }},
		{"directory exchanged", (*Host).exchange},
		{"directory exchanged twice", func(h *Host, p pkitest.Pair) error {
			first := h.Pair()
			h.shortLived[pki.Fingerprint(first.Leaf)] = true
			return errors.Join(h.exchange(first), h.exchange(p))
		}},
		{"directory exchanged for the same, then for another", func(h *Host, p pkitest.Pair) error {
			if err := h.exchange(h.pair); err != nil {
				return err
			}
			h.Pause()
			return h.exchange(p)
		}},
		{"directory removed and recreated", func(h *Host,
			p pkitest.Pair) error {
			return h.recreate(h.Tree.Directory(), p)
		}},
		{"parent directory removed and recreated", func(h *Host, p pkitest.Pair) error {
			return h.recreate(filepath.Dir(h.Tree.Directory()), p)
		}},
		{"..data swapped", (*Host).swapData},
		{"target of a link replaced", (*Host).replaceTarget},
		{"new revision", (*Host).revise},
	}
}

// Restarts are the ways in which a program that writes its pair when it starts does so: both files in place
// (MicroShift, k3s, RKE2), which kubeadm does as well.
func Restarts() []Writer {
	return slices.DeleteFunc(Writers(), func(w Writer) bool { return !strings.HasPrefix(w.Name, "in place") })
}

// each writes one file after the other.
func (h *Host) each(p pkitest.Pair, write func(string, map[string][]byte) error) error {
	for _, file := range h.contents(p) {
		if err := write(h.Tree.Directory(), file); err != nil {
			return err
		}
		h.Pause()
	}
	return nil
}

// sameTime overwrites files and restores their modification time.
func sameTime(directory string, files map[string][]byte) error {
	for name, data := range files {
		path := filepath.Join(directory, name)
		before, err := os.Stat(path)
		if err := errors.Join(ignore(err, fs.ErrNotExist), os.WriteFile(path, data, 0o600)); err != nil {
			return err
		}
		if before != nil {
			if err := os.Chtimes(path, before.ModTime(), before.ModTime()); err != nil {
				return err
			}
		}
	}
	return nil
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func (h *Host) exchange(p pkitest.Pair) error {
	return openshift.SwapDirectory(h.Tree.Directory(), h.Tree.Staging(), h.together(p))
}

func (h *Host) recreate(from string, p pkitest.Pair) error {
	if err := os.RemoveAll(from); err != nil {
		return err
	}
	h.Pause()
	if err := os.MkdirAll(h.Tree.Directory(), 0o755); err != nil {
		return err
	}
	return h.each(p, openshift.WriteInPlace)
}

// swapData writes as the kubelet does for volumes (kubernetes pkg/volume/util/atomic_writer.go): the
// names are links through ..data, which is itself a link that is replaced.
func (h *Host) swapData(p pkitest.Pair) error {
	directory := h.Tree.Directory()
	data := filepath.Join(directory, "..data")
	before, err := os.Readlink(data)
	if ignore(err, fs.ErrNotExist) != nil {
		return err
	}
	now := h.name("..2026")
	if err := os.Mkdir(filepath.Join(directory, now), 0o755); err != nil {
		return err
	}
	if err := openshift.WriteInPlace(filepath.Join(directory, now), h.together(p)); err != nil {
		return err
	}
	h.Pause()
	if err := h.link(now, data); err != nil {
		return err
	}
	for name := range h.together(p) {
		if err := h.link(filepath.Join("..data", name), filepath.Join(directory, name)); err != nil {
			return err
		}
	}
	if before == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(directory, before))
}

// replaceTarget makes the names links to files in another directory, which are then replaced. The
// links are relative: otherwise the other writers, which do not run in a chroot, would follow them out
// of the tree.
func (h *Host) replaceTarget(p pkitest.Pair) error {
	return h.elsewhere(p, "var/lib/kubelet-client", "var/lib/kubelet-client")
}

// elsewhere writes the pair to the directory stored, and makes the names links to the directory named.
// This is the same directory, or the one at which it is mounted.
func (h *Host) elsewhere(p pkitest.Pair, stored, named string) error {
	store := filepath.Join(h.Tree.Root, stored)
	for _, directory := range []string{store, filepath.Join(h.Tree.Root, named)} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return err
		}
	}
	toStore, err := filepath.Rel(h.Tree.Directory(), filepath.Join(h.Tree.Root, named))
	if err != nil {
		return err
	}
	for _, file := range h.contents(p) {
		if err := openshift.WriteAtomically(store, file); err != nil {
			return err
		}
		for name := range file {
			if err := h.link(filepath.Join(toStore, name), filepath.Join(h.Tree.Directory(), name)); err != nil {
				return err
			}
		}
		h.Pause()
	}
	return nil
}

// link replaces what is at path by a link, unless it is that link already.
func (h *Host) link(target, path string) error {
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	temporary := filepath.Join(filepath.Dir(path), h.name("..link"))
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func (h *Host) name(prefix string) string {
	h.made++
	return fmt.Sprintf("%s_%d", prefix, h.made)
}

// revise installs a new revision as OpenShift's installer and pruner do: first its directory, then the
// manifest, which is removed and recreated, then the old revision is removed. The new revision may be
// of a release that keeps the pair in another directory.
func (h *Host) revise(p pkitest.Pair) error {
	before := h.Tree
	scratch := filepath.Join(h.Tree.Root, "var/lib/installer")
	files := openshift.Files{Certificate: p.Certificate, Key: p.Key, ClientCA: h.CA.PEM(), Revision: before.Revision + 1}
	layout := openshift.Current
	if h.Random.IntN(2) == 0 {
		layout = openshift.Legacy
	}
	made, err := openshift.Write(scratch, layout, files)
	if err != nil {
		return err
	}
	folder := func(t openshift.Tree) string { return filepath.Dir(filepath.Dir(filepath.Dir(t.Config()))) }
	after := made
	after.Root = before.Root
	if err := os.Rename(folder(made), folder(after)); err != nil {
		return err
	}
	manifest, err := os.ReadFile(made.Manifest())
	if err != nil {
		return err
	}
	h.Tree = after
	if layout == openshift.Current {
		if err := h.exchange(p); err != nil {
			return err
		}
	}
	h.Pause()
	if err := ignore(os.Remove(before.Manifest()), fs.ErrNotExist); err != nil {
		return err
	}
	h.Pause()
	if err := os.WriteFile(after.Manifest(), manifest, 0o600); err != nil {
		return err
	}
	h.Pause()
	return errors.Join(os.RemoveAll(folder(before)), os.RemoveAll(scratch))
}

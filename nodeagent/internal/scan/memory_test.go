// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestMemory changes a host again and again, in random ways: a scan with a memory has the same results as one that
// parses everything.
func TestMemory(t *testing.T) {
	const changes = 40
	ca := pkitest.NewCA("signer")
	for _, layout := range []openshift.Layout{
		openshift.Current, openshift.Legacy, openshift.Oldest, openshift.Kubeadm, openshift.MicroShift, openshift.K3s,
		openshift.RKE2,
	} {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			n := newNode(t, layout, ca, ca.Issue(layout.ClientRequest()))
			var paths []string
			must(t, filepath.WalkDir(n.Root, func(path string, _ fs.DirEntry, err error) error {
				if path != n.Root {
					paths = append(paths, path)
				}
				return err
			}))
			var memory scan.Memory
			compare := func(what string) {
				t.Helper()
				sources := scan.Sources{Host: n.host.WithCurrentMounts()}
				want := scan.Scan(sources, scan.Options{}, pkitest.Now())
				sources.Memory = &memory
				for range 2 { // the second time nothing has changed
					got := scan.Scan(sources, scan.Options{}, pkitest.Now())
					if d := cmp.Diff(want.Results(), got.Results()); d != "" {
						t.Fatalf("seed %d, %s: results (-without +with memory):\n%s", seed, what, d)
					}
					if want.Contents != got.Contents || !slices.Equal(want.Found.Paths(), got.Found.Paths()) {
						t.Fatalf("seed %d, %s: contents or paths differ", seed, what)
					}
				}
			}
			compare("no change")
			for range changes {
				path := paths[random.IntN(len(paths))]
				what, undo := changed(t, random, path)
				compare(what + " " + path)
				if undo != nil {
					undo()
					compare("undone: " + what + " " + path)
				}
			}
		})
	}
}

// changed makes a random change of a file or directory. It may fail, if an earlier one removed it. undo is nil if the
// change remains.
func changed(t *testing.T, random *rand.Rand, path string) (what string, undo func()) {
	t.Helper()
	data, readErr := os.ReadFile(path)
	write := func(data []byte) { _ = os.WriteFile(path, data, 0o600) }
	kinds := []string{"moved", "moved and replaced by a link", "new file in", "mode of"}
	if readErr == nil {
		kinds = append(kinds, "cut", "byte replaced in", "appended to", "written again")
	}
	switch what = kinds[random.IntN(len(kinds))]; what {
	case "moved", "moved and replaced by a link":
		away := path + ".away"
		_ = os.Rename(path, away)
		if what != "moved" {
			_ = os.Symlink(filepath.Base(away), path)
		}
		return what, func() {
			_ = os.Remove(path)
			_ = os.Rename(away, path)
		}
	case "new file in":
		file := filepath.Join(path, []string{"10-x.conf", "x.yaml", ".x"}[random.IntN(3)])
		_ = os.WriteFile(file, nil, 0o600)
		return what, func() { _ = os.Remove(file) }
	case "mode of":
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Chmod(path, 0o777))
		return what, func() { must(t, os.Chmod(path, info.Mode())) }
	case "cut":
		write(data[:random.IntN(len(data)+1)])
	case "byte replaced in":
		replaced := slices.Clone(data)
		if len(replaced) > 0 {
			replaced[random.IntN(len(replaced))] = "x\n\" :[{"[random.IntN(7)]
		}
		write(replaced)
	case "appended to":
		write(append(slices.Clone(data), "\nx: y\n"...))
	case "written again":
		write(data)
		return what, nil
	}
	return what, func() { write(data) }
}

// counted counts the files that a scan opens.
type counted struct {
	scan.Host
	reads int
}

func (c *counted) Open(name string) (fs.File, error) {
	c.reads++
	return c.Host.Open(name)
}

// TestMemoryObserves: a memory saves no look at the host.
func TestMemoryObserves(t *testing.T) {
	ca := pkitest.NewCA("signer")
	n := newNode(t, openshift.Current, ca, ca.Issue(pkitest.KubeletClient()))
	reads := func(memory *scan.Memory) int {
		host := &counted{Host: n.host}
		scan.Scan(scan.Sources{Host: host, Memory: memory}, scan.Options{}, pkitest.Now())
		return host.reads
	}
	var memory scan.Memory
	want := reads(nil)
	for range 3 {
		if got := reads(&memory); got != want {
			t.Errorf("a scan with a memory opens %d files, one without %d", got, want)
		}
	}
}

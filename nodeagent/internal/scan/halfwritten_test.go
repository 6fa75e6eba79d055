// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestHalfWrittenFile: the agent scans at the first event, when a writer may not be done. A file that is cut anywhere
// either changes nothing that is reported, or is a finding from files. Nothing is reported while that is pending.
func TestHalfWrittenFile(t *testing.T) {
	type reported struct {
		Findings         []string
		How, Certificate string
		Leaf             string // of a pair that counts as valid
	}
	of := func(s scan.Snapshot) reported {
		r := reported{Findings: lines(s.FileResults), How: s.Found.How, Certificate: s.Found.Certificate.Host}
		if s.Valid {
			r.Leaf = string(s.Leaf.Raw)
		}
		return r
	}
	ca := pkitest.NewCA("signer")
	for _, layout := range []openshift.Layout{
		openshift.Current, openshift.Legacy, openshift.Oldest, openshift.Kubeadm, openshift.MicroShift, openshift.K3s,
		openshift.RKE2,
	} {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, layout, ca, ca.Issue(layout.ClientRequest()))
			next := ca.Issue(layout.ClientRequest())
			whole := of(scanHost(t, n.host, scan.Options{}, pkitest.Now()))
			must(t, filepath.WalkDir(n.Root, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() {
					return err
				}
				before, err := os.ReadFile(path)
				must(t, err)
				data := before
				switch path {
				case n.Certificate():
					data = next.Certificate
				case n.Key():
					data = next.Key
				}
				for _, size := range cuts(data) {
					must(t, os.WriteFile(path, data[:size], 0o600))
					got := of(scanHost(t, n.host, scan.Options{}, pkitest.Now()))
					isNew := func(f string) bool { return !slices.Contains(whole.Findings, f) }
					if !slices.ContainsFunc(got.Findings, isNew) && !cmp.Equal(whole, got) {
						t.Errorf("%s, cut to %d of %d bytes (-whole +cut):\n%s", path, size, len(data), cmp.Diff(whole, got))
					}
				}
				return os.WriteFile(path, before, 0o600)
			}))
		})
	}
}

// cuts returns lengths of the beginning of a text that was not written to the end: all lines, and a few in between.
func cuts(text []byte) []int {
	const between = 20
	sizes := []int{0}
	for line := range strings.Lines(string(text)) {
		sizes = append(sizes, sizes[len(sizes)-1]+len(line))
	}
	for i := range between {
		sizes = append(sizes, i*len(text)/between)
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	return sizes[:len(sizes)-1] // the last one is the whole text
}
